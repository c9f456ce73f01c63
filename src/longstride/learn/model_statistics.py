"""Empirical model statistics, and the DPM-Solver-v3 plan they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..frame import DATA
from ..grid import RATIO_MAX, Grid
from ..guidance import Guidance
from ..plan import Plan
from ..sampling import plan_sampling, prior, sample

Statistics = dict[str, list[float]]


def model_statistics(
    model: Denoiser,
    *,
    samples: int = 64,
    points: int = 64,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> Statistics:
    """l and s of a model at `points` values of lambda, as `dpm_v3_k` takes them.

    y = x/alpha obeys dy/dlambda = -l y - f with f = (1 - l) y - x0_hat, whatever l is. The best l makes f
    depend least on x: E|df/dx|^2 is smallest where l is the mean diagonal of sigma d eps/dx, which is
    1 - alpha tr(d x0_hat/dx)/d; the trace is from one probe of random signs for each sample, the same at
    every lambda. The best s makes f e^(-int s) change least: E|df/dlambda - s f|^2 is smallest at
    s = E[f f']/E[f f], f' by differences along the trajectories (Zheng et al. 2023). The paper has one l, s
    and b for each element. These are means over the elements and b = 0, since a plan's weights are numbers.

    Costs 2 points - 1 evaluations of each sample, half of them differentiated.  cond: as for `sample`, for
    all `samples`.

    Returns:
        {"lambda": rising, "l": ..., "s": ...}, each [points].

    Raises:
        ArgumentError: too few samples or points.
    """
    if samples < 1 or points < 3:
        raise ArgumentError(f"samples = {samples}, points = {points}: at least 1 and 3 are needed")
    process = model.process
    low = max(process.lambda_(process.t_max), -math.log(RATIO_MAX))
    high = process.lambda_(process.t_min)
    lambdas = [low + (high - low) * i / (points - 1) for i in range(points)]
    first = process.t_max if low == process.lambda_(process.t_max) else process.time(low)
    times = [first, *(process.time(v) for v in lambdas[1:-1]), process.t_min]

    x = prior(model, samples, seed, times[0])
    path = [x]
    plan = plan_sampling(process, "exp_adams_2", grid=times, final="sigma_min")
    sample(
        model, x_init=x, plan=plan, cond=cond, guidance=guidance, batch=samples,
        callback=lambda n, t, x: path.append(x),
    )  # fmt: skip

    data = model.fields(cond, guidance)[DATA]
    generator = torch.Generator().manual_seed(seed)
    probe = torch.randint(0, 2, x.shape, generator=generator).mul(2).sub(1).to(x)
    linear, rest = [], []
    for t, x in zip(times, path, strict=True):
        predicted, trace = _trace(data, t, x, probe)
        alpha = process.alpha(t)
        linear.append(1 - alpha * trace)
        rest.append(((1 - linear[-1]) / alpha * x - predicted).double())
    f = torch.stack(rest)
    (slope,) = torch.gradient(f, spacing=(lambdas[1] - lambdas[0],), dim=0, edge_order=2)
    growth = (f * slope).flatten(1).sum(1) / f.square().flatten(1).sum(1)
    return {"lambda": lambdas, "l": linear, "s": growth.tolist()}


def _trace(data: Any, t: float, x: Tensor, probe: Tensor) -> tuple[Tensor, float]:
    """The data prediction, and the trace of its Jacobian per element: mean of v . J v, v of random signs."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = data(t, x)
        (pulled,) = torch.autograd.grad(out, x, probe)
    return out.detach(), float((pulled * probe).double().mean())


def dpm_solver_v3(
    model: Denoiser,
    nfe: int,
    *,
    order: int = 2,
    grid: Grid | None = None,
    statistics: Statistics | None = None,
    samples: int = 64,
    points: int = 64,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> Plan:
    """The plan of `dpm_v3_<order>` for a model, its statistics estimated unless they are given.

    One estimate serves every number of evaluations: pass `plan.options["statistics"]` on.
    """
    report: dict[str, Any] = {"learned": "model statistics"}
    if statistics is None:
        statistics = model_statistics(
            model, samples=samples, points=points, seed=seed, cond=cond, guidance=guidance
        )
        report |= {"samples": samples, "seed": seed, "guidance": str(Guidance.of(guidance)),
                   "evaluations": 2 * points - 1}  # fmt: skip
    plan = plan_sampling(model.process, f"dpm_v3_{order}", nfe, grid, statistics=statistics)
    return replace(plan, report=report)
