"""Denoising MCMC on mixtures, whose score and p(level | x) are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.models import mixture
from longstride.models.exact import Mixture
from longstride.samplers import level_classifier, sample_dmcmc

F64 = torch.float64
ANGLES = torch.arange(5, dtype=F64) * 2 * math.pi / 5
RING = Mixture(
    torch.tensor([0.3, 0.1, 0.2, 0.25, 0.15]),
    torch.stack([ANGLES.cos(), ANGLES.sin()], 1),
    0.01 * torch.eye(2).expand(5, 2, 2),
)
LEVELS = [0.02 * 100 ** (k / 7) for k in range(8)]  # to 2, where the five are one


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, without bias: 0 for equal laws (Szekely and Rizzo 2013)."""
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return float(2 * torch.cdist(a, b).mean() - within)


@pytest.mark.parametrize("method", ["ddim", "heun", "dpmpp_2m"])
def test_ten_evaluations_near_the_data_beat_ten_from_noise(method: str) -> None:
    model, stats = mixture(RING), ls.Stats()
    true = RING.sample(2000, 1)
    plain = ls.sample(model, x_init=ls.prior(model, 2000, 3, dtype=F64), method=method, nfe=10)
    x_init = ls.prior(model, 100, 0, dtype=F64)
    classifier = level_classifier(model, LEVELS)
    ours = sample_dmcmc(model, classifier, x_init, LEVELS, 10, 20, method=method, stats=stats)
    assert stats.nfe <= 10
    far, near = energy_distance(plain, true), energy_distance(ours.flatten(0, 1), true)
    print(f"{method}: {far:.2e} from noise, {near:.2e} from the chains")
    assert 2 * near < far


def test_the_classifier_is_bayes() -> None:
    """On N(0, c) level k has the density of N(0, c + sigma_k^2)."""
    model = mixture(Mixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1, 1), 0.25)))
    x, levels = torch.tensor([[0.1], [2.0]]), [0.1, 1.0, 5.0]
    density = [torch.distributions.Normal(0.0, math.sqrt(0.25 + s * s)).log_prob(x) for s in levels]
    ours = level_classifier(model, levels)(x).log_softmax(1).float()
    torch.testing.assert_close(ours, torch.cat(density, 1).log_softmax(1))
    with pytest.raises(ls.ArgumentError, match="trained classifier"):
        level_classifier(ls.Denoiser(lambda x, t: x, ls.process.EDM()), levels)


def test_chains_at_one_level_have_langevins_variance() -> None:
    """On N(0, c) the chain makes V of x_t to (1 - e/v)^2 V + 2 e, and DDIM's way down then scales it."""
    c, sigma, step, process = 0.25, 1.0, 0.4, ls.process.EDM()
    v, e, model = (
        c + sigma**2,
        step * sigma**2,
        ls.Denoiser(lambda x, t: c / (c + t[:, None] ** 2) * x, process, shape=(40_000,)),
    )
    plan = {"method": "ddim", "grid": "karras"}
    x = sample_dmcmc(
        model, lambda x: x.new_zeros(len(x), 1), ls.prior(model, 2), [sigma], 6, 8, skip=2, step=step, **plan
    )

    def scale(plan: ls.Plan) -> float:
        """What a deterministic plan does to x: it is linear."""
        one = ls.Denoiser(lambda x, t: c / (c + t[:, None] ** 2) * x, process)
        return float(ls.sample(one, x_init=torch.ones(1, 1, dtype=F64), plan=plan))

    V = (scale(ls.plan_sampling(process, nfe=8, **plan)) * process.sigma_max) ** 2 + sigma**2
    last = scale(ls.plan_sampling(process, nfe=3, t_start=sigma, **plan))
    for link in range(8):
        for _ in range(2):
            V = (1 - e / v) ** 2 * V + 2 * e
        assert x[:, link].var().item() == pytest.approx(last**2 * V, rel=0.03)
    assert pytest.approx(v / (1 - e / (2 * v)), rel=1e-3) == V  # at rest, above v by Langevin's own error


def test_the_budget_is_what_the_network_sees_and_a_chain_is_its_own() -> None:
    seen = []
    exact = mixture(RING)

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(len(x))
        return exact.net(x, t)

    model, stats = ls.Denoiser(net, exact.process, shape=(2,)), ls.Stats()
    x_init = ls.prior(exact, 6, 0, dtype=F64)
    classifier = level_classifier(exact, LEVELS)
    arguments = {"skip": 2, "method": "dpmpp_sde", "seed": 7}
    x = sample_dmcmc(model, classifier, x_init, LEVELS, 8, 5, stats=stats, **arguments)
    assert sum(seen) == 6 * 5 * 8
    assert stats.nfe == 8
    few = sample_dmcmc(model, classifier, x_init[:2], LEVELS, 8, 5, **arguments)
    torch.testing.assert_close(few, x[:2])
    with pytest.raises(ls.ArgumentError, match="for its start"):
        sample_dmcmc(model, classifier, x_init, LEVELS, 2, 5)
    with pytest.raises(ls.ArgumentError, match="levels must lie"):
        sample_dmcmc(model, classifier, x_init, [0.0, 1.0], 8, 5)
