"""The solution as a function of time, each sample by the steps of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..steppers.trial import Stepper, Trial


@dataclass(frozen=True)
class Interpolant:
    """x as a function of t, of the order of the method's interpolant, each sample by the steps of its own.

    Along a step from s to s + h the solution is a polynomial, kept as its values at the Chebyshev points of
    [s, s + h] and read by Lagrange's formula. It is continuous, and differentiable in t and in whatever the
    run is.

    s, h [P]: the steps of all samples.  values [N, P, ...].  begins [B, n]: when those of each sample begin,
    infinity behind the last, and which they are: index [B, n].  span: of the run; ends [B]: of each sample.
    """

    sign: float
    span: tuple[float, float]
    ends: Tensor
    s: Tensor
    h: Tensor
    values: Tensor
    begins: Tensor
    index: Tensor
    nest: Callable[[Tensor], Any] = lambda x: x

    def __call__(self, t: float | Sequence[float] | Tensor) -> Any:
        """x [B, ...] at a time, [n, B, ...] at times [n], or [n, B] where each sample has its own.

        NaN where a sample did not come to that time.

        Raises:
            ArgumentError: a time outside the run, or of another shape.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=self.s.device)
        batch = len(self.begins)
        if t.ndim > 2 or (t.ndim == 2 and t.shape[1] != batch):
            raise ArgumentError(f"t of shape {tuple(t.shape)}: a time, times [n], or [n, {batch}]")
        s = self.sign * (t if t.ndim == 2 else t.reshape(-1, 1).expand(-1, batch))
        low, high = self.span
        if bool((s.detach() < low).any()) or bool((s.detach() > high).any()):
            ends = sorted(self.sign * v for v in self.span)
            raise ArgumentError(f"t goes beyond the run, which is from {ends[0]} to {ends[1]}")
        at = torch.searchsorted(self.begins, s.detach().t().contiguous(), right=True) - 1
        step = self.index.gather(1, at.clamp_min(0)).t()
        theta = (s - self.s[step]) / self.h[step]
        theta = torch.where(s <= self.ends, theta, math.nan)
        wide = (*step.shape, *(1,) * (self.values.ndim - 2))
        real = self.values.dtype.to_real()
        rows = zip(lagrange(theta, chebyshev(len(self.values) - 1)), self.values, strict=True)
        x = sum((w.to(real).view(wide) * value[step] for w, value in rows), torch.zeros((), dtype=real))
        return self.nest(x if t.ndim else x[0])


def chebyshev(degree: int) -> list[float]:
    """The points of [0, 1] where a polynomial of that degree is kept, both ends among them."""
    return [(1 - math.cos(math.pi * k / degree)) / 2 for k in range(degree + 1)]


def lagrange(theta: Tensor, nodes: Sequence[float]) -> list[Tensor]:
    """The weights at theta of the values at the nodes."""
    apart = [theta - node for node in nodes]
    out = []
    for k, here in enumerate(nodes):
        others = [d / (here - node) for j, (d, node) in enumerate(zip(apart, nodes, strict=True)) if j != k]
        out.append(math.prod(others[1:], start=others[0]))
    return out


class Dense:
    """Keeps every step whole."""

    between = True

    def __init__(self, degree: int):
        self.nodes = chebyshev(degree)

    def begin(self, s: Tensor, x: Tensor) -> None:
        self.batch, self.ends = torch.arange(len(x), device=x.device), s
        still = x.expand(len(self.nodes), *x.shape)
        self.pieces = [(self.batch, s, torch.ones_like(s), still)]  # a point, for who takes no step

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        size = len(self.batch)
        who = ok.expand(size).nonzero()[:, 0]
        inner = self.nodes[1:-1]
        thetas = torch.tensor(inner, dtype=s1.dtype, device=s1.device).repeat_interleave(len(who))
        middle = stepper.at(trial, who.repeat(len(inner)), thetas).view(
            len(inner), len(who), *trial.x.shape[1:]
        )
        values = torch.cat([trial.x[who][None], middle, trial.x1[who][None]])
        self.pieces.append((who, trial.s.expand(size)[who], trial.h.expand(size)[who], values))
        self.ends = torch.where(ok, s1, self.ends)
        return ok

    def interpolant(self, sign: float, span: tuple[float, float]) -> Interpolant:
        """All that was kept, as a function."""
        sample, s, h = (torch.cat([piece[i] for piece in self.pieces]) for i in range(3))
        values = torch.cat([piece[3] for piece in self.pieces], 1)
        order = torch.argsort(sample, stable=True)
        count = torch.bincount(sample, minlength=len(self.batch))
        first = (count.cumsum(0) - count)[sample[order]]
        column = torch.arange(len(order), device=s.device) - first
        size = (len(self.batch), int(count.max()) if len(count) else 1)
        begins = s.new_full(size, math.inf).index_put((sample[order], column), s[order])
        index = torch.zeros(size, dtype=torch.int64, device=s.device)
        index = index.index_put((sample[order], column), order)
        return Interpolant(sign, span, self.ends, s, h, values, begins, index)
