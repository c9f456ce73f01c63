"""What runs a checked call: rows x [T, 1, N] at the times asked for, or until an event."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...adaptive import adaptive
from ...control import I
from ...errors import ArgumentError, SolveError, finite
from ...events import Event
from ...integrate import Solution
from ...problem import ODE
from .fixed import Grid
from .inputs import ADAMS, CALLBACKS, RUNGE_KUTTA, Asked, StepError
from .steering import Steering

Value = Callable[[Tensor, Tensor], Tensor]  # an event's, of t and a row

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
    return by_tolerance(call, x0, call.times).x


def timed(call: Asked, solve: Callable[[Asked, Tensor], Tensor]) -> Tensor:
    """What `solve` finds, which knows the gradient of t as well.

    A time is where the solution is looked at: it moves with f there, and a later start is a start at
    y0 - f dt0.
    """
    t = call.t
    if not (t.requires_grad and torch.is_grad_enabled()):
        return solve(call, call.x0)
    xs = solve(call, started(call))
    with torch.no_grad():
        slopes = [call.rate(call.time(at), x) for at, x in zip(t[1:], xs[1:], strict=True)]
    moved = (t - t.detach()).to(xs)[1:, None, None]
    return torch.cat([call.x0[None], xs[1:] + torch.stack(slopes) * moved]) if slopes else call.x0[None]


def started(call: Asked) -> Tensor:
    """x0, which knows what a later start does to all that comes of it."""
    t0 = call.t[0]
    if not (t0.requires_grad and torch.is_grad_enabled()):
        return call.x0
    with torch.no_grad():
        f = call.rate(call.time(t0), call.x0)
    return call.x0 - f * (t0 - t0.detach()).to(f)


def by_tolerance(call: Asked, x0: Tensor, times: Sequence[float], events: Sequence[Event] = ()) -> Solution:
    """A run whose steps follow from the tolerances, with their options.

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
            save_at=None if events else times,
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


def combined(call: Asked, event_fn: Callable[[Tensor, Any], Tensor]) -> Value:
    """The least of an event's elements, each turned so that it is positive at the start."""
    with torch.no_grad():
        signs = torch.sign(event_fn(call.t[0].detach(), call.y0))
    return lambda t, x: (event_fn(t, call.form.state(x)) * signs).min()


def until(call: Asked, event_fn: Callable[[Tensor, Any], Tensor]) -> tuple[Tensor, Tensor]:
    """When an event happens, and x [2, 1, N] at the start and then. At that time, which is not moved by x."""
    if len(call.t) != 2:
        raise ArgumentError(f"We require len(t) == 2 when in event handling mode, but got {len(call.t)}")
    value, x0, start = combined(call, event_fn), started(call), call.times[0]
    with torch.no_grad():
        begun = bool(value(call.t[0].detach(), x0) == 0)
    if begun:
        when, x = start, x0
    elif on_grid(call):
        when, x = Grid(call, x0).until(value)
    elif call.method == "scipy_solver":
        raise ArgumentError("scipy_solver has no events: take an adaptive method, such as dopri5")
    else:
        event = Event(torch.no_grad()(lambda t, x: value(t.reshape(()), x).reshape(1)), direction=-1)
        sol = by_tolerance(call, x0, (start, start + call.sign * FOREVER * (1 + abs(start))), [event])
        assert sol.t_end is not None
        assert sol.x_end is not None
        when, x = float(sol.t_end[0]), sol.x_end
        if sol.status[0] != "event":
            raise StepError(f"no event until t = {when:g}: look whether event_fn ever changes its sign")
    return torch.tensor(when, dtype=torch.float64).to(call.t), torch.stack([call.x0, x])
