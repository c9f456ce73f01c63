"""Events: where a function of time and state changes its sign along a step, and how that moves.

At a crossing g(t*, x(t*)) = 0. Whatever moves x at a fixed time, or g itself, moves the crossing by the
implicit function theorem, and the state with it along the flow x' = f:

    dt* = -dg/(dg/dt + dg/dx f),        dx* = dx + f dt*

where dg is what g changes by at fixed t*. (Chen, Amos and Nickel 2021, neural event functions.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError

Rate = Callable[[Tensor, Tensor], Tensor]

HALVINGS = 52  # of 1, until 2^-52, the distance between two numbers just above it


@dataclass(frozen=True)
class Event:
    """g(t, x) [B], of t [B], passes through 0. direction 1: rising alone, -1: falling alone, 0: either.

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
        """g, checked, with its graph."""
        out = self.g(t, x)
        if not isinstance(out, Tensor) or out.shape != x.shape[:1] or out.is_complex():
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(f"an event's g returned {what} for x of {tuple(x.shape)}: return a real [B]")
        return out

    def crossed(self, before: Tensor, after: Tensor) -> Tensor:
        """Whether it happened, seen in the direction of the run."""
        rising = (before < 0) & (after >= 0)
        falling = (before > 0) & (after <= 0)
        return rising if self.direction > 0 else falling if self.direction < 0 else rising | falling


def several(events: Any) -> Sequence[Event]:
    """What events= may be: events in a list."""
    if not isinstance(events, Sequence) or not all(isinstance(event, Event) for event in events):
        raise ArgumentError(f"events = {events!r}: it is a list of ls.Event")
    return events


@dataclass(frozen=True)
class Crossings:
    """What one event saw: the samples [n] it happened to, when [n], and their states [n, ...], as it came.

    Times and states are differentiable functions of all that the run is, and of what g closes over.
    """

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


def implicit(event: Event, seen: Crossings, rate: Rate, t: Tensor, x: Tensor, shared: bool) -> Crossings:
    """Crossings that know how they move.

    rate: f, without a graph.  t [B], x [B, ...]: where f and g may be asked for samples that have no
    crossing.  shared: f takes one time of all samples.
    """
    if not len(seen.t) or not torch.is_grad_enabled():
        return seen
    t, x, when, state = t.detach(), x.detach(), seen.t, seen.x
    earlier = [int(seen.sample[:i].eq(k).sum()) for i, k in enumerate(seen.sample)]
    rounds = torch.tensor(range(len(when)) if shared else earlier, device=x.device)
    for k in range(int(rounds.max()) + 1):  # a batch has one crossing of a sample, or one in all
        n = (rounds == k).nonzero()[:, 0]
        who = seen.sample[n]
        at = seen.t[n].expand_as(t) if shared else t.index_put((who,), seen.t[n])
        moved = _moved(event, rate, at.to(x.dtype.to_real()), x.index_put((who,), seen.x[n]), who)
        if moved is None:
            return seen
        shift, f = moved
        when = when.index_add(0, n, shift.to(when))
        state = state.index_add(0, n, shift.to(f.dtype).view(-1, *(1,) * (x.ndim - 1)) * f)
    return Crossings(seen.sample, when, state)


def _moved(event: Event, rate: Rate, t: Tensor, x: Tensor, who: Tensor) -> tuple[Tensor, Tensor] | None:
    """What 0 is added to the times of `who` [n], and their f [n, ...]; None if nothing moves g."""
    g = event.value(t, x)
    if not g.requires_grad:
        return None
    f = rate(t, x)
    at, state = t.detach().requires_grad_(), x.detach().requires_grad_()
    value = event.value(at, state)
    g_t, g_x = torch.autograd.grad(value.sum(), (at, state), materialize_grads=True)
    slope = g_t + (g_x.conj() * f).real.flatten(1).sum(1)
    return -(g - g.detach())[who] / slope[who], f[who]
