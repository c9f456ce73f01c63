"""Leapfrog in a time that slows down as bodies come near: the logarithmic Hamiltonian."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..adaptive.carry import Limits
from ..adaptive.failure import NON_FINITE, REACHED, RUNNING, STATUSES, STEP_LIMIT
from ..errors import ArgumentError, positive
from ..moments import marks_of, span_of
from ..solution import Solution, Stats
from .gravity import Gravity

LANDINGS = 40  # halvings and secants, at most, to find when a step passes a time


def logarithmic(
    gravity: Gravity,
    x0: Tensor,
    *,
    t: tuple[float, float],
    ds: float,
    save_at: list[float] | None = None,
    max_steps: int = 1_000_000,
) -> Solution:
    """Solve for bodies over t = (start, end), start below end, with equal steps ds of a time of their own.

    With kinetic energy T, U the negative of the potential one and B = U - T at the start, the motion is also
    that of the Hamiltonian log(T + B) - log U, in a time s with dt = ds/U, which splits:

        drift by ds/2    dt = ds/(2 (T + B)),    q <- q + dt v,    t <- t + dt
        kick by ds       v <- v + ds a/U

    and a drift again. It is symmetric and symplectic, of order 2, takes steps in t in proportion to 1/U, each
    sample its own, and is exact but for the time along a Kepler orbit, even a fall to the centre (Mikkola and
    Tanikawa 1999; Preto and Tremaine 1999). Good values: ds = U times a hundredth of a crossing time.

    What is saved, and the end, is found on a shorter last step, from which the run does not go on.

    Args:
        x0: [B, 2, N, d], as `Gravity.start` makes it.  ds: positive; energy by time.
        save_at: times at which states are kept; default the end.  max_steps: of each sample.

    Returns:
        a `Solution`; stats.nfe counts forces, of all steps that some sample took.

    Raises:
        ArgumentError: a bad argument.
    """
    began, (start, end) = time.perf_counter(), span_of(t)
    positive("ds", ds)
    gravity.check(x0)
    limit = Limits(max_steps=max_steps).max_steps
    if end <= start:
        raise ArgumentError(f"t = ({start}, {end}): it goes forward")
    marks = torch.tensor(marks_of(save_at, start, end), dtype=torch.float64, device=x0.device)
    saved = x0.new_full((len(marks), *x0.shape), torch.nan)
    q, v = x0.unbind(1)
    clock = torch.full_like(marks[:1].expand(len(x0)), start)
    bound = -gravity.energy(x0)
    code = torch.where(_finite(q, v) & bound.isfinite(), RUNNING, NON_FINITE)
    upto = torch.zeros_like(code)
    saved[0] = torch.where((marks[0] == start) & _wide(code == RUNNING), x0, saved[0])
    upto = upto + (marks[0] == start)
    taken, nfe, every = torch.zeros_like(code), 0, torch.full_like(clock, ds)
    while bool((active := code == RUNNING).any()) and nfe < limit * LANDINGS:
        after = _leap(gravity, bound, every, q, v, clock)
        nfe, taken = nfe + 1, taken + active
        while bool((due := active & (upto < len(marks)) & (after[2] >= _next(marks, upto))).any()):
            at, tries = _landed(gravity, bound, ds, (q, v, clock), after[2], _next(marks, upto), due)
            who = due.nonzero()[:, 0]
            saved[upto[who], who] = at[who]
            nfe, upto = nfe + tries, upto + due
        wide = _wide(active)[:, 0]
        q, v = torch.where(wide, after[0], q), torch.where(wide, after[1], v)
        clock = torch.where(active, after[2], clock)
        code = torch.where(active & (upto == len(marks)), REACHED, code)
        code = torch.where((code == RUNNING) & ~(_finite(q, v) & clock.isfinite()), NON_FINITE, code)
        code = torch.where((code == RUNNING) & (taken >= limit), STEP_LIMIT, code)
    stats = Stats(
        nfe, nfe, int(taken.max()), time.perf_counter() - began, nfe, accepted=taken,
        rejected=torch.zeros_like(taken), nfe_each=taken,
    )  # fmt: skip
    status = tuple(STATUSES[c] for c in code.tolist())
    said = {"step_limit": "raise max_steps or ds", "non_finite": "NaN or infinity: take a smaller ds"}
    x_end = torch.where(_wide(code == REACHED), saved[-1], torch.stack([q, v], 1))
    return Solution(
        saved, tuple(marks.tolist()), status, stats, torch.where(code == REACHED, end, clock), x_end,
        message=tuple(said.get(s, "") for s in status),
    )  # fmt: skip


Moved = tuple[Tensor, Tensor, Tensor]


def _leap(gravity: Gravity, bound: Tensor, ds: Tensor, q: Tensor, v: Tensor, clock: Tensor) -> Moved:
    """Places, velocities and times after ds [B]."""
    dt = ds / 2 / (gravity.kinetic(v) + bound)
    q, clock = q + _beside(dt, q) * v, clock + dt
    v = v - _beside(ds / gravity.potential(q), q) * gravity.acceleration(q)
    dt = ds / 2 / (gravity.kinetic(v) + bound)
    return q + _beside(dt, q) * v, v, clock + dt


def _landed(
    gravity: Gravity, bound: Tensor, ds: float, start: Moved, t1: Tensor, mark: Tensor, due: Tensor
) -> tuple[Tensor, int]:
    """States [B, ...] where a step from start, which would end at t1, is at its mark; and its forces."""
    q, _, t0 = start
    low, high, t_low, t_high = torch.zeros_like(t0), torch.full_like(t0, ds), t0, t1
    for tries in range(1, LANDINGS + 1):
        share = ((mark - t_low) / (t_high - t_low)).nan_to_num(0.0).clamp(0, 1)
        share = share if tries % 3 else torch.full_like(share, 0.5)
        s = low + share * (high - low)
        at = _leap(gravity, bound, s, *start)
        late = at[2] >= mark
        low, t_low = torch.where(late, low, s), torch.where(late, t_low, at[2])
        high, t_high = torch.where(late, s, high), torch.where(late, at[2], t_high)
        if not bool(((at[2] - mark).abs() > 4e-16 * mark.abs().clamp_min(1e-300))[due].any()):
            break
    left = _beside(mark - at[2], q)  # less than is seen in t
    return torch.stack([at[0] + left * at[1], at[1]], 1), tries


def _next(marks: Tensor, upto: Tensor) -> Tensor:
    return marks[upto.clamp(max=len(marks) - 1)]


def _beside(one: Tensor, q: Tensor) -> Tensor:
    return one.to(q.dtype)[:, None, None]


def _wide(one: Tensor) -> Tensor:
    return one[:, None, None, None]


def _finite(q: Tensor, v: Tensor) -> Tensor:
    return (q + v).isfinite().flatten(1).all(1)
