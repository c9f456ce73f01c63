"""AutoDiffusion: which times are evaluated, and which of them by a cheaper network, evolved together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .. import grid as grids
from ..denoiser import Denoiser
from ..errors import ArgumentError, positive, whole
from ..fields import cached_features
from ..guidance import Guidance
from ..plan import Plan
from ..sampling import plan_sampling
from .evolution import PARENTS, Objective, evolve, judge

Gene = tuple[int, bool]  # the number of a time, and whether the network is run whole there
Candidate = tuple[Gene, ...]  # by falling times; the first is (0, True)


@torch.no_grad()
def autodiffusion(
    model: Denoiser,
    nfe: int,
    *,
    method: str = "ddim",
    grid: grids.Grid = "log_snr",
    candidates: int = 100,
    modules: Sequence[str] = (),
    share: float = 1.0,
    samples: int = 256,
    evaluations: int = 1000,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    objective: Objective | None = None,
    **options: Any,
) -> Plan:
    """The plan of a method on those of many times that an evolution finds best, at a cost of nfe evaluations.

    A candidate is a set of times, with a mark where the network runs without `modules`: their features are
    those of the last evaluation without a mark, and it costs `share` of a whole one. The best are crossed
    (what both have stays, what one has is inherited by chance) and mutated (times moved, marks flipped); then
    evaluations are dropped and added by chance until the cost is as near to nfe as it can be. First the times
    alone evolve, on half of the evaluations if there are modules; then both together, from the best times.
    (To repeat a whole prediction is a longer step of DDIM, which the choice of times contains already.)

    Args:
        method: any that evaluates once for each time, with its options.
        grid: family of the times to choose from; candidates: how many. The first, t_max, always belongs.
        modules: as for `fields.cached_features`; share: of an evaluation's cost that is left without
            them, below 1; measure it.
        samples: noises of the search; evaluations: candidates judged on them.
        cond: as for `sample`, for all `samples`.
        objective: of samples [n, *shape], to be minimised, such as a Frechet distance; by default their
            end-point error.

    Returns:
        The plan. Where plan.options["reused"] is not empty, it is for
        `cached_features(model, plan.options["reused"], plan.options["modules"])`.

    Raises:
        ArgumentError: a budget below 1 or beyond the candidates, a method that evaluates otherwise, a share
            that is no share, or no candidate reached the end.

    Reference: Li et al. 2023, "AutoDiffusion: training-free optimization of time steps and architectures for
    automated diffusion model acceleration".
    """
    nfe, process = whole("nfe", nfe, 1), model.process
    times = grids.times(process, whole("candidates", candidates, nfe, f"at least nfe = {nfe}"), grid)
    if positive("share", share) > 1:
        raise ArgumentError(f"share = {share}: an evaluation without some modules costs less than one")
    judged = judge(model, samples, seed, cond, guidance, objective)

    def planned(candidate: Candidate, report: Mapping[str, Any] = {}) -> Plan:
        plan = plan_sampling(process, method, grid=[times[i] for i, _ in candidate], **options)
        if plan.nfe != len(candidate):
            raise ArgumentError(f"method {method} evaluates {plan.nfe} times on {len(candidate)} times: take "
                                "one that evaluates once, such as ddim or dpmpp_2m")  # fmt: skip
        said = {**plan.options, "modules": list(modules), "reused": _reused(candidate)}
        return Plan(plan.times, plan.steps, plan.made_for, method, said, report)

    def score(candidate: Candidate) -> float:
        reused = _reused(candidate)
        return judged(planned(candidate), cached_features(model, reused, modules) if reused else model)

    def filled(rng: random.Random, genes: dict[int, bool], least: float) -> Candidate:
        """Within the budget, and with no room for another evaluation that costs `least`."""

        def room() -> float:
            return nfe - sum(1 if full else share for full in genes.values()) + 1e-9

        while room() < 0:
            del genes[rng.choice([i for i in genes if i])]
        while len(genes) < len(times) and room() > least:
            free = rng.choice([i for i in range(len(times)) if i not in genes])
            genes[free] = least == 1 or (room() > 1 and rng.random() < 0.5)
        return tuple(sorted(genes.items()))

    def child(least: float, rng: random.Random, one: Candidate, other: Candidate) -> Candidate:
        genes, parents, rate = {0: True}, [dict(one), dict(other)], 1 / len(one)
        for i in sorted({*parents[0], *parents[1]} - {0}):
            marks = [parent[i] for parent in parents if i in parent]
            if len(marks) == 2 or rng.random() < 0.5:
                flipped = least < 1 and rng.random() < rate
                moved = round(rng.gauss(0, len(times) ** rng.random())) if rng.random() < rate else 0
                genes[min(max(i + moved, 1), len(times) - 1)] = rng.choice(marks) ^ flipped
        return filled(rng, genes, least)

    rng, last = random.Random(seed), len(times) - 1
    uniform = tuple((round(i * last / max(nfe - 1, 1)), True) for i in range(nfe))
    start = [uniform, *(filled(rng, {0: True}, 1) for _ in range(2 * PARENTS))]
    first = whole("evaluations", evaluations, 2) // (2 if modules else 1)
    known = evolve(score, start, partial(child, 1), evaluations=first, seed=seed)
    if modules:
        both = evolve(
            score, list(known)[:PARENTS], partial(child, share), evaluations=evaluations - first, seed=seed
        )
        known = dict(sorted({**known, **both}.items(), key=lambda item: item[1]))
    best = next(iter(known))
    if math.isinf(known[best]):
        raise ArgumentError("no candidate reached the end: does the model return NaN?")
    report = {"learned": "autodiffusion", "samples": samples, "seed": seed, "evaluations": len(known),
              "share": share, "guidance": str(Guidance.of(guidance)), "value": known[best],
              "uniform": known[uniform]}  # fmt: skip
    return planned(best, report)


def _reused(candidate: Candidate) -> list[int]:
    """Numbers of the evaluations without modules."""
    return [n for n, (_, full) in enumerate(candidate) if not full]
