"""Implicit-explicit (IMEX) methods: L implicitly, F explicitly, as weights.

Where L multiplies elements, an implicit stage is a division: with z = h L, (1 - gamma z) U = ... has the
weights of a rational function of z in place of the phi-functions of an exponential method. With L = 0 what
is left is the explicit method: so they sample a diffusion, in a frame whose clock is finite at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core import Stage, Step, Weight
from ..errors import ArgumentError
from ..matrix import Matrix
from ..operator import Operator
from .adams import LINEAR, vandermonde
from .base import Method, one_of, register
from .embedded import Rows
from .esdirk import ESDIRK
from .runge_kutta import runge_kutta, started


def divided(top: Weight, by: Weight) -> Weight:
    """Of an implicit row.

    Raises:
        ArgumentError: L is a matrix.
    """
    if isinstance(by, Matrix):
        raise ArgumentError("IMEX methods take L as a number or a tensor: with a matrix take etdrk4")
    return top / by


@dataclass(frozen=True)
class Additive:
    """U_i = u + h sum_(j<i) a_ij F_j + z sum_(j<=i) b_ij U_j, the last row being the end.

    Put into one another from the first on, every U_i is a weight of u and of each h F_j.
    """

    order: int
    a: Rows
    b: Rows

    exponential: ClassVar[bool] = False
    implicit: ClassVar[bool] = True
    holds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for a, b in zip(self.a, self.b, strict=True):
            if abs(math.fsum(a) - math.fsum(b)) > 1e-12 or len(b) > len(a) + 1:
                raise ArgumentError(f"explicit and implicit rows stand at one time: {a}, {b}")

    @property
    def c(self) -> tuple[float, ...]:
        return tuple(math.fsum(row) for row in self.a[:-1])

    def rows(self, z: Weight) -> Iterator[tuple[Weight, list[Weight]]]:
        """As of `Tableau`."""
        known = list[tuple[Weight, list[Weight]]]()
        for i, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            below, own = b[:i], b[i] if len(b) > i else 0.0
            x: Weight = 1.0
            f: list[Weight] = [*a, *[0.0] * (i - len(a))]
            for w, (x_j, f_j) in zip(below, known, strict=False):
                if w:
                    x = x + w * z * x_j
                    f = [p + w * z * f_j[j] if j < len(f_j) else p for j, p in enumerate(f)]
            if own:
                x, f = divided(x, 1 - own * z), [divided(p, 1 - own * z) for p in f]
            known.append((x, f))
            yield known[-1]


def _esdirk(name: str) -> Additive:
    """Of a table of 12 digits, which loses no more than these where rows add up to the last."""
    table = ESDIRK[name]

    def whole(row: Sequence[float]) -> tuple[float, ...]:
        return (row[0] + (round(math.fsum(row), 11) - math.fsum(row)), *row[1:]) if row else ()

    b = whole(table.b)
    return Additive(table.order, (*map(whole, table.explicit), b), (*map(whole, table.a), b))


# Ascher, Ruuth and Spiteri 1997: (1, 1, 1), (2, 2, 2) and (4, 4, 3), all L-stable and stiffly accurate.
_G = 1 - math.sqrt(0.5)
_D = 1 - 1 / (2 * _G)
EULER = Additive(1, ((), (1.0,)), ((), (0.0, 1.0)))
ARS_222 = Additive(2, ((), (_G,), (_D, 1 - _D)), ((), (0.0, _G), (0.0, 1 - _G, _G)))
ARS_443 = Additive(
    3,
    ((), (1 / 2,), (11 / 18, 1 / 18), (5 / 6, -5 / 6, 1 / 2), (1 / 4, 7 / 4, 3 / 4, -7 / 4)),
    (
        (),
        (0.0, 1 / 2),
        (0.0, 1 / 6, 1 / 2),
        (0.0, -1 / 2, 1 / 2, 1 / 2),
        (0.0, 3 / 2, -3 / 2, 1 / 2, 1 / 2),
    ),
)
ARK3, ARK4 = _esdirk("kencarp3"), _esdirk("kencarp4")


def _additive(*tables: Additive) -> Callable[..., Method]:
    def build(*, prediction: str | None = "velocity") -> Method:
        return runge_kutta(*tables, prediction=prediction)

    return build


def _multistep(
    order: int, states: int, row: Callable[[Sequence[float], Weight], tuple], start: Additive | None = None
) -> Callable[..., Method]:
    """row(c, z): weights of the last `order` or fewer states and of h F there, at nodes c before the end.

    c: nodes, oldest first, in units of the step, the end being 0.  states: how many are kept.
    """

    def build(*, prediction: str | None = "velocity") -> Method:
        one_of("prediction", prediction, LINEAR)

        def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
            s, t = times[n], times[n + 1]
            nodes = times[max(0, n + 1 - order) : n + 1]
            h, held = op.clock(t) - op.clock(s), min(states, n + 1)
            x, f = row([(op.clock(u) - op.clock(t)) / h for u in nodes], h * op.L)
            kept = list(zip(times[n + 1 - held : n + 1], x[-held:], strict=True))
            x, f = op.row(t, kept, [h * w for w in f])
            here = Stage((0.0,) * (held - 1) + (1.0,), at=s, field=op.field)
            return Step(
                (here, Stage(x, f)),
                keep_x=(*range(max(0, held + 1 - states), held), held + 1),
                keep_f=tuple(range(-min(order - 1, n + 1), 0)),
            )

        method = Method(write, order, prediction=prediction, exponential=False, implicit=True)
        return started(method, start, states) if start else method

    return build


def _sbdf(c: Sequence[float], z: Weight) -> tuple[list[Weight], list[Weight]]:
    """sum_j d_j x_j = h F(extrapolated) + z x_1: x' of the polynomial through all states, F through all F_j.

    (Ascher, Ruuth and Wetton 1995; at any steps.)
    """
    d = np.linalg.inv(vandermonde([*c, 0.0]))[:, 1]
    e = np.linalg.inv(vandermonde(c))[:, 0]
    by = float(d[-1]) - z
    return [divided(-float(w), by) for w in d[:-1]], [divided(float(w), by) for w in e]


def _cnab(c: Sequence[float], z: Weight) -> tuple[list[Weight], list[Weight]]:
    """Crank and Nicolson for L, Adams and Bashforth for F."""
    ratio = 0.0 if len(c) == 1 else -1 / (2 * (c[0] + 1))  # h over twice the step before
    f = [1.0] if len(c) == 1 else [-ratio, 1 + ratio]
    return [divided(1 + z / 2, 1 - z / 2)], [divided(w, 1 - z / 2) for w in f]


_ARS, _ARK, _SBDF = (
    "Ascher, Ruuth and Spiteri 1997", "Kennedy and Carpenter 2003, ARK{}SA", "Ascher, Ruuth and Wetton 1995"
)  # fmt: skip
for _name, _build, _reference in (
    ("imex_euler", _additive(EULER), _ARS),
    ("ars_222", _additive(ARS_222, EULER), _ARS),
    ("ars_443", _additive(ARS_443, ARS_222, EULER), _ARS),
    ("ark_3", _additive(ARK3, ARS_222, EULER), _ARK.format("3(2)4L[2]")),
    ("ark_4", _additive(ARK4, ARK3, ARS_222, EULER), _ARK.format("4(3)6L[2]")),
    ("cnab_2", _multistep(2, 1, _cnab), _SBDF),
    ("sbdf_2", _multistep(2, 2, _sbdf), _SBDF),
    ("sbdf_3", _multistep(3, 3, _sbdf, ARS_443), _SBDF),
):
    register(_name, _build, kind="IMEX", reference=_reference)
