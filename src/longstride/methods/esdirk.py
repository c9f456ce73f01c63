"""Diagonally implicit Runge-Kutta methods with an explicit first stage, alone or beside an explicit one.

    z_i = h f(t + c_i h, x + sum_{j<=i} a_ij z_j),     x1 = x + sum_i b_i z_i;     a_11 = 0, a_ii = gamma.

All here are stiffly accurate, b the last row of a: x1 is the last stage's point and z_s is h f there.
Additive ones (IMEX) have a second, explicit table on the same c with the same b, for what is not stiff.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ArgumentError
from .embedded import Rows, padded


@dataclass(frozen=True)
class Esdirk:
    """a: rows of all stages, the last being b; error: b - b_hat; explicit: rows of that table, or none.

    shrinks: the power of h that the estimate goes down with.  filtered: whether the estimate is solved with
    I - h gamma J, so that it does not see stiff parts that have long decayed (Hosea and Shampine 1996).
    """

    order: int
    a: Rows
    error: tuple[float, ...]
    shrinks: int
    explicit: Rows = ()
    filtered: bool = False
    reference: str = ""

    def __post_init__(self) -> None:
        if self.a[0] or {row[-1] for row in self.a[1:]} != {self.gamma}:
            raise ArgumentError("the first stage is explicit, the others have one gamma on the diagonal")
        if abs(sum(self.error)) > 1e-12 or len(self.error) != len(self.a):
            raise ArgumentError(f"error weights sum to 0, one of each stage: {self.error}")
        for c, row in zip(self.c, self.explicit, strict=bool(self.explicit)):
            if abs(sum(row) - c) > 1e-12:
                raise ArgumentError(f"the explicit row at c = {c} does not sum to c: {row}")

    @property
    def gamma(self) -> float:
        return self.a[1][-1]

    @property
    def b(self) -> tuple[float, ...]:
        return self.a[-1]

    @property
    def c(self) -> tuple[float, ...]:
        return tuple(sum(row) for row in self.a)

    def guess(self, i: int) -> tuple[float, ...]:
        """Weights of z_1 .. z_(i-1) that extrapolate to c_i, through at most three that lie apart."""
        c, weights, known = self.c, [0.0] * i, list[int]()
        for j in sorted(range(i), key=lambda j: (abs(self.c[j] - self.c[i]), -j)):
            if all(abs(c[j] - c[k]) > 1e-9 for k in known):
                known.append(j)
        known = known[:3]
        for j in known:
            weights[j] = math.prod((c[i] - c[k]) / (c[j] - c[k]) for k in known if k != j)
        return tuple(weights)


def minus(b: tuple[float, ...], hat: tuple[float, ...]) -> tuple[float, ...]:
    """b - hat, hat being 0 where it ends."""
    return tuple(w - v for w, v in zip(b, padded(hat, len(b)), strict=True))


def _tr_bdf2() -> Esdirk:
    """Trapezoidal rule to c = 2 - sqrt 2, then BDF2; the embedded method of order 3 has the same stages."""
    gamma, w = 1 - math.sqrt(2) / 2, math.sqrt(2) / 4
    b = (w, w, gamma)
    hat = ((1 - w) / 3, (3 * w + 1) / 3, gamma / 3)
    return Esdirk(
        2, ((), (gamma, gamma), b), minus(b, hat), 3, filtered=True, reference="Hosea and Shampine 1996"
    )


def _kvaerno3() -> Esdirk:
    """gamma: the root of gamma^3 - 3 gamma^2 + 3/2 gamma = 1/6 that is L-stable; the orders give the rows."""
    gamma = 0.43586652150845967
    c2 = 2 * gamma
    low = (0.5 - gamma) / c2  # order 2 of the third stage, that is the embedded method
    b2 = (1 / 3 - gamma - (0.5 - gamma)) / (c2 * c2 - c2)
    b3 = 0.5 - gamma - b2 * c2
    third, b = (1 - low - gamma, low, gamma), (1 - b2 - b3 - gamma, b2, b3, gamma)
    return Esdirk(3, ((), (gamma, gamma), third, b), minus(b, third), 3, reference="Kvaerno 2004")


_K6 = (0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676, 0.26)
_K7 = (
    0.13659751177640291, 0.0, -0.05496908796538376, -0.04118626728321046, 0.62993304899016403,
    0.06962479448202728, 0.26,
)  # fmt: skip
_G3 = 1767732205903 / 4055673282236
_KC3 = (1471266399579 / 7840856788654, -4482444167858 / 7529755066697, 11266239266428 / 11593286722821, _G3)
_KC4 = (82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 0.25)

ESDIRK = {
    "tr_bdf2": _tr_bdf2(),
    "kvaerno3": _kvaerno3(),
    "kvaerno5": Esdirk(
        5,
        (
            (),
            (0.26, 0.26),
            (0.13, 0.84033320996790809, 0.26),
            (0.22371961478320505, 0.47675532319799699, -0.06470895363112615, 0.26),
            (0.16648564323248321, 0.1045001884159172, 0.03631482272098715, -0.13090704451073998, 0.26),
            _K6,
            _K7,
        ),
        minus(_K7, _K6),
        5,
        reference="Kvaerno 2004",
    ),
    "kencarp3": Esdirk(
        3,
        (
            (),
            (_G3, _G3),
            (2746238789719 / 10658868560708, -640167445237 / 6845629431997, _G3),
            _KC3,
        ),
        minus(
            _KC3,
            (2756255671327 / 12835298489170, -10771552573575 / 22201958757719,
             9247589265047 / 10645013368117, 2193209047091 / 5459859503100),
        ),
        3,
        (
            (),
            (1767732205903 / 2027836641118,),
            (5535828885825 / 10492691773637, 788022342437 / 10882634858940),
            (6485989280629 / 16251701735622, -4246266847089 / 9704473918619, 10755448449292 / 10357097424841),
        ),
        filtered=True,
        reference="Kennedy and Carpenter 2003, ARK3(2)4L[2]SA",
    ),
    "kencarp4": Esdirk(
        4,
        (
            (),
            (0.25, 0.25),
            (8611 / 62500, -1743 / 31250, 0.25),
            (5012029 / 34652500, -654441 / 2922500, 174375 / 388108, 0.25),
            (15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768,
             2285395 / 8070912, 0.25),
            _KC4,
        ),
        minus(
            _KC4,
            (4586570599 / 29645900160, 0.0, 178811875 / 945068544, 814220225 / 1159782912,
             -3700637 / 11593932, 61727 / 225920),
        ),
        4,
        (
            (),
            (0.5,),
            (13861 / 62500, 6889 / 62500),
            (-116923316275 / 2393684061468, -2731218467317 / 15368042101831, 9408046702089 / 11113171139209),
            (-451086348788 / 2902428689909, -2682348792572 / 7519795681897,
             12662868775082 / 11960479115383, 3355817975965 / 11060851509271),
            (647845179188 / 3216320057751, 73281519250 / 8382639484533, 552539513391 / 3454668386233,
             3354512671639 / 8306763924573, 4040 / 17871),
        ),
        filtered=True,
        reference="Kennedy and Carpenter 2003, ARK4(3)6L[2]SA",
    ),
}  # fmt: skip
