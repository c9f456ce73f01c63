"""Series along one axis: periodic, cosine, sine, quarter waves. A `Box` is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Series:
    """n points and modes up to `top` on [0, length], the share of all that is kept.

    period: of the series, in lengths.
    """

    period = 1
    shift = 0.0  # of mode numbers from whole ones
    sign: complex  # the derivative multiplies coefficients by sign k
    turn = 0  # which transforms of a field come first
    half = False  # whether coefficients stand for their conjugates too

    def __init__(self, length: float, n: int, share: float) -> None:
        self.length, self.n = length, n
        self.top = math.ceil(share * n * self.period / 2 - self.shift - 1e-9) - 1

    @property
    def x(self) -> Tensor:
        """The points [n], float64."""
        raise NotImplementedError

    @cached_property
    def modes(self) -> Tensor:
        """m of each coefficient, float64."""
        return torch.arange(self.top + 1, dtype=torch.float64) + self.shift

    @property
    def square(self) -> Tensor:
        """Mean square of each mode, with those that its coefficient stands for."""
        return torch.ones_like(self.modes)

    @property
    def k(self) -> Tensor:
        """The wavenumbers."""
        return 2 * math.pi / (self.period * self.length) * self.modes

    def enter(self, u: Tensor, axis: int) -> Tensor:
        raise NotImplementedError

    def leave(self, c: Tensor, axis: int) -> Tensor:
        raise NotImplementedError


class Periodic(Series):
    """sum c_m e^(2 pi i m x/length), at x_j = j length/n; of a real field, the modes m >= 0 where `half`."""

    sign = 1j

    def __init__(self, length: float, n: int, share: float, half: bool) -> None:
        super().__init__(length, n, share)
        self.half, self.turn = half, 1 if half else 2

    @property
    def x(self) -> Tensor:
        return torch.arange(self.n, dtype=torch.float64) * (self.length / self.n)

    @cached_property
    def modes(self) -> Tensor:
        m = torch.arange(self.top + 1, dtype=torch.float64)
        return m if self.half else torch.cat([m, -m[1:].flip(0)])

    @property
    def square(self) -> Tensor:
        return 1.0 + (self.modes > 0) if self.half else torch.ones_like(self.modes)

    def enter(self, u: Tensor, axis: int) -> Tensor:
        if self.half:
            return torch.fft.rfft(u, dim=axis, norm="forward").narrow(axis, 0, self.top + 1)
        return self.kept(torch.fft.fft(u, dim=axis, norm="forward"), axis)

    def kept(self, c: Tensor, axis: int) -> Tensor:
        """Of all n modes."""
        return torch.cat([c.narrow(axis, 0, self.top + 1), c.narrow(axis, self.n - self.top, self.top)], axis)

    def leave(self, c: Tensor, axis: int) -> Tensor:
        if self.half:
            return torch.fft.irfft(c, self.n, dim=axis, norm="forward")
        low, high = c.narrow(axis, 0, self.top + 1), c.narrow(axis, self.top + 1, self.top)
        return torch.fft.ifft(
            torch.cat([low, _zeros(c, axis, self.n - 2 * self.top - 1), high], axis), dim=axis, norm="forward"
        )


class Cosine(Series):
    """sum c_m cos(pi m x/length), at x_j = (j + 1/2) length/n: u_x = 0 at both walls.

    Transforms of type 2 and 3, by one real FFT of n points (Makhoul 1980). With v = u_0, u_2, ..., u_3, u_1
    and V its discrete Fourier transform over n, e^(-i pi m/2n) V_m is (C_m - i C_(n-m))/2, where C_m is twice
    the mean of u_j cos(pi m (j + 1/2)/n): c_m, or 2 c_0.
    """

    period = 2
    sign = -1.0
    odd = False

    @property
    def x(self) -> Tensor:
        return (torch.arange(self.n, dtype=torch.float64) + 0.5) * (self.length / self.n)

    @property
    def square(self) -> Tensor:
        return 1 / (1.0 + (self.modes > 0))

    def enter(self, u: Tensor, axis: int) -> Tensor:
        return _apart(self._forward, u, axis)

    def leave(self, c: Tensor, axis: int) -> Tensor:
        return _apart(self._backward, c, axis)

    def _forward(self, u: Tensor) -> Tensor:
        t = tables(self.n, self.top, self.odd, u.dtype, u.device)
        v = _picked(u, t.order)
        V = torch.fft.rfft(v * t.turn if self.odd else v, norm="forward") * t.twist.conj()
        return _picked(torch.view_as_real(V).flatten(-2), t.found) * t.doubled

    def _backward(self, c: Tensor) -> Tensor:
        t = tables(self.n, self.top, self.odd, c.dtype, c.device)
        pairs = (_picked(c, t.wanted) * t.halved).unflatten(-1, (-1, 2))
        v = torch.fft.irfft(torch.view_as_complex(pairs) * t.twist, self.n, norm="forward")
        return _picked(v * t.turn if self.odd else v, t.back)


class Sine(Cosine):
    """sum c_m sin(pi m x/length), at the points of `Cosine`: u = 0 at both walls. c_0 is there and is 0.

    sin(pi m x_j/length) = (-1)^j cos(pi (n - m) x_j/length): a cosine transform of (-1)^j u, read backward.
    """

    sign = 1.0
    odd = True


class QuarterCosine(Series):
    """sum c_m cos(pi (m + 1/2) x/length), at the points of `Cosine`: u_x = 0 at 0 and u = 0 at length.

    Both ways are one transform, of type 4, C_m = sum_j u_j cos(pi (2m + 1)(2j + 1)/4n), by one complex FFT of
    n points: with v = u_0, u_2, ..., -u_3, -u_1 every term is v_p cos(pi (2m + 1)(4p + 1)/4n), the real part
    of e^(-i pi (2m + 1)/4n) times the FFT of v_p e^(-i pi p/n). c = 2 C/n, and u is C of c.
    """

    period = 2
    shift = 0.5
    sign = -1.0
    odd = False

    @property
    def x(self) -> Tensor:
        return (torch.arange(self.n, dtype=torch.float64) + 0.5) * (self.length / self.n)

    @property
    def square(self) -> Tensor:
        return torch.full_like(self.modes, 0.5)

    def enter(self, u: Tensor, axis: int) -> Tensor:
        return _apart(lambda v: self._turned(v, self.top + 1) * (2 / self.n), u, axis)

    def leave(self, c: Tensor, axis: int) -> Tensor:
        return _apart(lambda v: self._turned(pad(v, (0, self.n - self.top - 1)), self.n), c, axis)

    def _turned(self, u: Tensor, wanted: int) -> Tensor:
        order, turn, twist = quarters(self.n, self.odd, u.dtype, u.device)
        V = torch.fft.fft(_picked(u, order) * turn)[..., :wanted]
        return (V * twist[:wanted]).real


class QuarterSine(QuarterCosine):
    """sum c_m sin(pi (m + 1/2) x/length), at the points of `Cosine`: u = 0 at 0 and u_x = 0 at length.

    As there, with v = u_0, u_2, ..., u_3, u_1 and minus the imaginary part.
    """

    sign = 1.0
    odd = True


@lru_cache(maxsize=64)
def quarters(n: int, odd: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """u_j as v but for signs; e^(-i pi p/n) with these; e^(-i pi (2m + 1)/4n), times i for sines."""
    j, p = torch.arange(n), torch.arange(n, dtype=torch.float64)
    order = torch.cat([j[::2], j[1::2].flip(0)])
    signs = torch.ones_like(p) if odd else 1.0 - 2.0 * (order % 2)
    twist = torch.polar(torch.ones_like(p), odd * math.pi / 2 - math.pi * (2 * p + 1) / (4 * n))
    turn = torch.polar(torch.ones_like(p), -math.pi * p / n) * signs
    kind = dtype.to_complex()
    return order.to(device), turn.to(device, kind), twist.to(device, kind)


class Tables(NamedTuple):
    """order, back: u_j as v, and back.  turn: (-1)^j, in the order of v.  twist: e^(i pi m/2n).

    found, doubled: where c_m stands among the real and imaginary parts of e^(-i pi m/2n) V_m, and its factor.
    wanted, halved: which c stands there, and its factor: 0 where none does.
    """

    order: Tensor
    back: Tensor
    turn: Tensor
    twist: Tensor
    found: Tensor
    doubled: Tensor
    wanted: Tensor
    halved: Tensor


@lru_cache(maxsize=64)
def tables(n: int, top: int, odd: bool, dtype: torch.dtype, device: torch.device) -> Tables:
    j, r = torch.arange(n), torch.arange(n // 2 + 1)
    order = torch.cat([j[::2], j[1::2].flip(0)])
    angle = r.to(torch.float64) * (math.pi / (2 * n))
    m = torch.arange(top + 1)
    q = n - m if odd else m  # the cosine that m is
    found = torch.where(q <= n // 2, 2 * q, 2 * (n - q) + 1) * (q < n)
    doubled = torch.where(q <= n // 2, 2.0, -2.0) * (q < n) / (1.0 + (q == 0))
    q = torch.stack([r, n - r], -1).flatten()  # the cosine of each part
    wanted = n - q if odd else q
    kept = (q < n) & (wanted <= top)
    halved = torch.where(torch.arange(len(q)) % 2 == 0, 0.5, -0.5) * kept * (1.0 + (q == 0))
    return Tables(
        order.to(device),
        order.argsort().to(device),
        (1.0 - 2.0 * (order % 2)).to(device, dtype),
        torch.polar(torch.ones_like(angle), angle).to(device, dtype.to_complex()),
        found.to(device),
        doubled.to(device, dtype),
        (wanted * kept).to(device),
        halved.to(device, dtype),
    )


def _picked(v: Tensor, index: Tensor) -> Tensor:
    """v[..., index], several times as fast as written so."""
    return v.gather(-1, index.expand(*v.shape[:-1], -1))


def _zeros(c: Tensor, axis: int, count: int) -> Tensor:
    shape = list(c.shape)
    shape[axis] = count
    return c.new_zeros(shape)


def _apart(transform: Callable[[Tensor], Tensor], u: Tensor, axis: int) -> Tensor:
    """A transform of real numbers along the last axis, of u along this one, its real and imaginary part."""
    u = u.movedim(axis, -1)
    found = torch.complex(transform(u.real), transform(u.imag)) if u.is_complex() else transform(u)
    return found.movedim(-1, axis)
