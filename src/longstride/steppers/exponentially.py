"""Steps of exponential Rosenbrock methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..methods.exponential_rosenbrock import ExponentialRosenbrock
from .expm import exponentials
from .gmres import MatrixFree
from .implicit import HERMITE, Implicit, Solved
from .jacobian import shaped, vector
from .linear import structure
from .trial import Rate, Trial


class Exponential(Implicit):
    """Exponential Rosenbrock methods: df/dx and df/dt at the start of every step, one matrix exponential."""

    def __init__(
        self, table: ExponentialRosenbrock, rate: Rate, x0: Tensor, sign: float, *bound: Any
    ) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.table, self.order, self.shrinks = table, table.order, table.shrinks
        self.most = len(table.c) + 2
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        self.c = torch.tensor([*table.c, 1.0], **clock)[:, None]
        self.polynomials(torch.tensor(HERMITE, **clock))

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        if linear is not None and (linear != "krylov" or jacobian is not None):
            raise ArgumentError(f'linear = {linear!r}: here it is "krylov", which wants no jacobian')
        self.structure = MatrixFree() if linear else structure(jacobian, self.like)

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        table, before, v, by = self.table, self.calls, vector(x), self.column(h)
        self.linearize_in_time(s, v)
        scale = self.allowed(x.detach())
        A = exponentials(self.structure, self.J, by, lambda e: self.weigh(e, scale))
        self.factorizations += 1
        ws = [by * vector(first)]
        if self.by_time is not None:
            ws.append(by * by * self.by_time)
        cs = sorted({*table.c, 1.0})
        moved = dict(zip(cs, A.solve(ws, cs), strict=True))
        times, defects = self.times(s, h, self.c), []
        for c, t in zip(table.c, times, strict=False):
            linear = ws[0] + A.times(moved[c]) + sum(c * w for w in ws[1:])
            defects.append(by * self.f(t, v + moved[c]) - linear)

        def correction(rows: Sequence[Sequence[float]]) -> Tensor:
            zero = torch.zeros_like(v)
            mixed = [sum((w * D for w, D in zip(row, defects, strict=True)), zero) for row in rows]
            return A.solve([zero, zero, *mixed], [1.0])[0]

        added = correction(table.b)
        end = v + moved[1.0] + added
        error = added if table.error == table.b else correction(table.error)
        x1, last = shaped(end, x), shaped(self.f(times[-1], end), x)
        K = self.hermite(h, x, x1, first, last)
        return Solved(s, h, x, x1, last, K, self.calls - before, error=error.detach(), failed=A.failed)
