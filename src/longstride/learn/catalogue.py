"""The best published methods for a subject and a budget: what a tuned plan must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from ..methods import REGISTRY
from .drawn import drawn
from .judge import Candidate, Judge
from .subject import Subject

EVEN, TELLING = 16, 48  # starts that the whole registry is tried on, and that tell most of what the best err
SCOUTS, NEAR, METHODS, LAST = 4, 64, 8, 8  # that show which these are; tried on them; on all grids; on all


def untuned(subject: Subject, judge: Judge, rows: Tensor, truth: Tensor, nfe: int) -> list[Candidate]:
    """The registry's best, on their best grids, by their errors from these rows; the best first.

    All are tried on a few starts. What an error of few steps hangs on is one start in a hundred, of which a
    few have none; so the best there run from all, and starts are drawn where these err, which count for less
    (`drawn`). By these the methods are chosen, then their grids, and the best of all that from all starts.
    An objective of one's own knows no single starts, and sees all of them every time.
    """

    def plans(methods: Iterable[str], grids: Iterable[str]) -> list[Candidate]:
        found: dict[str, Candidate] = {}  # by weights: many names are the same
        for method, grid in product(methods, grids):
            plan = subject.published(method, grid, nfe)
            if plan is not None and not plan.stochastic:
                found.setdefault(str(plan.weights), Candidate(f"{method} on {grid}", plan))
        return list(found.values())

    def best(candidates: Iterable[Candidate], error: Callable[[Candidate], float]) -> list[Candidate]:
        return sorted((replace(c, error=error(c)) for c in candidates), key=lambda c: c.error)

    def on_all(c: Candidate) -> float:
        return judge.of(c.plan, subject, rows, truth)

    def on_few(c: Candidate) -> float:
        return judge.of(c.plan, subject, rows[:EVEN], truth[:EVEN])

    def on_telling(c: Candidate) -> float:
        squares = judge.squares(c.plan, subject, rows[some], truth[some])
        return float(counts @ squares / counts.sum()) ** 0.5

    asked = plans(REGISTRY, subject.screened)
    quick = on_all
    if asked and judge.objective is None and len(rows) > TELLING:
        near = best(asked, on_few)[:NEAR]
        squares = [judge.squares(c.plan, subject, rows, truth) for c in near[:SCOUTS]]
        sizes = torch.stack(squares).sum(0).nan_to_num(posinf=0.0).sqrt()
        some, counts = drawn(sizes, TELLING, torch.Generator().manual_seed(0))
        asked, quick = near, on_telling
    asked = best(asked, quick)
    methods = list(dict.fromkeys(c.plan.method for c in asked))[:METHODS]
    return best(best(plans(methods, subject.grids), quick)[:LAST], on_all)
