"""The states that a run went through, from the last to the first: computed again, or by undoing steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core import Step, Weight, advance
from ..plan import Plan
from ..reverse import Account, Evaluation, accounted, reverse
from .transpose import Chain, Kept, Steps, go


def split(n: int, free: int) -> int:
    """How far to go on before the next state is kept, on the way back through n steps with `free` to keep.

    With f free and no step computed more than r times, one comes back through l(f, r) = C(f + 1 + r, r) steps
    at most, and l(f, r) = l(f, r - 1) + l(f - 1, r): what is before the state kept, and after it.
    """
    r = 1
    while _reach(free, r) < n:
        r += 1
    return min(_reach(free, r - 1), n - _reach(free - 1, r - 1))


def _reach(free: int, r: int) -> int:
    return math.comb(free + 1 + r, r)


def places(a: int, n: int, free: int) -> list[int]:
    """Steps before which a state is kept on the way from step a to the last of n, `free` of them at most."""
    out = list[int]()
    while free and n - a > 1:
        a += split(n - a, free)
        free -= 1
        out.append(a)
    return out


def recall(held: dict[int, Kept], chain: Steps, memory: int) -> Iterator[tuple[int, Kept]]:
    """(n, state before step n) for falling n; `memory` of them held at most, that of 0 among them."""
    for n in reversed(range(len(chain))):
        a = max(held)
        for m in places(a, n + 1, memory - len(held)):
            held[m] = go(chain, held[a], a, m)
            a = m
        yield n, go(chain, held[a], a, n)
        held.pop(n, None)


@dataclass(frozen=True)
class Backward:
    """The steps that undo all steps of a plan but the last, whose beginning is remembered.

    before: what each of them comes back to, in the order of going back.
    """

    steps: tuple[Step, ...]
    before: tuple[Account, ...]


def backward(plan: Plan) -> Backward:
    """What undoes a plan but for its last step.

    Raises:
        ArgumentError: a step that cannot be undone, with the reason.
    """
    if len(plan.steps) == 1:
        return Backward((), ())
    # A weight to be differentiated by may well be 0 or 1, and what a step can be solved for depends on that.
    front = replace(plan, times=plan.times[:-1], steps=plan.steps[:-1]).mapped(_value)
    return Backward(reverse(front).steps, tuple(accounted(front, start=True)[::-1]))


def _value(w: Weight) -> Weight:
    return w if not isinstance(w, Tensor) else w.detach() if w.ndim else w.item()


def undone(held: dict[int, Kept], chain: Chain, back: Backward) -> Iterator[tuple[int, Kept]]:
    """(n, state before step n) for falling n, each found by undoing step n; the last is held.

    Evaluations that step n began with were made at states that it began with too, and are made again.
    """
    ((n, (xs, fs)),) = held.items()
    yield n, (xs, fs)
    made, fs = dict[Evaluation, Tensor](), []
    for step, account in zip(back.steps, back.before, strict=True):
        with torch.no_grad():
            xs, fs = advance(chain.fields, step, xs, fs)
            at = dict(zip(account.before, xs, strict=True))
            made = {
                (i, t, k): made[i, t, k] if (i, t, k) in made else chain.fields[k](t, at[i])
                for i, t, k in account.known
            }
        n -= 1
        yield n, (xs, [made[e] for e in account.known])
