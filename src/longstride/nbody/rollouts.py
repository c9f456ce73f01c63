"""Many systems of a few bodies at steps that a rule gives, by several methods: made to compare rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, positive, unknown, whole
from ..methods.runge_kutta import TSIT5
from ..steppers.hermite import corrected
from .gravity import Gravity
from .rules import Look, Rule, dot, look

LANES, STRETCH = 256, 100  # systems at once, and the steps they take before others get their place

Kept = tuple[Tensor, ...]  # derivatives of v where a step ends, as the next one wants them
Moved = tuple[Tensor, Tensor, Kept, Kept]  # q, v, what is kept, and what else a rule may see


@dataclass(frozen=True)
class Scheme:
    """A method of one step.  cost: evaluations of a step.

    begin(look) gives what is kept, step(look, kept, dt) the state after dt.
    symmetric: its steps undo themselves, so that steps made symmetric in time (`rollout`) are worth it.
    """

    order: int
    cost: int
    begin: Callable[[Look], Kept]
    step: Callable[[Look, Kept, Tensor], Moved]
    symmetric: bool = False


@dataclass(frozen=True)
class Rollout:
    """x [B, 2, N, d] at the end, or where a system stopped; steps [B]; error [B]: |E/E_0 - 1| there.

    Systems stop after max_steps, and where their rule has no step for them, one above 0: their error is NaN.
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
    scheme: str = "hermite",
) -> Rollout:
    """Steps from 0 to end, of each system its own, rule(look, numbers) long.

    By Hermite's method or tsit5 they are those of `ls.solve`, with the criteria of the first or with a
    `Policy`: none is refused, and what two steps will do is not done in a long and a short one. So is the
    last step, cut to land.

    Leapfrog's (kick, drift, kick) are made symmetric in time: of the steps h_- before a state and h_+ behind
    it, what the rule says there, H, is the harmonic mean (Holder, Leimkuhler and Reich 2001),

        1/h_+ = 2/H - 1/h_-.

    Where h strays from H, it does so by turns, and 1/h by an amount that does not change: so less and less,
    in proportion, as steps become short. (Of geometric means it would be more and more.) The same steps then
    lead back, to round-off, if the rule is the same with all velocities reversed: of a policy, `Policy.even`
    is.

    Args:
        x0: [B, 2, N, d], as `Gravity.start` makes it.  numbers: [P], [P, 1], or [P, B] for each system.
        max_steps: where a system stops.
        compile: a step is one graph, a loop along the systems; that takes half a minute.
        scheme: one of `SCHEMES`, which says what its step costs.

    Raises:
        ArgumentError: a start that `Gravity.check` refuses, a body alone, numbers for other systems, an end
            that is not positive, max_steps below 1, or a scheme that is not known.
    """
    positive("end", end)
    whole("max_steps", max_steps, 1)
    if scheme not in SCHEMES:
        raise unknown("scheme", scheme, list(SCHEMES))
    gravity.check(x0)
    if x0.shape[2] < 2:
        raise ArgumentError("rules look at pairs: give two bodies or more")
    if numbers.ndim not in (1, 2) or numbers[0].numel() not in (1, len(x0)):
        raise ArgumentError(
            f"numbers {tuple(numbers.shape)}: give [P], or [P, {len(x0)}] for each system's own"
        )
    by, batch = SCHEMES[scheme], len(x0)
    leap = _compiled(scheme, rule, *x0.shape[2:]) if compile else _leap
    lanes = LANES if compile else min(LANES, batch)
    with torch.no_grad():
        at = look(gravity, x0)
        masses, numbers = (part.to(x0).view(len(part), -1).expand(-1, batch) for part in (at.masses, numbers))
        shelf = _begin(by, at, end, rule, numbers)
        while len(waiting := ((shelf[-3] > 0) & (shelf[-1] < max_steps)).nonzero()[:, 0]):
            # Places that are left over repeat one that has its own: both do the same.
            who = waiting[torch.arange(lanes, device=x0.device).remainder(min(lanes, len(waiting)))]
            here, m, own = tuple(part[..., who] for part in shelf), masses[:, who], numbers[:, who]
            for _ in range(STRETCH):
                here = leap(by, rule, m.contiguous(), at.softening2, max_steps, own.contiguous(), *here)
            for part, new in zip(shelf, here, strict=True):
                part[..., who] = new
        x = torch.stack(shelf[:2]).permute(3, 0, 1, 2).contiguous()
        error = (gravity.energy(x) / gravity.energy(x0) - 1).abs()
    return Rollout(x, shelf[-1].long(), error.masked_fill(shelf[-3].isnan(), torch.nan))


State = tuple[Tensor, ...]  # q, v, what is kept [N, d, B]; what is left of the time, the next step, steps [B]


def _begin(by: Scheme, at: Look, end: float, rule: Rule, numbers: Tensor) -> State:
    q, v = (part.clone(memory_format=torch.contiguous_format) for part in (at.q, at.v))
    kept = by.begin(at)
    # At rest a criterion by derivatives sees them behind a short step, as `HermiteStepper.opening` does.
    *_, more = by.step(at, kept, q.new_tensor(1e-6))
    h = rule(Look(at.masses, at.softening2, q, v, (*kept, *more)), numbers)
    left = torch.where(h > 0, torch.full_like(h, end), torch.nan)
    return q, v, *kept, left, h.clone(), torch.zeros_like(h)


def _leap(
    by: Scheme,
    rule: Rule,
    masses: Tensor,
    softening2: float,
    max_steps: int,
    numbers: Tensor,
    *state: Tensor,
) -> State:
    """The next step of all that have not come to the end, of length 0 for the others."""
    q, v, *old, left, h, steps = state
    on = (left > 0) & (steps < max_steps)
    dt = torch.where(on, torch.where(h < left, torch.minimum(h, left / 2), left), 0.0)
    q, v, kept, more = by.step(Look(masses, softening2, q, v), tuple(old), dt)
    kept = tuple(torch.where(on, new, one) for new, one in zip(kept, old, strict=True))
    wanted = rule(Look(masses, softening2, q, v, (*kept, *more)), numbers)
    if by.symmetric:
        wanted = 1 / (2 / wanted - 1 / h)
    # What has no next step stops, and its error says so.
    left = torch.where(on, torch.where(wanted > 0, left - dt, torch.nan), left)
    return q, v, *kept, left, torch.where(on, wanted, h), steps + on


@cache
def _compiled(*shape: Any) -> Any:
    # Code of its own for each scheme, rule, N and d: torch counts graphs by it, up to 8.
    own = FunctionType(_leap.__code__.replace(), globals(), "_leap", None, _leap.__closure__)
    return torch.compile(own, dynamic=False, fullgraph=True)


def _slope(at: Look) -> tuple[Tensor, Tensor]:
    """a and da/dt [N, d, B], as `Gravity.jerk` has them."""
    a, k = [], []
    for _, _, s, w, r2 in at.pairs():
        pull, closing = (1 / (r2 * r2.sqrt())).unsqueeze(-2), (3 * dot(s, w) / r2).unsqueeze(-2)
        a.append(pull * s)
        k.append(pull * (w - closing * s))
    return at.felt(a), at.felt(k)


def _pull(at: Look) -> tuple[Tensor]:
    """a alone."""
    return (_slope(at)[0],)


def _at(at: Look, q: Tensor, v: Tensor) -> Look:
    return Look(at.masses, at.softening2, q, v)


def _hermite(at: Look, kept: Kept, dt: Tensor) -> Moved:
    a, j = kept
    q, v, a, j, *more = corrected(at.q, at.v, a, j, dt, lambda q, v: _slope(_at(at, q, v)))
    return q, v, (a, j), tuple(more)


def _leapfrog(at: Look, kept: Kept, dt: Tensor) -> Moved:
    half = at.v + dt / 2 * kept[0]
    q = at.q + dt * half
    (a,) = _pull(_at(at, q, half))
    return q, half + dt / 2 * a, (a,), ()


ROWS: Any = (*TSIT5.a[1:], TSIT5.b)


def _tsit5(at: Look, kept: Kept, dt: Tensor) -> Moved:
    """The last evaluation, at the end of the step, is the first of the next."""
    vs, fs = [at.v], [kept[0]]
    for row in ROWS:
        q = at.q + dt * sum(w * v for w, v in zip(row, vs, strict=True))
        v = at.v + dt * sum(w * a for w, a in zip(row, fs, strict=True))
        vs.append(v)
        fs.append(_pull(_at(at, q, v))[0])
    return q, v, (fs[-1],), ()


SCHEMES = {
    "hermite": Scheme(4, 1, _slope, _hermite),
    "leapfrog": Scheme(2, 1, _pull, _leapfrog, symmetric=True),
    "tsit5": Scheme(5, 6, _pull, _tsit5),
}
