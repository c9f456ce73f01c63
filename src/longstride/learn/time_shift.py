"""Time shift: the network is told the time whose noise level the sampler's states really have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Field
from ..denoiser import Denoiser
from ..errors import ArgumentError, positive, whole
from ..fields import retimed
from ..guidance import Guidance
from ..integrate import run
from ..noise import Noise
from ..plan import Plan
from ..process import Process
from ..sampling import prior, sample

CANDIDATES = 257  # times compared in a window; odd, so that t itself is one
CONVERGED = 50  # evaluations of the samples whose variance stands for that of the data


@torch.no_grad()
def time_shift(
    model: Denoiser,
    plan: Plan,
    *,
    window: float = 0.5,
    cutoff: float | None = None,
    samples: int = 64,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> Denoiser:
    """The model whose network is told t_s(t) instead of t, for sampling with this plan.

    A state x that a few long steps lead to is not distributed as x_t. Over its elements x_t has the variance
    alpha^2 V + sigma^2, V that of the data; so t_s is where this is nearest to the variance of x, with
    |lambda(t_s) - lambda(t)| <= window/2. The plan is run once on `samples` noises, each t_s found on the way
    from the states that the earlier ones led to; of a time evaluated twice, from the first. V is that of
    samples of 50 evaluations from the same noises. The paper looks at each sample's variance while it
    samples; here its mean over samples makes a table, which costs nothing later and leaves a sample
    independent of its batch.

    Costs plan.nfe + 50 evaluations of each noise. The table is for this plan: between its times it is linear.

    Args:
        window: width in lambda; 0 shifts nothing.  cutoff: at times up to it nothing is shifted.
        cond: as for `sample`, for all `samples`.

    Returns:
        The model, retimed. `model.told(t)` is t_s.

    Raises:
        ArgumentError: a plan for another process, or one that begins where x is not noise.

    Reference: Li et al. 2024, "Alleviating exposure bias in diffusion models through sampling with shifted
    time steps".
    """
    if not 0 <= window < float("inf"):
        raise ArgumentError(f"window = {window}: it is a width in lambda, such as 0.5")
    process, samples = model.process, whole("samples", samples, 1)
    cutoff = process.t_min if cutoff is None else positive("cutoff", cutoff)
    plan.demand(process.describe())
    if process.lambda_(plan.times[0]) >= 0:
        raise ArgumentError(f"the plan begins at t = {plan.times[0]:.6g}, where x is not noise alone")
    x = prior(model, samples, seed, plan.times[0])
    asked: dict[str, Any] = {"cond": model.conditioning(cond, samples, x.device), "guidance": guidance}
    ends = sample(model, samples, seed=seed, nfe=CONVERGED, batch=samples, **asked)
    data, unit = _variance(ends), _variance(x) / process.sigma(plan.times[0]) ** 2
    table = {plan.times[0]: plan.times[0]}  # the noise it begins with is exact

    def watching(field: Field) -> Field:
        def evaluate(t: float, x: Tensor) -> Tensor:
            if t not in table:
                table[t] = _match(process, t, _variance(x), (data, unit), window) if t > cutoff else t
            return field(t, x)

        return evaluate

    fields = retimed(model, table.__getitem__).fields(**asked)
    noise = Noise(seed, range(samples), x.shape[1:]) if plan.stochastic else None
    run([watching(field) for field in fields], plan, x, noise)
    return tabulated(model, table)


def tabulated(model: Denoiser, table: Mapping[float, float]) -> Denoiser:
    """The model whose network is told table[t]; between the times of the table it is linear."""
    times, told = zip(*sorted(table.items()), strict=True)
    return retimed(model, lambda t: float(np.interp(t, times, told)))


def _variance(x: Tensor) -> float:
    """Over the elements of a sample, mean over samples."""
    return float(x.flatten(1).double().var(1).mean())


def _match(process: Process, t: float, found: float, variances: tuple[float, float], window: float) -> float:
    """The time within the window whose marginal variance is nearest to that found; t among equals.

    variances: of data and noise. That of the noises drawn is not quite 1, and all states have it in common.
    """
    centre, (data, unit) = process.lambda_(t), variances
    lambdas = sorted(centre + np.linspace(-window / 2, window / 2, CANDIDATES), key=lambda v: abs(v - centre))
    times = [t, *(min(max(process.time(v), process.t_min), process.t_max) for v in lambdas[1:])]

    def distance(s: float) -> float:
        alpha, sigma = process.pair(s)
        return abs(alpha**2 * data + sigma**2 * unit - found)

    return min(times, key=distance)
