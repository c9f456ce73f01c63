"""The three calls, and what runs them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...adaptive import adaptive
from ...control import I
from ...errors import ArgumentError, SolveError, finite
from ...events import Event
from ...integrate import Solution
from ...problem import ODE
from .adjoint import Attached, adjoint_norm, backsolve, parameters
from .fixed import Grid
from .inputs import (
    ADAMS,
    CALLBACKS,
    RUNGE_KUTTA,
    Asked,
    CheckError,
    Func,
    State,
    StepError,
    asked,
    largest_rms,
)
from .steering import Steering

Value = Callable[[Tensor, Tensor], Tensor]  # an event's, of t and a row

FOREVER = 1e10  # how far an event is looked for, in units of 1 + |t|


def odeint(
    func: Func,
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
) -> Any:
    """The solution of dy/dt = func(t, y), y(t[0]) = y0, at the times t: [T, *y0.shape], or a tuple of these.

    Args:
        func: gets a scalar t and y.  y0: a tensor of any shape, or a tuple of them.
        t: [T], rising or falling; one time gives y0.
        rtol, atol: numbers, tensors that broadcast with y0, or for a tuple one of these for each part.
        method: torchdiffeq's names, "dopri5" if none, or an embedded pair of Longstride's ("tsit5").
        options: torchdiffeq's, see docs/solving-torchdiffeq.md.
        event_fn: event_fn(t, y); the run ends where the first of its elements changes sign. Of t, [2], the
            first is the start and the second says which way to go. Returns (when, [y0, y there]).

    Backpropagation goes through the steps, and to t through f: dy_i/dt_i = f, dy_i/dt_0 = -(dy_i/dy_0) f.

    Raises:
        ArgumentError: a bad argument, which is an AssertionError, TypeError or ValueError as theirs is.
        StepError: the run cannot go on; an AssertionError.  What func raises is raised as it is.
    """
    call = asked(func, y0, t, rtol, atol, method, options)
    if event_fn is None:
        return call.form.state(_timed(call, _states), len(call.t))
    when, xs = _event(call, event_fn)
    return when, call.form.state(xs, 2)


def odeint_adjoint(
    func: Func,
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Sequence[Tensor] | None = None,
) -> Any:
    """`odeint`, whose gradient is found by integrating the adjoint equation back (`adjoint.backsolve`).

    Args:
        adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options: of the way back, default those forth, but
            for the norm; adjoint_options={"norm": "seminorm"} leaves the parameters out of it.
        adjoint_params: what gradients are wanted of; default the parameters of func, a module.

    Raises:
        ArgumentError: as `odeint`, or how the way back goes does not follow from what is given.
    """
    if adjoint_params is None and not isinstance(func, nn.Module):
        raise ArgumentError(
            "func must be an instance of nn.Module to specify the adjoint parameters; alternatively give them "
            "as adjoint_params=, which may be ()"
        )
    if adjoint_method not in (None, method) and options is not None and adjoint_options is None:
        raise ArgumentError(
            "If `adjoint_method != method` then we cannot infer `adjoint_options` from `options`: give "
            "adjoint_options= as well"
        )
    given = parameters(func) if adjoint_params is None else tuple(adjoint_params)
    params = tuple(p for p in given if p.requires_grad)
    back = dict(adjoint_options) if adjoint_options is not None else dict(options or {})
    norm = back.pop("norm", None) if adjoint_options is not None else None
    if adjoint_options is None:
        back.pop("norm", None)
    if callable(norm) and len(params) < len(given):
        warnings.warn(
            "An adjoint parameter was passed without requiring gradient. For efficiency this will be excluded "
            "from the adjoint pass, and will not appear as a tensor in the adjoint norm.",
            stacklevel=2,
        )
    call = asked(func, y0, t, rtol, atol, method, options)
    tolerances = {
        "rtol": rtol if adjoint_rtol is None else adjoint_rtol,
        "atol": atol if adjoint_atol is None else adjoint_atol,
    }
    for name, value in tolerances.items():
        if isinstance(value, (tuple, list)) or (isinstance(value, Tensor) and value.ndim):
            raise CheckError(
                f"{name} is of the state's parts: give adjoint_{name}=, a number, for the way back"
            )
    form = call.form
    parts = (lambda x: (form.state(x),)) if form.single else form.state
    size = call.norm or largest_rms([call.x0.numel()])
    back["norm"] = adjoint_norm(norm, size, parts, lambda v: largest_rms([v.numel()])(v))

    def way_back(dynamics: Any, state: tuple[Tensor, ...], ends: Tensor) -> tuple[Tensor, ...]:
        for name in CALLBACKS:
            if hasattr(func, f"{name}_adjoint"):
                setattr(dynamics, name, getattr(func, f"{name}_adjoint"))
        found = odeint(dynamics, state, ends, method=adjoint_method or method, options=back, **tolerances)
        return tuple(part[-1] for part in found)

    def attached(times: Tensor, xs: Tensor, x0: Tensor) -> Tensor:
        def pull(xs: Tensor, g: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
            return backsolve(call.rate, times, xs, g, params, way_back)

        return Attached.apply(pull, xs, x0, *params)

    if event_fn is None:

        def states(call: Asked, x0: Tensor) -> Tensor:
            with torch.no_grad():
                xs = _states(call, x0)
            return attached(call.t.detach(), xs, x0)

        return form.state(_timed(call, states), len(call.t))
    with torch.no_grad():
        when, xs = _event(call, event_fn)
    times = torch.stack([call.t[0].detach(), when])
    return when, form.state(attached(times, xs, _started(call)), 2)


def odeint_event(
    func: Func,
    y0: State,
    t0: Tensor,
    *,
    event_fn: Callable[[Tensor, Any], Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> Any:
    """When event_fn(t, y) first changes sign from t0 on, and [y0, y there]; both know their gradients.

    At a fixed time T the event's value is c(T, y(T)), so dT = -dc/(c_t + c_y f), and y there moves with
    dy + f dT.

    Args:
        odeint_interface: `odeint` or `odeint_adjoint`, which gets the keyword arguments.
    """
    start = t0.reshape(-1)
    way = -1.0 if reverse_time else 1.0
    when, states = odeint_interface(
        func, y0, torch.cat([start, start.detach() + way]), event_fn=event_fn, **kwargs
    )
    call = asked(func, y0, start, 0.0, 0.0, None, None)
    form, value = call.form, _combined(call, event_fn)
    last = states[-1] if form.single else tuple(part[-1] for part in states)
    x, at = form.row(last), call.time(when.detach())
    c = value(at, x)
    if not c.requires_grad:
        return when, states
    with torch.no_grad():
        f = call.rate(at, x)
    here, now = x.detach().requires_grad_(), at.clone().requires_grad_()
    pulls = torch.autograd.grad(value(now, here), (now, here), allow_unused=True)
    c_t, c_x = (torch.zeros_like(v) if p is None else p for p, v in zip(pulls, (now, here), strict=True))
    slope = c_t + (c_x.conj() * f).sum().real
    moved = -(c - c.detach()) / slope  # 0, which knows the gradient of the time
    x = x + f * moved
    ends = form.state(x, 1)
    if form.single:
        return when + moved.to(when), torch.cat([states[:-1], ends])
    whole = tuple(torch.cat([part[:-1], end]) for part, end in zip(states, ends, strict=True))
    return when + moved.to(when), whole


def _states(call: Asked, x0: Tensor) -> Tensor:
    """x [T, 1, N] at the times asked for."""
    if len(call.t) == 1:
        return x0[None]
    if call.method in RUNGE_KUTTA or call.method in ADAMS:
        return Grid(call, x0).states()
    if call.method == "scipy_solver":
        from .by_scipy import states

        return states(call)
    return _adaptive(call, x0, call.times).x


def _timed(call: Asked, states: Callable[[Asked, Tensor], Tensor]) -> Tensor:
    """The states, which know the gradient of t as well.

    A grid of times is differentiated as it is. Elsewhere times are where the solution is looked at: it moves
    with f there, and a later start is a start at y0 - f dt0.
    """
    t = call.t
    on_grid = states is _states and (call.method in RUNGE_KUTTA or call.method in ADAMS)
    if not (t.requires_grad and torch.is_grad_enabled()) or on_grid:
        return states(call, call.x0)
    xs = states(call, _started(call))
    with torch.no_grad():
        slopes = torch.stack([call.rate(call.time(at), x) for at, x in zip(t[1:], xs[1:], strict=True)])
    moved = (t - t.detach()).to(xs)[1:, None, None]
    return torch.cat([xs[:1].detach() + (call.x0 - call.x0.detach()), xs[1:] + slopes * moved])


def _started(call: Asked) -> Tensor:
    """x0, which knows what a later start would do to all that comes of it."""
    t0 = call.t[0]
    if not (t0.requires_grad and torch.is_grad_enabled()):
        return call.x0
    with torch.no_grad():
        f = call.rate(call.time(t0), call.x0)
    return call.x0 - f * (t0 - t0.detach()).to(f)


def _adaptive(call: Asked, x0: Tensor, times: Sequence[float], events: Sequence[Event] = ()) -> Solution:
    """A run whose steps follow from the tolerances, with their options."""
    given = call.take(
        min_step=0.0, max_step=math.inf, first_step=None, step_t=None, jump_t=None, safety=0.9, ifactor=10.0,
        dfactor=0.2, max_num_steps=2**31 - 1, dtype=torch.float64,
    )  # fmt: skip
    controller = I(*(float(given[name]) for name in ("safety", "dfactor", "ifactor")))
    steering = Steering(
        controller, finite("min_step", float(given["min_step"])), call, call.watched(*CALLBACKS)
    )
    first = given["first_step"]
    jumps = [t for name in ("step_t", "jump_t") if given[name] is not None for t in _listed(given[name])]
    if len(set(jumps)) < len(jumps):
        raise ArgumentError("`step_t` and `jump_t` must not have any repeated elements between them")
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
            jump_times=jumps,
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


SAID = {
    "step_limit": "max_num_steps exceeded",
    "step_underflow": "underflow in dt",
    "non_finite": "non-finite values in state `y`",
}


def _listed(times: Any) -> list[float]:
    return torch.as_tensor(times, dtype=torch.float64).reshape(-1).tolist()


def _combined(call: Asked, event_fn: Callable[[Tensor, Any], Tensor]) -> Value:
    """The least of an event's elements, each turned so that it is positive at the start."""
    with torch.no_grad():
        signs = torch.sign(event_fn(call.t[0].detach(), call.y0))
    return lambda t, x: (event_fn(t, call.form.state(x)) * signs).min()


def _event(call: Asked, event_fn: Callable[[Tensor, Any], Tensor]) -> tuple[Tensor, Tensor]:
    """When it happens, and [2, 1, N]: the states at the start and then."""
    if len(call.t) != 2:
        raise ArgumentError(f"We require len(t) == 2 when in event handling mode, but got {len(call.t)}")
    value, x0, start = _combined(call, event_fn), _started(call), call.times[0]
    with torch.no_grad():
        begun = bool(value(call.t[0].detach(), x0) == 0)
    if begun:
        when, x = start, x0
    elif call.method in RUNGE_KUTTA or call.method in ADAMS:
        when, x = Grid(call, x0).until(value)
    elif call.method == "scipy_solver":
        raise ArgumentError("scipy_solver has no events: take an adaptive method, such as dopri5")
    else:
        event = Event(torch.no_grad()(lambda t, x: value(t.reshape(()), x).reshape(1)), direction=-1)
        sol = _adaptive(call, x0, (start, start + call.sign * FOREVER * (1 + abs(start))), [event])
        assert sol.t_end is not None and sol.x_end is not None
        if sol.status[0] != "event":
            raise StepError(
                f"no event until t = {float(sol.t_end[0]):g}: look whether event_fn changes its sign"
            )
        when, x = float(sol.t_end[0]), sol.x_end
    return torch.tensor(when, dtype=torch.float64).to(call.t), torch.stack([call.x0, x])
