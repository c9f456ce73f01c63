"""The planned loop: a plan applied to fields, from a state to the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .core import Field, advance
from .errors import ArgumentError, SolveError
from .methods import get
from .noise import Noise
from .plan import Plan
from .problem import ODE

Callback = Callable[[int, float, Tensor], Any]


@dataclass
class Stats:
    """nfe: evaluations of a field per sample.  network_calls: forward passes behind them, per sample."""

    nfe: int = 0
    network_calls: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Solution:
    """x [len(t), *x0.shape] at the times t, the status of each sample, and what it cost."""

    x: Tensor
    t: tuple[float, ...]
    status: tuple[str, ...]
    stats: Stats = field(default_factory=Stats)


def run(
    fields: Sequence[Field],
    plan: Plan,
    x: Tensor,
    noise: Noise | None = None,
    callback: Callback | None = None,
    save: set[int] | None = None,
) -> tuple[list[Tensor], Stats]:
    """Apply a plan to x; returns the states after the steps numbered in `save` (default: the last).

    callback(n, t, x) is called after step n, with the time and state it reached. Finiteness is looked at
    once, at the end; a run that fails is repeated with a look after every step, to name the one.

    Raises:
        SolveError: NaN or infinity, with the step where it first appeared.
    """
    started = time.perf_counter()
    found = _march(fields, plan, x, noise, callback, save or {len(plan.steps) - 1}, watch=False)
    if not torch.isfinite(found[-1]).all():
        _march(fields, plan, x, noise, None, set(), watch=True)
        raise SolveError(f"method {plan.method}: the result is not finite, but a repetition's is")
    stats = Stats(plan.nfe, plan.nfe, len(plan.steps), time.perf_counter() - started)
    return found, stats


def _march(
    fields: Sequence[Field],
    plan: Plan,
    x: Tensor,
    noise: Noise | None,
    callback: Callback | None,
    save: set[int],
    watch: bool,
) -> list[Tensor]:
    xs, found = [x], []
    fs: list[Tensor] = []
    zs: list[Tensor] = []
    for n, step in enumerate(plan.steps):
        if step.brownian is not None:
            if noise is None:
                raise ArgumentError(f"method {plan.method} draws noise: give it a seed")
            zs = [noise.increment(a, b).to(x) for a, b in pairwise(step.brownian)]
        xs, fs = advance(fields, step, xs, fs, zs)
        if watch and not torch.isfinite(xs[-1]).all():
            evaluated = [stage.at for stage in step.stages if stage.at is not None]
            raise SolveError(
                f"method {plan.method}, step {n + 1} of {len(plan.steps)}, t = {plan.times[n]:.6g} to "
                f"{plan.times[n + 1]:.6g}: NaN or infinity, evaluated at t = {evaluated}; check what the "
                "network or f returns there, or take smaller steps"
            )
        if callback is not None:
            callback(n, plan.times[n + 1], xs[-1])
        if n in save:
            found.append(xs[-1])
    return found


def plan_problem(problem: ODE, times: Sequence[float], method: str, **options: Any) -> Plan:
    """The weights of a method on a problem, for any strictly monotone times."""
    rule = get(method, **options)
    if rule.diffusion:
        raise ArgumentError(f"method {method!r} samples diffusions: use ls.sample, or another method")
    operator = problem.operator(rule.exponential)
    steps = tuple(rule.step(times, n, operator) for n in range(len(times) - 1))
    return Plan(tuple(times), steps, {}, method, options)


def solve(
    problem: ODE,
    x0: Tensor,
    *,
    t: tuple[float, float],
    method: str = "rk4",
    dt: float | None = None,
    steps: int = 0,
    save_at: Sequence[float] | None = None,
    callback: Callback | None = None,
    grad: bool = True,
    **options: Any,
) -> Solution:
    """Integrate a problem over t = (start, end) in equal steps.

    Args:
        x0: [B, ...].  dt or steps: how far a step goes, or how many there are between two saved times; dt
            is shortened so that the saved times are hit exactly.
        save_at: monotone times inside t at which the state is kept; default the end alone.
        options: of the method.

    Raises:
        ArgumentError: a bad argument.  SolveError: the run failed, naming method, step and time.
    """
    if (dt is None) == (steps == 0):
        raise ArgumentError("give either dt= or steps=: the step is fixed, and chosen by you")
    start, end = map(float, t)
    marks = [end] if save_at is None else [float(s) for s in save_at]
    stops = [start, *(m for m in marks if m != start)]
    forward = end > start
    if any((b <= a) if forward else (b >= a) for a, b in pairwise(stops)) or (
        stops[-1] > end if forward else stops[-1] < end
    ):
        raise ArgumentError(f"save_at must go from {start} to {end} without turning back")
    times = [start]
    for a, b in pairwise(stops):
        n = steps if dt is None else math.ceil(abs(b - a) / abs(dt) - 1e-9)
        if n < 1:
            raise ArgumentError(f"steps = {n}: at least one step is needed between saved times")
        times += [a + (b - a) * i / n for i in range(1, n)] + [b]
    if len(times) == 1:
        raise ArgumentError(f"nothing to integrate: t = {t}")
    plan = plan_problem(problem, times, method, **options)
    wanted = {times.index(stop) - 1 for stop in stops[1:]}
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        found, stats = run(
            problem.fields(get(method, **options).exponential),
            plan,
            x0,
            callback=callback,
            save=wanted,
        )
    if marks[0] == start:
        found = [x0, *found]
    return Solution(torch.stack(found), tuple(marks), ("done",) * len(x0), stats)
