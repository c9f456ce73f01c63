"""What runs a checked call: rows x [T, 1, N] at the times asked for, or until an event."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...adaptive.events import Event
from ...adaptive.solve import adaptive
from ...control import I
from ...errors import ArgumentError, SolveError, finite
from ...gradients.differentiable import Flow, moves
from ...problem import ODE
from ...solution import Solution
from .fixed import Grid
from .inputs import ADAMS, CALLBACKS, RUNGE_KUTTA, Asked, StepError
from .steering import Steering

FOREVER = 1e10  # how far an event is looked for, in units of 1 + |t|
SAID = {  # torchdiffeq's words for how a run fails
    "step_limit": "max_num_steps exceeded",
    "step_underflow": "underflow in dt",
    "non_finite": "non-finite values in state `y`",
}


def on_grid(call: Asked) -> bool:
    return call.method in RUNGE_KUTTA or call.method in ADAMS


def states(call: Asked, x0: Tensor) -> Tensor:
    """The solution from x0."""
    if len(call.t) == 1:
        return x0[None]
    if on_grid(call):
        return Grid(call, x0).states()
    if call.method == "scipy_solver":
        from .by_scipy import states

        return states(call)
    if len(call.t) == 2:
        return torch.cat([x0[None], by_tolerance(call, x0, call.times).x])
    return by_tolerance(call, x0, call.times, save=True).x


def timed(call: Asked, solve: Callable[[Asked, Tensor], Tensor]) -> Tensor:
    """What `solve` finds, which knows the gradient of t as well."""
    if not moves(call.t):
        return solve(call, call.x0)
    xs = solve(call, started(call))
    return torch.cat([call.x0[None], Flow(call.rate, True).saved(xs[1:], call.t[1:].unbind(), call.x0)])


def started(call: Asked) -> Tensor:
    """x0, which knows what a later start does to all that comes of it."""
    return Flow(call.rate, True).moved(call.x0, call.t[0], ahead=-1.0)


def by_tolerance(
    call: Asked, x0: Tensor, times: Sequence[float], events: Sequence[Event] = (), save: bool = False
) -> Solution:
    """A run whose steps follow from the tolerances, with their options; `save`: x at all times, or the end.

    Raises:
        StepError: it cannot go on.  What func raises, with a note of where.
    """
    given = call.take(
        min_step=0.0, max_step=math.inf, first_step=None, step_t=None, jump_t=None, safety=0.9, ifactor=10.0,
        dfactor=0.2, max_num_steps=2**31 - 1, dtype=torch.float64,
    )  # fmt: skip
    controller = I(*(float(given[name]) for name in ("safety", "dfactor", "ifactor")))
    least, first = finite("min_step", float(given["min_step"])), given["first_step"]
    steering = Steering(controller, least, call, call.watched(*CALLBACKS))
    try:
        sol = adaptive(
            ODE(call.rate),
            x0,
            t=(times[0], times[-1]),
            method=call.method,
            rtol=call.rtol,
            atol=call.atol,
            save_at=times if save else None,
            controller=steering if steering.needed else controller,
            watch=steering.before if steering.needed else None,
            shared_step=True,
            norm=call.norm,
            jump_times=_jumps(given["step_t"], given["jump_t"]),
            events=events,
            max_steps=int(given["max_num_steps"]) * max(len(times) - 1, 1),
            max_step=float(given["max_step"]),
            first_step=None if first is None else float(first),
        )
    except SolveError as error:
        if error.__cause__ is None or isinstance(error.__cause__, SolveError):
            raise
        error.__cause__.add_note(str(error))
        raise error.__cause__ from None
    if sol.status[0] not in ("reached", "event"):
        raise StepError(f"{SAID[sol.status[0]]}: {sol.message[0]}")
    return sol


def _jumps(*given: Any) -> list[float]:
    found = [t for times in given if times is not None
             for t in torch.as_tensor(times, dtype=torch.float64).reshape(-1).tolist()]  # fmt: skip
    if len(set(found)) < len(found):
        raise ArgumentError("`step_t` and `jump_t` must not have any repeated elements between them")
    return found


def combined(call: Asked, event_fn: Callable[[Tensor, Any], Tensor]) -> Event:
    """The least of an event's elements, each turned so that it is positive at the start."""
    with torch.no_grad():
        signs = torch.sign(event_fn(call.t[0].detach(), call.y0))

    def g(t: Tensor, x: Tensor) -> Tensor:
        return (event_fn(t.reshape(()), call.form.state(x)) * signs).min().reshape(1)

    return Event(g, direction=-1)


def until(call: Asked, event_fn: Callable[[Tensor, Any], Tensor]) -> tuple[Tensor, Tensor]:
    """When an event happens, and x [2, 1, N] at the start and then: at that time, which is not moved by x."""
    if len(call.t) != 2:
        raise ArgumentError(f"We require len(t) == 2 when in event handling mode, but got {len(call.t)}")
    x0, start, event = started(call), call.times[0], combined(call, event_fn)
    event = replace(event, g=torch.no_grad()(event.g))
    if float(event.g(call.t[0].detach(), x0)) == 0:
        when, x = start, x0
    elif on_grid(call):
        when, x = Grid(call, x0).until(event)
    elif call.method == "scipy_solver":
        raise ArgumentError("scipy_solver has no events: take an adaptive method, such as dopri5")
    else:
        sol = by_tolerance(call, x0, (start, start + call.sign * FOREVER * (1 + abs(start))), [event])
        assert sol.t_end is not None
        assert sol.x_end is not None
        when, x = float(sol.t_end[0]), sol.x_end
        if sol.status[0] != "event":
            raise StepError(f"no event until t = {when:g}: look whether event_fn ever changes its sign")
    return torch.tensor(when, dtype=torch.float64).to(call.t), torch.stack([call.x0, x])
