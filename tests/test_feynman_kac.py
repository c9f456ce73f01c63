"""Feynman-Kac correctors: what is drawn is the power or product that was asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.integrate import run
from longstride.models import mixture
from longstride.models.exact import Mixture
from longstride.samplers import ParticleStats, sample_feynman_kac
from longstride.samplers.feynman_kac import Corrector, systematic

F64 = torch.float64
PROCESSES = {"edm": ls.process.EDM(), "vp": ls.process.VP(t_min=1e-4), "flow": ls.process.Flow()}
EDM = PROCESSES["edm"]
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
# means and variances of Gaussians, and their powers
TARGETS = {
    "annealed": ([(0.7, 0.4)], (2.5,)),
    "tempered": ([(0.7, 0.4)], (0.5,)),
    "average": ([(0.7, 0.4), (-0.3, 1.2)], (2.0, -1.0)),
    "product": ([(0.7, 0.4), (-0.3, 1.2), (0.2, 2.0)], (1.0, 0.5, 2.0)),
}


def gaussians(process: ls.process.Process, laws: list[tuple[float, float]]) -> list[ls.Denoiser]:
    one = torch.ones(1, 1, 1, dtype=F64)
    return [mixture(Mixture(one[0, 0], m * one[0], v * one), process) for m, v in laws]


def product(laws: list[tuple[float, float]], powers: tuple[float, ...]) -> tuple[float, float]:
    """Mean and variance of prod N(m_i, v_i)^(b_i): precisions add up, and so do precisions times means."""
    precision = sum(b / v for b, (_, v) in zip(powers, laws, strict=True))
    return sum(b * m / v for b, (m, v) in zip(powers, laws, strict=True)) / precision, 1 / precision


def moments_error(
    process: ls.process.Process, target: str, times: list[float], eta: float, sigma_data: float = 1.0
) -> float:
    """Error in mean and variance of infinitely many particles, which begin with the exact ones.

    On Gaussians R is affine in x and g quadratic, so particles (x, R of the step before) and their weights
    stay Gaussian: a step is affine, and weighing by exp(h g) adds -2 h g_2 to the precision of x.
    """
    laws, powers = TARGETS[target]
    corrector = Corrector(process, powers, eta, sigma_data)
    fields = [m.fields()[0] for m in gaussians(process, laws)]

    def law(t: float) -> tuple[float, float]:
        alpha, sigma = process.pair(t)
        return product([(alpha * m, alpha**2 * v + sigma**2) for m, v in laws], powers)

    thetas = [corrector.theta(t) for t in times]
    halves = [0.0, *((b - a) / 2 for a, b in pairwise(thetas)), 0.0]
    mean, cov = torch.zeros(2, dtype=F64), torch.zeros(2, 2, dtype=F64)
    mean[0], cov[0, 0] = law(times[0])
    for k, t in enumerate(times):
        r, _, g = corrector.look(fields, t, torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64))
        slope, offset = float(r[2] - r[1]), float(r[1])
        g_1, g_2 = float(g[2] - g[0]) / 2, float(g[2] + g[0]) / 2 - float(g[1])
        h, v = halves[k] + halves[k + 1], float(cov[0, 0])
        new = 1 / (1 / v - 2 * h * g_2)
        shift = new * (float(mean[0]) / v + h * g_1) - float(mean[0])
        column = cov[:, 0] / v
        mean, cov = mean + column * shift, cov + (new - v) * torch.outer(column, column)
        if k == len(times) - 1:
            break
        row = corrector.step(t, times[k + 1], times[k - 1] if k else None).stages[0]
        matrix = torch.tensor(
            [[row.x[0] + row.f[-1] * slope, row.f[0] if k else 0.0], [slope, 0.0]], dtype=F64
        )
        mean = matrix @ mean + offset * torch.tensor([row.f[-1], 1.0], dtype=F64)
        cov = matrix @ cov @ matrix.T
        cov[0, 0] += row.z[0] ** 2
    true_mean, true_var = law(times[-1])
    return abs(float(mean[0]) - true_mean) + abs(float(cov[0, 0]) - true_var)


@each_process
@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("target", TARGETS)
def test_the_weak_order_is_two(process, target: str, eta: float) -> None:
    start, end = process.lambda_(process.time(-3.0)), 3.0

    def error(n: int) -> float:
        times = [process.time(start + (end - start) * i / n) for i in range(n + 1)]
        return moments_error(process, target, times, eta)

    assert math.log2(error(160) / error(320)) == pytest.approx(2.0, abs=0.2)


@each_process
@pytest.mark.parametrize("powers", [(0.3,), (1.0,), (4.0,)])
def test_gaussian_data_of_the_variance_given_need_no_weights_and_no_small_steps(process, powers) -> None:
    """On N(0, c) the linear part is all there is: weights stay even, and two steps lead where many do."""
    c = 0.36
    corrector = Corrector(process, powers, 1.0, c**0.5)
    (model,) = gaussians(process, [(0.0, c)])
    first, second, last = (process.time(v) for v in (-2.0, 1.0, 3.0))
    x = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    r, _, g = corrector.look([model.fields()[0]], second, x)
    assert torch.allclose(r, torch.zeros_like(r), atol=1e-9)
    assert torch.allclose(g, torch.zeros_like(g), atol=1e-9)
    variance = [(process.alpha(t) ** 2 * c + process.sigma(t) ** 2) / powers[0] for t in (first, last)]
    row = corrector.step(first, last, None).stages[0]
    assert row.x[0] ** 2 * variance[0] + row.z[0] ** 2 == pytest.approx(variance[1], rel=1e-12)


def demand_moments(sets: list[Tensor], mean: float, variance: float) -> None:
    """Sets of particles agree in mean and variance to 4 standard errors, which their own spread gives.

    The effective sample size does not: it counts weights, and not how they go with what is averaged.
    """
    for found, true in (([x.mean() for x in sets], mean), ([x.var() for x in sets], variance)):
        estimates = torch.stack(found).double()
        error = float(estimates.std()) / math.sqrt(len(sets))
        assert float(estimates.mean()) == pytest.approx(true, abs=4 * error)
        assert error < 0.05 * math.sqrt(variance)


@each_process
@pytest.mark.parametrize("target", TARGETS)
def test_particles_have_the_mean_and_variance_of_their_target(process, target: str) -> None:
    laws, powers = TARGETS[target]
    models, options = gaussians(process, laws), {"grid": "log_snr", "sigma_data": 0.6}
    sets = [sample_feynman_kac(models, powers, 600, 60, seed=seed, **options) for seed in range(12)]
    demand_moments(sets, *product(laws, powers))


def blobs(weights: list[float], means: list[list[float]], covs: list[list[list[float]]]) -> Mixture:
    return Mixture(torch.tensor(weights), torch.tensor(means), torch.tensor(covs))


FIRST = blobs(
    [0.3, 0.4, 0.3],
    [[-1.5, 0.0], [1.0, 1.0], [0.8, -1.2]],
    [[[0.2, 0.05], [0.05, 0.15]], [[0.3, 0.0], [0.0, 0.12]], [[0.1, 0.0], [0.0, 0.35]]],
)
SECOND = blobs([0.5, 0.5], [[-1.0, 0.5], [1.0, -0.4]], [[[0.4, 0.0], [0.0, 0.3]], [[0.25, 0.1], [0.1, 0.5]]])
HALF_WIDTH, BINS, FINE = 2.8, 10, 20


def tabulated(targets: list[Mixture], powers: tuple[float, ...]) -> Tensor:
    """Probabilities of BINS x BINS cells, from the densities at FINE x FINE points in each."""
    axis = ((torch.arange(BINS * FINE, dtype=F64) + 0.5) / (BINS * FINE) * 2 - 1) * HALF_WIDTH
    x = torch.cartesian_prod(axis, axis)
    one, zero = torch.ones(len(x), dtype=F64), torch.zeros(len(x), dtype=F64)
    log_p = sum(b * q.log_density(x, one, zero) for b, q in zip(powers, targets, strict=True))
    return log_p.softmax(0).reshape(BINS, FINE, BINS, FINE).sum((1, 3)).flatten()


def distance(x: Tensor, p: Tensor) -> float:
    """Total variation between the histogram of x [n, 2] and p; what lies outside the cells counts."""
    cell = ((x.double() / HALF_WIDTH + 1) / 2 * BINS).floor().long()
    inside = cell[((cell >= 0) & (cell < BINS)).all(1)]
    share = torch.bincount(inside[:, 0] * BINS + inside[:, 1], minlength=BINS**2) / len(x)
    return float((share - p).abs().sum() + 1 - share.sum()) / 2


class Draws:
    """Unit normals in the order they are asked for; the particles' own are refinable, which takes longer."""

    def __init__(self, n: int):
        self.n, self.generator = n, torch.Generator().manual_seed(0)

    def increment(self, a: float, b: float) -> Tensor:
        return torch.randn(self.n, 2, generator=self.generator, dtype=F64)


def unweighted(models: list[ls.Denoiser], powers: tuple[float, ...], n: int, nfe: int) -> Tensor:
    """The reverse SDE of the mixed score, in `nfe` second-order steps."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        (time,) = set(t.tolist())
        return sum(b * m.fields()[1](time, x) for b, m in zip(powers, models, strict=True))

    mixed = replace(models[0], net=net, predicts="noise")
    plan = ls.plan_sampling(mixed.process, "dpmpp_2m_sde", nfe, "karras")
    return run(mixed.fields(), plan, ls.prior(mixed, n, dtype=F64), Draws(n))[0][-1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("targets", "powers"),
    [([FIRST], (2.0,)), ([FIRST, SECOND], (2.0, -1.0)), ([FIRST, SECOND], (1.0, 1.0))],
    ids=["annealed", "average", "product"],
)
def test_the_histogram_of_particles_is_that_of_the_target(targets, powers) -> None:
    """P027's check. The floor is the mean distance of so many independent samples of the target itself."""
    n, nfe = 4000, 60
    models = [mixture(q, EDM) for q in targets]
    p = tabulated(targets, powers)
    floor = float((2 * p * (1 - p) / (math.pi * n)).sqrt().sum()) / 2
    x = sample_feynman_kac(models, powers, n, nfe, grid="karras", sigma_data=1.0)
    found, plain = distance(x, p), distance(unweighted(models, powers, n, 4 * nfe), p)
    print(f"powers {powers}: floor {floor:.3f}, particles {found:.3f}, mixed score {plain:.3f}")
    assert floor < 0.04
    assert found <= 0.08
    assert found <= 0.5 * plain


def test_guidance_between_a_condition_and_none_is_their_geometric_average() -> None:
    """q(x | y) = N(y, 0.5), q(x) = N(0, 1.5): precisions w/0.5 + (1 - w)/1.5."""

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        given = y[:, None] < 9
        mean, v = torch.where(given, y[:, None], 0.0), torch.where(given, 0.5, 1.5)
        return mean + v / (v + t[:, None] ** 2) * (x - mean)

    model = ls.Denoiser(net, EDM, shape=(1,), null={"y": 9.0})
    w, cond, stats = 3.0, ({"y": 1.0}, model.null), ParticleStats()
    sets = [
        sample_feynman_kac(
            [model, model], (w, 1 - w), 600, 60, cond=cond, sigma_data=1.0, seed=seed, stats=stats
        )
        for seed in range(12)
    ]
    demand_moments(sets, *product([(1.0, 0.5), (0.0, 1.5)], (w, 1 - w)))
    assert (stats.nfe, stats.network_calls) == (60, 120)


def test_a_model_alone_keeps_its_weights_even() -> None:
    stats = ParticleStats()
    model = mixture(dim=3)
    x = sample_feynman_kac([model], (1.0,), 16, 12, stats=stats)
    assert stats.ess == pytest.approx([1.0] * 12)
    assert len(x.unique(dim=0)) == 16
    split = sample_feynman_kac([model, model], (0.7, 0.3), 16, 12)
    assert torch.allclose(x, split, atol=1e-4)


def test_systematic_resampling_rounds_what_each_particle_is_due() -> None:
    log_w = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=F64)
    due = 50 * log_w.softmax(0)
    starts = (torch.arange(200, dtype=F64) + 0.5) / 200
    counts = torch.stack([torch.bincount(systematic(log_w, u), minlength=50) for u in starts])
    assert ((counts - due).abs() < 1).all()
    assert torch.allclose(counts.double().mean(0), due, atol=1 / 200)


def test_particles_are_resampled_within_the_window_only() -> None:
    models = [mixture(FIRST, EDM)]
    never, outside, within = (
        sample_feynman_kac(models, (3.0,), 50, 20, **options)
        for options in ({"ess": 0.0}, {"ess": 1.0, "window": (0.0, 1e-3)}, {"ess": 1.0})
    )
    assert torch.equal(never, outside)
    assert not torch.equal(never, within)


MODEL = mixture(dim=2)


@pytest.mark.parametrize(
    ("models", "powers", "options", "message"),
    [
        ([MODEL], (1.0, 2.0), {}, "one power for each"),
        ([MODEL, mixture(dim=2, process=ls.process.VP())], (1.0, 1.0), {}, "differ in process"),
        ([MODEL], (-1.0,), {}, "positive"),
        ([MODEL], (1.0,), {"ess": 1.5}, "share of n"),
        ([MODEL], (1.0,), {"eta": -1.0}, "eta"),
        ([MODEL], (1.0,), {"window": (2.0, 1.0)}, "window"),
        ([MODEL], (1.0,), {"cond": ()}, "one for each"),
        ([MODEL], (1.0,), {"sigma_data": 0.0}, "sigma_data"),
        ([mixture(dim=2, process=ls.process.Flow())], (1.0,), {"nfe": 1}, "larger nfe"),
    ],
)
def test_bad_arguments_say_what_to_do(models, powers, options, message) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        sample_feynman_kac(models, powers, 4, **options)


def test_weights_that_overflow_are_an_error() -> None:
    with pytest.raises(ls.SolveError, match="evaluations"):
        sample_feynman_kac([replace(MODEL, net=lambda x, t: x * math.nan)], (1.0,), 4, 5)
