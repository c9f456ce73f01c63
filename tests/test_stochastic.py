"""Stochastic samplers that are more than a method: restarts."""

from __future__ import annotations

import math

import pytest
import torch

import longstride as ls
from longstride.metrics.order import gaussian_moments
from longstride.models import mixture
from longstride.models.exact import Mixture

RANGES = [(0.3, 2.0, 3, 4), (0.2, 1.0, 2, 3), (0.5, 8.0, 1, 6)]  # overlapping, one within the other


def test_restart_with_no_repetition_is_the_ode() -> None:
    process = ls.process.EDM()
    model = mixture(dim=3, process=process)
    x = ls.prior(model, 4, dtype=torch.float64)
    plan = ls.plan_restart(process, 15, [(0.06, 0.3, 0, 3)])
    heun = ls.sample(model, x_init=x, method="heun", nfe=15)
    assert torch.equal(ls.sample(model, x_init=x, plan=plan), heun)


@pytest.mark.parametrize(
    "process", [ls.process.EDM(sigma_min=0.1, sigma_max=10.0), ls.process.VP(t_min=0.01)]
)
@pytest.mark.parametrize("method", ["heun", "dpmpp_2s"])
def test_restart_keeps_the_distribution_to_the_order_of_its_method(
    process: ls.process.Process, method: str
) -> None:
    high = process.t_max

    def error(n: int) -> float:
        restarts = [(a * high / 10, b * high / 10, repeats, n * steps) for a, b, repeats, steps in RANGES]
        inside = 2 * n * sum(repeats * steps for _, _, repeats, steps in RANGES)
        plan = ls.plan_restart(process, inside + 40 * n, restarts, method, final="sigma_min")
        assert plan.nfe == inside + 40 * n
        m, v, true_m, true_v = gaussian_moments(plan, process, 0.7, 0.25)
        return abs(m - true_m) + abs(v - true_v)

    assert math.log2(error(4) / error(8)) > 1.8
    assert error(8) < 1e-2


def test_each_repetition_of_a_restart_contracts_an_error_as_the_flow_does(tmp_path) -> None:
    """Two runs with the same noise differ by the error: on N(0, c) the flow from t to s scales it as the
    standard deviation does, and a jump does not change it."""
    process, c = ls.process.EDM(sigma_min=0.1, sigma_max=10.0), 0.25
    model = mixture(Mixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1, 1), c)), process)
    x = torch.ones(1, 1, dtype=torch.float64)

    def gap(plan: ls.Plan) -> float:
        a, b = (ls.sample(model, x_init=v, plan=plan, seed=4) for v in (x, 2 * x))
        return float(a - b)

    def at(repeats: int) -> ls.Plan:
        return ls.plan_restart(process, 200 + 400 * repeats, [(0.3, 3.0, repeats, 200)], final="sigma_min")

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
        ls.plan_restart(ls.process.EDM(), 20, restarts, method)
