"""What implicit steps have in common: states as vectors, df/dx of each sample, systems to iterate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..control import Controller, Predictive
from .jacobian import Tangent, shaped, vector
from .linear import Parts, Structure, choose, structure
from .newton import MOST, Newton, kappa
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

    where [G]: the s that df/dx is of, NaN before there is one.  by_time: df/dt there, if it was asked for.
    """

    between_costs = 0
    controller: Controller = Predictive()

    def __init__(self, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.like, self.calls, self.implicit = x0.detach(), 0, rate
        self.where = torch.full((self.groups,), torch.nan, dtype=torch.float64, device=x0.device)
        self.J: Parts = ()
        self.by_time: Tensor | None = None

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        self.structure: Structure = structure(jacobian, self.like, linear)

    def f(self, t: Tensor, v: Tensor, rate: Rate | None = None) -> Tensor:
        """dx/dt of vectors, counted: what is solved for, unless another part of it is named."""
        self.calls += 1
        return vector((rate or self.implicit)(t, shaped(v, self.like)))

    def behind(self, s: Tensor) -> Tensor:
        """The time just behind s, on the far side of what may jump there."""
        return self.time(torch.nextafter(s.to(self.real), torch.full_like(s, torch.inf).to(self.real)))

    def linearize(self, s: Tensor, v: Tensor, who: Tensor, graph: bool = False) -> Tangent | None:
        """df/dx at (s, v) for those [G] who want it; what it was found from, where anybody did."""
        if not bool(who.any()):
            return None
        tangent = Tangent(self.f, self.behind(s), v, graph)
        J, self.jacobians = self.structure.jacobian(tangent), self.jacobians + 1
        self.J = J if bool(who.all()) else choose(who, J, self.J)
        self.where = torch.where(who, s, self.where)
        return tangent

    def linearize_in_time(self, s: Tensor, v: Tensor) -> None:
        """df/dx and df/dt at (s, v) for those who moved; for all, where they are to be differentiated."""
        moved = (s != self.where) | self.graph
        tangent = self.linearize(s, v, moved, self.graph)
        if tangent is None:
            return
        self.own = [tangent.t]
        found, old = tangent.by_time, self.by_time
        if found is old is None or bool(moved.all()):
            self.by_time = found  # with nothing left of a graph that was before
            return
        zero = torch.zeros_like(v)
        new, old = (zero if part is None else part for part in (found, old))
        self.by_time = torch.where(moved[:, None], new, old)

    def forget(self, who: Tensor) -> None:
        super().forget(who)
        self.where = torch.where(who, torch.nan, self.where)

    def column(self, h: Tensor) -> Tensor:
        """dt/ds h [G] beside vectors: [G, 1]."""
        return (self.sign * h).to(self.real)[:, None]

    def weigh(self, v: Tensor, scale: Tensor) -> Tensor:
        """Root mean square of a vector over a scale: [G]."""
        return self._norm(shaped(v, self.like) / scale) / self.root

    @torch.no_grad()
    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Solved)
        ratio = self.weigh(trial.error, self.allowed(trial.x, trial.x1))
        failed = (trial.h > 0) & (trial.s + trial.h == trial.s)  # a state that time does not move is none
        if trial.failed is not None:
            failed = failed | trial.failed
        # Half the step, or less where the estimate is not even a number.
        return torch.where(failed, (ratio * 0 + 2.0).pow(self.shrinks), ratio)

    def states(self, V: Tensor) -> Tensor:
        """Vectors [S, B, D] as states [S, B, ...]."""
        if self.like.is_complex():
            return torch.view_as_complex(V.reshape(len(V), *self.shape, 2))
        return V.view(len(V), *self.shape)

    def hermite(self, h: Tensor, x: Tensor, x1: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """K of the cubic."""
        by = self.spread(self.sign * h)
        return torch.stack([by * first, by * last, x1 - x])


class Iterative(Implicit):
    """Steps whose systems are solved by simplified Newton iterations, with I - h a J for each shift a.

    df/dx is kept for as long as it serves, and factors for as long as h does.
    """

    def __init__(
        self, shifts: Sequence[complex], systems: int, rate: Rate, x0: Tensor, sign: float, *bound: Any
    ) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.newton = Newton(self.groups, kappa(self.rtol, torch.finfo(self.real).eps))
        self.shifts = shifts
        self.systems, self.most = systems, MOST * systems + 2
        self.factors: list[Parts] = []
        self.last_s = self.last_h = torch.full_like(self.where, torch.nan)

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        super().suit(jacobian, parts, linear)
        if linear is not None:  # f may have to be linearized once more
            self.most += 2 * self.systems + 1

    @torch.no_grad()
    def refresh(self, s: Tensor, h: Tensor, v: Tensor) -> Tensor:
        """df/dx anew where it served badly or a step was refused; factors where due. Who was refused [G]."""
        again = s == self.last_s
        wants = torch.from_numpy(self.newton.wants).to(s.device) | again
        wants = (wants & (s != self.where)) | self.where.isnan()
        self.linearize(s, v, wants)
        stale = wants | (h != self.last_h)
        if bool(stale.any()):
            by, old, whole = self.column(h)[:, 0], self.factors, bool(stale.all())
            self.factors = [self.structure.factor(self.J, a * by) for a in self.shifts]
            if not whole:
                self.factors = [choose(stale, *pair) for pair in zip(self.factors, old, strict=True)]
            self.factorizations += 1
        self.last_s, self.last_h = s, h
        self.newton.begin_step()
        return again

    def outcome(self) -> Tensor:
        """Whose stages were not solved for [G]."""
        return torch.from_numpy(self.newton.failed.copy()).to(self.where.device)

    def stage(
        self, t: Tensor, by: Tensor, known: Tensor, guess: Tensor, scale: Tensor, gamma: Tensor | float
    ) -> Tensor:
        """z = h f(t, known + gamma z).

        A gradient is that of the implicit function: z gets one more Newton correction, with df/dx at the
        solution, whose factors are constants and whose residual is differentiated. One system with the
        transposed matrix is what backpropagation makes of it.
        """
        with torch.no_grad():
            z = guess
            self.newton.begin()
            while self.newton.active.any():
                r = by * self.f(t, known + gamma * z) - z
                dz, moving = self.structure.solve(self.factors[0], r), self.newton.moving(z)
                z = z + dz if moving is None else torch.where(moving, z + dz, z)
                self.newton.advance(self.weigh(dz, scale))
        if not self.graph:
            return z
        tangent = Tangent(self.f, t, (known + gamma * z).detach())
        self.jacobians, self.factorizations = self.jacobians + 1, self.factorizations + 1
        factors = self.structure.factor(self.structure.jacobian(tangent), (gamma * by)[:, 0])
        return z + self.structure.solve(factors, by * self.f(t, known + gamma * z) - z)
