"""Systems with I - c J, J = df/dx of each sample: dense, banded, diagonal, or never written down.

A structure finds J from a `Tangent` of f, factors I - c J for c [G], real or complex, and solves with it. J
and what `factor` gives are tuples of tensors that lead with the batch, so that samples keep theirs or get new
ones by a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ArgumentError, whole
from .jacobian import Tangent, given, vector

Parts = tuple[Tensor, ...]
BLOCK = 16  # rows of a block of a banded matrix, unless its bands are wider


class Structure(Protocol):
    """How J is found and I - c J solved with, on states [B, D]."""

    def jacobian(self, tangent: Tangent) -> Parts: ...

    def factor(self, J: Parts, c: Tensor) -> Parts: ...

    def solve(self, factors: Parts, r: Tensor) -> Tensor: ...


def choose(mask: Tensor, new: Parts, old: Parts) -> Parts:
    """The new parts where mask [G] is true, else the old."""
    pairs = zip(new, old, strict=True)
    return tuple(torch.where(mask.view(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in pairs)


class Dense:
    """J [B, D, D], by D products or from the user; LU with pivoting, batched."""

    def __init__(self, x: Tensor, given: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self.eye, self.given = torch.eye(x.shape[1], dtype=x.dtype, device=x.device), given

    def jacobian(self, tangent: Tangent) -> Parts:
        if self.given is not None:
            return (self.given(tangent.t.detach(), tangent.x if tangent.graph else tangent.x.detach()),)
        return (tangent.rows(self.eye).transpose(0, 1).contiguous(),)

    def factor(self, J: Parts, c: Tensor) -> Parts:
        LU, pivots, _ = torch.linalg.lu_factor_ex(self.eye - c.view(-1, 1, 1) * J[0])
        return LU, pivots

    def solve(self, factors: Parts, r: Tensor) -> Tensor:
        return torch.linalg.lu_solve(*factors, r[..., None])[..., 0]


class Diagonal:
    """J [B, D], by one product: element i of f depends on element i of x alone."""

    def __init__(self, x: Tensor) -> None:
        self.ones = torch.ones(1, x.shape[1], dtype=x.dtype, device=x.device)

    def jacobian(self, tangent: Tangent) -> Parts:
        return (tangent.rows(self.ones)[0],)

    def factor(self, J: Parts, c: Tensor) -> Parts:
        return (1 / (1 - c[:, None] * J[0]),)

    def solve(self, factors: Parts, r: Tensor) -> Tensor:
        return factors[0] * r


class Banded:
    """J with `lower` diagonals below and `upper` above its own, by lower + upper + 1 products.

    Rows that many apart have no column in common, and one product finds them all (Curtis, Powell and
    Reid 1974). Blocks of rows make the matrix block tridiagonal, [B, n, b, 3b]: Gauss elimination by
    blocks, with pivoting inside a block.
    """

    def __init__(self, x: Tensor, lower: int, upper: int) -> None:
        size, colours = x.shape[1], min(lower + upper + 1, x.shape[1])
        like: dict[str, Any] = {"device": x.device}
        rows = torch.arange(size, **like)
        self.size, self.b = size, min(max(lower, upper, BLOCK), size)
        self.n = -(-size // self.b)
        self.probes = (rows % colours == torch.arange(colours, **like)[:, None]).to(x.dtype)
        i, k = torch.meshgrid(rows, torch.arange(-lower, upper + 1, **like), indexing="ij")
        i, j = i[(i + k >= 0) & (i + k < size)], (i + k)[(i + k >= 0) & (i + k < size)]
        self.source = (i % colours) * size + j
        self.target = i * 3 * self.b + j - i // self.b * self.b + self.b
        self.eye = torch.eye(self.b, dtype=x.dtype, device=x.device)

    def jacobian(self, tangent: Tangent) -> Parts:
        found = tangent.rows(self.probes).transpose(0, 1).flatten(1)
        flat = found.new_zeros(len(found), self.n * self.b * 3 * self.b)
        flat = flat.index_copy(1, self.target, found[:, self.source])
        return (flat.view(-1, self.n, self.b, 3 * self.b),)

    def whole(self, J: Parts) -> Tensor:
        """J [B, D, D]."""
        b, n = self.b, self.n
        wide = J[0].new_zeros(len(J[0]), n, b, (n + 2) * b)
        for k in range(n):
            wide[:, k, :, k * b : (k + 3) * b] = J[0][:, k]
        return wide.flatten(1, 2)[:, : self.size, b : b + self.size]

    def factor(self, J: Parts, c: Tensor) -> Parts:
        blocks = -c.view(-1, 1, 1, 1) * J[0]
        below, middle, above = blocks.split(self.b, -1)
        factors, left, right = list[Parts](), list[Tensor](), list[Tensor]()
        for k in range(self.n):
            S = self.eye + middle[:, k]
            if k:
                S = S - below[:, k] @ right[-1]
            LU, pivots, _ = torch.linalg.lu_factor_ex(S)
            both = torch.linalg.lu_solve(LU, pivots, torch.cat([below[:, k], above[:, k]], -1))
            factors.append((LU, pivots))
            left.append(both[..., : self.b])
            right.append(both[..., self.b :])
        LU, pivots = (torch.stack(parts, 1) for parts in zip(*factors, strict=True))
        return LU, pivots, torch.stack(left, 1), torch.stack(right, 1)

    def solve(self, factors: Parts, r: Tensor) -> Tensor:
        LU, pivots, left, right = factors
        padded = torch.nn.functional.pad(r, (0, self.n * self.b - self.size))
        ys = list(torch.linalg.lu_solve(LU, pivots, padded.view(-1, self.n, self.b, 1)).unbind(1))
        for k in range(1, self.n):
            ys[k] = torch.baddbmm(ys[k], left[:, k].expand(len(r), -1, -1), ys[k - 1], alpha=-1)
        for k in reversed(range(self.n - 1)):
            ys[k] = torch.baddbmm(ys[k], right[:, k].expand(len(r), -1, -1), ys[k + 1], alpha=-1)
        return torch.cat(ys, 1)[:, : self.size, 0]


def structure(jacobian: Any, x0: Tensor, linear: str | None = None) -> Structure:
    """Of what a problem says of its Jacobian: None, a function, "diagonal", or (lower, upper)."""
    x = vector(x0)
    if linear is not None:
        from .gmres import MatrixFree  # it is a structure itself

        if linear != "gmres" or jacobian is not None:
            raise ArgumentError(f'linear = {linear!r}: it is "gmres", which wants no jacobian')
        return MatrixFree()
    if jacobian is None or callable(jacobian):
        return Dense(x, jacobian and given(jacobian, x0))
    if x0.is_complex():
        raise ArgumentError("a diagonal or banded jacobian is for real states: leave it out")
    if jacobian == "diagonal":
        return Diagonal(x)
    if isinstance(jacobian, tuple) and len(jacobian) == 2:
        lower, upper = (whole("jacobian", width, 0) for width in jacobian)
        return Banded(x, min(lower, x.shape[1] - 1), min(upper, x.shape[1] - 1))
    raise ArgumentError(
        f'jacobian = {jacobian!r}: it is a function of (t, x), "diagonal", or widths of bands (lower, upper)'
    )
