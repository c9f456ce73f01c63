"""Steps of Rosenbrock methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import ArgumentError
from .implicit import HERMITE, Implicit, Solved
from .jacobian import shaped, vector
from .methods.rosenbrock import Rosenbrock
from .trial import Rate, Trial


class LinearlyImplicit(Implicit):
    """Rosenbrock methods: df/dx and df/dt at the start of every step, one system a stage."""

    def __init__(self, table: Rosenbrock, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.table, like = table, vector(x0)
        self.order, self.shrinks = table.order, table.shrinks
        self.most = sum(table.asks(i) for i in range(len(table.b))) + 2
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        self.rows = [
            like.new_tensor([a, [table.gamma * w for w in C]]) for a, C in zip(table.a, table.C, strict=True)
        ]
        self.ends = like.new_tensor([table.b, table.error])
        self.c = torch.tensor([*table.c, 1.0], **clock)[:, None]
        self.polynomials(torch.tensor(table.dense or HERMITE, **clock))
        self.by_time: Tensor | None = None

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        super().suit(jacobian, parts, linear)
        if linear is not None:
            raise ArgumentError(
                "Rosenbrock methods want exact solutions: linear= goes with kvaerno5, radau5"
            )

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        table, before, v = self.table, self.calls, vector(x)
        moved = s != self.where
        tangent = self.linearize(s, v, moved | self.graph, self.graph)
        if tangent is not None:
            found = tangent.by_time
            old = found if self.by_time is None else self.by_time
            self.by_time = torch.where((moved | self.graph)[:, None], found, old)
        assert self.by_time is not None
        by = table.gamma * self.column(h)
        factors = self.structure.factor(self.J, by[:, 0])
        self.factorizations += 1
        times, us, f = self.times(s, h, self.c), list[Tensor](), vector(first)
        drift = by * by / table.gamma * self.by_time
        for i, row in enumerate(self.rows):
            at, rest = v, None
            if i:
                at, rest = (row @ torch.stack(us).view(i, -1)).view(2, *v.shape)
                at = v + at
            if table.asks(i):
                f = self.f(times[i], at)
            r = by * f if rest is None else torch.addcmul(rest, by, f)
            if table.d[i]:
                r = torch.add(r, drift, alpha=table.d[i])
            us.append(self.structure.solve(factors, r))
        U = torch.stack(us)
        step, error = (self.ends @ U.view(len(us), -1)).view(2, *v.shape)
        x1 = shaped(v + step, x)
        last = shaped(self.f(times[-1], v + step), x)
        K = self._seen(U) if table.dense else self.hermite(h, x, x1, first, last)
        return Solved(s, h, x, x1, last, K, self.calls - before, error=error.detach())

    def _seen(self, U: Tensor) -> Tensor:
        if self.like.is_complex():
            return torch.view_as_complex(U.view(len(U), *self.shape, 2))
        return U.view(len(U), *self.shape)
