"""Embedded Runge-Kutta pairs: a tableau, what it disagrees with, and the solution between its ends.

A step of a pair evaluates f at its own end, x1, as the last of its S evaluations K_j. It is the first of the
next step (FSAL); where the error estimate has no use for it, it is there for the next step alone. With theta
from 0 to 1 along the step,

    x(theta) = x + h sum_j K_j sum_m dense[j][m] theta^(m+1).

The numbers are in `pairs`, `dop853` and `verner`. `embed` gives a pair its name, for adaptive runs and, as
the tableau it is, for steps of a given size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import ArgumentError
from .base import register
from .runge_kutta import EULER, RALSTON, RALSTON_3, RK4, TSIT5, Entry, Tableau, classical

Rows = tuple[tuple[float, ...], ...]
LOWER = (TSIT5, RK4, RALSTON_3, RALSTON, EULER)  # for what a budget of equal steps leaves over


@dataclass(frozen=True)
class Pair:
    """tableau: the solution that is kept, of S - 1 or fewer evaluations, without the one at its end.

    error: rows of b - b_hat. With two rows e, g the estimate is |e|^2/sqrt(|e|^2 + |g|^2/100), after Hairer.
    shrinks: the power of h that the estimate goes down with, on which the step control is built.
    dense: a row of each evaluation, the coefficients of theta, theta^2, ...; its order is dense_order.
    extra_c, extra_a: evaluations that only `dense` needs, made where something is read between the ends.
    """

    tableau: Tableau
    error: Rows
    shrinks: int
    dense: Rows
    dense_order: int
    extra_c: tuple[float, ...] = ()
    extra_a: Rows = ()
    reference: str = ""

    def __post_init__(self) -> None:
        for row in self.error:
            if abs(sum(row)) > 1e-12 or len(row) > self.evaluations:
                raise ArgumentError(f"error weights sum to 0, one of each evaluation: {row}")
        for c, row in zip(self.extra_c, self.extra_a, strict=True):
            if abs(sum(row) - c) > 1e-12:
                raise ArgumentError(f"the extra row at c = {c} does not sum to c: {row}")
        ends = [sum(row) for row in self.dense]
        b = self.a[-1]
        if any(abs(w - end) > 1e-11 for w, end in zip(padded(b, len(ends)), ends, strict=True)):
            raise ArgumentError(f"the interpolant does not end where the step does: {ends}")

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def evaluations(self) -> int:
        """S: the first, those of the tableau, the one at the end."""
        return len(self.tableau.c) + 1

    @property
    def fsal(self) -> bool:
        """Whether the estimate uses the evaluation at the end, so that rejecting a step wastes none."""
        return any(len(row) == self.evaluations for row in self.error)

    @property
    def c(self) -> tuple[float, ...]:
        return (*self.tableau.c, 1.0)

    @property
    def a(self) -> Rows:
        """The rows of all S evaluations, the last being b."""
        return numbers((*self.tableau.a, self.tableau.b))

    @property
    def alone(self) -> Tableau:
        """The tableau without the stages at its end that only the estimate has a use for."""
        size = max(i for i, w in enumerate(self.tableau.b) if w) + 1
        return replace(self.tableau, c=self.c[:size], a=self.a[:size], b=self.tableau.b[:size])


def numbers(rows: Sequence[Sequence[Entry]]) -> Rows:
    """The rows of a classical tableau."""
    return tuple(tuple(e for e in row if isinstance(e, float)) for row in rows)


def padded(row: Sequence[float], size: int) -> tuple[float, ...]:
    return (*row, *[0.0] * (size - len(row)))


def hermite(b: Sequence[float]) -> Rows:
    """The cubic through x, f at both ends: order 3, of no further evaluation."""
    rows = [[0.0, 3 * w, -2 * w] for w in (*b, 0.0)]
    rows[0] = [r + w for r, w in zip(rows[0], (1.0, -2.0, 1.0), strict=True)]
    rows[-1] = [0.0, -1.0, 1.0]
    return tuple(map(tuple, rows))


def nested(b: Sequence[float], *tops: Sequence[float]) -> Rows:
    """Dormand's and Hairer's nested form: the cubic of Hermite, plus bubbles at both ends.

    theta^2 (1 - theta)^2 (d_0 + theta (d_1 + (1 - theta) (d_2 + theta (d_3 + ...)))) with
    d_i = sum_j tops[i][j] K_j.
    """
    size = max(map(len, tops))
    cubic = hermite(b)
    out = [[*padded(cubic[j] if j < len(cubic) else (), 3), *[0.0] * len(tops)] for j in range(size)]
    bubble = [0.0, 1.0, -2.0, 1.0]  # coefficients of theta, theta^2, ...: theta^2 (1 - theta)^2
    for i, top in enumerate(tops):
        for j, d in enumerate(top):
            for m, w in enumerate(bubble):
                out[j][m] += d * w
        factor = (0.0, 1.0) if i % 2 == 0 else (1.0, -1.0)
        bubble = [
            factor[0] * low + factor[1] * high
            for low, high in zip([*bubble, 0.0], [0.0, *bubble], strict=True)
        ]
    return tuple(map(tuple, out))


def gap(zeros: int, first: float, *rest: float) -> tuple[float, ...]:
    """A row of a tableau of high order: the first weight, zeros, the others."""
    return (first, *[0.0] * zeros, *rest)


PAIRS: dict[str, Pair] = {}


def embed(name: str, pair: Pair) -> None:
    """Give a pair its name."""
    PAIRS[name] = pair
    lower = (t for t in LOWER if len(t.c) < len(pair.alone.c))
    register(name, classical(pair.alone, *lower), kind="Runge-Kutta", reference=pair.reference)
