"""A small matrix for each mode: linear parts that mix the fields of a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .matrix import Matrix, phis
from .operator import phi

SKEWED = 1e3  # what eigenvectors may enlarge round-off by
BALANCING = 20  # rounds
FEW = 4  # fields up to which products are sums of elementwise ones


@dataclass(frozen=True, eq=False)
class Blocks(Matrix):
    """A [C, C, *K] that multiplies the C fields of each mode of x [B, C, *K]: `ls.ODE(f, L=ls.Blocks(A))`.

    dim: how many axes K has; without it, all after the first two. A [B, C, C, *K] has a block of each sample.

    (L x)_i = sum_j A_ij x_j, each A_ij a symbol: `ls.Blocks.of([[0, 1], [-space.k2, 0]], space.dim)` is the
    wave equation, of u and u_t.

    phi_k(c A) = S V phi_k(c Lambda) V^-1 S^-1, mode by mode: S scales the fields so that rows and columns of
    S^-1 A S are as large as each other, V are the eigenvectors of that. This is as accurate as phi_k of
    numbers, whatever c: a wave keeps its energy to round-off in steps of any length. Where V loses digits, as
    at k = 0 of a wave, and where A is differentiated by, scaling and squaring takes its place, at an error of
    round-off times |c S^-1 A S|.

    Raises:
        ArgumentError: A is not [C, C, *K] or [B, C, C, *K], or not finite.
    """

    dim: int | None = None

    _wanted = "[C, C, *K], or [B, C, C, *K] with dim= of K"

    @classmethod
    def of(cls, rows: Sequence[Sequence[Tensor | complex]], dim: int) -> Blocks:
        """Of numbers and symbols [*K] or [B, *K], row by row, dim axes in K."""
        entries = [entry for row in rows for entry in row]
        kinds = [entry.dtype if isinstance(entry, Tensor) else type(entry) for entry in entries]
        some = any(kind in (complex, torch.complex64, torch.complex128) for kind in kinds)
        kind = torch.complex128 if some else torch.float64
        wide = torch.broadcast_tensors(*(torch.as_tensor(entry, dtype=kind) for entry in entries))
        return cls(torch.stack(wide, -dim - 1).unflatten(-dim - 1, (len(rows), -1)), dim=dim)

    @property
    def row(self) -> int:
        """Which axis of A counts the rows, from behind; that of the columns is next."""
        return -2 - (self.A.ndim - 2 if self.dim is None else self.dim)

    @property
    def each(self) -> bool:
        return self.A.ndim > -self.row

    def _fits(self, shape: Sequence[int]) -> bool:
        return -self.row <= len(shape) <= 1 - self.row and shape[self.row] == shape[self.row + 1]

    def _one(self) -> Tensor:
        C = self.A.shape[self.row]
        one = torch.eye(C, dtype=self.A.dtype, device=self.A.device)
        return one.view(C, C, *(1,) * (-self.row - 2))

    def _inward(self, A: Tensor) -> Tensor:
        """[C, C, *K] as [*K, C, C]."""
        return A.movedim((self.row, self.row + 1), (-2, -1))

    def _outward(self, A: Tensor) -> Tensor:
        """The way back, laid out as `_applied` reads it."""
        found = A.movedim((-2, -1), (self.row, self.row + 1))
        return found.contiguous() if A.shape[-1] <= FEW else found

    def _phis(self, c: Any, most: int) -> list[Tensor]:
        A, S = self._balanced()
        if A.requires_grad and torch.is_grad_enabled():
            found = phis(c * A, most)
        else:
            found = self._by_eigenvectors(A.detach(), c, most)
        return [self._outward(S[..., :, None] * one / S[..., None, :]) for one in found]

    def _balanced(self) -> tuple[Tensor, Tensor]:
        """S^-1 A S and S: [*K, C, C], [*K, C]."""
        A = self._inward(self.A)
        if "scale" not in self.made:
            size = A.detach().abs() * (1 - torch.eye(A.shape[-1], dtype=torch.float64, device=A.device))
            S = torch.ones_like(size[..., 0])
            for _ in range(BALANCING):
                scaled = size * (S[..., None, :] / S[..., :, None])
                rows, columns = scaled.sum(-1), scaled.sum(-2)
                both = (rows > 0) & (columns > 0)
                S = S * torch.where(both, rows / torch.where(both, columns, 1), 1) ** 0.25
            self.made["scale"] = S
        S = self.made["scale"]
        return A * (S[..., None, :] / S[..., :, None]), S

    def _by_eigenvectors(self, A: Tensor, c: Any, most: int) -> list[Tensor]:
        if "eigen" not in self.made:
            values, V = torch.linalg.eig(A)
            inverse, failed = torch.linalg.inv_ex(V)
            lost = inverse.abs().sum((-2, -1)) * V.abs().sum((-2, -1)) > SKEWED * A.shape[-1] ** 2
            self.made["eigen"] = values, V, inverse, (failed != 0) | lost
        values, V, inverse, skewed = self.made["eigen"]
        squared = phis(c * A[skewed], most) if bool(skewed.any()) else []
        out = []
        for k in range(most + 1):
            found = V * torch.as_tensor(phi(k, c * values))[..., None, :] @ inverse
            found = found if A.is_complex() else found.real
            if squared:
                found[skewed] = squared[k]
            out.append(found)
        return out

    def _applied(self, x: Tensor) -> Tensor:
        M = self.value
        M = M.to(x.device, x.dtype if M.is_complex() else x.dtype.to_real())
        at, C = self.row + 1, M.shape[self.row]
        if C > FEW:  # the batch, where blocks are the same for all, is columns
            if self.each:
                return product(self._inward(M), x.movedim(at, -1)[..., None])[..., 0].movedim(-1, at)
            return product(self._inward(M), x.movedim((0, at), (-1, -2))).movedim((-1, -2), (0, at))
        out = M.select(at, 0) * x.narrow(at, 0, 1)
        for j in range(1, C):
            out = torch.addcmul(out, M.select(at, j), x.narrow(at, j, 1))
        return out


def product(M: Tensor, columns: Tensor) -> Tensor:
    """[*K, C, C] times [*K, C, B], of which M may be real alone."""
    if M.is_complex() or not columns.is_complex():
        return M @ columns
    parts = torch.view_as_real(columns).flatten(-2)
    return torch.view_as_complex((M @ parts).unflatten(-1, (-1, 2)))
