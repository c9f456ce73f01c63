"""From data back to the noise they come from: exactly, by fixed points, or by the same formula backward."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import grid as grids
from .anderson import anderson
from .core import Field, advance
from .denoiser import Denoiser
from .errors import ArgumentError, positive, whole
from .guidance import Guidance
from .integrate import run
from .methods import REGISTRY, get
from .plan import Plan
from .process import Process
from .reverse import reverse
from .sampling import chosen, ddim_step, dealt_out, fits, frame_of
from .solution import State, Stats

DEFAULT_METHOD = "bdia"
Found = tuple[list[Tensor], Tensor, list[float]]  # states, residual [n], times of the evaluations
Solver = Callable[[Sequence[Field], Tensor], Found]
ROUND_OFF = 100  # times a dtype's epsilon: where a fixed point is taken for found


def invert(
    model: Denoiser,
    x: Tensor,
    *,
    method: str | None = None,
    nfe: int | None = None,
    grid: grids.Grid | None = None,
    plan: Plan | None = None,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    fixed_point: bool = False,
    iterations: int = 50,
    tolerance: float | None = None,
    batch: int = 256,
    stats: Stats | None = None,
    **options: Any,
) -> State:
    """The state near the noise from which `sample(x_init=state)` returns to x [n, *shape].

    x stands at the last time of the plan, by default t_min: the last step to clean data forgets where it
    came from. With the same conditions and guidance the state returns to x; with others, x is edited.

    A reversible method (`bdia`, `rev_adams_k`, `edict`) is undone exactly, to round-off, with as many
    evaluations as it takes forward. It carries several states; at the data's end the older ones come from
    first-order steps backward, and whatever they are, the way back is exact. Its start is left out: the state
    stands where the plan first has all its states.

    fixed_point=True is for every other method without noise. It begins with the method run on the reversed
    times (DDIM inversion, RF-Solver's) and then solves x_t = step(x_s) for x_s, step by step, with

        x_s <- x_s + c (x_t - step(x_s)),   c = |(alpha_s, sigma_s)|/|(alpha_t, sigma_t)|

    under Anderson acceleration; c makes it exact at once for data of variance 1 far from all borders. Steps
    that share evaluations (multistep methods) are solved together. `State.residual` says how well it went.

    Args:
        method, nfe, grid, options: see `plan_sampling`; bdia and 20 by default. Or a finished `plan`, made
            with final="sigma_min".
        cond, guidance, batch: as in `sample`.
        iterations, tolerance: of the fixed point: updates of a step at most, and the relative residual at
            which it is left, by default 100 times the round-off of x's dtype. With iterations=0 the reversed
            run stands as it is: the published approximate inversions.
        stats: filled with what the call cost.

    Raises:
        ArgumentError: a plan that cannot be undone, without fixed_point=True; any other bad argument.
        SolveError: the network failed or returned NaN.

    References: Zhang et al. 2023 (BDIA); Wallace et al. 2023 (EDICT); Pan et al. 2023 (Anderson
    acceleration); Wang et al. 2025 (RF-Solver).
    """
    process, batch = model.process, whole("batch", batch, 1)
    iterations = whole("iterations", iterations, 0)
    asked = {"method": method, "nfe": nfe, "grid": grid, **options}
    asked = {k: v for k, v in asked.items() if v is not None}
    if plan is None:
        asked = {"method": DEFAULT_METHOD, "final": "sigma_min", **asked}
    plan = chosen(process, plan, asked)
    if plan.stochastic:
        raise ArgumentError(f"method {plan.method} draws noise, which has no inverse: give it eta = 0")
    if process.sigma(plan.times[-1]) == 0:
        raise ArgumentError(
            "the plan ends at clean data, and its last step forgets where it came from: "
            "make it with final='sigma_min'"
        )
    fits(model, x, "x")
    where, dtype = model.device or x.device, torch.promote_types(x.dtype, torch.float32)
    tolerance = ROUND_OFF * torch.finfo(dtype).eps if tolerance is None else positive("tolerance", tolerance)
    guidance = Guidance.of(guidance)
    if guidance.against is not None:
        guidance = replace(guidance, against=guidance.against.to(where))
    cond = model.conditioning(cond, len(x), where)
    if fixed_point:
        onward, solve = plan, _solving(process, plan, iterations, tolerance)
    else:
        onward, solve = _undoing(process, plan)
    started, parts = time.perf_counter(), list[Found]()
    with torch.no_grad():
        for first in range(0, len(x), batch):
            size = min(batch, len(x) - first)
            fields = model.fields(dealt_out(cond, range(first, first + size)), guidance)
            parts.append(solve(fields, x[first : first + size].to(where, dtype)))
    if stats is not None:
        longest = max((evaluated for *_, evaluated in parts), key=len)
        stats.nfe, stats.steps, stats.seconds = len(longest), len(plan.steps), time.perf_counter() - started
        stats.network_calls = model.network_calls(guidance, longest)
    xs = tuple(torch.cat(states) for states in zip(*(found for found, _, _ in parts), strict=True))
    if not fixed_point:
        return State(xs, onward)
    residual = torch.cat([residual for _, residual, _ in parts])
    open_ = int((residual > tolerance).sum())
    if iterations and open_:
        warnings.warn(
            f"the fixed point of {open_} of {len(x)} samples was not found to {tolerance:.1e}: State.residual"
            " says how far; take more steps, more iterations or a reversible method",
            stacklevel=2,
        )
    return State(xs, onward, residual)


def _undoing(process: Process, plan: Plan) -> tuple[Plan, Solver]:
    """The plan that remains after going back, and the way back from x alone."""
    back = reverse(plan, start=False)
    at = _kept_at(plan)
    older = sorted({t for t in at if t != plan.times[-1]})
    marks = (plan.times[-1], *older)
    lead = [ddim_step(process, s, t) for s, t in pairwise(marks)]
    begin = Plan(marks, tuple(lead), plan.made_for, plan.method) if older else None

    def solve(fields: Sequence[Field], x: Tensor) -> Found:
        known, states = {marks[0]: x}, list[Tensor]()
        if begin is not None:
            known |= dict(zip(older, run(fields, begin, x, save=set(range(len(lead))))[0], strict=True))
        run(fields, back, [known[t] for t in at], kept=states)
        evaluated = [] if begin is None else begin.evaluated
        return states, x.new_zeros(len(x)), evaluated + back.evaluated

    return reverse(back), solve


def _kept_at(plan: Plan) -> list[float]:
    """The times of the states that the last step keeps: of each, the end of the step that made it."""
    at = [plan.times[0]] * plan.states
    for step, t in zip(plan.steps, plan.times[1:], strict=True):
        at += [t] * len(step.stages)
        at = [at[i] for i in step.keep_x]
    return at


def _solving(process: Process, plan: Plan, iterations: int, tolerance: float) -> Solver:
    """The fixed-point way back: blocks of steps that share evaluations, the last block first."""
    if any(len(step.keep_x) > 1 for step in plan.steps):
        raise ArgumentError(
            f"method {plan.method} carries several states, and fixed_point=True solves for one: leave it out "
            "if the method is reversible, or take a method that carries one"
        )
    steps, size = plan.steps, [math.hypot(*process.pair(t)) for t in plan.times]
    begins = [n for n in range(len(steps)) if n == 0 or not steps[n - 1].keep_f]
    blocks = [range(a, b) for a, b in pairwise([*begins, len(steps)])]
    guess = _mirrored(process, plan)

    def solve(fields: Sequence[Field], x: Tensor) -> Found:
        rough = [x, *run(fields, guess, x, save=set(range(len(steps))))[0]][::-1]
        worst, evaluated, end = x.new_zeros(len(x)), guess.evaluated, x

        def g(U: Tensor) -> Tensor:  # the states of the block, each over its size: [n, steps, *shape]
            fs, reached = list[Tensor](), list[Tensor]()
            for u, m in zip(U.unbind(1), block, strict=True):
                (new,), fs = advance(fields, steps[m], [u * size[m]], fs)
                reached.append(new / size[m + 1])
            wanted, out = end / size[block.stop], list[Tensor]()
            for u, new in zip(reversed(U.unbind(1)), reversed(reached), strict=True):
                wanted = u + (wanted - new)
                out.append(wanted)
            return torch.stack(out[::-1], 1)

        for block in reversed(blocks):
            shift = (end - rough[block.stop]) / size[block.stop]  # what the blocks before have put right
            start = torch.stack([rough[m] / size[m] + shift for m in block], 1)
            U, residual, updates = anderson(g, start, tolerance=tolerance, iterations=iterations)
            worst, end = torch.maximum(worst, residual), U[:, 0] * size[block.start]
            times = [stage.at for m in block for stage in steps[m].stages if stage.at is not None]
            evaluated = evaluated + times * (updates + 1)
        return [end], worst, evaluated

    return solve


def _mirrored(process: Process, plan: Plan) -> Plan:
    """The plan's method on its times reversed; DDIM where its frame is infinite, or it is no method's."""
    times = plan.times[::-1]
    steps = [ddim_step(process, s, t) for s, t in pairwise(times)]
    if plan.method in REGISTRY:
        rule = get(plan.method, **plan.options)
        frame = frame_of(process, rule)
        if math.isfinite(frame.clock(times[-1])):
            steps = [rule.step(times, n, frame) for n in range(len(steps))]
    return replace(plan, times=times, steps=tuple(steps))
