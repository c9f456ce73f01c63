"""A solution as a differentiable function: of its state, of what f closes over, of its times.

How the steps are gone back through is a way: torch's own graph, `recorded.py`, `backsolve.py`, and for
planned runs those of `gradients.py`. What is here is the same for all of them. The solution moves along the
flow, so with times t_0, T and events t* given or found

    dx(T) = f(T, x(T)) dT,        dx(T) = -(dx(T)/dx_0) f(t_0, x_0) dt_0,        dx* = dx + f dt*

which takes an evaluation of f where such a derivative is wanted, and knows nothing of the steps. These hold
to the run's own tolerance, and once: not for second derivatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..adaptive.carry import Ended, Limits
from ..adaptive.events import Crossings, Event, implicit
from ..adaptive.failure import REACHED
from ..adaptive.regularize import Total
from ..adaptive.stepping import Loop
from ..control import I
from ..errors import ArgumentError
from ..integrate import Callback, plan_fields, run
from ..matrix import Matrix
from ..methods.embedded import PAIRS
from ..moments import Time
from ..plan import Plan
from ..problem import ODE
from ..steppers.trial import Explicit, Rate
from .backsolve import Backsolve, backsolved, solved_back
from .recorded import Looked, recorded
from .reversible import reversed_run
from .transpose import Chain, attached, leaves
from .ways import Checkpoint, Reverse, discrete

Way = Checkpoint | Reverse | Backsolve
WAYS: dict[str, Way] = {"checkpoint": Checkpoint(), "reverse": Reverse(), "adjoint": Backsolve()}


def gone_through(loop: Loop, x0: Tensor, method: str, way: Way | None, problem: ODE) -> Ended:
    """The run, whose states know their gradients in the way that is asked for."""
    known = _parameters(problem)
    if not torch.is_grad_enabled() or way is None:
        return loop.run(x0, method)
    if isinstance(way, Checkpoint):
        if not loop.stepper.repeatable:
            raise ArgumentError(
                f"steps of {method!r} hang on those before: they cannot be made again, take grad=True"
            )
        return recorded(loop, x0, method, way.memory, known)
    if isinstance(way, Reverse):
        return reversed_run(loop, x0, method, known)
    if any(isinstance(observer, Total) for observer in loop.observers):
        raise ArgumentError(
            "the adjoint equation knows no steps: take a local penalty, such as Regularize(local='unbiased')"
        )
    return backsolved(loop, x0, method, way, known)


def planned(
    problem: ODE, plan: Plan, x0: Tensor, save: set[int], way: Way, callback: Callback | None
) -> list[Tensor]:
    """What a plan gives out after the steps in `save`, from x0, with its gradient in the way asked for."""
    chain = Chain(plan_fields(problem, plan), plan, save=frozenset(save))
    if not isinstance(way, Backsolve):
        return attached(chain, [x0], discrete(way, chain), callback=callback)
    with torch.no_grad():
        values, _ = run(chain.fields, plan, x0.detach(), callback=callback, save=save)
    (start, *_, end), sign = plan.times, 1.0 if plan.times[-1] > plan.times[0] else -1.0
    one = torch.ones((), dtype=x0.dtype.to_real(), device=x0.device)
    look = Looked(problem.rate, False, _parameters(problem))
    look(start * one, x0.detach())
    stepper = Explicit(PAIRS["tsit5"], problem.rate, x0, sign, True, False, 1e-6 * one, 1e-9 * one)
    loop = Loop(stepper, I(), Limits(), (sign * start, sign * end), (), (), ())
    everybody = torch.arange(len(x0), device=x0.device)
    clock = torch.zeros_like(everybody, dtype=torch.float64)
    places = [(everybody, clock + sign * plan.times[n + 1]) for n in sorted(save)]
    return solved_back(loop, x0, "tsit5", way, places, values, list(look.found.values()))


def _parameters(problem: ODE) -> Iterable[Tensor]:
    """Leaves known before f is asked: those of a module, and those that L is made of."""
    L = problem.L.A if isinstance(problem.L, Matrix) else problem.L
    made_of = leaves([L]).values() if isinstance(L, Tensor) else ()
    return *(problem.f.parameters() if isinstance(problem.f, torch.nn.Module) else ()), *made_of


def moves(t: object) -> bool:
    """Whether a time is a tensor that is differentiated by."""
    return isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled()


class Flow:
    """What moves with times.  f takes one time of all samples if `shared`, else one of each.

    evaluations: of f that were made.
    """

    def __init__(self, rate: Rate, shared: bool) -> None:
        self.rate, self.shared, self.evaluations = rate, shared, 0

    @torch.no_grad()
    def f(self, t: Tensor, x: Tensor) -> Tensor:
        self.evaluations += 1
        t = t.to(x.dtype.to_real())
        return self.rate(t[0] if self.shared else t, x)

    def moved(self, x: Tensor, t: Time, who: Tensor | None = None, ahead: float = 1.0) -> Tensor:
        """x [B, ...], which is at t, and with t goes along f, or against it; `who`: alone."""
        if not isinstance(t, Tensor) or not moves(t):
            return x
        f = ahead * self.f(t.detach().expand(len(x)), x.detach())
        if who is not None:
            f = torch.where(who.view(-1, *(1,) * (x.ndim - 1)), f, 0.0)
        return x + (t - t.detach()).to(x.dtype) * f

    def saved(self, x: Tensor, times: Sequence[Time] | Tensor, instead: Tensor) -> Tensor:
        """x [T, B, ...] at the times; f is asked at `instead` where x is NaN as nobody came."""
        if not any(map(moves, times)):
            return x
        came = ~x.isnan()
        return torch.stack(
            [torch.where(c, self.moved(torch.where(c, v, instead), t), v)
             for v, c, t in zip(x, came, times, strict=True)]
        )  # fmt: skip

    def ended(self, ended: Ended, end: Time, events: Sequence[Event]) -> tuple[Ended, tuple[Crossings, ...]]:
        """Where each sample stopped, at the end of the run or at an event, and what the events saw."""
        reached = ended.code == REACHED
        x, t = self.moved(ended.x, end, reached), ended.t
        if moves(end):
            t = torch.where(reached, end, t)
        crossings = list[Crossings]()
        for event, seen in zip(events, ended.crossings(), strict=True):
            crossings.append(implicit(event, seen, self.f, ended.t, ended.x, self.shared))
            if event.terminal:  # whoever it happened to stopped there
                who = (seen.sample,)
                x, t = x.index_put(who, crossings[-1].x), t.index_put(who, crossings[-1].t)
        return replace(ended, x=x, t=t), tuple(crossings)
