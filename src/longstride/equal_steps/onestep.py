"""One step of a problem as a function of the state: what a training loop with a solver in it calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, said_of, whole
from ..gradients.differentiable import WAYS, planned
from ..gradients.ways import way_of
from ..integrate import chosen, seen
from ..matrix import Matrix
from ..problem import ODE
from ..tree import check_state
from .pace import Pace, one_step
from .rollout import Rollout
from .stretches import Stretches


class Stepper:
    """u(t) -> u(t + dt) of an ODE or a PDE, by one method; made by `ls.stepper`.

    Weights are written when a state of a new precision or device comes, and serve all calls from then on.
    Where the linear part L is itself learned they are written in each call.
    """

    def __init__(self, problem: ODE, method: str, dt: float, compile: bool = False, **options: Any) -> None:
        if not isinstance(problem, ODE):
            raise ArgumentError(f"the problem is {said_of(problem)}: wrap what gives dx/dt, ls.ODE(f)")
        self.problem, self.method, self.dt = problem, chosen(method, **options), finite("dt", dt)
        if self.dt == 0:
            raise ArgumentError("dt = 0: a step goes somewhere")
        if not one_step(self.method):
            raise ArgumentError(
                f"method {method!r} goes on from steps before, which a call knows nothing of: take a "
                "one-step method such as 'etdrk4', or ls.solve(..., save_every=)"
            )
        self.compile = compile
        self._paces: dict[Any, Pace] = {}

    def __call__(self, u: Any, t: float = 0.0) -> Any:
        """u [B, ...], or a tree of such, one step later; t is the time of u."""
        return self.repeat(u, 1, t)

    def repeat(self, u: Any, n: int, t: float = 0.0, grad: bool | str = True) -> Any:
        """u after n steps from time t, at the memory of one.

        grad: True, torch's own graph, which grows with n where a gradient is wanted; "checkpoint", which
        remembers some 2 sqrt(n) states and computes each step at most three times; False, none.

        Raises:
            SolveError: what f raised, with step and time. Whether u is finite is not looked at.
        """
        n, t = whole("n", n, 0), finite("t", t)
        if isinstance(u, Tensor) and self.problem.space is None:
            check_state(u)
            return self._repeat(self.problem, u, n, t, grad)
        view, inner = seen(self.problem, u)
        return view.nest(self._repeat(inner, view.flat(u), n, t, grad, getattr(view, "layout", "")))

    def _repeat(
        self, problem: ODE, x: Tensor, n: int, t: float, grad: bool | str, layout: str = ""
    ) -> Tensor:
        way = way_of(grad, WAYS)
        if not n:
            return x
        times = Stretches.repeated(t, self.dt, n)
        with torch.set_grad_enabled(grad is not False and torch.is_grad_enabled()):
            pace = self._pace(problem, x, layout)
            if way is None or not torch.is_grad_enabled():
                run = Rollout(problem, pace, times, self.compile)
                return run.state(run.go(run.begin(x), n))
            (end,) = planned(problem, pace.plan(times), x, {n - 1}, way, None)
            return end

    def _pace(self, problem: ODE, x: Tensor, layout: str) -> Pace:
        L = problem.L.A if isinstance(problem.L, Matrix) else problem.L
        if isinstance(L, Tensor) and L.requires_grad:  # it may have been trained since
            return Pace(problem, self.method, x)
        key = (x.dtype, x.device, layout)
        if key not in self._paces:
            problem.demand(x)
            self._paces[key] = Pace(problem, self.method, x)
        return self._paces[key]


def stepper(
    problem: ODE, method: str = "etdrk4", *, dt: float, compile: bool = False, **options: Any
) -> Stepper:
    """A function u -> u after one step of dt, with `repeat(u, n)` for n of them.

    method: any of `ls.list_methods()` that needs no steps before.  options: of the method.
    compile: steps of small states, and of nonlinear parts on a periodic axis, are native loops, others
        one graph of torch.compile.

    Raises:
        ArgumentError: a method that is multistep, unknown or of diffusions; a dt that is none.
    """
    return Stepper(problem, method, dt, compile, **options)
