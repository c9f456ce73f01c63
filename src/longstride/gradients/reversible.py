"""Steps that can be undone: any explicit pair, made algebraically reversible.

With Psi_h(x), the increment of a Runge-Kutta step of h from x, two states y and z that begin alike go on by

    y' = lambda y + (1 - lambda) z + Psi_h(z),        z' = z - Psi_(-h)(y')

of the order of Psi (McCallum and Foster 2024, "Efficient, accurate and stable gradients for neural ODEs"),
and go back by the same evaluations:

    z = z' + Psi_(-h)(y'),        y = (y' - (1 - lambda) z - Psi_h(z))/lambda

So a gradient takes the state at the end alone, with the lengths of the steps. Round-off grows by 1/lambda a
step going back. A step costs two of the pair's: f(y') ends the first half and begins the second, and
stands in for the last evaluation of the pair in its error estimate and interpolant, to which it is near
enough: y - z is of the size of the local error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adaptive.carry import Ended
from ..adaptive.stepping import Loop
from ..control import Controller, I
from ..errors import ArgumentError
from ..methods.embedded import PAIRS
from ..steppers.trial import Explicit, Trial
from .recorded import Taken, Tape, looked_run
from .transpose import Kept, transposed

COUPLING = 0.999  # lambda: at 1 y forgets nothing, and is but weakly stable
REVERSIBLE = {f"reversible_{name}": pair for name, pair in PAIRS.items()}


@dataclass
class Coupled(Trial):
    """A trial whose K begins at z, beside y in x."""

    z: Tensor = field(kw_only=True)


class Reversible(Explicit):
    """y is the state x; f(z) and z travel as `first` [2, B, ...]."""

    controller: Controller = I()

    def __init__(self, *bound: Any) -> None:
        super().__init__(*bound)
        self.most, self.two_at_end = 2 * (self.pair.evaluations - 1), False
        pull = torch.zeros_like(self.dense[:1])  # the row of (1 - lambda) (z - y), which goes with theta
        pull[0, 0] = 1.0
        self.dense = torch.cat([self.dense, pull])

    def entered(self, x: Tensor, first: Tensor) -> Tensor:
        return torch.stack([first, x])

    def afresh(self, s: Tensor, x: Tensor, first: Tensor, jumped: Tensor) -> Tensor:
        f, z = first
        return torch.stack([super().afresh(s, z, f, jumped), z])

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Coupled:
        f, z = first
        ks = self._stages(s, h, z, f)
        y1 = COUPLING * x + (1 - COUPLING) * z + self._mix(self.rows[len(ks) - 1], ks)
        f1, back = self._back(s, h, y1)
        z1 = z - back
        last = torch.stack([self.rate(self.times(s, h, self.c)[-1], z1), z1])
        K = torch.stack([*ks, self.spread(h) * f1])
        if not self.graph:
            self.seen = [K.view(len(K), -1)[: row.shape[1]] for row in self.judges]
        return Coupled(s, h, x, y1, last, K, self.most, z=z)

    def _stages(self, s: Tensor, h: Tensor, x: Tensor, f: Tensor) -> list[Tensor]:
        """h times the evaluations of the pair from x on, where f is known, but for the one at the end."""
        by = self.spread(h)
        ks = [by * f]
        for row, t in zip(self.rows[: self.pair.evaluations - 2], self.times(s, h, self.c), strict=False):
            ks.append(by * self.rate(t, x + self._mix(row, ks)))
        return ks

    def _back(self, s: Tensor, h: Tensor, y1: Tensor) -> tuple[Tensor, Tensor]:
        """f at the end of a step, and Psi_(-h) from there."""
        f1 = self.rate(self.times(s, h, self.c)[-1], y1)
        ks = self._stages(s + h, -h, y1, f1)
        return f1, self._mix(self.rows[len(ks) - 1], ks)

    @torch.no_grad()
    def undone(self, taken: Taken, y1: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """x and first before a step, from those after it."""
        self.graph, self.limit = False, taken.limit
        z = last[1] + self._back(taken.s, taken.h, y1)[1]
        first = self.entered(z, self.rate(self.time(taken.s), z))
        if taken.jumped is not None:
            first = self.afresh(taken.s, z, first, taken.jumped)
        ks = self._stages(taken.s, taken.h, z, first[0])
        y = (y1 - (1 - COUPLING) * z - self._mix(self.rows[len(ks) - 1], ks)) / COUPLING
        if taken.ok is None:
            return y, first
        wide = taken.ok.view(self.lead)
        return torch.where(wide, y, y1), torch.where(wide, first, last)

    def _completed(self, trial: Trial) -> Tensor:
        if not isinstance(trial, Coupled):
            raise TypeError("a trial of another stepper")
        full = super()._completed(Trial(trial.s, trial.h, trial.z, trial.x1, trial.last, trial.K))
        return torch.cat([full, (1 - COUPLING) * (trial.z - trial.x)[None]])


def reversed_run(loop: Loop, x0: Tensor, method: str, known: Iterable[Tensor]) -> Ended:
    """A run of a `Reversible`, whose gradient goes back by undoing its steps."""
    stepper = loop.stepper
    if not isinstance(stepper, Reversible):
        raise ArgumentError(
            f"steps of {method!r} cannot be undone: take one of {', '.join(REVERSIBLE)}, or grad='checkpoint'"
        )
    tape = Tape(loop, memory=1)
    ended, leaf = looked_run(loop, x0, method, known)
    tape.known, steps = leaf, len(tape)

    def back(held: dict[int, Kept]) -> Iterator[tuple[int, Kept]]:
        (x,), (first,) = held[steps]
        for n in reversed(range(1, steps)):
            x, first = stepper.undone(tape.taken[n], x, first)
            yield n, ([x], [first])
        yield 0, held[0]

    held = {0: tape.held[0], steps: tape.state} if steps else {}
    return tape.attached(ended, x0, held, lambda held, g, w: transposed(tape, back(held), g, w), leaf)
