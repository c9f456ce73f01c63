"""Pairs of orders 2, 3 and 5."""

from __future__ import annotations

from .embedded import Pair, embed, hermite, nested
from .runge_kutta import DOPRI5, HEUN, RALSTON_3, TSIT5, Tableau


def factored(lead: float, *roots: float) -> tuple[float, ...]:
    """lead theta^2 (theta - r_1)(theta - r_2) as coefficients of theta, ..., theta^4."""
    p, q = roots
    return (0.0, lead * p * q, -lead * (p + q), lead)


def quadratic(lead: float, linear: float, constant: float) -> tuple[float, ...]:
    """lead theta^2 (theta^2 + linear theta + constant)."""
    return (0.0, lead * constant, lead * linear, lead)


def _first_of_tsit5() -> tuple[float, ...]:
    """lead theta (theta - r)(theta^2 + p theta + q)."""
    lead, r, p, q = -1.0530884977290216, 1.3299890189751412, -1.4364028541716351, 0.7139816917074209
    return (-lead * r * q, lead * (q - r * p), lead * (p - r), lead)


embed(
    "adaptive_heun",
    Pair(HEUN, ((-1 / 2, 1 / 2),), 2, hermite((1 / 2, 1 / 2)), 2, reference="Heun 1900, with Euler's"),
)
embed(
    "fehlberg2",
    Pair(
        Tableau(2, (0.0, 1 / 2, 1.0), ((), (1 / 2,), (1 / 256, 255 / 256)), (1 / 512, 255 / 256, 1 / 512)),
        ((-1 / 512, 0.0, 1 / 512),),
        2,
        hermite((1 / 512, 255 / 256, 1 / 512)),
        2,
        reference="Fehlberg 1969, RK1(2), the second order kept",
    ),
)
embed(
    "bosh3",
    Pair(
        RALSTON_3,
        ((2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),),
        3,
        hermite((2 / 9, 1 / 3, 4 / 9)),
        3,
        reference="Bogacki and Shampine 1989",
    ),
)  # fmt: skip
embed(
    "tsit5",
    Pair(
        TSIT5,
        ((-0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629,
          0.5823571654525552, -0.45808210592918697, 1 / 66),),
        5,
        (
            _first_of_tsit5(),
            quadratic(0.1017, -2.1966568338249754, 1.2949852507374631),
            quadratic(2.490627285651252793, -2.38535645472061657, 1.57803468208092486),
            factored(-16.54810288924490272, 1.21712927295533244, 0.61620406037800089),
            factored(47.37952196281928122, 1.203071208372362603, 0.658047292653547382),
            factored(-34.87065786149660974, 1.2, 2 / 3),
            factored(2.5, 1.0, 0.6),
        ),
        4,
        reference="Tsitouras 2011",
    ),
)  # fmt: skip
embed(
    "dopri5",
    Pair(
        DOPRI5,
        ((71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),),
        5,
        nested(
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
            (-12715105075 / 11282082432, 0.0, 87487479700 / 32700410799, -10690763975 / 1880347072,
             701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423),
        ),
        4,
        reference="Dormand and Prince 1980; Hairer's dense output",
    ),
)  # fmt: skip
