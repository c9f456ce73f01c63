"""Fourier series on a periodic box: points, wavenumbers, transforms of the modes that are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, positive, whole
from .series import Periodic, Series

SMOOTH = 36.0  # e^-36 is round-off: the filter of Hou and Li 2007 at the last mode


class Fourier:
    """u(x) = sum_k c_k e^(i k x) on a box of `length`, n equidistant points along each axis, periodic.

    The points are x_j = j length/n, the wavenumbers k = 2 pi m/length with |m| < n dealias/2. Modes above,
    and that of m = n/2, which has no sign, are not kept: a product of two fields of n points is exact in the
    kept ones if dealias = 2/3 (Orszag 1971), a product of three if it is 1/2. So the coefficients of a state
    are fewer than its points, and every operation on them is cheaper. Of a real field only those with m >= 0
    on the last axis are kept: the others are their conjugates.

    length, n: a number for each axis; one length serves all axes.  real: whether fields are.  dealias: the
    share of modes that is kept, at most 1; "smooth": all, and products are damped by e^(-36 (2 m/n)^36)
    instead.

    Raises:
        ArgumentError: a length or share that is not positive, fewer than 4 points, no axis.
    """

    buffered = True  # whether `Transforms` are those of this space
    walls: tuple[str, ...]  # of each axis

    def __init__(
        self,
        length: float | Sequence[float],
        n: int | Sequence[int],
        *,
        real: bool = True,
        dealias: float | str = 2 / 3,
    ) -> None:
        self.n = tuple(whole("n", m, 4) for m in (n if isinstance(n, Sequence) else [n]))
        self.dim, self.real, self.dealias = len(self.n), real, dealias
        lengths = list(length) if isinstance(length, Sequence) else [length] * self.dim
        self.length = tuple(positive("length", value) for value in lengths)
        if not self.dim or len(self.length) != self.dim:
            raise ArgumentError(
                f"{len(self.length)} lengths and {self.dim} numbers of points: one for each axis"
            )
        if isinstance(dealias, str) and dealias != "smooth":
            raise ArgumentError(f"dealias = {dealias!r}: a share of the modes such as 2/3, or 'smooth'")
        self.share = 1.0 if isinstance(dealias, str) else finite("dealias", dealias)
        if not 0 < self.share <= 1:
            raise ArgumentError(
                f"dealias = {dealias}: the share of modes that is kept, above 0 and at most 1"
            )
        self.walls = ("periodic",) * self.dim
        self._lies([self._periodic(i, halved=self.dim - 1) for i in range(self.dim)])

    def _periodic(self, i: int, halved: int) -> Periodic:
        return Periodic(self.length[i], self.n[i], self.share, half=self.real and i == halved)

    def _lies(self, series: Sequence[Series]) -> None:
        """Along these. Walls come first, while a real field is real; what halves it comes next."""
        self.series, self.highest = tuple(series), tuple(one.top for one in series)
        last_first = reversed([*zip(self.axes, series, strict=True)])
        self.order = sorted(last_first, key=lambda pair: pair[1].turn)

    @property
    def axes(self) -> range:
        """Of a field or its coefficients, from behind."""
        return range(-self.dim, 0)

    @property
    def periodic(self) -> list[int]:
        """The axes without walls, from behind."""
        return [axis for axis, kind in zip(self.axes, self.walls, strict=True) if kind == "periodic"]

    @cached_property
    def x(self) -> tuple[Tensor, ...]:
        """The points of each axis, float64, shaped to broadcast: [n1, 1], [n2]."""
        return self._wide([one.x for one in self.series])

    @cached_property
    def modes(self) -> tuple[Tensor, ...]:
        """m of each axis as the coefficients lie: 0 .. highest, and -highest .. -1 unless halved."""
        return self._wide([one.modes for one in self.series])

    @cached_property
    def k(self) -> tuple[Tensor, ...]:
        """The wavenumbers of each axis, float64, shaped to broadcast with coefficients."""
        return self._wide([one.k for one in self.series])

    @cached_property
    def k2(self) -> Tensor:
        """|k|^2 of each coefficient: minus the Laplacian's symbol."""
        return sum((k * k for k in self.k), torch.zeros(self.shape, dtype=torch.float64))

    def d(self, axis: int = 0, order: int = 1) -> Tensor:
        """The symbol (i k)^order of a derivative: real if the order is even."""
        k = self.k[axis] ** order * (-1.0) ** (order // 2)
        return k if order % 2 == 0 else self.series[axis].sign * k

    def turned(self, *axes: int) -> Fourier:
        """The space of derivatives of odd order along these axes: itself, but for a `Box`."""
        return self

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of the coefficients."""
        return torch.broadcast_shapes(*(m.shape for m in self.modes))

    @cached_property
    def filter(self) -> Tensor | None:
        """What products are damped by, if they are."""
        if self.dealias != "smooth":
            return None
        shares = [2 * m.abs() / (one.n * one.period) for m, one in zip(self.modes, self.series, strict=True)]
        return torch.exp(-SMOOTH * sum((s**36 for s in shares), torch.zeros(self.shape, dtype=torch.float64)))

    def enter(self, x: Tensor) -> Tensor:
        """The coefficients [..., *shape] of a field [..., *n].

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

    @cached_property
    def squares(self) -> Tensor:
        """Mean square of the mode of each coefficient, with those that it stands for."""
        rows = self._wide([one.square for one in self.series])
        return math.prod(rows[1:], start=rows[0])  # type: ignore[arg-type]

    def norm(self, c: Tensor) -> Tensor:
        """Root mean square [B] of the fields of coefficients [B, ..., *shape], by Parseval's equation."""
        each = c.abs().square()
        fields = c[0].numel() / math.prod(self.shape)
        return ((each * self.squares.to(each)).flatten(1).sum(1) / fields).sqrt()

    def held(self, f: Callable[[Tensor, Tensor], Tensor], L: object) -> Callable[[Tensor, Tensor], Tensor]:
        """f with what no field shows held down, where L lets it grow: see `Held`."""
        from .held import Held  # which is about this

        growth = float(L.detach().real.amax()) if isinstance(L, Tensor) and Held.needed(self) else 0.0
        return Held(self, f, growth) if growth > 0 else f

    def _fits(self, x: Tensor) -> None:
        if x.ndim < self.dim or tuple(x.shape[-self.dim :]) != self.n:
            raise ArgumentError(f"a field {tuple(x.shape)} on {self.n} points: it must end in {list(self.n)}")
        if self.real and x.is_complex():
            raise ArgumentError("a complex field where real ones are expected: Fourier(..., real=False)")

    def _wide(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(row.view(-1, *(1,) * (self.dim - 1 - axis)) for axis, row in enumerate(rows))
