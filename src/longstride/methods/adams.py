"""Multistep methods: exponential Adams-Bashforth, and with a Moulton corrector.

The step integrates e^((t - tau) L) times the polynomial through the last evaluations exactly. With nodes
c_j = (tau_j - tau_s)/h the weights W solve

    sum_j W_j c_j^i = mu_i,    mu_i = int_0^1 e^((1-r) h L) r^i dr = i! phi_(i+1)(h L)

At L = 0 this is variable-step Adams. Some published samplers replace a moment by a simpler function that
agrees to the order claimed; `moments` is where they say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..core import Stage, Step, Weight
from ..errors import ArgumentError
from ..operator import Operator, exp, phi, phis
from .base import Method, one_of, register
from .exponential import ETDRK2, ETDRK3, KROGSTAD
from .runge_kutta import started

Moments = Callable[[int, Weight], list[Weight]]

GAUSS_X, GAUSS_W = np.polynomial.legendre.leggauss(48)
UNIFORM = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12),
           4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}  # fmt: skip


def exact(m: int, z: Weight) -> list[Weight]:
    """The first m moments, mu_i = i! phi_(i+1)(z)."""
    return [math.factorial(i) * one for i, one in enumerate(phis(z, m)[1:])]


def halved(m: int, z: Weight) -> list[Weight]:
    """DPM-Solver++: phi_1/2 for the first moment of two nodes, phi_3 for the second of three.

    The first agrees with phi_2 to O(h) and keeps order 2; the second is half of what it should be, so the
    three-node method is of order 2 and not 3.
    """
    if m == 2:
        return [phi(1, z), phi(1, z) / 2]
    return phis(z, 3)[1:] if m == 3 else exact(m, z)


def unipc_moments(variant: str) -> Moments:
    """UniPC with two nodes puts B(h)/(2h) for the first moment: B = h ("bh1") or h phi_1 ("bh2")."""

    def moments(m: int, z: Weight) -> list[Weight]:
        if m != 2:
            return exact(m, z)
        return [phi(1, z), 0.5 if variant == "bh1" else phi(1, z) / 2]

    return moments


def _interpolated(op: Operator, s: float, t: float, m: int, name: str) -> list[Weight]:
    """The first m moments in another variable than the clock, by Gauss quadrature over the clock."""
    y_s, start = op.variable(name, s), op.clock(s)
    width, h = op.variable(name, t) - y_s, op.clock(t) - start
    r = [(float(u) + 1) / 2 for u in GAUSS_X]
    y = [(op.variable(name, op.time(start + h * u)) - y_s) / width for u in r]
    kernel = [float(w) / 2 * exp((1 - u) * h * op.L) for u, w in zip(r, GAUSS_W, strict=True)]
    return [sum((k * v**i for k, v in zip(kernel, y, strict=True)), 0.0) for i in range(m)]


def vandermonde(c: Sequence[float]) -> np.ndarray:
    return np.vander(np.array(c), increasing=True).T


def weights(
    op: Operator,
    s: float,
    t: float,
    nodes: Sequence[float],
    moments: Moments,
    variable: str | None = None,
) -> list[Weight]:
    """Weights, in units of u, of the evaluations at times `nodes` in the step from s to t."""
    h = op.clock(t) - op.clock(s)
    if variable is None:
        y, mu = [op.clock(u) for u in (s, t, *nodes)], moments(len(nodes), h * op.L)
    else:
        y = [op.variable(variable, u) for u in (s, t, *nodes)]
        mu = _interpolated(op, s, t, len(nodes), variable)
    c = [(v - y[0]) / (y[1] - y[0]) for v in y[2:]]
    inverse = np.linalg.inv(vandermonde(c))
    return [h * sum((float(a) * m for a, m in zip(row, mu, strict=True)), 0.0) for row in inverse]


def window(times: Sequence[float], n: int, order: int, lower_order_final: bool = False) -> list[float]:
    """Times of the evaluations used by step n, newest first: what history and the end allow."""
    size = min(order, n + 1, len(times) - 1 - n if lower_order_final else order)
    return [times[n - j] for j in range(size)]


def adams_bashforth(
    order: int,
    moments: Moments = exact,
    prediction: str | None = None,
    variable: str | None = None,
    lower_order_final: bool = False,
    eta: float = 0.0,
    fixed: dict[int, tuple[float, ...]] | None = None,
    claimed: int | None = None,
) -> Method:
    """One evaluation a step; the polynomial through the last `order` of them.

    variable: what the polynomial is in, the clock by default.  fixed: coefficients, newest first, that do
    not ask how long the steps are.  claimed: the true order, where it is not `order`.
    """

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        h = op.clock(t) - op.clock(s)
        nodes = window(times, n, order, lower_order_final)
        if variable is not None:
            # From pure noise lambda and sigma/alpha are infinite: nothing is interpolated through there.
            nodes = [u for u in nodes if math.isfinite(op.variable(variable, u))] or [s]
        if fixed:
            new_first: list[Weight] = [h * w for w in fixed[len(nodes)]]
        else:
            new_first = weights(op, s, t, nodes, moments, variable if len(nodes) > 1 else None)
        held = min(order - 1, n)
        row = [0.0] * (held + 1 - len(nodes)) + new_first[::-1]
        x, f = op.row(t, [(s, exp(h * op.L))], row)
        z, brownian = op.noise(s, t)
        return Step(
            (Stage((1.0,), at=s, field=op.field), Stage(x, f, (z,) if z else ())),
            keep_f=tuple(range(-min(order - 1, n + 1), 0)),
            brownian=brownian,
        )

    return Method(
        write,
        claimed or order,
        prediction=prediction,
        eta=eta,
        exponential=prediction in ("data", "noise"),
        diffusion=eta > 0,
    )


def predictor_corrector(
    order: int,
    moments: Moments = exact,
    prediction: str | None = None,
    lower_order_final: bool = False,
) -> Method:
    """Predict with Adams-Bashforth, evaluate at the end, correct with Adams-Moulton; the evaluation stays.

    One evaluation a step after the first: the corrected state is not evaluated again. The corrector passes
    through one node more, so the order is that of the predictor plus one.
    """

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        decay = [(s, exp((op.clock(t) - op.clock(s)) * op.L))]
        nodes = window(times, n, order, lower_order_final)
        predict = weights(op, s, t, nodes, moments)
        correct = weights(op, s, t, [t, *nodes], moments)
        held = min(order - 1, n) + 1  # evaluations known before the prediction, the one at s included
        pad = [0.0] * (held - len(nodes))
        x, f = op.row(t, decay, pad + predict[::-1])
        x_c, f_c = op.row(t, decay, pad + correct[:0:-1] + correct[:1])
        first = (Stage((1.0,), at=s, field=op.field),) if n == 0 else ()
        w, brownian = op.noise(s, t)
        z = (w,) if w else ()
        return Step(
            (*first, Stage(x, f, z, at=t, field=op.field), Stage(x_c, f_c, z)),
            keep_f=tuple(range(-min(order, n + 2), 0)),
            brownian=brownian,
        )

    return Method(write, order + 1, prediction=prediction, exponential=prediction in ("data", "noise"))


def _dpm_multistep(order: int, prediction: str):
    def build(*, eta: float = 0.0, lower_order_final: bool = False) -> Method:
        return adams_bashforth(order, halved, prediction, None, lower_order_final, eta, claimed=2)

    return build


def _exp_adams(order: int):
    def build(
        *,
        prediction: str = "data",
        interpolate: str | None = None,
        eta: float = 0.0,
        lower_order_final: bool = False,
    ) -> Method:
        one_of("interpolate", interpolate, (None, "lambda", "sigma", "t"))
        clock = "lambda" if prediction in ("data", "noise") else prediction
        variable = None if interpolate == clock else interpolate
        if eta and prediction not in ("data", "noise"):
            raise ArgumentError(f"eta = {eta} needs prediction data or noise, not {prediction}")
        claimed = min(order, 2) if eta else order
        return adams_bashforth(order, exact, prediction, variable, lower_order_final, eta, claimed=claimed)

    return build


def _etd(order: int):
    """Exponential Adams of full order from the first step on: Cox and Matthews' ETD of this many steps."""
    start = {2: ETDRK2, 3: ETDRK3, 4: KROGSTAD}[order]

    def build(*, prediction: str = "data") -> Method:
        one_of("prediction", prediction, ("data", "noise"))
        return started(adams_bashforth(order, exact, prediction), start)

    return build


def _deis(order: int):
    def build(*, interpolate: str | None = None, lower_order_final: bool = False) -> Method:
        return _exp_adams(order)(
            prediction="noise", interpolate=interpolate, lower_order_final=lower_order_final
        )

    return build


LINEAR = (None, "sigma", "velocity", "v")  # frames with L = 0; None is the process's own


def _lms(order: int):
    def build(*, prediction: str | None = None) -> Method:
        one_of("prediction", prediction, LINEAR)
        return adams_bashforth(order, prediction=prediction)

    return build


def _ipndm(order: int):
    def build(*, prediction: str | None = None) -> Method:
        one_of("prediction", prediction, LINEAR)
        return adams_bashforth(order, prediction=prediction, fixed=UNIFORM, claimed=min(order, 2))

    return build


def gradient_estimation(*, gamma: float = 2.0, prediction: str | None = None) -> Method:
    """Euler along gamma F_n + (1 - gamma) F_(n-1): the evaluation extrapolated towards data.

    gamma = 3/2 is ipndm_2 and of order 2; any other is of order 1 and, at few steps, often better
    (Permenter and Yuan 2024, algorithm 1, which found 2 best).
    """
    one_of("prediction", prediction, LINEAR)
    coefficients = {1: (1.0,), 2: (gamma, 1 - gamma)}
    return adams_bashforth(2, prediction=prediction, fixed=coefficients, claimed=2 if gamma == 1.5 else 1)


def _unipc(order: int):
    def build(*, variant: str = "bh2", prediction: str = "data", lower_order_final: bool = True) -> Method:
        one_of("variant", variant, ("bh1", "bh2"))
        one_of("prediction", prediction, ("data", "noise"))
        return predictor_corrector(order, unipc_moments(variant), prediction, lower_order_final)

    return build


def _abm(order: int):
    def build(*, prediction: str | None = None) -> Method:
        one_of("prediction", prediction, LINEAR)
        return predictor_corrector(order, prediction=prediction)

    return build


for _k in (1, 2, 3, 4):
    register(
        f"exp_adams_{_k}",
        _exp_adams(_k),
        kind="exponential Adams",
        reference="Hochbruck and Ostermann 2011",
    )
    for _name, _variable, _paper in (
        ("deis", "lambda", "DEIS"),
        ("deis_tab", "t", "tAB-DEIS"),
        ("deis_rhoab", "sigma", "rhoAB-DEIS"),
    ):
        register(
            f"{_name}_{_k}",
            _deis(_k),
            kind="exponential Adams",
            reference=f"Zhang and Chen 2023, {_paper}",
            interpolate=_variable,
        )
    register(f"ab_{_k}", _lms(_k), kind="Adams", reference="Bashforth and Adams 1883")
    register(f"lms_{_k}", _lms(_k), kind="Adams", reference="Bashforth and Adams 1883; Crowson 2022")
    register(
        f"ipndm_{_k}",
        _ipndm(_k),
        kind="Adams",
        reference="Liu et al. 2022; Zhang and Chen 2023, iPNDM",
    )
    register(f"abm_{_k}", _abm(_k), kind="predictor-corrector", reference="Moulton 1926")
for _k in (2, 3, 4):
    register(f"etd_{_k}", _etd(_k), kind="exponential Adams", reference="Cox and Matthews 2002")
for _k in (1, 2, 3, 4, 5, 6):
    register(f"unipc_{_k}", _unipc(_k), kind="predictor-corrector",
             reference="Zhao et al. 2023, UniPC")  # fmt: skip
for _k in (2, 3):
    for _name, _prediction, _eta, _kind, _paper in (
        ("dpm_{}m", "noise", 0.0, "exponential Adams", "Lu et al. 2022, DPM-Solver"),
        ("dpmpp_{}m", "data", 0.0, "exponential Adams", "Lu et al. 2022, DPM-Solver++"),
        ("dpmpp_{}m_sde", "data", 1.0, "stochastic", "Lu et al. 2022, SDE-DPM-Solver++"),
    ):
        register(
            _name.format(_k),
            _dpm_multistep(_k, _prediction),
            kind=_kind,
            reference=f"{_paper}({_k}M)",
            eta=_eta,
        )
register("gradient_estimation", gradient_estimation, kind="Adams", reference="Permenter and Yuan 2024")
