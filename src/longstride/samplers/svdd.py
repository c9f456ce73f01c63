"""Guidance without derivatives: of several proposals of each step one, by its value (Li et al. 2024)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..core import Step, advance
from ..denoiser import Denoiser
from ..errors import ArgumentError, SolveError, positive, whole
from ..frame import DATA
from ..grid import Grid
from ..guidance import Guidance
from ..noise import Noise, seed_of
from ..plan import Plan
from ..sampling import plan_sampling
from ..solution import Stats


def sample_svdd(
    model: Denoiser,
    x_init: Tensor,
    value: Callable[[Tensor], Tensor],
    nfe: int,
    *,
    proposals: int = 10,
    alpha: float = 1.0,
    method: str = "ddpm",
    grid: Grid | None = None,
    seed: int | torch.Generator = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    stats: Stats | None = None,
    **options: Any,
) -> Tensor:
    """Samples [B, *shape] near p(x) exp(value(x)/alpha), from noise x_init at t_max.

    Each step draws M proposals x_t from the sampler's own transition and keeps one, proposal m with
    probability in proportion to exp(v_m/alpha), v_m = value(E[x_0 | x_t]). The value may be anything that
    can be computed. What the network said of the one kept is what its next step goes on from, so a step
    costs M evaluations, and M = 1 is the sampler as it is. More proposals come nearer to the target; the
    value of a mean is not the mean of the values, which remains.

    Args:
        value: of clean samples [N, *shape] -> [N].  nfe: evaluations per sample in all; 1 + M for each
            step after the first.  proposals: M.  alpha: temperature.
        method, options: a stochastic one of one evaluation a step in data prediction: ddpm, or ddim with eta.

    Raises:
        ArgumentError: a method that does not fit, too few evaluations.
        SolveError: values or samples are not finite.
    """
    m, alpha = whole("proposals", proposals, 1), positive("alpha", alpha)
    steps = 1 + (whole("nfe", nfe, 1) - 1) // m
    if steps < 2:
        raise ArgumentError(f"nfe = {nfe}: one step takes 1 + {m} evaluations; give more, or fewer proposals")
    started, plan = time.perf_counter(), plan_sampling(model.process, method, steps, grid, **options)
    _demand(plan)
    number, count, shape = seed_of(seed), len(x_init), x_init.shape[1:]
    # The first proposal is the sampler's own; the others have noise that is of no path.
    move, others = Noise(number, range(count), shape), Noise(number, range(count), (m - 1, *shape))
    draws = Noise(number, range(count), ())
    given = model.conditioning(cond, count, x_init.device)
    fields = {k: model.fields(_repeated(given, k), guidance)[DATA] for k in {1, m}}
    with torch.no_grad():
        x, data = x_init, fields[1](plan.times[0], x_init)
        for n, (step, t) in enumerate(zip(plan.steps[:-1], plan.times[1:-1], strict=True)):
            k = 1 if step.brownian is None else m
            zs = [move.increment(*marks) for marks in pairwise(step.brownian or ())]
            if k > 1:
                zs = [torch.cat([z[None], others.step(n).transpose(0, 1)]).flatten(0, 1) for z in zs]
            zs = [z.to(x) for z in zs]
            xs, known = ([v.repeat(k, *[1] * len(shape))] for v in (x, data))
            x = advance((), Step((step.stages[-1],)), xs * 2, known, zs)[0][0]
            data = fields[k](t, x)
            if k > 1:
                kept = _drawn(value(data) / alpha, draws.uniform(n), k)
                x, data = (v.unflatten(0, (k, count))[kept, range(count)] for v in (x, data))
    if not torch.isfinite(data).all():
        raise SolveError(f"method {method} with {m} proposals: the samples are not finite")
    if stats is not None:
        noisy = sum(step.brownian is not None for step in plan.steps)
        stats.nfe, stats.steps = len(plan.steps) + (m - 1) * noisy, len(plan.steps)
        stats.network_calls = stats.nfe * model.network_calls(guidance, plan.times[:1])
        stats.seconds = time.perf_counter() - started
    return data


def _repeated(cond: Mapping[str, Any], k: int) -> dict[str, Any]:
    return {
        name: v.repeat(k, *[1] * (v.ndim - 1)) if isinstance(v, Tensor) and v.ndim else v
        for name, v in cond.items()
    }


def _drawn(log_w: Tensor, u: Tensor, k: int) -> Tensor:
    """Which of k proposals each sample keeps [B], from log-weights [k B] and uniform u [B]."""
    if log_w.shape != (k * len(u),) or not torch.isfinite(log_w).all():
        raise SolveError(f"value gave {list(log_w.shape)} for {k * len(u)} samples, or what is not finite")
    shares = log_w.double().reshape(k, -1).T.softmax(1).cumsum(1)
    return torch.searchsorted(shares, u.to(shares)[:, None]).clamp(max=k - 1)[:, 0]


def _demand(plan: Plan) -> None:
    """Refuse what cannot be taken up after its evaluation."""
    for step in plan.steps[:-1]:
        first, *others = step.stages
        marks = 2 if step.brownian is None else len(step.brownian)
        plain = first.terms == ((0, 0, 1.0),) and first.at is not None and first.field == DATA
        if not plain or marks != 2 or len(others) != 1 or step.keep_x != (-1,) or step.keep_f:
            raise ArgumentError(
                f"{plan.method} is not one data prediction and a row: use ddpm, or ddim with eta"
            )
