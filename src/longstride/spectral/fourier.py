"""Fourier series on a periodic box: points, wavenumbers, transforms of the modes that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, positive, whole

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
        share = 1.0 if isinstance(dealias, str) else finite("dealias", dealias)
        if not 0 < share <= 1:
            raise ArgumentError(
                f"dealias = {dealias}: the share of modes that is kept, above 0 and at most 1"
            )
        self.highest = tuple(math.ceil(share * m / 2 - 1e-9) - 1 for m in self.n)

    @property
    def axes(self) -> range:
        """Of a field or its coefficients, from behind."""
        return range(-self.dim, 0)

    @cached_property
    def x(self) -> tuple[Tensor, ...]:
        """The points of each axis, float64, shaped to broadcast: [n1, 1], [n2]."""
        points = [
            torch.arange(m, dtype=torch.float64) * (a / m) for m, a in zip(self.n, self.length, strict=True)
        ]
        return self._wide(points)

    @cached_property
    def modes(self) -> tuple[Tensor, ...]:
        """m of each axis as the coefficients lie, shaped to broadcast: 0 .. highest, and -highest .. -1."""
        rows = []
        for axis, top in enumerate(self.highest):
            m = torch.arange(top + 1, dtype=torch.float64)
            rows.append(m if self._half(axis) else torch.cat([m, -m[1:].flip(0)]))
        return self._wide(rows)

    @cached_property
    def k(self) -> tuple[Tensor, ...]:
        """The wavenumbers of each axis, float64, shaped to broadcast with coefficients."""
        return tuple(2 * math.pi / a * m for m, a in zip(self.modes, self.length, strict=True))

    @cached_property
    def k2(self) -> Tensor:
        """|k|^2 of each coefficient: minus the Laplacian's symbol."""
        return sum((k * k for k in self.k), torch.zeros(self.shape, dtype=torch.float64))

    def d(self, axis: int = 0, order: int = 1) -> Tensor:
        """The symbol (i k)^order of a derivative: real if the order is even."""
        k = self.k[axis] ** order
        return k * (-1.0) ** (order // 2) if order % 2 == 0 else 1j * k * (-1.0) ** (order // 2)

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
        damped = [
            torch.exp(-SMOOTH * (2 * m.abs() / n) ** 36) for m, n in zip(self.modes, self.n, strict=True)
        ]
        return math.prod(damped[1:], start=damped[0])  # type: ignore[arg-type]

    def enter(self, x: Tensor, *, kept: bool = True) -> Tensor:
        """The coefficients [..., *shape] of a field [..., *n].

        kept: whether modes that are not kept are cut off along the first axis too.

        Raises:
            ArgumentError: another number of points, or a complex field where it should be real.
        """
        self._fits(x)
        c = x
        for axis in self.axes[::-1]:
            if self._half(axis):
                c = torch.fft.rfft(c, norm="forward")[..., : self.highest[-1] + 1]
                continue
            c = torch.fft.fft(c, dim=axis, norm="forward")
            if kept or axis > -self.dim:
                c = self._kept(c, axis)
        return c

    def leave(self, c: Tensor) -> Tensor:
        """The field [..., *n] of coefficients."""
        for axis in self.axes[: -1 if self.real else None]:
            c = torch.fft.ifft(self._padded(c, axis), dim=axis, norm="forward")
        return torch.fft.irfft(c, self.n[-1], norm="forward") if self.real else c

    @cached_property
    def squares(self) -> Tensor:
        """Mean square of the mode of each coefficient, with its conjugate where that is not kept."""
        return torch.where(self.modes[-1] > 0, 2.0, 1.0) if self.real else torch.ones_like(self.modes[-1])

    def norm(self, c: Tensor) -> Tensor:
        """Root mean square [B] of the fields of coefficients [B, ..., *shape], by Parseval's equation."""
        each = c.abs().square()
        fields = c[0].numel() / math.prod(self.shape)
        return ((each * self.squares.to(each)).flatten(1).sum(1) / fields).sqrt()

    def _fits(self, x: Tensor) -> None:
        if x.ndim < self.dim or tuple(x.shape[-self.dim :]) != self.n:
            raise ArgumentError(f"a field {tuple(x.shape)} on {self.n} points: it must end in {list(self.n)}")
        if self.real and x.is_complex():
            raise ArgumentError("a complex field where real ones are expected: Fourier(..., real=False)")

    def _half(self, axis: int) -> bool:
        return self.real and axis % self.dim == self.dim - 1

    def _kept(self, c: Tensor, axis: int) -> Tensor:
        top, n = self.highest[axis], self.n[axis]
        return torch.cat([c.narrow(axis, 0, top + 1), c.narrow(axis, n - top, top)], axis)

    def _padded(self, c: Tensor, axis: int) -> Tensor:
        top, n = self.highest[axis], self.n[axis]
        gap = list(c.shape)
        gap[axis] = n - 2 * top - 1
        return torch.cat([c.narrow(axis, 0, top + 1), c.new_zeros(gap), c.narrow(axis, top + 1, top)], axis)

    def _wide(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(row.view(-1, *(1,) * (self.dim - 1 - axis)) for axis, row in enumerate(rows))
