"""Stochastic samplers that are more than a method: restarts, Langevin correctors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.core import Stage, Step
from longstride.methods import get
from longstride.metrics.order import gaussian_moments, weak_order
from longstride.models import mixture
from longstride.models.exact import Mixture
from longstride.noise import Noise
from longstride.samplers.langevin import langevin

EDM = ls.process.EDM(sigma_min=0.1, sigma_max=10.0)
RANGES = [(0.3, 2.0, 3, 4), (0.2, 1.0, 2, 3), (0.5, 8.0, 1, 6)]  # overlapping, one within the other


def test_restart_with_no_repetition_is_the_ode() -> None:
    process = ls.process.EDM()
    model = mixture(dim=3, process=process)
    x = ls.prior(model, 4, dtype=torch.float64)
    plan = ls.samplers.plan_restart(process, 15, [(0.06, 0.3, 0, 3)])
    heun = ls.sample(model, x_init=x, method="heun", nfe=15)
    assert torch.equal(ls.sample(model, x_init=x, plan=plan), heun)


@pytest.mark.parametrize("process", [EDM, ls.process.VP(t_min=0.01)])
@pytest.mark.parametrize("method", ["heun", "dpmpp_2s"])
def test_restart_keeps_the_distribution_to_the_order_of_its_method(
    process: ls.process.Process, method: str
) -> None:
    high = process.t_max

    def error(n: int) -> float:
        restarts = [(a * high / 10, b * high / 10, repeats, n * steps) for a, b, repeats, steps in RANGES]
        inside = 2 * n * sum(repeats * steps for _, _, repeats, steps in RANGES)
        plan = ls.samplers.plan_restart(process, inside + 40 * n, restarts, method, final="sigma_min")
        assert plan.nfe == inside + 40 * n
        m, v, true_m, true_v = gaussian_moments(plan, process, 0.7, 0.25)
        return abs(m - true_m) + abs(v - true_v)

    assert math.log2(error(4) / error(8)) > 1.8
    assert error(8) < 1e-2


def test_each_repetition_of_a_restart_contracts_an_error_as_the_flow_does(tmp_path) -> None:
    """Two runs with the same noise differ by the error: on N(0, c) the flow from t to s scales it as the
    standard deviation does, and a jump does not change it."""
    process, c = EDM, 0.25
    model = mixture(Mixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1, 1), c)), process)
    x = torch.ones(1, 1, dtype=torch.float64)

    def gap(plan: ls.Plan) -> float:
        a, b = (ls.sample(model, x_init=v, plan=plan, seed=4) for v in (x, 2 * x))
        return float(a - b)

    def at(repeats: int) -> ls.Plan:
        return ls.samplers.plan_restart(
            process, 200 + 400 * repeats, [(0.3, 3.0, repeats, 200)], final="sigma_min"
        )

    low = at(0).times[1:-1]
    near = min(low, key=lambda t: abs(math.log(t / 0.3)))
    ratio = math.sqrt((c + near**2) / (c + 9.0))
    assert gap(at(2)) / gap(at(0)) == pytest.approx(ratio**2, rel=1e-3)
    at(1).save(tmp_path / "restart.json")
    loaded = ls.Plan.load(tmp_path / "restart.json")
    assert torch.equal(ls.sample(model, x_init=x, plan=loaded), ls.sample(model, x_init=x, plan=at(1)))


@pytest.mark.parametrize(
    ("restarts", "method", "says"),
    [
        ([(2.0, 1.0, 1, 3)], "heun", "t_min < t_max"),
        ([(0.1, 1.0, 1, 0)], "heun", "at least one step"),
        ([(0.1, 1.0, 9, 3)], "heun", "fewer repetitions"),
        ([(0.1, 1.0, 1, 3)], "dpmpp_2m", "history"),
        ([(0.1, 1.0, 1, 3)], "ddpm", "noise of its own"),
    ],
)
def test_a_restart_that_cannot_be_says_why(restarts: list, method: str, says: str) -> None:
    with pytest.raises(ls.ArgumentError, match=says):
        ls.samplers.plan_restart(ls.process.EDM(), 20, restarts, method)


def gaussian(process: ls.process.Process, variances: Tensor) -> ls.Denoiser:
    """N(0, variances) in many dimensions, where a norm is its expectation."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (w[:, None] for w in process.pair(t))
        return alpha * variances / (alpha**2 * variances + sigma**2) * x

    return ls.Denoiser(net, process, shape=variances.shape)


def test_langevin_steps_have_the_variance_of_their_snr() -> None:
    """On N(0, v) a step makes V to (1 - e/v)^2 V + 2 e with e = 2 r^2 v^2/V, at rest when V = (1 + r^2) v."""
    model = gaussian(EDM, torch.full((40_000,), 0.25))
    t, r, noise = 1.0, 0.3, Noise(0, range(2), (40_000,))
    x = noise.prior().float() * torch.tensor([[0.7], [2.0]])
    for k in range(60):
        x = langevin(model.fields(), t, t, x, noise.increment(k + 1, k + 2).to(x), r)
    assert x.var(1) == pytest.approx((1 + r**2) * (0.25 + t**2), rel=0.03)


@pytest.mark.parametrize(
    "process",
    [ls.process.VE(sigma_max=10.0), ls.process.VP(), ls.process.SubVP()],
    ids=["VE", "VP", "sub-VP"],
)
def test_predictor_and_corrector_sample_the_data(process: ls.process.Process) -> None:
    variances = torch.cat([torch.full((20_000,), 0.25), torch.full((20_000,), 1.0)])
    model = gaussian(process, variances)
    alpha, sigma = process.pair(process.t_max)
    x_init = ls.prior(model, 1, dtype=torch.float64) * (alpha**2 * variances / sigma**2 + 1).sqrt()
    x = ls.samplers.sample_langevin(model, x_init, 300, predictor="accelerated_ddpm", snr=0.08)
    for part, v in zip(x.chunk(2, 1), (0.25, 1.0), strict=True):
        assert float(part.var()) == pytest.approx(v, rel=0.03)


def test_without_correctors_only_the_predictor_is_left() -> None:
    model = mixture(dim=3)
    x = ls.prior(model, 4, dtype=torch.float64)
    alone = ls.sample(model, x_init=x, method="ddpm", nfe=7, seed=5)
    assert torch.equal(
        ls.samplers.sample_langevin(model, x, 7, predictor="ddpm", correctors=0, seed=5), alone
    )


@pytest.mark.parametrize("nfe", [4, 8, 11])
@pytest.mark.parametrize("correctors", [1, 2])
def test_correctors_keep_the_budget_and_samples_their_noise(nfe: int, correctors: int) -> None:
    exact, calls = mixture(dim=3), 0

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return exact.net(x, t)

    model = ls.Denoiser(net, exact.process, shape=(3,))
    x = ls.prior(model, 5, dtype=torch.float64)
    many = ls.samplers.sample_langevin(model, x, nfe, correctors=correctors, seed=3)
    assert calls == nfe
    few = ls.samplers.sample_langevin(model, x[:2], nfe, correctors=correctors, seed=3)
    assert torch.allclose(few, many[:2], rtol=1e-12, atol=1e-12)


def test_a_predictor_that_does_not_fit_is_refused() -> None:
    model = mixture(dim=3)
    x = ls.prior(model, 2)
    for arguments in ({"predictor": "heun"}, {"predictor": "dpmpp_2m"}, {"snr": 0.0}, {"correctors": 9}):
        with pytest.raises(ls.ArgumentError):
            ls.samplers.sample_langevin(model, x, 8, **arguments)


@pytest.mark.parametrize(
    ("order", "options", "weak"),
    [
        (1, {"corrector": False}, 1),
        (2, {"corrector": False}, 2),
        (3, {"tau_range": (0.2, 2.0)}, 2),
        (3, {"tau": 0.5, "tau_range": (0.5, 20.0)}, 2),
    ],
)
def test_sa_solver_may_leave_out_its_corrector_or_its_noise(order: int, options: dict, weak: int) -> None:
    process = ls.process.EDM(sigma_min=0.05, sigma_max=10.0)
    assert get(f"sa_solver_{order}", **options).order == weak
    assert weak_order(f"sa_solver_{order}", process, 128, **options) == pytest.approx(weak, abs=0.25)


def test_churn_raises_sigma_as_the_algorithm_says() -> None:
    """The row of x_hat: weight 1 of x, sqrt(sigma_hat^2 - sigma^2) S_noise of xi, evaluated at sigma_hat."""
    times = [8.0, 4.0, 2.0, 1.0, 0.0]
    plan = ls.plan_sampling(
        ls.process.EDM(), "edm_churn", grid=times, s_churn=1.0, s_tmin=1.5, s_tmax=6.0, s_noise=1.1
    )
    first, inside, last, _ = plan.steps
    assert first.brownian is None  # 8 is above s_tmax
    assert last.stages[0].at == pytest.approx(2 * 1.25)
    row = inside.stages[0]
    assert (row.x, row.at) == ((1.0,), pytest.approx(4 * 1.25))
    assert row.z == pytest.approx((1.1 * math.sqrt(5**2 - 4**2),))


@pytest.mark.parametrize("marks", [(1.0,), (1.0, 1.0), (2.0, 1.0, 3.0), (0.0, 1.0), (1.0, math.inf)])
def test_noise_without_an_interval_is_refused(marks: tuple[float, ...]) -> None:
    step = Step((Stage((1.0,), z=(1.0,)),), brownian=marks)
    with pytest.raises(ls.PlanError, match="Brownian"):
        ls.Plan((2.0, 1.0), (step,))


def test_only_noise_goes_back_in_time() -> None:
    down, jump = Step((Stage((0.5,)),)), Step((Stage((1.0,), z=(1.0,)),), brownian=(1.0, 2.0))
    assert ls.Plan((3.0, 1.0, 2.0, 0.5), (down, jump, down)).stochastic
    with pytest.raises(ls.PlanError, match="one way"):
        ls.Plan((3.0, 1.0, 2.0, 0.5), (down, down, down))
