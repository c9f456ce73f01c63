"""Equations for the tests of `ls.solve`."""

from collections.abc import Callable

import torch
from torch import Tensor


class Counted:
    """f that counts its calls."""

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.f, self.calls = f, 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.f(t, x)


def column(*values: float) -> Tensor:
    """A state [B, 1]."""
    return torch.tensor(values, dtype=torch.float64)[:, None]
