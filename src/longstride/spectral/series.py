"""Series along one axis: periodic, cosine, sine. A `Box` is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache

import torch
from torch import Tensor


class Series:
    """n points and modes up to `top` on [0, length], the share of all that is kept.

    period: of the series, in lengths.
    """

    period = 1
    sign: complex  # the derivative multiplies coefficients by sign k
    turn = 0  # which transforms of a field come first

    def __init__(self, length: float, n: int, share: float) -> None:
        self.length, self.n = length, n
        self.top = math.ceil(share * n * self.period / 2 - 1e-9) - 1

    @property
    def x(self) -> Tensor:
        """The points [n], float64."""
        raise NotImplementedError

    @cached_property
    def modes(self) -> Tensor:
        """m of each coefficient, float64."""
        return torch.arange(self.top + 1, dtype=torch.float64)

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

    def enter(self, u: Tensor, axis: int) -> Tensor:
        if self.half:
            return torch.fft.rfft(u, dim=axis, norm="forward").narrow(axis, 0, self.top + 1)
        c = torch.fft.fft(u, dim=axis, norm="forward")
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

    Transforms of type 2 and 3, by one real FFT of n points (Makhoul 1980).
    """

    period = 2
    sign = -1.0

    @property
    def x(self) -> Tensor:
        return (torch.arange(self.n, dtype=torch.float64) + 0.5) * (self.length / self.n)

    def enter(self, u: Tensor, axis: int) -> Tensor:
        return _apart(lambda v: cosines(v, self.top), u, axis)

    def leave(self, c: Tensor, axis: int) -> Tensor:
        return _apart(lambda v: summed(v, self.n), c, axis)


class Sine(Cosine):
    """sum c_m sin(pi m x/length), at the points of `Cosine`: u = 0 at both walls. c_0 is there and is 0.

    sin(pi m x_j/length) = (-1)^j cos(pi (n - m) x_j/length): a cosine transform of (-1)^j u, read backward.
    """

    sign = 1.0

    def enter(self, u: Tensor, axis: int) -> Tensor:
        def forward(v: Tensor) -> Tensor:
            c = cosines(v * _alternating(v), self.n - 1).flip(-1)[..., : self.top]
            return torch.nn.functional.pad(c, (1, 0))

        return _apart(forward, u, axis)

    def leave(self, c: Tensor, axis: int) -> Tensor:
        def backward(v: Tensor) -> Tensor:
            padded = torch.nn.functional.pad(v[..., 1:], (0, self.n - self.top))
            u = summed(padded.flip(-1), self.n)
            return u * _alternating(u)

        return _apart(backward, c, axis)


def cosines(u: Tensor, top: int) -> Tensor:
    """c_0 .. c_top of u [..., n], u_j = sum_m c_m cos(pi m (j + 1/2)/n).

    v is u_0, u_2, ..., then the odd ones backward. With V its discrete Fourier transform, the real part of
    e^(-i pi m/2n) V_m is sum_j u_j cos(pi m (j + 1/2)/n) (Makhoul 1980), and V_(n-m) is the conjugate of V_m.
    """
    n = u.shape[-1]
    V = torch.fft.rfft(torch.cat([u[..., ::2], u[..., 1::2].flip(-1)], -1), norm="forward")
    V = V * _twist(n, V.dtype, V.device).conj()
    # Of m and n - m: the real part and minus the imaginary part.
    c = torch.cat([V.real, -V.imag[..., 1 : (n + 1) // 2].flip(-1)], -1)[..., : top + 1]
    return torch.cat([c[..., :1], 2 * c[..., 1:]], -1)


def summed(c: Tensor, n: int) -> Tensor:
    """u [..., n] of coefficients c_0 .. c_top: `cosines` undone."""
    c = torch.nn.functional.pad(c, (0, n + 1 - c.shape[-1])) / 2
    half = n // 2 + 1
    real, imaginary = c[..., :half], c.flip(-1)[..., :half]
    real = torch.cat([2 * real[..., :1], real[..., 1:]], -1)
    V = torch.complex(real, -imaginary)
    v = torch.fft.irfft(V * _twist(n, V.dtype, V.device), n, norm="forward")
    u = torch.empty_like(v)
    u[..., ::2], u[..., 1::2] = v[..., : (n + 1) // 2], v[..., (n + 1) // 2 :].flip(-1)
    return u


@lru_cache(maxsize=64)
def _twist(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """e^(i pi m/2n), m = 0 .. n//2."""
    angle = torch.arange(n // 2 + 1, dtype=torch.float64) * (math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle).to(device, dtype)


def _alternating(like: Tensor) -> Tensor:
    """1, -1, 1, ..."""
    return 1.0 - 2.0 * (torch.arange(like.shape[-1], device=like.device) % 2).to(like.dtype)


def _zeros(c: Tensor, axis: int, count: int) -> Tensor:
    shape = list(c.shape)
    shape[axis] = count
    return c.new_zeros(shape)


def _apart(transform: Callable[[Tensor], Tensor], u: Tensor, axis: int) -> Tensor:
    """A transform of real numbers along the last axis, of u along this one, its real and imaginary part."""
    u = u.movedim(axis, -1)
    found = torch.complex(transform(u.real), transform(u.imag)) if u.is_complex() else transform(u)
    return found.movedim(-1, axis)
