"""The error of a solver: how far it ends from the converged solution from the same noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError


def endpoint_error(x: Tensor, reference: Tensor) -> float:
    """Root mean square of x - reference, [n, *shape] both, over elements and samples.

    Raises:
        ArgumentError: shapes that differ, which broadcasting would hide.
    """
    return squared_errors(x, reference).mean().sqrt().item()


def squared_errors(x: Tensor, reference: Tensor) -> Tensor:
    """Mean square of x - reference over the elements of each sample [n], float64; `endpoint_error` squared
    is its mean.
    """
    if x.shape != reference.shape:
        raise ArgumentError(f"samples {list(x.shape)} and reference {list(reference.shape)} differ in shape")
    return (x.double() - reference.double()).square().flatten(1).mean(1).cpu()


def interval(squares: Tensor, others: Tensor | None = None, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the error of samples with these `squared_errors` [n].

    With `others`, of the same samples under another solver: of the ratio of the two errors, paired, so that
    noises which are hard for both do not count against either. Resampled with a seed of its own.
    """
    rows = torch.from_numpy(np.random.default_rng(0).integers(len(squares), size=(draws, len(squares))))
    found = squares[rows].mean(1)
    if others is not None:
        found = found / others[rows].mean(1)
    low, high = found.sqrt().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def resampled(
    error: Callable[[Tensor, Tensor], float], x: Tensor, truth: Tensor, others: Tensor | None = None,
    draws: int = 200,
) -> tuple[float, float]:  # fmt: skip
    """The same of an error(x, truth) that is no mean over samples; with others, of its ratio to theirs."""
    rows = torch.from_numpy(np.random.default_rng(0).integers(len(x), size=(draws, len(x))))
    found = [
        error(x[some], truth[some]) / (1.0 if others is None else error(others[some], truth[some]))
        for some in rows
    ]
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return low, high
