"""Linear equations with polynomial forcing, solved exactly: what exponential steps are made of.

Of y' = A y + w_1 + s w_2 + s^2/2 w_3 + ..., y(0) = 0, every sample with an A of its own, the solution is
y(c) = sum_k c^k phi_k(c A) w_k. It is a part of the exponential of one matrix, with N the shift by one,

    e^(c [A W; 0 N]) = [e^(c A)  X; 0  e^(c N)],  W = (w_p, ..., w_1),  y(c) the last column of X

(Saad 1992; Al-Mohy and Higham 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..matrix import TERMS, halvings
from ..operator import phi
from .gmres import MatrixFree
from .linear import Banded, Diagonal, Parts, Structure

SPACES = (8, 12, 17, 24, 33, 45, 60, 80, 105)  # dimensions in which a Krylov solution is looked at
LOST = 0.1  # what is left of a vector without its parts in a basis, below which they are taken off again
SHARE = 0.02  # of the tolerances of an adaptive run, that a Krylov solution may be wrong by


class Exponentials(Protocol):
    """One A for each sample: products with it, and y(c). failed [G]: whose y is not good."""

    @property
    def failed(self) -> Tensor | None: ...

    def times(self, v: Tensor) -> Tensor: ...

    def solve(self, ws: Sequence[Tensor], cs: Sequence[float]) -> list[Tensor]:
        """y(c) [B, D] at each c of cs, powers of 1/2, of ws = w_1, w_2, ... [B, D]."""


def exponentials(
    structure: Structure, J: Parts, by: Tensor, weigh: Callable[[Tensor], Tensor]
) -> Exponentials:
    """Of A = by J, by [G, 1].  weigh: an error [B, D] over what the tolerances allow, [G]."""
    if isinstance(structure, MatrixFree):
        return Krylov(lambda v: by * structure.times(J, v), lambda e: weigh(e) / SHARE)
    if isinstance(structure, Diagonal):
        return Elementwise(by * J[0])
    whole = structure.whole(J) if isinstance(structure, Banded) else J[0]
    return Squared(by[..., None] * whole)


class Elementwise:
    """A diagonal, [B, D]."""

    failed = None

    def __init__(self, A: Tensor) -> None:
        self.A = A

    def times(self, v: Tensor) -> Tensor:
        return self.A * v

    def solve(self, ws: Sequence[Tensor], cs: Sequence[float]) -> list[Tensor]:
        zero = torch.zeros_like(ws[0])
        return [sum((c**k * phi(k, c * self.A) * w for k, w in enumerate(ws, 1)), zero) for c in cs]


class Squared:
    """A matrix, [B, D, D], by scaling and squaring: A/2^s has a norm of at most 1, s of each sample's own.

    The powers e^(A 2^r/2^s), r = 0, 1, ..., are made once; then every y costs products with vectors alone.
    """

    failed = None

    def __init__(self, A: Tensor) -> None:
        self.A, (self.scale, self.doubles) = A, halvings(A)
        self.small = A * self.scale
        self.powers = [torch.linalg.matrix_exp(self.small)]
        for doubles in self.doubles[:-1]:
            E = self.powers[-1]
            self.powers.append(torch.where(doubles, E @ E, E))

    def times(self, v: Tensor) -> Tensor:
        return (self.A @ v[..., None])[..., 0]

    def solve(self, ws: Sequence[Tensor], cs: Sequence[float]) -> list[Tensor]:
        p = len(ws)
        N = torch.ones(p - 1, dtype=ws[0].dtype, device=ws[0].device).diag(1) * self.scale
        W = torch.stack(list(ws)[::-1], -1) * self.scale
        X = last = W
        for n in range(2, TERMS + 1):
            W = W @ N / n
            last = self.small @ last / n + W
            X = X + last
        G, at = torch.linalg.matrix_exp(N), [len(self.doubles) + round(math.log2(c)) for c in cs]
        found = {0: X[..., -1].contiguous()}
        for r, (E, doubles) in enumerate(zip(self.powers, self.doubles, strict=True), 1):
            X = torch.where(doubles, E @ X + X @ G, X)
            G = torch.where(doubles, G @ G, G)
            found[r] = X[..., -1].contiguous()
        return [found[r] for r in at]


class Krylov:
    """A by products v -> A v: the matrix above in a Krylov space that grows until a sample's y is good.

    Arnoldi's basis V of m + 1 vectors, A V_m = V_(m+1) H: y is made of e^(c H) e_1, H square by a column of
    zeros. Its last number belongs to a vector that V_m has not seen, and is the estimate (Saad 1992,
    corrected scheme). A sample's answer is of the first space of `SPACES` in which the estimate is allowed,
    whoever goes on beside it.

    weigh: an error [B, D] over what is allowed, [B].
    """

    def __init__(self, times: Callable[[Tensor], Tensor], weigh: Callable[[Tensor], Tensor]) -> None:
        self.times, self.weigh = times, weigh
        self.failed: Tensor | None = None

    def solve(self, ws: Sequence[Tensor], cs: Sequence[float]) -> list[Tensor]:
        ys, good, _ = self._solved(ws, cs)
        self.failed = ~good if self.failed is None else self.failed | ~good
        return ys

    def reach(self, ws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """y(c) and c [B]: 1, or the largest power of 1/2 to which the last space is good.

        The error allowed is shared out evenly over [0, 1]. What is not finite is let through.
        """
        (y,), good, space = self._solved(ws, (1.0,))
        reached = torch.ones_like(y[:, 0])
        while not bool(good.all()):
            reached = torch.where(good, reached, reached / 2)
            c = float(reached.min())
            (found,), estimate = space.read((c,))
            y = torch.where(good[:, None], y, found)
            good = good | ~(self.weigh(estimate) > c)
        return y, reached

    def _solved(self, ws: Sequence[Tensor], cs: Sequence[float]) -> tuple[list[Tensor], Tensor, Space]:
        """y(c) for each c, for whom they are good, and the last space."""
        space = Space(self.times, ws)
        ys: list[Tensor] = []
        good: Tensor | None = None
        for m in sorted({min(m, space.most) for m in SPACES}):
            space.widen(m)
            found, estimate = space.read(cs)
            now = ~(self.weigh(estimate) > 1)
            if good is None:
                ys, good = found, now
            else:
                mask = good[:, None]
                ys = [torch.where(mask, y, new) for y, new in zip(ys, found, strict=True)]
                good = good | now
            if bool(good.all()):
                break
        assert good is not None
        return ys, good, space


class Space:
    """The Krylov space of [A W; 0 N] and its last unit vector, W = (w_p, ..., w_1) as large as 1.

    V [B, m + 1, D + p]: its basis.  columns: those of H, the k-th [B, k + 1].  most: what m may come to.
    """

    def __init__(self, times: Callable[[Tensor], Tensor], ws: Sequence[Tensor]) -> None:
        W = torch.stack(list(ws)[::-1], -1)
        size = W.detach().abs().sum(1).amax(1)[:, None]
        self.size = torch.where(size > 0, size, 1.0)
        self.times, self.W, self.columns = times, W / self.size[..., None], list[Tensor]()
        self.D, self.p = W.shape[1:]
        self.most = self.D + self.p
        self.V = W.new_zeros(len(W), 1, self.most)
        self.V[..., -1] = 1.0

    def widen(self, m: int) -> None:
        graph, have = torch.is_grad_enabled(), len(self.columns)
        if not graph:  # room at once; what is in a graph is not written to
            self.V = torch.nn.functional.pad(self.V, (0, 0, 0, m - have))
        for k in range(have, m):
            known = self.V[:, : k + 1]
            v, column = _direction(known, self._product(known[:, -1]))
            self.columns.append(column)
            if graph:
                self.V = torch.cat([known, v[:, None]], 1)
            else:
                self.V[:, k + 1] = v

    def _product(self, v: Tensor) -> Tensor:
        y, z = v.split((self.D, self.p), 1)
        pushed = self.times(y) + (self.W @ z[..., None])[..., 0]
        return torch.cat([pushed, z[:, 1:], torch.zeros_like(z[:, :1])], 1)

    def read(self, cs: Sequence[float]) -> tuple[list[Tensor], Tensor]:
        """y(c) for each c, and the estimate of the error at the largest."""
        m, V = len(self.columns), self.V[..., : self.D]
        rows = [torch.nn.functional.pad(c, (0, m + 1 - c.shape[1])) for c in self.columns]
        H = torch.stack([*rows, torch.zeros_like(rows[0])], -1)
        weights = [torch.linalg.matrix_exp(c * H)[..., 0] for c in cs]
        last = weights[cs.index(max(cs))][:, -1:]
        return [self.size * (w[:, None] @ V)[:, 0] for w in weights], (self.size * last * V[:, -1]).detach()


def _direction(V: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """What w adds to the orthonormal V [B, m, n], a unit vector or 0, and the column of H, [B, m + 1]."""
    before, total = torch.linalg.vector_norm(w, dim=1), torch.zeros_like(V[..., 0])
    for _ in range(2):
        h = (V @ w[..., None])[..., 0]
        total, w = total + h, w - (h[:, None] @ V)[:, 0]
        length = torch.linalg.vector_norm(w, dim=1)
        if bool((length >= LOST * before).all()):
            break
    new = length > 10 * torch.finfo(w.dtype).eps * before  # else the space is complete
    length = torch.where(new, length, 0.0)
    v = torch.where(new[:, None], w / torch.where(new, length, 1.0)[:, None], 0.0)
    return v, torch.cat([total, length[:, None]], 1)
