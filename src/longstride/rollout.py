"""Steps without a plan: one step's weights, applied again and again, at the memory of one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .core import advance
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
    """The steps of a problem along times, from one stand to the next; it remembers none of them."""

    def __init__(self, problem: ODE, pace: Pace, times: Stretches) -> None:
        self.problem, self.pace, self.times = problem, pace, times
        (self.field,) = problem.fields(pace.method.splits)

    def step(self, stand: Stand) -> Stand:
        """One step further.

        Raises:
            SolveError: what f raised, with method, step and time.
        """
        n, field = stand.n, self.field
        step, t = self.pace.step(self.times, n), self.times[n]
        try:
            xs, fs = advance([lambda at, x: field(t + at, x)], step, stand.xs, stand.fs)
        except Exception as error:
            kind = type(error) if isinstance(error, SolveError) else SolveError
            raise kind(f"{self.where(n)}: {said(error)}") from error
        return Stand(n + 1, stand.nfe + step.nfe, tuple(xs), tuple(fs))

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
