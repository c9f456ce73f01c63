"""BDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .jacobian import Tangent, shaped, vector
from .linear import choose, structure
from .multistep import Course, Multistep
from .past import basis
from .trial import Trial

ITERATIONS = 4


class BDF(Multistep):
    lag = 1

    def __init__(self, *bound: Any) -> None:
        super().__init__(*bound)
        clock: dict[str, Any] = {"dtype": torch.float64, "device": self.rtol.device}
        self.lead_sum = (1 / torch.arange(1, self.highest + 1, **clock)).cumsum(0)
        self.most = 2 * (1 + ITERATIONS)
        self.J = None
        self.stats = [0, 0]

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        return basis(theta.expand(len(back)), h, back)

    def begin(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        return torch.stack([x, self.sign * self.spread(h) * first]), 2

    def value(self, trial: Trial) -> Tensor:
        return trial.x1

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        past = self.from_past(x, first, h)
        star, m = past.star(h), self.k + 1
        width = len(star)
        among = torch.arange(width, device=m.device) < m[:, None]
        slopes = torch.cat(
            [torch.zeros_like(h)[:, None], (1 / (h.clamp_min(1e-300)[:, None] + past.back[:, : width - 1])).cumsum(1)], 1
        )
        predicted = (past.wide(among.to(h.dtype)) * star).sum(0)
        slope = (past.wide(torch.where(among, slopes, 0.0)) * star).sum(0)
        c = h / self.lead_sum[self.k - 1]
        (t1,) = self.times(s, h, self.one_)
        d, ok, n = self.newton(t1, predicted, slope, c)
        x1 = predicted + d
        last = self.sign * (slope + d / self.spread(c.clamp_min(1e-300)))
        alpha = h[:, None] / (h.clamp_min(1e-300)[:, None] + past.back)
        head = alpha.cumsum(1).gather(1, m[:, None] - 2)[:, 0]
        next_ = alpha.gather(1, m[:, None] - 1)[:, 0]
        self.estimate = torch.maximum(next_, (next_ + head - self.lead_sum[self.k - 1]).abs())
        self.estimate = torch.where(ok, self.estimate, torch.inf)
        return Course(s, h, x, x1, last, torch.cat([star, d[None]]), n, m=m, past=past)

    def newton(self, t1, predicted, slope, c):
        spent = 0
        fresh = self.J is None
        d = torch.zeros_like(predicted)
        c = c * self.sign
        scale = torch.addcmul(self.atol, self.rtol, predicted.abs())
        tol = max(10*torch.finfo(self.real).eps/float(self.rtol.min()), min(0.03, float(self.rtol.min())**0.5))
        todo = torch.ones_like(c, dtype=torch.bool)
        for attempt in range(2):
            if fresh:
                tangent = Tangent(lambda t, v: vector(self.rate(t, shaped(v, predicted))), t1, vector(predicted))
                spent += 1
                new = self.structure.jacobian(tangent)
                self.J = choose(todo, new, self.J) if self.J is not None else new
                self.c = None
                self.stats[0] += 1
            if self.c is None or (c != self.c).any():
                self.factors = self.structure.factor(self.J, c)
                self.c = c
                self.stats[1] += 1
            d = torch.where(todo.view(self.lead), 0.0, d)
            active, old, good = todo.clone(), None, ~todo
            for i in range(ITERATIONS):
                f = self.sign * self.rate(t1, predicted + d)
                spent += 1
                r = self.spread(self.sign * c) * (f - slope) - d
                step = shaped(self.structure.solve(self.factors, vector(r)), predicted)
                size = self._norm(step / scale) / self.root
                d = torch.where(active.view(self.lead), d + step, d)
                if old is None:
                    done = size == 0
                    bad = ~size.isfinite()
                else:
                    rate = size / old
                    left = rate / (1 - rate) * size
                    done = (rate < 1) & (left < tol)
                    bad = ~(rate < 1) | (rate ** (ITERATIONS - 1 - i) / (1 - rate) * size > tol)
                good = good | (active & done)
                active = active & ~done & ~bad
                old = size
                if not active.any():
                    break
            todo = ~good
            if good.all() or fresh:
                break
            fresh = True
        return d, good, spent

    def prepare(self, x, first):
        super().prepare(x, first)
        self.structure = structure(None, x)
        self.one_ = self.one

    def ratio(self, trial: Trial) -> Tensor:
        scale = torch.addcmul(self.atol, self.rtol, torch.maximum(trial.x.detach().abs(), trial.x1.detach().abs()))
        return self._norm(trial.K[-1].detach() / scale) * self.estimate.abs() / self.root


BDFS = {"bdf": tuple(1 / (k + 1) for k in range(1, 6))}
