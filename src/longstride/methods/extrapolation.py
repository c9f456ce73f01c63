"""Bulirsch and Stoer's method: Gragg's midpoint rule extrapolated, as the tableau that it is."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .embedded import Pair
from .runge_kutta import Tableau

BULIRSCH_STOER = {"bulirsch_stoer": "Gragg 1965; Bulirsch and Stoer 1966; Hairer and Ostermann 1990"}
LEAST, MOST = 3, 8  # columns
SMOOTH = 4  # derivatives in the middle, at most: more would cost digits


def columns(rtol: float) -> int:
    """Columns that suit a tolerance: as many as ODEX begins with (Hairer, Norsett and Wanner 1993, II.9)."""
    wanted = 0.6 * -math.log10(max(rtol, 1e-300)) + 0.5
    return int(min(max(round(wanted), LEAST), MOST))


@cache
def gragg(k: int) -> Pair:
    """k runs of the midpoint rule over one step, of n_j = 2, 6, 10, .. substeps H, extrapolated to H = 0.

        y_1 = x + H f_0,    y_(i+1) = y_(i-1) + 2 H f(y_i),    T_j = y_n

    The error of T_j is a series in H^2, so sum_j w_j T_j with w_j = prod_(i != j) n_j^2/(n_j^2 - n_i^2) is of
    order 2 k. The estimate is the difference to the same without the first run. All of it is linear in the
    evaluations: rows of a tableau. So is the solution between the ends: n_j/2 being odd, the middles y_(n/2)
    and the central differences of f there have series in H^2 too, and the polynomial through both ends and
    what these extrapolate to, the value and up to four derivatives, stays close (Hairer and Ostermann 1990).
    """
    runs = [4 * j + 2 for j in range(k)]
    size = 1 + sum(n - 1 for n in runs)
    f, state, c, rows = [], [], [0.0], [np.zeros(size)]  # f[j][i]: which evaluation; state[j][i]: y_i - x
    for n in runs:
        y, asked = [np.zeros(size), np.eye(size)[0] / n], [0]
        for i in range(1, n):
            asked.append(len(rows))
            rows.append(y[i])
            c.append(i / n)
            y.append(y[i - 1] + 2 / n * np.eye(size)[asked[i]])
        f.append(asked)
        state.append(y)
    b = _limit(runs, [y[n] for n, y in zip(runs, state, strict=True)])
    lower = _limit(runs[1:], [y[n] for n, y in zip(runs[1:], state[1:], strict=True)])
    middle = [_limit(runs, [y[n // 2] for n, y in zip(runs, state, strict=True)])]
    for order in range(1, min(2 * k - 3, SMOOTH) + 1):
        able = [j for j, n in enumerate(runs) if order <= n // 2][: (10 - order) // 2]  # enough for order 8
        differences = [_central(f[j], runs[j], order, size) for j in able]
        middle.append(_limit([runs[j] for j in able], differences))
    tableau = Tableau(
        2 * k, tuple(c), tuple(tuple(row[:i].tolist()) for i, row in enumerate(rows)), tuple(b.tolist())
    )
    return Pair(
        tableau, (tuple((b - lower).tolist()),), 2 * k - 1, _between(b, middle), len(middle) + 3,
        reference=BULIRSCH_STOER["bulirsch_stoer"],
    )  # fmt: skip


def _limit(runs: list[int], values: list[np.ndarray]) -> np.ndarray:
    """What values that are series in 1/n^2 tend to."""
    weights = [math.prod(n * n / (n * n - m * m) for m in runs if m != n) for n in runs]
    return sum(w * v for w, v in zip(weights, values, strict=True))  # type: ignore[return-value]


def _central(asked: list[int], n: int, order: int, size: int) -> np.ndarray:
    """h^order times the derivative of that order in the middle, from f every other substep."""
    row = np.zeros(size)
    for i in range(order):
        row[asked[n // 2 + order - 1 - 2 * i]] += (-1) ** i * math.comb(order - 1, i)
    return row * (n / 2) ** (order - 1)


def _between(b: np.ndarray, middle: list[np.ndarray]) -> tuple[tuple[float, ...], ...]:
    """Coefficients of theta, theta^2, .. for each evaluation, and for that at the end."""
    degree, size = len(middle) + 3, len(b) + 1
    powers = np.arange(degree + 1)
    wanted, is_ = [], []
    for theta, order, value in [
        (0.0, 1, np.eye(size)[0]), (1.0, 0, np.append(b, 0.0)), (1.0, 1, np.eye(size)[-1]),
        *((0.5, order, np.append(value, 0.0)) for order, value in enumerate(middle)),
    ]:  # fmt: skip
        falling = np.array([math.perm(int(p), order) if p >= order else 0 for p in powers], dtype=float)
        wanted.append((falling * theta ** np.maximum(powers - order, 0))[1:])
        is_.append(value)
    dense = np.linalg.solve(np.array(wanted), np.array(is_))
    return tuple(map(tuple, dense.T.tolist()))
