"""Multistep methods on a batch whose samples have steps, orders and pasts of their own.

Samples of all orders are one batch: all have the same differences (`past.Past`), and each sums up to an m of
its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .control import Controller, I
from .methods.multistep import Constants
from .past import TINY, Past
from .trial import Stepper, Trial

KEEP = 0.9, 1.2  # ratios between which a step stays as it is
MARGIN = 2.0  # of the error, when a new step is chosen: as Shampine and Gordon, and DASSL
PATIENCE = 3  # steps refused one after another, after which the past is not believed


def nothing() -> Tensor:
    return torch.zeros(0)


@dataclass
class Course(Trial):
    """K [W + 1, *shape]: Phi*, and e at the end.  m [G]: how many Phi* count.  past: what it set out from.

    weight [G]: of e in the error.  failed [G]: no solution was found.
    """

    m: Tensor = field(default_factory=nothing)
    weight: Tensor = field(default_factory=nothing)
    failed: Tensor | None = None
    past: Past = field(default_factory=lambda: Past(nothing(), nothing(), nothing()))


class Multistep(Stepper):
    """Orders and steps: of methods that predict with the polynomial through k + lag values at order k.

    constants: of the error, see `methods.multistep`.  growth: of a step, at most.

    A sample begins at order 1. While it is young, order and step rise with every step, until the error no
    longer falls with the order. Then both stay for k steps at least, and turn to the longest step that order
    k - 1, k or k + 1 allows. A refused step takes the lower order where that has the smaller error.
    """

    lag: int
    growth: float
    between_costs = 0
    order = 1
    controller: Controller = I()

    def __init__(self, constants: Constants, *bound: Any) -> None:
        super().__init__(*bound)
        clock: dict[str, Any] = {"dtype": torch.float64, "device": self.rtol.device}
        self.highest = len(constants)
        self.constants = torch.tensor(constants, **clock).abs()
        self.count = torch.arange(self.highest + self.lag + 2, **clock)
        self.turns = torch.arange(-1, 2, device=self.rtol.device)
        self.one = torch.ones((1, 1), **clock)
        self.since = self.failed = torch.zeros(self.groups, dtype=torch.int64, device=self.rtol.device)
        self.k, self.young, self.beginning = self.since + 1, self.since == 0, True
        self.shrinks = self.k + 1
        rows = torch.zeros(self.lag + 3, *self.shape, dtype=self.dtype, device=self.rtol.device)
        self.past = Past(rows, torch.zeros(self.groups, len(self.count), **clock), self.since)

    def weights(self, theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
        """Of Phi*_0, ..., e at theta [P] of steps h [P]: [P, J + 1]."""
        raise NotImplementedError

    def start(self, x: Tensor, first: Tensor, h: Tensor) -> tuple[Tensor, int]:
        """The differences that a past begins with, and of how many values they are."""
        raise NotImplementedError

    def value(self, trial: Trial) -> Tensor:
        """What the past is a sequence of, at the end of a step."""
        raise NotImplementedError

    def recalled(self, x: Tensor, first: Tensor, h: Tensor) -> Past:
        """The past that a step of h sets out from."""
        return self.past.begun(*self.start(x, first, h), h) if self.beginning else self.past

    def among(self, m: Tensor, width: int) -> Tensor:
        """Which of `width` differences the first m [P] are: [P, width], 0 or 1."""
        return (self.count[:width] < m[:, None]).to(torch.float64)

    def up_to(self, m: Tensor, weights: Tensor, width: int) -> Tensor:
        """Weights [P, J + 1] of the first m [P] differences and of e: [P, width + 1]."""
        return torch.cat([self.among(m, width) * weights[:, :width], weights.gather(1, m[:, None])], 1)

    def read(self, trial: Trial, theta: Tensor, who: Any, group: Any) -> Tensor:
        """The solution at theta along steps of samples `who`, in groups `group`."""
        assert isinstance(trial, Course)
        weights = self.weights(theta, trial.h[group], trial.past.back[group])
        weights = self.up_to(trial.m[group], weights, len(trial.K) - 1)
        out = (trial.past.wide(weights) * trial.K[:, who]).sum(0)
        return out if self.lag else trial.x[who] + out

    def along(self, trial: Trial, theta: Tensor) -> Tensor:
        return self.read(trial, theta[: self.groups], slice(None), slice(None))

    def at(self, trial: Trial, sample: Tensor, theta: Tensor) -> Tensor:
        return self.read(trial, theta, sample, torch.zeros_like(sample) if self.shared else sample)

    def scale(self, x: Tensor) -> Tensor:
        """What the tolerances allow at x."""
        return torch.addcmul(self.atol, self.rtol, x.abs())

    @torch.no_grad()
    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Course)
        scale = self.scale(torch.maximum(trial.x.abs(), trial.x1.abs()))
        ratio = self._norm(trial.K[-1] / scale) * trial.weight.abs() / self.root
        if trial.failed is not None:  # half the step, or less where the estimate is not even a number
            ratio = torch.where(trial.failed, (ratio * 0 + 2.0).pow(self.shrinks), ratio)
        return ratio

    @torch.no_grad()
    def errors(self, new: Past, trial: Trial) -> Tensor:
        """As orders k - 1, k, k + 1 would have had them in equal steps, over what is allowed: [G, 3]."""
        width, h = len(new.rows), trial.h[:, None]
        scale = self.scale(torch.maximum(trial.x.abs(), trial.x1.abs()))
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
        gains = errors.clamp_min(1e-12).pow(-1 / (k[:, None] + 1 + self.turns))  # the steps that orders allow
        turn = torch.where(settled, gains.argmax(1) - 1, 0)
        turn = torch.where(ok, torch.where(young, 1, turn), torch.where(refused & ~falls, -1, 0))
        ratio = h / trial.h.clamp_min(TINY) * gains.gather(1, turn[:, None] + 1)[:, 0] / gains[:, 1]
        ratio = ratio * MARGIN ** (-1 / (k + turn + 1))
        longer = torch.where(settled & (ratio > KEEP[1]), ratio.clamp(max=self.growth), 1.0)
        ratio = torch.where(young, 2.0, torch.where(ratio < KEEP[0], ratio, longer))
        self.since = torch.where(ok & (turn == 0) & (ratio == 1), self.since + 1, 0)
        self.k, self.young = k + turn, young | (self.young & ~ok & (self.past.points == 0))
        self.failed = torch.where(refused, self.failed + 1, 0)
        width = min(int(self.k.max()) + 2, self.highest + 1) + self.lag
        self.past, lost = new.kept(ok, self.past, width), self.failed >= PATIENCE
        self.shrinks = self.k + 1
        self.beginning = self.beginning and bool((self.past.points == 0).any())
        if bool(lost.any()):
            self.forget(lost)
        return torch.where(ok, trial.h * ratio, h)

    def forget(self, who: Tensor) -> None:
        super().forget(who)
        self.past = replace(self.past, points=torch.where(who, 0, self.past.points))
        self.k, self.failed = torch.where(who, 1, self.k), torch.where(who, 0, self.failed)
        self.young, self.shrinks, self.beginning = self.young | who, self.k + 1, True
