"""Drift and kick in turn: equal steps of x'' = a(t, x) by a symplectic splitting, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .core import Field
from .errors import ArgumentError, SolveError, like
from .integrate import Callback, Solution, Stats, ended, equal, said
from .methods.symplectic import SYMPLECTIC, WISDOM_HOLMAN
from .pace import Pace
from .problem import ODE
from .rollout import Rollout
from .summation import two_sum


class Turns(Rollout):
    """A run that carries (x, v), and a at x where the table keeps it."""

    def __init__(self, problem: ODE, pace: Pace, x0: Tensor, start: float) -> None:
        super().__init__(problem, pace, x0, start)
        self.xs, self.field = list(x0.chunk(2, 1)), _checked(problem)

    @property
    def x(self) -> Tensor:
        return torch.cat(self.xs, 1)


class Compensated(Turns):
    """The same, with (x, v) kept as the sums of two numbers each: compensated summation (Kahan 1965).

    base: (x, v) rounded; what they lack is what a step works on, with the same weights, and small. After
    each step what it came to is added to the base, and what that loses is where the next begins.
    """

    def __init__(self, problem: ODE, pace: Pace, x0: Tensor, start: float) -> None:
        super().__init__(problem, pace, x0, start)
        x, v = self.base = self.xs
        self.xs, a = [torch.zeros_like(x), torch.zeros_like(v), v], self.field
        self.field = lambda t, lacking: a(t, self.base[0] + lacking)

    @property
    def x(self) -> Tensor:
        return torch.cat([a + b for a, b in zip(self.base, self.xs, strict=False)], 1)

    def step(self) -> None:
        super().step()
        (x, lacking_x), (v, lacking_v) = map(two_sum, self.base, self.xs)
        self.base, self.xs = [x, v], [lacking_x, lacking_v, v]


def turned(
    problem: ODE,
    x0: Tensor,
    times: Sequence[float],
    marks: Sequence[float],
    name: str,
    callback: Callback | None,
    grad: Any,
    options: Mapping[str, Any],
) -> Solution:
    """What `solve` gives for a splitting; steps of another length begin with an evaluation of their own."""
    began, options = time.perf_counter(), dict(options)
    takes = [] if name == WISDOM_HOLMAN else ["compensated"]
    compensated = like("compensated", options.pop("compensated", False), False) if takes else False
    if options:
        raise ArgumentError(f"method {name!r} has no option {next(iter(options))!r}; it has {takes}")
    if grad not in (True, False):
        raise ArgumentError(f"method {name!r}: gradients go through its steps, take grad=True")
    if x0.ndim < 2 or x0.shape[1] % 2:
        raise ArgumentError(f"x0 of {tuple(x0.shape)}: its dimension 1 holds x and v, each a half")
    kept, nfe, x = [x0] if marks[0] == times[0] else [], 0, x0
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        for leg in _legs(times, marks):
            h = (leg[-1] - leg[0]) / (len(leg) - 1)
            run = _begun(problem, name, h, x, leg[0], compensated)
            numbered = _shifted(callback, times.index(leg[0]))
            for mark in (m for m in marks if leg[0] < m <= leg[-1] or leg[0] > m >= leg[-1]):
                kept.append(run.go(leg.index(mark) - run.n, numbered))
            x, nfe = run.go(len(leg) - 1 - run.n, numbered), nfe + run.pace.nfe(len(leg) - 1)
    stats = Stats(nfe, nfe, len(times) - 1, time.perf_counter() - began, nfe)
    return ended(torch.stack(kept), marks, stats)


def _begun(problem: ODE, name: str, h: float, x: Tensor, start: float, compensated: bool) -> Rollout:
    if name == WISDOM_HOLMAN:
        from .nbody.planets import Stride, WisdomHolman  # few runs are of planets

        return WisdomHolman(problem, Stride(h), x, start)
    kind = Compensated if compensated else Turns
    return kind(problem, Pace(problem, SYMPLECTIC[name].method(name, compensated), h, x), x, start)


def _legs(times: Sequence[float], marks: Sequence[float]) -> list[Sequence[float]]:
    """Stretches of equal steps: all, or between two marks."""
    if equal(times):
        return [times]
    ends = [times.index(m) for m in dict.fromkeys([times[0], *marks, times[-1]])]
    return [times[i : j + 1] for i, j in pairwise(ends)]


def _shifted(callback: Callback | None, before: int) -> Callable[[int, float, Tensor], Any] | None:
    return callback and (lambda n, t, x: callback(before + n, t, x))


def _checked(problem: ODE) -> Field:
    """a(t, x), which must be as x is."""
    if problem.acceleration is None:
        raise ArgumentError(
            "a splitting takes drift and kick in turn: give it x'' = a(t, x), as ls.Newton(a) does"
        )
    a = problem.acceleration

    def checked(t: float, x: Tensor) -> Tensor:
        try:
            out = a(torch.tensor(t, dtype=x.dtype, device=x.device), x)
        except Exception as error:
            raise SolveError(f"t = {t:.6g}: {said(error)}") from error
        if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != x.dtype:
            what = f"{out.dtype}, {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(
                f"a returned {what} for x of {x.dtype}, {tuple(x.shape)}: return x'', one for one"
            )
        return out

    return checked
