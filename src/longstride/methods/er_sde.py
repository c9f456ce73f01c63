"""ER-SDE-Solver: the reverse SDE with as much noise at each sigma as a function phi says.

With u = x/alpha and sigma short for sigma/alpha, any phi > 0 with phi(sigma)/sigma rising is an SDE with the
right distributions at all times, solved (Cui et al. 2023) by

    u_t = phi_t/phi_s u_s + int_s^t x0_hat(sigma) d(phi_t/phi(sigma)) + sqrt(sigma_t^2 - (phi_t/phi_s sigma_s)^2) xi

phi = sigma has no noise, phi = sigma^2 as much as the forward process. On a VE process u = x.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..core import Stage, Step
from ..errors import unknown
from ..operator import Operator
from .adams import GAUSS_W, GAUSS_X, vandermonde
from .base import Method, register

# phi(sigma)/sigma; the last is the paper's recommended one.
PHI: dict[str, Callable[[float], float]] = {
    "ode": lambda sigma: 1.0,
    "sde": lambda sigma: sigma,
    "er_sde": lambda sigma: math.exp(sigma**0.3) + 10,
}


def _moments(m: int, ratio: Callable[[float], float], sigma_s: float, sigma_t: float) -> list[float]:
    """int c^i d(phi_t/phi), i < m, where c runs from 0 at sigma_s to 1 at sigma_t.

    By parts that is 1 - phi_t/phi_s, and 1 - i int c^(i-1) phi_t/phi dc for i > 0: the paper's integral of
    1/phi, smooth in log sigma, where Gauss quadrature takes it.
    """
    phi_t = sigma_t * ratio(sigma_t)
    h = math.log(sigma_s / sigma_t)
    sigma = sigma_s * np.exp(-h * (GAUSS_X + 1) / 2)
    c = (sigma - sigma_s) / (sigma_t - sigma_s)
    # dc = h sigma/(sigma_s - sigma_t) dr, and phi_t/phi = phi_t/(sigma ratio)
    kernel = GAUSS_W / 2 * h / (sigma_s - sigma_t) * phi_t / np.array([ratio(float(q)) for q in sigma])
    return [
        1 - phi_t / (sigma_s * ratio(sigma_s)),
        *(1 - i * float(kernel @ c ** (i - 1)) for i in range(1, m)),
    ]


def _er_sde(order: int):
    def build(*, phi: str = "er_sde") -> Method:
        """`order` evaluations make the Taylor expansion of x0_hat in sigma, by divided differences.

        The third has (sigma - sigma_s)^2 with the second difference where the parabola through three points
        has (sigma - sigma_s)(sigma - sigma_r), so the order is 2, as that of DPM-Solver++(3M).
        """
        if phi not in PHI:
            raise unknown("phi", phi, PHI)
        ratio = PHI[phi]

        def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
            s, t = times[n], times[n + 1]
            sigma_s, sigma_t = math.exp(-op.clock(s)), math.exp(-op.clock(t))
            nodes = [math.exp(-op.clock(u)) for u in times[max(n - order + 1, 0) : n + 1]][::-1]
            c = [(sigma - sigma_s) / (sigma_t - sigma_s) for sigma in nodes]
            moments = _moments(len(c), ratio, sigma_s, sigma_t)
            if len(c) == 3:
                moments[2] += c[1] * moments[1]
            weights = np.linalg.solve(vandermonde(c), moments)[::-1].tolist()
            q_s, q_t = ratio(sigma_s) ** -2, ratio(sigma_t) ** -2  # (sigma/phi)^2, where variances add up
            fresh = sigma_t * ratio(sigma_t) * math.sqrt(q_t - q_s)
            x, (*f, z) = op.row(t, [(s, 1 - moments[0])], [*weights, fresh])
            return Step(
                (Stage((1.0,), at=s, field=op.field), Stage(x, tuple(f), (z,) if z else ())),
                keep_f=tuple(range(-min(order - 1, n + 1), 0)),
                brownian=(q_s, q_t) if z else None,
            )

        return Method(write, min(order, 2), prediction="data", diffusion=True)

    return build


for _k in (1, 2, 3):
    register(f"er_sde_{_k}", _er_sde(_k), kind="stochastic",
             reference="Cui et al. 2023, ER-SDE-Solver")  # fmt: skip
