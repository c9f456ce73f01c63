"""S^3: the search for a solver schedule, guided by a predictor."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch

from .. import grid as grids
from ..denoiser import Denoiser
from ..errors import ArgumentError, whole
from ..frame import FRAMES
from ..guidance import Guidance
from ..plan import Plan
from ..process import Process
from .axis import clock
from .evolution import Objective, evolve, judge
from .free import GAP
from .schedule import MOMENTS, Choice, Schedule

GRIDS: tuple[grids.Grid, ...] = (
    "karras", "log_snr", "uniform",
    ("exponential", {"rho": 0.7}), ("exponential", {"rho": 0.7, "open": True}),
    ("flow_shift", {"shift": 1.0, "open": True}), ("decay", {"gamma": 0.3, "open": True}),
)  # fmt: skip
SPACE = tuple(
    Choice(prediction, order, corrector, moments)
    for prediction, order, corrector in product(FRAMES, (1, 2, 3), (False, True))
    for moments in (("exact", "halved", "bh2") if prediction in ("data", "noise") else ("exact",))
)
POOL = 10  # children that the predictor looks at for one that is judged


def fixed(process: Process, nfe: int) -> list[Schedule]:
    """The solvers that never change their mind, on a few grids; they end with D, as published ones do."""
    return [
        Schedule(tuple(grids.times(process, nfe, grid)), (*(choice,) * (nfe - 1), Choice("data")))
        for grid, choice in product(GRIDS, SPACE)
    ]


@torch.no_grad()
def solver_schedule(
    model: Denoiser,
    nfe: int,
    *,
    samples: int = 512,
    evaluations: int = 1000,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    objective: Objective | None = None,
) -> Plan:
    """The best schedule of nfe evaluations that a predictor-guided evolution finds, S^3.

    It begins with every fixed solver of the space on a few grids, so that on the noises of the search it
    never ends with a worse one. Then, in stages: the best schedules are crossed (each choice from one of the
    two, times between theirs in lambda) and mutated, and a predictor trained on all that were judged picks
    from ten times as many children those to judge. The paper's predictor is a recurrent network with a
    ranking loss; for some hundred schedules it is kernel ridge regression of their places
    (`evolution.predicted`).

    Args:
        samples: noises of the search; evaluations: schedules judged on them, nfe evaluations of each noise.
        cond: as for `sample`, for all `samples`.
        objective: of samples [n, *shape], to be minimised; by default their end-point error.

    Returns:
        The plan. plan.report has its value on the noises of the search and that of the best fixed solver.

    Raises:
        ArgumentError: a budget or numbers below 1, or no schedule reached the end.

    Reference: Liu et al. 2023, sections 3 and 4.
    """
    process, nfe = model.process, whole("nfe", nfe, 1)
    judged = judge(model, samples, seed, cond, guidance, objective)
    low, high = clock(process, process.t_max), process.lambda_(process.t_min)

    def child(rng: random.Random, one: Schedule, other: Schedule) -> Schedule:
        share, size = rng.random(), 10 ** rng.uniform(-2, 0) * (high - low) / nfe
        u = [
            share * clock(process, s) + (1 - share) * clock(process, t)
            for s, t in zip(one.times[1:], other.times[1:], strict=True)
        ]
        u = sorted(v + rng.gauss(0, size) * (rng.random() < 0.5) for v in u)
        for i, v in enumerate(u):
            u[i] = min(max(v, (u[i - 1] if i else low) + GAP), high - (len(u) - 1 - i) * GAP)
        choices = tuple(
            rng.choice(SPACE) if rng.random() < 1 / nfe else rng.choice(pair)
            for pair in zip(one.choices, other.choices, strict=True)
        )
        return Schedule((process.t_max, *(process.time(v) for v in u)), choices)

    def numbers(schedule: Schedule) -> list[float]:
        told = [clock(process, t) for t in schedule.times[1:]]
        for choice in schedule.choices:
            told += [float(choice.prediction == p) for p in FRAMES]
            told += [choice.order, choice.corrector, *(float(choice.moments == m) for m in MOMENTS)]
        return told

    start = fixed(process, nfe)
    known = evolve(
        lambda schedule: judged(schedule.plan(process), model), start, child,
        evaluations=evaluations, seed=seed, numbers=numbers, pool=POOL,
    )  # fmt: skip
    best = next(iter(known))
    if math.isinf(known[best]):
        raise ArgumentError("no schedule reached the end: the model returns NaN, or take more evaluations")
    plain = min(known.get(schedule, math.inf) for schedule in start)
    report = {"learned": "solver_schedule", "samples": samples, "seed": seed, "evaluations": len(known),
              "guidance": str(Guidance.of(guidance)), "value": known[best], "fixed": plain}  # fmt: skip
    return best.plan(process, report)
