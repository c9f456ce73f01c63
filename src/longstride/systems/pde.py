"""A partial differential equation as data: a space, a linear symbol, and what happens point by point."""

from __future__ import annotations

from dataclasses import dataclass

from ..spectral import Fourier
from .base import System


@dataclass(frozen=True, kw_only=True)
class PDE(System):
    """u_t = L u + f(t, u) on a `space`: L is the linear symbol, f the rest, both of coefficients.

    `ls.solve(pde, pde.x0, t=pde.t, method="etdrk4", dt=pde.dt)`; states are fields [B, *n], or [B, C, *n] of
    C fields.

    L: float64 or complex128, one number for each coefficient, broadcasting with a state's.  dt: a good step
    of `method` at the default parameters.
    """

    space: Fourier
    dt: float
    t: tuple[float, float]
    labels: tuple[str, ...] = ("u",)
    methods: tuple[str, ...] = ("etdrk4",)

    @property
    def method(self) -> str:
        """The first of `methods`."""
        return self.methods[0]
