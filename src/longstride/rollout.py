"""Long runs in equal steps: one step's weights, applied again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .bound import Bound, fits
from .core import Step, advance
from .errors import SolveError
from .pace import Pace
from .problem import ODE

WORTH = 8  # steps that pay for binding one


class Rollout:
    """A run that goes on for as long as one likes, at the memory of one step.

    x: the newest state.  n: how many steps were taken, t = start + n h. What the next step needs is in xs,
    fs, n.
    """

    def __init__(self, problem: ODE, pace: Pace, x0: Tensor, start: float) -> None:
        self.pace, self.start, self.n = pace, start, 0
        self.xs, self.fs = [x0], list[Tensor]()
        (self.field,) = problem.fields(pace.method.exponential)
        self.steady: Bound | None = None
        self.bind = getattr(problem.nonlinear, "bind", None) if pace.method.exponential else None

    @property
    def x(self) -> Tensor:
        return self.xs[-1]

    @property
    def t(self) -> float:
        return self.start + self.n * self.pace.h

    def go(self, steps: int, callback: Callable[[int, float, Tensor], Any] | None = None) -> Tensor:
        """Takes steps; returns the state.

        Raises:
            SolveError: NaN or infinity at the end of them.
        """
        t, field = self.t, self.field

        def shifted(at: float, x: Tensor) -> Tensor:
            return field(t + at, x)

        end = self.n + steps
        while self.n < end:
            t, step = self.t, self.pace.step(self.n)
            if callback is None and end - self.n >= WORTH and (bound := self._bound(step)):
                self.xs, self.fs = bound.go(self.xs, self.fs, end - self.n)
                self.n = end
                break
            self.xs, self.fs = advance([shifted], step, self.xs, self.fs)
            self.n += 1
            if callback is not None:
                callback(self.n - 1, self.t, self.x)
        if not bool(torch.isfinite(self.x).all()):
            raise SolveError(
                f"method {self.pace.method.name}: NaN or infinity before t = {self.t:.6g}: take a smaller dt"
            )
        return self.x

    def _bound(self, step: Step) -> Bound | None:
        """The steady step, where f can be bound and what it made in a step before needs no gradient."""
        traced = any(v.requires_grad for v in (*self.xs, *self.fs))
        if self.bind is None or self.n == 0 or step is not self.pace.steady or traced or not fits(step):
            return None
        if self.steady is None:
            self.steady = Bound(step, self.bind, self.xs, self.fs)
        return self.steady
