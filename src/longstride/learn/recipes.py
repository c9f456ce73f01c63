"""Published ways to make a plan for one model, each by its name in the literature, for `tune` to try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..denoiser import Denoiser
from ..plan import Plan
from ..sampling import plan_sampling
from .align_your_steps import align_your_steps
from .autodiffusion import autodiffusion
from .d_ode import d_ode
from .dc_solver import dc_solver
from .iia import iia
from .model_statistics import dpm_solver_v3
from .optimal_times import optimal_times
from .search_times import beta_times, cma_search, coordinate_search, endpoint_cost
from .solver_schedule import solver_schedule
from .subject import Sampling
from .trajectories import Trajectories

SAMPLES = 64  # noises that a recipe looks at
JUDGED = 200  # plans that an evolution judges
APART = 2**32  # from the seeds of tune's own noises


@dataclass(frozen=True)
class Request:
    """What a recipe starts from: the model, its solutions from some noises, and the best published plan."""

    subject: Sampling
    model: Denoiser
    nfe: int
    paths: Trajectories
    best: Plan
    seed: int

    @property
    def given(self) -> dict[str, Any]:
        """Conditions for the first noises, and the guidance."""
        rows = torch.arange(len(self.paths.end))
        return {"cond": self.subject.cond(rows), "guidance": self.subject.guidances[0]}

    @property
    def method(self) -> dict[str, Any]:
        return {"method": self.best.method, **self.best.options}

    @property
    def searched(self) -> dict[str, Any]:
        return {"samples": SAMPLES, "seed": self.seed + APART, **self.given}

    def on(self, times: list[float]) -> Plan:
        """The best method on other times."""
        return plan_sampling(self.model.process, grid=times, nfe=self.nfe, **self.method)

    def cost(self) -> Any:
        return endpoint_cost(self.model, self.paths, **self.method, **self.given)

    @property
    def positive(self) -> list[float]:
        """The best plan's times, without clean data."""
        return list(self.best.times[:-1])


def _gits(r: Request) -> Plan:
    return r.on(optimal_times(r.model, len(r.positive), r.paths, **r.given))


def _align_your_steps(r: Request) -> Plan:
    return r.on(align_your_steps(r.model, len(r.positive), r.paths.end, **r.given))


def _beta(r: Request) -> Plan:
    return r.on(beta_times(r.model.process, len(r.positive), r.cost()))


def _coordinates(r: Request) -> Plan:
    return r.on(coordinate_search(r.model.process, r.positive, r.cost()))


def _cma(r: Request) -> Plan:
    return r.on(cma_search(r.model.process, r.positive, r.cost(), evaluations=JUDGED, seed=r.seed))


RECIPES: dict[str, Callable[[Request], Plan]] = {
    "gits": _gits,
    "align_your_steps": _align_your_steps,
    "beta": _beta,
    "coordinates": _coordinates,
    "cma": _cma,
    "s3": lambda r: solver_schedule(r.model, r.nfe, evaluations=JUDGED, **r.searched),
    "autodiffusion": lambda r: autodiffusion(r.model, r.nfe, evaluations=JUDGED, **r.method, **r.searched),
    "dc_solver": lambda r: dc_solver(r.model, r.nfe, **r.searched),
    "d_ode": lambda r: d_ode(r.model, r.nfe, grid=r.positive, **r.method, **r.searched),
    "iia": lambda r: iia(r.model, r.nfe, grid=r.positive, **r.method, **r.searched),
    "dpm_v3": lambda r: dpm_solver_v3(r.model, r.nfe, **r.searched),
}
