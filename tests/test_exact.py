"""The exact models are exact: against quadrature, autograd and the limits that theory gives."""

import math

import pytest
import torch

from longstride.errors import ArgumentError
from longstride.models.exact import Mixture, ideal, mixture, random_mixture
from longstride.process import EDM, VE, VP, AlphaSigma, Flow

F64 = torch.float64
PROCESSES = {
    "edm": EDM(),
    "ve": VE(),
    "vp": VP(),
    "vp-cosine": VP("cosine"),
    "vp-discrete": VP(discrete=True),
    "flow": Flow(),
    "custom": AlphaSigma(lambda t: torch.cos(t * math.pi / 2), lambda t: torch.sin(t * math.pi / 2)),
}


def middle(process):
    """A time at which data and noise are of the same size, [1]."""
    return torch.tensor([process.time(0.5)], dtype=F64)


def quadrature(log_p0, x, alpha, sigma, axes):
    """E[x0 | x] by sums over a grid: int x0 p0(x0) N(x; alpha x0, sigma^2) over int p0 N."""
    nodes = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    log_w = log_p0(nodes) - ((x - alpha * nodes) ** 2).sum(1) / (2 * sigma**2)
    return log_w.softmax(0) @ nodes


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("dim", [1, 2])
def test_mixture_denoiser_equals_the_posterior_mean_by_quadrature(process, dim):
    data = random_mixture(dim, components=3, seed=1)
    t = middle(process)
    alpha, sigma = process.pair(float(t))
    x = alpha * data.sample(1, seed=2) + sigma * 0.3
    gaussians = [
        torch.distributions.MultivariateNormal(m, c) for m, c in zip(data.means, data.covs, strict=True)
    ]

    def log_p0(nodes):
        parts = [w.log() + g.log_prob(nodes) for w, g in zip(data.weights, gaussians, strict=True)]
        return torch.stack(parts).logsumexp(0)

    # To 9 standard deviations in halves of the narrowest: the sum is exact to round-off.
    reach = data.means.abs().max() + 9 * data.covs.diagonal(dim1=1, dim2=2).max().sqrt()
    narrow = torch.linalg.eigvalsh(data.covs).min().sqrt()
    count = min(int(2 * reach / (narrow / 2)) + 1, 3000)
    axes = [torch.linspace(-reach, reach, count, dtype=F64)] * dim
    expected = quadrature(log_p0, x, alpha, sigma, axes)
    got = mixture(data, process).net(x, t)[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_mixture_denoiser_obeys_tweedie(process):
    """D = (x + sigma^2 grad log p_t(x))/alpha, the gradient by autograd of the exact density."""
    data = random_mixture(dim=5, components=4, seed=3)
    t = middle(process).expand(6)
    alpha, sigma = process.pair(t)
    noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = (alpha[:, None] * data.sample(6) + sigma[:, None] * noise).requires_grad_()
    (score,) = torch.autograd.grad(data.log_density(x, alpha, sigma).sum(), x)
    tweedie = (x + sigma[:, None] ** 2 * score) / alpha[:, None]
    torch.testing.assert_close(mixture(data, process).net(x, t), tweedie, rtol=1e-9, atol=1e-9)


def test_mixture_density_is_the_sum_of_the_noised_gaussians():
    data = random_mixture(dim=3, components=4, seed=5)
    x, alpha, sigma = (
        data.sample(7),
        torch.full((7,), 0.6, dtype=F64),
        torch.full((7,), 0.8, dtype=F64),
    )
    parts = [
        w.log() + torch.distributions.MultivariateNormal(
            0.6 * m, 0.36 * c + 0.64 * torch.eye(3, dtype=F64)
        ).log_prob(x)
        for w, m, c in zip(data.weights, data.means, data.covs, strict=True)
    ]  # fmt: skip
    expected = torch.stack(parts).logsumexp(0)
    torch.testing.assert_close(data.log_density(x, alpha, sigma), expected, rtol=1e-12, atol=1e-12)


def test_without_data_the_mixture_denoiser_is_the_mean_of_the_data():
    data = random_mixture(dim=4, seed=0)
    got = mixture(data, Flow()).net(torch.randn(3, 4, dtype=F64), torch.ones(3, dtype=F64))
    torch.testing.assert_close(got, data.mean.expand(3, 4), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("process", [EDM(), Flow()], ids=["edm", "flow"])
@pytest.mark.parametrize("t", [0.0, 1e-7])
def test_without_noise_the_mixture_denoiser_returns_its_input(process, t):
    x = random_mixture(dim=4, seed=0).sample(3)
    model = mixture(dim=4, seed=0, process=process)
    torch.testing.assert_close(
        model.net(x, torch.full((3,), t, dtype=F64)), x, rtol=2 * t + 1e-14, atol=1e-6 * t
    )


def test_mixture_at_the_largest_noise_stays_finite_and_accurate_in_float32():
    model = mixture(dim=8, seed=0)
    x, t = 80 * torch.randn(5, 8), torch.full((5,), 80.0)
    exact = model.net(x.double(), t.double())
    torch.testing.assert_close(model.net(x, t).double(), exact, rtol=1e-6, atol=1e-7)


def test_mixture_samples_have_its_mean_and_covariance():
    data = random_mixture(dim=3, components=4, seed=7)
    n = 200_000
    x = data.sample(n, seed=1)
    deviation = data.cov.diagonal().sqrt()
    assert ((x.mean(0) - data.mean).abs() < 5 * deviation / math.sqrt(n)).all()
    assert ((x.T.cov() - data.cov).abs() < 10 * deviation.outer(deviation) / math.sqrt(n)).all()
    square = (data.cov.trace() + data.mean.square().sum()) / 3
    assert math.isclose(square, 0.25, rel_tol=1e-12)  # EDM's sigma_data^2
    assert torch.equal(data.sample(10, seed=1), x[:10])


@pytest.mark.parametrize(
    "arguments",
    [
        ([1.0], [[0.0]], [[[0.0]]]),
        ([1.0], [[0.0]], [[[-1.0]]]),
        ([-1.0], [[0.0]], [[[1.0]]]),
        ([1.0, 1.0], [[0.0]], [[[1.0]]]),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]]),
        ([1.0], [[math.nan]], [[[1.0]]]),
        ([], [[]], [[[]]]),
    ],
)
def test_what_is_no_mixture_is_refused(arguments):
    with pytest.raises(ArgumentError, match="mixture"):
        Mixture(*map(torch.tensor, arguments))


def test_ideal_denoiser_of_one_image_returns_it():
    image = torch.rand(1, 1, 4, 4, dtype=F64)
    for process in PROCESSES.values():
        for t in (process.t_max, process.t_min):
            got = ideal(image, process).net(
                torch.randn(2, 1, 4, 4, dtype=F64), torch.full((2,), t, dtype=F64)
            )
            torch.testing.assert_close(got, image.expand(2, 1, 4, 4), rtol=1e-13, atol=1e-13)


def test_ideal_denoiser_equals_a_mixture_of_ever_narrower_gaussians(monkeypatch):
    """Chunks of 3 of the 7 images, so that the running maximum of the softmax is exercised."""
    monkeypatch.setattr("longstride.models.exact.CHUNK", 3)
    images = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=F64)
    narrow = Mixture(torch.ones(7), images, 1e-14 * torch.eye(5).expand(7, 5, 5))
    x, t = images[:3] + 0.2, torch.tensor([0.05, 0.3, 2.0], dtype=F64)
    torch.testing.assert_close(ideal(images).net(x, t), mixture(narrow).net(x, t), rtol=1e-9, atol=1e-9)


def test_ideal_denoiser_has_its_limits():
    images = torch.rand(6, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    x = images.flip(0) + 1e-3
    for t in (0.0, 1e-12):  # no noise: the nearest image
        got = ideal(images).net(x, torch.full((6,), t, dtype=F64))
        assert torch.equal(got, images.flip(0))
    pure = ideal(images, Flow()).net(x, torch.ones(6, dtype=F64))  # no data: their mean
    torch.testing.assert_close(pure, images.mean(0).expand_as(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("images", [torch.zeros(0, 1, 2, 2), torch.full((2, 3), math.inf), torch.zeros(3)])
def test_what_is_no_image_set_is_refused(images):
    with pytest.raises(ArgumentError, match="images"):
        ideal(images)
