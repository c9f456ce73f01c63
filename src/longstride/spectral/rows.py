"""Weighted sums of coefficients as loops in C."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Weight
from ..native.emit import Unsuited


@dataclass(eq=False)
class Buffer:
    """One sample's numbers [*lead, along], complex or real, so many reals from where all buffers begin."""

    lead: tuple[int, ...]
    along: int
    complex: bool
    offset: int

    @property
    def rows(self) -> int:
        return math.prod(self.lead)

    def at(self, lead: tuple[int, ...]) -> int:
        """Where the row begins that stands beside this row of another."""
        own = lead[len(lead) - len(self.lead) :]
        strides = [math.prod(self.lead[d + 1 :]) for d in range(len(self.lead))]
        row = sum(i * s for i, s, n in zip(own, strides, self.lead, strict=True) if n > 1)
        return self.offset + row * self.along * (1 + self.complex)


@dataclass(eq=False)
class Row:
    """out = base + w v, coefficient by coefficient; a base that is a tensor is a table."""

    out: Buffer
    v: Buffer
    w: Weight
    base: Buffer | Tensor | None = None


class Tables:
    """Numbers that loops read, one table after the other; what is the same object is there once."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.size = dtype, 0
        self.parts, self.known = list[Tensor](), dict[int, tuple[Any, list[int | None]]]()

    def entry(self, w: Weight, lead: tuple[int, ...]) -> tuple[str, str]:
        """The real and imaginary part of a weight beside row `lead` of coefficients; "" where it has none."""
        if id(w) not in self.known:
            table = w if isinstance(w, Tensor) else torch.tensor(w, dtype=torch.float64)
            if table.ndim > len(lead) + 1 and table.shape[0] > 1:
                raise Unsuited("a weight of each sample")
            halves = (table.real, table.imag) if table.is_complex() else (table, None)
            self.known[id(w)] = w, [self._put(part) for part in halves]
        shape = w.shape if isinstance(w, Tensor) else torch.Size()
        strides = [math.prod(shape[d + 1 :]) if n > 1 else 0 for d, n in enumerate(shape)]
        *rows, along = [0, *strides]
        at = sum(i * s for i, s in zip(reversed(lead), reversed(rows), strict=False))
        real, imaginary = (
            "" if begin is None else f"T[{begin + at}{' + k' if along else ''}]"
            for begin in self.known[id(w)][1]
        )
        return real, imaginary

    def _put(self, part: Tensor | None) -> int | None:
        if part is None or not part.count_nonzero():
            return None
        self.parts.append(part.to(self.dtype).flatten())
        begin, self.size = self.size, self.size + part.numel()
        return begin

    def all(self) -> Tensor:
        return torch.cat(self.parts) if self.parts else torch.zeros(1, dtype=self.dtype)


class Loop:
    """Rows one after the other as one loop along the coefficients: each number is read and written once."""

    def __init__(self, tables: Tables, kind: str) -> None:
        self.tables, self.kind = tables, kind
        self.lines, self.now = list[str](), dict[tuple[Buffer, int], tuple[str, str]]()
        self.changed = dict[tuple[Buffer, int], None]()

    def row(self, row: Row) -> None:
        for lead in np.ndindex(*row.out.lead):
            v, base = self.value(row.v, lead), None if row.base is None else self.value(row.base, lead)
            made = self.product(v, row.w, lead)
            if base is not None:
                made = f"{base[0]} + {made[0]}", f"{base[1]} + {made[1]}"
            at = row.out, row.out.at(lead)
            self.now[at] = self.named(*made)
            self.changed[at] = None

    def text(self, coefficients: int) -> list[str]:
        """The loop, if there is anything to do."""
        stores = [
            f"W[{at[1]} + 2*k + {part}] = {name};"
            for at in self.changed
            for part, name in enumerate(self.now[at])
        ]
        loop = f"for (int64_t k = 0; k < {coefficients}; k++) {{"
        return ["#pragma GCC ivdep", loop, *self.lines, *stores, "}"] if stores else []

    def named(self, real: str, imaginary: str) -> tuple[str, str]:
        n = len(self.lines)
        self.lines += [f"const {self.kind} a{n} = {real};", f"const {self.kind} b{n} = {imaginary};"]
        return f"a{n}", f"b{n}"

    def value(self, v: Buffer | Tensor, lead: tuple[int, ...]) -> tuple[str, str]:
        if isinstance(v, Tensor):
            real, imaginary = self.tables.entry(v, lead)
            return real or "0", imaginary or "0"
        at = v, v.at(lead)
        if at not in self.now:
            self.now[at] = self.named(*(f"W[{at[1]} + 2*k + {part}]" for part in (0, 1)))
        return self.now[at]

    def product(self, v: tuple[str, str], w: Any, lead: tuple[int, ...]) -> tuple[str, str]:
        a, b = v
        if isinstance(w, float) and w == 1.0:
            return v
        real, imaginary = self.tables.entry(w, lead)
        if not imaginary:
            return f"{real or 0} * {a}", f"{real or 0} * {b}"
        if not real:
            return f"-{imaginary} * {b}", f"{imaginary} * {a}"
        return f"{real} * {a} - {imaginary} * {b}", f"{real} * {b} + {imaginary} * {a}"
