"""Sums of waves: equations are written with them as in a book, and no grid and no transform takes part."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

F64 = torch.float64
Mode = tuple[int, ...]


@dataclass(frozen=True)
class Waves:
    """u(x) = sum_m c_m e^(2 pi i m.x/length): sums, products and derivatives of such are such."""

    terms: dict[Mode, complex]
    length: float

    def __call__(self, *x: Tensor) -> Tensor:
        """At points, complex."""
        total = torch.zeros(torch.broadcast_shapes(*(s.shape for s in x)), dtype=torch.complex128)
        for mode, c in self.terms.items():
            angle = sum(2 * math.pi / self.length * m * s for m, s in zip(mode, x, strict=True))
            total = total + c * torch.polar(torch.ones_like(total.real), angle + torch.zeros_like(total.real))
        return total

    def d(self, *axes: int) -> Waves:
        """u_x is d(0), u_xy d(0, 1)."""
        terms = dict(self.terms)
        for axis in axes:
            terms = {m: 2j * math.pi / self.length * m[axis] * c for m, c in terms.items()}
        return Waves(terms, self.length)

    @property
    def dim(self) -> int:
        return len(next(iter(self.terms)))

    @property
    def laplacian(self) -> Waves:
        return sum((self.d(i, i) for i in range(self.dim)), 0)

    @property
    def conj(self) -> Waves:
        return Waves({_added(m, m, -2): c.conjugate() for m, c in self.terms.items()}, self.length)

    def _wave(self, other: Waves | complex) -> Waves:
        return other if isinstance(other, Waves) else Waves({(0,) * self.dim: other}, self.length)

    def __add__(self, other: Waves | complex) -> Waves:
        terms = defaultdict(complex, self.terms)
        for m, c in self._wave(other).terms.items():
            terms[m] += c
        return Waves(dict(terms), self.length)

    def __mul__(self, other: Waves | complex) -> Waves:
        terms: dict[Mode, complex] = defaultdict(complex)
        for n, b in self._wave(other).terms.items():
            for m, c in self.terms.items():
                terms[_added(m, n)] += b * c
        return Waves(dict(terms), self.length)

    def __neg__(self) -> Waves:
        return self * -1.0

    def __sub__(self, other: Waves | complex) -> Waves:
        return self + (-other)

    def __rsub__(self, other: complex) -> Waves:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


def _added(m: Mode, n: Mode, times: int = 1) -> Mode:
    return tuple(i + times * j for i, j in zip(m, n, strict=True))


def waves(dim: int, length: float, highest: int, real: bool, seed: int) -> Waves:
    """A few waves with |m| <= highest along each axis, and a mean."""
    generator = torch.Generator().manual_seed(seed)
    modes = torch.randint(-highest, highest + 1, (5, dim), generator=generator).tolist()
    sizes = torch.randn(5, dtype=torch.complex128, generator=generator).tolist()
    u = sum((Waves({tuple(m): c / 3}, length) for m, c in zip(modes, sizes, strict=True)), 0) + 0.3
    return u + u.conj if real else u
