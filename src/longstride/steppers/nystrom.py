"""Trial steps of embedded Nystrom pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..methods.nystrom import Nystrom
from .hermite import QUINTIC, SecondOrder
from .trial import Trial


@dataclass
class Estimated(Trial):
    """K: f at the start.  error: of the state."""

    error: Tensor = field(default_factory=lambda: torch.zeros(0))


class NystromStepper(SecondOrder):
    """A pair whose last evaluation stands at the end of the step, and is the first of the next.

    Between the ends x is the polynomial of degree 5 through x, x' and x'' there, and v its derivative.
    """

    def __init__(self, table: Nystrom, *bound: Any) -> None:
        super().__init__(*bound)
        self.table, self.most = table, table.nfe
        self.order, self.shrinks = table.order, table.shrinks
        like: dict[str, Any] = {"dtype": self.dtype, "device": self.rtol.device}
        self.rows = [torch.tensor(row, **like) for row in table.a]
        self.to_v = torch.tensor(table.d, **like)
        assert table.other is not None
        ours = torch.tensor([table.b, table.d], **like)
        self.gap = ours - torch.tensor(table.other, **like)
        self.c = torch.tensor(table.c[1:], dtype=torch.float64, device=self.rtol.device)[:, None]
        self.quintic = torch.tensor(QUINTIC, **like).t()
        self.polynomials(torch.eye(5, dtype=torch.float64, device=self.rtol.device))

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        (q, v), (_, a), dt = x.chunk(2, 1), first.chunk(2, 1), self.by(h)
        known = a[None]
        for c, t, row in zip(self.table.c[1:], self.times(s, h, self.c), self.rows[1:], strict=True):
            at = q + dt * (c * v + dt * torch.tensordot(row, known, 1))
            known = torch.cat([known, self.a(t, at)[None]])
        v1 = v + dt * torch.tensordot(self.to_v, known, 1)
        wrong_q, wrong_v = torch.tensordot(self.gap, known, 1)
        return Estimated(
            s, h, x, torch.cat([at, v1], 1), torch.cat([v1, known[-1]], 1), first[None], self.most,
            error=torch.cat([dt * dt * wrong_q, dt * wrong_v], 1),
        )  # fmt: skip

    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Estimated)
        with torch.no_grad():
            return self._norm(trial.error / self.allowed(trial.x, trial.x1)) / self.root

    def complete(self, trial: Trial) -> Tensor:
        """Coefficients of theta, theta^2, ..., theta^5."""
        if trial.full is None:
            (v, a), (v1, a1), dt = trial.K[0].chunk(2, 1), trial.last.chunk(2, 1), self.by(trial.h)
            move = (trial.x1 - trial.x).chunk(2, 1)[0]
            ends = torch.stack([dt * v, dt**2 * a, move, dt * v1, dt**2 * a1])
            q = torch.tensordot(self.quintic, ends, 1)
            slope = [(m + 1) * q[m] / dt for m in range(1, 5)]
            trial.full = torch.cat([q, torch.stack([*slope, torch.zeros_like(move)])], 2)
        return trial.full
