"""Equal steps of x'' = a(t, x): symplectic splittings, drift and kick in turn, and Nystrom's methods."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..columns import columnwise
from ..core import Field, Step, advance
from ..errors import ArgumentError, SolveError, failed, like
from ..integrate import Callback
from ..methods.base import Method
from ..methods.nystrom import EQUAL
from ..methods.symplectic import WISDOM_HOLMAN
from ..problem import ODE
from ..solution import Solution, ended
from ..steppers.summation import two_sum
from .pace import Pace
from .rollout import Rate, Rollout, Stand, Steps
from .running import OPTIONS, rolled
from .stretches import Stretches

FORCES = 4  # of a graph: as many steps as have these, at least one
Parts = Sequence[Tensor]
Taken = tuple[list[Tensor], list[Tensor]]


class Turns(Rollout):
    """Steps of (x, v), with a at x where the table keeps it, whatever the next step's length.

    compensated: what x and v lack is carried as well (`compensated`).
    compile: `block` steps at a time are one graph of columns (`columns.py`), of states with the batch last in
    memory: one loop along the batch, as vectors, whatever a does across a sample.

    Raises:
        ArgumentError: a problem that is not x'' = a(t, x).
    """

    def __init__(
        self, problem: ODE, name: str, times: Stretches, compensated: bool = False, compile: bool = False
    ) -> None:
        self.table, self.compensated, self.blocks = EQUAL[name], compensated, compile

        def written(times: Sequence[float], n: int, *_: Any) -> Step:
            return self.table.write(times[n], times[n + 1], self.table.keeps, compensated)

        method = Method(written, self.table.order, exponential=False, name=name)
        super().__init__(problem, Pace(problem, method, depth=0), times)
        if problem.acceleration is None:
            raise ArgumentError(f"method {name!r} is for x'' = a(t, x): give it that, as ls.Newton(a) does")
        self.a, self.field, self.bind = problem.acceleration, _checked(problem.acceleration), None
        self.native, self.take, self.source = compile, _kicked, self.a
        self.block = max(1, FORCES // self.table.nfe)

    @property
    def grain(self) -> int:  # type: ignore[override]
        return self.block if self.blocks and not self.native else 1

    def begin(self, x0: Tensor) -> Stand:
        if x0.ndim < 2 or x0.shape[1] % 2:
            raise ArgumentError(f"x0 of {tuple(x0.shape)}: its dimension 1 holds x and v, each a half")
        x, v = x0.chunk(2, 1)
        lost = (torch.zeros_like(x), torch.zeros_like(v)) if self.compensated else ()
        if not self.table.keeps:
            return Stand(0, 0, (x, v, *lost))
        try:
            return Stand(0, 1, (x, v, *lost), (self.field(self.times[0], x),))
        except Exception as error:
            raise failed(self.where(0), error) from error

    def state(self, stand: Stand) -> Tensor:
        return torch.cat(stand.xs[:2], 1)  # what these lack is less than they can show

    def _advance(self, step: Step, t: float | Tensor, xs: Parts, fs: Parts) -> Taken:
        return _kicked(t, xs, fs, step, self.field)

    def go(self, stand: Stand, steps: int) -> Stand:
        last = stand.n + steps
        while self.blocks and stand.n < last:
            if (found := self._looped(stand, last)) is not None:
                stand = found
                continue
            alike = min(last, self.pace.alike(self.times, stand.n)) - stand.n
            stand = self._block(stand) if alike >= self.block else self.step(stand)
        return Steps.go(self, stand, last - stand.n)

    def _block(self, stand: Stand) -> Stand:
        n, step = stand.n, self.pace.step(self.times, stand.n)
        assert all(stage.terms for stage in step.stages)  # found once, where no graph looks
        xs, fs = (tuple(map(_batch_last, parts)) for parts in (stand.xs, stand.fs))
        h = self.times.sizes[self.times.stretch(n)]
        try:
            go = compiled(self.a, step, h, self.block, xs[0].is_cuda)
            xs, fs = go(self._clock(self.times[n], xs[0]), xs, fs)
        except Exception as error:
            raise failed(self.where(n), error) from error
        return Stand(n + self.block, stand.nfe + self.block * step.nfe, tuple(xs), tuple(fs))

    def along(self, times: Stretches) -> Turns:
        return Turns(self.problem, self.name, times, self.compensated)


def taken(field: Field, step: Step, xs: Parts, fs: Parts) -> Taken:
    """A step of (x, v), or of (x, v) and what they lack: compensated summation (Kahan 1965).

    In the latter case the rows work on what is lacking, which is small, with the same weights. What that
    comes to is added to (x, v), and what the sum loses is where the next step begins.
    """
    x, v, *lost = xs
    if not lost:
        return advance([field], step, xs, fs)
    moved, fs = advance([lambda at, lacking: field(at, x + lacking)], step, [*lost, v], fs)
    (x, lost_x), (v, lost_v) = map(two_sum, (x, v), moved)
    return [x, v, lost_x, lost_v], fs


def _kicked(t: float | Tensor, xs: Parts, fs: Parts, step: Step, field: Rate) -> Taken:
    """A step from t."""
    return taken(lambda at, x: field(t + at, x), step, xs, fs)


def _batch_last(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


@cache
def compiled(
    a: Callable[[Tensor, Tensor], Tensor], step: Step, h: float, steps: int, cuda: bool
) -> Callable[..., Any]:
    """Steps of size h as one graph: of t at their beginning, xs and fs. Weights are constants."""

    def block(t: Tensor, xs: Parts, fs: Parts) -> tuple[Parts, Parts]:
        for k in range(steps):

            def field(at: float, x: Tensor, begun: float = k * h) -> Tensor:
                return a(t + (begun + at), x)

            xs, fs = taken(field, step, xs, fs)
        return xs, fs

    # Code of its own: torch counts graphs by it, up to 8.
    own = types.FunctionType(block.__code__.replace(), globals(), "block", None, block.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, options=columnwise(cuda))


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
    """What `solve` gives for such a method: the states after as many steps as `saved` says, 0 the start."""
    own = {key: value for key, value in options.items() if key == "compile" or key not in OPTIONS}
    asked = {key: value for key, value in options.items() if key not in own}
    if grad not in (True, False):
        raise ArgumentError(f"method {name!r}: gradients go through its steps, take grad=True")
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        run = rolled(_steps(problem, name, times, own), x0, saved, callback=callback, **asked)
    found = ended(torch.stack(run.x), [times[n] for n in saved], run.stats, times[-1], run.end)
    return replace(found, reduced=run.reduced)


def _steps(problem: ODE, name: str, times: Stretches, options: Mapping[str, Any]) -> Steps:
    """The steps of a method with these options."""
    known = ("compensated", "compile") if name in EQUAL else ()
    if unknown := [key for key in options if key not in known]:
        takes = " or ".join(known) or "none"
        raise ArgumentError(f"method {name!r} has no option {unknown[0]!r}; its options: {takes}")
    asked = {key: like(key, value, False) for key, value in options.items()}
    if name == WISDOM_HOLMAN:
        from ..nbody.planets import WisdomHolman  # few runs are of planets

        return WisdomHolman(problem, times)
    return Turns(problem, name, times, **asked)


def _checked(a: Callable[[Tensor, Any], Any]) -> Rate:
    """a(t, x), which must be as x is."""

    def checked(t: float | Tensor, x: Tensor) -> Tensor:
        if not isinstance(t, Tensor):  # as it is in compiled steps
            t = torch.tensor(t, dtype=x.dtype, device=x.device)
        out = a(t, x)
        if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != x.dtype:
            what = f"{out.dtype}, {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(
                f"a returned {what} for x of {x.dtype}, {tuple(x.shape)}: return x'', one for one"
            )
        return out

    return checked
