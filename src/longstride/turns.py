"""Drift and kick in turn: equal steps of x'' = a(t, x) by a symplectic splitting, in constant memory."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .core import Field, Step, advance
from .errors import ArgumentError, SolveError, like, said
from .integrate import Callback
from .methods.symplectic import SYMPLECTIC, WISDOM_HOLMAN, write
from .problem import ODE
from .solution import Solution, Stats, ended
from .stretches import Stretches
from .summation import two_sum

BLOCK = 8  # steps of a graph


class Run:
    """Steps of a problem along times; it remembers none of them.

    n: steps taken.  nfe: evaluations made.
    """

    def __init__(self, problem: ODE, name: str, x0: Tensor, times: Stretches) -> None:
        self.problem, self.name, self.times, self.n, self.nfe = problem, name, times, 0, 0

    @property
    def x(self) -> Tensor:
        raise NotImplementedError

    @property
    def h(self) -> float:
        """The size of the step that is next."""
        return self.times.sizes[self.times.stretch(self.n)]

    def step(self) -> None:
        """Step n."""
        raise NotImplementedError

    def go(self, upto: int, callback: Callback | None = None) -> Tensor:
        """Takes the steps before `upto`; returns the state.

        Raises:
            SolveError: what a raised; NaN or infinity at the end of them.
        """
        while self.n < upto:
            self.step()
            self.n += 1
            if callback is not None:
                callback(self.n - 1, self.times[self.n], self.x)
        x = self.x
        if not bool(torch.isfinite(x).all()):
            t = self.times[self.n]
            raise SolveError(f"method {self.name}: NaN or infinity before t = {t:.6g}: take a smaller dt")
        return x


class Turns(Run):
    """A run that carries (x, v), and a at x where the table keeps it, whatever the next step's length."""

    carried = False

    def __init__(self, problem: ODE, name: str, x0: Tensor, times: Stretches) -> None:
        super().__init__(problem, name, x0, times)
        if x0.ndim < 2 or x0.shape[1] % 2:
            raise ArgumentError(f"x0 of {tuple(x0.shape)}: its dimension 1 holds x and v, each a half")
        self.xs, self.fs, self.field = list(x0.chunk(2, 1)), list[Tensor](), _checked(problem)
        self.written: dict[tuple[float, bool], Step] = {}

    @property
    def x(self) -> Tensor:
        return torch.cat(self.xs, 1)

    @property
    def weights(self) -> Step:
        """Of the step that is next."""
        key = self.h, bool(self.fs)
        if key not in self.written:
            self.written[key] = write(SYMPLECTIC[self.name], 0.0, self.h, key[1], self.carried)
        return self.written[key]

    def step(self) -> None:
        step, t, field = self.weights, self.times[self.n], self.field

        def shifted(at: float, x: Tensor) -> Tensor:
            return field(t + at, x)

        self.xs, self.fs = advance([shifted], step, self.xs, self.fs)
        self.nfe += step.nfe


class Compensated(Turns):
    """The same, with (x, v) kept as the sums of two numbers each: compensated summation (Kahan 1965).

    base: (x, v) rounded; what they lack is what a step works on, with the same weights, and small. After
    each step what it came to is added to the base, and what that loses is where the next begins.
    """

    carried = True

    def __init__(self, problem: ODE, name: str, x0: Tensor, times: Stretches) -> None:
        super().__init__(problem, name, x0, times)
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

    def __init__(self, problem: ODE, name: str, x0: Tensor, times: Stretches) -> None:
        super().__init__(problem, name, x0, times)
        assert problem.acceleration is not None
        self.a = problem.acceleration

    def go(self, upto: int, callback: Callback | None = None) -> Tensor:
        while callback is None and upto - self.n >= BLOCK:
            step, last = self.weights, self.times.ends[self.times.stretch(self.n) + 1]
            if last - self.n < BLOCK or len(step.keep_f) != len(self.fs):  # too few alike, or the first
                self.step()
                self.n += 1
                continue
            assert all(stage.terms for stage in step.stages)  # found once, where no graph looks
            xs, fs = (tuple(map(_batch_last, parts)) for parts in (self.xs, self.fs))
            t = torch.tensor(self.times[self.n], dtype=xs[0].dtype, device=xs[0].device)
            self.xs, self.fs = compiled(self.a, step, self.h)(t, xs, fs)
            self.n, self.nfe = self.n + BLOCK, self.nfe + BLOCK * step.nfe
        return super().go(upto, callback)


def _batch_last(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


@cache
def compiled(a: Callable[[Tensor, Tensor], Tensor], step: Step, h: float) -> Callable[..., Any]:
    """BLOCK steps of size h as one graph: of t at their beginning, xs and fs. Weights are constants."""

    def block(
        t: Tensor, xs: Sequence[Tensor], fs: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        for k in range(BLOCK):

            def field(at: float, x: Tensor, begun: float = k * h) -> Tensor:
                return a(t + (begun + at), x)

            xs, fs = advance([field], step, xs, fs)
        return xs, fs

    # Code of its own: torch counts graphs by it, up to 8.
    own = types.FunctionType(block.__code__.replace(), globals(), "block", None, block.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)


def turned(
    problem: ODE,
    x0: Tensor,
    times: Stretches,
    saved: Sequence[int],
    name: str,
    callback: Callback | None,
    grad: Any,
    options: Mapping[str, Any],
) -> Solution:
    """What `solve` gives for a splitting: the states after as many steps as `saved` says, 0 the start."""
    began, kind = time.perf_counter(), _kind(name, options)
    if grad not in (True, False):
        raise ArgumentError(f"method {name!r}: gradients go through its steps, take grad=True")
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        run = kind(problem, name, x0, times)
        kept = [run.go(n, callback) if n else x0 for n in saved]
        end = run.go(times.steps, callback)
    stats = Stats(run.nfe, run.nfe, times.steps, time.perf_counter() - began, run.nfe)
    return ended(torch.stack(kept), [times[n] for n in saved], stats, times[-1], end)


def _kind(name: str, options: Mapping[str, Any]) -> Callable[..., Run]:
    """What runs a method with these options."""
    kinds = {"compensated": Compensated, "compile": Compiled} if name in SYMPLECTIC else {}
    if unknown := [key for key in options if key not in kinds]:
        takes = " or ".join(kinds) or "none"
        raise ArgumentError(f"method {name!r} has no option {unknown[0]!r}; its options: {takes}")
    asked = [key for key in options if like(key, options[key], False)]
    if len(asked) > 1:
        raise ArgumentError("compensated and compile do not go together yet: take one")
    if name == WISDOM_HOLMAN:
        from .nbody.planets import WisdomHolman  # few runs are of planets

        return WisdomHolman
    return kinds[asked[0]] if asked else Turns


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
