"""The weights of a free solver by gradients through the whole run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..core import Field
from ..errors import SolveError, whole
from .free import Features, Free, march
from .slope import slope
from .trajectories import Trajectories


def descend(
    fields: Callable[[Tensor], Field],
    solver: Free,
    paths: Trajectories,
    *,
    iterations: int = 20,
    part: int = 1024,
    features: Features = lambda x: x,
    seed: int = 0,
) -> tuple[Free, float]:
    """The solver with weights that backpropagation and L-BFGS find, and its error over all starts.

    What is free is w_ij for j < i; the newest evaluation's weight is q_i minus their sum, so that a field
    which always says the same stays exact whatever the step. Times stay: `polish` moves them too, and needs
    no derivative of the field, but its cost grows with the free numbers, of which there are nfe^2/2.

    Memory is bounded by recomputation (`slope`): an evaluation is made again when its gradient is wanted, so
    that the states and evaluations of `part` starts are kept, and nothing of what is inside the field.

    Args:
        fields: the field for some of the starts, by their numbers; torch must be able to differentiate it.
        iterations: of L-BFGS, on one draw of `part` starts. What is not better on all starts is not taken.

    Raises:
        SolveError: the solver to begin with does not reach the end, or the field has no derivative.
    """
    n = len(paths.end)
    whole("iterations", iterations, 1)

    def error(candidate: Free) -> float:
        with torch.no_grad():
            end = march(fields(torch.arange(n)), candidate, paths.noise).end
            return float((features(end) - features(paths.end)).double().square().mean().sqrt())

    before = error(solver)
    if not math.isfinite(before):
        raise SolveError("the solver to begin with does not reach the end: its error is not finite")
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:part]
    known, field = paths.part(rows), fields(rows)
    truth = features(known.end)
    free = torch.tensor([w for row in solver.weights for w in row], dtype=torch.float64)
    where = slice(2 * solver.nfe - 1, solver.slackness.start)
    optimizer = torch.optim.LBFGS(
        [free], max_iter=iterations, history_size=30, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def weighted() -> Free:
        numbers = iter(free.tolist())
        return replace(solver, weights=tuple(tuple(next(numbers) for _ in row) for row in solver.weights))

    @torch.no_grad()
    def loss() -> Tensor:
        run = march(field, weighted(), known.noise)
        value = (features(run.end) - truth).double().square().mean()
        of_half = slope(lambda some: fields(rows[some]), weighted(), run, known.end, features)
        free.grad = 2 / truth.numel() * of_half[where]
        return value

    if solver.nfe > 1:
        optimizer.step(loss)
    found = weighted()
    after = error(found)
    return (found, after) if after < before else (solver, before)
