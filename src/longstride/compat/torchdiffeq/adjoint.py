"""`odeint_adjoint`: the gradient of a run from a second one, backward, that remembers no step.

With a = dL/dx and x' = f(t, x; p), integrated from each time of the output back to the one before,

    x' = f,    a' = -(df/dx)^T a,    g' = -(df/dp)^T a

where a takes up dL/dx_i at each, x is put to the state that the run had there, and g ends as dL/dp (Chen et
al. 2018). It is the gradient of the equation and not of the run's steps: they differ by what the tolerances
of both runs leave.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, unknown
from .forward import odeint
from .inputs import CALLBACKS, Asked, CheckError, Func, State, asked, largest_rms
from .run import started, states, timed, until

Parts = tuple[Tensor, ...]
Back = Callable[[Callable[[Tensor, Parts], Parts], Parts, Tensor], Parts]


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
    """`odeint`, whose gradient is found by integrating the adjoint equation back.

    Args:
        adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options: of the way back, default those forth, but
            for the norm; adjoint_options={"norm": "seminorm"} leaves the parameters out of it.
        adjoint_params: what gradients are wanted of; default the parameters of func, a module.

    Raises:
        ArgumentError: as `odeint`, or how the way back goes does not follow from what is given.
    """
    call = asked(func, y0, t, rtol, atol, method, options)
    if adjoint_params is None and not isinstance(func, nn.Module):
        raise ArgumentError(
            "func must be an instance of nn.Module to specify the adjoint parameters; alternatively give "
            "them as adjoint_params=, which may be ()"
        )
    if adjoint_options is None and options is not None and adjoint_method not in (None, method):
        raise ArgumentError(
            "If `adjoint_method != method` then we cannot infer `adjoint_options` from `options`: give "
            "adjoint_options= as well"
        )
    given = parameters(func) if adjoint_params is None else tuple(adjoint_params)
    params = tuple(p for p in given if p.requires_grad)
    own = (
        {k: v for k, v in (options or {}).items() if k != "norm"}
        if adjoint_options is None
        else adjoint_options
    )
    if callable(own.get("norm")) and len(params) < len(given):
        warnings.warn(
            "An adjoint parameter was passed without requiring gradient. For efficiency this will be "
            "excluded from the adjoint pass, and will not appear as a tensor in the adjoint norm.",
            stacklevel=2,
        )
    norm = adjoint_norm(call, own.get("norm"), params)
    tolerances = {
        "rtol": _number("rtol", rtol if adjoint_rtol is None else adjoint_rtol),
        "atol": _number("atol", atol if adjoint_atol is None else adjoint_atol),
    }

    def back(dynamics: Any, state: Parts, ends: Tensor) -> Parts:
        for name in CALLBACKS:
            if hasattr(func, f"{name}_adjoint"):
                setattr(dynamics, name, getattr(func, f"{name}_adjoint"))
        found = odeint(
            dynamics,
            state,
            ends,
            method=adjoint_method or method,
            options={**own, "norm": norm},
            **tolerances,
        )
        return tuple(part[-1] for part in found)

    def attached(times: Tensor, xs: Tensor, x0: Tensor) -> Tensor:
        def pull(xs: Tensor, g: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
            return backsolve(call, times, xs, g, params, back)

        return Attached.apply(pull, xs, x0, *params)

    def solve(call: Asked, x0: Tensor) -> Tensor:
        with torch.no_grad():
            xs = states(call, x0)
        return attached(call.t.detach(), xs, x0)

    if event_fn is None:
        return call.form.state(timed(call, solve), len(call.t))
    with torch.no_grad():
        when, xs = until(call, event_fn)
    times = torch.stack([call.t[0].detach(), when])
    return when, call.form.state(attached(times, xs, started(call)), 2)


def backsolve(
    call: Asked, times: Tensor, xs: Tensor, g: Tensor, params: Sequence[Tensor], back: Back
) -> list[Tensor]:
    """dL/dx_0 and dL/dp of each parameter from g = dL/dxs, both [T, 1, N].

    back(dynamics, state, times) gives the state at the last of two times; a state is (0, x, a, *g), where
    torchdiffeq has the gradient of t in place of the 0, which `run.timed` finds without integrating.
    """

    def dynamics(t: Tensor, state: Parts) -> Parts:
        zero, x, a = state[:3]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            f = call.rate(t, x)
            if not f.requires_grad:
                return (zero, f, *map(torch.zeros_like, state[2:]))
            pulls = torch.autograd.grad(f, (x, *params), -a, retain_graph=True, materialize_grads=True)
        return (zero, f.detach(), *pulls)

    zero, a, totals = xs.new_zeros(()), g[-1], [torch.zeros_like(p) for p in params]
    for i in range(len(times) - 1, 0, -1):
        _, _, a, *totals = back(dynamics, (zero, xs[i], a, *totals), times[i - 1 : i + 1].flip(0))
        a = a + g[i - 1]
    return [a, *totals]


class Attached(torch.autograd.Function):
    """xs as found, whose gradient is what `pull` makes of theirs."""

    @staticmethod
    def forward(ctx: Any, pull: Callable, xs: Tensor, x0: Tensor, *params: Tensor) -> Tensor:
        ctx.pull = pull
        ctx.save_for_backward(xs, *params)
        return xs.view_as(xs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        xs, *params = ctx.saved_tensors
        return (None, None, *ctx.pull(xs, g, params))


def parameters(func: Any) -> tuple[Tensor, ...]:
    """Those of a module, and of a replica of DataParallel, whose own list is empty."""
    if getattr(func, "_is_replica", False):
        found = (v for m in func.modules() for v in vars(m).values() if isinstance(v, Tensor))
        return tuple(v for v in found if v.requires_grad)
    return tuple(func.parameters())


def adjoint_norm(call: Asked, given: Any, params: Sequence[Tensor]) -> Callable[[Parts], Any] | None:
    """The norm of (0, x, a, *g): the largest of the state's norm of x and of a, and root mean squares of g.

    given: "seminorm" leaves the parameters out (Kidger, Chen and Lyons 2021); a function gets the parts as
    the user knows them, (0, *x, *a, *g).
    """
    form, size = call.form, call.norm
    if callable(given):
        split = (lambda x: (form.state(x),)) if form.single else form.state
        return lambda parts: given((parts[0], *split(parts[1]), *split(parts[2]), *parts[3:]))
    if given not in (None, "seminorm"):
        raise unknown("norm of the adjoint", given, ("seminorm",))
    if given is None and size is None:
        return None  # of a tuple this is what there is
    size = size or largest_rms([call.x0.numel()])
    several = largest_rms([p.numel() for p in params]) if params and given is None else None

    def norm(parts: Parts) -> Tensor:
        found = [torch.as_tensor(size(v)) for v in parts[1:3]]
        if several is not None:
            found.append(several(torch.cat([v.reshape(-1) for v in parts[3:]])))
        return torch.stack(found).amax()

    return norm


def _number(name: str, value: Any) -> Any:
    if isinstance(value, (tuple, list)) or (isinstance(value, Tensor) and value.ndim):
        raise CheckError(f"{name} is of the state's parts: give adjoint_{name}=, a number, for the way back")
    return value
