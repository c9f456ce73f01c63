"""How long a predicted trajectory follows the true one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ArgumentError, finite


def relative_error(x: Tensor, reference: Tensor, dim: int | None = None) -> Tensor:
    """|x - reference| / |reference|, L2 norms of each field at each time, [T, B, *fields].

    x, reference: [T, B, *fields, *n], as `sol.x`.  dim: how many axes n has. Without it all that is behind
    [T, B] is one field. The points must be equidistant: then sums stand for integrals.

    Raises:
        ArgumentError: shapes that differ, or fewer axes than that.
    """
    x, reference = _flat(x, reference, dim)
    return _norm(x - reference) / _norm(reference)


def correlation(x: Tensor, reference: Tensor, dim: int | None = None) -> Tensor:
    """Pearson's correlation of each field with the reference's at each time, [T, B, *fields].

    Re <x', r'>/(|x'| |r'|), where x' and r' are x and reference without their means. So it is at most 1, a
    constant added to a field or a positive factor does not change it, and of two waves of one length it is
    the cosine of the phase between them. NaN where a field is constant. Arguments and errors are those of
    `relative_error`.
    """
    x, reference = (v - v.mean(-1, keepdim=True) for v in _flat(x, reference, dim))
    product = (x * reference.conj()).sum(-1).real if x.is_complex() else (x * reference).sum(-1)
    return product / (_norm(x) * _norm(reference))


def high_correlation_time(t: Sequence[float] | Tensor, correlation: Tensor, threshold: float = 0.8) -> Tensor:
    """When a correlation [T, ...] first falls below the threshold, [...]; infinity where it never does.

    Straight lines between the times t [T]; t[0] where it begins below. NaN is below everything: then it is
    the last time before. For a mean over samples, end at the last time: `.clamp(max=t[-1])`. (Kochkov et al.
    2021 and PDE-Refiner, P045, with 0.8.)

    Raises:
        ArgumentError: times that do not rise, or not one for each correlation.
    """
    threshold = finite("threshold", threshold)
    times = torch.as_tensor(t).to(correlation)
    if not correlation.ndim or times.shape != correlation.shape[:1] or bool((times.diff() <= 0).any()):
        raise ArgumentError(f"t {tuple(times.shape)}: rising times, one for each of {len(correlation)}")
    c = correlation.nan_to_num(nan=-torch.inf)
    below = c < threshold
    first = below.int().argmax(0, keepdim=True)  # the first of the largest
    before = (first - 1).clamp_min(0)
    high, low = c.gather(0, before), c.gather(0, first)
    fallen = (high - threshold) / (high - low).where(first > 0, torch.ones_like(high))
    crossed = times[before] + fallen.where(first > 0, 0.0) * (times[first] - times[before])
    return crossed.where(below.any(0), torch.inf)[0]


def _flat(x: Tensor, reference: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    """Both with each field in one axis, [T, B, *fields, N]."""
    if x.shape != reference.shape:
        raise ArgumentError(f"fields {list(x.shape)} and reference {list(reference.shape)} differ in shape")
    axes = x.ndim - 2 if dim is None else dim
    if not 1 <= axes <= x.ndim - 2:
        raise ArgumentError(f"fields {list(x.shape)}, dim = {dim}: [T, B, *fields, *n], n of 1 axis or more")
    return x.flatten(-axes), reference.flatten(-axes)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)
