"""Between two walls, periodic along them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..blocks import Blocks, product
from ..core import beside
from ..errors import ArgumentError
from .chebyshev import Chebyshev
from .fourier import Fourier


class Channel:
    """A Fourier series along, polynomials across: fields [..., *n, m] at the points of both.

    across: a `Chebyshev`; or one for each of C fields, on the same points, with walls of its own. Then fields
    are [..., C, *n, m].

    What a run carries is c [..., C (m - 2), *along.shape]: the values inside of each mode, field after field.
    A derivative across is a matrix, one along is a number, and all are matrices of each mode, [*along.shape,
    m - 2, m - 2], that may be added and multiplied by `@`. `blocks` makes an L of them:

        ls.PDE(space=space, L=space.blocks([[0.1 * space.laplace()]]), ...)

    and `Matrices` what a `Pointwise(space.along, ...)` reads and writes, whose function sees the values
    inside. Products are dealiased along, as `along` says, and not across. Where the conditions at the walls
    have right-hand sides, f has the same share of `lift(2)` added.

    Raises:
        ArgumentError: no field, or fields whose points across differ.
    """

    def __init__(self, across: Chebyshev | Sequence[Chebyshev], along: Fourier) -> None:
        self.one = isinstance(across, Chebyshev)
        self.across = (across,) if isinstance(across, Chebyshev) else tuple(across)
        if not self.across:
            raise ArgumentError("a channel of no field: give a Chebyshev, or one for each field")
        self.along, first = along, self.across[0]
        if any((other.n, other.ends) != (first.n, first.ends) for other in self.across):
            raise ArgumentError("the fields of a channel lie on the same points: one n, one pair of ends")
        self.n, self.dim, self.length = (*along.n, *first.n), along.dim + 1, (*along.length, *first.length)
        self.shape = (len(self.across) * first.shape[0], *along.shape)

    @property
    def axes(self) -> range:
        """Of a field, from behind."""
        return range(-self.dim, 0)

    @cached_property
    def x(self) -> tuple[Tensor, ...]:
        """The points of each axis, shaped to broadcast; across is last."""
        return (*(x.unsqueeze(-1) for x in self.along.x), self.across[0].x[0])

    def d(self, axis: int, order: int = 1, field: int = 0) -> Tensor:
        """Of a field, the derivative inside, [*along.shape, m - 2, m - 2]."""
        across = axis % self.dim == self.along.dim
        M = self.across[field].d(0, order if across else 0)
        symbol = torch.ones(self.along.shape, dtype=M.dtype) if across else self.along.d(axis, order)
        return symbol.broadcast_to(self.along.shape)[..., None, None] * M

    def laplace(self, field: int = 0) -> Tensor:
        """Of a field, the Laplacian inside."""
        first, *others = (self.d(axis, 2, field) for axis in range(self.dim))
        return sum(others, first)

    def matrix(self, rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
        """Rows of such matrices, and numbers, as one: [*along.shape, P (m - 2), C (m - 2)]."""
        one = self.d(self.along.dim, 0)
        entries = [[entry if isinstance(entry, Tensor) else entry * one for entry in row] for row in rows]
        kind = next((M.dtype for row in entries for M in row if M.is_complex()), torch.float64)
        shape = torch.broadcast_shapes(*(M.shape for row in entries for M in row))
        wide = [torch.cat([M.to(kind).broadcast_to(shape) for M in row], -1) for row in entries]
        return torch.cat(wide, -2)

    def blocks(self, rows: Sequence[Sequence[Tensor | float]]) -> Blocks:
        """The linear part whose rows these are, one for each field."""
        dim = self.along.dim
        return Blocks(self.matrix(rows).movedim((-2, -1), (-2 - dim, -1 - dim)), dim=dim)

    def lift(self, order: int, field: int = 0) -> Tensor:
        """[m - 2, *along.shape]: what the right-hand sides of the conditions add to a derivative across."""
        inside = self.across[field].lift(order).view(-1, *[1] * self.along.dim)
        return self.along.enter(inside.expand(-1, *self.along.n))

    def enter(self, x: Tensor) -> Tensor:
        """The values inside of each mode of a field [..., *n, m].

        Raises:
            ArgumentError: another number of points or of fields, or no batch.
        """
        fields = () if self.one else (len(self.across),)
        wanted = (*fields, *self.n)
        if x.ndim <= len(wanted) or tuple(x.shape[-len(wanted) :]) != wanted:
            raise ArgumentError(f"a state {tuple(x.shape)} in a channel: it must be [B, {str(wanted)[1:-1]}]")
        c = self.along.enter(x[..., 1:-1].movedim(-1, -self.dim))
        return c if self.one else c.flatten(-1 - self.dim, -self.dim)

    def leave(self, c: Tensor) -> Tensor:
        """The field, walls included."""
        values = self.along.leave(c.unflatten(-self.dim, (len(self.across), -1))).movedim(-self.dim, -1)
        fields = values.unbind(-self.dim - 1)
        found = [one.leave(w) for one, w in zip(self.across, fields, strict=True)]
        return found[0] if self.one else torch.stack(found, -self.dim - 1)


class Matrices:
    """A read of a `Pointwise` in a channel, c [..., C (m - 2), *K] to [..., P, m - 2, *K]. Its `write` is one
    of P fields that stand apart as well, and leaves C that do not.

    rows: matrices of `space` or numbers.
    """

    def __init__(self, space: Channel, rows: Sequence[Sequence[Tensor | float]]) -> None:
        self.M, self.at, self.fields = space.matrix(rows), -space.dim, len(rows)
        self.made = dict[Any, Tensor]()

    def __call__(self, c: Tensor) -> Tensor:
        return self._times(c).unflatten(self.at, (self.fields, -1))

    def write(self, c: Tensor) -> Tensor:
        return self._times(c.flatten(self.at - 1, self.at))

    def _times(self, c: Tensor) -> Tensor:
        key = (c.dtype, c.device)
        if key not in self.made:
            self.made[key] = beside(self.M, c)
        columns = c.movedim((0, self.at), (-1, -2))
        return product(self.made[key], columns).movedim((-1, -2), (0, self.at))
