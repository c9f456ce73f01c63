"""AutoDiffusion: which times are evaluated, and which of them by a cheaper network, evolved together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
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
    """The plan of a method on the times, out of many, that an evolution finds best at a cost of nfe evaluations.

    A candidate is a set of times with a mark where the network runs without `modules`, their features being
    those of the last evaluation without a mark, at `share` of the cost. The best are crossed (what both have
    stays, what one has is inherited by chance, its mark with it) and mutated (times replaced, marks flipped);
    then evaluations are dropped or added by chance until the cost is as near to nfe as it can be. (To repeat a whole
    prediction would be a longer step of DDIM, which the choice of times contains already.)

    Args:
        method: any that evaluates once for each time, with its options.
        grid: family of the times to choose from; candidates: how many. The first, t_max, always belongs.
        modules: as for `fields.cached_features`; share: between 0 and 1, of an evaluation without them.
            Measure it; none are reused unless modules are named.
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
        raise ArgumentError(f"share = {share}: an evaluation without some modules costs less than a whole one")
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

    def filled(rng: random.Random, genes: dict[int, bool]) -> Candidate:
        """Within the budget, and with no room for another evaluation."""

        def room() -> float:
            return nfe - sum(1 if whole else share for whole in genes.values())

        while room() < -1e-9:
            del genes[rng.choice([i for i in genes if i])]
        while len(genes) < len(times) and room() > (share if modules else 1) - 1e-9:
            free = rng.choice([i for i in range(len(times)) if i not in genes])
            genes[free] = not modules or (room() > 1 - 1e-9 and rng.random() < 0.5)
        return tuple(sorted(genes.items()))

    def child(rng: random.Random, one: Candidate, other: Candidate) -> Candidate:
        genes, a, b = {0: True}, dict(one), dict(other)
        for i in {**a, **b}:
            kept, mark = (i in a and i in b) or rng.random() < 0.5, rng.choice([g[i] for g in (a, b) if i in g])
            if i and kept and rng.random() < 1 / len(one):
                i = min(max(i + round(rng.gauss(0, len(times) ** rng.random())), 1), len(times) - 1)
            if i and kept:
                genes[i] = mark ^ bool(modules and rng.random() < 1 / len(one))
        return filled(rng, genes)

    rng, last = random.Random(seed), len(times) - 1
    uniform = tuple((round(i * last / max(nfe - 1, 1)), True) for i in range(nfe))
    known = evolve(
        score, [uniform, *(filled(rng, {0: True}) for _ in range(2 * PARENTS))], child,
        evaluations=whole("evaluations", evaluations, 1), seed=seed,
    )  # fmt: skip
    best = next(iter(known))
    if math.isinf(known[best]):
        raise ArgumentError("no candidate reached the end: does the model return NaN?")
    report = {"learned": "autodiffusion", "samples": samples, "seed": seed, "evaluations": len(known), "share": share,
              "guidance": str(Guidance.of(guidance)), "value": known[best], "uniform": known[uniform]}  # fmt: skip
    return planned(best, report)


def _reused(candidate: Candidate) -> list[int]:
    """Numbers of the evaluations without modules."""
    return [n for n, (_, whole) in enumerate(candidate) if not whole]
