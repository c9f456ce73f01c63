"""A run that went to infinity: where, whose, from which state it can go on, and with which step size."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import Diverged, SolveError
from .rollout import Stand, Steps
from .stretches import Stretches

GROWN = 10.0  # times as large as it was, a state is no longer good
HALVINGS = 10  # of a step size that are tried
AGREED = 2.0  # ratio of sizes that two runs may come to
TRIALS = 2048  # steps that trials may take in any case; as many as the run had where that is more


def finite(x: Tensor) -> bool:
    """Whether there is no NaN or infinity."""
    return bool(torch.isfinite(x).all())


def size(x: Tensor) -> Tensor:
    """The largest modulus of each sample, [B]."""
    return x.abs().flatten(1).amax(1) if x.ndim > 1 else x.abs()


@torch.no_grad()
def diverged(run: Steps, good: Stand, n: int) -> SolveError:
    """The error of a run that was finite at `good` and is not before step n.

    The steps between are repeated with a look after each. The last good state is the last at which no sample
    is `GROWN` times as large as at `good`. From there trials with halved steps go twice as far as the run
    came; the first that stays as small, or becomes as large as the next, says which dt would have done, for
    all that is known there.
    """
    if not finite(run.state(good)):
        return SolveError(f"method {run.name}: x0 has NaN or infinity before the first step")
    bound, stand, last, x = GROWN * size(run.state(good)), good, good, run.state(good)
    while stand.n < n and finite(x):
        if bool((size(x) <= bound).all()):
            last = stand
        stand = run.go(stand, 1)
        x = run.state(stand)
    if finite(x):
        return SolveError(f"method {run.name}: the result is not finite, but a repetition's is")
    whose = (~torch.isfinite(x).flatten(1).all(1)).nonzero()[:, 0].tolist()
    t, h = run.times[last.n], run.times.sizes[run.times.stretch(last.n)]
    tried, helps = _suggested(run, last, 2 * (stand.n - last.n), h, max(TRIALS, n))
    advice = (
        f"from there it stays bounded with dt = {tried:.3g}"
        if helps
        else f"steps down to {tried:.3g} did not help there: take smaller ones, or look at f, and whether "
        "the solution itself goes to infinity"
    )
    few = ", ".join(map(str, whose[:8])) + (", ..." if len(whose) > 8 else "")
    return Diverged(
        f"{run.where(stand.n - 1)}: NaN or infinity in {len(whose)} of {len(x)} samples ({few}) with "
        f"dt = {abs(h):.3g}; the last good state is that of t = {t:.6g}, step {last.n}: {advice}",
        x=run.state(last), t=t, step=last.n, samples=tuple(whose), dt=tried if helps else None,
    )  # fmt: skip


def _suggested(run: Steps, last: Stand, steps: int, h: float, most: int) -> tuple[float, bool]:
    """The first of |h|/2, |h|/4, ... with which the run stays bounded over so many steps of h, True.

    Where solutions grow by themselves, as small starts of chaotic equations do, that is the first which the
    next agrees with on how large they become.

    The last that was tried, False, if none does before `most` steps are taken or the next would need more.
    """
    start, part, n = run.times[last.n], h, steps
    x = run.state(last)
    bound, before = GROWN * size(x), None
    for _ in range(HALVINGS):
        if 2 * n > most:
            break
        part, n = part / 2, 2 * n
        taken, largest = _reached(run.along(Stretches.repeated(start, part, n)), x)
        if largest is not None and bool((largest <= bound).all()):
            return abs(part), True
        if largest is not None and before is not None and _agree(before, largest):
            return 2 * abs(part), True
        most, before = most - taken, largest
    return abs(part), False


def _agree(one: Tensor, other: Tensor) -> bool:
    return bool((torch.maximum(one, other) <= AGREED * torch.minimum(one, other)).all())


def _reached(run: Steps, x: Tensor) -> tuple[int, Tensor | None]:
    """How many steps were taken, and how large each sample became; nothing where one went to infinity."""
    n, largest = 0, size(x)
    try:
        stand = run.begin(x)
        while (n := stand.n) < run.times.steps:
            stand = run.step(stand)
            largest = torch.maximum(largest, size(run.state(stand)))
            if not finite(largest):
                return n, None
    except SolveError:  # f refuses a state
        return n, None
    return n, largest
