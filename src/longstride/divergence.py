"""A run that went to infinity: where, whose, from which state it can go on, and with which step size."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import Diverged, SolveError
from .pace import Pace
from .rollout import Rollout, Stand
from .stretches import Stretches

GROWN = 10.0  # times as large as it was, a state is no longer good
HALVINGS = 6  # of a step size that are tried
TRIALS = 512  # steps that trials may take in any case; as many as the run had where that is more


def finite(x: Tensor) -> bool:
    """Whether there is no NaN or infinity."""
    return bool(torch.isfinite(x).all())


def size(x: Tensor) -> Tensor:
    """The largest modulus of each sample, [B]."""
    return x.abs().flatten(1).amax(1) if x.ndim > 1 else x.abs()


@torch.no_grad()
def diverged(run: Rollout, good: Stand, n: int) -> SolveError:
    """The error of a run that was finite at `good` and is not before step n.

    The steps between are repeated with a look after each. The last good state is the last at which no sample
    is `GROWN` times as large as at `good`. From there trials with halved steps go twice as far as the run
    came; the first that stays as small says which dt would have done, for all that is known there.
    """
    if not finite(good.x):
        return SolveError(f"method {run.pace.method.name}: x0 has NaN or infinity before the first step")
    first, stand, last = good.x, good, good
    while stand.n < n and finite(stand.x):
        if bool((size(stand.x) <= GROWN * size(first)).all()):
            last = stand
        stand = run.go(stand, 1)
    name = run.pace.method.name
    if finite(stand.x):
        return SolveError(f"method {name}: the result is not finite, but a repetition's is")
    whose = (~torch.isfinite(stand.x).flatten(1).all(1)).nonzero()[:, 0].tolist()
    t, h = run.times[last.n], run.times.sizes[run.times.stretch(last.n)]
    dt = _suggested(run, last, 2 * (stand.n - last.n), h, max(TRIALS, n))
    advice = (
        f"from there it stays bounded with dt = {dt:.3g}"
        if dt is not None
        else "smaller steps did not help there: look at f, and whether the solution itself goes to infinity"
    )
    few = ", ".join(map(str, whose[:8])) + (", ..." if len(whose) > 8 else "")
    return Diverged(
        f"{run.where(stand.n - 1)}: NaN or infinity in {len(whose)} of {len(stand.x)} samples ({few}) with "
        f"dt = {abs(h):.3g}; the last good state is that of t = {t:.6g}, step {last.n}: {advice}",
        x=last.x, t=t, step=last.n, samples=tuple(whose), dt=dt,
    )  # fmt: skip


def _suggested(run: Rollout, last: Stand, steps: int, h: float, most: int) -> float | None:
    """The largest of h/2, h/4, ... with which the run stays bounded over so many steps of h, if any does."""
    start, spent = run.times[last.n], 0
    bound = GROWN * size(last.x)
    for k in range(1, HALVINGS + 1):
        part, n = h / 2**k, steps * 2**k
        if (spent := spent + n) > most:
            return None
        pace = Pace(run.problem, run.pace.method, last.x)
        if _bounded(Rollout(run.problem, pace, Stretches.repeated(start, part, n)), last.x, bound):
            return abs(part)
    return None


def _bounded(run: Rollout, x: Tensor, bound: Tensor) -> bool:
    stand = Stand(0, 0, (x,))
    try:
        while stand.n < run.times.steps and bool((size(stand.x) <= bound).all()):
            stand = run.step(stand)
    except SolveError:  # f refuses a state
        return False
    return bool((size(stand.x) <= bound).all())
