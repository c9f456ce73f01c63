"""I - c J solved by products alone: GMRES (Saad and Schultz 1986) of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .jacobian import Tangent
from .linear import Parts

MOST = 60  # products of one solution
NEWTON, EXACT = 1e-3, 1e-10  # relative residuals: of a correction that another follows, and of a gradient


def gmres(times: Callable[[Tensor], Tensor], r: Tensor, tolerance: float) -> Tensor:
    """A z = r of every sample, r [B, D], A given by products v -> A v. It may stop short of the tolerance.

    A sample's answer is of the Krylov space in which it came to the tolerance, whoever goes on beside it.
    """
    size = torch.linalg.vector_norm(r, dim=1)
    safe = torch.where(size > 0, size, 1.0)
    V, H = (r / safe[:, None])[:, None], r.new_zeros(len(r), MOST + 1, MOST)
    y, going = r.new_zeros(len(r), MOST), size > 0
    for k in range(MOST):
        if not bool(going.any()):
            break
        w = times(V[:, k])
        for _ in range(2):  # once more, against round-off
            h = (V.conj() @ w[..., None])[..., 0]
            H[:, : k + 1, k] += h
            w = w - (h[:, None] @ V)[:, 0]
        length = torch.linalg.vector_norm(w, dim=1)
        H[:, k + 1, k] = length
        V = torch.cat([V, (w / torch.where(length > 0, length, 1.0)[:, None])[:, None]], 1)
        Q, R = torch.linalg.qr(H[:, : k + 2, : k + 1], mode="complete")
        seen = Q[:, 0].conj()  # Q^H e_1
        found = torch.linalg.solve_triangular(R[:, : k + 1], seen[:, : k + 1, None], upper=True)[..., 0]
        y[:, : k + 1] = torch.where(going[:, None], found, y[:, : k + 1])
        going = going & (seen[:, k + 1].abs() > tolerance)
    return size[:, None] * (y[:, None, : V.shape[1]] @ V[:, : y.shape[1]])[:, 0]


class _Solution(torch.autograd.Function):
    """(I - c J)^-1 r as a function of r; its gradient is a solution with the transposed matrix."""

    @staticmethod
    def forward(ctx, r: Tensor, free: MatrixFree, factors: Parts) -> Tensor:
        ctx.free, ctx.factors = free, factors
        return free.krylov(factors, r, EXACT, transposed=False)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.free.krylov(ctx.factors, grad, EXACT, transposed=True), None, None


class MatrixFree:
    """J is where f is linearized, (t, x), and never written down."""

    def __init__(self) -> None:
        self.near: Tangent | None = None

    def jacobian(self, tangent: Tangent) -> Parts:
        self.near = tangent
        return tangent.t.detach(), tangent.x.detach()

    def at(self, J: Parts) -> Tangent:
        """f near (t, x)."""
        assert self.near is not None
        t, x = J
        if not (torch.equal(self.near.x, x) and torch.equal(self.near.t, t)):
            self.near = Tangent(self.near.function, t, x)
        return self.near

    def times(self, J: Parts, v: Tensor) -> Tensor:
        return self.at(J).times(v)

    def factor(self, J: Parts, c: Tensor) -> Parts:
        return (*J, c)

    def solve(self, factors: Parts, r: Tensor) -> Tensor:
        if r.requires_grad:
            return _Solution.apply(r, self, factors)
        return self.krylov(factors, r, NEWTON, transposed=False)

    def krylov(self, factors: Parts, r: Tensor, tolerance: float, transposed: bool) -> Tensor:
        c, near = factors[2], self.at(factors[:2])
        products = near.pull if transposed else near.times

        def times(v: Tensor) -> Tensor:
            if v.is_complex():
                return v - c[:, None] * torch.complex(products(v.real), products(v.imag))
            return v - c[:, None] * products(v)

        return gmres(times, r, tolerance)
