"""A partial differential equation as data: a space, a linear symbol, and what happens point by point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..methods import REGISTRY
from ..spectral import Fourier, band
from .base import System


@dataclass(frozen=True, kw_only=True)
class PDE(System):
    """u_t = L u + f(t, u) on a `space`: L is the linear symbol, f the rest, both of coefficients.

    `ls.solve(pde, pde.x0, t=pde.t, method="etdrk4", dt=pde.dt)`; states are fields [B, *n], or [B, C, *n] of
    C fields.

    L: float64 or complex128, one number for each coefficient, broadcasting with a state's.  dt: a good step
    of `method` at the default parameters.  starts: random starts [B, ...] like x0 of (samples or their
    indices, seed), for `random_starts`.
    """

    space: Fourier
    dt: float
    t: tuple[float, float]
    labels: tuple[str, ...] = ("u",)
    methods: tuple[str, ...] = ("etdrk4",)
    starts: Callable[[int | Sequence[int], int], Tensor] | None = None

    @property
    def random_starts(self) -> Callable[[int | Sequence[int], int], Tensor]:
        """`starts`, or truncated Fourier series of five waves."""
        if self.starts is not None:
            return self.starts
        waves = min(5, *self.space.highest)
        return band(self.space, 1, waves, components=tuple(self.x0.shape[1 : -self.space.dim]))

    @property
    def method(self) -> str:
        """The first of `methods`."""
        return self.methods[0]

    def steps(
        self,
        method: str | None = None,
        dt: float | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> dict[str, float]:
        """As of any system; equal steps of `dt` where nothing is said and the method takes such."""
        if dt is None and rtol is None and atol is None and (method or self.method) in REGISTRY:
            dt = self.dt
        return super().steps(method, dt, rtol, atol)
