"""Problems: what is integrated, in the words of its user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .core import Field, Weight
from .operator import Linear


@dataclass(frozen=True)
class ODE:
    """dx/dt = L x + f(t, x), x [B, ...].

    L: a number or a tensor that multiplies x (a diagonal operator), real or complex; exponential methods
    solve it exactly, the others see L x + f as one field.
    """

    f: Callable[[float, Tensor], Tensor]
    L: Weight = 0.0

    def operator(self, exponential: bool) -> Linear:
        """What a method integrates around: L, or nothing."""
        return Linear(self.L if exponential else 0.0)

    def fields(self, exponential: bool) -> tuple[Field]:
        """The field that belongs to `operator`."""
        if exponential or (not isinstance(self.L, Tensor) and self.L == 0):
            return (self.f,)
        return (lambda t, x: self.f(t, x) + self.L * x,)
