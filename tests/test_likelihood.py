"""Log-likelihoods: exact where the density is known, and what an estimate of the trace promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.likelihood import dequantized, exact, hutch_plus_plus, hutchinson
from longstride.models import mixture
from longstride.models.exact import Mixture, PosteriorMean, random_mixture
from longstride.noise import Noise

F64 = torch.float64
EDM, VP, FLOW = ls.process.EDM(), ls.process.VP(), ls.process.Flow()
Density = Callable[[Tensor], Tensor]


def density(of: Mixture, process: ls.process.Process, t: float) -> Density:
    """log p of x at t, exactly."""
    alpha, sigma = process.pair(t)

    def log_p(x: Tensor) -> Tensor:
        return of.log_density(x, *(torch.full((len(x),), v, dtype=F64) for v in (alpha, sigma)))

    return log_p


def noised(of: Mixture, process: ls.process.Process, n: int, seed: int = 0) -> Tensor:
    """n draws of the process at t_min."""
    z = Noise(seed, range(n), of.means.shape[1:]).prior()
    return process.add_noise(of.sample(n, seed), process.t_min, z)


def settled(model: ls.Denoiser, x: Tensor, **options: object) -> ls.likelihood.Likelihood:
    """With the exact density at t_max: what is left is the error of the ODE."""
    prior = density(model.net.distribution, model.process, model.process.t_max)
    return ls.log_likelihood(model, x, prior=prior, **options)


CASES = [(EDM, 1, 400), (EDM, 2, 400), (EDM, 8, 600), (VP, 2, 400), (VP, 8, 600), (FLOW, 2, 500)]


@pytest.mark.parametrize(("process", "dim", "nfe"), CASES)
def test_exact_on_gaussian_mixtures(process: ls.process.Process, dim: int, nfe: int) -> None:
    of = random_mixture(dim, 3, seed=1)
    x = noised(of, process, 16)
    found = settled(mixture(of, process), x, nfe=nfe)
    assert (found.log_p - density(of, process, process.t_min)(x)).abs().max() < 1e-6
    assert (found.nfe, found.products) == (nfe, nfe * dim)
    assert not found.standard_error.any()


@pytest.mark.parametrize(
    ("method", "prediction", "order"),
    [
        ("rk4", "v", 4),
        ("rk4", "sigma", 4),
        ("krogstad", "data", 4),
        ("etdrk2", "noise", 2),
        ("abm_2", "velocity", 3),
    ],
)
def test_the_error_falls_with_the_order_of_the_method(method: str, prediction: str, order: int) -> None:
    """In any frame: the log-determinant travels through the rows of the state, linear part and all."""
    of = Mixture([1.0, 2.0], [[0.5], [-0.7]], [[[0.3]], [[0.2]]])
    process = ls.process.EDM(sigma_min=0.1, sigma_max=10.0)
    x = noised(of, process, 8)
    truth = density(of, process, process.t_min)(x)
    options = {"method": method, "prediction": prediction, "grid": "log_snr"}
    nfes = (4 * 32, 4 * 64)
    coarse, fine = ((settled(mixture(of, process), x, nfe=k, **options).log_p - truth).norm() for k in nfes)
    assert abs(math.log2(coarse / fine) - order) < 0.2


def test_densities_integrate_to_one() -> None:
    """Also with the Gaussian prior, which is a density itself: the ODE carries mass and loses none."""
    of = Mixture([1.0, 2.0], [[0.5], [-0.7]], [[[0.05]], [[0.1]]])
    x = torch.linspace(-4, 4, 801, dtype=F64)[:, None]
    found = ls.log_likelihood(mixture(of, FLOW), x, nfe=200, batch=801)
    assert torch.trapezoid(found.log_p.exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_the_density_of_a_turned_mixture_is_turned() -> None:
    of = random_mixture(3, 2, seed=0)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))).Q
    turned = Mixture(of.weights, of.means @ turn.mT, turn @ of.covs @ turn.mT)
    x = noised(of, VP, 4)
    a = ls.log_likelihood(mixture(of, VP), x, nfe=20)
    b = ls.log_likelihood(mixture(turned, VP), x @ turn.mT, nfe=20)
    assert torch.allclose(a.log_p, b.log_p, atol=1e-9, rtol=0)
    assert torch.allclose(a.z @ turn.mT, b.z, atol=1e-9, rtol=0)


def test_z_is_where_sampling_begins() -> None:
    of = random_mixture(2, 2, seed=0)
    model, x = mixture(of, EDM), noised(of, EDM, 4)
    z = ls.log_likelihood(model, x, nfe=400).z
    plan = ls.plan_sampling(EDM, "rk4", 400, "log_snr", prediction="velocity", final="sigma_min")
    assert torch.allclose(ls.sample(model, x_init=z, plan=plan), x, atol=1e-4)


class Labelled(torch.nn.Module):
    """A mixture for label 0, another for label 1, and both as one for the null label 2."""

    def __init__(self, process: ls.process.Process, *parts: Mixture):
        super().__init__()
        both = Mixture(*(torch.cat([getattr(p, k) for p in parts]) for k in ("weights", "means", "covs")))
        self.nets = [PosteriorMean(p, process) for p in (*parts, both)]

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        y = torch.full((len(x),), 2) if y is None else y
        answers = torch.stack([net(x, t) for net in self.nets])
        return answers[y, torch.arange(len(x))]


def test_conditions_and_batches_are_dealt_out() -> None:
    parts = [random_mixture(2, 2, seed=s) for s in (0, 1)]
    model = ls.Denoiser(Labelled(VP, *parts), VP, shape=(2,), null={"y": 2})
    x, y = noised(parts[0], VP, 6), torch.tensor([0, 1, 1, 0, 1, 0])
    found = ls.log_likelihood(model, x, nfe=30, cond={"y": y})
    alone = torch.stack([ls.log_likelihood(mixture(p, VP), x, nfe=30).log_p for p in parts])
    assert torch.allclose(found.log_p, alone[y, torch.arange(6)], atol=1e-9)
    for trace, probes in (("hutchinson", 2), ("hutch++", 4)):
        options = {"nfe": 10, "trace": trace, "probes": probes, "seed": 3}
        whole = ls.log_likelihood(model, x, cond={"y": y}, **options)
        parted = ls.log_likelihood(model, x, cond={"y": y}, batch=4, **options)
        first = ls.log_likelihood(model, x[:2], cond={"y": y[:2]}, **options)
        assert torch.allclose(whole.log_p, parted.log_p, atol=1e-9)
        assert torch.allclose(whole.log_p[:2], first.log_p, atol=1e-9)


def test_guidance_of_weight_one_and_between() -> None:
    """Weight 1 is plain; one Gaussian guided from another of its width is again one, of a moved mean."""
    narrow, wide = Mixture([1.0], [[1.0]], [[[0.2]]]), Mixture([1.0], [[0.0]], [[[0.2]]])
    nets = [PosteriorMean(m, FLOW) for m in (narrow, wide)]
    model = ls.Denoiser(
        lambda x, t, y: torch.stack([net(x, t) for net in nets])[y, torch.arange(len(x))], FLOW, shape=(1,),
        null={"y": 1},
    )  # fmt: skip
    x = torch.linspace(-1, 3, 9, dtype=F64)[:, None]
    moved = Mixture([1.0], [[2.5]], [[[0.2]]])
    found = ls.log_likelihood(model, x, nfe=400, cond={"y": 0}, guidance=2.5)
    assert torch.allclose(found.log_p, density(moved, FLOW, FLOW.t_min)(x), atol=1e-6)


def random_products(n: int, d: int, rank: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """J^T v for n matrices of a rank, not symmetric, and their traces."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, d, rank, generator=g, dtype=F64) for _ in range(2))
    return lambda v: torch.einsum("bdr,ber,be->bd", a, b, v), (a * b).sum((1, 2))


def drawn(n: int, probes: int, d: int) -> Tensor:
    noise = Noise(0, range(n), (d,))
    return torch.stack([noise.probe(k) for k in range(probes)], 1)


def test_hutch_plus_plus_is_exact_up_to_the_rank_of_its_sketch() -> None:
    product, trace = random_products(5, 9, rank=3)
    found = hutch_plus_plus(product, drawn(5, 9, 9))
    assert torch.allclose(found, trace[:, None].expand(5, 3), atol=1e-9)
    assert torch.allclose(exact(product, torch.empty(5, 0, 9, dtype=F64)), trace[:, None], atol=1e-9)
    assert torch.allclose(hutch_plus_plus(product, drawn(5, 30, 9)), trace[:, None], atol=1e-9)  # S is wider
    multiple = torch.arange(1.0, 6, dtype=F64)[:, None]  # of the identity
    for estimate in (hutchinson, hutch_plus_plus):
        assert torch.allclose(estimate(lambda v: multiple * v, drawn(5, 3, 9)), 9 * multiple)


@pytest.mark.parametrize(("trace", "probes"), [("hutchinson", 8), ("hutch++", 24)])
def test_estimates_are_unbiased_and_know_their_error(trace: str, probes: int) -> None:
    """Eight estimates each: Student's t with 7 degrees of freedom has variance 7/5."""
    of, n = random_mixture(30, 3, seed=2), 400
    model, x = mixture(of, VP), noised(of, VP, 1)
    options = {"nfe": 12, "method": "heun"}
    truth = ls.log_likelihood(model, x, **options).log_p
    found = ls.log_likelihood(model, x.expand(n, -1), trace=trace, probes=probes, **options)
    t = (found.log_p - truth) / found.standard_error
    assert abs(t.mean()) < 4 * (7 / 5 / n) ** 0.5
    assert t.square().mean().item() == pytest.approx(7 / 5, rel=0.35)
    assert found.products == 12 * probes


def test_one_probe_has_no_standard_error() -> None:
    model = mixture(random_mixture(3, 2))
    found = ls.log_likelihood(model, torch.zeros(2, 3), nfe=4, trace="hutchinson")
    assert found.standard_error.isnan().all()


def test_bits_are_of_discrete_images() -> None:
    """Under a density that is even over the cells' range, every one of 17 levels takes log2 17 bits."""
    x = torch.randint(17, (50, 2, 3), generator=torch.Generator().manual_seed(0)) / 8 - 1
    moved = dequantized(x, 17, seed=1)
    assert torch.equal(((moved + 1) * 8).round(), (x + 1) * 8)
    assert torch.equal(moved[:3], dequantized(x[:3], 17, seed=1))
    even = torch.full((50,), -6 * math.log(2 + 2 / 16))  # nats: the range is a cell wider than 2
    found = ls.likelihood.Likelihood(even, even * 0, moved, 1, 1)
    assert torch.allclose(found.bits(17), torch.tensor(math.log2(17)))
    with pytest.raises(ls.ArgumentError, match="16 grey values"):
        dequantized(x, 16)


MODEL = mixture(random_mixture(2, 2))
X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trace": "hutchison"}, "did you mean hutchinson"),
        ({"trace": "hutchinson", "probes": 0}, "probes = 0"),
        ({"trace": "hutch++", "probes": 2}, "at least 3"),
        ({"trace": "hutchinson", "probes": 1.5}, "whole number"),
        ({"nfe": 0}, "nfe = 0"),
        ({"method": "sa_solver_2"}, "take abm_4"),
        ({"method": "rk5"}, "did you mean"),
        ({"grid": [80.0]}, "one time"),
        ({"grid": "karas"}, "did you mean karras"),
        ({"cond": {"y": [1, 2]}}, "2 entries for 3 samples"),
        ({"guidance": 2.0}, "null condition"),
    ],
)
def test_bad_arguments_say_what_to_do(arguments: dict, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        ls.log_likelihood(MODEL, X, **arguments)


@pytest.mark.parametrize("x", [None, X.int(), X[:0], torch.zeros(3, 5), torch.zeros(2)])
def test_x_must_fit(x: object) -> None:
    with pytest.raises(ls.ArgumentError, match="x "):
        ls.log_likelihood(MODEL, x)


def test_a_frame_that_is_infinite_is_refused() -> None:
    with pytest.raises(ls.ArgumentError, match="prediction='velocity'"):
        ls.log_likelihood(mixture(random_mixture(2, 2), FLOW), X, method="krogstad")


@pytest.mark.parametrize("cut", [Tensor.detach, lambda x: torch.from_numpy(x.detach().numpy())])
def test_a_network_without_a_derivative_is_named(cut: Callable[[Tensor], Tensor]) -> None:
    layer = torch.nn.Linear(2, 2)

    class Net(torch.nn.Module):
        """Its parameters have derivatives, its input has none."""

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return layer(cut(x))

    with pytest.raises(ls.SolveError, match="does not depend on x by autograd"):
        ls.log_likelihood(replace(MODEL, net=Net()), X)


def test_a_prior_of_another_shape_is_refused() -> None:
    with pytest.raises(ls.SolveError, match="prior must return"):
        ls.log_likelihood(MODEL, X, nfe=4, prior=lambda z: z)
