"""Drift and kick in turn: equal steps of x'' = a(t, x) by a symplectic splitting, in constant memory."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .core import Field, Step, advance
from .errors import ArgumentError, SolveError, like
from .integrate import Callback, Solution, Stats, ended, equal, said
from .methods.symplectic import SYMPLECTIC, WISDOM_HOLMAN
from .pace import Pace
from .problem import ODE
from .rollout import Rollout
from .summation import two_sum

BLOCK = 8  # steps of a graph


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


class Compiled(Turns):
    """BLOCK steps at a time as one graph, of states with the batch last in memory.

    Then a graph's loops run along the batch, as vectors, whatever a does across a sample.
    """

    def __init__(self, problem: ODE, pace: Pace, x0: Tensor, start: float) -> None:
        super().__init__(problem, pace, x0, start)
        assert problem.acceleration is not None
        self.a = problem.acceleration
        assert all(stage.terms for stage in pace.steady.stages)  # found once, where no graph looks

    def go(self, steps: int, callback: Callback | None = None) -> Tensor:
        while steps >= BLOCK and callback is None:
            if self.n < len(self.pace.starting):
                self.step()
                self.n, steps = self.n + 1, steps - 1
                continue
            xs, fs = (tuple(map(_batch_last, parts)) for parts in (self.xs, self.fs))
            t = torch.tensor(self.t, dtype=xs[0].dtype, device=xs[0].device)
            self.xs, self.fs = compiled(self.a)(self.a, self.pace.steady, self.pace.h, t, xs, fs)
            self.n, steps = self.n + BLOCK, steps - BLOCK
        return super().go(steps, callback)


def _batch_last(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _block(
    a: Callable[[Tensor, Tensor], Tensor], step: Step, h: float, t: Tensor, xs: Sequence[Tensor],
    fs: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    for k in range(BLOCK):

        def field(at: float, x: Tensor, begun: float = k * h) -> Tensor:
            return a(t + (begun + at), x)

        xs, fs = advance([field], step, xs, fs)
    return list(xs), list(fs)


@cache
def compiled(a: Any) -> Callable[..., Any]:
    """`_block` compiled for a. Each has code of its own: torch counts graphs by it, up to 8."""
    own = types.FunctionType(_block.__code__.replace(), globals(), "_block")
    return torch.compile(own, fullgraph=True, dynamic=False)


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
    began = time.perf_counter()
    kind = _kind(name, options)
    if grad not in (True, False):
        raise ArgumentError(f"method {name!r}: gradients go through its steps, take grad=True")
    if x0.ndim < 2 or x0.shape[1] % 2:
        raise ArgumentError(f"x0 of {tuple(x0.shape)}: its dimension 1 holds x and v, each a half")
    kept, nfe, x = [x0] if marks[0] == times[0] else [], 0, x0
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        for leg in _legs(times, marks):
            h = (leg[-1] - leg[0]) / (len(leg) - 1)
            run = kind(problem, h, x, leg[0])
            numbered = _shifted(callback, times.index(leg[0]))
            for mark in (m for m in marks if leg[0] < m <= leg[-1] or leg[0] > m >= leg[-1]):
                kept.append(run.go(leg.index(mark) - run.n, numbered))
            x, nfe = run.go(len(leg) - 1 - run.n, numbered), nfe + run.pace.nfe(len(leg) - 1)
    stats = Stats(nfe, nfe, len(times) - 1, time.perf_counter() - began, nfe)
    return ended(torch.stack(kept), marks, stats)


def _kind(name: str, options: Mapping[str, Any]) -> Callable[[ODE, float, Tensor, float], Rollout]:
    """What runs a method with these options: a function of problem, step, state and start."""
    kinds = {"compensated": Compensated, "compile": Compiled} if name in SYMPLECTIC else {}
    if unknown := [key for key in options if key not in kinds]:
        takes = " or ".join(kinds) or "none"
        raise ArgumentError(f"method {name!r} has no option {unknown[0]!r}; its options: {takes}")
    asked = [key for key in options if like(key, options[key], False)]
    if len(asked) > 1:
        raise ArgumentError("compensated and compile do not go together yet: take one")
    if name == WISDOM_HOLMAN:
        from .nbody.planets import Stride, WisdomHolman  # few runs are of planets

        return lambda problem, h, x, start: WisdomHolman(problem, Stride(h), x, start)
    made = kinds[asked[0]] if asked else Turns
    method = SYMPLECTIC[name].method(name, carried=made is Compensated)
    return lambda problem, h, x, start: made(problem, Pace(problem, method, h, x), x, start)


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
