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
from torch.utils._pytree import tree_map

from .errors import ArgumentError, SolveError, finite, whole
from .trial import Stepper, Trial


class Output(Protocol):
    """between: whether it reads every step between its ends, which may cost evaluations."""

    between: bool

    def begin(self, s: Tensor, x: Tensor) -> None:
        """A run begins: s [B], in the clock that rises."""

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> None:
        """A step was taken: s1, ok [G]."""


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

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> None:
        ok = ok.expand(len(self.count))
        who = ok.nonzero()[:, 0]
        s1_each, x1 = s1.expand(len(ok)), reached(stepper, trial, s1)
        self.kept.append((self.count[who], who, s1_each[who], x1[who]))
        self.count = self.count + ok

    def table(self, sign: float) -> tuple[Tensor, Tensor]:
        """Times [n, B] and states [n, B, ...], NaN behind the last step of each sample."""
        row, who, s, x = (torch.cat(part) for part in zip(*self.kept, strict=True))
        size = (int(self.count.max()) if len(self.count) else 1, len(self.count))
        t = s.new_full(size, math.nan).index_put((row, who), sign * s)
        return t, x.new_full((*size, *x.shape[1:]), math.nan).index_put((row, who), x)


@dataclass(frozen=True)
class Interpolant:
    """x as a function of t, of the order of the method's interpolant, each sample by the steps of its own.

    Along a step from s to s + h the solution is a polynomial, kept as its values at the Chebyshev points of
    [s, s + h] and read by Lagrange's formula. It is continuous, and differentiable in t and in whatever the
    run is.

    s, h [P]: the steps of all samples.  values [N, P, ...].  begins [B, n]: when those of each sample begin,
    infinity behind the last, and which they are: index [B, n].  span: of the run; ends [B]: of each sample.
    """

    sign: float
    span: tuple[float, float]
    ends: Tensor
    s: Tensor
    h: Tensor
    values: Tensor
    begins: Tensor
    index: Tensor
    nest: Callable[[Tensor], Any] = lambda x: x

    def __call__(self, t: float | Sequence[float] | Tensor) -> Any:
        """x [B, ...] at a time, [n, B, ...] at times [n], or [n, B] where each sample has its own.

        NaN where a sample did not come to that time.

        Raises:
            ArgumentError: a time outside the run, or of another shape.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=self.s.device)
        batch = len(self.begins)
        if t.ndim > 2 or (t.ndim == 2 and t.shape[1] != batch):
            raise ArgumentError(f"t of shape {tuple(t.shape)}: a time, times [n], or [n, {batch}]")
        s = self.sign * (t if t.ndim == 2 else t.reshape(-1, 1).expand(-1, batch))
        low, high = self.span
        if bool((s.detach() < low).any()) or bool((s.detach() > high).any()):
            ends = sorted(self.sign * v for v in self.span)
            raise ArgumentError(f"t goes beyond the run, which is from {ends[0]} to {ends[1]}")
        at = torch.searchsorted(self.begins, s.detach().t().contiguous(), right=True) - 1
        step = self.index.gather(1, at.clamp_min(0)).t()
        theta = (s - self.s[step]) / self.h[step]
        theta = torch.where(s <= self.ends, theta, math.nan)
        wide = (*step.shape, *(1,) * (self.values.ndim - 2))
        real = self.values.dtype.to_real()
        rows = zip(lagrange(theta, chebyshev(len(self.values) - 1)), self.values, strict=True)
        x = sum((w.to(real).view(wide) * value[step] for w, value in rows), torch.zeros((), dtype=real))
        return self.nest(x if t.ndim else x[0])


def chebyshev(degree: int) -> list[float]:
    """The points of [0, 1] where a polynomial of that degree is kept, both ends among them."""
    return [(1 - math.cos(math.pi * k / degree)) / 2 for k in range(degree + 1)]


def lagrange(theta: Tensor, nodes: Sequence[float]) -> list[Tensor]:
    """The weights at theta of the values at the nodes."""
    apart = [theta - node for node in nodes]
    out = []
    for k, here in enumerate(nodes):
        others = [d / (here - node) for j, (d, node) in enumerate(zip(apart, nodes, strict=True)) if j != k]
        out.append(math.prod(others[1:], start=others[0]))
    return out


class Dense:
    """Keeps every step whole."""

    between = True

    def __init__(self, degree: int):
        self.nodes = chebyshev(degree)

    def begin(self, s: Tensor, x: Tensor) -> None:
        self.batch, self.ends = torch.arange(len(x), device=x.device), s
        still = x.expand(len(self.nodes), *x.shape)
        self.pieces = [(self.batch, s, torch.ones_like(s), still)]  # a point, for who takes no step

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> None:
        size = len(self.batch)
        who = ok.expand(size).nonzero()[:, 0]
        inner = self.nodes[1:-1]
        thetas = torch.tensor(inner, dtype=s1.dtype, device=s1.device).repeat_interleave(len(who))
        middle = stepper.at(trial, who.repeat(len(inner)), thetas).view(
            len(inner), len(who), *trial.x.shape[1:]
        )
        values = torch.cat([trial.x[who][None], middle, trial.x1[who][None]])
        self.pieces.append((who, trial.s.expand(size)[who], trial.h.expand(size)[who], values))
        self.ends = torch.where(ok, s1, self.ends)

    def interpolant(self, sign: float, span: tuple[float, float]) -> Interpolant:
        """All that was kept, as a function."""
        sample, s, h = (torch.cat([piece[i] for piece in self.pieces]) for i in range(3))
        values = torch.cat([piece[3] for piece in self.pieces], 1)
        order = torch.argsort(sample, stable=True)
        count = torch.bincount(sample, minlength=len(self.batch))
        first = (count.cumsum(0) - count)[sample[order]]
        column = torch.arange(len(order), device=s.device) - first
        size = (len(self.batch), int(count.max()) if len(count) else 1)
        begins = s.new_full(size, math.inf).index_put((sample[order], column), s[order])
        index = torch.zeros(size, dtype=torch.int64, device=s.device)
        index = index.index_put((sample[order], column), order)
        return Interpolant(sign, span, self.ends, s, h, values, begins, index)


@dataclass(frozen=True)
class Fold:
    """carry = update(carry, t, x) over the ends of the steps, or over times `at`; nothing else is kept.

    start: the first carry, a tensor [B, ...] or a tree of such, or start(t, x) of the beginning.  update gets
    t [B] and x [B, ...]. Samples step on their own, and where one does not take part its carry stays.
    """

    update: Callable[[Any, Tensor, Any], Any]
    start: Any
    at: Sequence[float] | Tensor | None = None

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
        at = fold.at.tolist() if isinstance(fold.at, Tensor) else fold.at
        self.at = None if at is None else [sign * finite("at", t) for t in at]
        if self.at is not None and any(b <= a for a, b in zip(self.at, self.at[1:], strict=False)):
            raise ArgumentError("the times of a Fold must go one way, that of the run")

    def begin(self, s: Tensor, x: Tensor) -> None:
        t = (self.sign * s).to(x.dtype.to_real())
        self.carry = self.fold.start(t, x) if callable(self.fold.start) else self.fold.start
        self.marks = torch.tensor([*(self.at or ()), math.inf], dtype=s.dtype, device=s.device)
        self.next = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if self.at is not None:
            self._take(self.marks[0] == s, s, x)
            self.next = self.next + (self.marks[0] == s)
            if bool((self.marks[0] < s).any()):
                raise ArgumentError("a Fold is at a time before the run begins")

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> None:
        if self.at is None:
            self._take(ok, s1, reached(stepper, trial, s1))
            return
        while bool((due := ok & (self.marks[self.next] <= s1)).any()):
            s = torch.where(due, self.marks[self.next], trial.s)
            x = stepper.along(trial, ((s - trial.s) / trial.h.clamp_min(1e-300)).clamp(0.0, 1.0))
            self._take(due, s, x)
            self.next = self.next + due

    def _take(self, who: Tensor, s: Tensor, x: Tensor) -> None:
        t = (self.sign * s).to(x.dtype.to_real()).expand(len(x))
        who = who.expand(len(x))

        def settle(new: Tensor, old: Tensor) -> Tensor:
            if new.shape != old.shape:
                raise SolveError(f"update of a Fold: {tuple(old.shape)} became {tuple(new.shape)}")
            return torch.where(who.view(-1, *(1,) * (new.ndim - 1)), new, old)

        self.carry = tree_map(settle, self.fold.update(self.carry, t, x), self.carry)


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

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> None:
        points = self.integral.points or (stepper.order + 2) // 2
        h, total = s1 - trial.s, torch.zeros_like(self.carry)
        wide = (-1, *(1,) * (total.ndim - 1))
        for node, weight in zip(*np.polynomial.legendre.leggauss(points), strict=True):
            theta = (1 + float(node)) / 2 * h
            x = stepper.along(trial, (theta / trial.h.clamp_min(1e-300)).expand(len(trial.x)))
            t = (self.sign * (trial.s + theta)).to(x.dtype.to_real()).expand(len(x))
            total = total + float(weight) / 2 * self.integral.g(t, x)
        step = (self.sign * h).to(total.dtype.to_real()).expand(len(total)).view(wide)
        self.carry = torch.where(ok.expand(len(total)).view(wide), self.carry + step * total, self.carry)


Reduction = Fold | Integral


class Keeping:
    """What a run is asked for beside its end or the states at given times."""

    def __init__(self, steps: bool, dense: bool, reduce: Reduction | Sequence[Reduction] | None, sign: float):
        self.sign, self.single = sign, isinstance(reduce, Fold | Integral)
        asked = list(reduce) if isinstance(reduce, Sequence) else [] if reduce is None else [reduce]
        for one in asked:
            if not isinstance(one, Fold | Integral):
                raise ArgumentError(f"reduce = {one!r}: a Fold or an Integral, or several of them")
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
