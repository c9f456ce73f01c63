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
from ..process import Process
from ..sampling import REFERENCE_RATIO, plan_reference, sample

NODES = 4  # of the interpolation between known states, whose error is of this order


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Where the exact flow is, from n noises: states [K, n, *shape] at K falling times, and the end.

    The first state is the noises themselves, at t_max. The end is [n, *shape].
    """

    process: Process
    times: tuple[float, ...]
    states: Tensor
    end: Tensor

    @property
    def noise(self) -> Tensor:
        return self.states[0]

    def at(self, t: float) -> Tensor:
        """The states [n, *shape] at any time; t_end gives the end.

        Cubic between the four nearest known ones, in log-SNR and of x/(alpha^2 + sigma^2)^(1/2), which stays
        of one size all the way.
        """
        if t == self.process.t_end:
            return self.end
        nodes = np.array([clock(self.process, s) for s in self.times])
        u = clock(self.process, t)
        first = int(np.clip(np.searchsorted(nodes, u) - NODES // 2, 0, len(nodes) - NODES))
        near = range(first, first + NODES)
        size = math.hypot(*self.process.pair(t))
        out = torch.zeros_like(self.end)
        for i in near:
            others = [nodes[j] for j in near if j != i]
            weight = float(np.prod([(u - v) / (nodes[i] - v) for v in others]))
            out.add_(self.states[i], alpha=weight * size / math.hypot(*self.process.pair(self.times[i])))
        return out

    def part(self, rows: slice) -> Trajectories:
        """Some of the noises."""
        return Trajectories(self.process, self.times, self.states[:, rows], self.end[rows])


def clock(process: Process, t: float) -> float:
    """lambda, from where the ratio sigma/alpha is finite enough to be told from pure noise."""
    return max(process.lambda_(t), -math.log(REFERENCE_RATIO))


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
        model.process,
        tuple(plan.times[i] for i in keep),
        torch.stack([torch.cat(states[i - 1]) if i else x_init.to(end) for i in keep]),
        end,
    )
