"""Events: where a function of time and state changes its sign along a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ArgumentError, SolveError

HALVINGS = 52  # of 1, until 2^-52, the distance between two numbers just above it


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
    """theta [B] in (0, 1] where g(theta) has just left the sign of g(0) = before, all at once to round-off.

    ITP (Oliveira and Takahashi 2020): between secant and middle of the bracket, within what lets it end one
    step after bisection at the latest; some twelve evaluations where g is smooth.
    """
    low, g_low = torch.zeros_like(before, dtype=torch.float64), before.to(torch.float64)
    high = torch.ones_like(low)
    g_high = g(high).to(torch.float64)
    low = torch.where(g_low * g_high > 0, high, low)  # nothing to look for
    for k in range(HALVINGS + 1):
        half = (high - low) / 2
        if bool((half <= 2.0**-53).all()):
            break
        middle, room = low + half, 2.0 ** (-k) - half
        secant = low + 2 * half * g_low / (g_low - g_high)
        apart = middle - secant
        nudged = secant + apart.sign() * torch.minimum((0.8 * half**2).clamp_min(2.0**-53), apart.abs())
        at = middle + (nudged - middle).clamp(-room, room).nan_to_num_(0.0)
        value = g(at).to(torch.float64)
        same = value * before > 0
        low, high = torch.where(same, at, low), torch.where(same, high, at)
        g_low, g_high = torch.where(same, value, g_low), torch.where(same, g_high, value)
    return high
