"""The error of a solver: how far it ends from the converged solution from the same noise."""

from __future__ import annotations

from torch import Tensor

from ..errors import ArgumentError


def endpoint_error(x: Tensor, reference: Tensor) -> float:
    """Root mean square of x - reference, [n, *shape] both, over elements and samples.

    Raises:
        ArgumentError: shapes that differ, which broadcasting would hide.
    """
    if x.shape != reference.shape:
        raise ArgumentError(f"samples {list(x.shape)} and reference {list(reference.shape)} differ in shape")
    return (x.double() - reference.double()).square().mean().sqrt().item()
