"""Pseudo linear multistep methods: Adams with the coefficients of equal steps, after a Runge-Kutta start."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import Stage, Step
from ..operator import Operator
from .adams import LINEAR, UNIFORM, adams_bashforth
from .base import Method, one_of, register
from .runge_kutta import AT_ZERO, HEUN, RK4, Entry, Tableau, entry


def pseudo_linear(order: int, tableau: Tableau, steps: int):
    """Adams-Bashforth of this order, whose first `steps` steps are taken with a tableau instead.

    Every row is a DDIM transfer phi(x_s, e', s, t): u_t = u_s + (rho_t - rho_s) e' with u = x/alpha and
    rho = sigma/alpha, along a mean e' of noise predictions (Liu et al. 2022). "Pseudo" is that the mean
    is the classical one though neither the steps nor the stages stand evenly in rho: the middle stages are
    at the middle of t. That leaves an error of order h^3 a step, so the order is 2, however many evaluations
    are behind e'. A budget that cannot pay the start is spent as iPNDM spends it, on Adams steps of the
    order their history allows.
    """

    def build(*, prediction: str | None = None) -> Method:
        one_of("prediction", prediction, LINEAR)
        adams = adams_bashforth(order, prediction=prediction, fixed=UNIFORM)
        cost = len(tableau.c)

        def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
            if evals < cost:
                return adams.step(times, n, op)
            s, t = times[n], times[n + 1]
            held = min(order - 1, n)

            def transfer(at: float, row: Sequence[Entry]) -> tuple:
                h, mean = op.clock(at) - op.clock(s), [float(entry(e, AT_ZERO)) for e in row]
                return op.row(at, [(s, 1.0)], [*[0.0] * held, *(h * w / sum(mean) for w in mean)])

            stages = []
            for c, row in zip(tableau.c, tableau.a, strict=True):
                at = t if c == 1 else s + c * (t - s)
                x, f = transfer(at, row)
                stages.append(Stage(x, f, at=at, field=op.field))
            x, f = transfer(t, tableau.b)
            # Only the first evaluation stands on the trajectory, and only it is remembered.
            kept = min(order - 1, n + 1)
            return Step((*stages, Stage(x, f)), keep_f=tuple(range(1 - cost - kept, 1 - cost)))

        return Method(write, 2, start=(cost,) * steps, prediction=prediction, exponential=False)

    return build


for _name, _build, _reference in (
    ("pndm", pseudo_linear(4, RK4, 3), "F-PNDM"),
    ("f_pndm", pseudo_linear(4, RK4, 3), "F-PNDM"),
    ("s_pndm", pseudo_linear(2, HEUN, 1), "S-PNDM"),
    ("plms", pseudo_linear(4, HEUN, 1), "PLMS"),
):
    register(_name, _build, kind="Adams", reference=f"Liu et al. 2022, {_reference}")
