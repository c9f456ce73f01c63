"""What mixes the fields of a state: a matrix of symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core import beside
from .fourier import Fourier

Entry = Tensor | float


class Symbols:
    """c [..., C, *K] to [..., P, *K], sum_j A_ij c_j: a read or a write of a `Pointwise`.

    rows: P of C entries, symbols of `space` or numbers. [[-y, x]] is the vorticity of (u, v) for x, y =
    space.d(0), space.d(1); [[1, 0]] reads the first of two fields, [[0], [1]] writes the second.
    """

    def __init__(self, space: Fourier, rows: Sequence[Sequence[Entry]]) -> None:
        self.at, self.rows = -1 - space.dim, rows
        self.made: dict[Any, list[list[Entry]]] = {}

    def __call__(self, c: Tensor) -> Tensor:
        key = (c.dtype, c.device)
        if key not in self.made:
            self.made[key] = [[beside(entry, c) for entry in row] for row in self.rows]
        fields = c.unbind(self.at)
        return torch.stack([_mixed(row, fields) for row in self.made[key]], self.at)


def _mixed(row: Sequence[Entry], fields: Sequence[Tensor]) -> Tensor:
    terms = [
        field if isinstance(entry, int | float) and entry == 1 else field * entry
        for entry, field in zip(row, fields, strict=True)
        if isinstance(entry, Tensor) or entry != 0
    ]
    return sum(terms[1:], terms[0]) if terms else torch.zeros_like(fields[0])


def curl(space: Fourier) -> list[list[Entry]]:
    """Rows of i k x c, in three dimensions."""
    x, y, z = (space.d(axis) for axis in range(3))
    return [[0, -z, y], [z, 0, -x], [-y, x, 0]]


def solenoidal(space: Fourier) -> list[list[Entry]]:
    """Rows of c - k (k.c)/|k|^2: what the pressure leaves of a force, so that div u stays 0."""
    square = torch.where(space.k2 > 0, space.k2, 1)
    return [[float(i == j) - a * b / square for j, b in enumerate(space.k)] for i, a in enumerate(space.k)]
