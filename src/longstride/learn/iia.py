"""Improved integration approximation: the last row of every step fitted to a finer solution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..core import Stage, Step, advance, combine
from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..grid import Grid
from ..guidance import Guidance
from ..metrics import endpoint_error
from ..plan import Plan
from ..process import Process
from ..sampling import REFERENCE_RATIO, plan_sampling, prior, sample
from .rewrite import remembering

SINGULAR = 1e-12  # of the normal equations: evaluations that differ by less tell nothing apart


@torch.no_grad()
def iia(
    model: Denoiser,
    nfe: int,
    *,
    method: str = "ddim",
    grid: Grid | None = None,
    memory: int = 2,
    samples: int = 64,
    substeps: int = 4,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    **options: Any,
) -> Plan:
    """The plan of a method with the evaluation weights of each step's last row fitted to the model.

    From the state X_n that the fitted steps have reached, `substeps` fine steps give the state Y that an
    exact step would reach. The weights w_j of the evaluations known by then solve

        min E |Y - sum_i x_i X_i - sum_j w_j F_j|^2

    over `samples` noises, the state weights x_i staying the method's; then the next step is fitted from
    where this one leads (Zhang et al. 2024). At least `memory` evaluations are remembered, so that DDIM has
    two to combine. The method's own weights are among the candidates: no step is worse than its, on the
    noises it was fitted to.

    Costs nfe evaluations of each sample, and 4 substeps more for each step.  cond: as for `sample`, for all
    `samples`.  Plan.report holds the error of each step before and after.

    Raises:
        ArgumentError: a method that draws noise, or memory, samples or substeps below 1.
    """
    if min(memory, samples, substeps) < 1:
        raise ArgumentError(f"memory = {memory}, samples = {samples}, substeps = {substeps}: at least 1 each")
    base = plan_sampling(model.process, method, nfe, grid, **options)
    if base.stochastic:
        raise ArgumentError(f"method {method} draws noise: improved integration is for deterministic ones")
    fields = model.fields(cond, guidance)
    xs, fs = [prior(model, samples, seed, base.times[0], torch.float64)], list[Tensor]()
    steps, errors, spent = [], [], base.nfe
    for step, (s, t) in zip(remembering(base.steps, memory), pairwise(base.times), strict=True):
        fine = plan_sampling(
            model.process, "krogstad", grid=_between(model.process, s, t, substeps),
            final="data" if t == model.process.t_end else "sigma_min",
        )  # fmt: skip
        target = sample(model, x_init=xs[-1], plan=fine, cond=cond, guidance=guidance, batch=samples)
        *inner, last = step.stages
        everything = Step(
            tuple(inner),
            keep_x=tuple(range(len(xs) + len(inner))),
            keep_f=tuple(range(len(fs) + sum(stage.at is not None for stage in inner))),
        )
        xs, fs = advance(fields, everything, xs, fs)
        fitted = _fit(last, xs, fs, target)
        reached = [combine(row.terms, (xs, fs, ())) for row in (last, fitted)]
        errors.append([endpoint_error(x, target) for x in reached])
        steps.append(replace(step, stages=(*inner, fitted)))
        xs, fs = [[*xs, reached[1]][i] for i in step.keep_x], [fs[i] for i in step.keep_f]
        spent += fine.nfe
    report = {"learned": "iia", "samples": samples, "seed": seed, "guidance": str(Guidance.of(guidance)),
              "evaluations": spent, "step_error": errors}  # fmt: skip
    return Plan(
        base.times, tuple(steps), base.made_for, f"iia_{method}", {**options, "memory": memory}, report
    )


def _between(process: Process, s: float, t: float, n: int) -> list[float]:
    """Times from s to t, n steps even in lambda; to the last noisy time when t is clean data."""
    if t == process.t_end:
        t = process.t_min
        if s - t <= 1e-6 * process.t_max:
            return [s]
    low, high = max(process.lambda_(s), -math.log(REFERENCE_RATIO)), process.lambda_(t)
    pure = low > process.lambda_(s)  # then a step of its own leads to where lambda is finite
    return [s, *(process.time(low + (high - low) * i / n) for i in range(0 if pure else 1, n)), t]


def _fit(row: Stage, xs: Sequence[Tensor], fs: Sequence[Tensor], target: Tensor) -> Stage:
    """The row with the evaluation weights nearest to its own that bring it closest to the target."""
    miss = (target - combine(row.terms, (xs, fs, ()))).flatten()
    columns = torch.stack([f.flatten() for f in fs])
    gram, right = (columns @ columns.T).cpu(), (columns @ miss).cpu()
    change = torch.linalg.pinv(gram, rcond=SINGULAR, hermitian=True) @ right
    own = [*row.f, *[0.0] * (len(fs) - len(row.f))]
    return replace(row, f=tuple(w + float(c) for w, c in zip(own, change, strict=True)))
