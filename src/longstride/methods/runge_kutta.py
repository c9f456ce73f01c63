"""Runge-Kutta methods, classical and exponential, from one builder and their tableaus.

An entry of a tableau is a number, or a sum of terms (k, c, w) that mean w phi_k(c h L). At L = 0, phi_k is
1/k! and an exponential tableau reduces to a classical one. phi_0 is e^z, of integrating factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Protocol

from ..core import Stage, Step, Weight
from ..errors import ArgumentError
from ..operator import Operator, Phis
from .base import Method, one_of, register

Term = tuple[int, float, float]
Entry = float | tuple[Term, ...]


@dataclass(frozen=True)
class Tableau:
    """c: where the stages stand. a: rows below the diagonal. b: the last row."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[Entry, ...], ...]
    b: tuple[Entry, ...]

    def __post_init__(self) -> None:
        for c, row in zip((*self.c, 1.0), (*self.a, self.b), strict=True):
            if row and abs(float(sum(entry(e, AT_ZERO) for e in row)) - c) > 1e-12:
                raise ArgumentError(f"the row at c = {c} does not sum to c: {row}")

    @property
    def exponential(self) -> bool:
        return any(isinstance(e, tuple) for row in (*self.a, self.b) for e in row)

    @property
    def implicit(self) -> bool:
        return False

    @property
    def holds(self) -> bool:
        """Whether a constant F is integrated exactly beside any L, as integrating factors do not."""
        terms = (term for row in (*self.a, self.b) for e in row if isinstance(e, tuple) for term in e)
        return any(k > 0 for k, _, _ in terms)

    def rows(self, z: Weight, phi: Phis | None = None) -> Iterator[tuple[Weight, list[Weight]]]:
        """Of each stage and the end: the weight of x, and those of h F_j, at z = h L.  phi: those of z."""
        phi = phi or Phis(z)
        made = cache(lambda e: entry(e, phi))  # rows have entries in common
        for c, row in zip((*self.c, 1.0), (*self.a, self.b), strict=True):
            yield (phi(0, c) if c else 1.0), [made(e) for e in row]


AT_ZERO = Phis(0.0)


def entry(e: Entry, phi: Callable[[int, float], Weight]) -> Weight:
    """Value of an entry, given phi_k(c z)."""
    return sum((w * phi(k, c) for k, c, w in e), 0.0) if isinstance(e, tuple) else e


class Staged(Protocol):
    """What a step of stages is written from: `Tableau`, or anything like it."""

    @property
    def order(self) -> int: ...

    @property
    def c(self) -> tuple[float, ...]: ...

    @property
    def exponential(self) -> bool: ...

    @property
    def implicit(self) -> bool: ...

    @property
    def holds(self) -> bool: ...

    def rows(self, z: Weight) -> Iterator[tuple[Weight, list[Weight]]]: ...


def stages(
    tableau: Staged, op: Operator, s: float, t: float, start: float | None = None, stop: float | None = None
) -> tuple[Stage, ...]:
    """The rows of a tableau from x at s to x at t.

    The clock runs from that of s to that of t, or from `start` to `stop`: what begins noisier or ends cleaner
    than the times it stands between, and is put right by noise.
    """
    start = op.clock(s) if start is None else start
    stop = op.clock(t) if stop is None else stop
    known = {op.clock(t): t, op.clock(s): s}  # the ends are hit exactly, whatever op.time does
    h, rows = stop - start, list[Stage]()
    scaled = cache(lambda w: h * w)  # a tensor is itself, so what rows have in common stays one
    for c, (w, row) in zip((*tableau.c, 1.0), tableau.rows(h * op.L), strict=True):
        final = len(rows) == len(tableau.c)
        tau = stop if c == 1 else start + c * h
        at = t if final else known[tau] if tau in known else op.time(tau)
        x, f = op.row(at, [(s, w)], [scaled(e) for e in row])
        rows.append(Stage(x, f, at=None if final else at, field=op.field))
    return tuple(rows)


def runge_kutta(*tableaus: Staged, prediction: str | None = None, eta: float = 0.0) -> Method:
    """The first tableau, and the others, fewer stages each, for what a budget leaves over.

    prediction: the frame on a diffusion: "data" or "noise" for an exponential tableau, one with L = 0
    (None, "sigma", "velocity", "v") for a classical one and for those that are one where L = 0.  eta: noise
    of the SDE, which every stage gets up to the time where it stands, so that what a stage and the end of a
    step have in common is the same noise.
    """
    by_size = {len(tableau.c): tableau for tableau in tableaus}
    sizes = tuple(sorted(by_size, reverse=True))
    first = tableaus[0]
    frames = ("data", "noise") if first.holds else (None, "sigma", "velocity", "v")
    one_of("prediction", prediction, frames)

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        tableau = by_size[next(size for size in sizes if size <= evals)]
        s, t = times[n], times[n + 1]
        rows, marks = list[Stage](), list[float]()
        for stage in stages(tableau, op, s, t):
            at = t if stage.at is None else stage.at
            z, interval = op.noise(s, at) if at != s else (0.0, None)
            if interval is None:
                rows.append(stage)
                continue
            marks += [q for q in interval if q not in marks]
            length = interval[1] - interval[0]
            shares = tuple(z * math.sqrt((q - p) / length) for p, q in pairwise(marks))
            rows.append(replace(stage, z=shares))
        return Step(tuple(rows), brownian=tuple(marks) or None)

    return Method(
        write,
        first.order,
        sizes,
        prediction=prediction,
        eta=eta,
        exponential=first.exponential,
        implicit=first.implicit,
        diffusion=eta > 0,
    )


def started(method: Method, tableau: Staged, states: int = 1) -> Method:
    """A multistep method, whose first steps are a tableau's of the same order.

    states: how many it keeps. A budget too small for the start is spent as the method itself spends it.
    """
    order, cost = method.order, len(tableau.c)

    def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
        if n >= order - 1 or evals < cost:
            return method.write(times, n, op, evals)
        held = min(states, n + 1)
        rows = tuple(
            replace(stage, x=(0.0,) * (held - 1) + stage.x, f=(0.0,) * n + stage.f)
            for stage in stages(tableau, op, times[n], times[n + 1])
        )
        # Only the first evaluation stands on the trajectory, and only it is remembered.
        return Step(rows, (*range(max(0, held + 1 - states), held), -1), tuple(range(n + 1)))

    return replace(method, write=write, start=(cost,) * (order - 1))


def classical(*tableaus: Tableau) -> Callable[..., Method]:
    """The builder of a classical method, as the registry wants it."""

    def build(*, prediction: str | None = None) -> Method:
        return runge_kutta(*tableaus, prediction=prediction)

    return build


EULER = Tableau(1, (0.0,), ((),), (1.0,))
HEUN = Tableau(2, (0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2))
MIDPOINT = Tableau(2, (0.0, 1 / 2), ((), (1 / 2,)), (0.0, 1.0))
RALSTON = Tableau(2, (0.0, 2 / 3), ((), (2 / 3,)), (1 / 4, 3 / 4))
KUTTA_3 = Tableau(3, (0.0, 1 / 2, 1.0), ((), (1 / 2,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6))
HEUN_3 = Tableau(3, (0.0, 1 / 3, 2 / 3), ((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4))
RALSTON_3 = Tableau(3, (0.0, 1 / 2, 3 / 4), ((), (1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9))
RK4 = Tableau(
    4,
    (0.0, 1 / 2, 1 / 2, 1.0),
    ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
# Kutta's 3/8 rule, for ODEs alone: on a cosine schedule, where sigma/alpha begins at 1e4, its differences of
# evaluations carry a hundred times the round-off of RK4.
RK4_38 = Tableau(
    4,
    (0.0, 1 / 3, 2 / 3, 1.0),
    ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    (1 / 8, 3 / 8, 3 / 8, 1 / 8),
)
CASH_KARP = Tableau(
    5,
    (0.0, 1 / 5, 3 / 10, 3 / 5, 1.0, 7 / 8),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (3 / 10, -9 / 10, 6 / 5),
        (-11 / 54, 5 / 2, -70 / 27, 35 / 27),
        (1631 / 55296, 175 / 512, 575 / 13824, 44275 / 110592, 253 / 4096),
    ),
    (37 / 378, 0.0, 250 / 621, 125 / 594, 0.0, 512 / 1771),
)
DOPRI5 = Tableau(
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
TSIT5 = Tableau(
    5,
    (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
    (
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
         -0.028269050394068383),
    ),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
     2.324710524099774),
)  # fmt: skip

for _name, _tableaus, _reference in (
    ("euler", (EULER,), "Euler 1768"),
    ("heun", (HEUN, EULER), "Heun 1900; Karras et al. 2022"),
    ("midpoint", (MIDPOINT, EULER), "Runge 1895"),
    ("ralston", (RALSTON, EULER), "Ralston 1962"),
    ("kutta_3", (KUTTA_3, MIDPOINT, EULER), "Kutta 1901"),
    ("heun_3", (HEUN_3, RALSTON, EULER), "Heun 1900"),
    ("ralston_3", (RALSTON_3, RALSTON, EULER), "Ralston 1962"),
    ("rk4", (RK4, KUTTA_3, MIDPOINT, EULER), "Kutta 1901"),
    ("cash_karp", (CASH_KARP, RK4, RALSTON_3, RALSTON, EULER), "Cash and Karp 1990"),
):
    register(_name, classical(*_tableaus), kind="Runge-Kutta", reference=_reference)
for _name, _tableaus in (
    ("rho_heun", (HEUN, EULER)),
    ("rho_midpoint", (MIDPOINT, EULER)),
    ("rho_kutta_3", (KUTTA_3, MIDPOINT, EULER)),
    ("rho_rk4", (RK4, KUTTA_3, MIDPOINT, EULER)),
):
    # rho is sigma/alpha, whatever clock the process has of its own.
    register(_name, classical(*_tableaus), kind="Runge-Kutta",
             reference="Zhang and Chen 2023, rhoRK-DEIS", prediction="sigma")  # fmt: skip
# x + h v + h^2/2 v' with v' = (v(t + h/2, x + h/2 v) - v)/(h/2) is x + h v(t + h/2, x + h/2 v).
register("rf_solver_2", classical(MIDPOINT, EULER), kind="Runge-Kutta",
         reference="Wang et al. 2025, RF-Solver (the midpoint rule)", prediction="velocity")  # fmt: skip
