"""A free solver at a minimum: Levenberg and Marquardt's least squares, Jacobians by difference quotients.

The free numbers are few and the residuals many, so it converges in some ten iterations. The model may be
anything that answers; of one that torch can differentiate fewer evaluations say more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..core import Field
from ..errors import SolveError
from .drawn import drawn
from .free import Features, Free, March, march, solved
from .slope import slope
from .trajectories import Trajectories

DAMPING = 1e-3  # Levenberg and Marquardt's, to begin with; it rises and falls tenfold
LOW = 1e-7  # the least of them
TRIES, LAST_TRIES = 2, 7  # dampings before more noises are drawn; where nothing comes after
MORE, TWICE = 8, 2  # times as many noises, at most; behind a curvature alone
SETTLED = 1e-3  # relative gain of an iteration, below which it ends
WEAK = 1e-2  # and below which the slope of a part is left for that of all
Fields = Callable[[Tensor], Field]  # that for some of the noises, by their numbers
Shown = Callable[[Free, float], None]
Linear = tuple[Tensor, Tensor]  # of half the sum of squares: Gauss and Newton's curvature, and the slope


@runtime_checkable
class SetObjective(Protocol):
    """|residuals(means)|^2, what is to be small of a whole set of samples [n, *shape]."""

    def means(self, x: Tensor) -> Tensor:
        """[S], float64: of functions of one sample, over all of them."""

    def residuals(self, means: Tensor) -> Tensor:
        """[R] of these."""


@torch.no_grad()
def polish(
    fields: Fields,
    solver: Free,
    paths: Trajectories,
    *,
    iterations: int = 20,
    part: int = 1024,
    weights: Tensor | None = None,
    fixed: Sequence[int] = (),
    features: Features = lambda x: x,
    through: float = 0.0,
    seed: int = 0,
    progress: Shown = lambda solver, error: None,
) -> tuple[Free, float]:
    """The solver at a minimum of |features(its end) - features(the true end)|^2, and its error there.

    The Jacobian is taken of `part` noises, drawn anew each time: half evenly, half in proportion to their
    residuals, which the few that a coarse solver leads to a wrong mode dominate; each counts by how likely it
    was. A step is taken only where it lowers the error over all noises. Near a minimum the slope of a part is
    mostly that of its accidents: where no step is found, or none of worth, and torch can differentiate the
    model, the slope is that over all noises from then on (`slope`), and a part gives the curvature alone,
    corrected by how the slope has changed (BFGS). After that twice as many are drawn; without it, up to eight
    times as many (Byrd, Chin, Nocedal and Wu 2012).

    Args:
        fields: the field for some of the noises, by their numbers: conditions belong to a noise.
        weights: [n], for how many noises each one stands, as `drawn` says; the same unless given.
        fixed: numbers of `Free.vector` that stay.
        through: weight of the states on the way: their distances to the solutions at their times are added
            to the residual so many times.
        progress: called with the solver and its error after every iteration.
    """
    n, generator = len(paths.end), torch.Generator().manual_seed(seed)
    everyone = fields(torch.arange(n))
    share = torch.ones(n).double() if weights is None else weights.double() * n / float(weights.sum())

    def misses(solver: Free, run: March, known: Trajectories) -> Tensor:
        """[n, elements of the features, and of the states on the way]."""
        found = [features(run.end) - features(known.end)]
        if through:
            way = zip(solver.times[1:-1], run.states[1:-1], strict=True)
            found += [through * (x - known.at(t)) for t, x in way]
        return torch.cat([miss.flatten(1) for miss in found], 1)

    def measured(solver: Free, known: March | None, start: int) -> Measured:
        run = march(everyone, solver, paths.noise, known, start)
        squares = share * misses(solver, run, paths).square().mean(1).double().cpu()
        return Measured(run, squares, float(squares.mean().sqrt()))

    def linear(solver: Free, free: Sequence[int], now: Measured, part: int) -> Linear:
        rows, counts = drawn(now.about.sqrt(), part, generator)
        known, base = paths.part(rows), now.run.part(rows)
        before = misses(solver, base, known)
        scale = (counts * share[rows]).sqrt().to(before)[:, None]
        J = torch.stack([
            (scale * (misses(moved, run, known) - before) / size).flatten().double()
            for size, moved, run in _moved(fields(rows), solver, free, base)
        ])  # fmt: skip
        return J @ J.T, J @ (scale * before).flatten().double()

    def whole(solver: Free, now: Measured) -> Tensor:
        return slope(fields, solver, now.run, paths.end, features, share)

    now = measured(solver, None, 0)
    smooth = part < n and not through and differentiable(fields, solver, paths, features)
    target = Target(n, measured, linear, whole if smooth else None)
    solver, now = _minimum(target, solver, now, fixed, part, iterations, progress)
    return solver, now.error


@torch.no_grad()
def polish_set(
    fields: Fields,
    solver: Free,
    x: Tensor,
    objective: SetObjective,
    *,
    iterations: int = 10,
    part: int = 256,
    fixed: Sequence[int] = (),
    features: Features = lambda x: x,
    seed: int = 0,
    progress: Shown = lambda solver, error: None,
) -> tuple[Free, float]:
    """The solver at a minimum of an objective of all its ends together, and its root there.

    As `polish`, for what is no mean over samples, such as a Frechet distance (`Frechet`). The residuals are
    of all noises x [n, *shape]; how the means move with the free numbers is measured on `part` of them. No
    solution has to be known. The last row goes first, since it needs no evaluation.
    """
    n, generator = len(x), torch.Generator().manual_seed(seed)
    everyone = fields(torch.arange(n))

    def mean_of(run: March) -> Tensor:
        return objective.means(features(run.end))

    def measured(solver: Free, known: March | None, start: int) -> Measured:
        run = march(everyone, solver, x, known, start)
        mean = mean_of(run)
        finite = bool(mean.isfinite().all())
        return Measured(run, mean, float(objective.residuals(mean).norm()) if finite else math.inf)

    def linear(solver: Free, free: Sequence[int], now: Measured, part: int) -> Linear:
        rows = torch.randperm(n, generator=generator)[:part]
        base = now.run.part(rows)
        before, residuals = mean_of(base), objective.residuals(now.about)
        J = torch.stack([
            (objective.residuals(now.about + mean_of(run) - before) - residuals) / size
            for size, _, run in _moved(fields(rows), solver, free, base)
        ])  # fmt: skip
        return J @ J.T, J @ residuals

    before = {k for k in range(len(solver.vector())) if solver.begins(k) < solver.nfe}
    target, now = Target(n, measured, linear), measured(solver, None, 0)
    for still, rows in ((before | set(fixed), n), (set(fixed), part)):
        solver, now = _minimum(target, solver, now, still, rows, iterations, progress)
    return solver, now.error


@dataclass(frozen=True)
class Measured:
    """A run over all noises, what a Jacobian must know about its residuals, and its error."""

    run: March
    about: Tensor
    error: float


@dataclass(frozen=True)
class Target:
    """What is to be small over n noises.

    measured: of a solver; where a run is given, its evaluations before the one of that number are known.
    linear: what a step goes by, from a Jacobian in these numbers of the solver, of so many noises.
    whole: the slope over all noises in every number, where it is to be had.
    """

    n: int
    measured: Callable[[Free, March | None, int], Measured]
    linear: Callable[[Free, Sequence[int], Measured, int], Linear]
    whole: Callable[[Free, Measured], Tensor] | None = None


def _moved(
    field: Field, solver: Free, free: Sequence[int], base: March
) -> Iterator[tuple[float, Free, March]]:
    """Each free number moved a little: by how much, the solver, and its run."""
    for k in free:
        size, moved = solver.nudged(k)
        yield size, moved, march(field, moved, base.states[0], base, solver.begins(k))


def _minimum(
    target: Target, solver: Free, now: Measured, fixed: Collection[int], part: int, iterations: int,
    progress: Shown,
) -> tuple[Free, Measured]:  # fmt: skip
    damping, by_all = DAMPING, False
    most = min(target.n, (TWICE if target.whole else MORE) * part)
    known: tuple[Tensor, Tensor] | None = None  # the free numbers, and the slope over all noises there
    secant: tuple[Tensor, Tensor] | None = None  # by how much they have changed
    free = [k for k in range(len(solver.vector())) if k not in set(fixed)]
    start = min((solver.begins(k) for k in free), default=0)
    if not math.isfinite(now.error):
        raise SolveError("the solver to begin with does not reach the end: its error is not finite")
    for left in reversed(range(iterations if free else 0)):
        if now.error == 0:
            break
        vector = torch.tensor(solver.vector(), dtype=torch.float64)
        gram, slope = target.linear(solver, free, now, part)
        if target.whole and by_all:
            if known is None or not vector[free].equal(known[0]):
                here = vector[free], target.whole(solver, now)[free]
                secant = known and (here[0] - known[0], here[1] - known[1])
                known = here
            slope, gram = known[1], _secant(gram, *secant) if secant else gram
        gained = 0.0
        for _ in range(TRIES if left and not by_all and part < most else LAST_TRIES):
            trial = vector.clone()
            trial[free] -= solved(gram, slope, damping * gram.diag())
            moved = solver.with_vector(trial.tolist())
            after = target.measured(moved, now.run, start)
            if after.error < now.error:  # and not NaN
                gained = 1 - after.error / now.error
                solver, now, damping = moved, after, max(damping / 10, LOW)
                progress(solver, now.error)
                break
            damping *= 10
        else:
            damping = DAMPING
        if target.whole and not by_all:
            by_all = gained < WEAK
        elif gained < SETTLED:
            if part >= most:
                break
            part *= 2
    return solver, now


def _secant(gram: Tensor, moved: Tensor, change: Tensor) -> Tensor:
    """The curvature that the slope's last change shows, and across that move the one before (BFGS)."""
    along, before = change @ moved, gram @ moved
    if along <= 0:  # no minimum's
        return gram
    return gram + change.outer(change) / along - before.outer(before) / (moved @ before)


def differentiable(fields: Fields, solver: Free, paths: Trajectories, features: Features) -> bool:
    """Whether torch has derivatives of all that a run consists of: seen on one noise."""
    one = torch.arange(1)
    known = paths.part(one)
    try:
        slope(fields, solver, march(fields(one), solver, known.noise), known.end, features)
    except Exception:  # numpy, dlpack, a graph that is not there: it has answered, and all else is no matter
        return False
    return True
