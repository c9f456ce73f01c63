"""PFGM++ on two points of the plane, whose denoiser under the heavy-tailed kernel is a ratio of powers."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

import longstride as ls
from longstride.samplers import pfgmpp_noise

F64 = torch.float64
POINTS = torch.tensor([[1.0, 0.5], [-0.6, -0.8]], dtype=F64)
WEIGHTS = torch.tensor([0.3, 0.7], dtype=F64)
EDM = ls.process.EDM()


def data(x: Tensor, t: Tensor, D: float) -> Tensor:
    """E[y | x] with p(x | y) ~ (|x - y|^2 + sigma^2 D)^(-(N + D)/2); D = inf is the normal kernel."""
    square = torch.cdist(x.double(), POINTS).square() / t.double()[:, None] ** 2
    log_p = -square / 2 if math.isinf(D) else -(2 + D) / 2 * torch.log1p(square / D)
    return ((WEIGHTS.log() + log_p).softmax(1) @ POINTS).to(x)


def model(D: float) -> ls.Denoiser:
    return ls.Denoiser(lambda x, t: data(x, t, D), EDM, shape=(2,))


@pytest.mark.parametrize("D", [2, 128, 2048, 1e6])
def test_the_radius_has_the_papers_law(D: float) -> None:
    """R = r sqrt(b/(1 - b)), b ~ Beta(N/2, D/2): so R^2/(R^2 + r^2) ~ b. Every direction is alike."""
    n, sigma = 5000, 3.0
    x = pfgmpp_noise(sigma * torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(0)), D)
    square = x.square().sum(1)
    b = square / (square + sigma**2 * D)
    assert stats.kstest(b.numpy(), stats.beta(1.5, D / 2).cdf).pvalue > 1e-3
    direction = x / square.sqrt()[:, None]
    assert direction.mean(0).abs().max() < 4 / math.sqrt(3 * n)


def test_many_dimensions_are_diffusion() -> None:
    """chi^2_D/D is 1 within sqrt(2/D), so the noise is the normal one and the field the diffusion's."""
    z = torch.randn(1000, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    assert (pfgmpp_noise(z, 1e6) / z - 1).abs().max() < 5 * math.sqrt(1 / 2 / 1e6)
    for sigma in (0.1, 0.5, 2.0, 20.0, 80.0):
        t = torch.full((1000,), sigma, dtype=F64)
        x = POINTS[torch.arange(1000) % 2] + sigma * z
        field, limit = ((x - data(x, t, D)) / sigma for D in (1e6, math.inf))
        assert (field - limit).abs().max() < 1e-4


@pytest.mark.parametrize("D", [8, 128, 2048, 1e6])
def test_heun_from_the_matching_prior_finds_the_weights(D: float) -> None:
    n = 8000
    x = pfgmpp_noise(ls.prior(model(D), n, dtype=F64), D)
    y = ls.sample(model(D), x_init=x, method="heun", nfe=35, batch=n)
    nearest = torch.cdist(y, POINTS).argmin(1)
    share = float((nearest == 0).double().mean())
    print(D, share)
    assert share == pytest.approx(0.3, abs=0.02)
    assert (y - POINTS[nearest]).abs().max() < 0.01


def test_the_flow_carries_the_kernel_of_one_noise_level_to_that_of_another() -> None:
    """Where D = 4 tails are heavy: at sigma = 0.7 the samples have the law of add_noise, radius by radius."""
    n, low = 4000, 0.7
    x = pfgmpp_noise(ls.prior(model(4), n, dtype=F64), 4)
    grid = [80 * (low / 80) ** (k / 40) for k in range(41)]
    ours = ls.sample(model(4), x_init=x, method="heun", grid=grid, final="sigma_min", batch=n)
    x0 = POINTS[(torch.arange(n) >= 0.3 * n).long()]
    z = torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    theirs = EDM.add_noise(x0, low, pfgmpp_noise(z, 4, seed=5))
    for direction in torch.eye(2, dtype=F64):
        assert stats.ks_2samp((ours @ direction).numpy(), (theirs @ direction).numpy()).pvalue > 1e-3
    normal = EDM.add_noise(x0, low, z)
    assert stats.ks_2samp(ours.norm(dim=1).numpy(), normal.norm(dim=1).numpy()).pvalue < 1e-6


def test_a_sample_does_not_depend_on_its_batch() -> None:
    z = torch.randn(9, 2, 3)
    assert torch.equal(pfgmpp_noise(z, 16, seed=2)[4:6], pfgmpp_noise(z[4:6], 16, seed=2, first=4))
    assert pfgmpp_noise(z, 16).dtype == torch.float32


def test_refusals() -> None:
    with pytest.raises(ls.ArgumentError, match="D = 0: it must be positive"):
        pfgmpp_noise(torch.zeros(2, 2), 0)
    with pytest.raises(ls.ArgumentError, match="give floats"):
        pfgmpp_noise(torch.zeros(2, 2, dtype=torch.int64), 4)
