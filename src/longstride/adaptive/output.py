"""What a run gives besides its end: every step, the solution as a function of time, what is folded over it.

An output sees each step that is accepted, samples where `ok`, and counts it up to s1: the end of the step, or
a terminal event within it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import ArgumentError, SolveError, whole
from ..moments import moments
from ..steppers.trial import Stepper, Trial
from .interpolant import Dense


class Output(Protocol):
    """between: whether it reads steps between their ends, which may cost evaluations."""

    between: bool

    def begin(self, s: Tensor, x: Tensor) -> None:
        """A run begins: s [B], in the clock that rises."""

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        """A step was taken: s1, ok [G]. Returns whose was read between its ends [G]."""


def reached(stepper: Stepper, trial: Trial, s1: Tensor) -> Tensor:
    """The state at s1, which is that of the end where no event has cut the step short."""
    short = s1 < trial.s + trial.h - 4 * torch.finfo(s1.dtype).eps * s1.abs()
    if not bool(short.any()):
        return trial.x1
    cut = stepper.along(trial, ((s1 - trial.s) / trial.h).clamp(0.0, 1.0))
    return torch.where(short.view(stepper.lead), cut, trial.x1)


class Steps:
    """The start and the end of every step, as `save_at="steps"` gives them."""

    between = False

    def begin(self, s: Tensor, x: Tensor) -> None:
        everybody = torch.arange(len(x), device=x.device)
        self.count = torch.ones_like(everybody)
        self.kept = [(torch.zeros_like(everybody), everybody, s, x)]

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        each = ok.expand(len(self.count))
        who = each.nonzero()[:, 0]
        x1 = reached(stepper, trial, s1)
        self.kept.append((self.count[who], who, s1.expand(len(each))[who], x1[who]))
        self.count = self.count + each
        return torch.zeros_like(ok)

    def table(self, sign: float) -> tuple[Tensor, Tensor]:
        """Times [n, B] and states [n, B, ...], NaN behind the last step of each sample."""
        row, who, s, x = (torch.cat(part) for part in zip(*self.kept, strict=True))
        size = (int(self.count.max()) if len(self.count) else 1, len(self.count))
        t = s.new_full(size, math.nan).index_put((row, who), sign * s)
        return t, x.new_full((*size, *x.shape[1:]), math.nan).index_put((row, who), x)


@dataclass(frozen=True)
class Fold:
    """carry = update(carry, t, x) over the ends of the steps, or over times `at`; nothing else is kept.

    start: the first carry, a tensor [B, ...] or a tree of such, or start(t, x) of the beginning.  update gets
    t [B] and x [B, ...]. Samples step on their own, and where one does not take part its carry stays.
    every: in equal steps, over every so manieth step alone.
    """

    update: Callable[[Any, Tensor, Any], Any]
    start: Any
    at: Sequence[float] | Tensor | None = None
    every: int = 1

    def __post_init__(self) -> None:
        whole("every", self.every, 1)

    def seen_by(self, reader: Callable[[Any], Any]) -> Fold:
        """The same, of states that a reader makes trees of."""
        first = reader(self.start) if callable(self.start) else self.start
        return replace(self, update=reader(self.update), start=first)

    def running(self, sign: float) -> Folding:
        return Folding(self, sign)


class Folding:
    """A fold and how far it has come."""

    def __init__(self, fold: Fold, sign: float):
        self.fold, self.sign, self.between = fold, sign, fold.at is not None
        self.at = None if fold.at is None else [sign * t for t in moments("at", fold.at)]
        if self.at is not None and any(b <= a for a, b in zip(self.at, self.at[1:], strict=False)):
            raise ArgumentError("the times of a Fold must go one way, that of the run")

    def begin(self, s: Tensor, x: Tensor) -> None:
        t = (self.sign * s).to(x.dtype.to_real())
        self.carry = self.fold.start(t, x) if callable(self.fold.start) else self.fold.start
        for leaf in tree_leaves(self.carry):
            if not isinstance(leaf, Tensor) or leaf.shape[:1] != x.shape[:1]:
                what = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ArgumentError(f"start of a Fold: {what}; give tensors [B, ...], here B = {len(x)}")
        self.marks = torch.tensor([*(self.at or ()), math.inf], dtype=s.dtype, device=s.device)
        self.next = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if self.at is not None:
            self._take(self.marks[0] == s, s, x)
            self.next = self.next + (self.marks[0] == s)
            if bool((self.marks[0] < s).any()):
                raise ArgumentError("a Fold is at a time before the run begins")

    @property
    def leaves(self) -> list[Tensor]:
        """What is to be remembered of it."""
        return tree_leaves(self.carry)

    def restore(self, leaves: Sequence[Tensor]) -> None:
        rest = iter(leaves)
        self.carry = tree_map(lambda _: next(rest), self.carry)

    def take(self, s: Tensor, x: Tensor) -> None:
        """Of all samples at once, s [B]."""
        self._take(torch.ones_like(s, dtype=torch.bool), s, x)

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        if self.at is None:
            self._take(ok, s1, reached(stepper, trial, s1))
            return torch.zeros_like(ok)
        read = torch.zeros_like(ok)
        while bool((due := ok & (self.marks[self.next] <= s1)).any()):
            s = torch.where(due, self.marks[self.next], trial.s)
            x = stepper.along(trial, ((s - trial.s) / trial.h.clamp_min(1e-300)).clamp(0.0, 1.0))
            self._take(due, s, x)
            self.next, read = self.next + due, read | due[: len(read)]
        return read

    def _take(self, who: Tensor, s: Tensor, x: Tensor) -> None:
        t = (self.sign * s).to(x.dtype.to_real()).expand(len(x))
        who = who.expand(len(x))

        def settle(new: Tensor, old: Tensor) -> Tensor:
            if new.shape != old.shape:
                raise SolveError(f"update of a Fold: {tuple(old.shape)} became {tuple(new.shape)}")
            return torch.where(who.view(-1, *(1,) * (new.ndim - 1)), new, old)

        self.carry = tree_map(settle, self.fold.update(self.carry, t, x), self.carry)


@dataclass(frozen=True)
class Record:
    """(t, g) in equal steps: times [n] and g(t, x) [n, ...] at the start and after every so manieth step.

    g gets t [B] and x [B, ...], and may return a tensor of any shape: an energy [B], a spectrum [B, K].
    """

    g: Callable[[Tensor, Any], Tensor]
    every: int = 1

    def __post_init__(self) -> None:
        whole("every", self.every, 1)

    def seen_by(self, reader: Callable[[Any], Any]) -> Record:
        """The same, of states that a reader makes trees of."""
        return replace(self, g=reader(self.g))

    def running(self, sign: float) -> Recording:
        return Recording(self)


class Recording:
    """A record and how far it has come."""

    def __init__(self, record: Record):
        self.record, self.t, self.values = record, list[Tensor](), list[Tensor]()

    def begin(self, s: Tensor, x: Tensor) -> None:
        self.take(s, x)

    def take(self, s: Tensor, x: Tensor) -> None:
        self.t.append(s[:1].double())
        self.values.append(self.record.g(s.to(x.dtype.to_real()), x))

    @property
    def carry(self) -> tuple[Tensor, Tensor]:
        return torch.cat(self.t), torch.stack(self.values)

    @property
    def leaves(self) -> list[Tensor]:
        return list(self.carry)

    def restore(self, leaves: Sequence[Tensor]) -> None:
        t, values = leaves
        self.t, self.values = list(t.split(1)), list(values.unbind())


@dataclass(frozen=True)
class Integral:
    """int g(t, x(t)) dt from the start to where each sample stops, g [B, ...]; backward runs count backward.

    By Gauss and Legendre in every step, on the method's interpolant, at as many points as its order asks for.
    """

    g: Callable[[Tensor, Any], Tensor]
    points: int | None = None

    def __post_init__(self) -> None:
        if self.points is not None:
            whole("points", self.points, 1)

    def seen_by(self, reader: Callable[[Any], Any]) -> Integral:
        """The same, of states that a reader makes trees of."""
        return replace(self, g=reader(self.g))

    def running(self, sign: float) -> Integrating:
        return Integrating(self, sign)


class Integrating:
    """An integral and how far it has come."""

    between = True

    def __init__(self, integral: Integral, sign: float):
        self.integral, self.sign = integral, sign

    def begin(self, s: Tensor, x: Tensor) -> None:
        self.carry = torch.zeros_like(self.integral.g((self.sign * s).to(x.dtype.to_real()), x))

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        # Of several orders, as multistep methods are, the degree tells the highest.
        points = self.integral.points or (max(stepper.order, stepper.degree) + 2) // 2
        h, total = s1 - trial.s, torch.zeros_like(self.carry)
        wide = (-1, *(1,) * (total.ndim - 1))
        for node, weight in zip(*np.polynomial.legendre.leggauss(points), strict=True):
            theta = (1 + float(node)) / 2 * h
            x = stepper.along(trial, (theta / trial.h.clamp_min(1e-300)).expand(len(trial.x)))
            t = (self.sign * (trial.s + theta)).to(x.dtype.to_real()).expand(len(x))
            total = total + float(weight) / 2 * self.integral.g(t, x)
        step = (self.sign * h).to(total.dtype.to_real()).expand(len(total)).view(wide)
        self.carry = torch.where(ok.expand(len(total)).view(wide), self.carry + step * total, self.carry)
        return ok


Reduction = Fold | Integral


class Keeping:
    """What a run is asked for beside its end or the states at given times."""

    def __init__(self, steps: bool, dense: bool, reduce: Reduction | Sequence[Reduction] | None, sign: float):
        self.sign, self.single = sign, isinstance(reduce, Fold | Integral)
        asked = list(reduce) if isinstance(reduce, Sequence) else [] if reduce is None else [reduce]
        for one in asked:
            if not isinstance(one, Fold | Integral):
                raise ArgumentError(f"reduce = {one!r}: a Fold or an Integral, or several of them")
            if isinstance(one, Fold) and one.every != 1:
                raise ArgumentError("every= of a Fold counts equal steps, with dt= or steps=; give at=")
        self.reductions = [one.running(sign) for one in asked]
        self.steps, self.wanted = Steps() if steps else None, dense
        self.dense: Dense | None = None

    def outputs(self, degree: int) -> list[Output]:
        """Of a run along whose steps the solution is a polynomial of this degree."""
        self.dense = Dense(degree) if self.wanted else None
        return [one for one in (self.steps, self.dense, *self.reductions) if one is not None]

    def given(self, span: tuple[float, float]) -> dict[str, Any]:
        """Fields of the `Solution`, once the run over this span of the clock that rises has ended."""
        out: dict[str, Any] = {}
        if self.steps:
            out["t"], out["x"] = self.steps.table(self.sign)
        if self.dense:
            out["interpolant"] = self.dense.interpolant(self.sign, span)
        if self.reductions:
            found = tuple(one.carry for one in self.reductions)
            out["reduced"] = found[0] if self.single else found
        return out

    def at_once(self, solution: Any, span: tuple[float, float]) -> Any:
        """Of a run that has ended where it began."""
        x0 = solution.x_end
        for output in self.outputs(1):
            output.begin(torch.full(x0.shape[:1], span[0], dtype=torch.float64, device=x0.device), x0)
        return replace(solution, **self.given(span))
