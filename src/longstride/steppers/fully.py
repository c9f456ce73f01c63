"""Steps of fully implicit Runge-Kutta methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..methods.collocation import Collocation
from .implicit import Iterative, Solved
from .jacobian import Tangent, shaped, vector
from .linear import Dense
from .trial import Rate, Trial


class FullyImplicit(Iterative):
    """All stages at once, in the eigenvectors of A: one real system, one complex one.

    The iterations begin from the polynomial of the step before, or of the one refused. The estimate is that
    of RADAU5, (I - h gamma_0 J)^-1 (h gamma_0 f + gamma_0 sum_i e_i Z_i), with f at x, and where that refuses
    a sample's first step or one after a refusal, once more with f at x plus what was estimated.
    """

    def __init__(self, table: Collocation, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        self.gamma, pair, rows = table.spectrum
        super().__init__((self.gamma, pair), len(table.c), rate, x0, sign, *bound)
        self.order, self.shrinks, like = table.order, table.shrinks, vector(x0)
        self.most += 1  # for the second estimate
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        self.c = torch.tensor([*table.c, 1.0], **clock)[:, None]
        self.A, self.into = like.new_tensor(table.A), like.new_tensor(rows)
        self.into_A = like.new_tensor(rows @ table.A)
        self.back = like.new_tensor(np.linalg.inv(rows))
        self.e = self.gamma * like.new_tensor(table.error)
        self.polynomials(torch.tensor(table.dense, **clock))
        self.Z = like.new_zeros(len(table.c), *like.shape)
        self.fresh = torch.ones_like(self.where, dtype=torch.bool)

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.most += 2 * len(self.A) * self.graph

    def mix(self, matrix: Tensor, Z: Tensor) -> Tensor:
        """[m, s] times [s, B, D]."""
        return (matrix @ Z.reshape(len(Z), -1)).view(len(matrix), *Z.shape[1:])

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        before, v, by = self.calls, vector(x), self.column(h)
        guess = self.guess(s, h)
        again = self.refresh(s, h, v.detach())
        times, scale = self.times(s, h, self.c), self.allowed(x.detach())
        with torch.no_grad():
            Z = self.iterate(times, by, v.detach(), guess, scale)
        self.Z = Z
        if self.graph:
            Z = self.corrected(times, by, v, Z)
        x1 = shaped(v + Z[-1], x)
        error = self.filtered(s, by, v.detach(), vector(first.detach()), Z.detach(), scale, again)
        last = shaped(self.f(times[-1], v + Z[-1]), x)
        return Solved(
            s, h, x, x1, last, self.states(Z), self.calls - before, error=error, failed=self.outcome()
        )

    @torch.no_grad()
    def guess(self, s: Tensor, h: Tensor) -> Tensor:
        """The last polynomial, q(o + c r) - o q(1): o is 1 behind a step taken, 0 for one tried again."""
        went = (s != self.last_s).to(torch.float64)[:, None]
        theta = went + self.c[:-1, 0] * (h / self.last_h)[:, None]
        weights = (theta[..., None] ** self.powers) @ self.dense.t()  # [G, of stage i, from Z_j]
        weights[..., -1] -= went
        weights = weights.to(self.Z.dtype).permute(1, 2, 0)[..., None]
        return (weights * self.Z).sum(1).nan_to_num(0.0, 0.0, 0.0)

    def rates(self, times: tuple[Tensor, ...], v: Tensor, Z: Tensor) -> Tensor:
        return torch.stack([self.f(t, v + z) for t, z in zip(times, Z, strict=False)])

    def iterate(self, times: tuple[Tensor, ...], by: Tensor, v: Tensor, Z: Tensor, scale: Tensor) -> Tensor:
        newton = self.newton
        newton.begin()
        while newton.active.any():
            # In the eigenvectors of A: of A h f - Z.
            r = self.mix(self.into_A, by * self.rates(times[:-1], v, Z)) - self.mix(self.into, Z)
            real = self.structure.solve(self.factors[0], r[0])
            pair = self.structure.solve(self.factors[1], torch.complex(r[1], r[2]))
            dZ = self.mix(self.back, torch.stack([real, pair.real, pair.imag]))
            moving = newton.moving(Z)
            Z = Z + dZ if moving is None else torch.where(moving, Z + dZ, Z)
            newton.advance(self.weigh_all(dZ, scale))
        return Z

    def weigh_all(self, Z: Tensor, scale: Tensor) -> Tensor:
        """Root mean square of all stages over a scale: [G]."""
        parts = (self.states(Z) / scale).transpose(0, 1).reshape(self.groups, -1)
        return torch.linalg.vector_norm(parts, dim=1).to(torch.float64) / (self.root * len(Z) ** 0.5)

    def corrected(self, times: tuple[Tensor, ...], by: Tensor, v: Tensor, Z: Tensor) -> Tensor:
        """One more Newton correction, with df/dx at each stage: what a gradient goes through."""
        dense, (s, B, D) = Dense(v), Z.shape
        tangents = [Tangent(self.f, t, (v + z).detach()) for t, z in zip(times[:-1], Z, strict=True)]
        Js = torch.stack([dense.jacobian(tangent)[0] for tangent in tangents])
        whole = torch.einsum("ij,jbkl->bikjl", self.A, Js).reshape(B, s * D, s * D)
        factors = Dense(Z[:, 0].reshape(1, -1)).factor((whole,), by[:, 0])
        self.jacobians, self.factorizations = self.jacobians + s, self.factorizations + 1
        r = self.mix(self.A, by * self.rates(times[:-1], v, Z)) - Z
        return Z + dense.solve(factors, r.transpose(0, 1).reshape(B, -1)).view(B, s, D).transpose(0, 1)

    @torch.no_grad()
    def filtered(
        self, s: Tensor, by: Tensor, v: Tensor, f0: Tensor, Z: Tensor, scale: Tensor, again: Tensor
    ) -> Tensor:
        known = self.mix(self.e[None], Z)[0]
        error = self.structure.solve(self.factors[0], known + self.gamma * by * f0)
        twice = (again | self.fresh) & (self.weigh(error, scale) > 1)
        self.fresh = self.fresh & False
        if bool(twice.any()):
            f = self.f(self.behind(s), v + error)
            other = self.structure.solve(self.factors[0], known + self.gamma * by * f)
            error = torch.where(twice[:, None], other, error)
        return error
