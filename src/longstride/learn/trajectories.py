"""The converged solutions that everything learned is measured against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..guidance import Guidance
from ..sampling import plan_reference, sample
from .axis import Axis, Diffusion

NODES = 4  # of the interpolation between known states, whose error is of this order


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Where the exact flow is, from n starts: states [K, n, *shape] at K falling times, and the end.

    The first state is what they begin from, at the first time. The end is [n, *shape].
    """

    axis: Axis
    times: tuple[float, ...]
    states: Tensor
    end: Tensor

    @property
    def noise(self) -> Tensor:
        return self.states[0]

    def at(self, t: float) -> Tensor:
        """The states [n, *shape] at any time; the last time gives the end.

        Cubic between the four nearest known ones, in the axis's clock and over its size of a state: for a
        diffusion in log-SNR and of x/(alpha^2 + sigma^2)^(1/2), which stays of one size all the way.
        """
        if t == self.axis.end:
            return self.end
        nodes = np.array([self.axis.clock(s) for s in self.times])
        u = self.axis.clock(t)
        first = int(np.clip(np.searchsorted(nodes, u) - NODES // 2, 0, len(nodes) - NODES))
        near = range(first, first + NODES)
        size = self.axis.size(t)
        out = torch.zeros_like(self.end)
        for i in near:
            others = [nodes[j] for j in near if j != i]
            weight = float(np.prod([(u - v) / (nodes[i] - v) for v in others]))
            out.add_(self.states[i], alpha=weight * size / self.axis.size(self.times[i]))
        return out

    def part(self, rows: slice | Tensor) -> Trajectories:
        """Some of the noises."""
        return Trajectories(self.axis, self.times, self.states[:, rows], self.end[rows])


@torch.no_grad()
def trajectories(
    model: Denoiser,
    x_init: Tensor,
    *,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    nfe: int = 400,
    batch: int = 256,
) -> Trajectories:
    """The trajectories from x_init [n, *shape] at t_max, a state for each step of `plan_reference`."""
    plan = plan_reference(model.process, nfe)
    states: dict[int, list[Tensor]] = {n: [] for n in range(len(plan.steps))}
    end = sample(
        model, x_init=x_init, plan=plan, cond=cond, guidance=guidance, batch=batch,
        callback=lambda n, t, x: states[n].append(x),
    )  # fmt: skip
    pure = math.isinf(model.process.lambda_(plan.times[0]))  # then the next state is at the same log-SNR
    keep = [i for i in range(len(plan.times) - 1) if not (pure and i == 1)]
    return Trajectories(
        Diffusion(model.process),
        tuple(plan.times[i] for i in keep),
        torch.stack([torch.cat(states[i - 1]) if i else x_init.to(end) for i in keep]),
        end,
    )
