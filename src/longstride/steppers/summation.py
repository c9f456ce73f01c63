"""Sums that remember what rounding takes from them."""

from __future__ import annotations

from torch import Tensor


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b rounded, and what it lacks, exactly (Moller 1965; Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
