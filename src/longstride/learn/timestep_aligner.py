"""Timestep aligner: each step tells the network the time whose direction leads to the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..core import Field, Step
from ..denoiser import Denoiser
from ..guidance import Guidance
from ..plan import Plan
from ..process import Process
from .stepwise import fit_steps
from .time_shift import tabulated


@torch.no_grad()
def timestep_aligner(
    model: Denoiser,
    plan: Plan,
    *,
    samples: int = 64,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> Denoiser:
    """The model whose network is told tau_i instead of t_i, for sampling with this plan.

    A step from t_i holds the prediction at its beginning still. The mean-value theorem has it that another
    direction on the way would lead to the truth; what the network says of x_i when it is told a time
    tau_i between is such a direction. With tau_i = p t_i, p_i is where the step ends nearest to the converged
    trajectory, from the state that the steps before lead to (`stepwise.fit_steps`). The paper looks for p_i
    by gradient steps on how little the prediction changes over the step.

    Only what the network is told changes: grid and weights stay, so that tau = t is the plan as it was. A
    plan cannot say this, as `Stage.at` also converts and scales predictions; so it is a plan and a retimed
    model, as with `time_shift`. A step of several evaluations has one p for those that it makes; a time
    evaluated twice has the first step's.

    Args:
        plan: a deterministic one.
        samples: noises to fit to.  cond: as for `sample`, for all `samples`.

    Returns:
        The model, retimed: `model.told(t)` is tau at the plan's times, linear between. All tau lie within
        the process's [t_min, t_max].

    Raises:
        ArgumentError: a plan that draws noise or is for another process, or no samples.

    Reference: Xia et al. 2024, "Towards more accurate diffusion model acceleration with a timestep aligner"
    (later "... timestep tuner").
    """
    given = model.conditioning(cond, samples, model.device)

    def aligned(p: Sequence[float]) -> Denoiser:
        return tabulated(model, _told(model.process, plan, p))

    def made(p: Sequence[float]) -> tuple[Sequence[Field], Sequence[Step]]:
        return aligned(p).fields(given, guidance), plan.steps

    return aligned(fit_steps(model, plan, made, 1.0, samples, seed, cond, guidance)[0])


def _told(process: Process, plan: Plan, numbers: Sequence[float]) -> dict[float, float]:
    """tau at every time that the plan evaluates at: p t with the p of the first step that does."""
    table: dict[float, float] = {}
    for step, p in zip(plan.steps, numbers, strict=True):
        for t in (stage.at for stage in step.stages if stage.at is not None):
            table.setdefault(t, min(max(p * t, process.t_min), process.t_max) if p != 1 else t)
    return table
