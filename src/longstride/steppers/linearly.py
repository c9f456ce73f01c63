"""Steps of Rosenbrock methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..methods.embedded import padded
from ..methods.rosenbrock import Rosenbrock
from .implicit import HERMITE, Implicit, Solved
from .jacobian import shaped, vector
from .trial import Rate, Trial


class LinearlyImplicit(Implicit):
    """Rosenbrock methods: df/dx and df/dt at the start of every step, one system a stage."""

    repeatable = True  # of the past it keeps df/dx, which is that of the step or is made again

    def __init__(self, table: Rosenbrock, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.table, like = table, vector(x0)
        self.order, self.shrinks = table.order, table.shrinks
        self.asks = [table.asks(i) for i in range(len(table.b))]
        self.most = sum(self.asks) + 2
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        # Of x, h gamma h f_t, u_1, ...: where stage i evaluates f, and what is added to h gamma f there.
        self.rows = [
            like.new_tensor([[1.0, 0.0, *a], [0.0, d, *(table.gamma * w for w in C)]])
            for a, C, d in zip(table.a, table.C, table.d, strict=True)
        ]
        self.ends = like.new_tensor([[1.0, 0.0, *table.b], [0.0, 0.0, *padded(table.error, len(table.b))]])
        self.c = torch.tensor([*table.c, 1.0], **clock)[:, None]
        self.polynomials(torch.tensor(table.dense or HERMITE, **clock))

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        super().suit(jacobian, parts, linear)
        if linear is not None:
            raise ArgumentError("Rosenbrock methods want exact solutions: linear= goes with kvaerno5, radau5")

    def prepare(self, x: Tensor, first: Tensor) -> None:
        """Memory for the stages, unless there is something to backpropagate to."""
        super().prepare(x, first)
        v = vector(x)
        self.U = v.new_zeros(len(self.rows) + 2, *v.shape)
        flat = self.U.view(len(self.U), -1)
        self.known = [flat[: i + 2] for i in range(len(self.rows))]

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        table, before, v = self.table, self.calls, vector(x)
        self.linearize_in_time(s, v)
        by = self.column(h)
        scaled = table.gamma * by
        factors = self.structure.factor(self.J, scaled[:, 0])
        self.factorizations += 1
        times, f = self.times(s, h, self.c), vector(first)
        drift = None if self.by_time is None else scaled * by * self.by_time
        us = [v, torch.zeros_like(v) if drift is None else drift]
        if not self.graph:
            self.U[0] = v
            self.U[1] = us[1]
        for i, row in enumerate(self.rows):
            known = torch.stack(us).view(i + 2, -1) if self.graph else self.known[i]
            at, rest = torch.mm(row, known).view(2, *v.shape).unbind()
            if self.asks[i]:
                f = self.f(times[i], at)
            u = self.structure.solve(factors, torch.addcmul(rest, scaled, f))
            if self.graph:
                us.append(u)
            else:
                self.U[i + 2] = u
        U = torch.stack(us) if self.graph else self.U
        end, error = torch.mm(self.ends, U.view(len(U), -1)).view(2, *v.shape).unbind()
        f = self.f(times[-1], end)
        if not table.error:
            error = self.structure.solve(factors, end - v - 0.5 * by * (vector(first) + f))
        x1, last = shaped(end, x), shaped(f, x)
        K = self.states(U[2:]) if table.dense else self.hermite(h, x, x1, first, last)
        return Solved(s, h, x, x1, last, K, self.calls - before, error=error.detach())
