"""Denoising MCMC: chains in (x, noise level) that stay near the data, and a short way down from them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core import Stage, Step, advance
from ..denoiser import Denoiser
from ..errors import ArgumentError, positive, whole
from ..frame import PREDICTIONS
from ..integrate import run
from ..models.exact import Mixture, PosteriorMean
from ..noise import Noise, seed_of
from ..sampling import DEFAULT_METHOD, plan_sampling, sample
from ..solution import Stats

NOISE = PREDICTIONS.index("noise")
# Uses of randomness within one seed, which they change by XOR: Langevin's, the levels', the ways down's.
SHAKE, LEVEL, DOWN = 0x5348414B45, 0x4C4556454C, 0x444F574E000000
Classifier = Callable[[Tensor], Tensor]


def level_classifier(model: Denoiser, levels: Sequence[float]) -> Classifier:
    """log p(level | x) of an exact mixture, each level as likely as the others before x is seen.

    By Bayes it is log p_t(x) but for a constant. With a network, give a trained classifier's logits instead.

    Raises:
        ArgumentError: a model whose density is not known.
    """
    if not isinstance(model.net, PosteriorMean) or not isinstance(model.net.distribution, Mixture):
        raise ArgumentError(f"the density of {model.name!r} is not known: give a trained classifier's logits")
    density, pairs = model.net.distribution.log_density, [model.process.pair(t) for t in levels]

    def classifier(x: Tensor) -> Tensor:
        x = x.double()
        return torch.stack([density(x, *(x.new_full((len(x),), w) for w in pair)) for pair in pairs], 1)

    return classifier


def sample_dmcmc(
    model: Denoiser,
    classifier: Classifier,
    x_init: Tensor,
    levels: Sequence[float],
    nfe: int,
    links: int,
    *,
    skip: int = 1,
    step: float = 0.5,
    method: str = DEFAULT_METHOD,
    seed: int | torch.Generator = 0,
    stats: Stats | None = None,
    **options: Any,
) -> Tensor:
    """Samples [B, links, *shape] of B chains, from noise x_init [B, *shape] at t_max.

    Langevin and Gibbs in turn keep p(x, t) = p_t(x) p(t) (Kim and Ye 2022, Denoising Langevin Gibbs),

        x <- x + e score_t(x) + sqrt(2 e) xi,  e = step sigma_t^2,      t ~ p(t | x),

    the first but for the error of its step. After every `skip` of them x is taken from its t to clean data,
    by a plan that begins there. A chain starts from a sample of the plain kind, noised to a level drawn
    evenly. Samples of one chain are correlated; different chains are independent.

    Args:
        classifier: log p(level | x) [B, len(levels)] for x [B, *shape], up to a constant; its evaluations are
            not counted. `level_classifier` makes it for exact mixtures.
        levels: process times that a chain visits: low ones for a short way, high ones to change modes.
        nfe: evaluations a sample, on average and never exceeded: `skip` in the chain, nfe - skip - 1 on the
            way down, and 1 which, put together over the links, is the start's. A call of the network is of
            the chains at one level.
        method, options: of the start and of the way down, see `plan_sampling`.
        stats: filled with what it cost; nfe is the evaluations of a chain by its samples, rounded up.

    Raises:
        ArgumentError: nfe below skip + 2, or levels outside the process.
        SolveError: the network failed or returned NaN.
    """
    links, skip, process = whole("links", links, 1), whole("skip", skip, 1), model.process
    why = f"{skip} in the chain, 1 for its start, and 1 at least for the way down"
    down = whole("nfe", nfe, skip + 2, why) - skip - 1
    if not levels or any(not process.t_min < t < process.t_max for t in levels):
        raise ArgumentError(f"levels must lie inside the process, from {process.t_min} to {process.t_max}")
    started, step = time.perf_counter(), positive("step", step)
    start = plan_sampling(process, method, links, **options)
    downs = [plan_sampling(process, method, down, t_start=t, **options) for t in levels]
    moves = [_langevin(t, process.sigma(t), step) for t in levels]
    number, shape = seed_of(seed), x_init.shape[1:]
    samples = range(len(x_init))
    shakes, draws = Noise(number ^ SHAKE, samples, shape), Noise(number ^ LEVEL, samples, (1,))
    fields, found = model.fields(), list[Tensor]()

    def drawn(log_p: Tensor, n: int) -> Tensor:
        """A level for each chain, where a uniform number falls in its distribution."""
        u = torch.special.ndtr(draws.increment(n + 1, n + 2)).to(log_p)
        return (log_p.softmax(1).cumsum(1) < u).sum(1).clamp(max=len(levels) - 1)

    def each(act: Callable[[int, Tensor], Tensor]) -> Tensor:
        """act(level, chains) for the chains at each level, put together as x is."""
        out = torch.empty_like(x)
        for k in level.unique().tolist():
            chains = (level == k).nonzero()[:, 0]
            out[chains] = act(k, chains)
        return out

    def moved(k: int, chains: Tensor) -> Tensor:
        return advance(fields, moves[k], [x[chains]], [], [z[chains]])[0][0]

    def cleaned(k: int, chains: Tensor) -> Tensor:
        noise = Noise(number ^ (DOWN + n), chains.tolist(), shape)
        return run(fields, downs[k], x[chains], noise)[0][-1]

    with torch.no_grad():
        x0 = sample(model, x_init=x_init, plan=start, seed=number)
        level = drawn(x0.new_zeros(len(x0), len(levels)), 0)
        x = process.add_noise(x0, x0.new_tensor(levels)[level], shakes.increment(1, 2).to(x0))
        for n in range(1, links * skip + 1):
            z = shakes.increment(n + 1, n + 2).to(x)
            x = each(moved)
            level = drawn(classifier(x), n)
            if n % skip == 0:
                found.append(each(cleaned))
    if stats is not None:
        total = start.nfe + links * (skip + max(plan.nfe for plan in downs))
        stats.nfe = stats.network_calls = math.ceil(total / links)
        stats.steps, stats.seconds = links * skip, time.perf_counter() - started
    return torch.stack(found, 1)


def _langevin(t: float, sigma: float, step: float) -> Step:
    """With score = -eps_hat/sigma."""
    row = Stage((1.0,), (-step * sigma,), (sigma * math.sqrt(2 * step),))
    return Step((Stage((1.0,), at=t, field=NOISE), row))
