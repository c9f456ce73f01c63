"""Simplified Newton iterations of a batch: each sample converges, or fails, on its own.

The rules are those of Hairer and Wanner 1996, IV.8. With theta the rate |dz_m|/|dz_(m-1)|, what is left is
eta |dz_m|, eta = theta/(1 - theta), and has to fall below kappa, in units of what the tolerances allow. In
the first iteration eta is guessed from the last one of the sample.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

MOST = 8  # iterations
FRESH = 1e-2  # a rate of convergence above it asks for a new df/dx

Rates = np.ndarray


def kappa(rtol: Tensor, eps: float) -> float:
    """How far below the tolerance iterations go: sqrt(rtol), but not above 0.03 nor into round-off."""
    least = float(rtol.min())
    return 0.03 if least == 0 else max(10 * eps / least, min(0.03, math.sqrt(least)))


class Newton:
    """What is known of the convergence of each sample, [G] on the host.

    wants: whose df/dx should be made anew, `fresh` the rate that asks for it.  failed: in this step.
    """

    def __init__(self, groups: int, kappa: float) -> None:
        self.kappa, self.fresh, self.eta = kappa, FRESH, np.ones(groups)
        self.wants, self.failed = np.ones(groups, dtype=bool), np.zeros(groups, dtype=bool)

    def begin_step(self) -> None:
        self.failed[:] = False
        self.wants[:] = False

    def begin(self) -> None:
        """A system of stages."""
        self.active, self.last, self.m = ~self.failed, np.full_like(self.eta, np.nan), 0
        self.eta = np.maximum(self.eta, 1e-16) ** 0.8

    def advance(self, size: Tensor) -> None:
        """Who has converged, or never will, after corrections of a size [G]."""
        n = size.detach().cpu().numpy()
        with np.errstate(all="ignore"):
            if self.m:
                theta = n / self.last
                self.eta = np.where(self.active, theta / (1 - theta), self.eta)
                # What is left after all iterations, if they go on so.
                hopeless = (theta >= 0.99) | (theta ** (MOST - 1 - self.m) / (1 - theta) * n > self.kappa)
                self.wants |= self.active & (theta > self.fresh)
            else:
                hopeless = ~np.isfinite(n)
            done = (self.eta * n <= self.kappa) | (n == 0)
        hopeless |= ~np.isfinite(n)
        self.m, self.last = self.m + 1, n
        lost = self.active & ~done & (hopeless | (self.m == MOST))
        self.failed |= lost
        self.wants |= lost
        self.eta = np.where(lost | ~np.isfinite(self.eta) | (self.eta < 0), 1.0, self.eta)
        self.active = self.active & ~done & ~lost

    def moving(self, like: Tensor) -> Tensor | None:
        """Who is still iterating [G, 1], None if everybody is."""
        return None if self.active.all() else torch.from_numpy(self.active).to(like.device)[:, None]
