"""The problem of P001 as a task: a parameter of Hermite's steps for every tenth of a year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..environments.decisions import LEAST, Run, Seen, Task, digits, drift
from ..environments.networks import names
from .gravity import Gravity
from .rollouts import rollout
from .rules import collision
from .starts import YEAR, three_stars_at

PARAMETERS = tuple(torch.logspace(-4, -1, 10, dtype=torch.float64).tolist())
TENTH = YEAR / 10  # of a decision
MOST = 1_000_000  # steps of a decision


@dataclass(frozen=True)
class Places:
    """Places/10, velocities and the digits of the energy of states [B, 2, n, d], as in P001."""

    n: int = 3
    d: int = 2

    @property
    def names(self) -> tuple[str, ...]:
        size = (self.n, self.d)
        return (*names("q", size, "/10"), *names("v", size), "digits of the energy")

    def __call__(self, seen: Seen) -> Tensor:
        q, v = (part.flatten(1) for part in seen.x.unbind(1))
        return torch.cat([q / 10, v, digits(seen.error)[:, None]], 1)


def paper(seen: Seen) -> Tensor:
    """The reward of P001: with e the energy error after decision i, made with the parameter mu,

        -3000 log10(e/1e-10)/(|log10 e|^3 i) + 4/|log10 mu|

    and 0 of the first decision. e is at most 0.5 here: the expression has a pole at 1, behind the end of an
    episode. The form and the weights are those of the authors' published settings for Hermite's method.
    """
    log = seen.error.clamp(LEAST, 0.5).nan_to_num(0.5).log10()
    found = -3000 * (log + 10) / (log.abs() ** 3 * seen.made) + 4 / seen.value.log10().abs()
    return torch.where(seen.made > 1, found, 0.0)


def hermite_steps(gravity: Gravity, every: float = TENTH, compile: bool = False) -> Run:
    """A share of the collision time, by `rollout`: the steps of `Solved` by `hermite_collision`, faster.

    A system whose error has bound it so closely that a decision takes more than `MOST` steps is lost.
    """

    def run(x: Tensor, t: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        found = rollout(gravity, x, every, collision, value[None], MOST, compile)
        return torch.where((found.steps < MOST)[:, None, None, None], found.x, torch.nan), found.steps

    return run


def three_stars_task(compile: bool = False, **more: Any) -> Task:
    """Three stars of one solar mass from random starts, ten parameters from 1e-4 to 1e-1 for every tenth of a
    year, 100 decisions (300 in the paper's tests: decisions=300), an end at |E/E_0 - 1| > 0.1.

    compile: see `rollout`; it pays where there are many systems.  more: what else a `Task` takes, in place of
    the paper's.
    """
    stars = Gravity(torch.ones(3, dtype=torch.float64))
    given: dict[str, Any] = {
        "start": lambda seed: stars.start(*three_stars_at(1, seed))[0],
        "run": hermite_steps(stars, compile=compile),
        "deviation": drift(stars.energy),
        "every": TENTH,
        "values": () if more.get("between") else PARAMETERS,
        "observe": Places(),
        "reward": paper,
    }
    return Task(**(given | more))
