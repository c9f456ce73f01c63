"""`odeint` and `odeint_event`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...adaptive.events import Crossings, implicit
from ...gradients.differentiable import Flow
from .inputs import Func, State, asked
from .run import combined, on_grid, states, timed, until


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

    Backpropagation goes through the steps. To t it goes through f, dy_i/dt_i = f and
    dy_i/dt_0 = -(dy_i/dy_0) f, or on a grid through the steps as well.

    Raises:
        ArgumentError: a bad argument, which is an AssertionError, TypeError or ValueError as theirs is.
        StepError: the run cannot go on; an AssertionError.  What func raises is raised as it is.
    """
    call = asked(func, y0, t, rtol, atol, method, options)
    if event_fn is None:
        xs = states(call, call.x0) if on_grid(call) else timed(call, states)
        return call.form.state(xs, len(call.t))
    when, xs = until(call, event_fn)
    return when, call.form.state(xs, 2)


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
    """When event_fn(t, y) first changes sign from t0 on, and [y0, y there].

    Both know their gradients, also of what event_fn closes over, by the implicit function theorem (`events`).

    Args:
        odeint_interface: `odeint` or `odeint_adjoint`, which gets the keyword arguments.
    """
    start, way = t0.reshape(-1), -1.0 if reverse_time else 1.0
    ends = torch.cat([start, start.detach() + way])
    when, found = odeint_interface(func, y0, ends, event_fn=event_fn, **kwargs)
    call = asked(func, y0, start, 0.0, 0.0, None, None)
    form, sample = call.form, torch.zeros(1, dtype=torch.int64, device=start.device)
    x = form.row(found[-1] if form.single else tuple(part[-1] for part in found))
    f, seen = Flow(call.rate, True).f, Crossings(sample, when[None], x)
    seen = implicit(combined(call, event_fn), seen, f, when[None], x, True)
    last = form.state(seen.x, 1)
    if form.single:
        return seen.t[0], torch.cat([found[:-1], last])
    return seen.t[0], tuple(torch.cat([part[:-1], end]) for part, end in zip(found, last, strict=True))
