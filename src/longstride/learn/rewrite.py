"""A plan's rows written anew: what evaluations are remembered, and what stands in the place of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core import Stage, Step

Seen = tuple[float, int]  # an evaluation: its time, and which field


def remembering(steps: Sequence[Step], memory: int) -> list[Step]:
    """The same steps, handing on at least the last `memory` evaluations, in the order they were made in."""
    wider, count = [], 0
    theirs: list[int] = []  # numbers, over the whole run, of the evaluations that the next step knows
    ours: list[int] = []
    for step in steps:
        new = [count + i for i in range(step.nfe)]
        count += step.nfe
        known, more = [*theirs, *new], [*ours, *new]
        place = [more.index(number) for number in known]
        stages = tuple(replace(stage, f=_spread(stage.f, place)) for stage in step.stages)
        theirs = [known[i] for i in step.keep_f]
        ours = [number for number in more if number in theirs or number in more[-memory:]]
        wider.append(replace(step, stages=stages, keep_f=tuple(more.index(number) for number in ours)))
    return wider


def _spread(row: Sequence[Any], place: Sequence[int]) -> tuple:
    wide = [0.0] * (max(place[: len(row)]) + 1 if row else 0)
    for w, i in zip(row, place, strict=False):
        wide[i] = w
    return tuple(wide)


def evaluations(steps: Sequence[Step]) -> list[list[Seen]]:
    """For each step all evaluations that its last row can weigh, in the order of the weights."""
    known, all_known = list[Seen](), []
    for step in steps:
        known = [*known, *((s.at, s.field) for s in step.stages if s.at is not None)]
        all_known.append(known)
        known = [known[i] for i in step.keep_f]
    return all_known


def rewritten(step: Step, table: Mapping[int, Mapping[int, float]]) -> Step:
    """The step with sum_i table[j][i] F_i in the place of each F_j that the table names, in every row."""

    def row(stage: Stage) -> Stage:
        total: dict[int, Any] = {}
        for j, w in enumerate(stage.f):
            for i, share in table.get(j, {j: 1.0}).items():
                total[i] = total.get(i, 0.0) + w * share
        return replace(stage, f=tuple(total.get(i, 0.0) for i in range(max(total, default=-1) + 1)))

    return replace(step, stages=tuple(row(stage) for stage in step.stages))
