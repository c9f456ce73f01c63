"""Multistep methods on a batch whose samples have steps, orders and pasts of their own.

Samples of all orders are one batch: all sum the same differences (`past.Past`), each up to an m of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .control import Controller, I
from .past import TINY, Past, basis
from .trial import Stepper, Trial

KEEP = 0.9, 1.2  # ratios between which a step stays as it is
PATIENCE = 3  # steps refused one after another, after which the past is not believed


@dataclass
class Course(Trial):
    """K [W + 1, *shape]: Phi*, and e at the end.  m [G]: how many Phi* count.  past: what it set out from.

    weight [G]: of e in the error.  failed [G]: no solution was found.
    """

    m: Tensor = field(default_factory=lambda: torch.zeros(0))
    weight: Tensor = field(default_factory=lambda: torch.zeros(0))
    failed: Tensor | None = None
    past: Past = field(default_factory=lambda: Past(torch.zeros(0), torch.zeros(0), torch.zeros(0)))


class Multistep(Stepper):
    """Orders and steps: of methods that predict with the polynomial through k + lag values at order k.

    constants: of the error of orders 1, 2, ... in equal steps, per difference k + lag.

    A sample begins at order 1. While it is young, order and step rise with every step. Then both stay for
    k + 1 steps, and turn to the longest step that order k - 1, k or k + 1 allows.
    """

    lag: int
    growth: float
    between_costs = 0
    order = 1
    controller: Controller = I()

    def __init__(self, constants: tuple[float, ...], *bound: Any) -> None:
        super().__init__(*bound)
        like = self.rtol
        clock: dict[str, Any] = {"dtype": torch.float64, "device": like.device}
        self.highest, none = len(constants), torch.zeros(self.groups, dtype=torch.int64, device=like.device)
        self.constants = torch.tensor(constants, **clock).abs()
        self.k, self.since, self.failed, self.young = none + 1, none, none, none == 0
        self.shrinks = self.k + 1
        self.count = torch.arange(self.highest + self.lag + 2, **clock)
        self.past = Past(
            torch.zeros(self.lag + 3, *self.shape, dtype=self.dtype, device=like.device), torch.zeros(self.groups, len(self.count), **clock), none
        )
        self.turns = torch.arange(-1, 2, device=like.device)
        self.beginning = True
        self.one = torch.ones((1, 1), **clock)

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        """Of Phi*_0, ..., e at theta [P] of steps h [P]: [P, J + 1]."""
        raise NotImplementedError

    def begin(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        """The differences that a past begins with, and of how many values they are."""
        raise NotImplementedError

    def value(self, trial: Trial) -> Tensor:
        """What the past is a sequence of, at the end of a step."""
        raise NotImplementedError

    def from_past(self, x: Tensor, first: Tensor, h: Tensor) -> Past:
        return self.past.begun(*self.begin(x, first, h), h) if self.beginning else self.past

    def summed(self, m: Tensor, weights: Tensor, width: int) -> Tensor:
        """Weights [P, J + 1] of the first m [P] rows, and of e: [P, W + 1]."""
        among = self.count[:width] < m[:, None]
        return torch.cat([torch.where(among, weights[:, :width], 0.0), weights.gather(1, m[:, None])], 1)

    def between(self, trial: Course, who: Tensor | slice, group: Tensor | slice, theta: Tensor) -> Tensor:
        K, weights = trial.K[:, who], self.weights(theta, trial.h[group], trial.past.back[group])
        weights = self.summed(trial.m[group], weights, len(K) - 1)
        out = (trial.past.wide(weights) * K).sum(0)
        return out if self.lag else trial.x[who] + out

    def along(self, trial: Trial, theta: Tensor) -> Tensor:
        assert isinstance(trial, Course)
        if self.shared:
            theta = theta[:1]
        return self.between(trial, slice(None), slice(None), theta)

    def at(self, trial: Trial, sample: Tensor, theta: Tensor) -> Tensor:
        assert isinstance(trial, Course)
        group = torch.zeros_like(sample) if self.shared else sample
        return self.between(trial, sample, group, theta)

    @torch.no_grad()
    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Course)
        scale = torch.addcmul(self.atol, self.rtol, torch.maximum(trial.x.abs(), trial.x1.abs()))
        ratio = self._norm(trial.K[-1] / scale) * trial.weight.abs() / self.root
        if trial.failed is not None:  # half the step, or less where the estimate is not even a number
            ratio = torch.where(trial.failed, (ratio * 0 + 2.0).pow(self.shrinks), ratio)
        return ratio

    def forget(self, who: Tensor) -> None:
        super().forget(who)
        self.past = replace(self.past, points=torch.where(who, 0, self.past.points))
        self.k, self.young = torch.where(who, 1, self.k), self.young | who
        self.failed = torch.where(who, 0, self.failed)
        self.shrinks, self.beginning = self.k + 1, True

    @torch.no_grad()
    def errors(self, new: Past, trial: Trial) -> Tensor:
        """As orders k - 1, k, k + 1 would have had them in equal steps, over what is allowed: [G, 3]."""
        width, h = len(new.rows), trial.h[:, None]
        scale = torch.addcmul(self.atol, self.rtol, torch.maximum(trial.x.abs(), trial.x1.abs()))
        rows = (new.rows / scale).reshape(width, self.groups, -1)
        sizes = torch.linalg.vector_norm(rows, dim=2).t().to(torch.float64) / self.root
        # From modified to backward differences.
        equal = (self.count[1:width] * h / new.back[:, 1:width]).cumprod(1)
        q = self.k[:, None] + self.turns
        known = (q >= 1) & (q <= self.highest) & (q + self.lag < new.points[:, None])
        at = (q + self.lag).clamp(max=width - 1)
        found = sizes.gather(1, at) * equal.gather(1, (at - 1).clamp_min(0)) * h ** (1 - self.lag)
        found = found * self.constants[(q - 1).clamp(0, self.highest - 1)]
        return torch.where(known, found, math.inf).nan_to_num(math.inf, math.inf)

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        assert isinstance(trial, Course)
        new = trial.past.pushed(self.value(trial), trial.K[:-1], trial.h)
        k, errors, refused = self.k, self.errors(new, trial), ~ok & (trial.h > 0)
        falls = (errors[:, 0] > errors[:, 1]) | (k == 1)
        young, settled = self.young & ok & falls & (k < self.highest), self.since >= k
        gains = errors.clamp_min(1e-12).pow(-1 / (k[:, None] + 1 + self.turns))  # steps that orders allow
        turn = torch.where(settled, gains.argmax(1) - 1, 0)
        turn = torch.where(ok, torch.where(young, 1, turn), torch.where(refused & ~falls, -1, 0))
        ratio = h / trial.h.clamp_min(TINY) * gains.gather(1, turn[:, None] + 1)[:, 0] / gains[:, 1]
        ratio = ratio * 2 ** (-1 / (k + turn + 1))
        longer = torch.where(settled & (ratio > KEEP[1]), ratio.clamp(max=self.growth), 1.0)
        ratio = torch.where(young, 2.0, torch.where(ratio < KEEP[0], ratio, longer))
        self.since = torch.where(ok & (turn == 0) & (ratio == 1), self.since + 1, 0)
        self.k, self.young = k + turn, young | (self.young & ~ok & (self.past.points == 0))
        self.failed = torch.where(refused, self.failed + 1, 0)
        width = min(int(self.k.max()) + 2, self.highest + 1) + self.lag
        self.past = new.kept(ok, self.past, width)
        self.shrinks, lost = self.k + 1, self.failed >= PATIENCE
        self.beginning = self.beginning and bool((self.past.points == 0).any())
        if bool(lost.any()):
            self.forget(lost)
        return torch.where(ok, trial.h * ratio, h)


GAUSS_X, GAUSS_W = np.polynomial.legendre.leggauss(8)


class Adams(Multistep):
    """P_k E C_(k+1) E: Adams-Bashforth of order k, corrected by Adams-Moulton of order k + 1.

    x(theta) = x + h sum_(j<k) g_j(theta) Phi*_j + h g_k(theta) e with g_j = int_0^theta B_j: a polynomial of
    degree k + 1, exact by Gauss' rule. The error estimate is what the corrector of order k would have given else.
    """

    lag, growth = 0, 4.0
    most = 2

    def __init__(self, *bound: Any) -> None:
        super().__init__(*bound)
        clock: dict[str, Any] = {"dtype": torch.float64, "device": self.rtol.device}
        self.nodes, self.node_weights = (GAUSS_X + 1) / 2, torch.tensor(GAUSS_W / 2, **clock)
        self.nodes = torch.tensor(self.nodes, **clock)

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        theta = theta.expand(len(back))[:, None]
        b = basis(theta * self.nodes, h[:, None], back[:, None])
        return torch.einsum("pqj,q->pj", b, self.node_weights) * (theta * h[:, None])

    def begin(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        return self.sign * first[None], 1

    def value(self, trial: Trial) -> Tensor:
        return self.sign * trial.last

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        past = self.from_past(x, first, h)
        star, m = past.star(h), self.k
        weights = self.weights(self.one[0], h, past.back)
        along = self.summed(m, weights, len(star))
        (t1,) = self.times(s, h, self.one)
        predicted = x + (past.wide(along[:, :-1]) * star).sum(0)
        ahead = (past.wide((along[:, :-1] != 0).to(h.dtype)) * star).sum(0)
        e = self.sign * self.rate(t1, predicted) - ahead
        x1 = predicted + self.spread(along[:, -1]) * e
        last = self.rate(t1, x1)
        weight = along[:, -1] - weights.gather(1, m[:, None] - 1)[:, 0]
        return Course(s, h, x, x1, last, torch.cat([star, e[None]]), 2, m=m, past=past, weight=weight)

    @torch.no_grad()
    def stiffness(self, trial: Trial) -> Tensor:
        """|f(x1) - f(p)| over |x1 - p|, of the predicted p."""
        assert isinstance(trial, Course)
        star, e = trial.K[:-1], trial.K[-1]
        among = (self.count[: len(star)] < trial.m[:, None]).to(trial.h)
        apart = self.sign * trial.last - e - (trial.past.wide(among) * star).sum(0)
        weights = self.weights(self.one[0], trial.h, trial.past.back)
        moved = self._norm(e) * weights.gather(1, trial.m[:, None])[:, 0]
        return trial.h * self._norm(apart) / moved.clamp_min(TINY)


def moulton(highest: int) -> tuple[float, ...]:
    """gamma*_k, k = 1, ...: sum_(i<=k) gamma*_i/(k + 1 - i) = 0, gamma*_0 = 1."""
    found = [1.0]
    for k in range(1, highest + 1):
        found.append(-sum(g / (k + 1 - i) for i, g in enumerate(found)))
    return tuple(found[1:])


ADAMS = {"adams": moulton(12)}
