"""Many systems of a few bodies by Hermite's method, at steps that a rule gives: made to compare rules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, positive, whole
from ..hermite import corrected
from .gravity import Gravity
from .rules import Look, Rule, dot, look

LANES, STRETCH = 512, 100  # systems at once, and the steps they take before others get their place


@dataclass(frozen=True)
class Rollout:
    """x [B, 2, N, d] at the end, or where a system stopped; steps [B], each of one evaluation.

    error [B]: |E/E_0 - 1|.
    """

    x: Tensor
    steps: Tensor
    error: Tensor


def rollout(
    gravity: Gravity,
    x0: Tensor,
    end: float,
    rule: Rule,
    numbers: Tensor,
    max_steps: int = 1_000_000,
    compile: bool = False,
) -> Rollout:
    """Hermite steps from 0 to end, of each system its own, rule(look, numbers) long.

    They are those of `ls.solve` by `hermite_collision`, or by `hermite` with a `Policy`: none is refused, and
    what two steps will do is not done in a long and a short one. So is the last step, cut to land.

    Args:
        x0: [B, 2, N, d], as `Gravity.start` makes it.  numbers: [P], or [P, B] for each system.
        max_steps: where a system stops.
        compile: a step is one graph, a loop along the systems; that takes half a minute.

    Raises:
        ArgumentError: an end that is not positive, max_steps below 1, or masses that are not [N].
    """
    positive("end", end)
    whole("max_steps", max_steps, 1)
    if gravity.masses.ndim != 1:
        raise ArgumentError("a rollout takes masses [N], the same of all systems")
    leap, batch = _compiled() if compile else _leap, len(x0)
    lanes = LANES if compile else min(LANES, batch)
    numbers = numbers.view(len(numbers), -1).expand(-1, batch)
    with torch.no_grad():
        at = look(gravity, x0)
        known = (at.masses, at.softening2)
        shelf = _begin(at, end, rule, numbers)
        while len(waiting := ((shelf[4] > 0) & (shelf[6] < max_steps)).nonzero()[:, 0]):
            # Places that are left over repeat one that has its own: both do the same.
            who = waiting[torch.arange(lanes, device=x0.device).remainder(min(lanes, len(waiting)))]
            here, own = tuple(part[..., who] for part in shelf), numbers[:, who].contiguous()
            for _ in range(STRETCH):
                here = leap(rule, *known, max_steps, own, *here)
            for part, new in zip(shelf, here, strict=True):
                part[..., who] = new
    x = torch.stack(shelf[:2]).permute(3, 0, 1, 2).contiguous()
    return Rollout(x, shelf[6].long(), (gravity.energy(x) / gravity.energy(x0) - 1).abs())


State = tuple[
    Tensor, ...
]  # q, v, a, jerk [N, d, B]; what is left of the time, the next step, steps taken [B]


def _begin(at: Look, end: float, rule: Rule, numbers: Tensor) -> State:
    q, v = (part.clone(memory_format=torch.contiguous_format) for part in (at.q, at.v))
    a, j = _slope(at)
    # At rest a criterion by derivatives sees them behind a short step, as `HermiteStepper.opening` does.
    *_, second, third = corrected(q, v, a, j, q.new_tensor(1e-6), lambda q, v: _moved(at, q, v))
    h = rule(Look(at.masses, at.softening2, q, v, (a, j, second, third)), numbers)
    return q, v, a, j, torch.full_like(h, end), h.clone(), torch.zeros_like(h)


def _leap(
    rule: Rule, masses: tuple[Tensor, ...], softening2: float, max_steps: int, numbers: Tensor, *state: Tensor
) -> State:
    """The next step of all that have not come to the end, of length 0 for the others."""
    q, v, a, j, left, h, steps = state
    on = (left > 0) & (steps < max_steps)
    dt = torch.where(on, torch.where(h < left, torch.minimum(h, left / 2), left), 0.0)
    at = Look(masses, softening2, q, v)
    q, v, a1, j1, second, third = corrected(q, v, a, j, dt, lambda q, v: _moved(at, q, v))
    a, j = torch.where(on, a1, a), torch.where(on, j1, j)
    wanted = rule(Look(masses, softening2, q, v, (a, j, second, third)), numbers)
    # What is NaN has no next step: it stops, and its energy error says so.
    left = torch.where(wanted > 0, left - dt, 0.0)
    return q, v, a, j, left, torch.where(on, wanted, h), steps + on


def _moved(at: Look, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _slope(Look(at.masses, at.softening2, q, v))


def _slope(at: Look) -> tuple[Tensor, Tensor]:
    """a and da/dt [N, d, B], as `Gravity.jerk` has them."""
    zero: Any = torch.zeros_like(at.q[0])
    a, k = [zero] * len(at.masses), [zero] * len(at.masses)
    for i, j, s, w, r2 in at.pairs():
        pull = 1 / (r2 * r2.sqrt())
        one, two = pull * s, pull * (w - 3 * dot(s, w) / r2 * s)
        a[i], k[i] = a[i] + at.masses[j] * one, k[i] + at.masses[j] * two
        a[j], k[j] = a[j] - at.masses[i] * one, k[j] - at.masses[i] * two
    return torch.stack(a), torch.stack(k)


@cache
def _compiled() -> Any:
    return torch.compile(_leap, dynamic=False, fullgraph=True)
