"""Evolution over plans: what did well is crossed and mutated; a predictor may say what is worth asking."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from ..denoiser import Denoiser
from ..errors import SolveError, whole
from ..guidance import Guidance
from ..metrics import endpoint_error
from ..plan import Plan
from ..sampling import prior, reference, sample

PARENTS = 16  # of all that were judged, the best ones have children
BROOD = 24  # children judged before the parents are chosen anew
RIDGE = 1e-3  # of the predictor, where the kernel of a candidate with itself is 1

C = TypeVar("C")  # a candidate: anything that can be a key
Judge = Callable[[Plan, Denoiser], float]
Objective = Callable[[torch.Tensor], float]


def judge(
    model: Denoiser,
    samples: int,
    seed: int,
    cond: Mapping[str, Any] | None,
    guidance: float | Guidance,
    objective: Objective | None,
) -> Judge:
    """The end-point error of a plan from `samples` seeded noises, or `objective` of its samples [n, *shape].

    A plan that blows up is infinitely bad. It is run on the model given, or on a wrapped one.
    """
    x = prior(model, whole("samples", samples, 1), seed)
    asked: dict[str, Any] = {"cond": cond, "guidance": guidance, "batch": samples}
    if objective is None:
        truth = reference(model, x, **asked)

        def objective(ends: torch.Tensor) -> float:
            return endpoint_error(ends, truth)

    def judged(plan: Plan, model: Denoiser) -> float:
        try:
            value = float(objective(sample(model, x_init=x, plan=plan, **asked)))
        except SolveError:
            return math.inf
        return value if math.isfinite(value) else math.inf

    return judged


def evolve(
    score: Callable[[C], float],
    start: Iterable[C],
    child: Callable[[random.Random, C, C], C],
    *,
    evaluations: int,
    seed: int,
    numbers: Callable[[C], Sequence[float]] | None = None,
    pool: int = 1,
) -> dict[C, float]:
    """Candidates and their scores, the lowest first: those to start with, then broods of children.

    child(rng, a, b) crosses and mutates two of the best so far. With `numbers` of a candidate, `pool` times
    as many children as are judged are made, and a predictor, trained anew on all scores before every brood,
    says which. It ends after so many evaluations, or when no child is new.
    """
    rng, known = random.Random(seed), dict[C, float]()
    brood = list(dict.fromkeys(start))
    while brood:
        for candidate in brood[: evaluations - len(known)]:
            known[candidate] = score(candidate)
        if len(known) == evaluations:
            break
        best = sorted(known, key=known.__getitem__)[:PARENTS]
        children = dict.fromkeys(child(rng, *rng.choices(best, k=2)) for _ in range(pool * BROOD))
        brood = [c for c in children if c not in known]
        if numbers is not None and brood:
            rows, asked = [numbers(c) for c in known], [numbers(c) for c in brood]
            guess = predicted(rows, list(known.values()), asked)
            brood = [brood[i] for i in sorted(range(len(brood)), key=guess.__getitem__)]
        brood = brood[:BROOD]
    return dict(sorted(known.items(), key=lambda item: item[1]))


def predicted(
    known: Sequence[Sequence[float]], scores: Sequence[float], asked: Sequence[Sequence[float]]
) -> list[float]:
    """How well candidates should do, the lower the better, from others and their scores.

    Kernel ridge regression of y, the logarithm of a score's place among all, so that only their order counts
    and the best are told apart best: m + k(z, X) (k(X, X) + RIDGE)^-1 (y - m), with m the mean of y and k a
    Gaussian as wide as the median distance.
    """
    X, Z = (torch.tensor(rows, dtype=torch.float64) for rows in (known, asked))
    spread = X.std(0, correction=0).clamp(min=1e-12)
    X, Z = X / spread, Z / spread
    y = torch.tensor(scores, dtype=torch.float64).argsort().argsort().double().log1p()
    square = torch.cdist(X, X).square()
    width = 2 * square.median().clamp(min=1e-12)
    K = torch.exp(-square / width) + RIDGE * torch.eye(len(X), dtype=X.dtype)
    weights = torch.linalg.solve(K, y - y.mean())
    return (y.mean() + torch.exp(-torch.cdist(Z, X).square() / width) @ weights).tolist()
