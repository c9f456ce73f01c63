"""Random fields: functions of (seed, sample, wavenumber), whatever grid they are seen on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, positive, whole
from ..noise import seed_of
from ..sde.brownian import FIELDS, keys, normals
from .box import Box
from .fourier import Fourier

WORD = 18  # bits of a mode's number along an axis: 62 are those of three axes and of a component
POINTS = 8  # to the shortest wave, of the grid that a peak is looked for on


@dataclass(frozen=True)
class RandomField:
    """Gaussian random fields on a periodic box, called with (samples, seed):

        g(x) = sum_k sqrt(S(|k|)) z_k e^(i k x),       k not 0,

    z_k a complex unit normal that is a function of (seed, sample, component, k) alone: a sample is the same
    function on every grid that holds its modes, and in every batch. Of a real field z_-k is z_k's conjugate.
    Between walls the waves are cosines and sines, k = pi m/length, which begin with half a wave.

    spectrum: S, a function of the wavelengths to the longest side of the box, q = |k| length/(2 pi), up to a
    factor.  highest: S is 0 above this q; None: fields have all the modes that a grid keeps, so that a finer
    grid adds some.  components: of a field, () or (C,), drawn independently.
    std: of a field's values over all samples; so it stays Gaussian.  peak: each sample is scaled to this
    largest |g| instead, on a grid of its own of 8 points to the shortest wave.  between: g goes through its
    distribution function, after which values are uniform on this interval (a, b) and never leave it.
    mean: added.  through: what is made of fields [B, *components, *n] in the end, by a function that has a
    name.  name: what a data set says of the spectrum.

    Raises:
        ArgumentError: two of std, peak and between, or one that no field can have.
    """

    space: Fourier
    spectrum: Callable[[Tensor], Tensor]
    highest: float | None = None
    components: tuple[int, ...] = ()
    std: float | None = None
    peak: float | None = None
    between: tuple[float, float] | None = None
    mean: float = 0.0
    through: Callable[[Tensor], Tensor] | None = None
    name: str = "custom spectrum"

    def __post_init__(self) -> None:
        scales = {"std": self.std, "peak": self.peak, "between": self.between}
        if len(given := [name for name, value in scales.items() if value is not None]) > 1:
            raise ArgumentError(f"{' and '.join(given)}: a field is scaled in one way")
        for name in ("std", "peak"):
            if scales[name] is not None:
                positive(name, scales[name])
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ArgumentError(f"between = {self.between}: two rising values")
        if self.between is not None and not self.space.real:
            raise ArgumentError("between= is for real fields: scale complex ones by std or peak")
        finite("mean", self.mean)

    def __str__(self) -> str:
        scale = (
            f"peak {self.peak:g}" if self.peak is not None
            else f"uniform between {self.between[0]:g} and {self.between[1]:g}" if self.between is not None
            else f"std {1.0 if self.std is None else self.std:g}"
        )  # fmt: skip
        mean = f", mean {self.mean:g}" if self.mean else ""
        return f"{self.name}, {scale}{mean}" + (f", {self.through.__name__}" if self.through else "")

    def __call__(self, samples: int | Sequence[int], seed: int | torch.Generator = 0) -> Tensor:
        """Fields [B, *components, *n] of samples 0 .. samples - 1, or of these; float64 or complex128.

        Raises:
            ArgumentError: a wave that the space does not keep, or none that it does.
        """
        if isinstance(samples, str) or not isinstance(samples, Iterable):
            samples = range(whole("samples", samples, 1))
        key = keys(seed_of(seed), FIELDS, max(samples, default=0) + 1)[list(samples)]
        g = self.space.leave(self._coefficients(self.space, key))
        if self.peak is not None:
            found = self._fine.leave(self._coefficients(self._fine, key)).abs()
            g = g * (self.peak / found.flatten(1).amax(1).view(-1, *(1,) * (g.ndim - 1)))
        elif self.between is not None:
            low, high = self.between
            g = low + (high - low) * torch.special.ndtr(g)
        elif self.std is not None:
            g = g * self.std
        g = g + self.mean
        return g if self.through is None else self.through(g)

    def _coefficients(self, space: Fourier, key: Tensor) -> Tensor:
        """[B, *components, *K], of variance 1 at every point."""
        counters, S, side = self._drawn(space)
        kept = S > 0
        if not bool(kept.any()):
            raise ArgumentError(f"{self}: no wave on {space.n} points is in the spectrum")
        which = torch.arange(math.prod(self.components)).unsqueeze(-1) << (3 * WORD)
        a, b = normals(key[:, None, None], counters[kept] + which)
        turn = side[kept]  # 0: its own conjugate
        z = torch.complex(a, b * turn) / torch.where(turn == 0, 1.0, math.sqrt(2))
        z = (z if space.periodic or not space.real else z.real) * S[kept].sqrt()
        c = z.new_zeros(len(key), len(which), *space.shape)
        c[..., kept] = z
        return c.reshape(len(key), *self.components, *space.shape)

    @cached_property
    def _fine(self) -> Fourier:
        """A grid on which a peak is the same whatever n is."""
        space = self.space
        top = max(float(k.max()) for k in space.k) if self.highest is None else self.highest * _unit(space)
        n = [max(8, math.ceil(POINTS * top * a / (2 * math.pi))) for a in space.length]
        if isinstance(space, Box):
            return Box(space.length, n, space.walls, real=space.real, dealias=1.0)
        return Fourier(space.length, n, real=space.real, dealias=1.0)

    def _drawn(self, space: Fourier) -> tuple[Tensor, Tensor, Tensor]:
        """Of each mode: its counter; its variance; 1, or -1 where it is the conjugate of the one that is
        counted, or 0 where it is its own.
        """
        if self.highest is not None and self.highest > (most := most_waves(space)) + 1e-9:
            raise ArgumentError(
                f"waves up to {self.highest:g} to the longest side: {space.n} points keep those up to "
                f"{most:g}; take more points, or fewer waves"
            )
        modes = torch.broadcast_tensors(*(m.to(torch.int64) for m in space.modes))
        side, around = torch.zeros_like(modes[0]), [axis % space.dim for axis in space.periodic]
        for axis in reversed(around):  # k and -k have one counter
            side = torch.where(side == 0, modes[axis].sign(), side)
        if not space.real:
            side = torch.ones_like(side)
        counter = torch.zeros_like(side)
        for axis, m in enumerate(modes):
            counter = (counter << WORD) + (torch.where(side < 0, -m, m) if axis in around else m)
            counter = counter + 2 ** (WORD - 1)
        q = space.k2.sqrt() / _unit(space)
        S = torch.where(q > 0, self.spectrum(q.clamp_min(1e-300)), 0.0)
        if self.highest is not None:
            S = torch.where(q <= self.highest + 1e-9, S, 0.0)
        for axis in set(range(space.dim)) - set(around):
            if space.walls[axis] == "dirichlet":
                S = torch.where(modes[axis] > 0, S, 0.0)  # sin 0 is nothing
        return counter, S / (S * space.squares).sum(), side


def _unit(space: Fourier) -> float:
    """The wavenumber of one wave to the longest side."""
    return 2 * math.pi / max(space.length)


def most_waves(space: Fourier) -> float:
    """The most waves to the longest side that a space keeps in every direction."""
    return min(float(k.max()) for k in space.k) / _unit(space)


def band(space: Fourier, low: float = 1.0, high: float | None = None, **how: object) -> RandomField:
    """Waves low <= q <= high to the longest side, all alike: from low = 1, a truncated Fourier series.

    high: default 5, or less where the space keeps less.  how: components, and std, peak or between, mean,
    through, as `RandomField` has them. Raises what it does.
    """
    high = max(low, min(5.0, most_waves(space))) if high is None else high
    if not 0 <= finite("low", low) <= finite("high", high):
        raise ArgumentError(f"low = {low}, high = {high}: rising, from 0")

    def flat(q: Tensor) -> Tensor:
        return (q >= low - 1e-9).double()

    return RandomField(space, flat, high, name=f"waves {low:g} to {high:g}", **how)  # type: ignore[arg-type]


def power_law(
    space: Fourier, exponent: float = 4.0, highest: float | None = None, **how: object
) -> RandomField:
    """S = q^-exponent. A field in d dimensions has (exponent - d)/2 square-integrable derivatives."""
    finite("exponent", exponent)
    return RandomField(
        space, lambda q: q**-exponent, highest, name=_cut(f"power law {exponent:g}", highest), **how,  # type: ignore[arg-type]
    )  # fmt: skip


def matern(
    space: Fourier, nu: float = 1.5, scale: float = 0.1, highest: float | None = None, **how: object
) -> RandomField:
    """S = (2 nu/scale^2 + |k|^2)^-(nu + d/2) with the longest side as the unit of length: Matern covariances.

    nu: how often fields can be differentiated.  scale: how far values know of each other. With nu = 1.5 and
    sqrt(2 nu)/scale = 7 this is the covariance (-Laplacian + 49)^-5/2 of Li et al. 2021 (Whittle 1954).
    """
    positive("nu", nu)
    positive("scale", scale)
    power = nu + space.dim / 2

    def spectrum(q: Tensor) -> Tensor:
        return (2 * nu / scale**2 + (2 * math.pi * q) ** 2) ** -power

    return RandomField(
        space, spectrum, highest, name=_cut(f"Matern nu {nu:g}, scale {scale:g}", highest), **how,  # type: ignore[arg-type]
    )  # fmt: skip


def _cut(name: str, highest: float | None) -> str:
    return name if highest is None else f"{name}, waves up to {highest:g}"
