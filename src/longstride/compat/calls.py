"""A plan as one call per evaluation, for loops that belong to someone else.

A pipeline evaluates its network, hands the output to a scheduler and gets the next state back. So steps are
cut at their evaluations: a call files the one that was just made and combines up to the state of the next.
States, evaluations and noises live in numbered registers, used again as soon as no later row needs them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import accumulate, count, pairwise
from typing import Any

from ..core import Stage, Step
from ..errors import ArgumentError
from ..frame import ddim_row
from ..methods import REGISTRY
from ..plan import Plan
from ..process import Process
from ..sampling import plan_sampling

Terms = tuple[tuple[int, int, Any], ...]


@dataclasses.dataclass
class Call:
    """What happens between one evaluation and the next.

    at, field: time of the evaluation, and which prediction is wanted there.  state, evaluation: registers
    of its x and of itself.  rows: registers in the order in which they are filled, each from terms for
    `core.combine` over one list, or with the unit normal of an interval of Brownian time.  result: register
    of the next state; of the end, after the last call.
    """

    at: float
    field: int
    state: int
    evaluation: int
    rows: list[tuple[int, Terms, tuple[float, float] | None]] = dataclasses.field(default_factory=list)
    result: int = 0


def unroll(steps: Iterable[Step], unit: Callable[[float, int], float]) -> list[Call]:
    """The calls of a plan's steps; x at the first time is in register 0.

    unit: what the evaluation (at, field) is filed in units of; the weights take it up.

    Raises:
        ArgumentError: the plan changes x before it evaluates it for the first time.
    """
    calls = [Call(math.nan, 0, 0, 0)]  # what precedes the first evaluation: nothing, or it is refused
    units = {0: 1.0}
    xs, fs = [0], list[int]()
    for step in steps:
        zs = list[int]()

        def register(value: float, held: tuple[list[int], ...] = (xs, fs, zs)) -> int:
            free = next(i for i in count() if not any(i in kind for kind in held))
            units[free] = value
            return free

        for interval in pairwise(step.brownian or ()):
            zs.append(register(1.0))
            calls[-1].rows.append((zs[-1], (), interval))
        for stage in step.stages:
            known = ((xs, fs, zs)[kind][i] for kind, i, _ in stage.terms)
            terms = tuple((0, r, w * units[r]) for r, (_, _, w) in zip(known, stage.terms, strict=True))
            if len(terms) == 1 and terms[0][2] == 1.0:
                xs.append(terms[0][1])  # a copy is the register itself: what is put there, all see
            else:
                xs.append(register(1.0))
                calls[-1].rows.append((xs[-1], terms, None))
            if stage.at is not None:
                calls[-1].result = xs[-1]
                fs.append(register(unit(stage.at, stage.field)))
                calls.append(Call(stage.at, stage.field, xs[-1], fs[-1]))
        xs, fs = [xs[i] for i in step.keep_x], [fs[i] for i in step.keep_f]
    calls[-1].result = xs[-1]
    first, *calls = calls
    if any(interval is None for _, _, interval in first.rows):
        raise ArgumentError(
            "a pipeline evaluates its network at x before it calls its scheduler, and this plan changes x "
            "first: give it to ls.sample, or take another method"
        )
    calls[0].rows[:0] = first.rows
    return calls


def evaluated_at(steps: Iterable[Step]) -> list[float]:
    """The time of each evaluation, in order."""
    return [stage.at for step in steps for stage in step.stages if stage.at is not None]


def resume(plan: Plan, index: int, process: Process) -> list[Step]:
    """The steps of a plan that begins with its evaluation `index`, where a pipeline says that x is.

    The evaluations stay where they are. Those left of a step that is cut take Euler's way, or wait where
    they do not go on towards data; from the next time of the plan on it is made anew, as without the history
    of a multistep method.

    Raises:
        ArgumentError: not an evaluation of the plan, or weights that only its own history makes sense of.
    """
    times, at = plan.times, evaluated_at(plan.steps)
    if not 0 <= index < len(at):
        raise ArgumentError(f"begin index {index}: the plan has the evaluations 0 to {len(at) - 1}")
    if index == 0:
        return list(plan.steps)
    # A step evaluates at its own start, or a predictor-corrector has done so in the step before.
    spent = [0, *accumulate(step.nfe for step in plan.steps)]
    heads = [s if at[s : s + 1] == [t] else s - 1 for s, t in zip(spent, times[:-1], strict=False)]
    n = next((n for n, head in enumerate(heads) if head >= index), len(plan.steps))
    head = [*heads, len(at)][n]
    left = [
        Step((Stage((1.0,), at=s), Stage(*(((x,), (f,)) if t < s else ((1.0,),)))))
        for s, t in pairwise([*at[index:head], times[n]])
        for x, f in [ddim_row(process, s, t)]
    ]
    if n == len(plan.steps) or (len(plan.steps[n - 1].keep_x) == 1 and not plan.steps[n - 1].keep_f):
        return left + list(plan.steps[n:])
    final = "data" if times[-1] == process.t_end else "sigma_min"

    def written(nfe: int, grid: Sequence[float]) -> tuple[Step, ...]:
        return plan_sampling(process, plan.method, nfe, grid, final=final, **plan.options).steps

    with suppress(ArgumentError):  # a start that the method pays for at the beginning of its grid, not here
        if plan.method in REGISTRY and written(len(at), times) == plan.steps:
            rest = written(len(at) - head, times[n:])
            if evaluated_at(rest) == at[head:]:
                return left + list(rest)
    raise ArgumentError(
        f"method {plan.method!r} cannot begin with evaluation {index}: its weights lean on those before; "
        "take another method or plan to begin in the middle"
    )
