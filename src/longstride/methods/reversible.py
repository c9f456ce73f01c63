"""Methods whose rows can be solved for the states they began with (`longstride.reverse`), exactly.

Two ideas. The new state may take the place of the oldest one kept, with all evaluations at states in
between: then going back asks for the same evaluations and the same division by the oldest one's weight.
Or two states may take turns, each moved by an evaluation at the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core import Stage, Step
from ..errors import ArgumentError, positive
from ..frame import FRAMES
from ..operator import Operator, exp
from .adams import exact, weights
from .base import Method, one_of, register


def bidirectional(span: int, gamma: float | None, prediction: str) -> Method:
    """u_(n+1) = gamma u_(n-span) + (Adams step from u_n ahead) - gamma (Adams step from u_n back to there).

    Both steps integrate the polynomial P through F_n, .., F_(n-span+1) exactly. With s, t, r the times n,
    n+1, n-span, h = t - s and H = s - r,

        u_(n+1) = gamma u_r + (e^(hL) - gamma e^(-HL)) u_n
                  + int_s^t e^((t-q)L) P dq - gamma int_s^r e^((r-q)L) P dq

    No evaluation is at u_r, so the row is solved for it. gamma = 0 is exponential Adams of order `span` and
    forgets u_r. The order is `span` for constant gamma < 1. At gamma = 1 the formula is symmetric about the
    middle of its nodes, so the order is even: span + 1 for odd spans. So it is for the default,
    gamma = e^(-|lambda_s - lambda_r|), which tends to 1. No stable explicit formula of k steps that is
    symmetric has an order above k, nor an odd one: 2 with one evaluation, 4 with three.

    The default keeps round-off bounded. In data prediction the row is e^(-H) u_r + (e^(-h) - 1) u_n + ..: all
    weights of states stay below 1 forward. Backward they are e^H times these, which is how much u = x/alpha
    itself grows between s and r. With span 1, equal steps and F = J u the zeros are those of

        z^2 - (1 - e^(-h)) (2 J - 1) z - e^(-h),     close to e^((J-1) h) and -e^(-J h)

    The first is the solution. For J from 0 to 1, where a posterior mean of log-concave data has its slopes,
    the second stays within 1 forward, and backward its inverse below e^h, the growth of sigma/alpha.
    A constant gamma divides by itself every step instead. (At a beginning in pure noise H is infinite, and
    span h is taken.)
    """
    if gamma is not None:
        gamma = positive("gamma", gamma)  # at 0, going back divides by it
    one_of("prediction", prediction, FRAMES)

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t, back = times[n], times[n + 1], min(n, span)
        nodes = [times[n - j] for j in range(max(back, 1))]
        states, row = [(s, exp((op.clock(t) - op.clock(s)) * op.L))], weights(op, s, t, nodes, exact)
        if back:
            r = times[n - back]
            lambda_r, lambda_s, lambda_t = (op.variable("lambda", u) for u in (r, s, t))
            gap = lambda_s - lambda_r if math.isfinite(lambda_r) else back * (lambda_t - lambda_s)
            g = gamma or exp(-abs(gap))
            row = [w - g * v for w, v in zip(row, weights(op, s, r, nodes, exact), strict=True)]
            behind = exp((op.clock(r) - op.clock(s)) * op.L)
            states = [(r, g), *((u, 0.0) for u in nodes[:0:-1]), (s, states[0][1] - g * behind)]
        x, f = op.row(t, states, row[::-1])
        here = (0.0,) * back + (1.0,)
        return Step(
            (Stage(here, at=s, field=op.field), Stage(x, f)),
            keep_x=(*range(back + 1 - min(n + 1, span), back + 1), -1),
            keep_f=tuple(range(-min(n + 1, span - 1), 0)),
        )

    constant = gamma is not None and gamma != 1
    return Method(write, span if constant or span % 2 == 0 else span + 1, prediction=prediction)


def bdia(*, gamma: float | None = None, prediction: str = "data") -> Method:
    """One evaluation in the row: exponential Euler ahead and back (Zhang et al. 2023)."""
    return bidirectional(1, gamma, prediction)


def _rev_adams(span: int):
    def build(*, gamma: float | None = None, prediction: str = "data") -> Method:
        return bidirectional(span, gamma, prediction)

    return build


def edict(*, p: float = 0.93, prediction: str = "velocity") -> Method:
    """Two states, each moved by exponential Euler with an evaluation at the other, then mixed.

        x' = e^(hL) x + h phi_1 F(s, y)        x_t = p x' + (1 - p) y'
        y' = e^(hL) y + h phi_1 F(s, x')       y_t = p y' + (1 - p) x_t

    and the two change parts after every step (Wallace et al. 2023). Backward, the mixing is undone by two
    divisions by p and each move by an evaluation at a state that is known. Order 1, since x', which is of
    time t, is evaluated at s. As published it predicts the noise, which x' has less of than s says: the
    mistake is of the size of sigma and outgrows the samples until steps in lambda are far below 0.1. The
    velocity, the default here, suffers little. Mixing shrinks the difference of the two by p^2 a step
    and going back widens it by as much. What is left of an odd budget moves x alone.
    """
    if not 0 < p <= 1:
        raise ArgumentError(f"p = {p}: it is above 0 and at most 1, which does not mix")
    one_of("prediction", prediction, FRAMES)

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        ahead, (push,) = exp((op.clock(t) - op.clock(s)) * op.L), weights(op, s, t, [s], exact)
        copy = (Stage((1.0,)),) if n == 0 else ()
        moved_x, f = op.row(t, [(s, 0.0), (s, ahead)], [push])
        moved_y, _ = op.row(t, [(s, ahead)], [])
        look = Stage((1.0,), at=s, field=op.field)
        if evals == 1:
            return Step((*copy, look, Stage(moved_x, f)), keep_x=(0, -1))
        stages = (
            look,
            Stage(moved_x, f, at=s, field=op.field),
            Stage(moved_y, (0.0, *f)),
            Stage((0.0, 0.0, 0.0, p, 1 - p)),
            Stage((0.0, 0.0, 0.0, 0.0, p, 1 - p)),
        )
        return Step((*copy, *stages), keep_x=(-2, -1))

    return Method(write, 1, (2, 1), prediction=prediction)


register("bdia", bdia, kind="reversible", reference="Zhang et al. 2023, BDIA")
for _k in (2, 3):
    register(
        f"rev_adams_{_k}", _rev_adams(_k), kind="reversible", reference="BDIA with the last k evaluations"
    )
register("edict", edict, kind="reversible", reference="Wallace et al. 2023, EDICT")
