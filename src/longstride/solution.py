"""What a run gives back: where it came to, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .adaptive.events import Crossings
from .adaptive.interpolant import Interpolant
from .plan import Plan


@dataclass
class Stats:
    """nfe: evaluations of a field per sample.  network_calls: forward passes behind them, per sample.

    rounds: evaluations that wait for each other: all of them, unless they were swept in parallel.
    accepted, rejected, nfe_each: of each sample [B], in an adaptive run; nfe and steps are the largest.
    jacobians, factorizations: of implicit methods. The evaluation that a Jacobian is differentiated at is in
    nfe; the products with its derivative, one for each column, colour or iteration, are not.
    """

    nfe: int = 0
    network_calls: int = 0
    steps: int = 0
    seconds: float = 0.0
    rounds: int = 0
    accepted: Tensor | None = None
    rejected: Tensor | None = None
    nfe_each: Tensor | None = None
    jacobians: int = 0
    factorizations: int = 0


@dataclass(frozen=True)
class Solution:
    """x [len(t), *x0.shape] at the times t, the status of each sample, and what it cost.

    Of an adaptive run: x is NaN at times a sample did not come to; t_end [B] and x_end [B, ...] are where it
    stopped, events what each event saw, message what went wrong with each sample, "" if nothing did.
    penalty [B]: regularize=.  interpolant: x as a function of t (dense=True).  reduced: what the reductions
    came to (reduce=).  error [B]: an estimate of the error (on_budget="reach").  With save_at="steps", t is
    [n, B].
    """

    x: Any
    t: Any
    status: tuple[str, ...]
    stats: Stats = field(default_factory=Stats)
    t_end: Tensor | None = None
    x_end: Any = None
    events: tuple[Crossings, ...] = ()
    message: tuple[str, ...] = ()
    penalty: Tensor | None = None
    interpolant: Interpolant | None = field(default=None, repr=False)
    reduced: Any = None
    error: Tensor | None = None


@dataclass(frozen=True)
class State:
    """Where a run stands, and all it needs to go on: `ls.invert` gives one, `ls.sample(x_init=)` takes it.

    xs: [n, *shape] each, the states that `plan` begins with, the newest last.  plan: what remains to be done.
    residual: of each sample [n] where the states were solved for and not found exactly, else None.
    """

    xs: tuple[Tensor, ...]
    plan: Plan
    residual: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """The newest state [n, *shape]. Without the others the way back is approximate."""
        return self.xs[-1]

    @property
    def t(self) -> float:
        """The time of x."""
        return self.plan.times[0]


def ended(
    x: Tensor, times: Sequence[float], stats: Stats, last: float | None = None, end: Tensor | None = None
) -> Solution:
    """Of a run all of whose samples came to the last of the times, or to another, at which x is `end`."""
    last = times[-1] if last is None else last
    t_end = torch.full(x.shape[1:2], last, dtype=torch.float64, device=x.device)
    status, message = ("reached",) * x.shape[1], ("",) * x.shape[1]
    return Solution(x, tuple(times), status, stats, t_end, x[-1] if end is None else end, message=message)


def at_once(x0: Tensor, times: Sequence[float]) -> Solution:
    """An interval of length 0: the start."""
    none = torch.zeros(len(x0), dtype=torch.int64, device=x0.device)
    return ended(torch.stack([x0] * len(times)), times, Stats(accepted=none, rejected=none, nfe_each=none))
