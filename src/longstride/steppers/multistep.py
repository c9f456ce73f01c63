"""Multistep methods on a batch whose samples have steps, orders and pasts of their own.

Samples of all orders are one batch: all have the same differences (`past.Past`), and each sums up to an m of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control import Controller, I
from ..methods.multistep import Constants
from .orders import Orders
from .past import Past
from .trial import Stepper, Trial


def host(v: Tensor) -> np.ndarray:
    return v.detach().cpu().numpy()


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
    """Order k predicts with the polynomial through k + lag values; `orders.Orders` says which k and step.

    constants: of the error, see `methods.multistep`.  growth: of a step, at most.
    """

    lag: int
    growth: float
    between_costs = 0
    order = 1
    controller: Controller = I()

    def __init__(self, constants: Constants, *bound: Any) -> None:
        super().__init__(*bound)
        clock: dict[str, Any] = {"dtype": torch.float64, "device": self.rtol.device}
        self.orders = Orders(self.groups, constants, self.lag, self.growth)
        self.degree = self.orders.highest + 1
        self.count = torch.arange(self.orders.highest + self.lag + 2, **clock)
        self.one, self.beginning = torch.ones((1, 1), **clock), True
        self._follow()
        rows = torch.zeros(self.lag + 3, *self.shape, dtype=self.dtype, device=self.rtol.device)
        self.past = Past(rows, torch.zeros(self.groups, len(self.count), **clock), self.k * 0)

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

    def along(self, trial: Trial, theta: Tensor) -> Tensor:
        everybody = torch.arange(len(trial.x), device=theta.device)
        return self.at(trial, everybody, theta.expand(len(everybody)))

    def at(self, trial: Trial, sample: Tensor, theta: Tensor) -> Tensor:
        assert isinstance(trial, Course)
        group = torch.zeros_like(sample) if self.shared else sample
        weights = self.weights(theta, trial.h[group], trial.past.back[group])
        weights = self.up_to(trial.m[group], weights, len(trial.K) - 1)
        out = (trial.past.wide(weights) * trial.K[:, sample]).sum(0)
        return out if self.lag else trial.x[sample] + out

    @torch.no_grad()
    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Course)
        scale = self.allowed(trial.x, trial.x1)
        ratio = self._norm(trial.K[-1] / scale) * trial.weight.abs() / self.root
        if trial.failed is not None:  # half the step, or less where the estimate is not even a number
            ratio = torch.where(trial.failed, (ratio * 0 + 2.0).pow(self.shrinks), ratio)
        return ratio

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        assert isinstance(trial, Course)
        new = trial.past.pushed(self.value(trial), trial.K[:-1], trial.h)
        taken, before = self.sizes(new, trial), self.past.points
        ok_, h_, wanted, fresh = (host(v) for v in (ok, trial.h, h, before == 0))
        with np.errstate(all="ignore"):  # of samples that have stopped, whose steps are 0
            errors = self.orders.errors(taken, h_, host(new.back), host(new.points))
            ratio = self.orders.turn(errors, ok_, h_, wanted, fresh)
        self.past = new.kept(ok, self.past, self.orders.width)
        self.beginning = self.beginning and bool((self.past.points == 0).any())
        self._follow()
        if self.orders.lost.any():
            self.forget(torch.from_numpy(self.orders.lost).to(ok.device))
        return torch.where(ok, trial.h * torch.from_numpy(ratio).to(h), h)

    @torch.no_grad()
    def sizes(self, new: Past, trial: Trial) -> np.ndarray:
        """Of the differences, over what is allowed: [G, W]."""
        scale = self.allowed(trial.x, trial.x1)
        if self.whole is not None:
            return host(torch.stack([self._norm(row / scale) for row in new.rows], 1) / self.root)
        rows = (new.rows / scale).reshape(len(new.rows), self.groups, -1)
        return host(torch.linalg.vector_norm(rows, dim=2).t().to(torch.float64) / self.root)

    def _follow(self) -> None:
        """The orders beside the state."""
        self.k = torch.from_numpy(self.orders.k).to(self.one.device)
        self.shrinks = self.k + 1

    def forget(self, who: Tensor) -> None:
        super().forget(who)
        self.past = replace(self.past, points=torch.where(who, 0, self.past.points))
        self.orders.forget(host(who))
        self.beginning = True
        self._follow()
