"""Align Your Steps: the times on which the sampler's law of paths is nearest to the true one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .. import grid as grids
from ..denoiser import Denoiser
from ..errors import ArgumentError, whole
from ..frame import DATA
from ..guidance import Guidance
from .optimal_times import cheapest_path

NEWTON = 8  # iterations, quadratic from above: round-off


@torch.no_grad()
def kl_bound(
    model: Denoiser,
    times: Sequence[float],
    data: Tensor,
    *,
    draws: int = 8,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> float:
    """An upper bound on KL(true law at the last time | law of stochastic DDIM on these times), in nats.

    Stochastic DDIM solves the reverse SDE with the data prediction D kept still between two times. Of
    y = x/alpha, with s = sigma/alpha, and time running to smaller s, the two are

        dy = 2 (D(x_s, s) - y)/s ds + sqrt(2 s) dW,     and the same with D(x_{s_i}, s_i),

    so by Girsanov the KL of their paths is the mean over true paths of half the squared difference of the
    drifts over 2 s, int 1/2 (2/s)^2 |D - D_i|^2/(2 s) ds. Written in the signal-to-noise ratio
    w = (alpha/sigma)^2 = s^-2, in which alpha and sigma are no longer to be seen,

        KL = sum_i 1/2 int_{w_i}^{w_{i+1}} E |D(x_w) - D(x_{w_i})|^2 dw.

    The law at the end is a marginal of that of the paths, so its KL is not larger. Another eta > 0 multiplies
    all by (1 + eta^2)^2/(4 eta^2) and has the same best times.

    The expectation is over data noised along one Brownian path each, so that x_w and x_{w_i} belong
    together. The integral is by importance sampling, stratified: were the data N(0, v), the integrand would
    be g(w) = v/(1 + v w_i) - v/(1 + v w) an element, whose integral is q - 1 - log q with
    q = (1 + v w)/(1 + v w_i). From it `draws` times are drawn in each step, by inversion.

    Costs (draws + 1) evaluations of each datum for each step.

    Args:
        times: falling, the first to the last that is evaluated or reached; none at clean data, where the
            bound is infinite.
        data: [n, *shape], of the model's distribution, such as `Trajectories.end`.
        cond: as for `sample`, for the data.

    Raises:
        ArgumentError: fewer than two times, times that do not fall, or no draws.

    Reference: Sabour et al. 2024, "Align Your Steps: optimizing sampling schedules in diffusion models".
    """
    process, draws = model.process, whole("draws", draws, 1)
    times = grids.check(grids.explicit(times), process, len(times))
    if len(times) < 2 or process.sigma(times[-1]) == 0:
        raise ArgumentError("a bound needs two times at least, the last of them with noise")
    generator = torch.Generator().manual_seed(seed)
    v = float(data.double().var(0, correction=0).mean())
    steps = [_drawn(_snr(process, s), _snr(process, t), v, draws, generator) for s, t in pairwise(times)]
    marks = [
        time
        for s, (ws, _) in zip(times, steps, strict=False)
        for time in (s, *(process.time(math.log(w) / 2) for w in ws))
    ]
    found = _along_noising(model, marks, data, generator, cond, guidance)
    total = 0.0
    for i, (_, weights) in enumerate(steps):
        still, *moved = found[i * (draws + 1) : (i + 1) * (draws + 1)]
        squares = [float((D - still).double().square().sum()) / len(data) for D in moved]
        total += sum(weight * square for weight, square in zip(weights, squares, strict=True)) / draws
    return total


def _drawn(
    w_i: float, w: float, v: float, draws: int, generator: torch.Generator
) -> tuple[list[float], list[float]]:
    """Signal-to-noise ratios between w_i and w, rising, drawn from g, and 1/2 over the density of each."""
    ratio = 1 + v * w_i
    span = v * (w - w_i) / ratio  # q - 1 at the end
    mass = span - math.log1p(span)
    u = (torch.arange(draws) + torch.rand(draws, generator=generator, dtype=torch.float64)) / draws
    y = u * mass
    p = y + (2 * y).sqrt()  # above the root of p - log(1 + p) = y, which is convex: Newton falls to it
    for _ in range(NEWTON):
        p = p - (p - p.log1p() - y) * (1 + p) / p
    g = v / ratio * p / (1 + p)
    return (w_i + p * ratio / v).tolist(), (mass / (2 * g)).tolist()


def _snr(process: Any, t: float) -> float:
    alpha, sigma = process.pair(t)
    return (alpha / sigma) ** 2


def _along_noising(
    model: Denoiser,
    times: Sequence[float],
    data: Tensor,
    generator: torch.Generator,
    cond: Mapping[str, Any] | None,
    guidance: float | Guidance,
) -> list[Tensor]:
    """The data predictions D(t, x_t) at falling times, the x_t of a datum on one path of its noising."""
    process = model.process
    cond = model.conditioning(cond, len(data), data.device)
    predict = model.fields(cond, guidance)[DATA]
    x, alpha, sigma, found = data, 1.0, 0.0, []
    for t in reversed(times):
        alpha_t, sigma_t = process.pair(t)
        kept = alpha_t / alpha
        fresh = math.sqrt(max(sigma_t**2 - (kept * sigma) ** 2, 0.0))
        noise = torch.randn(data.shape, generator=generator, dtype=torch.float64)
        x, alpha, sigma = kept * x + fresh * noise.to(data), alpha_t, sigma_t
        found.append(predict(t, x))
    return found[::-1]


@torch.no_grad()
def align_your_steps(
    model: Denoiser,
    nfe: int,
    data: Tensor,
    *,
    nodes: int = 128,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
) -> list[float]:
    """The nfe times from t_max to t_min with the least `kl_bound`, for stochastic samplers above all.

    The bound is a sum over steps, and along one noising of the data D is needed once at each node, so a
    table of all steps between `nodes` times even in log-SNR costs no more than `nodes` evaluations of each
    datum; dynamic programming then finds the minimum over all grids on them. The paper searches time by
    time, ten steps first and then each halved, with the bound estimated anew for each candidate: that is
    `coordinate_search` of all but the last by `lambda times: kl_bound(model, [*times, t_min], data)`, at
    some thousand times the evaluations. The table needs no halving: its minimum is over all grids at once.

    Args:
        data: [n, *shape], of the model's distribution, such as `Trajectories.end`: a thousand find the
            minimum to 1 % in two dimensions, where 256 miss it by up to 7 %.
        nodes: candidates; the trapezoidal rule between them is the table's error.
        cond: as for `sample`, for the data.

    Returns:
        Falling process times [nfe], as `plan_sampling(..., grid=)` takes them.

    Raises:
        ArgumentError: nfe below 2, or more than there are nodes.
    """
    nfe, process = whole("nfe", nfe, 2, "from t_max to t_min there are two times at least"), model.process
    marks = grids.times(process, whole("nodes", nodes, nfe), "log_snr")
    generator = torch.Generator().manual_seed(seed)
    found = torch.stack(_along_noising(model, marks, data, generator, cond, guidance))
    w = torch.tensor([_snr(process, t) for t in marks], dtype=torch.float64)
    costs = torch.zeros(nodes, nodes, dtype=torch.float64)
    for i in range(nodes - 1):
        square = (found[i:] - found[i]).double().square().flatten(1).sum(1).cpu() / len(data)
        costs[i, i + 1 :] = torch.cumulative_trapezoid(square, w[i:]) / 2
    return [marks[i] for i in cheapest_path(costs, nfe - 1)]
