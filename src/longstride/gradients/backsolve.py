"""The continuous adjoint of an adaptive run: the transposed differential equation, solved back.

Of x' = f(t, x, theta) with cotangents g_k of the states that were given out at t_k,

    a' = -(df/dx)^T a,    a(t_k-) = a(t_k+) + g_k,    dL/dx_0 = a(t_0),    dL/dtheta = int (df/dtheta)^T a dt

(Pontryagin 1962; Chen et al. 2018). x and a are solved together, from each time at which something was given
out back to the one before, by the solver and the control that solved forth, each sample in steps of its own.
x begins anew at each of these from the state that was given out, so nothing is remembered but those.

Three things differ from the usual. The integral is not part of the state, so steps are not chosen by its
error (the seminorm of Kidger, Chen and Lyons 2021), and its sum over samples is made directly, with the
weights of the accepted steps, so that no sample holds parameters of its own. a is scaled to a root mean
square of 1 over each sample where it begins, as the equation is linear, and tolerances count from there. And
the clock of each sample runs from 0 to 1, so that samples that gave out at different times go back at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..adaptive.carry import Carry, Ended, Limits, Reading
from ..adaptive.failure import REACHED
from ..adaptive.stepping import Loop
from ..errors import SolveError, positive, unknown
from ..methods.embedded import PAIRS
from ..steppers.trial import Explicit, Trial
from .recorded import demand_known, looked_run
from .transpose import Given, Kept, tied, vjp

Place = tuple[Tensor, Tensor]  # samples [P], s [P]


@dataclass(frozen=True)
class Backsolve:
    """Solve the adjoint equation back, together with x: only what was given out is remembered.

    The gradient is that of the differential equation, to the tolerances of both ways, and not of the run.

    method: an explicit pair; default the run's own, "tsit5" where that is no pair.  rtol, atol: default the
    run's own.
    """

    method: str | None = None
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in PAIRS:
            raise unknown("explicit pair", self.method, PAIRS)
        for name in ("rtol", "atol"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))


@dataclass(frozen=True)
class Leg:
    """A way back: from x at s to s_next of each sample [G], a having been joined by g.

    anew: for whom x begins from what was given out.
    """

    s: Tensor
    s_next: Tensor
    x: Tensor
    g: Tensor
    anew: Tensor


class Times:
    """Notes at which s the solution was read: [P] for each reading."""

    def __init__(self) -> None:
        self.seen = list[tuple[Tensor, Tensor]]()

    def note(self, c: Carry, trial: Trial, ok: Tensor | None, read: list[Reading]) -> None:
        for sample, theta in read:
            group = sample if len(trial.s) > 1 else torch.zeros_like(sample)
            self.seen.append((sample, trial.s[group] + theta * trial.h[group]))


def backsolved(loop: Loop, x0: Tensor, method: str, way: Backsolve, known: Iterable[Tensor]) -> Ended:
    """A run whose gradient is solved for."""
    times = Times()
    loop.observers = [*loop.observers, times]
    ended, leaf = looked_run(loop, x0, method, known)
    before = len(ended.read) - len(times.seen)  # the start, if it was saved
    everybody = torch.arange(len(x0), device=x0.device)
    places = [(everybody, loop.stepper.sign * ended.t), *times.seen]
    x, *read = solved_back(loop, x0, method, way, places, [ended.x, *ended.read[before:]], leaf)
    return replace(ended, x=x, read=[x0] * before + read)


def solved_back(
    loop: Loop,
    x0: Tensor,
    method: str,
    way: Backsolve,
    places: Sequence[Place],
    values: Sequence[Tensor],
    leaf: Sequence[Tensor],
) -> list[Tensor]:
    """Values [P, ...] that a run of a method gave out at places, with their gradients.

    loop: the clock, the tolerances, the jumps and the control of the way back.
    """

    def pull(states: dict[int, Kept], g: Given, wanted: Sequence[Tensor]) -> list[Tensor | None]:
        given = [(*p, x, c) for p, x, c in zip(places, states[0][0], g[0], strict=True) if c is not None]
        back, a = Back(loop, way, method, wanted), torch.zeros_like(x0)
        for leg in legs(given, loop, a):
            a = back.solve(leg, a + leg.g)
        return [a, *back.totals]

    return tied({0: values}, {0: (values, [])}, pull, leaf, [x0, *leaf])


def legs(given: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], loop: Loop, like: Tensor) -> Iterator[Leg]:
    """The ways back between all times at which something was given out, or f jumps, latest first.

    Where samples step on their own, each goes from its k-th time to the one after it.
    """
    batch, start = len(like), loop.start
    sample, s, x, g = (torch.cat(part) for part in zip(*given, strict=True))
    s = s.clamp(min=start)
    shared = loop.stepper.shared
    stops = []
    for own in [s] if shared else [s[sample == i] for i in range(batch)]:
        jumps = loop.legs[:-1][loop.legs[:-1] < own.amax()] if len(own) else own
        stops.append(torch.unique(torch.cat([own, jumps, s.new_tensor([start])])).flip(0))
    where = torch.stack([torch.cat([t, t.new_full((max(map(len, stops)) - len(t),), start)]) for t in stops])
    begun = torch.zeros_like(where[:, 0], dtype=torch.bool)  # who is at the start, and waits there
    for now, after in zip(where.unbind(1), [*where.unbind(1)[1:], where[:, -1]], strict=True):
        group = 0 * sample if shared else sample
        hit = (s == now[group]) & ~begun[group]
        total = torch.zeros_like(like).index_add(0, sample[hit], g[hit])
        began = torch.zeros_like(like).index_put((sample[hit],), x[hit])
        anew = torch.zeros(batch, dtype=torch.bool, device=x.device).index_fill(0, sample[hit], True)
        yield Leg(now, after, began, total, anew)
        begun = now == start


class Back:
    """The way back, leg after leg: what a turns into, and dL/dtheta as it adds up."""

    def __init__(self, loop: Loop, way: Backsolve, method: str, wanted: Sequence[Tensor]) -> None:
        self.method = way.method or (method if method in PAIRS else "tsit5")
        self.loop, self.way, self.pair, self.wanted = loop, way, PAIRS[self.method], wanted
        self.totals: list[Tensor | None] = [None] * len(wanted)
        self.stages: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.pair.evaluations - 1)
        self.x: Tensor | None = None

    def solve(self, leg: Leg, a: Tensor) -> Tensor:
        """a at the end of a leg, from a where it begins."""
        forth = self.loop.stepper
        wide = (-1,) + (1,) * (a.ndim - 1)
        self.x = leg.x if self.x is None else torch.where(leg.anew.view(wide), leg.x, self.x)
        self.leg, self.length = leg, forth.sign * (leg.s - leg.s_next)
        if not bool(self.length.any()):
            return a
        size = a.abs().square().flatten(1).mean(1).sqrt()
        self.scale = torch.where(size > 0, size, 1.0).view(wide)
        state = torch.stack([self.x, a / self.scale], 1)
        tolerances = [
            torch.full_like(forth.rtol, given) if given else own
            for given, own in ((self.way.rtol, forth.rtol), (self.way.atol, forth.atol))
        ]
        tolerances = [v[:, None] if v.ndim == a.ndim else v for v in tolerances]
        stepper = Explicit(self.pair, self.rate, state, 1.0, forth.shared, False, *tolerances)
        limits = Limits(max_steps=self.loop.limits.max_steps)
        loop = Loop(stepper, self.loop.controller, limits, (0.0, 1.0), (), (), (), observers=(self,))
        ended = loop.run(state, f"the adjoint's {self.method}")
        if bool((ended.code != REACHED).any()):
            raise SolveError(next(filter(None, ended.message)) + "; take grad='checkpoint'")
        self.x, a = ended.x.unbind(1)
        return a * self.scale

    def rate(self, u: Tensor, state: Tensor) -> Tensor:
        """(dx/du, da/du), u from 0 where the leg begins to 1."""
        x, a = state.unbind(1)
        f, x = self._f(u, x)
        (pulled,) = vjp([f], [x], [a])
        self.stages.append((f, a))
        by = self.loop.stepper.spread(self.length)
        back = torch.zeros_like(a) if pulled is None else by * pulled
        return torch.stack([-by * f.detach(), back], 1)

    def _f(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """f with its graph, and the x that the graph begins at. Times stay between jumps."""
        forth, x = self.loop.stepper, x.detach().requires_grad_()
        s = self.leg.s + u * (self.leg.s_next - self.leg.s)
        if len(self.loop.legs) > 1:
            s = torch.minimum(
                torch.maximum(s, _next(self.leg.s_next, forth.real, 1)), _next(self.leg.s, forth.real, -1)
            )
        with torch.enable_grad():
            return forth.rate(forth.time(s), x), x

    def note(self, c: Carry, trial: Trial, ok: Tensor | None, read: list[Reading]) -> None:
        """Adds sum_j b_j h (df_j/dtheta)^T a_j of a step that was accepted."""
        if not self.wanted:
            return
        x, a = trial.x.unbind(1)
        f, x = self._f(trial.s if len(trial.s) > 1 or not self.loop.stepper.shared else trial.s[0], x)
        demand_known([f], [x, *self.wanted], float(self.leg.s.min()))
        h = trial.h if ok is None else torch.where(ok, trial.h, 0.0)
        by = self.loop.stepper.spread(h * self.length) * self.scale
        stages = [(f, a), *list(self.stages)[:-1]]
        weights = [b * by * a for b, (_, a) in zip(self.pair.a[-1], stages, strict=True)]
        parts = vjp([f for f, _ in stages], self.wanted, weights)
        for i, part in enumerate(parts):
            old = self.totals[i]
            self.totals[i] = part if old is None else old if part is None else old + part


def _next(s: Tensor, real: torch.dtype, way: int) -> Tensor:
    s = s.to(real)
    return torch.nextafter(s, torch.full_like(s, way * math.inf)).to(torch.float64)
