"""Solving an SDE: what is asked, checked and given back.

Noise that multiplies g(t, x) is no weight of a plan, so this is a loop of its own beside the core. The steps
of a run make a `Course`: equal ones are known before it, others are chosen as it goes (`sde_adaptive`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .adaptive import at_once
from .brownian import Brownian, Independent
from .course import Bound, Course, Even
from .errors import ArgumentError, SolveError, finite, unknown
from .gradients import Way, way_of
from .integrate import Solution, Stats, check_state, said, stops
from .methods.sde import Scheme, State, scheme
from .noise import seed_of
from .problem import SDE
from .sde_gradients import attached


def solve_sde(
    problem: SDE,
    x0: Tensor,
    *,
    t: tuple[float, float] | None,
    method: str | None = None,
    dt: float | None = None,
    steps: int = 0,
    save_at: Sequence[float] | None = None,
    seed: int | torch.Generator = 0,
    brownian: Brownian | None = None,
    grad: bool | str | Way = True,
    **options: Any,
) -> Solution:
    """Integrate an SDE over t = (start, end), in equal steps or in steps that keep a tolerance.

    Args:
        x0: [B, ...], real.  method: of `longstride.methods.sde.SCHEMES`; default the one of the highest order.
        dt or steps: as in `ls.solve`; without either samples step on their own, see `sde_adaptive.Own`.
        seed: sample i gets the same noise whatever the batch.  brownian: a path to follow instead, so that
            runs with other steps and other methods see the same one. Without one the noise of equal steps
            belongs to these steps; that of others is a path over t.
        grad: True: backpropagation through the steps; "checkpoint" keeps some states and makes the others
            again from the seed; "reverse" undoes the steps of `reversible_heun`. The last two remember
            little; all give the same gradient, to x0 and whatever f and g close over.
        options: without dt and steps, rtol, atol, controller and the limits of `adaptive`.

    Backward, t = (1, 0), the path is run back: its increments change sign. Ito's integral has no such way.

    Raises:
        ArgumentError: a bad argument, or a method for another kind of noise or integral.
        SolveError: f or g fails, or returns what it must not.
    """
    began = time.perf_counter()
    check_state(x0)
    if x0.is_complex():
        raise ArgumentError("x0 of an SDE is real: give real and imaginary parts as elements")
    name, rule = scheme(method, problem.noise, problem.interpretation)
    if not isinstance(t, Sequence) or len(t) != 2:
        raise ArgumentError(f"t = {t!r}: it is (start, end)")
    start, end = (finite("t", s) for s in t)
    if end < start and problem.interpretation == "ito" and problem.noise != "additive":
        raise ArgumentError(
            'Ito\'s integral does not run backward: convert with problem.to("stratonovich"), or give t upward'
        )
    way = way_of(grad)
    if start == end or not x0.numel():
        return at_once(x0, (end,) * max(1, len(save_at or ())), start)
    equal = dt is not None or steps
    if equal and options:
        raise unknown("argument of a run in equal steps", next(iter(options)), ("seed", "brownian", "save_at"))
    if equal:
        times, marks = stops(t, dt, steps, save_at)
    with torch.set_grad_enabled(grad is not False and torch.is_grad_enabled()):
        eq, shape, differentiable = bound(problem, x0, start, name, own=not equal)
    source = _source(brownian, (len(x0), *shape), (min(t), max(t)), seed, bool(equal), x0)
    if not equal:
        from .sde_adaptive import adaptive_sde

        assert isinstance(source, Brownian)
        return adaptive_sde(name, rule, eq, x0, (start, end), save_at, source, way if differentiable else False, began, **options)
    course = Even(name, rule, eq, x0, times, source)
    ends = [times.index(m) for m in marks]
    x = run(course, x0, ends, way if differentiable else False)
    nfe = 2 + len(course) * sum(rule.evaluations) + 2 * rule.reversible
    stats = Stats(nfe, nfe, len(course), time.perf_counter() - began, nfe)
    return _solution(course, x0, x, tuple(marks), stats)
