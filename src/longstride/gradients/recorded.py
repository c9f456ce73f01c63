"""An adaptive run as a chain of its accepted steps, which can be gone through again.

The run itself is made without a graph. What is written down of a step are its beginning s and its length h,
of each sample, and where along it the solution was read: two numbers a sample. With these and a state the
step is made again, the same to the last bit, and transposed (`transpose.py`, `recall.py`). The lengths
are taken as given: nothing is differentiated through the choice of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from ..adaptive.carry import Carry, Ended, Reading
from ..adaptive.regularize import Total
from ..adaptive.stepping import Loop
from ..errors import SolveError
from ..steppers.trial import Rate, Trial
from .recall import recall
from .transpose import Kept, Pull, leaves, tied, transposed


@dataclass(frozen=True)
class Taken:
    """One pass of the loop: from s [G] by h [G], by those in `ok` (None: all).

    jumped: for whom f jumped at s.  limit: see `Stepper.limit`.  read: where the solution was read.
    """

    s: Tensor
    h: Tensor
    ok: Tensor | None
    jumped: Tensor | None
    limit: Tensor | None
    read: Sequence[Reading]


class Tape:
    """The accepted steps of a run, noted as it goes, as `transpose.Steps`.

    memory: states held on the way, evenly spaced to within a factor of 2; default 2 sqrt(steps).
    known: the leaves that f may depend on. What is met besides is an error and not a wrong gradient.
    """

    states = 1

    def __init__(self, loop: Loop, memory: int | None) -> None:
        self.stepper, self.memory, self.taken = loop.stepper, memory, list[Taken]()
        self.penalties = [observer for observer in loop.observers if isinstance(observer, Total)]
        self.held, self.every = dict[int, Kept](), 1
        self.leg: Tensor | None = None  # the loop makes another one when somebody comes to a jump
        self.carry: Carry | None = None
        self.known: Iterable[Tensor] = ()
        loop.observers = [*loop.observers, self]

    def note(self, c: Carry, trial: Trial, ok: Tensor | None, read: list[Reading]) -> None:
        jumped = None if self.leg is None or self.leg is c.leg else self.leg < c.leg
        h = trial.h if ok is None else torch.where(ok, trial.h, 0.0)
        self.taken.append(Taken(trial.s, h, ok, jumped, self.stepper.limit, read))
        self.leg, self.carry, n = c.leg, c, len(self.taken) - 1
        if n % self.every == 0:
            self.held[n] = [c.x], [c.first] if n else []
        while len(self.held) > (self.memory or 2 * math.sqrt(n + 1)):
            self.every *= 2
            self.held = {n: state for n, state in self.held.items() if n % self.every == 0}

    def __len__(self) -> int:
        return len(self.taken)

    def step(self, n: int, state: Kept) -> Kept:
        return self._again(n, state)[1]

    def look(self, n: int, state: Kept) -> tuple[Kept, list[Tensor]]:
        trial, kept = self._again(n, state)
        s = float(self.taken[n].s.min())
        demand_known(kept[1], (*self.known, *self.stepper.own, *state[0], *state[1]), self.stepper.sign * s)
        given = [self.stepper.at(trial, *reading) for reading in self.taken[n].read]
        given += [penalty.term(trial, self.taken[n].ok) for penalty in self.penalties]
        return kept, given if n < len(self) - 1 else [*given, *kept[0]]

    @property
    def state(self) -> Kept:
        """What the last step kept."""
        return ([self.carry.x], [self.carry.first]) if self.carry else ([], [])

    def attached(
        self, ended: Ended, x0: Tensor, held: dict[int, Kept], pull: Pull, leaf: Sequence[Tensor]
    ) -> Ended:
        """The run, whose states know their gradients."""
        if not self.taken:
            return ended
        read, before = list(ended.read), len(ended.read) - sum(len(taken.read) for taken in self.taken)
        given, rest = dict[int, list[Tensor]](), iter(read[before:])
        for n, taken in enumerate(self.taken):
            given[n] = list(islice(rest, len(taken.read))) + [p.terms[n] for p in self.penalties]
        given[len(self) - 1].append(ended.x)
        values = iter(tied(given, held, pull, leaf, [x0, *leaf]))
        read = [x0] * before  # the start, if it was saved
        for n, taken in enumerate(self.taken):
            read += islice(values, len(taken.read))
            for penalty in self.penalties:
                penalty.terms[n] = next(values)
        return replace(ended, x=next(values), read=read)

    def _again(self, n: int, state: Kept) -> tuple[Trial, Kept]:
        taken, stepper, (x,) = self.taken[n], self.stepper, state[0]
        stepper.graph, stepper.limit = torch.is_grad_enabled(), taken.limit
        first = state[1][0] if state[1] else stepper.entered(x, stepper.rate(stepper.time(taken.s), x))
        if taken.jumped is not None:
            first = stepper.afresh(taken.s, x, first, taken.jumped)
        trial = stepper.trial(taken.s, taken.h, x, first)
        x1, last = trial.x1, trial.last
        if taken.ok is not None:
            wide = taken.ok.view(stepper.lead)
            x1, last = torch.where(wide, x1, x), torch.where(wide, last, first)
        return trial, ([x1], [last])


def demand_known(made: Sequence[Tensor], known: Iterable[Tensor], t: float) -> None:
    """That no graph leads to other leaves than the known ones: their gradients would be missing.

    Raises:
        SolveError: one does.
    """
    if not leaves(made).keys() <= {id(v) for v in known}:
        raise SolveError(
            f"near t = {t:.6g} f uses a tensor that requires_grad and that its first evaluation did not use: "
            "make f a torch.nn.Module that holds it, name that time in jump_times=, or take grad=True"
        )


class Looked:
    """f, whose values have no graph, and the leaves that the graphs of the evaluations looked into lead to.

    always: look into all of them, as f may be another after a jump; otherwise into the first.
    """

    def __init__(self, rate: Rate, always: bool, known: Iterable[Tensor] = ()) -> None:
        self.rate, self.always, self.open = rate, always, True
        self.found = {id(v): v for v in known if v.requires_grad}

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        if not self.open:
            return self.rate(t, x)
        with torch.enable_grad():
            out = self.rate(t, x)
        self.found |= leaves([out])
        self.open = self.always
        return out if torch.is_grad_enabled() else out.detach()  # implicit methods want df/dx


def recorded(loop: Loop, x0: Tensor, method: str, memory: int | None, known: Iterable[Tensor]) -> Ended:
    """A run whose gradient goes back through its steps, made again from the states that were kept."""
    tape = Tape(loop, memory)
    ended, leaf = looked_run(loop, x0, method, known)
    tape.known = leaf
    most = memory or math.ceil(2 * math.sqrt(len(tape)))
    return tape.attached(
        ended, x0, tape.held, lambda held, g, w: transposed(tape, recall(held, tape, most), g, w), leaf
    )


def looked_run(
    loop: Loop, x0: Tensor, method: str, known: Iterable[Tensor]
) -> tuple[Ended, Sequence[Tensor]]:
    """A run without a graph, and the leaves that f depends on."""
    stepper, rate = loop.stepper, loop.stepper.rate
    look = Looked(rate, len(loop.legs) > 1, known)
    stepper.rate, stepper.graph = look, False
    ended = loop.run(x0.detach(), method)
    stepper.rate = rate
    return ended, list(look.found.values())
