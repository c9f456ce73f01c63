"""Explicit Runge-Kutta-Nystrom methods for x'' = a(t, x).

    k_i = a(t + c_i h, x + c_i h v + h^2 sum_j a_ij k_j)
    x1 = x + h v + h^2 sum_i b_i k_i,      v1 = v + h sum_i d_i k_i

An evaluation of a serves x and v at once, and a stage needs no place for v: so 3, 4 and 5 of them make orders
4, 5 and 6, where Runge-Kutta methods take 4, 6 and 7. Conditions of order: a tree of order s is a node with m
leaves v and branches that are trees, s = 1 + m + sum (s_r + 1), with weights and number

    Phi_i = c_i^m prod_r sum_j a_ij Phi_rj,     kappa = prod_r kappa_r/(s_r (s_r + 1)),

and sum_i d_i Phi_i = kappa/s for s <= p, sum_i b_i Phi_i = kappa/(s (s + 1)) for s < p (Hairer, Norsett and
Wanner 1993, II.14). They are neither symplectic nor symmetric: for short and accurate runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import Stage, Step
from ..errors import ArgumentError
from .symplectic import SYMPLECTIC, WISDOM_HOLMAN, Splitting

Row = tuple[float, ...]


@dataclass(frozen=True)
class Nystrom:
    """a: a row of each stage, the first ().  b, d: to x and to v.

    other: b and d of a method that the estimate is the difference from.  shrinks: the power of h with which
    that goes down.

    Raises:
        ArgumentError: rows that do not fit, b or d that do not add up to 1/2 and 1.
    """

    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    d: Row
    reference: str
    other: tuple[Row, Row] | None = None
    shrinks: int = 0

    def __post_init__(self) -> None:
        pairs = [(self.b, self.d), *([self.other] if self.other else [])]
        off = max(abs(sum(row) - end) for pair in pairs for row, end in zip(pair, (0.5, 1.0), strict=True))
        whole = all(len(row) == i for i, row in enumerate(self.a)) and len(self.a) == len(self.c)
        if not whole or off > 1e-13:
            raise ArgumentError(f"rows of a have 0, 1, .. numbers; b adds up to 1/2, d to 1: {self}")

    @property
    def keeps(self) -> bool:
        """Whether the last evaluation stands at x1, and is the first of the next step."""
        return self.c[-1] == 1.0 and self.a[-1] == self.b[:-1] and not self.b[-1]

    @property
    def nfe(self) -> int:
        """Evaluations of a in a step."""
        return len(self.c) - self.keeps

    def write(self, s: float, t: float, kept: bool = False, carried: bool = False) -> Step:
        """The rows of a step, as `symplectic.Splitting.write` has them."""
        h, stages = t - s, list[Stage]()
        lacking = (1.0,) if carried else ()

        def moved(c: float, row: Row, at: float | None = None) -> Stage:
            return Stage((1.0, c * h, *(c * h * w for w in lacking)), tuple(h * h * w for w in row), at=at)

        for c, row in list(zip(self.c, self.a, strict=True))[kept:]:
            stages.append(moved(c, row, s + c * h))
        if not self.keeps:
            stages.append(moved(1.0, self.b))
        stages.append(Stage((0.0, 1.0), tuple(h * w for w in self.d)))
        return Step(tuple(stages), keep_x=(-2, -1), keep_f=(-1,) if self.keeps else ())


NYSTROM = {
    "nystrom_4": Nystrom(
        4, (0.0, 1 / 2, 1.0), ((), (1 / 8,), (0.0, 1 / 2)), (1 / 6, 1 / 3, 0.0), (1 / 6, 2 / 3, 1 / 6),
        "Nystrom 1925",
    ),
    "nystrom_5": Nystrom(
        5, (0.0, 1 / 5, 2 / 3, 1.0), ((), (1 / 50,), (-1 / 27, 7 / 27), (3 / 10, -2 / 35, 9 / 35)),
        (14 / 336, 100 / 336, 54 / 336, 0.0), (14 / 336, 125 / 336, 162 / 336, 35 / 336), "Nystrom 1925",
    ),
}  # fmt: skip
NYSTROM_PAIRS = {
    "dprkn4": Nystrom(
        4, (0.0, 1 / 4, 7 / 10, 1.0), ((), (1 / 32,), (7 / 1000, 119 / 500), (1 / 14, 8 / 27, 25 / 189)),
        (1 / 14, 8 / 27, 25 / 189, 0.0), (1 / 14, 32 / 81, 250 / 567, 5 / 54),
        "Dormand, El-Mikkawy and Prince 1987, 4(3)4FM",
        ((-7 / 150, 67 / 150, 3 / 20, -1 / 20), (13 / 21, -20 / 27, 275 / 189, -1 / 3)), 4,
    ),
    "dprkn6": Nystrom(
        6, (0.0, 1 / 10, 3 / 10, 7 / 10, 17 / 25, 1.0),
        (
            (), (1 / 200,), (-1 / 2200, 1 / 22), (637 / 6600, -7 / 110, 7 / 33),
            (225437 / 1968750, -30073 / 281250, 65569 / 281250, -9367 / 984375),
            (151 / 2142, 5 / 116, 385 / 1368, 55 / 168, -6250 / 28101),
        ),
        (151 / 2142, 5 / 116, 385 / 1368, 55 / 168, -6250 / 28101, 0.0),
        (151 / 2142, 25 / 522, 275 / 684, 275 / 252, -78125 / 112404, 1 / 12),
        "Dormand, El-Mikkawy and Prince 1987, 6(4)6FD",
        (
            (1349 / 157500, 7873 / 50000, 192199 / 900000, 521683 / 2100000, -16 / 125, 0.0),
            (1349 / 157500, 7873 / 45000, 27457 / 90000, 521683 / 630000, -2 / 5, 1 / 12),
        ), 5,
    ),
}  # fmt: skip
# What equal steps of x'' = a(t, x) are made by.
EQUAL: dict[str, Splitting | Nystrom] = {**SYMPLECTIC, **NYSTROM, **NYSTROM_PAIRS}
IN_TURN = (*EQUAL, WISDOM_HOLMAN)
