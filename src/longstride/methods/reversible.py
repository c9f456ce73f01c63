"""Two-step methods whose rows can be solved for the older state, which undoes them exactly."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import Stage, Step, Weight
from ..errors import positive
from ..operator import Operator, exp, phi
from .base import Method, register


def bdia(*, gamma: float | None = None, prediction: str = "data") -> Method:
    """u_(n+1) = gamma u_(n-1) + (forward step from u_n) - gamma (backward step from u_n).

    Both steps are exponential Euler with the one evaluation F_n, so the row is linear in u_(n-1), u_n and
    F_n and can be solved for u_(n-1), which undoes the step (Zhang et al. 2023, BDIA). The order is 2 for
    gamma = 1 and for the default, gamma_n = e^(-|h_n|), which keeps the round-off of an inversion bounded;
    it is 1 for another constant.
    """
    if gamma is not None:
        gamma = positive("gamma", gamma)  # at 0, going back divides by it

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        h = op.clock(t) - op.clock(s)
        ahead: Weight = exp(h * op.L)
        push: Weight = h * phi(1, h * op.L)
        if n == 0:
            x, f = op.row(t, [(s, ahead)], [push])
            return Step((Stage((1.0,), at=s, field=op.field), Stage(x, f)), keep_x=(0, -1))
        back = op.clock(times[n - 1]) - op.clock(s)
        g = float(exp(-abs(h))) if gamma is None else gamma
        x, f = op.row(
            t,
            [(times[n - 1], g), (s, ahead - g * exp(back * op.L))],
            [push - g * back * phi(1, back * op.L)],
        )
        return Step((Stage((0.0, 1.0), at=s, field=op.field), Stage(x, f)), keep_x=(1, -1))

    return Method(write, 2 if gamma in (None, 1.0) else 1, prediction=prediction)


register("bdia", bdia, kind="reversible", reference="Zhang et al. 2023, BDIA")
