"""Methods on a grid that is given: Runge-Kutta steps, and Adams methods that start with them.

A step from t0 to t1 = t0 + h is one of dx/dtheta = h f(t0 + theta h, x) over theta in [0, 1]. So the weights
are those of a unit step and are written once, whatever the grid, and h may be a tensor with a gradient.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...adaptive.events import Event, locate
from ...core import Stage, Step, advance
from ...errors import ArgumentError
from ...methods.base import one_of
from ...methods.runge_kutta import Tableau, runge_kutta
from ...operator import Linear
from .inputs import ADAMS, RUNGE_KUTTA, Asked, CheckError, LimitError

Time = Any  # a float, or a tensor where the times are differentiated
Rate = Callable[[Time, Tensor, int], Tensor]  # f at a time, at the next number after it, or before it
Rule = Callable[[Time, Time, Tensor, Tensor], Tensor]  # (t0, t1, x0, f there) to x1

MOST_STEPS = 20_000  # after which an event is given up
LOWEST, HIGHEST = 4, 12  # orders of an Adams method


def beside(v: Time, x: Tensor) -> Time:
    """A number as a factor of x, which keeps its dtype."""
    return v.to(x.dtype) if isinstance(v, Tensor) else v


@dataclass
class Piece:
    """A step from (t0, x0), where f is f0, to (t1, x1), and the line or Hermite's cubic between."""

    t0: Time
    t1: Time
    x0: Tensor
    x1: Tensor
    f0: Tensor
    rate: Rate | None
    f1: Tensor | None = None

    def time(self, theta: Any) -> Time:
        return self.t0 + theta * (self.t1 - self.t0)

    def along(self, theta: Any) -> Tensor:
        theta = beside(theta, self.x0)
        if self.rate is None:
            return self.x0 + theta * (self.x1 - self.x0)
        if self.f1 is None:
            with torch.set_grad_enabled(self.x1.requires_grad):  # a root finder looks without
                self.f1 = self.rate(self.t1, self.x1, 0)
        h, back = beside(self.t1 - self.t0, self.x0), 1 - theta
        ends = back**2 * (1 + 2 * theta) * self.x0 + theta**2 * (3 - 2 * theta) * self.x1
        return ends + theta * back * h * (back * self.f0 - theta * self.f1)


@lru_cache
def unit_step(tableau: Tableau) -> Step:
    return runge_kutta(tableau).step((0.0, 1.0), 0, Linear())


def one_step(tableau: Tableau, rate: Rate) -> Rule:
    """The steps of a tableau."""
    unit = unit_step(tableau)

    def step(t0: Time, t1: Time, x0: Tensor, f0: Tensor) -> Tensor:
        h = t1 - t0
        by = beside(h, x0)

        def field(theta: float, x: Tensor) -> Tensor:
            return by * (f0 if theta == 0 else rate(t1, x, -1) if theta == 1 else rate(t0 + theta * h, x, 0))

        return advance((field,), unit, [x0], [])[0][0]

    return step


def adams_weights(c: Tensor) -> Tensor:
    """int_0^1 of the Lagrange polynomials over the nodes c [m]: Gauss's rule, exact to degree 15."""
    points, share = (torch.from_numpy(v).to(c) for v in np.polynomial.legendre.leggauss(8))
    own = torch.eye(len(c)).to(c)
    factors = ((points[:, None, None] + 1) / 2 - c) / (c[:, None] - c + own)
    return share / 2 @ torch.where(own == 1, 1.0, factors).prod(-1)


@lru_cache(maxsize=64)
def listed_weights(nodes: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(adams_weights(torch.tensor(nodes, dtype=torch.float64)).tolist())


class Adams:
    """Adams-Bashforth of up to 11 evaluations, with Moulton's corrector repeated until it stands still.

    Weights are those of the times as they are, equally spaced or not. The first steps, with fewer evaluations
    than three known, are of the 3/8 rule.
    """

    def __init__(
        self, rate: Rate, rtol: Any, atol: Any, implicit: bool, max_order: int, max_iters: int
    ) -> None:
        if max_order > HIGHEST:
            raise CheckError(f"max_order must be at most {HIGHEST}, and is {max_order}")
        if max_order < LOWEST:
            warnings.warn(f"max_order is below {LOWEST}, so the solver reduces to `rk4`.", stacklevel=5)
        self.rate, self.rtol, self.atol = rate, rtol, atol
        self.repeats = max_iters if implicit else 0
        self.start = one_step(RUNGE_KUTTA["rk4"], rate)
        self.known: deque[tuple[Time, Tensor]] = deque(maxlen=max(int(max_order) - 1, 1))  # newest first

    def __call__(self, t0: Time, t1: Time, x0: Tensor, f0: Tensor) -> Tensor:
        self.known.appendleft((t0, f0))
        if len(self.known) < LOWEST - 1:
            return self.start(t0, t1, x0, f0)
        h = t1 - t0
        nodes = [(t - t0) / h for t, _ in self.known]
        fs = [f for _, f in self.known]
        x1 = self._sum(h, x0, fs, nodes)
        for _ in range(self.repeats):
            before, x1 = x1, self._sum(h, x0, [self.rate(t1, x1, -1), *fs], [h / h, *nodes])
            if self._still(before - x0, x1 - x0):
                return x1
        if self.repeats:
            warnings.warn("Functional iteration did not converge. Solution may be incorrect.", stacklevel=5)
        return x1

    def _sum(self, h: Time, x0: Tensor, fs: list[Tensor], nodes: list[Time]) -> Tensor:
        weights: tuple[Time, ...]
        if isinstance(h, Tensor):
            weights = adams_weights(torch.stack(nodes)).unbind()
        else:
            weights = listed_weights(tuple(map(_whole, nodes)))
        row = Stage((1.0,), tuple(beside(h * w, x0) for w in weights))
        return advance((), Step((row,)), [x0], fs)[0][0]

    def _still(self, before: Tensor, after: Tensor) -> bool:
        allowed = self.atol + self.rtol * torch.maximum(before.abs(), after.abs())
        return bool(((after - before).abs() < allowed).all())


def _whole(c: float) -> float:
    """c itself, or the whole number it is but for round-off, so that equal steps have equal weights."""
    return float(round(c)) if abs(c - round(c)) < 1e-9 else c


class Grid:
    """One call on a grid: its options, and the pieces it takes.

    Options: step_size or grid_constructor, else the times asked for; interp; perturb.
    """

    def __init__(self, asked: Asked, x0: Tensor) -> None:
        adams = {"max_iters": 4, "max_order": HIGHEST} if asked.method in ADAMS else {}
        options = asked.take(step_size=None, grid_constructor=None, interp="linear", perturb=False, **adams)
        one_of("interp", options["interp"], ("linear", "cubic"))
        if options["step_size"] is not None and options["grid_constructor"] is not None:
            raise ArgumentError("step_size and grid_constructor are mutually exclusive: give one of them")
        self.asked, self.form, self.perturb = asked, asked.form, options["perturb"]
        self.x0 = x0.view(self.form.shapes[0]) if self.form.single else x0  # a tensor needs no rows here
        self.cubic = options["interp"] == "cubic"
        self.step_size, self.constructor = options["step_size"], options["grid_constructor"]
        self.callback = asked.watched("callback_step").get("callback_step")
        if asked.method in ADAMS:
            implicit = asked.method != "explicit_adams"
            orders = (options["max_order"], options["max_iters"])
            rtol, atol = map(self._tolerance, (asked.rtol, asked.atol))
            self.rule: Rule = Adams(self.rate, rtol, atol, implicit, *orders)
        else:
            self.rule = one_step(RUNGE_KUTTA[asked.method], self.rate)

    def _tolerance(self, value: Any) -> Any:
        return value.view_as(self.x0) if isinstance(value, Tensor) and value.ndim else value

    def rate(self, t: Time, x: Tensor, nudge: int) -> Tensor:
        at = self.asked.time(t)
        if nudge and self.perturb:
            beyond = torch.nextafter(at, at + nudge * self.asked.sign)
            at = at + (beyond - at).detach()
        if not self.form.single:
            return self.asked.rate(at, x)
        return self.form.part(self.asked.func(at, x), self.form.shapes[0], x.dtype)

    def times(self, t: Tensor) -> Tensor:
        """The grid, in float64 as t."""
        if self.constructor is not None:
            grid = self.constructor(self.asked.func, self.asked.y0, self.asked.t).to(t)
            if not (len(grid) and grid[0] == t[0] and grid[-1] == t[-1]):
                raise CheckError("grid_constructor: its grid must begin and end with t, and does not")
            return grid
        if self.step_size is None or len(t) < 2:
            return t
        h = self._size()
        steps = math.ceil(abs(self.asked.times[-1] - self.asked.times[0]) / h)
        return torch.cat([t[:1] + self.asked.sign * h * torch.arange(steps).to(t), t[-1:]])

    def _size(self) -> float:
        size = float(self.step_size)
        if not 0 < size < math.inf:
            raise ArgumentError(f"step_size = {size}: it must be positive, backward in time as well")
        return size

    def pieces(self, times: Iterable[Time]) -> Iterator[Piece]:
        """The steps between times, one after the other."""
        x, f0, t0 = self.x0, None, None
        for t1 in times:
            if t0 is None:
                t0 = t1
                continue
            if self.callback is not None:
                h = self.asked.time(abs(t1 - t0))
                self.callback(self.asked.time(t0), self.form.state(x), h)
            if f0 is None:
                f0 = self.rate(t0, x, 1)
            x1 = self.rule(t0, t1, x, f0)
            yield (piece := Piece(t0, t1, x, x1, f0, self.rate if self.cubic else None))
            x, t0, f0 = x1, t1, None if self.perturb else piece.f1

    def states(self) -> Tensor:
        """x [T, 1, N] at the times asked for."""
        t = self.asked.t.to(torch.float64)
        grid, sign, found = self.times(t), self.asked.sign, [self.x0]
        listed = torch.Tensor.unbind if t.requires_grad else torch.Tensor.tolist
        clock = listed(grid)
        wanted = clock if grid is t else listed(t)
        for piece in self.pieces(clock):
            while len(found) < len(wanted) and sign * wanted[len(found)] <= sign * piece.t1:
                at = wanted[len(found)]
                same = at is piece.t1 or (not t.requires_grad and at == piece.t1)
                theta = (at - piece.t0) / (piece.t1 - piece.t0)
                found.append(piece.x1 if same else piece.along(theta))
        return torch.stack(found).view(len(t), 1, -1)

    def until(self, event: Event) -> tuple[float, Tensor]:
        """When the event's value, positive at first, is no longer so, and the state then."""
        if self.step_size is None:
            raise CheckError("Event handling on a grid requires `step_size` to be provided in options")
        start, h = self.asked.times[0], self.asked.sign * self._size()
        piece = next(filter(
            lambda piece: event.g(self.asked.time(piece.t1), piece.x1) <= 0,
            self.pieces(start + h * n for n in range(MOST_STEPS + 1)),
        ), None)  # fmt: skip
        if piece is None:
            raise LimitError(
                f"Reached maximum number of iterations {MOST_STEPS} without an event: take a longer "
                "step_size, or look whether event_fn ever changes its sign"
            )

        def value(theta: Tensor) -> Tensor:
            return event.g(self.asked.time(piece.time(float(theta))), piece.along(float(theta)))

        with torch.no_grad():
            theta = float(locate(value, value(torch.zeros((), dtype=torch.float64, device=piece.x1.device))))
        return float(piece.time(theta)), piece.along(theta).view(1, -1)
