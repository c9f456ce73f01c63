"""The continuous adjoint: the gradient of a run from a second one, backward, that remembers no step.

With a = dL/dx and x' = f(t, x; p), integrated from each time of the output back to the one before,

    x' = f,    a' = -(df/dx)^T a,    g' = -(df/dp)^T a

where a takes up dL/dx_i at each, x is put to the state that the run had there, and g ends as dL/dp (Chen et al.
2018). It is the gradient of the equation and not of the run's steps: they differ by what both runs' tolerances
leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rate = Callable[[Tensor, Tensor], Tensor]
Back = Callable[[Callable[[Tensor, Any], Any], tuple[Tensor, ...], Tensor], tuple[Tensor, ...]]


def backsolve(
    rate: Rate, times: Tensor, xs: Tensor, g: Tensor, params: Sequence[Tensor], back: Back
) -> list[Tensor]:
    """dL/dx_0 and dL/dp of each parameter from g = dL/dxs, both [T, 1, N].

    back(dynamics, state, times) gives the state at the last of two times; a state is (0, x, a, *g), where
    torchdiffeq has the gradient of t in place of the 0, which `timed` finds without integrating.
    """

    def dynamics(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        zero, x, a = state[:3]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            f = rate(t, x)
            if not f.requires_grad:
                return (zero, f, *map(torch.zeros_like, state[2:]))
            pulls = torch.autograd.grad(f, (x, *params), -a, allow_unused=True, retain_graph=True)
        parts = zip(pulls, state[2:], strict=True)
        return (zero, f.detach(), *(torch.zeros_like(v) if pull is None else pull for pull, v in parts))

    zero, a = torch.zeros((), dtype=xs.dtype, device=xs.device), g[-1]
    totals: Sequence[Tensor] = [torch.zeros_like(p) for p in params]
    for i in range(len(times) - 1, 0, -1):
        ends = times[i - 1 : i + 1].flip(0)
        _, _, a, *totals = back(dynamics, (zero, xs[i], a, *totals), ends)
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
        with torch.no_grad():
            return (None, None, *ctx.pull(xs, g, params))


def parameters(func: Any) -> tuple[Tensor, ...]:
    """Those of a module, and of a replica of DataParallel, whose own list is empty."""
    if getattr(func, "_is_replica", False):
        found = (v for m in func.modules() for v in vars(m).values() if isinstance(v, Tensor))
        return tuple(v for v in found if v.requires_grad)
    assert isinstance(func, nn.Module)
    return tuple(func.parameters())


def adjoint_norm(
    given: Any, state: Callable[[Tensor], Any], split: Callable[[Tensor], Any], sizes: Callable
) -> Callable[[tuple[Tensor, ...]], Any]:
    """The norm of (0, x, a, *g): the largest of the state's norm of x and a and root mean squares of the rest.

    given: "seminorm" leaves the parameters out (Kidger et al. 2021); a function gets the parts as the user
    knows them, (0, *x, *a, *g).
    """
    if callable(given):
        return lambda parts: given((parts[0], *split(parts[1]), *split(parts[2]), *parts[3:]))

    def norm(parts: tuple[Tensor, ...]) -> Tensor:
        rest = () if given == "seminorm" else parts[3:]
        found = [torch.as_tensor(state(v)) for v in parts[1:3]]
        return torch.stack([*found, *map(sizes, rest)]).amax()

    return norm
