"""A small matrix for each mode: linear parts that mix the fields of a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .matrix import Matrix, phis
from .operator import phi

SKEWED = 1e4  # what eigenvectors may enlarge round-off by
FEW = 4  # fields up to which products are sums of elementwise ones


@dataclass(frozen=True, eq=False)
class Blocks(Matrix):
    """A [C, C, *K] that multiplies the C fields of each mode of x [B, C, *K]: `ls.ODE(f, L=ls.Blocks(A))`.

    (L x)_i = sum_j A_ij x_j, each A_ij a symbol: `ls.Blocks.of([[0, 1], [-space.k2, 0]])` is the wave
    equation, of u and u_t.

    phi_k(c A) = V phi_k(c Lambda) V^-1, mode by mode, with the eigenvectors V of A: as accurate as phi_k of
    numbers, whatever c, so that a wave keeps its energy to round-off in steps of any length. Where V loses
    digits, max(|V^-1| |V|) > 1e4 (which is 1 for waves, whatever the units of their fields), and where A is
    differentiated by, scaling and squaring takes its place, at an error of round-off times |c A|.

    Raises:
        ArgumentError: A is not [C, C, ...], or not finite.
    """

    _wanted = "[C, C, *modes]"

    @staticmethod
    def _fits(shape: Sequence[int]) -> bool:
        return len(shape) >= 2 and shape[0] == shape[1]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Tensor | complex]]) -> Blocks:
        """Of numbers and symbols, row by row."""
        entries = [torch.as_tensor(entry) for row in rows for entry in row]
        kind = torch.complex128 if any(entry.is_complex() for entry in entries) else torch.float64
        wide = torch.broadcast_tensors(*(entry.to(kind) for entry in entries))
        return cls(torch.stack(wide).unflatten(0, (len(rows), -1)))

    def _one(self) -> Tensor:
        C, device = len(self.A), self.A.device
        return torch.eye(C, dtype=self.A.dtype, device=device).view(C, C, *(1,) * (self.A.ndim - 2))

    def _phis(self, c: Any, most: int) -> list[Tensor]:
        A = _inward(self.A)
        if self.A.requires_grad and torch.is_grad_enabled():
            return [_outward(found) for found in phis(c * A, most)]
        values, V, inverse, skewed = self._eigen(A.detach())
        squared = phis(c * A.detach()[skewed], most) if bool(skewed.any()) else []
        out = []
        for k in range(most + 1):
            found = V * torch.as_tensor(phi(k, c * values))[..., None, :] @ inverse
            found = found if A.is_complex() else found.real
            if squared:
                found[skewed] = squared[k]
            out.append(_outward(found))
        return out

    def _eigen(self, A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Eigenvalues, eigenvectors, their inverse, and where they lose digits."""
        if "eigen" not in self.made:
            values, V = torch.linalg.eig(A)
            inverse, failed = torch.linalg.inv_ex(V)
            lost = (inverse.abs() @ V.abs()).amax((-2, -1))
            self.made["eigen"] = values, V, inverse, (failed != 0) | ~(lost < SKEWED)
        return self.made["eigen"]

    def _applied(self, x: Tensor) -> Tensor:
        M = self.value
        M = M.to(x.device, x.dtype if M.is_complex() else x.dtype.to_real())
        if len(M) > FEW:
            columns = x.movedim((0, 1), (-1, -2))
            return (_inward(M).to(x.dtype) @ columns).movedim((-1, -2), (0, 1))
        out = M[:, 0] * x[:, :1]
        for j in range(1, len(M)):
            out = torch.addcmul(out, M[:, j], x[:, j : j + 1])
        return out


def _inward(A: Tensor) -> Tensor:
    """[C, C, *K] as [*K, C, C]."""
    return A.movedim((0, 1), (-2, -1))


def _outward(A: Tensor) -> Tensor:
    """The way back, laid out as it is read."""
    return A.movedim((-2, -1), (0, 1)).contiguous()
