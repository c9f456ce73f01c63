"""Between two walls, periodic along them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .chebyshev import Chebyshev
from .fourier import Fourier


class Channel:
    """Polynomials across, a Fourier series along: fields [..., m, *n] at the points of both.

    What a run carries is c [..., m - 2, *along.shape]: the values inside of each mode. A derivative across is
    then a full matrix and one along is a number, so that the Laplacian is a block of each mode, `laplace`:

        ODE(lambda t, c: ..., L=ls.Blocks(0.1 * space.laplace), space=space)

    Where the conditions at the walls have right-hand sides, f has the same share of `lift(2)` added.
    """

    def __init__(self, across: Chebyshev, along: Fourier) -> None:
        self.across, self.along = across, along
        self.n, self.dim = (*across.n, *along.n), 1 + along.dim
        self.length, self.shape = (*across.length, *along.length), (*across.shape, *along.shape)

    @property
    def axes(self) -> range:
        """Of a field, from behind."""
        return range(-self.dim, 0)

    @cached_property
    def x(self) -> tuple[Tensor, ...]:
        """The points of each axis, shaped to broadcast."""
        return (self.across.x[0].view(-1, *[1] * self.along.dim), *self.along.x)

    @cached_property
    def laplace(self) -> Tensor:
        """[m - 2, m - 2, *along.shape]."""
        bent = self.across.d(0, 2)
        one = torch.eye(len(bent), dtype=bent.dtype)
        wide = (slice(None), slice(None), *[None] * self.along.dim)
        return bent[wide] - one[wide] * self.along.k2

    def lift(self, order: int) -> Tensor:
        """[m - 2, *along.shape]: what the right-hand sides of the conditions add to a derivative across."""
        inside = self.across.lift(order).view(-1, *[1] * self.along.dim)
        return self.along.enter(inside.expand(-1, *self.along.n))

    def enter(self, x: Tensor) -> Tensor:
        """The values inside of each mode of a field [..., m, *n]."""
        return self.along.enter(self.across.enter(x.movedim(-self.dim, -1)).movedim(-1, -self.dim))

    def leave(self, c: Tensor) -> Tensor:
        """The field, walls included."""
        return self.across.leave(self.along.leave(c).movedim(-self.dim, -1)).movedim(-1, -self.dim)
