"""What a field holds at each wavenumber."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ArgumentError, positive


def energy_spectrum(x: Tensor, length: float | Sequence[float]) -> tuple[Tensor, Tensor]:
    """Wavenumbers k [S] and E(k) [..., S] of periodic fields x [..., *n], real or complex, in 1 to 3
    dimensions.

    E is the sum of |c_m|^2 over the modes whose wave vectors are about as long as k, within half a shell: c
    are the coefficients of the Fourier series. By Parseval's theorem the shells sum to the mean of |x|^2, so
    for the components of a velocity E/2 summed over them is kinetic energy. Shells are as wide as the largest
    of 2 pi/length, so that every axis has modes in each; they go to the corner of the box of wave vectors,
    those above the smallest pi n/length are not full.

    length: of the box, a number for each axis; one number is 1D. `space.length` of a PDE has them.

    Raises:
        ArgumentError: a length that is not positive, or more of them than axes.
    """
    lengths = [positive("length", a) for a in (length if isinstance(length, Sequence) else [length])]
    dim = len(lengths)
    if not 1 <= dim <= x.ndim:
        raise ArgumentError(f"{dim} lengths and a field {list(x.shape)}: one for each of its last axes")
    n, width = x.shape[-dim:], 2 * math.pi / min(lengths)
    shell = _distance(n, [2 * math.pi / a / width for a in lengths]).round().long().to(x.device)
    power = torch.fft.fftn(x, dim=tuple(range(-dim, 0)), norm="forward").abs().square()
    count = int(shell.max()) + 1
    E = power.new_zeros(*power.shape[:-dim], count)
    k = width * torch.arange(count, dtype=E.dtype, device=x.device)
    return k, E.index_add(-1, shell.flatten(), power.flatten(-dim))


def spectrum_error(E: Tensor, reference: Tensor) -> Tensor:
    """|ln(E/reference)| of each shell [..., S]: 0.1 is about 10 %, whatever the shell holds.

    What it holds below the round-off of its transform, epsilon^2 of the reference's whole, is nobody's error:
    both get that much more. Average spectra over times and samples first if the flow is chaotic.

    Raises:
        ArgumentError: shells that differ in number.
    """
    if E.shape[-1] != reference.shape[-1]:
        raise ArgumentError(f"{E.shape[-1]} and {reference.shape[-1]} shells: take fields on the same grid")
    floor = torch.finfo(reference.dtype).eps ** 2 * reference.sum(-1, keepdim=True)
    return ((E + floor) / (reference + floor)).log().abs()


def _distance(n: Sequence[int], steps: Sequence[float]) -> Tensor:
    """How long the wave vector of each mode is, [*n]."""
    axes = [torch.fft.fftfreq(m, 1 / m, dtype=torch.float64) * step for m, step in zip(n, steps, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
