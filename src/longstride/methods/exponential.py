"""Exponential Runge-Kutta tableaus of orders 1 to 4; on a diffusion, the singlestep DPM-Solvers.

And integrating factors: a classical tableau on v = e^(-t L) u, which is a table of exponentials of u.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import Method, register
from .runge_kutta import EULER, KUTTA_3, MIDPOINT, RK4, Entry, Tableau, Term, runge_kutta

PHI1: tuple[Term, ...] = ((1, 1.0, 1.0),)
HALF: tuple[Term, ...] = ((1, 0.5, 0.5),)  # the way to the midpoint: 1/2 phi_1(z/2)

EXP_EULER = Tableau(1, (0.0,), ((),), (PHI1,))

# DPM-Solver-2 and DPM-Solver++(2S) with r = 1/2: the evaluation at the middle of lambda, held still.
EXP_MIDPOINT = Tableau(2, (0.0, 0.5), ((), (HALF,)), (0.0, PHI1))

# Cox and Matthews 2002, ETD2RK: a line through the evaluations at both ends.
ETDRK2 = Tableau(2, (0.0, 1.0), ((), (PHI1,)), (((1, 1.0, 1.0), (2, 1.0, -1.0)), ((2, 1.0, 1.0),)))

# Lu et al. 2022, DPM-Solver-3, r1 = 1/3 and r2 = 2/3.
DPM_3 = Tableau(
    3,
    (0.0, 1 / 3, 2 / 3),
    (
        (),
        (((1, 1 / 3, 1 / 3),),),
        (((1, 2 / 3, 2 / 3), (2, 2 / 3, -4 / 3)), ((2, 2 / 3, 4 / 3),)),
    ),
    (((1, 1.0, 1.0), (2, 1.0, -3 / 2)), 0.0, ((2, 1.0, 3 / 2),)),
)

_B1: tuple[Term, ...] = ((1, 1.0, 1.0), (2, 1.0, -3.0), (3, 1.0, 4.0))
_B4: tuple[Term, ...] = ((2, 1.0, -1.0), (3, 1.0, 4.0))
_B23: tuple[Term, ...] = ((2, 1.0, 2.0), (3, 1.0, -4.0))

# Cox and Matthews 2002, ETD3RK and ETD4RK; phi_1(z/2) (e^(z/2) - 1)/2 there is phi_1(z) - phi_1(z/2).
ETDRK3 = Tableau(
    3,
    (0.0, 0.5, 1.0),
    ((), (HALF,), (((1, 1.0, -1.0),), ((1, 1.0, 2.0),))),
    (_B1, ((2, 1.0, 4.0), (3, 1.0, -8.0)), _B4),
)
ETDRK4 = Tableau(
    4,
    (0.0, 0.5, 0.5, 1.0),
    ((), (HALF,), (0.0, HALF), (((1, 1.0, 1.0), (1, 0.5, -1.0)), 0.0, ((1, 0.5, 1.0),))),
    (_B1, _B23, _B23, _B4),
)

# Krogstad 2005, ETDRK4-B.
KROGSTAD = Tableau(
    4,
    (0.0, 0.5, 0.5, 1.0),
    (
        (),
        (HALF,),
        (((1, 0.5, 0.5), (2, 0.5, -1.0)), ((2, 0.5, 1.0),)),
        (((1, 1.0, 1.0), (2, 1.0, -2.0)), 0.0, ((2, 1.0, 2.0),)),
    ),
    (_B1, _B23, _B23, _B4),
)

# Hochbruck and Ostermann 2005, eq. 5.19: order 4 without stiff order reduction.
_A52: tuple[Term, ...] = ((2, 0.5, 0.5), (3, 1.0, -1.0), (2, 1.0, 0.25), (3, 0.5, -0.5))


def _times(w: float, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple((k, c, w * v) for k, c, v in terms)


_A54 = ((2, 0.5, 0.25), *_times(-1.0, _A52))
HOCHBRUCK_OSTERMANN = Tableau(
    4,
    (0.0, 0.5, 0.5, 1.0, 0.5),
    (
        (),
        (HALF,),
        (((1, 0.5, 0.5), (2, 0.5, -1.0)), ((2, 0.5, 1.0),)),
        (((1, 1.0, 1.0), (2, 1.0, -2.0)), ((2, 1.0, 1.0),), ((2, 1.0, 1.0),)),
        ((*HALF, *_times(-2.0, _A52), *_times(-1.0, _A54)), _A52, _A52, _A54),
    ),
    (_B1, 0.0, 0.0, _B4, ((2, 1.0, 4.0), (3, 1.0, -8.0))),
)


def lawson(classical: Tableau) -> Tableau:
    """a_ij e^((c_i - c_j) z): exact where F is 0, not where it is constant (Lawson 1967).

    A solution that L draws to a slow F/L is followed with errors of h L, so it is for oscillations rather
    than for decay.
    """
    a = zip((*classical.c, 1.0), (*classical.a, classical.b), strict=True)
    rows = [
        tuple(
            ((0, c - d, w),) if isinstance(w, float) and w else 0.0
            for w, d in zip(row, classical.c, strict=False)
        )
        for c, row in a
    ]
    return Tableau(classical.order, classical.c, tuple(rows[:-1]), rows[-1])


def _builder(default: str | None, *tableaus: Tableau):
    def build(*, prediction: str | None = default) -> Method:
        return runge_kutta(*tableaus, prediction=prediction)

    return build


for _name, _default, _tableaus, _reference in (
    ("dpm_2", "noise", (EXP_MIDPOINT, EXP_EULER), "Lu et al. 2022, DPM-Solver-2"),
    ("dpm_3", "noise", (DPM_3, EXP_MIDPOINT, EXP_EULER), "Lu et al. 2022, DPM-Solver-3"),
    ("dpmpp_2s", "data", (EXP_MIDPOINT, EXP_EULER), "Lu et al. 2022, DPM-Solver++(2S)"),
    ("dpmpp_3s", "data", (DPM_3, EXP_MIDPOINT, EXP_EULER), "Lu et al. 2022, DPM-Solver++(3S)"),
    ("exp_euler", "data", (EXP_EULER,), "Hochbruck and Ostermann 2010"),
    ("etdrk2", "data", (ETDRK2, EXP_EULER), "Cox and Matthews 2002"),
    ("etdrk3", "data", (ETDRK3, ETDRK2, EXP_EULER), "Cox and Matthews 2002"),
    ("etdrk4", "data", (ETDRK4, ETDRK3, ETDRK2, EXP_EULER), "Cox and Matthews 2002"),
    ("krogstad", "data", (KROGSTAD, ETDRK3, ETDRK2, EXP_EULER), "Krogstad 2005"),
    (
        "hochbruck_ostermann",
        "data",
        (HOCHBRUCK_OSTERMANN, KROGSTAD, ETDRK3, ETDRK2, EXP_EULER),
        "Hochbruck and Ostermann 2005",
    ),
    ("ifrk4", None, tuple(map(lawson, (RK4, KUTTA_3, MIDPOINT, EULER))), "Lawson 1967"),
):
    register(
        _name,
        _builder(_default, *_tableaus),
        kind="exponential Runge-Kutta" if _default else "integrating factor",
        reference=_reference,
        prediction=_default,
    )


@dataclass(frozen=True)
class ExponentialPair:
    """A tableau, and what it disagrees with: h sum_j error_j F_j, the last F_j being that at the end.

    All here have b_4 h (F_4 - F(x1)) for an estimate: in the embedded method, of order 3, the stage at c = 1
    is the end itself, which is the first evaluation of the next step (first same as last, as in Whalen, Brio
    and Moloney 2015). It falls with h^shrinks.
    """

    tableau: Tableau
    error: tuple[Entry, ...]
    shrinks: int
    reference: str


_MINUS_B4 = _times(-1.0, _B4)
EXPONENTIAL_PAIRS = {
    "krogstad43": ExponentialPair(KROGSTAD, (0.0, 0.0, 0.0, _B4, _MINUS_B4), 4, "Krogstad 2005; "
                                  "Whalen, Brio and Moloney 2015"),
    "hochbruck_ostermann43": ExponentialPair(
        HOCHBRUCK_OSTERMANN, (0.0, 0.0, 0.0, _B4, 0.0, _MINUS_B4), 4, "Hochbruck and Ostermann 2005"
    ),
}  # fmt: skip
