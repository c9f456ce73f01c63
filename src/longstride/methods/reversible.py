"""Two-step methods that are undone exactly by running the same rows on the reversed grid."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import Stage, Step, Weight
from ..errors import ArgumentError
from ..operator import Operator, exp, phi
from .base import Method, register


def bdia(*, gamma: float | None = None, prediction: str = "data") -> Method:
    """u_(n+1) = gamma u_(n-1) + (forward step from u_n) - gamma (backward step from u_n).

    Both steps are exponential Euler with the one evaluation F_n, so the row is linear in u_(n-1), u_n and
    F_n and can be solved for u_(n-1): that is the same row on the reversed grid with 1/gamma (Zhang et al.
    2023, BDIA). The order is 2 for gamma = 1 and for the default, gamma_n = e^(-|h_n|), which keeps the
    round-off of an inversion bounded; it is 1 for another constant.
    """
    if gamma is not None and gamma <= 0:
        raise ArgumentError(f"gamma = {gamma}: it must be positive, or going back divides by zero")

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        s, t = times[n], times[n + 1]
        h = op.clock(t) - op.clock(s)
        ahead: Weight = exp(h * op.L)
        push: Weight = h * phi(1, h * op.L)
        if n == 0:
            x, f = op.row(t, [(s, ahead)], [push])
            return Step((Stage((1.0,), at=s, field=op.field), Stage(x, f)), keep_x=(0, -1))
        back = op.clock(times[n - 1]) - op.clock(s)
        # Going back, h < 0 and 1/gamma of the forward step that is undone, whose length was |back|.
        g = gamma_of(h, back)
        x, f = op.row(
            t,
            [(times[n - 1], g), (s, ahead - g * exp(back * op.L))],
            [push - g * back * phi(1, back * op.L)],
        )
        return Step((Stage((0.0, 1.0), at=s, field=op.field), Stage(x, f)), keep_x=(1, -1))

    def gamma_of(h: float, back: float) -> float:
        if gamma is not None:
            return gamma if h > 0 else 1 / gamma
        return float(exp(-abs(h))) if h > 0 else float(exp(abs(back)))

    return Method(write, 2 if gamma in (None, 1.0) else 1, prediction=prediction)


register("bdia", bdia, kind="reversible", reference="Zhang et al. 2023, BDIA")
