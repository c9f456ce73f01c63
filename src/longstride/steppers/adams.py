"""Adams methods of orders 1 to 12 with variable steps, per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .multistep import Course, Multistep
from .past import TINY, basis
from .trial import Trial

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)  # exact to degree 15


class Adams(Multistep):
    """P_k E C_(k+1) E: Adams-Bashforth of order k, corrected by Adams-Moulton of order k + 1.

    The past is of f. With g_j(theta) = int_0^theta B_j, exact by Gauss' rule,

        p = x + h sum_(j<k) g_j(1) Phi*_j,   e = f(p) - sum_(j<k) Phi*_j,   x1 = p + h g_k(1) e,

    and the same sums at theta are the polynomial of degree k + 1 between x and x1. The error estimate is what
    x1 would have been without the last order, h (g_k - g_(k-1)) e (Shampine and Gordon 1975).
    """

    lag, growth = 0, 4.0
    most = 2

    def __init__(self, *bound: Any) -> None:
        super().__init__(*bound)
        clock: dict[str, Any] = {"dtype": torch.float64, "device": self.rtol.device}
        self.nodes, self.gauss = torch.tensor((NODES + 1) / 2, **clock), torch.tensor(WEIGHTS / 2, **clock)

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        theta = theta.expand(len(back))[:, None]
        at_nodes = basis(theta * self.nodes, h[:, None], back[:, None])
        return torch.einsum("pqj,q->pj", at_nodes, self.gauss) * (theta * h[:, None])

    def start(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        return self.sign * first[None], 1

    def value(self, trial: Trial) -> Tensor:
        return self.sign * trial.last

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        past, m = self.recalled(x, first, h), self.k
        star, weights = past.star(h), self.weights(self.one[0], h, past.back)
        among = self.among(m, len(star))
        (t1,) = self.times(s, h, self.one)
        last_weight, before = weights.gather(1, torch.stack([m, m - 1], 1)).unbind(1)
        predicted = x + (past.wide(among * weights[:, : len(star)]) * star).sum(0)
        e = self.sign * self.rate(t1, predicted) - (past.wide(among) * star).sum(0)
        x1 = predicted + self.spread(last_weight) * e
        K = torch.cat([star, e[None]])
        last = self.rate(t1, x1)
        return Course(s, h, x, x1, last, K, self.most, m=m, past=past, weight=last_weight - before)

    @torch.no_grad()
    def stiffness(self, trial: Trial) -> Tensor:
        """h |f(x1) - f(p)| over |x1 - p|."""
        assert isinstance(trial, Course)
        star, e = trial.K[:-1], trial.K[-1]
        expected = (trial.past.wide(self.among(trial.m, len(star))) * star).sum(0)
        weights = self.weights(self.one[0], trial.h, trial.past.back)
        moved = self._norm(e) * weights.gather(1, trial.m[:, None])[:, 0]
        return trial.h * self._norm(self.sign * trial.last - e - expected) / moved.clamp_min(TINY)
