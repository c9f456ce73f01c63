"""The starts that a solver is polished on: all of some, or of many those that its error hangs on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..journal import Journal
from ..metrics import squared_errors
from ..plan import Plan
from .drawn import drawn
from .free import Features, Free
from .subject import Subject
from .trajectories import Trajectories

SPLIT = 16  # a part of the starts, and how many times as many are made of it
MOVE = 0.5  # of a start to the next of its chain
Sizes = Callable[[Tensor], Tensor]
Crowd = tuple[Tensor, Tensor, Tensor]  # rows, sizes, and for how many each stands


@dataclass(frozen=True, eq=False)
class Starts:
    """Rows [n] of a subject, their solutions, and for how many starts each one stands; one, unless said."""

    rows: Tensor
    paths: Trajectories
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, n: int) -> Starts:
        weights = None if self.weights is None else self.weights[:n]
        return Starts(self.rows[:n], self.paths.part(slice(0, n)), weights)

    @property
    def digest(self) -> str:
        """Tells them from others of the same subject."""
        what = self.rows if self.weights is None else self.weights.double()
        return hashlib.sha256(what.numpy().tobytes()).hexdigest()[:16]


def telling(
    subject: Subject, solvers: Sequence[Free], near: Plan, pool: Tensor, n: int, nfe: int, seed: int,
    kept: Journal, features: Features = lambda x: x,
) -> Starts:  # fmt: skip
    """n starts that tell most of what solvers err, of a pool and its surroundings; their ends in nfe steps.

    What is left of an error of few steps hangs on few starts, those where the solutions part: one in a
    hundred or in a thousand, which a coarse solver leads to another mode. n even starts hold a handful. So
    many are sketched, by each solver and by a plan that is nearer to the solutions; where these are apart,
    starts are drawn more often and count for less (`drawn`), and only these are solved from. A solver
    misleads the starts on one side of where solutions part, several find both sides. Of the solutions the
    start and the end are known, nothing on the way.
    """
    plans, generator = [solver.plan() for solver in solvers], torch.Generator().manual_seed(seed)
    asked = f"{[solver.vector() for solver in solvers]} {near.weights} {pool[0]} {len(pool)} {n}"
    name = "drawn-" + hashlib.sha256(asked.encode()).hexdigest()[:16]
    crowd = copy(subject)  # what is not drawn is forgotten

    def apart(rows: Tensor) -> Tensor:
        ends = features(crowd.ends(near, rows))
        squares = torch.stack([squared_errors(features(crowd.ends(plan, rows)), ends) for plan in plans])
        return squares.sum(0).sqrt().cpu()

    @cache
    def draw() -> tuple[Tensor, Tensor, Tensor]:
        rows, sizes, mass = (split if crowd.spread else whole)(crowd, pool, apart, generator)
        places, counts = drawn(sizes, n, generator, mass)
        subject.evaluations = crowd.evaluations
        return crowd.x[rows[places]], crowd.like[rows[places]], counts

    def known(i: int) -> Tensor:
        return kept.tensor(f"{name}-{i}", lambda: draw()[i])

    rows, weights = subject.add(known(0).to(subject.x), known(1)), known(2)
    end = kept.tensor(f"{name}-ends", lambda: subject.reference(rows, nfe)).to(subject.x.device)
    return Starts(rows, Trajectories(subject.axis, plans[0].times[:1], subject.x[None, rows], end), weights)


def whole(subject: Subject, pool: Tensor, sizes: Sizes, generator: torch.Generator) -> Crowd:
    return pool, sizes(pool), torch.ones(len(pool))


def split(subject: Subject, pool: Tensor, sizes: Sizes, generator: torch.Generator) -> Crowd:
    """The pool, in place of its sixteenth with the largest sizes sixteen times as many such starts.

    From each of these goes a chain of starts: x sqrt(1 - b^2) + b noise has the distribution that x has, and
    with moves to smaller sizes refused the one among the large (Metropolis). A start of a chain of m counts
    1/m. So what one start in a thousand says is known from as many as a pool sixteen times as large has, for
    twice the work of this one.

    Reference: Au and Beck 2001 (subset simulation).
    """
    rows, size = pool, sizes(pool)
    here = size.topk(len(pool) // SPLIT).indices
    limit, mass = size[here].min(), torch.ones(len(pool))
    mass[here] = 1 / SPLIT
    for _ in range(SPLIT - 1):
        x = subject.x[rows[here]]
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device) * subject.spread
        moved = subject.add((1 - MOVE**2) ** 0.5 * x + MOVE * noise, subject.like[rows[here]])
        there = torch.arange(len(moved)) + len(rows)
        rows, size = torch.cat([rows, moved]), torch.cat([size, sizes(moved)])
        mass = torch.cat([mass, torch.zeros(len(moved))])
        here = torch.where(size[there] >= limit, there, here)
        mass[here] += 1 / SPLIT
    visited = mass > 0
    return rows[visited], size[visited], mass[visited]
