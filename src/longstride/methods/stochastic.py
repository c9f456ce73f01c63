"""Samplers that draw noise on their way. The score being exact, all keep the distribution at small steps.

Two ideas. One adds noise to a deterministic step: before it, where sigma is raised and the step begins
further up (churn), or after it, where the step goes further down (ancestral). Noise on top of a
distribution at one sigma is the distribution at a larger one, exactly, so the weak order is that of the
deterministic step. Their noise belongs to what a step owns of a Brownian motion in alpha^2/sigma^2. The
other integrates the reverse SDE, of `Frame` with its eta (SA-Solver, DPM++ SDE).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..core import Stage, Step
from ..errors import ArgumentError
from ..operator import Operator
from .adams import adams_bashforth, predictor_corrector
from .base import Method, register
from .exponential import EXP_EULER, EXP_MIDPOINT
from .runge_kutta import EULER, HEUN, Tableau, runge_kutta, stages

GAMMA_MAX = math.sqrt(2) - 1  # Karras et al. 2022: at most twice the variance


def ancestral(*tableaus: Tableau, eta: float) -> Method:
    """A deterministic step down to sigma_down, then noise back up to sigma_t.

    The noise is of variance eta^2 sigma_t^2 (1 - e^(-2h)), h the step in lambda; what is left of sigma_t^2
    is sigma_down^2. With data prediction u = x/alpha is not moved by noise on the average, so the row to
    sigma_down lands at t as it stands. Euler's is DDIM with its eta,

        x_t = alpha_t x0_hat + sqrt(sigma_t^2 - s^2) eps_hat + s xi   (Song et al. 2021, eq. 12 and 16),

    which at eta = 1 is ancestral sampling, known as DDPM and Euler a.
    """
    if not 0 <= eta <= 1:
        raise ArgumentError(f"eta = {eta}: it is between 0 (deterministic) and 1 (ancestral)")
    by_size = {len(tableau.c): tableau for tableau in tableaus}

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        tableau = by_size[min(evals, max(by_size))]
        ratio = math.exp(2 * (op.clock(s) - op.clock(t)))  # e^(-2h)
        kept = 1 - eta**2 + eta**2 * ratio  # of the variance sigma_t^2
        *inner, last = stages(tableau, op, s, t, stop=op.clock(t) - math.log(kept) / 2)
        if not eta:
            return Step((*inner, last))
        fresh = eta * math.sqrt(1 - ratio) * math.exp(-op.clock(t))
        return Step(
            (*inner, replace(last, z=op.row(t, (), [fresh])[1])),
            brownian=(math.exp(2 * op.clock(s)), math.exp(2 * op.clock(t))),
        )

    return Method(write, tableaus[0].order, tuple(by_size), prediction="data", diffusion=True)


def ddim(*, eta: float = 0.0) -> Method:
    """Song et al. 2021; see `ancestral`."""
    return ancestral(EXP_EULER, eta=eta)


def dpmpp_2s_ancestral(*, eta: float = 1.0) -> Method:
    """DPM-Solver++(2S) down to sigma_down, then noise; see `ancestral`."""
    return ancestral(EXP_MIDPOINT, EXP_EULER, eta=eta)


def dpmpp_sde(*, eta: float = 1.0) -> Method:
    """DPM-Solver++(2S) on the SDE: the stage at the middle of lambda has the noise up to there.

    Of weak order 2, as the stage's noise is part of the step's. At eta = 1 it is k-diffusion's dpmpp_sde;
    elsewhere that means DDIM's eta, and this SA-Solver's tau.
    """
    return runge_kutta(EXP_MIDPOINT, EXP_EULER, prediction="data", eta=eta)


def edm_churn(
    *, s_churn: float = 40.0, s_tmin: float = 0.05, s_tmax: float = 50.0, s_noise: float = 1.0
) -> Method:
    """Heun's steps from a raised sigma (Karras et al. 2022, algorithm 2).

    sigma_hat = sigma (1 + gamma), gamma = min(S_churn/N, sqrt 2 - 1) where sigma is from S_tmin to S_tmax and
    0 elsewhere; x_hat = x + sqrt(sigma_hat^2 - sigma^2) S_noise xi; then Heun from sigma_hat to sigma_t.
    N is the number of steps, the one to clean data included. On any process sigma is sigma/alpha and x is
    x/alpha. Never is the network asked above the sigma at which the run began, as the algorithm may be.
    With s_churn = 0 it is `heun`; s_noise other than 1 gives up the order.
    """
    if s_churn < 0 or not 0 <= s_tmin < s_tmax:
        raise ArgumentError(
            f"s_churn = {s_churn}, s_tmin = {s_tmin}, s_tmax = {s_tmax}: give s_churn >= 0 and "
            "0 <= s_tmin < s_tmax"
        )
    by_size = {2: HEUN, 1: EULER}

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        sigma = op.clock(s)
        gamma = min(s_churn / (len(times) - 1), GAMMA_MAX) if s_tmin <= sigma <= s_tmax else 0.0
        raised = min(sigma * (1 + gamma), op.clock(times[0]))
        rows = stages(by_size[min(evals, 2)], op, s, t, start=raised)
        if raised <= sigma:
            return Step(rows)
        fresh = s_noise * math.sqrt(raised**2 - sigma**2)
        ats = (t if row.at is None else row.at for row in rows)
        rows = tuple(replace(row, z=op.row(at, (), [fresh])[1]) for row, at in zip(rows, ats, strict=True))
        return Step(rows, brownian=(op.clock(s) ** -2, op.clock(t) ** -2))

    return Method(write, 2, (2, 1), prediction="sigma", exponential=False, diffusion=True)


def _reverse_diffusion(order: int):
    def build() -> Method:
        """Euler on the reverse SDE, with noise of variance 2 d^2 = what sigma^2/alpha^2 falls by.

        In u = x/alpha, u_t = e^(-2h) u_s + (1 - e^(-2h)) x0_hat(u_s) + sqrt(2) d Z: the reverse diffusion
        predictor (Song et al. 2021, VE as published). Half of the noise before the evaluation,
        u+ = u_s + d Z, and half after doubles the order: accelerated DDPM (Li et al. 2024, for VP),

            Y+ = Y + sqrt((1 - a)/2) Z,  Y_t = (Y+ + (1 - a) score_s(Y+) + sqrt((1 - a)/2) Z+)/sqrt a,

        a = alpha_s^2/alpha_t^2. Both put in the noise of the step's beginning: for small steps.
        """

        def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
            s, t = times[n], times[n + 1]
            q_s, q_t = math.exp(-2 * op.clock(s)), math.exp(-2 * op.clock(t))
            d = math.sqrt((q_s - q_t) / order)
            before = op.row(s, (), [d])[1] if order == 2 else ()
            marks = (q_s, (q_s + q_t) / 2, q_t) if order == 2 else (q_s, q_t)
            kept = q_t / q_s
            (x,), (f, after) = op.row(t, [(s, kept)], [1 - kept, d])
            last = Stage((0.0, x), (f,), (*(0.0,) * len(before), after))
            return Step((Stage((1.0,), z=before, at=s, field=op.field), last), brownian=marks)

        return Method(write, order, prediction="data", diffusion=True)

    return build


def _sa_solver(order: int):
    def build(
        *, tau: float = 1.0, tau_range: tuple[float, float] | None = None, corrector: bool = True
    ) -> Method:
        """Stochastic Adams, a predictor through `order` nodes and a corrector (Xue et al. 2023).

        du/dlambda = -(1 + tau^2) u + (1 + tau^2) x0_hat, u = x/alpha, its linear part and its noise solved
        exactly; both rows of a step get the same noise. tau(t) is `tau` while sigma/alpha is in tau_range
        (None: always) and 0 elsewhere, and is held from where a step begins: every tau(t) leads to the same
        distribution, so that costs no order. The paper's code for VP has it on for t from 0.2 to 0.8, which
        is tau_range=(0.72, 25).
        """
        if tau_range is not None and not 0 <= tau_range[0] < tau_range[1]:
            raise ArgumentError(f"tau_range = {tau_range}: it is (low, high) in sigma/alpha, low < high")
        low, high = tau_range or (0.0, math.inf)
        base = (predictor_corrector if corrector else adams_bashforth)(order, prediction="data")

        def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
            on = low <= op.variable("sigma", times[n]) <= high
            return base.write(times, n, op.noisy(tau if on else 0.0), evals)

        claimed = min(base.order, 2) if tau else base.order
        return replace(base, write=write, order=claimed, diffusion=tau > 0)

    return build


register("ddim", ddim, kind="stochastic", reference="Song et al. 2021, DDIM", eta=0.0)
register("ddpm", ddim, kind="stochastic", reference="Ho et al. 2020, DDPM", eta=1.0)
register("euler_ancestral", ddim, kind="stochastic", reference="Ho et al. 2020; Crowson 2022", eta=1.0)
register("dpmpp_2s_ancestral", dpmpp_2s_ancestral, kind="stochastic",
         reference="Lu et al. 2022; Crowson 2022")  # fmt: skip
register("dpmpp_sde", dpmpp_sde, kind="stochastic", reference="Lu et al. 2022; Crowson 2022")
register("edm_churn", edm_churn, kind="stochastic", reference="Karras et al. 2022, algorithm 2")
register("reverse_diffusion", _reverse_diffusion(1), kind="stochastic",
         reference="Song et al. 2021, reverse diffusion")  # fmt: skip
register("accelerated_ddpm", _reverse_diffusion(2), kind="stochastic",
         reference="Li et al. 2024, accelerated DDPM")  # fmt: skip
for _k in (1, 2, 3):
    register(f"sa_solver_{_k}", _sa_solver(_k), kind="stochastic",
             reference="Xue et al. 2023, SA-Solver")  # fmt: skip
