"""A plan as one call per evaluation, for loops that belong to someone else.

A pipeline evaluates its network, hands the output to a scheduler and gets the next state back. So steps are
cut at their evaluations: a call takes the one that was just made and combines up to the state of the next.

All rows being linear, a vector that the network does not see need not be made: its row goes into those that
use it. So it is with an evaluation that no later call needs, and with the corrected state X of a
predictor-corrector. The next step needs X again; but Y, the next state that the network sees, is
Y = w X + rest, so X = (Y - rest)/w. Corrector and predictor are one row then, and what a pipeline does to
Y is done to X.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from typing import Any

from ..core import Stage, Step
from ..errors import ArgumentError
from ..frame import ddim_row
from ..methods import REGISTRY
from ..plan import Plan
from ..process import Process
from ..sampling import plan_sampling

Row = Mapping[int, float]  # weights of vectors by their numbers
Terms = tuple[tuple[int, int, float], ...]


@dataclasses.dataclass
class Call:
    """What happens between one evaluation and the next. Vectors go by numbers.

    at, field: time of the evaluation, and which prediction is wanted there.  state, output: its x, and what
    the network returned.  rows: what is made, in order: from terms for `core.combine` over one mapping, or
    the unit normal of an interval of Brownian time.  result: the next state, or the end after the last call.
    done: what no later call needs.
    """

    at: float
    field: int
    state: int
    output: int
    rows: list[tuple[int, Terms, tuple[float, float] | None]] = dataclasses.field(default_factory=list)
    result: int = 0
    done: tuple[int, ...] = ()


class _Written:
    """The rows of steps over numbered vectors, of which x at the first time is 0.

    rows: by number; none for what is given (x, outputs, noises).  segments: the states that follow an
    evaluation, up to the one that the network sees next, or the end; the first precede all evaluations.
    calls: of each evaluation, still without rows.  noises: their intervals.  last: the last segment that
    uses a vector.
    """

    def __init__(self, steps: Iterable[Step]):
        self.rows: dict[int, Row] = {}
        self.segments: list[list[int]] = [[]]
        self.calls: list[Call] = []
        self.noises: dict[int, tuple[float, float]] = {}
        self.last: dict[int, int] = defaultdict(int)
        self._count = 1
        xs, fs = [0], list[int]()
        for step in steps:
            zs = [self._new() for _ in pairwise(step.brownian or ())]
            self.noises |= zip(zs, pairwise(step.brownian or ()), strict=True)
            known = (xs, fs, zs)
            for stage in step.stages:
                xs.append(self._state([(known[kind][i], w) for kind, i, w in stage.terms]))
                if stage.at is not None:
                    fs.append(self._new())
                    self.calls.append(Call(stage.at, stage.field, xs[-1], fs[-1]))
                    self.segments.append([])
            xs, fs = [xs[i] for i in step.keep_x], [fs[i] for i in step.keep_f]
        self._state([(xs[-1], 1.0)])

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _state(self, terms: Sequence[tuple[int, Any]]) -> int:
        row: dict[int, float] = defaultdict(float)
        for v, w in terms:
            row[v] += w
            self.last[v] = len(self.segments) - 1
        made = self._new()
        self.rows[made] = row
        self.segments[-1].append(made)
        return made


def unroll(steps: Iterable[Step], affine: Callable[[float, int], tuple[float, float]]) -> list[Call]:
    """The calls of a plan's steps.

    affine: (a, b) with the evaluation (at, field) = a x + b output. One that later calls need is held in
    units of b, which costs one addition at most.

    Raises:
        ArgumentError: the plan changes x before it evaluates it for the first time.
    """
    plan = _Written(steps)
    last, begin = plan.last, plan.segments[0][-1]
    meaning: dict[int, tuple[Row, float]] = {v: ({v: 1.0}, 1.0) for v in plan.noises}
    # (row, w): the vector is row/w of what is held. What a pipeline begins with is x as the plan shows it.
    meaning[0] = {begin: 1.0}, plan.rows[begin].get(0) or 1.0

    def held(row: Row) -> Row:
        """The same vector as a row over what is held. To divide first lets equal weights cancel exactly."""
        total: dict[int, float] = defaultdict(float)
        for v, w in row.items():
            terms, divisor = meaning[v]
            for u, c in terms.items():
                total[u] += w / divisor * c
        return {u: c for u, c in total.items() if c}

    for k, (*unseen, seen) in enumerate(plan.segments):
        made: dict[int, Row] = {}
        if k:
            call = plan.calls[k - 1]
            x, output = call.state, call.output
            a, b = affine(call.at, call.field)
            if last[output] == k:
                meaning[output] = {x: a, output: b}, 1.0
            else:
                meaning[output] = {output: b}, 1.0
                made |= {output: {output: 1.0, x: a / b}} if a else {}
        row = plan.rows[seen]
        # Of the states that are needed again, `seen` may stand for one: if the others in its row are, too.
        stood = next((v for v in unseen if v in row and all(last[u] >= last[v] for u in row)), None)
        for v in (*unseen, seen):
            meaning[v] = held(plan.rows[v]), 1.0
            if v == seen or (v != stood and last[v] > k):
                made[v], meaning[v] = meaning[v][0], ({v: 1.0}, 1.0)
        if stood is not None:
            rest = held({u: -w for u, w in row.items() if u != stood})
            meaning[stood] = {seen: 1.0, **rest}, row[stood]
        if k:
            call.result = seen
            call.rows = list(_in_order(made, plan.noises))
        elif made != {begin: {begin: 1.0}}:
            raise ArgumentError(
                "a pipeline evaluates its network at x before it calls its scheduler, and this plan changes "
                "x first: give it to ls.sample, or take another method"
            )
    needed = set[int]()
    for call in reversed(plan.calls):
        used = {u for _, terms, _ in call.rows for _, u, _ in terms}
        call.done = tuple({call.state, call.output, *used, *(v for v, _, _ in call.rows)} - needed)
        needed |= used
    return plan.calls


def _in_order(
    made: Mapping[int, Row], noises: dict[int, tuple[float, float]]
) -> Iterable[tuple[int, Terms, tuple[float, float] | None]]:
    """Rows as a call has them: a noise is drawn before it is first used; what needs no factor comes first."""
    for v, row in made.items():
        yield from ((u, (), noises.pop(u)) for u in row if u in noises)
        yield v, tuple((0, u, w) for u, w in sorted(row.items(), key=lambda term: term[1] != 1.0)), None


def resume(plan: Plan, index: int, process: Process) -> list[Step]:
    """The steps of a plan that begins with its evaluation `index`, where a pipeline says that x is.

    The evaluations stay where they are. Those left of a step that is cut take Euler's way, or wait where
    they do not go on towards data; from the next time of the plan on it is made anew, as without the history
    of a multistep method.

    Raises:
        ArgumentError: not an evaluation of the plan, or weights that only its own history makes sense of.
    """
    times, at = plan.times, plan.evaluated
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

    def written(nfe: int, grid: Sequence[float]) -> Plan:
        return plan_sampling(process, plan.method, nfe, grid, final=final, **plan.options)

    with suppress(ArgumentError):  # such as other evaluations than the pipeline has
        if plan.method in REGISTRY and written(len(at), times).steps == plan.steps:
            rest = written(len(at) - head, times[n:])
            if rest.evaluated == at[head:]:
                return left + list(rest.steps)
    raise ArgumentError(
        f"method {plan.method!r} cannot begin with evaluation {index}: its weights lean on those before; "
        "take another method or plan to begin in the middle"
    )
