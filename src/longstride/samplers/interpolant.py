"""Stochastic interpolants between two data sets, the diffusion chosen when they are sampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..core import Stage, Step
from ..errors import ArgumentError, finite, whole
from ..integrate import run
from ..noise import Noise, seed_of
from ..plan import Plan

Schedule = Callable[[float], float]
SHIFT = 1.0  # Brownian time must be positive: it is t + 1


def plan_interpolant(
    gamma: Schedule, epsilon: Schedule, nfe: int, t: tuple[float, float] = (0.0, 1.0)
) -> Plan:
    """Heun's steps of dX = (b + epsilon s) dt + sqrt(2 epsilon) dW, uniform in t, as weights of two fields.

    x_t = I(t, x_0, x_1) + gamma(t) z has b = E[dI/dt + gamma' z | x_t], field 0, and eta = E[z | x_t], field
    1, of which s = -eta/gamma is the score. Every epsilon >= 0 keeps the law of x_t: 0 is the ODE, which does
    not ask for eta. From x_1 back to x_0 the signs of dt and of b turn, that of s does not. The noise being
    additive, the weak order is 2 (Albergo et al. 2023, section 2).

    nfe: evaluations, of both fields together: a step takes 2, or 4 where there is noise.

    Raises:
        ArgumentError: too few evaluations, times outside [0, 1], epsilon < 0, or epsilon > 0 where gamma = 0.
    """
    start, end = (finite("t", s) for s in t)
    if not (0 <= start <= 1 and 0 <= end <= 1 and start != end):
        raise ArgumentError(f"t = {t}: an interpolant goes between two times of [0, 1]")

    def pull(s: float) -> float:
        """epsilon/gamma, the weight of eta."""
        eps, width = epsilon(s), gamma(s)
        if eps < 0 or (eps > 0 and width <= 0):
            raise ArgumentError(
                f"epsilon({s}) = {eps} where gamma = {width}: it is never negative, and 0 where gamma is; or "
                "give t= that leaves the end out"
            )
        return eps / width if eps else 0.0

    noisy = any(pull(start + (end - start) * k / 8) > 0 for k in range(9))
    size = 4 if noisy else 2
    n = whole("nfe", nfe, size, f"a step takes {size} evaluations") // size
    h, times = (end - start) / n, [start + (end - start) * k / n for k in range(n)] + [end]
    steps = []
    for s, u in pairwise(times):
        if not noisy:
            rows = (Stage((1.0,), at=s), Stage((1.0,), (h,), at=u), Stage((1.0,), (h / 2, h / 2)))
            steps.append(Step(rows))
            continue
        # eta is asked for where epsilon = 0 too: every step then is one graph of a compiled plan.
        (p, q), k, z = (pull(s), pull(u)), abs(h), math.sqrt(abs(h) * (epsilon(s) + epsilon(u)))
        ask = (Stage((1.0,), at=s), Stage((1.0,), at=s, field=1))
        there = (Stage((1.0,), (h, -k * p), (z,), at=u), Stage((0.0, 0.0, 0.0, 1.0), at=u, field=1))
        last = Stage((1.0,), (h / 2, -k * p / 2, h / 2, -k * q / 2), (z,))
        steps.append(Step((*ask, *there, last), brownian=(s + SHIFT, u + SHIFT)))
    return Plan(tuple(times), tuple(steps), {"process": "interpolant"}, "interpolant_heun")


def sample_interpolant(
    velocity: Callable[[Tensor, Tensor], Tensor],
    denoiser: Callable[[Tensor, Tensor], Tensor],
    x_init: Tensor,
    plan: Plan,
    seed: int | torch.Generator = 0,
) -> Tensor:
    """x [B, *shape] where the plan ends, from x_init at its first time.

    velocity, denoiser: b(x, t) and eta(x, t) of `plan_interpolant`, with t [B].

    Raises:
        SolveError: a network failed or returned NaN, with step and time.
    """

    def field(net: Callable[[Tensor, Tensor], Tensor]) -> Callable[[float, Tensor], Tensor]:
        return lambda t, x: net(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device))

    noise = Noise(seed_of(seed), range(len(x_init)), x_init.shape[1:])
    with torch.no_grad():
        return run((field(velocity), field(denoiser)), plan, x_init, noise)[0][-1]
