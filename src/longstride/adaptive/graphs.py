"""A step as a pure function of tensors, for a compiler: of explicit pairs, and of Hermite's method.

States [B, D] of few columns travel as D tensors [B]: then all of a step is elementwise over the batch and
becomes one vectorized loop. What stands between, such as `torch.stack` in f, `columns.py` takes apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor

from ..columns import WIDE
from ..control import Controller, History
from ..errors import ArgumentError
from ..methods.embedded import Rows
from ..steppers.hermite import Corrected, HermiteStepper
from ..steppers.trial import Explicit, Rate
from .events import Event

if TYPE_CHECKING:
    from .stepping import Loop

COLUMNS = 8  # as many as a chunk may hold apart; a native loop, or a chunk of bodies, `WIDE`
STEPS = 4  # of a chunk of explicit ones
Parts = tuple[Tensor, ...]  # the columns of a state, or the state alone


class State(NamedTuple):
    """Between two steps: [G] each; tries, rejected and left count steps, `left` those the chunk may take.

    more: what a method carries besides x and f from step to step; inner: from turn to turn of a step.
    """

    live: Tensor
    s: Tensor
    h: Tensor
    x: Parts
    first: Parts
    tries: Tensor
    rejected: Tensor
    left: Tensor
    history: History
    values: Parts
    more: Parts
    inner: Parts = ()


class Made(NamedTuple):
    """A step that was tried.  K: what tells the solution along it.  wants: the next step [G], if told.

    done: whose step this turn has ended [G], of a method that takes several to one; None: everybody's.
    """

    x1: Parts
    first: Parts
    K: Tensor | None
    ratio: Tensor
    wants: Tensor | None
    more: Parts
    inner: Parts = ()
    done: Tensor | None = None


class Bounds(NamedTuple):
    """What holds for a chunk: where the leg ends [G], tolerances, the longest and the least step."""

    end: Tensor
    rtol: Parts
    atol: Parts
    longest: Tensor
    least: Parts
    limit: Tensor | None


def chosen(who: Tensor, new: Parts, old: Parts) -> Parts:
    """The new parts of those who [G]; of others they stay."""
    return tuple(torch.where(who.view(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))


@dataclass(frozen=True)
class Graph:
    """What a graph is made for: the numbers in it.

    shrinks: the power of h that the error estimate falls with.
    columns: of the state where they travel apart, else 0.  shape: of a sample.
    lead: a number of each sample beside its state.
    keep: whether what tells the solution between the ends of a step is given out.
    """

    shrinks: int
    controller: Controller
    events: tuple[Event, ...]
    sign: float
    shared: bool
    columns: int
    shape: tuple[int, ...]
    lead: tuple[int, ...]
    real: torch.dtype
    keep: bool

    @classmethod
    def of(cls, loop: Loop, columns: int) -> Self:
        """The graph of a run, of states of up to so many columns.

        Raises:
            ArgumentError: its problem or its stepper cannot become one.
        """
        raise NotImplementedError

    @staticmethod
    def common(loop: Loop, columns: int) -> dict[str, Any]:
        """What every graph knows of a run."""
        stepper = loop.stepper
        return {
            "shrinks": stepper.shrinks, "controller": loop.controller, "events": tuple(loop.events),
            "sign": stepper.sign, "shared": stepper.shared, "columns": columns,
            "shape": tuple(stepper.shape[1:]), "lead": stepper.lead, "real": stepper.real,
            "keep": loop.saving,
        }  # fmt: skip

    @property
    def steps(self) -> int:
        """Of a chunk: of those that are long of themselves, one."""
        return 1

    def evaluations(self, at: State, tries: Tensor, rejected: Tensor) -> Tensor:
        """Of f, that as many steps took, the last of which led to a state."""
        return tries

    def carried(self) -> tuple[Parts, Parts]:
        """`more` and `inner` of the state that a chunk begins with."""
        return (), ()

    def restore(self, stepper: Any, at: State, made: int) -> None:
        """Tells the stepper what a chunk has carried, in at most so many steps."""

    def join(self, parts: Parts) -> Tensor:
        return torch.stack(parts, 1).view(-1, *self.shape) if self.columns else parts[0]

    def split(self, x: Tensor) -> Parts:
        return x.reshape(len(x), -1).unbind(1) if self.columns else (x,)

    def beside(self, v: Tensor, x: Tensor) -> Tensor:
        """[G] beside a part of the state."""
        return v.to(x.dtype) if self.columns else v.to(x.dtype).view(self.lead)

    def time(self, s: Tensor, limit: Tensor | None = None) -> Tensor:
        t = s.to(self.real)
        t = self.sign * (t if limit is None else torch.minimum(t, limit))
        return t[0] if self.shared else t

    def combined(self, row: Sequence[float], ks: Sequence[Parts]) -> Parts:
        """sum of w K_j without those of weight 0."""
        first, *terms = [
            k if w == 1 else tuple(w * part for part in k) for w, k in zip(row, ks, strict=False) if w
        ]
        return tuple(sum(parts[1:], parts[0]) for parts in zip(first, *terms, strict=True))

    def allowed(self, x: Parts, x1: Parts, b: Bounds) -> Parts:
        """What the tolerances allow at the larger of two states."""
        return tuple(
            atol + rtol * torch.maximum(one.abs(), other.abs())
            for atol, rtol, one, other in zip(b.atol, b.rtol, x, x1, strict=True)
        )

    def size(self, error: Parts, scale: Parts) -> Tensor:
        """Root mean square of what is scaled: [G]."""
        quotients = [e / q for e, q in zip(error, scale, strict=True)]
        if not self.columns:
            rows = quotients[0].reshape(1 if self.shared else len(quotients[0]), -1)
            count = rows.shape[1]
            return (torch.linalg.vector_norm(rows, dim=1) / count**0.5).to(torch.float64)
        total = quotients[0] * quotients[0]
        for q in quotients[1:]:
            total = total + q * q
        mean = total.mean(0, keepdim=True) if self.shared else total
        return (mean / self.columns).sqrt().to(torch.float64)

    def trial(self, rate: Rate, at: State, h: Tensor, b: Bounds) -> Made:
        """A step of h, as the stepper has it."""
        raise NotImplementedError

    def step(self, rate: Rate, at: State, b: Bounds) -> tuple[State, tuple[Tensor, ...]]:
        """One step of all that are live; what it was: s, h, where it ended, who took it, and K if kept."""
        room = b.end - at.s
        wanted = torch.where(at.h < room, torch.minimum(at.h, room / 2), at.h)
        h = torch.where(at.live, torch.minimum(wanted, room), 0.0)
        x1, f, K, ratio, wants, more, inner, done = self.trial(rate, at, h, b)
        factor, accept, history = self.controller.control(ratio, at.history, self.shrinks)
        after = h * factor if wants is None else torch.where(accept, wants, h * factor)
        after = torch.minimum(after, b.longest)
        least = torch.maximum(4 * torch.finfo(self.real).eps * at.s.abs() + b.least[0], b.least[1])
        ended = at.live if done is None else at.live & done
        taken = ended & (accept | (after > least))
        s1, values = at.s + h, at.values
        if self.events:
            x = self.join(x1)
            t = self.time(s1).expand(len(x))
            values = tuple(event.value(t, x) for event in self.events)
            for event, before, value in zip(self.events, at.values, values, strict=True):
                taken = taken & ~(accept & event.crossed(before, value))
        ok, live = accept & taken, taken | (at.live ^ ended)
        s1 = torch.where(ok, torch.where(h >= room, b.end, s1), at.s)
        after = torch.where(accept & (h < wanted), torch.maximum(wanted, after), after)
        left = at.left - taken.to(at.left.dtype)
        state = State(
            live & (s1 < b.end) & (left > 0),
            s1,
            torch.where(taken, after, at.h),
            chosen(ok, x1, at.x),
            chosen(ok, f, at.first),
            at.tries + taken.to(at.tries.dtype),
            at.rejected + (taken & ~accept).to(at.rejected.dtype),
            left,
            chosen(taken, history, at.history),
            chosen(ok, values, at.values),
            chosen(ok, more, at.more),
            chosen(at.live, inner, at.inner),
        )
        return state, () if K is None else (at.s, h, s1, ok, self.join(at.x), K)


@dataclass(frozen=True)
class Pairs(Graph):
    """Of explicit pairs.  rows, c: of the evaluations after the first.  judges: of the error estimate."""

    rows: Rows
    c: tuple[float, ...]
    judges: Rows

    @classmethod
    def of(cls, loop: Loop, columns: int) -> Self:
        stepper = loop.stepper
        assert isinstance(stepper, Explicit)
        size, pair = math.prod(stepper.shape[1:]), stepper.pair
        narrow = size <= columns and not stepper.dtype.is_complex
        known = cls.common(loop, size if narrow else 0)
        return cls(**known, rows=pair.a[1:], c=pair.c[1:], judges=pair.error)

    @property
    def steps(self) -> int:
        return STEPS

    def evaluations(self, at: State, tries: Tensor, rejected: Tensor) -> Tensor:
        return len(self.rows) * tries

    def trial(self, rate: Rate, at: State, h: Tensor, b: Bounds) -> Made:
        """A step of h, as `trial.Explicit` has it."""
        x1, f = at.x, at.first
        by = self.beside(self.sign * h, at.x[0])
        ks = [tuple(by * part for part in f)]
        for row, c in zip(self.rows, self.c, strict=True):
            move = self.combined(row, ks)
            x1 = tuple(x + m for x, m in zip(at.x, move, strict=True))
            f = self.split(rate(self.time(at.s + c * h, b.limit), self.join(x1)))
            ks.append(tuple(by * part for part in f))
        scale = self.allowed(at.x, x1, b)
        e, *other = [self.size(self.combined(row, ks), scale) for row in self.judges]
        ratio = e * (e / torch.hypot(e, 0.1 * other[0]).clamp_min(1e-300)) if other else e
        # h f in a Trial, here with the sign
        K = self.sign * torch.stack([self.join(k) for k in ks]) if self.keep else None
        return Made(x1, f, K, ratio, None, ())


@dataclass(frozen=True)
class Hermites(Graph):
    """Of Hermite's method, whose jerk is carried from step to step."""

    stepper: HermiteStepper

    @classmethod
    def of(cls, loop: Loop, columns: int) -> Self:
        stepper = loop.stepper
        assert isinstance(stepper, HermiteStepper)
        if not hasattr(stepper.known, "jerk"):
            raise ArgumentError("compile=True of hermite takes what knows its jerk, such as nbody.Gravity")
        size = math.prod(stepper.shape[1:])
        narrow = size <= WIDE and not stepper.dtype.is_complex
        return cls(**cls.common(loop, size if narrow else 0), stepper=stepper)

    def carried(self) -> tuple[Parts, Parts]:
        return self.split(self.stepper.jerk), ()

    def restore(self, stepper: Any, at: State, made: int) -> None:
        stepper.jerk = self.halved(at.more)

    def halved(self, parts: Parts) -> Tensor:
        """Half a state."""
        half = self.shape[0] // 2
        return torch.stack(parts, 1).view(-1, half, *self.shape[1:]) if self.columns else parts[0]

    def trial(self, rate: Rate, at: State, h: Tensor, b: Bounds) -> Made:
        """As `hermite.HermiteStepper` has it; K is what tells the solution along a step."""
        stepper = self.stepper
        trial = stepper.stepped(at.s, h, self.join(at.x), self.join(at.first), self.halved(at.more), 1)
        assert isinstance(trial, Corrected)
        K = stepper.complete(trial) if self.keep else None
        x1, first, more = (self.split(part) for part in (trial.x1, trial.last, trial.jerk))
        return Made(x1, first, K, stepper.ratio(trial), trial.wants, more)
