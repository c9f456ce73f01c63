"""Steps without a plan: one step's weights, applied again and again, at the memory of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..core import Step, advance
from ..errors import ArgumentError, at_step, failed
from ..matrix import Matrix
from ..native.emit import Unsuited
from ..native.steps import counts, repeated
from ..problem import ODE
from .bound import Bound, fits
from .pace import Pace
from .stretches import Stretches

Rate = Callable[[Any, Tensor], Tensor]  # f(t, x), t a number or a tensor
WORTH = 8  # steps of a run that pay for binding one


@dataclass(frozen=True)
class Stand:
    """Where a run stands, and all that its next step needs.

    n: steps taken.  nfe: evaluations made.  xs: states, the newest last.  fs: evaluations.
    """

    n: int
    nfe: int
    xs: tuple[Tensor, ...]
    fs: tuple[Tensor, ...] = ()


def differentiated(x: Tensor) -> bool:
    """Whether x carries more than its numbers: a graph, a tangent, or what torch.func wraps it in."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)
    return x.requires_grad or wrapped or forward_ad.unpack_dual(x).tangent is not None


class Steps:
    """Equal steps along times, from one stand to the next; it remembers none of them.

    grain: `go` takes so many together, to other bits than one by one. What cuts a run at moments that differ
    from call to call cuts it between those.
    """

    grain = 1

    def __init__(self, name: str, times: Stretches, options: Mapping[str, Any] | None = None) -> None:
        self.name, self.times, self.options = name, times, options or {}

    def begin(self, x0: Tensor) -> Stand:
        """Before the first step."""
        return Stand(0, 0, (x0,))

    def state(self, stand: Stand) -> Tensor:
        """x there."""
        return stand.xs[-1]

    def step(self, stand: Stand) -> Stand:
        """One step further.

        Raises:
            SolveError: what f raised, with method, step and time.
        """
        raise NotImplementedError

    def go(self, stand: Stand, steps: int) -> Stand:
        """So many steps further."""
        for _ in range(steps):
            stand = self.step(stand)
        return stand

    def along(self, times: Stretches) -> Steps:
        """The same method on the same problem along other times."""
        raise NotImplementedError

    def where(self, n: int) -> str:
        """What messages call step n."""
        return at_step(self.name, n, self.times)


def stepped(
    t: float | Tensor, xs: Sequence[Tensor], fs: Sequence[Tensor], step: Step, field: Rate
) -> tuple[list[Tensor], list[Tensor]]:
    """A step from t."""
    return advance([lambda at, x: field(t + at, x)], step, xs, fs)


class Rollout(Steps):
    """The steps that a pace writes, on a problem.

    Where f can be bound to buffers (`bound.py`) and nothing is differentiated, steps are taken there; not the
    first one where gradients are on, for that shows whether f has any. Which ones are does not hang on where
    a run is cut: a stand leads to the same bits always.

    compile: steps that share their weights are one native loop (`native.repeated`) where states have few
    elements, on this machine's processor; else one compiled graph, to which the time is a tensor. Where f can
    be bound they are one function in C if f has one, and bound if not.

    Raises:
        ArgumentError: weights to be compiled that are matrices.
    """

    def __init__(self, problem: ODE, pace: Pace, times: Stretches, compile: bool = False) -> None:
        if compile and isinstance(problem.L, Matrix):
            raise ArgumentError("compile=True takes an L that is a number or a tensor: leave it out")
        super().__init__(pace.method.name, times, pace.method.options)
        self.problem, self.pace, self.compile = problem, pace, compile
        self.take, self.source = stepped, problem.f
        self.field: Rate
        (self.field,) = problem.fields(pace.method.splits)
        self.shows = torch.is_grad_enabled()
        bind = getattr(problem.nonlinear, "bind", None) if pace.method.splits else None
        self.bind = bind if times.steps > WORTH or not self.shows else None
        self.in_c = getattr(problem.nonlinear, "native", None) if compile else None
        self.binds, self.native = bind is not None, compile and bind is None

    def step(self, stand: Stand) -> Stand:
        n = stand.n
        if (found := self._looped(stand, n + 1)) is not None:
            return found
        step, t = self.pace.step(self.times, n), self.times[n]
        graph = self.compile and not self.native and (not self.binds or _any_differentiated(stand))
        take = self._graph(step) if graph else self._advance
        try:
            xs, fs = take(step, self._clock(t, stand.xs[-1]) if graph else t, stand.xs, stand.fs)
        except Exception as error:
            raise failed(self.where(n), error) from error
        return Stand(n + 1, stand.nfe + step.nfe, tuple(xs), tuple(fs))

    def _advance(
        self, step: Step, t: float | Tensor, xs: Sequence[Tensor], fs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        return stepped(t, xs, fs, step, self.field)

    def _graph(self, step: Step) -> Callable[..., tuple[list[Tensor], list[Tensor]]]:
        """`_advance` with this step's weights, compiled once."""
        graphs = self.pace.graphs
        if id(step) not in graphs:
            for stage in step.stages:
                _ = stage.terms  # found now: the compiler cannot look behind a cached property

            def take(_: Step, t: Tensor, xs: Sequence[Tensor], fs: Sequence[Tensor]) -> Any:
                return self._advance(step, t, xs, fs)

            graphs[id(step)] = torch.compile(take)
        return graphs[id(step)]

    def _clock(self, t: float, x: Tensor) -> Tensor:
        return torch.full((), t, dtype=x.dtype.to_real(), device=x.device)

    def _looped(self, stand: Stand, last: int) -> Stand | None:
        """The steps up to `last` that are like the next, as a native loop; None where they are none."""
        n = stand.n
        if not self.native or (n == 0 and self.shows) or _any_differentiated(stand):
            return None
        step, end = self.pace.step(self.times, n), min(self.pace.alike(self.times, n), last)
        if [len(stand.xs), len(stand.fs)] != [len(step.keep_x), len(step.keep_f)]:
            return None  # a history, at first
        for stage in step.stages:
            _ = stage.terms  # found now: the compiler cannot look behind a cached property
        known = stand.xs, stand.fs
        try:
            x, like = stand.xs[-1], (step, self.field)
            idle = not counts(self.source, self.field, self._clock(self.times[n], x), x)
            xs, fs = repeated(self.source, self.take, self.times.course(n), end - n, *known, *like, idle=idle)
        except Unsuited:
            self.native = False
            return None
        return Stand(end, stand.nfe + (end - n) * step.nfe, tuple(xs), tuple(fs))

    def go(self, stand: Stand, steps: int) -> Stand:
        last = stand.n + steps
        while stand.n < last:
            n = stand.n
            if (found := self._looped(stand, last)) is not None:
                stand = found
                continue
            try:
                bound = self._bound(stand)
                if bound is not None:
                    end = min(self.pace.alike(self.times, n), last)
                    xs, fs = bound.go(stand.xs, stand.fs, end - n)
                    stand = Stand(end, stand.nfe + (end - n) * bound.step.nfe, tuple(xs), tuple(fs))
            except Exception as error:
                raise failed(self.where(n), error) from error
            if bound is None:
                stand = self.step(stand)
        return stand

    def along(self, times: Stretches) -> Rollout:
        return Rollout(self.problem, self.pace, times)

    def _bound(self, stand: Stand) -> Any:
        """The step that is next, where it can be bound and nothing it begins with is differentiated."""
        if self.bind is None or (stand.n == 0 and self.shows):
            return None
        if _any_differentiated(stand):
            return None
        step, made = self.pace.step(self.times, stand.n), self.pace.bound
        key = id(step), stand.xs[-1].shape, get_ident()  # threads that share a pace have buffers of their own
        if key not in made:
            known = stand.xs, stand.fs
            grows = [*map(len, known)] != [len(step.keep_x), len(step.keep_f)]  # a history, at first
            able = not grows and fits(step)
            found = self.in_c(step, *known) if able and self.in_c is not None else None
            made[key] = found or (Bound(step, self.bind, *known) if able else None)
        return made[key]


def _any_differentiated(stand: Stand) -> bool:
    return any(map(differentiated, (*stand.xs, *stand.fs)))
