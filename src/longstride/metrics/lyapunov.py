"""How fast nearby trajectories part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import jvp, vmap

from ..core import MULTIPLIERS
from ..errors import ArgumentError, SolveError, positive, whole
from ..noise import Noise
from ..problem import ODE

BLOCKS = 10  # that the run is cut into for the error
Map = Callable[[float, Tensor], Tensor]  # of the time and the state, to the next state


@dataclass(frozen=True)
class Lyapunov:
    """exponents [B, k], the largest first, and the standard error [B, k] of each.

    The error is that of a mean of the ten tenths of the run, as if these were independent: too large where a
    tenth is but a few turns around the attractor. It says nothing of the error of the steps.
    """

    exponents: Tensor
    error: Tensor


def lyapunov(
    problem: ODE | Callable[[Tensor], Tensor],
    x0: Tensor,
    *,
    steps: int,
    dt: float = 1.0,
    method: str | None = None,
    k: int = 1,
    skip: int = 0,
    every: int = 1,
    tangent: bool = False,
    start: float = 0.0,
    seed: int = 0,
) -> Lyapunov:
    """The k largest Lyapunov exponents along trajectories from x0 [B, ...], by Benettin et al. 1980.

    k orthonormal tangent vectors are carried by the derivative of `every` steps, and made orthonormal again:
    Y = Q R. What they had grown by is on the diagonal of R; the exponents are the means of its logarithms
    over time. The derivative is a difference of two trajectories that begin |x| times the root of the
    precision apart, so it is as precise, and asks nothing of the problem; or with tangent=True it is torch's
    own (torch.func.jvp), exact, but of small states some ten to thirty times as dear.

    problem: an ODE, a `System`, a `PDE`, taken in `steps` steps of dt by a method without a memory, "rk4" or,
    where L is a tensor, "etdrk4"; or a map x -> x, whose dt is the time between its states.
    skip: steps before these, in which the trajectory comes to its attractor and the vectors to their
    directions.  every: vectors that grow at rates a > b keep e^(-(a - b) every dt) of their difference in
    direction, which should be far above round-off.

    Raises:
        ArgumentError: more exponents than numbers in a state, a method that remembers, a bad number.
        SolveError: the trajectory left the numbers.
    """
    steps, skip, every = whole("steps", steps, 1), whole("skip", skip, 0), whole("every", every, 1)
    k, dt = whole("k", k, 1), positive("dt", dt)
    rounds = steps // every
    if rounds < BLOCKS or steps % every or skip % every:
        raise ArgumentError(
            f"steps = {steps}, skip = {skip}, every = {every}: multiples, and {BLOCKS} of them or more"
        )
    if k > (whole_size := x0[0].numel() * (2 if x0.is_complex() else 1)):
        raise ArgumentError(f"k = {k} exponents of states of {whole_size} numbers")
    x, flow = x0.detach(), _flow(problem, dt, method, every)
    if x.is_complex():
        x, flow = torch.view_as_real(x), _of_pairs(flow)
    Q, _ = _orthonormal(Noise(seed, range(k), x.shape[1:]).prior().to(x)[:, None].expand(k, *x.shape))
    grown = []
    for n in range(-(skip // every), rounds):
        x, Y = _carried(partial(flow, start + (n * every + skip) * dt), x, Q, tangent)
        Q, growth = _orthonormal(Y)
        if n >= 0:
            grown.append(growth)
    rates = torch.stack(grown) / (every * dt)  # [rounds, B, k]
    if not bool(torch.isfinite(rates).all()):
        raise SolveError(
            "a trajectory or its derivative is not finite: take a smaller dt, or k no more than the modes "
            "that are kept"
        )
    means = torch.stack([block.mean(0) for block in rates.tensor_split(BLOCKS)])
    return Lyapunov(rates.mean(0), means.std(0) / BLOCKS**0.5)


def _flow(problem: ODE | Callable[[Tensor], Tensor], dt: float, method: str | None, every: int) -> Map:
    """So many steps as one function of their beginning's time and state."""
    if not isinstance(problem, ODE):

        def iterated(t: float, x: Tensor) -> Tensor:
            for _ in range(every):
                x = problem(x)
            return x

        return iterated
    from ..equal_steps.onestep import stepper  # half of the house

    step = stepper(problem, method or ("etdrk4" if isinstance(problem.L, MULTIPLIERS) else "rk4"), dt=dt)
    return lambda t, x: step.repeat(x, every, t)


def _of_pairs(flow: Map) -> Map:
    """The same of complex states as pairs of real numbers, [..., 2]: they have directions of their own."""
    return lambda t, x: torch.view_as_real(flow(t, torch.view_as_complex(x)))


def _carried(flow: Callable[[Tensor], Tensor], x: Tensor, Q: Tensor, tangent: bool) -> tuple[Tensor, Tensor]:
    """The next state, and what becomes of the tangent vectors Q [k, B, ...]."""
    if tangent:
        return flow(x), vmap(lambda q: jvp(flow, (x,), (q,))[1])(Q)  # type: ignore[index]
    y, size = flow(x), torch.linalg.vector_norm(x.flatten(1), dim=1)
    apart = torch.finfo(x.dtype).eps ** 0.5 * size.where(size > 0, 1.0).view(-1, *(1,) * (x.ndim - 1))
    return y, torch.stack([(flow(x + apart * q) - y) / apart for q in Q])


def _orthonormal(Y: Tensor) -> tuple[Tensor, Tensor]:
    """Y [k, B, ...] of each sample as Q R: Q like Y, and ln |R_ii|, [B, k]."""
    Q, R = torch.linalg.qr(Y.flatten(2).permute(1, 2, 0))
    return Q.permute(2, 0, 1).reshape(Y.shape), R.diagonal(dim1=-2, dim2=-1).abs().log()
