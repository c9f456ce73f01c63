"""How far a parameter carries systems until the next decision: runs of `ls.solve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, Diverged
from ..integrate import solve
from ..problem import ODE

OF_EACH = ("rtol", "atol")  # parameters that may be each sample's own in one run


@dataclass(frozen=True)
class Solved:
    """Runs of any method over `every`. Its parameter is "rtol" or "atol" where it chooses its steps (rtol is
    eta of `hermite_aarseth` and the share of `hermite_collision`), or "dt" where they are equal.

    options: others of `ls.solve`.

    Tolerances are each system's own in one run. Equal steps are a batch's: there is a run for each dt, and
    one for each of the times that systems stand at. The state of one that went to infinity is NaN.
    """

    problem: ODE
    method: str
    every: float
    parameter: str = "rtol"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parameter not in (*OF_EACH, "dt"):
            raise ArgumentError(f"parameter = {self.parameter!r}: rtol, atol or dt")

    def __call__(self, x: Tensor, t: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        shared = torch.zeros_like(value) if self.parameter in OF_EACH else value
        groups, place = torch.stack([t.to(value), shared], 1).unique(dim=0, return_inverse=True)
        x1, evaluations = torch.empty_like(x), torch.zeros_like(value)
        for k in range(len(groups)):
            who = (place == k).nonzero()[:, 0]
            x1[who], evaluations[who] = self._together(x[who], float(groups[k, 0]), value[who])
        return x1, evaluations

    def _together(self, x: Tensor, t: float, value: Tensor) -> tuple[Tensor, Tensor]:
        own = value.view(-1, *(1,) * (x.ndim - 1)) if self.parameter in OF_EACH else float(value[0])
        given = {self.parameter: own, **self.options}
        try:
            found = solve(self.problem, x, t=(t, t + self.every), method=self.method, grad=False, **given)
        except Diverged:
            if len(x) > 1:  # who failed should not take others with it
                parts = [self._together(x[i : i + 1], t, value[i : i + 1]) for i in range(len(x))]
                ends, costs = zip(*parts, strict=True)
                return torch.cat(ends), torch.cat(costs)
            return torch.full_like(x, torch.nan), torch.zeros_like(value)
        each = found.stats.nfe_each
        end = found.x_end if found.x_end is not None else found.x[-1]
        return end, torch.full_like(value, found.stats.nfe) if each is None else each.to(value)
