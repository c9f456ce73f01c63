"""Events: where a function of time and state changes its sign along a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ArgumentError, SolveError

BISECTIONS = 53  # the bits of a float64


@dataclass(frozen=True)
class Event:
    """g(t, x) [B] passes through 0. direction 1: rising alone, -1: falling alone, 0: either.

    terminal: the sample stops there. A start at g = 0 is none, and of two crossings in one step neither is
    seen: `max_step` limits what may be missed.
    """

    g: Callable[[Tensor, Tensor], Tensor]
    direction: int = 0
    terminal: bool = True

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1) or not callable(self.g):
            raise ArgumentError(f"Event: direction = {self.direction!r} is 1, -1 or 0, and g is a function")

    def value(self, t: Tensor, x: Tensor) -> Tensor:
        out = self.g(t, x)
        if not isinstance(out, Tensor) or out.shape != x.shape[:1] or out.is_complex():
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(f"an event's g returned {what} for x of {tuple(x.shape)}: return a real [B]")
        return out.detach()

    def crossed(self, before: Tensor, after: Tensor) -> Tensor:
        """Whether it happened, seen in the direction of the run."""
        rising = (before < 0) & (after >= 0)
        falling = (before > 0) & (after <= 0)
        return rising if self.direction > 0 else falling if self.direction < 0 else rising | falling


@dataclass(frozen=True)
class Crossings:
    """What one event saw: the samples [n] it happened to, when [n], and their states [n, ...], as it came."""

    sample: Tensor
    t: Tensor
    x: Tensor


def locate(g: Callable[[Tensor], Tensor], before: Tensor) -> Tensor:
    """theta [B] in (0, 1] where g(theta) has just left the sign of g(0) = before: bisection, all at once."""
    low, high = torch.zeros_like(before, dtype=torch.float64), torch.ones_like(before, dtype=torch.float64)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        same = g(middle) * before > 0
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return high
