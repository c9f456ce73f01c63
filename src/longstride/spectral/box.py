"""A box whose axes are periodic or end at walls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, unknown
from .fourier import SMOOTH, Fourier
from .series import Cosine, Periodic, Series, Sine

WALLS: dict[str, type[Cosine]] = {"neumann": Cosine, "dirichlet": Sine}
KINDS = ("periodic", *WALLS)


class Box(Fourier):
    """Along each axis a Fourier, a cosine or a sine series: "periodic", "neumann" (u_x = 0 at both walls) or
    "dirichlet" (u = 0).

    All that `Fourier` has, for coefficients that are real along walls: modes cos(pi m x/length) or sin(pi m
    x/length), m = 0 .. highest, at the points (j + 1/2) length/n, which do not touch the walls. What is of
    even order is a symbol as ever. A derivative of odd order turns cosines into sines: space.d(axis) times
    coefficients belongs to `space.turned(axis)`, another Box on the same points.

    An equation keeps to a cosine series whatever its nonlinear part is. It keeps to a sine series if that
    part is odd in u, such as u - u^3 or u u_x. Else, as with u^2, the series converges as m^-5 and no faster;
    `Chebyshev` does not mind.

    Raises:
        ArgumentError: as `Fourier`; an unknown kind of wall, or not one for each axis.
    """

    buffered = False

    def __init__(
        self,
        length: float | Sequence[float],
        n: int | Sequence[int],
        walls: str | Sequence[str],
        *,
        real: bool = True,
        dealias: float | str = 2 / 3,
    ) -> None:
        super().__init__(length, n, real=real, dealias=dealias)
        self.walls = (walls,) * self.dim if isinstance(walls, str) else tuple(walls)
        if len(self.walls) != self.dim:
            raise ArgumentError(f"walls = {walls!r}: one kind for each of {self.dim} axes")
        share = 1.0 if isinstance(dealias, str) else dealias
        halved = max((i for i, kind in enumerate(self.walls) if kind == "periodic"), default=-1)
        series = list[Series]()
        for i, (kind, a, m) in enumerate(zip(self.walls, self.length, self.n, strict=True)):
            if kind not in KINDS:
                raise unknown("kind of wall", kind, KINDS)
            half = real and i == halved
            series.append(WALLS[kind](a, m, share) if kind in WALLS else Periodic(a, m, share, half))
        self.series = tuple(series)
        self.highest = tuple(one.top for one in series)
        # Walls come first, while a real field is real; what halves it comes next.
        self.order = sorted(zip(self.axes, series, strict=True), key=lambda pair: pair[1].turn)

    def turned(self, *axes: int) -> Box:
        """The box of derivatives of odd order along these axes."""
        other = {"neumann": "dirichlet", "dirichlet": "neumann", "periodic": "periodic"}
        turned = {axis % self.dim for axis in axes}
        walls = [other[kind] if i in turned else kind for i, kind in enumerate(self.walls)]
        return Box(self.length, self.n, walls, real=self.real, dealias=self.dealias)

    @cached_property
    def squares(self) -> Tensor:
        """Mean square of the mode of each coefficient, with those that it stands for."""
        rows = self._wide([one.square for one in self.series])
        return math.prod(rows[1:], start=rows[0])  # type: ignore[arg-type]

    @cached_property
    def x(self) -> tuple[Tensor, ...]:
        """The points of each axis, float64, shaped to broadcast: [n1, 1], [n2]."""
        return self._wide([one.x for one in self.series])

    @cached_property
    def modes(self) -> tuple[Tensor, ...]:
        """m of each axis as the coefficients lie, shaped to broadcast."""
        return self._wide([one.modes for one in self.series])

    @cached_property
    def k(self) -> tuple[Tensor, ...]:
        """The wavenumbers of each axis, float64, shaped to broadcast with coefficients."""
        return self._wide([one.k for one in self.series])

    def d(self, axis: int = 0, order: int = 1) -> Tensor:
        """The symbol of a derivative: of odd order, between a cosine and a sine series."""
        k = self.k[axis] ** order * (-1.0) ** (order // 2)
        return k if order % 2 == 0 else self.series[axis].sign * k

    @cached_property
    def filter(self) -> Tensor | None:
        """What products are damped by, if they are."""
        if self.dealias != "smooth":
            return None
        shares = [2 * m.abs() / (one.n * one.period) for m, one in zip(self.modes, self.series, strict=True)]
        return torch.exp(-SMOOTH * sum((s**36 for s in shares), torch.zeros(self.shape, dtype=torch.float64)))

    def enter(self, x: Tensor, *, kept: bool = True) -> Tensor:
        """The coefficients [..., *shape] of a field [..., *n]: those that are kept, always.

        Raises:
            ArgumentError: another number of points, or a complex field where it should be real.
        """
        self._fits(x)
        for axis, series in self.order:
            x = series.enter(x, axis)
        return x

    def leave(self, c: Tensor) -> Tensor:
        """The field [..., *n] of coefficients."""
        for axis, series in reversed(self.order):
            c = series.leave(c, axis)
        return c
