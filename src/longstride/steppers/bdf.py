"""BDF methods of orders 1 to 5 with variable steps and a fixed leading coefficient, per sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..methods.multistep import Constants
from .implicit import Iterative
from .jacobian import shaped, vector
from .multistep import Course, Multistep
from .past import TINY, basis
from .trial import Trial


class BDF(Multistep, Iterative):
    """x1 and k values behind it, equally spaced on the polynomial p through the last k + 1, have slope f(x1).

    The past is of x. With p and its slope p' at the end of the step, d = x1 - p solves

        d = gamma h (f(p + d) - p'),     1/gamma = 1 + 1/2 + ... + 1/k

    (Jackson and Sacks-Davis 1980; Brenan, Campbell and Petzold 1989, chapter 5), so that I - gamma h J
    changes with h and k alone. Between the ends stands the polynomial of degree k + 1 through x1 and the
    values of p.
    """

    lag, growth = 1, 2.0

    def __init__(self, constants: Constants, *bound: Any) -> None:
        super().__init__(constants, (1.0,), 1, *bound)
        self.harmonic = self.count[1 : self.orders.highest + 1].reciprocal().cumsum(0)
        self.newton.fresh = 0.3  # with one system a step, iterations are cheaper than df/dx

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.most += 2 * self.graph

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        return basis(theta.expand(len(back)), h, back)

    def start(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        """And the value that a straight line gives a step before."""
        return torch.stack([x, self.sign * self.spread(h) * first]), 2

    def value(self, trial: Trial) -> Tensor:
        return trial.x1

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        before, past, k = self.calls, self.recalled(x, first, h), self.k
        star, head = past.star(h), self.harmonic[k - 1]
        near = h[:, None] / (h[:, None].clamp_min(TINY) + past.back)  # h over the distances from the end
        slopes = torch.cat([0 * near[:, :1], near.cumsum(1)], 1)  # of h B_j'(1)
        among = self.among(k + 1, len(star))
        p, rise = (vector((past.wide(w) * star).sum(0)) for w in (among, among * slopes[:, : len(star)]))
        (t1,), by, gamma = self.times(s, h, self.one), self.column(h), (1 / head).to(self.real)[:, None]
        self.refresh(s, h / head, vector(x.detach()))
        z = self.stage(t1, by, p - gamma * rise, rise, self.allowed(shaped(p.detach(), x)), gamma)
        d = gamma * (z - rise)
        x1, K = shaped(p + d, x), torch.cat([star, shaped(d, x)[None]])
        last = shaped(torch.where(by == 0, vector(first), z / torch.where(by == 0, 1.0, by)), x)
        # Of the error: in equal steps 1/(k + 1); what unequal ones add is that they are taken for equal.
        edge = near.gather(1, k[:, None])[:, 0]
        weight = torch.maximum(edge, (edge + slopes.gather(1, k[:, None])[:, 0] - head).abs())
        spent, failed = self.calls - before, self.outcome()
        return Course(s, h, x, x1, last, K, spent, m=k + 1, past=past, weight=weight, failed=failed)
