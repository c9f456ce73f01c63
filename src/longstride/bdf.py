"""BDF methods of orders 1 to 5 with variable steps and a fixed leading coefficient, per sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .implicit import Iterative
from .jacobian import shaped, vector
from .multistep import Course, Multistep
from .past import TINY, basis
from .trial import Trial


class BDF(Multistep, Iterative):
    """x1 is where f is the slope of the polynomial through it and k points behind, in its last step as if equal.

    With p the polynomial through k + 1 points behind, at the end of the step, and d = x1 - p,

        d = gamma h (f(x1) - p'),     1/gamma = 1 + 1/2 + ... + 1/k

    (Jackson and Sacks-Davis 1980; Brenan, Campbell and Petzold 1989, chapter 5): the matrix I - gamma h J changes
    with h and k alone. Between the ends stands the polynomial of degree k + 1 through x1 and what p goes through.
    """

    lag, growth = 1, 2.0

    def __init__(self, constants: tuple[float, ...], *bound: Any) -> None:
        super().__init__(constants, (1.0,), 1, *bound)
        self.harmonic = self.count[1 : self.highest + 1].reciprocal().cumsum(0)
        self.newton.fresh = 0.3  # one system a step: more iterations are cheaper than df/dx

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.most += 2 * self.graph

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        return basis(theta.expand(len(back)), h, back)

    def begin(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        return torch.stack([x, self.sign * self.spread(h) * first]), 2

    def value(self, trial: Trial) -> Tensor:
        return trial.x1

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        before, past, m = self.calls, self.from_past(x, first, h), self.k + 1
        star, head = past.star(h), self.harmonic[self.k - 1]
        among = self.count[: len(star)] < m[:, None]
        alpha = h[:, None] / (h[:, None].clamp_min(TINY) + past.back)  # h over the distances from the end
        slopes = torch.cat([0 * head[:, None], alpha.cumsum(1)], 1)
        predicted = (past.wide(among.to(head)) * star).sum(0)
        rise = (past.wide(torch.where(among, slopes[:, : len(star)], 0.0)) * star).sum(0)
        (t1,) = self.times(s, h, self.one)
        gamma = (1 / head).to(self.real)[:, None]
        guess, p = vector(rise), vector(predicted)
        self.refresh(s, h / head, vector(x.detach()))
        known = p - gamma * guess
        z = self.stage(t1, self.column(h), known, guess, self.scale(predicted.detach()), gamma)
        d = gamma * (z - guess)
        x1, by = shaped(p + d, x), self.column(h)
        last = shaped(torch.where(by == 0, vector(first), z / torch.where(by == 0, 1.0, by)), x)
        behind = alpha.gather(1, self.k[:, None])[:, 0]
        off = (behind + slopes.gather(1, self.k[:, None])[:, 0] - head).abs()
        weight = torch.maximum(behind, off)
        K = torch.cat([star, shaped(d, x)[None]])
        spent, failed = self.calls - before, self.outcome()
        return Course(s, h, x, x1, last, K, spent, m=m, past=past, weight=weight, failed=failed)


BDFS = {"bdf": tuple(1 / (k + 1) for k in range(1, 6))}
