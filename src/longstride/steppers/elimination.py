"""Small systems of many samples, entry by entry: all is elementwise along the batch, one compiled loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]


def eliminated(A: Sequence[Sequence[Tensor]]) -> Callable[[Parts], Parts]:
    """r -> A^-1 r, A as rows of entries [B], r as entries: Gauss elimination with partial pivoting.

    Every sample has pivots of its own. So the rows below the k-th change places with it one after the other,
    each where its entry is larger: then the largest stands at k, and l_ik = a_ik/a_kk is at most 1. What was
    done to the rows of A is done to r, in the same order.
    """
    rows, n = [list(row) for row in A], len(A)
    larger: dict[tuple[int, int], Tensor] = {}
    below: dict[tuple[int, int], Tensor] = {}
    inverse: list[Tensor] = []
    for k in range(n):
        for i in range(k + 1, n):
            larger[i, k] = rows[i][k].abs() > rows[k][k].abs()
            for j in range(k, n):
                rows[k][j], rows[i][j] = _exchanged(larger[i, k], rows[k][j], rows[i][j])
        inverse.append(1 / rows[k][k])
        for i in range(k + 1, n):
            below[i, k] = rows[i][k] * inverse[k]
            for j in range(k + 1, n):
                rows[i][j] = rows[i][j] - below[i, k] * rows[k][j]

    def solve(r: Parts) -> Parts:
        x = list(r)
        for k in range(n):
            for i in range(k + 1, n):
                x[k], x[i] = _exchanged(larger[i, k], x[k], x[i])
            for i in range(k + 1, n):
                x[i] = x[i] - below[i, k] * x[k]
        for k in reversed(range(n)):
            for j in range(k + 1, n):
                x[k] = x[k] - rows[k][j] * x[j]
            x[k] = x[k] * inverse[k]
        return tuple(x)

    return solve


def _exchanged(mask: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(mask, b, a), torch.where(mask, a, b)
