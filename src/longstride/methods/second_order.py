"""Methods that choose their steps on x'' = a(t, x): Hermite's of order 4, Gauss-Radau of order 15.

Symplectic splittings, whose steps are equal, are in `symplectic.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np


@dataclass(frozen=True)
class Hermite:
    """criterion: what chooses the step; rtol is its parameter: an error, eta, or a share of a time."""

    criterion: str
    reference: str
    order = 4


@dataclass(frozen=True)
class Radau:
    """Everhart's method on the Gauss-Radau nodes c_1 = 0, c_2, .., c_8 of [0, 1).

    a along a step is a_0 + sum_k b_k theta^(k+1), k = 0..6, through all eight nodes. `newton` and `to_powers`
    make the b of differences: with g the coefficients of Newton's form, one more for each node,

        a = a_0 + sum_j g_j w_j(theta),    w_j = theta (theta - c_2) .. (theta - c_(j+1)).
    """

    reference: str
    order = 15

    @cached_property
    def c(self) -> np.ndarray:
        """The nodes behind the first [7]: zeros of (P_7 + P_8)/(1 + x), on [-1, 1]."""
        legendre = np.polynomial.legendre.Legendre
        both = legendre.basis(7) + legendre.basis(8)
        roots = np.sort(both.roots().real)[1:]
        for _ in range(3):  # to the last digit
            roots = roots - both(roots) / both.deriv()(roots)
        nodes: np.ndarray = (1 + roots) / 2
        return nodes

    @cached_property
    def newton(self) -> np.ndarray:
        """w_j at the nodes [7, 7], a lower triangle."""
        c = self.c
        return np.array(
            [[x * np.prod(x - c[:j]) if j <= n else 0.0 for j in range(7)] for n, x in enumerate(c)]
        )

    @cached_property
    def to_powers(self) -> np.ndarray:
        """Powers of theta in w_j [7, of k + 1, 7 of j]: b = to_powers g."""
        columns = [np.poly([0.0, *self.c[:j]])[::-1][1:] for j in range(7)]
        return np.array([np.pad(column, (0, 7 - len(column))) for column in columns]).T

    @cached_property
    def ahead(self) -> np.ndarray:
        """What b is about the end of a step: b_k' = sum_j C(j + 1, k + 1) b_j, then times (h'/h)^(k + 1)."""
        return np.array([[comb(j + 1, k + 1) for j in range(7)] for k in range(7)], dtype=float)


HERMITE = {
    "hermite": Hermite("error", "Makino and Aarseth 1992"),
    "hermite_aarseth": Hermite("aarseth", "Makino and Aarseth 1992; Aarseth 1985"),
    "hermite_collision": Hermite("collision", "Hut and Makino, as in AMUSE"),
}
CRITERION = 0.01  # the parameter of a criterion where none is given
RADAU = {"gauss_radau_15": Radau("Everhart 1985; Rein and Spiegel 2015; Pham, Rein and Spiegel 2024")}


def rtol_of(method: str, tolerance: float) -> float:
    """What rtol is where it is not given: a tolerance, or the parameter of the method's criterion."""
    known = HERMITE.get(method)
    return tolerance if known is None or known.criterion == "error" else CRITERION
