"""Steps without a plan: one step's weights, applied again and again, at the memory of one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .core import Step, advance
from .errors import SolveError
from .integrate import said
from .pace import Pace
from .problem import ODE
from .stretches import Stretches


@dataclass(frozen=True)
class Stand:
    """Where a run stands, and all that its next step needs.

    n: steps taken.  nfe: evaluations made.  xs: states, the newest last.  fs: evaluations.
    """

    n: int
    nfe: int
    xs: tuple[Tensor, ...]
    fs: tuple[Tensor, ...] = ()

    @property
    def x(self) -> Tensor:
        return self.xs[-1]


class Rollout:
    """The steps of a problem along times, from one stand to the next; it remembers none of them.

    compile: steps that share their weights are one compiled graph, to which the time is a tensor.
    """

    def __init__(self, problem: ODE, pace: Pace, times: Stretches, compile: bool = False) -> None:
        self.problem, self.pace, self.times, self.compile = problem, pace, times, compile
        (self.field,) = problem.fields(pace.method.splits)

    def step(self, stand: Stand) -> Stand:
        """One step further.

        Raises:
            SolveError: what f raised, with method, step and time.
        """
        n = stand.n
        step, t = self.pace.step(self.times, n), self.times[n]
        take = self._graph(step) if self.compile else self._advance
        try:
            xs, fs = take(step, self._clock(t, stand.x) if self.compile else t, stand.xs, stand.fs)
        except Exception as error:
            kind = type(error) if isinstance(error, SolveError) else SolveError
            raise kind(f"{self.where(n)}: {said(error)}") from error
        return Stand(n + 1, stand.nfe + step.nfe, tuple(xs), tuple(fs))

    def _advance(
        self, step: Step, t: float | Tensor, xs: Sequence[Tensor], fs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        field = self.field
        return advance([lambda at, x: field(t + at, x)], step, xs, fs)

    def _graph(self, step: Step) -> Callable[..., tuple[list[Tensor], list[Tensor]]]:
        """`_advance` with this step's weights, compiled once."""
        graphs = self.pace.graphs
        if id(step) not in graphs:
            for stage in step.stages:
                _ = stage.terms  # found now: the compiler cannot look behind a cached property
            graphs[id(step)] = torch.compile(lambda _, t, xs, fs: self._advance(step, t, xs, fs))
        return graphs[id(step)]

    def _clock(self, t: float, x: Tensor) -> Tensor:
        return torch.full((), t, dtype=x.dtype.to_real(), device=x.device)

    def go(self, stand: Stand, steps: int) -> Stand:
        """So many steps further."""
        for _ in range(steps):
            stand = self.step(stand)
        return stand

    def where(self, n: int) -> str:
        """What messages call step n."""
        times = self.times
        return (
            f"method {self.pace.method.name}, step {n + 1} of {times.steps}, t = {times[n]:.6g} to "
            f"{times[n + 1]:.6g}"
        )
