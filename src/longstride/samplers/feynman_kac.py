"""Particles drawn from powers and products of models: a reverse SDE whose weights correct what it samples."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..core import Field, Stage, Step, advance
from ..denoiser import Denoiser
from ..errors import ArgumentError, SolveError, finite, positive, whole
from ..frame import DATA
from ..grid import Grid
from ..noise import Noise, seed_of
from ..operator import phi
from ..process import Process
from ..sampling import plan_sampling, prior
from ..solution import Stats


@dataclass
class ParticleStats(Stats):
    """ess: effective samples as a share of n at each evaluation, before what resampling it calls for."""

    ess: tuple[float, ...] = ()


@dataclass(frozen=True)
class Corrector:
    """Drift, noise and weights that lead to p ~ prod_i q_i^(b_i), q_i the density of model i.

    In y = x/alpha with tau = (sigma/alpha)^2 every process is VE: d q_i/dtau = 1/2 Laplacian q_i. With
    s_i = grad log q_i, S = sum_i b_i s_i and r = -tau, the time of sampling,

        d log p/dr = -1/2 (div S + sum_i b_i |s_i|^2) + const.

    The SDE dy = v dr + sqrt(zeta) dW, zeta = eta^2, with weights d log w = g dr has by Feynman and Kac

        d log p/dr = -div v - <v, S> + zeta/2 (div S + |S|^2) + g + const.

    The two agree without any divergence of S where v = (1 + zeta)/2 S + k y, k a number, and

        g = 1/2 (|S|^2 - sum_i b_i |s_i|^2) + k <y, S>.

    zeta = 1 and 1/beta are the paper's target score and tempered noise, whose k = 0. Here k =
    (B - 1)/(2 (tau + c)), B = sum_i b_i: then g is constant where all q_i are N(0, tau + c), as they are
    while there is but noise, and no particle is lost before there is something to choose. Any c is exact.

    In the clock theta = -log(tau + c)/2 the SDE is dy = -(1 + zeta B) y + (1 + zeta) R, R = (tau + c) S + B y
    and stationary variance (tau + c)/B. Its steps are exponential, R extrapolated from two evaluations, and
    the weights are put on half before, half after a step: weak order 2.

    powers: b_i.  sigma_data: sqrt(c).
    """

    process: Process
    powers: tuple[float, ...]
    eta: float
    sigma_data: float

    @property
    def total(self) -> float:
        """B."""
        return sum(self.powers)

    def theta(self, t: float) -> float:
        return -0.5 * math.log(math.exp(-2 * self.process.lambda_(t)) + self.sigma_data**2)

    def look(self, fields: Sequence[Field], t: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R and the data prediction of p, both [n, *shape], and g/(dtheta/dr) [n], at particles x."""
        alpha, sigma = self.process.pair(t)
        q = (self.sigma_data * alpha / sigma) ** 2
        known = [(b, field(t, x)) for b, field in zip(self.powers, fields, strict=True)]
        data = torch.stack([b * d for b, d in known]).sum(0)
        noises = [(b, (x - alpha * d) / sigma) for b, d in known]  # -sqrt(tau) s_i
        noise = torch.stack([b * eps for b, eps in noises]).sum(0)
        spread = _dot(noise, noise) - torch.stack([b * _dot(eps, eps) for b, eps in noises]).sum(0)
        g = (1 + q) * spread - (self.total - 1) / sigma * _dot(x, noise)
        return (1 + q) * data - self.total * q / alpha * x, data / self.total, g

    def step(self, s: float, t: float, before: float | None) -> Step:
        """The row of x from s to t; what it knows is R at `before`, if there is such a time, and at s."""
        zeta, high = self.eta**2, self.theta(t)
        h = high - self.theta(s)
        z = -(1 + zeta * self.total) * h
        one, two = (self.process.alpha(t) * (1 + zeta) * h * cast(float, phi(k, z)) for k in (1, 2))
        ahead = 0.0 if before is None else two * h / (self.theta(s) - self.theta(before))
        noise = math.exp(-high) * math.sqrt(-math.expm1(-2 * zeta * self.total * h) / self.total)
        f = (one,) if before is None else (-ahead, one + ahead)
        alpha_t, alpha_s = self.process.alpha(t), self.process.alpha(s)
        return Step((Stage((alpha_t / alpha_s * math.exp(z),), f, (alpha_t * noise,)),))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of samples [n], in float64."""
    return (a * b).flatten(1).sum(1, dtype=torch.float64)


def systematic(log_w: Tensor, u: Tensor) -> Tensor:
    """Indices [n] of systematic resampling: particle i of share w_i comes floor or ceil(n w_i) times.

    log_w [n], up to a constant; u in [0, 1), uniform.
    """
    n = len(log_w)
    marks = (torch.arange(n, device=log_w.device) + u.to(log_w)) / n
    return torch.searchsorted(log_w.softmax(0).cumsum(0), marks).clamp(max=n - 1)


def sample_feynman_kac(
    models: Sequence[Denoiser],
    powers: Sequence[float],
    n: int,
    nfe: int | None = None,
    *,
    grid: Grid | None = None,
    cond: Sequence[Mapping[str, Any] | None] | None = None,
    eta: float = 1.0,
    sigma_data: float = 0.5,
    ess: float = 0.5,
    window: tuple[float, float] | None = None,
    seed: int | torch.Generator = 0,
    stats: ParticleStats | None = None,
) -> Tensor:
    """Samples [n, *shape] of the normalised product of q_i(x_0)^(b_i), from a set of n weighted particles.

    powers (beta,) of one model anneal it, (1 - w, w) of two are their geometric average, which is what
    guidance of weight w is meant to sample, and (b_1, b_2, ...) a product of experts. `Corrector` has the
    equations. Where the effective sample size 1/sum_i w_i^2 falls below `ess` of n, the particles are drawn
    again by their weights, and once more at the end: so those that are returned weigh the same, and some of
    them may be copies. The set begins as N(0, sigma^2/B), B = sum_i b_i, at the first time with alpha > 0.

    Particles interact: the batch *is* the set. All n go through the networks at once, and sample i is the
    same only with the same n.

    Args:
        models: of one process and shape.  powers: b_i, with a positive sum.
        n: particles.  nfe: evaluations of each model (default 20; scores of steps are worth having here).
        grid: as for `sample`.
        cond: of each model, e.g. ({"y": 3}, model.null) for one model given twice.
        eta: noise of the SDE; 1 is the reverse SDE. 0 moves particles by an ODE, so that copies stay copies.
        sigma_data: standard deviation of the data. It changes how even the weights are and not the target.
        ess: 0 resamples at the end only, 1 at each evaluation.
        window: (low, high), the process times between which particles may be resampled; weights go on being
            counted outside.
        stats: filled with what the call cost and the effective sample sizes.

    Raises:
        ArgumentError: models that differ in process or shape, powers without a positive sum, a bad range.
        SolveError: particles or weights are not finite.

    Reference: Skreta et al. 2025, "Feynman-Kac correctors in diffusion: annealing, guidance, and product of
    experts".
    """
    started, n, number = time.perf_counter(), whole("n", n, 2), seed_of(seed)
    corrector = _corrector(models, powers, eta, sigma_data)
    process = corrector.process
    if not 0 <= finite("ess", ess) <= 1:
        raise ArgumentError(f"ess = {ess}: it is a share of n, from 0 to 1")
    low, high = window or (process.t_end, process.t_max)
    if low > high:
        raise ArgumentError(f"window = {window}: it is (low, high) in the process's own times")
    cond = [None] * len(models) if cond is None else cond
    if len(cond) != len(models):
        raise ArgumentError(f"cond has {len(cond)} entries for {len(models)} models: give one for each")
    times = [t for t in plan_sampling(process, "ddim", nfe, grid).times[:-1] if process.alpha(t) > 0]
    if not times:
        raise ArgumentError("particles need a time with alpha > 0 to begin at: give a larger nfe")
    x = prior(models[0], n, number, times[0]) / math.sqrt(corrector.total)
    fields = [m.fields(m.conditioning(c, n, x.device))[DATA] for m, c in zip(models, cond, strict=True)]
    # One stream for the set: who moves with which noise means nothing once particles have taken places.
    moves, draws = Noise(number, [0], x.shape), Noise(number, [1], ())
    log_w = torch.zeros(n, dtype=torch.float64, device=x.device)
    history, old_g, found = list[Tensor](), log_w, list[float]()
    with torch.no_grad():
        for k, t in enumerate(times):
            remainder, data, g = corrector.look(fields, t, x)
            if k:
                log_w = log_w + (corrector.theta(t) - corrector.theta(times[k - 1])) / 2 * (old_g + g)
            found.append(float(1 / log_w.softmax(0).square().sum() / n))
            if k == len(times) - 1:
                break
            fs, before = [*history, remainder], times[k - 1] if k else None
            if found[-1] < ess and low <= t <= high:
                kept = systematic(log_w, draws.uniform(k))
                x, g, log_w, fs = x[kept], g[kept], torch.zeros_like(log_w), [f[kept] for f in fs]
            x = advance((), corrector.step(t, times[k + 1], before), [x], fs, [moves.step(k)[0].to(x)])[0][0]
            history, old_g = fs[-1:], g
    if not (math.isfinite(found[-1]) and torch.isfinite(data).all()):
        raise SolveError(
            f"{n} particles in {len(times)} evaluations: particles or weights are not finite; take more "
            "evaluations, smaller powers, or sigma_data nearer to the standard deviation of the data"
        )
    if stats is not None:
        stats.nfe = stats.steps = len(times)
        stats.network_calls, stats.ess = len(times) * len(models), tuple(found)
        stats.seconds = time.perf_counter() - started
    return data[systematic(log_w, draws.uniform(len(times)))]


def _corrector(
    models: Sequence[Denoiser], powers: Sequence[float], eta: float, sigma_data: float
) -> Corrector:
    if not models or len(models) != len(powers):
        raise ArgumentError(f"{len(models)} models with {len(powers)} powers: give one power for each model")
    if len({(m.process, m.shape) for m in models}) > 1:
        raise ArgumentError("the models differ in process or shape: give models whose scores are of one x")
    powers = tuple(finite("powers", b) for b in powers)
    if sum(powers) <= 0:
        raise ArgumentError(f"powers = {powers}: their sum must be positive, or the product is no density")
    if finite("eta", eta) < 0:
        raise ArgumentError(f"eta = {eta}: the noise of a sampler is 0 (none) or more")
    return Corrector(models[0].process, powers, eta, positive("sigma_data", sigma_data))
