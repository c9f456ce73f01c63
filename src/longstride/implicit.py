"""What the steps of implicit methods have in common: states as vectors, df/dx, and the systems solved with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .control import Controller, Predictive
from .jacobian import Tangent, shaped, vector
from .linear import Parts, Structure, choose, structure
from .methods.rosenbrock import Rosenbrock
from .trial import Rate, Stepper, Trial

# Hermite's cubic in h f at the start, h f at the end, and x1 - x.
HERMITE = ((1.0, -2.0, 1.0), (0.0, -1.0, 1.0), (0.0, 3.0, -2.0))


@dataclass
class Solved(Trial):
    """error [B, D]: the estimate.  failed [G]: the stages were not solved for."""

    error: Tensor = field(default_factory=lambda: torch.zeros(0))
    failed: Tensor | None = None


class Implicit(Stepper):
    """A stepper that works on vectors [B, D], and has df/dx of each sample where it was last wanted.

    where [G]: the s that df/dx is of, NaN before there is one.
    """

    between_costs = 0
    controller: Controller = Predictive()

    def __init__(self, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.like, self.calls, self.implicit = x0.detach(), 0, rate
        self.where = torch.full((self.groups,), torch.nan, dtype=torch.float64, device=x0.device)
        self.J: Parts = ()

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        self.structure: Structure = structure(jacobian, self.like, linear)

    def f(self, t: Tensor, v: Tensor, rate: Rate | None = None) -> Tensor:
        """dx/dt of vectors, counted: what is solved for, unless another part of it is named."""
        self.calls += 1
        return vector((rate or self.implicit)(t, shaped(v, self.like)))

    def behind(self, s: Tensor) -> Tensor:
        """The time just behind s, on the far side of what may jump there."""
        return self.time(torch.nextafter(s.to(self.real), torch.full_like(s, torch.inf).to(self.real)))

    def linearize(self, s: Tensor, v: Tensor, who: Tensor) -> Tangent | None:
        """df/dx at (s, v) for those [G] who want it; what it was found from, where anybody did."""
        if not bool(who.any()):
            return None
        tangent = Tangent(self.f, self.behind(s), v, self.graph)
        J, self.jacobians = self.structure.jacobian(tangent), self.jacobians + 1
        self.J = J if bool(who.all()) else choose(who, J, self.J)
        self.where = torch.where(who, s, self.where)
        return tangent

    def column(self, h: Tensor) -> Tensor:
        """dt/ds h [G] beside vectors: [G, 1]."""
        return (self.sign * h).to(self.real)[:, None]

    def scale(self, x: Tensor) -> Tensor:
        """What the tolerances allow at x."""
        return torch.addcmul(self.atol, self.rtol, x.abs())

    def weigh(self, v: Tensor, scale: Tensor) -> Tensor:
        """Root mean square of a vector over a scale: [G]."""
        return self._norm(shaped(v, self.like) / scale) / self.root

    @torch.no_grad()
    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Solved)
        ratio = self.weigh(trial.error, self.scale(torch.maximum(trial.x.abs(), trial.x1.abs())))
        if trial.failed is not None:  # half the step, or less where the estimate is not even a number
            ratio = torch.where(trial.failed, (ratio * 0 + 2.0).pow(self.shrinks), ratio)
        return ratio

    def hermite(self, h: Tensor, x: Tensor, x1: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """K of the cubic."""
        by = self.spread(self.sign * h)
        return torch.stack([by * first, by * last, x1 - x])


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

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        table, before, v = self.table, self.calls, vector(x)
        moved = s != self.where
        tangent = self.linearize(s, v, moved | self.graph)
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
