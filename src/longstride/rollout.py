"""Long runs in equal steps: one step's weights, applied again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .core import advance
from .errors import SolveError
from .pace import Pace
from .problem import ODE


class Rollout:
    """A run that goes on for as long as one likes, at the memory of one step.

    x: the newest state.  n: how many steps were taken, t = start + n h. What the next step needs is in xs,
    fs, n.
    """

    def __init__(self, problem: ODE, pace: Pace, x0: Tensor, start: float) -> None:
        self.pace, self.start, self.n = pace, start, 0
        self.xs, self.fs = [x0], list[Tensor]()
        (self.field,) = problem.fields(pace.method.exponential)

    @property
    def x(self) -> Tensor:
        return self.xs[-1]

    @property
    def t(self) -> float:
        return self.start + self.n * self.pace.h

    def step(self) -> None:
        """What a step does to xs and fs."""
        t, field = self.t, self.field
        shifted = [lambda at, x: field(t + at, x)]
        self.xs, self.fs = advance(shifted, self.pace.step(self.n), self.xs, self.fs)

    def go(self, steps: int, callback: Callable[[int, float, Tensor], Any] | None = None) -> Tensor:
        """Takes steps; returns the state.

        Raises:
            SolveError: NaN or infinity at the end of them.
        """
        for _ in range(steps):
            self.step()
            self.n += 1
            if callback is not None:
                callback(self.n - 1, self.t, self.x)
        if not bool(torch.isfinite(self.x).all()):
            raise SolveError(
                f"method {self.pace.method.name}: NaN or infinity before t = {self.t:.6g}: take a smaller dt"
            )
        return self.x
