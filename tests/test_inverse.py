"""Inverse problems where the answer is known: Gaussian data, exact least squares, a tilted mixture."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.models import mixture
from longstride.models.exact import Mixture
from longstride.samplers import Measurement, blur, dds, dps, inpainting, sample_svdd, super_resolution
from longstride.samplers.inverse import conjugate_gradient

F64 = torch.float64
EDM, VP, FLOW = ls.process.EDM(), ls.process.VP(), ls.process.Flow()
SPREAD = 0.5


def gaussian(process: ls.process.Process, shape: tuple[int, ...]) -> ls.Denoiser:
    """Data N(0, spread^2): D = alpha spread^2 x/(alpha^2 spread^2 + sigma^2)."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.pair(float(t[0]))
        return alpha * SPREAD**2 * x / ((alpha * SPREAD) ** 2 + sigma**2)

    return ls.Denoiser(net, process, shape=shape)


MAPS = {
    "inpainting": inpainting((torch.arange(36) % 3 > 0).reshape(1, 6, 6)),
    "blur": blur(0.8),
    "super_resolution": super_resolution(2),
}


@pytest.mark.parametrize("process", [EDM, VP, FLOW])
@pytest.mark.parametrize("name", sorted(MAPS))
@pytest.mark.parametrize("way", [partial(dps, steps=40), partial(dds, steps=40)])
def test_gaussian_data_give_the_exact_posterior(process: ls.process.Process, name: str, way: partial) -> None:
    """A sample is affine in its noise: noise 0 gives the posterior mean, unit noises a root of its cov.

    mean = S A^T y/noise^2, cov = S = (1/spread^2 + A^T A/noise^2)^-1
    """
    measurement, noise, shape = MAPS[name], 0.2, (1, 6, 6)
    model = way(gaussian(process, shape), measurement, noise, spread=SPREAD)
    eye = torch.eye(36, dtype=F64).reshape(36, *shape)
    A = measurement.A(eye).flatten(1).T
    cov = torch.linalg.inv(torch.eye(36, dtype=F64) / SPREAD**2 + A.T @ A / noise**2)
    truth = torch.randn(1, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    y = measurement.A(truth)
    mean = cov @ A.T @ y.flatten() / noise**2
    x = torch.cat([torch.zeros(1, *shape, dtype=F64), eye * process.prior_std])
    out = ls.sample(
        model, x_init=x, method="dpmpp_2m", nfe=60, grid="log_snr",
        cond={"measured": y.expand(37, *y.shape[1:])},
    ).flatten(1)  # fmt: skip
    assert torch.allclose(out[0], mean, atol=0.01)
    root = (out[1:] - out[0]).T
    assert torch.allclose(root @ root.T, cov, atol=0.01)


@pytest.mark.parametrize("gamma", [0.3, 5.0])
def test_dds_is_the_proximal_point_and_starts_at_the_prediction(gamma: float) -> None:
    """As many steps as unknowns give (1 + gamma A^T A)^-1 (D + gamma A^T y), on a projection two."""
    shape, y = (1, 6, 6), torch.randn(2, 1, 6, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, *shape, dtype=F64, generator=torch.Generator().manual_seed(2))
    model = gaussian(VP, shape)
    data = model.fields()[0](0.4, x)
    A = blur(0.8).A(torch.eye(36, dtype=F64).reshape(36, *shape)).flatten(1).T
    right = (data + gamma * blur(0.8).A(y)).flatten(1)
    exact = torch.linalg.solve(torch.eye(36, dtype=F64) + gamma * A.T @ A, right.T).T.reshape_as(x)
    found = dds(model, blur(0.8), 0.1, gamma=gamma, steps=36).fields({"measured": y})[0](0.4, x)
    assert torch.allclose(found, exact, atol=1e-10)
    seen = MAPS["inpainting"]
    y = seen.A(y)
    found = dds(model, seen, 0.1, gamma=gamma, steps=2).fields({"measured": y})[0](0.4, x)
    mask = seen.A(torch.ones_like(x))
    assert torch.allclose(found, torch.where(mask > 0, (data + gamma * y) / (1 + gamma), data), atol=1e-12)


def test_conjugate_gradients_stop_where_nothing_is_left() -> None:
    b = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=F64)
    out = conjugate_gradient(lambda z: 2 * z, b, torch.zeros_like(b), 5)
    assert torch.equal(out, b / 2)


def test_both_ways_ask_the_network_once_an_evaluation() -> None:
    calls = []
    model = gaussian(EDM, (1, 6, 6))

    def net(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return model.net(x, t)

    y = torch.zeros(2, 1, 3, 3)
    for way in (dps, dds):
        guided = way(ls.Denoiser(net, EDM, shape=(1, 6, 6)), MAPS["super_resolution"], 0.1)
        ls.sample(guided, 2, nfe=7, cond={"measured": y})
    assert calls == [2] * 14


def two(process: ls.process.Process) -> ls.Denoiser:
    """Two narrow modes on a line, at -1 with weight 0.8 and at 1 with 0.2."""
    means, covs = torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.05)
    return mixture(Mixture(torch.tensor([0.8, 0.2]), means, covs), process)


@pytest.mark.parametrize("process", [EDM, VP, FLOW])
def test_one_proposal_is_the_sampler_itself(process: ls.process.Process) -> None:
    model = two(process)
    x = ls.prior(model, 8)
    for method, options in (("ddpm", {}), ("ddim", {"eta": 0.5})):
        stats = ls.Stats()
        found = sample_svdd(
            model, x, lambda x: x[:, 0], 6, proposals=1, seed=3, method=method, stats=stats, **options
        )
        assert torch.equal(found, ls.sample(model, x_init=x, method=method, nfe=6, seed=3, **options))
        assert stats.nfe == 6


def test_a_soft_value_tilts_the_mixture() -> None:
    """r = 1 right of 0, else 0: p exp(r/a) has the share 0.2 e^(1/a)/(0.2 e^(1/a) + 0.8) there.

    The modes being narrow, the chance q that x_t ends on the right is (D + 1)/2, and the soft value
    a log E[e^(r/a) | x_t] = a log(1 + q (e^(1/a) - 1)). With it the target is met as steps get short and
    proposals many; three standard errors are allowed for 400 samples.
    """
    model, a, n = two(VP), 1.0, 400
    e = math.exp(1 / a)

    def soft(data: Tensor) -> Tensor:
        return a * torch.log1p(((data[:, 0] + 1) / 2).clamp(0, 1) * (e - 1))

    grid = [VP.time(-2 + 5 * i / 60) for i in range(61)]
    out = sample_svdd(model, ls.prior(model, n), soft, 601, proposals=10, alpha=a, grid=grid)
    exact = 0.2 * e / (0.2 * e + 0.8)
    assert abs(float((out > 0).float().mean()) - exact) < 3 * math.sqrt(exact * (1 - exact) / n)


def test_evaluations_of_proposals_are_counted() -> None:
    calls = 0
    model = two(EDM)

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return model.net(x, t)

    stats = ls.Stats()
    x = ls.prior(model, 3)
    counting = ls.Denoiser(net, EDM, shape=(1,))
    sample_svdd(counting, x, lambda x: x[:, 0], 25, proposals=4, stats=stats)
    assert calls == 3 * stats.nfe
    assert stats.nfe == 25


def test_bad_arguments_are_refused() -> None:
    model, x = two(EDM), torch.zeros(2, 1)
    with pytest.raises(ls.ArgumentError, match="one step takes"):
        sample_svdd(model, x, lambda x: x[:, 0], 10, proposals=20)
    with pytest.raises(ls.ArgumentError, match="one data prediction and a row"):
        sample_svdd(model, x, lambda x: x[:, 0], 10, proposals=2, method="dpmpp_2m")
    with pytest.raises(ls.SolveError, match="value gave"):
        sample_svdd(model, x, lambda x: x, 10, proposals=2)
    with pytest.raises(ls.ArgumentError, match="own transpose"):
        dds(model, Measurement(lambda x: 2 * x, lambda y: y), 0.1)
    with pytest.raises(ls.ArgumentError, match=r"what A gives, \[n, \*\[1\]\]"):
        ls.sample(dps(model, inpainting(torch.ones(1)), 0.1), 2, nfe=3, cond={"measured": torch.zeros(2, 3)})
    with pytest.raises(ls.ArgumentError, match="noise = 0"):
        dps(model, inpainting(torch.ones(1)), 0.0)
