"""A box whose axes are periodic or end at walls."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ArgumentError, unknown
from .fourier import Fourier
from .series import Cosine, QuarterCosine, QuarterSine, Series, Sine

WALLS: dict[str, type[Series]] = {
    "neumann": Cosine,
    "dirichlet": Sine,
    "neumann-dirichlet": QuarterCosine,
    "dirichlet-neumann": QuarterSine,
}
KINDS = ("periodic", *WALLS)


class Box(Fourier):
    """Along each axis a Fourier, a cosine or a sine series: "periodic", "neumann" (u_x = 0 at both walls),
    "dirichlet" (u = 0), or of either kind first one wall's, then the other's, "dirichlet-neumann". One for
    all axes, or one for each, ("periodic", "dirichlet") or "periodic,dirichlet".

    All that `Fourier` has, for coefficients that are real along walls: modes cos(pi m x/length) or sin(pi m
    x/length), m = 0 .. highest, or m + 1/2 between walls of two kinds, at the points (j + 1/2) length/n,
    which do not touch the walls. What is of even order is a symbol as ever. A derivative of odd order turns
    cosines into sines: space.d(axis) times coefficients belongs to `space.turned(axis)`, another Box on the
    same points.

    An equation keeps to a cosine series whatever its nonlinear part is. It keeps to a series with a Dirichlet
    wall if that part is odd in u, such as u - u^3, and between two of these also with u u_x. Else, as with
    u^2, the series converges as m^-5 and no faster; `Chebyshev` does not mind.

    Raises:
        ArgumentError: as `Fourier`; an unknown kind of wall, or not one for each axis.
    """

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
        kinds = tuple(walls.split(",") if isinstance(walls, str) else walls)
        self.walls = kinds * self.dim if isinstance(walls, str) and len(kinds) == 1 else kinds
        if len(self.walls) != self.dim:
            raise ArgumentError(f"walls = {walls!r}: one kind for each of {self.dim} axes")
        halved = max((i for i, kind in enumerate(self.walls) if kind == "periodic"), default=-1)
        series = list[Series]()
        for i, (kind, a, m) in enumerate(zip(self.walls, self.length, self.n, strict=True)):
            if kind not in KINDS:
                raise unknown("kind of wall", kind, KINDS)
            series.append(WALLS[kind](a, m, self.share) if kind in WALLS else self._periodic(i, halved))
        self._lies(series)

    def turned(self, *axes: int) -> Box:
        """The box of derivatives of odd order along these axes."""
        other = {"neumann": "dirichlet", "dirichlet": "neumann", "periodic": "periodic"}
        turned = {axis % self.dim for axis in axes}
        walls = [
            "-".join(other[wall] for wall in kind.split("-")) if i in turned else kind
            for i, kind in enumerate(self.walls)
        ]
        return Box(self.length, self.n, walls, real=self.real, dealias=self.dealias)
