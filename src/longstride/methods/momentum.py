"""Multistep methods with heavy-ball momentum, and one that interpolates in another variable."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core import Stage, Step, Weight
from ..errors import ArgumentError
from ..operator import Operator
from .adams import LINEAR, exact, weights, window
from .base import Method, one_of, register


def heavy_ball(order: int, beta: float, generalised: bool, prediction: str | None) -> Method:
    """Adams-Bashforth along the running mean v_(n+1) = (1 - beta) v_n + beta F_n, without keeping v.

    With g = (1 - beta) h_n/h_(n-1), x_(n+1) - x_n = h sum_j b_j v_(n+1-j) less g times the step before is

        x_(n+1) = x_n + g (x_n - x_(n-1)) + beta sum_j W_j F_(n-j)

    for Adams weights W (HB): a mean lags behind by (1 - beta)/beta steps, so the order is 1 unless beta = 1,
    and the stable interval of two steps grows from 1 to (2 - beta)/beta. Asking that polynomials of degree
    < order stay exact replaces beta W by W - g W', W' the weights over the step before from the same
    evaluations (GHVB): order `order` for every beta in (0, 1], tending to that of one order less as beta
    goes to 0 (Wizadwongsa et al. 2024). The paper has the coefficients of equal steps, these are
    those of the steps taken. The first step has v = F_0.
    """
    one_of("prediction", prediction, LINEAR)
    if not 0 < beta <= 1:
        raise ArgumentError(f"beta = {beta}: it is above 0 and at most 1, which is no momentum")

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        nodes = window(times, n, order)
        row: list[Weight] = weights(op, s, t, nodes, exact)
        states: list[tuple[float, Weight]] = [(s, 1.0)]
        if n:
            r = times[n - 1]
            g = (1 - beta) * (op.clock(t) - op.clock(s)) / (op.clock(s) - op.clock(r))
            states = [(r, -g), (s, 1 + g)]
            if generalised:
                before = weights(op, r, s, nodes, exact)
                row = [w - g * v for w, v in zip(row, before, strict=True)]
            else:
                row = [beta * w for w in row]
        x, f = op.row(t, states, row[::-1])
        here = (0.0,) * (len(states) - 1) + (1.0,)
        return Step(
            (Stage(here, at=s, field=op.field), Stage(x, f)),
            keep_x=(len(states) - 1, -1),
            keep_f=tuple(range(-min(order - 1, n + 1), 0)),
        )

    claimed = order if generalised or beta == 1 else 1
    return Method(write, claimed, prediction=prediction, exponential=False)


def _hb(order: int):
    def build(*, beta: float = 0.8, prediction: str | None = None) -> Method:
        return heavy_ball(order, beta, False, prediction)

    return build


def ghvb(*, order: float = 1.8, prediction: str | None = None) -> Method:
    """order = k - 1 + beta, as the paper counts: 1.8 is k = 2 with beta = 0.8. The true order is k."""
    if not 0 < order <= 4:
        raise ArgumentError(f"order = {order}: it is above 0 and at most 4")
    k = math.ceil(order)
    return heavy_ball(k, order - k + 1, True, prediction)


def accelerated_ddim() -> Method:
    """DDIM plus the slope of the last two noise predictions in alpha_bar = 1/(1 + rho^2).

    With u = x/alpha, du = eps d(rho), rho = sigma/alpha, eps a line in a = alpha_bar:

        u_t = u_s + (rho_t - rho_s) eps_s + D (eps_s - eps_r)/(a_s - a_r)
        D = int (a - a_s) d(rho) = atan(rho_t) - atan(rho_s) - a_s (rho_t - rho_s)

    One evaluation a step and order 2 (Li et al. 2024, the form its experiments run; its theorem is on two
    evaluations a step of the same expansion). Any process is variance preserving after a scaling of x.
    """

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        rho_s, rho_t = op.clock(s), op.clock(t)
        row: list[Weight] = [rho_t - rho_s]
        if n:
            a_s, a_r = (1 / (1 + op.clock(u) ** 2) for u in (s, times[n - 1]))
            area = math.atan(rho_t) - math.atan(rho_s) - a_s * (rho_t - rho_s)
            slope = area / (a_s - a_r)
            row = [-slope, rho_t - rho_s + slope]
        x, f = op.row(t, [(s, 1.0)], row)
        return Step((Stage((1.0,), at=s, field=op.field), Stage(x, f)), keep_f=(-1,))

    return Method(write, 2, prediction="sigma", exponential=False, diffusion=True)


for _k in (1, 2, 3, 4):
    register(f"hb_ab_{_k}", _hb(_k), kind="Adams", reference="Wizadwongsa et al. 2024, HB")
register("ghvb", ghvb, kind="Adams", reference="Wizadwongsa et al. 2024, GHVB")
register("accelerated_ddim", accelerated_ddim, kind="Adams", reference="Li et al. 2024, accelerated DDIM")
