"""Steps of diagonally implicit Runge-Kutta methods, alone or beside an explicit one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..methods.esdirk import Esdirk, minus
from .implicit import HERMITE, Iterative, Solved
from .jacobian import shaped, vector
from .trial import Rate, Trial


class DiagonallyImplicit(Iterative):
    """Stage after stage by simplified Newton iterations, with df/dx for as long as they converge fast."""

    def __init__(self, table: Esdirk, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__((table.gamma,), len(table.a) - 1, rate, x0, sign, *bound)
        self.table, like = table, vector(x0)
        self.order, self.shrinks = table.order, table.shrinks
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        self.c = torch.tensor(table.c, **clock)[:, None]
        # Of each stage: what is known of it, and the guess of what is not.
        self.rows = [like.new_tensor([row[:-1], table.guess(i)]) for i, row in enumerate(table.a) if i]
        self.error = like.new_tensor(table.error)
        self.rest: Rate | None = None
        self.polynomials(torch.tensor(HERMITE, **clock))

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        """An additive method takes a split problem in its two parts; the others see dx/dt whole."""
        super().suit(jacobian, parts, linear)
        if self.table.explicit and parts:
            self.rest, self.implicit = parts
            like = vector(self.like)
            rows, last = self.table.explicit, self.table.explicit[-1]
            self.explicit = [like.new_tensor(row) for row in rows[1:]]
            # From the last stage's point to x1: the weights are b, and not the last row.
            self.ahead = like.new_tensor(minus(self.table.b, last))
            self.most += len(self.table.a) + 1

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.most += 2 * (len(self.table.a) - 1) * self.graph

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        before, v, by, f0 = self.calls, vector(x), self.column(h), vector(first)
        self.refresh(s, h, v.detach())
        times, scale = self.times(s, h, self.c), self.allowed(x.detach())
        split = self.rest is not None
        others = [by * self.f(times[0], v, self.rest)] if split else list[Tensor]()
        zs = [by * f0 - others[0] if split else by * f0]
        at = v
        for i, (t, rows) in enumerate(zip(times[1:], self.rows, strict=True)):
            known, guess = (rows @ torch.stack(zs).view(len(zs), -1)).view(2, *v.shape)
            known = v + known
            if split:
                known = known + self.sum(self.explicit[i], others)
            zs.append(self.stage(t, by, known, guess, scale, self.table.gamma))
            at = torch.add(known, zs[-1], alpha=self.table.gamma)
            if split:
                others.append(by * self.f(t, at, self.rest))
        if split:
            at = at + self.sum(self.ahead, others)
            last = self.f(times[-1], at, self.rate)
        else:
            last = torch.where(by == 0, f0, zs[-1] / torch.where(by == 0, 1.0, by))
        with torch.no_grad():
            error = self.sum(self.error, [z + o for z, o in zip(zs, others, strict=True)] if split else zs)
            if self.table.filtered:
                error = self.structure.solve(self.factors[0], error)
        x1, end = shaped(at, x), shaped(last, x)
        K = self.hermite(h, x, x1, first, end)
        return Solved(s, h, x, x1, end, K, self.calls - before, error=error, failed=self.outcome())

    @staticmethod
    def sum(row: Tensor, zs: list[Tensor]) -> Tensor:
        return (row @ torch.stack(zs).view(len(zs), -1)).view(zs[0].shape)
