"""Fully implicit Runge-Kutta methods by collocation, here Radau IIA of order 5.

    Z_i = h sum_j a_ij f(t + c_j h, x + Z_j),     x1 = x + Z_s.

A has one real eigenvalue and a complex pair: I - h A x J is one real and one complex system as large as x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Collocation:
    """c: the nodes, the last being 1, as roots say; error: weights of the Z_i in the estimate, per gamma_0.

    shrinks: the power of h that the estimate goes down with.
    """

    order: int
    c: tuple[float, ...]
    error: tuple[float, ...]
    shrinks: int
    reference: str = ""

    @cached_property
    def A(self) -> np.ndarray:
        """Integrals of the Lagrange polynomials from 0 to each node."""
        c, powers = np.array(self.c)[:, None], np.arange(1, len(self.c) + 1)
        return (c**powers / powers) @ np.linalg.inv(c ** (powers - 1))

    @cached_property
    def dense(self) -> np.ndarray:
        """The polynomial of degree s through 0 and the Z_i: a row of each, of theta, theta^2, ..."""
        c, powers = np.array(self.c)[:, None], np.arange(1, len(self.c) + 1)
        return np.linalg.inv(c**powers).T

    @cached_property
    def spectrum(self) -> tuple[float, complex, np.ndarray]:
        """gamma_0, the eigenvalue with a positive imaginary part, rows that give Z's three parts of them."""
        values, vectors = np.linalg.eig(self.A)
        left = np.linalg.inv(vectors)
        real, pair = int(np.argmin(abs(values.imag))), int(np.argmax(values.imag))
        rows = np.stack([left[real].real / left[real, 0].real, left[pair].real, left[pair].imag])
        return float(values[real].real), complex(values[pair]), rows


_ROOT = 6**0.5

COLLOCATION = {
    "radau5": Collocation(
        5,
        ((4 - _ROOT) / 10, (4 + _ROOT) / 10, 1.0),
        ((-13 - 7 * _ROOT) / 3, (-13 + 7 * _ROOT) / 3, -1 / 3),
        4,
        "Hairer and Wanner 1996, IV.8 (RADAU5)",
    ),
}
