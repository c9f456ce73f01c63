"""A round of a Gauss-Radau step as a turn of a native loop: each sample takes as many as its own step needs.

A turn goes through the nodes once. It also ends the step, for those whose coefficients no longer change, and
begins the next: what it carries from turn to turn says where in a step a sample is. Nobody waits for the
rounds of others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from ..columns import WIDE
from ..errors import ArgumentError
from ..steppers.gauss_radau import ROUNDS, Fitted, GaussRadau
from ..steppers.trial import Rate
from .graphs import Bounds, Graph, Made, Parts, State

if TYPE_CHECKING:
    from .stepping import Loop


@dataclass(frozen=True)
class Radaus(Graph):
    """more: b of the last step and what it was guessed to be [B, 7, ...], what rounding took, and h of it.

    inner: b and its Newton form g as they are in a step, its turns so far, the change in the last of them,
    evaluations so far.
    """

    stepper: GaussRadau

    @classmethod
    def of(cls, loop: Loop, columns: int) -> Self:
        stepper = loop.stepper
        assert isinstance(stepper, GaussRadau)
        size = math.prod(stepper.shape[1:])
        if columns < WIDE or size > WIDE or stepper.shared or stepper.dtype.is_complex:
            raise ArgumentError(
                f"compile=True of gauss_radau_15 is a loop in C++, of samples of up to {WIDE} real numbers, "
                f"here {size}, each in steps of its own, on the CPU: it takes a C++ compiler, and a(t, x) "
                "that is of torch alone; leave it out where one of these is not so"
            )
        return cls(**cls.common(loop, size), stepper=stepper)

    def evaluations(self, at: State, tries: Tensor, rejected: Tensor) -> Tensor:
        return at.inner[-1]

    def carried(self) -> tuple[Parts, Parts]:
        stepper = self.stepper
        b, guessed = stepper.b.movedim(1, 0), stepper.guessed.movedim(1, 0)
        none = torch.zeros_like(stepper.last_h, dtype=torch.int64)
        inner = torch.zeros_like(b), torch.zeros_like(b), none, stepper.last_h, none
        return (b, guessed, stepper.lost, stepper.last_h), inner

    def restore(self, stepper: GaussRadau, at: State, made: int) -> None:
        b, guessed, lost, last_h = at.more
        stepper.b, stepper.guessed = b.movedim(1, 0), guessed.movedim(1, 0)
        stepper.lost, stepper.last_h = lost, last_h

    def trial(self, rate: Rate, at: State, h: Tensor, bounds: Bounds) -> Made:
        """A round, and the step of those for whom it was the last."""
        stepper, x, first = self.stepper, self.join(at.x), self.join(at.first)
        old, guessed, lost, last_h = at.more
        b, g, turn, before, spent = at.inner
        guess, opening = stepper.expected(h, last_h, old.movedim(1, 0), guessed.movedim(1, 0))
        fresh = turn == 0
        wide = fresh.view(self.lead)
        b = torch.where(wide, opening, b.movedim(1, 0))
        g = torch.where(wide, stepper.from_powers.mixed(opening), g.movedim(1, 0))
        times = tuple(self.time(at.s + c * h, bounds.limit) for c in (*stepper.nodes, 1.0))
        path = stepper.path(stepper.known, times, h, x, first)
        b, gs, error = stepper.round(path, b, list(g.unbind()))
        moving = stepper.moves(error, torch.where(fresh, torch.inf, before), turn) & (turn + 1 < ROUNDS)
        x1, last, lost = stepper.moved(path, x, b, lost)
        trial = Fitted(at.s, h, x, x1, last, x1, first=first, b=b, guess=guess, lost=lost)
        K = stepper.complete(trial) if self.keep else None
        inner = (
            b.movedim(1, 0), torch.stack(gs, 1), torch.where(moving, turn + 1, 0), error,
            spent + torch.where(moving, 7, 8),
        )  # fmt: skip
        more = b.movedim(1, 0), guess.movedim(1, 0), lost, h
        ratio = stepper.judged(path.a, b, bounds.rtol[0])
        return Made(self.split(x1), self.split(last), K, ratio, None, more, inner, ~moving)
