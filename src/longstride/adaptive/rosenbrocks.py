"""A step of a Rosenbrock method as a graph: for states of few columns, whose matrices are entries [B].

df/dx comes by products from the right, each a derivative of f along one column; the systems are eliminated
entry by entry. So the whole step is elementwise along the batch, as one of an explicit pair is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..methods.rosenbrock import Rosenbrock
from ..steppers.elimination import eliminated
from ..steppers.jacobian import vector
from ..steppers.linear import Dense
from ..steppers.linearly import LinearlyImplicit
from ..steppers.trial import Rate
from .graphs import Bounds, Graph, Made, Parts, State

if TYPE_CHECKING:
    from .stepping import Loop

LINEAR = 8  # columns at most, in any loop: eliminating takes a third of their cube


@dataclass(frozen=True)
class Rosenbrocks(Graph):
    """Of Rosenbrock methods.  jacobian: df/dx [B, D, D] of (t, x [B, D]), where the user gave it."""

    table: Rosenbrock
    jacobian: Callable[[Tensor, Tensor], Tensor] | None

    @classmethod
    def of(cls, loop: Loop, columns: int) -> Self:
        stepper = loop.stepper
        assert isinstance(stepper, LinearlyImplicit)
        size = math.prod(stepper.shape[1:])
        if size > LINEAR or stepper.dtype.is_complex:
            raise ArgumentError(
                f"compile=True of Rosenbrock methods takes real states of up to {LINEAR} elements a sample, "
                f"not {size} of {stepper.dtype}: leave it out"
            )
        given = stepper.structure.given if isinstance(stepper.structure, Dense) else None
        return cls(**cls.common(loop, size), table=stepper.table, jacobian=given)

    def evaluations(self, at: State, tries: Tensor, rejected: Tensor) -> Tensor:
        """df/dx and df/dt are those of a point, and cost one where it is first stepped from."""
        asked = sum(map(self.table.asks, range(len(self.table.b))))
        return (asked + 1) * tries + (tries - rejected)

    def restore(self, stepper: LinearlyImplicit, at: State, made: int) -> None:
        stepper.jacobians, stepper.factorizations = (
            n + made for n in (stepper.jacobians, stepper.factorizations)
        )

    def linearized(self, rate: Rate, at: State) -> tuple[list[Parts], Parts]:
        """Rows of df/dx, and df/dt, just behind s, on the far side of what may jump there."""
        s, real = at.s.to(self.real), torch.finfo(self.real)
        t, x = self.time(s + (real.eps * s.abs() + real.tiny)), self.join(at.x)

        def pushed(j: int | None) -> Parts:
            """The derivative of f along x_j, or along t: along both at once, of which one is 0."""
            by_t = torch.full_like(t, float(j is None))
            by_x = self.join(tuple(torch.full_like(part, float(i == j)) for i, part in enumerate(at.x)))
            return self.split(torch.func.jvp(rate, (t, x), (by_t, by_x))[1])

        if self.jacobian is None:
            J = list(zip(*(pushed(j) for j in range(self.columns)), strict=True))
        else:
            J = [row.unbind(1) for row in self.jacobian(t, vector(x)).unbind(1)]
        return J, pushed(None)

    def trial(self, rate: Rate, at: State, h: Tensor, b: Bounds) -> Made:
        """A step of h, as `linearly.LinearlyImplicit` has it."""
        table, f = self.table, at.first
        by = self.beside(self.sign * h, at.x[0])
        scaled = table.gamma * by
        J, by_time = self.linearized(rate, at)
        solve = eliminated(
            [[float(i == j) - scaled * entry for j, entry in enumerate(row)] for i, row in enumerate(J)]
        )
        us = [at.x, tuple(scaled * by * part for part in by_time)]
        for i, (a, C, c, d) in enumerate(zip(table.a, table.C, table.c, table.d, strict=True)):
            if table.asks(i):
                f = self.asked(rate, at.s + c * h, self.combined((1.0, 0.0, *a), us), b)
            rest = self.combined((0.0, d, *(table.gamma * w for w in C)), us)
            us.append(solve(tuple(r + scaled * part for r, part in zip(rest, f, strict=True))))
        x1 = self.combined((1.0, 0.0, *table.b), us)
        f = self.asked(rate, at.s + h, x1, b)
        if table.error:
            error = self.combined((0.0, 0.0, *table.error), us)
        else:
            ends = zip(at.x, x1, at.first, f, strict=True)
            error = solve(tuple(y - x - 0.5 * by * (begin + end) for x, y, begin, end in ends))
        ratio = self.size(error, self.allowed(at.x, x1, b))
        stuck = (h > 0) & (at.s + h == at.s)  # a state that time does not move is none
        ratio = torch.where(stuck, ratio * 0 + 2.0**self.shrinks, ratio)
        return Made(x1, f, self.along(at, by, x1, f, us) if self.keep else None, ratio, None, ())

    def asked(self, rate: Rate, s: Tensor, x: Parts, b: Bounds) -> Parts:
        return self.split(rate(self.time(s, b.limit), self.join(x)))

    def along(self, at: State, by: Tensor, x1: Parts, f: Parts, us: list[Parts]) -> Tensor:
        """What the stepper's `between` reads a step by."""
        if self.table.dense:
            return torch.stack([self.join(u) for u in us[2:]])
        moved = tuple(y - x for x, y in zip(at.x, x1, strict=True))
        ends = (tuple(by * part for part in parts) for parts in (at.first, f))
        return torch.stack([*(self.join(parts) for parts in ends), self.join(moved)])
