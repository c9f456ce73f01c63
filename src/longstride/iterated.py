"""Stages of implicit methods by simplified Newton iterations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .implicit import Implicit
from .jacobian import Tangent
from .linear import Parts, choose
from .newton import Newton, kappa
from .trial import Rate


class Iterated(Implicit):
    """Stages z = h f(t, known + gamma z), with df/dx for as long as the iterations converge fast.

    A gradient is that of the implicit function: each stage gets one more Newton correction, with df/dx at the
    solution, whose factors are constants and whose residual is differentiated. One system with the
    transposed matrix is what backpropagation makes of it.
    """

    def __init__(self, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.newton = Newton(self.groups, kappa(self.rtol, torch.finfo(self.real).eps))
        self.factors: Parts = ()
        self.last_s = self.last_c = torch.full((self.groups,), torch.nan, dtype=torch.float64, device=x0.device)

    @torch.no_grad()
    def refresh(self, s: Tensor, c: Tensor, v: Tensor) -> None:
        """df/dx where it served badly and is of another state, or led to a step refused; factors where due.

        c [G]: the step times gamma, as the systems I - c J have it.
        """
        wants = torch.from_numpy(self.newton.wants).to(s.device) | (s == self.last_s)
        wants = (wants & (s != self.where)) | self.where.isnan()
        self.linearize(s, v.detach(), wants)
        stale = wants | (c != self.last_c)
        if bool(stale.any()):
            factors = self.structure.factor(self.J, (self.sign * c).to(self.real))
            self.factors = factors if bool(stale.all()) else choose(stale, factors, self.factors)
            self.factorizations += 1
        self.last_s, self.last_c = s, c
        self.newton.begin_step()

    def stage(
        self, t: Tensor, by: Tensor, known: Tensor, guess: Tensor, scale: Tensor, gamma: Tensor | float
    ) -> Tensor:
        """z = h f(t, known + gamma z)."""
        with torch.no_grad():
            z = guess
            self.newton.begin()
            while self.newton.active.any():
                r = by * self.f(t, known + gamma * z) - z
                dz, moving = self.structure.solve(self.factors, r), self.newton.moving(z)
                z = z + dz if moving is None else torch.where(moving, z + dz, z)
                self.newton.advance(self.weigh(dz, scale))
        if not self.graph:
            return z
        tangent = Tangent(self.f, t, (known + gamma * z).detach())
        self.jacobians, self.factorizations = self.jacobians + 1, self.factorizations + 1
        factors = self.structure.factor(self.structure.jacobian(tangent), (gamma * by)[:, 0])
        return z + self.structure.solve(factors, by * self.f(t, known + gamma * z) - z)
