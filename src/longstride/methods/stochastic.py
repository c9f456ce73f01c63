"""Ancestral sampling: DDIM with its eta, DDPM."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core import Stage, Step
from ..errors import ArgumentError
from ..operator import Operator
from .base import Method, register


def ddim(*, eta: float = 0.0) -> Method:
    """x_t = alpha_t x0_hat + sqrt(sigma_t^2 - s^2) eps_hat + s xi,  s^2 = eta^2 sigma_t^2 (1 - e^(-2h)).

    With eta_hat = (x - alpha_s x0_hat)/sigma_s put in, that is one weight each of x, x0_hat and xi. At
    eta = 0 it is exponential Euler in every frame; at eta = 1, ancestral sampling (Song et al. 2021,
    eq. 12 and 16; h is the step in lambda).
    """
    if not 0 <= eta <= 1:
        raise ArgumentError(f"eta = {eta}: for ddim it is between 0 (deterministic) and 1 (ancestral)")

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        lambda_s, lambda_t = op.clock(s), op.clock(t)
        h = lambda_t - lambda_s
        variance = eta**2 * -math.expm1(-2 * h)  # of the fresh noise, in units of sigma_t^2
        kept = math.sqrt(1 - variance) * math.exp(-h)
        fresh = math.sqrt(variance) * math.exp(-lambda_t)
        # xi is scaled as an evaluation is: in this frame both are in units of u = x/alpha.
        x, (w, z) = op.row(t, [(s, kept)], [1 - kept, fresh])
        return Step(
            (Stage((1.0,), at=s, field=op.field), Stage(x, (w,), (z,) if eta else ())),
            brownian=(math.exp(2 * lambda_s), math.exp(2 * lambda_t)) if eta else None,
        )

    return Method(write, 1, prediction="data", diffusion=True)


register("ddim", ddim, kind="stochastic", reference="Song et al. 2021, DDIM", eta=0.0)
register("ddpm", ddim, kind="stochastic", reference="Ho et al. 2020, DDPM", eta=1.0)
