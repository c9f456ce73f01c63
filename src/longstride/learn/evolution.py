"""Evolution over plans: what did well is crossed and mutated, and a predictor may say what is worth asking."""

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
from .free import Features

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
    """The end-point error of a plan from `samples` seeded noises, or `objective` of where it ends [n, *shape].

    A plan that blows up is infinitely bad. The model is the one given, or it wrapped.
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
            guess = predicted(*([numbers(c) for c in some] for some in (known, brood)), list(known.values()))
            brood = [brood[i] for i in sorted(range(len(brood)), key=guess.__getitem__)]
        brood = brood[:BROOD]
    return dict(sorted(known.items(), key=lambda item: item[1]))


def predicted(
    known: Sequence[Sequence[float]], asked: Sequence[Sequence[float]], scores: Sequence[float]
) -> list[float]:
    """Logarithms of scores by kernel ridge regression, the kernel a Gaussian of the median distance's width.

    f(x) = m + k(x, X) (k(X, X) + RIDGE)^-1 (y - m), with y the logarithms of the scores and m their mean; one that
    is infinite counts as the worst finite one.
    """
    X, Z = (torch.tensor(rows, dtype=torch.float64) for rows in (known, asked))
    spread = X.std(0).clamp(min=1e-12)
    X, Z = X / spread, Z / spread
    y = torch.tensor(scores, dtype=torch.float64).log().clamp(max=1e300)
    worst = y[y < 1e300].max() if (y < 1e300).any() else 0.0
    y = y.clamp(max=worst)
    square = torch.cdist(X, X).square()
    width = square.median().clamp(min=1e-12)
    K = torch.exp(-square / (2 * width)) + RIDGE * torch.eye(len(X), dtype=X.dtype)
    weights = torch.linalg.solve(K, y - y.mean())
    return (y.mean() + torch.exp(-torch.cdist(Z, X).square() / (2 * width)) @ weights).tolist()
