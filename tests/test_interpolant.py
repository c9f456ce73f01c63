"""Interpolants between two Gaussians, whose velocity and denoiser are linear."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.integrate import run
from longstride.metrics.order import Impulses
from longstride.samplers import plan_interpolant, sample_interpolant

F64 = torch.float64
M0, V0, M1, V1 = -0.5, 0.4, 1.0, 0.1
EPSILONS = {
    "ODE": lambda t: 0.0,
    "gamma": lambda t: gamma(t),
    "bump": lambda t: 4 * t * (1 - t),
}


def gamma(t: float) -> float:
    return math.sqrt(2 * t * (1 - t))


def law(t: float) -> tuple[float, float]:
    """x_t = (1 - t) x_0 + t x_1 + gamma z."""
    return (1 - t) * M0 + t * M1, (1 - t) ** 2 * V0 + t**2 * V1 + gamma(t) ** 2


def velocity(t: float, x: Tensor, one: Tensor | float = 1.0) -> Tensor:
    """E[x_1 - x_0 + gamma' z | x_t], with gamma gamma' = 1 - 2 t."""
    m, v = law(t)
    return (M1 - M0) * one + (t * V1 - (1 - t) * V0 + 1 - 2 * t) / v * (x - m * one)


def denoiser(t: float, x: Tensor, one: Tensor | float = 1.0) -> Tensor:
    m, v = law(t)
    return gamma(t) / v * (x - m * one)


def moments(plan: ls.Plan) -> tuple[float, float]:
    size = 2 + len(plan.steps)
    one, start = torch.eye(size, dtype=F64)[:2, None]
    m, v = law(plan.times[0])
    fields = [lambda t, x, f=f: f(t, x, one) for f in (velocity, denoiser)]
    row = run(fields, plan, m * one + v**0.5 * start, Impulses(size, 2))[0][-1][0]
    return float(row[0]), float(row[1:].square().sum())


@pytest.mark.parametrize("back", [False, True], ids=["to x_1", "to x_0"])
@pytest.mark.parametrize("epsilon", EPSILONS.values(), ids=EPSILONS)
def test_every_epsilon_ends_at_the_law_with_order_2(epsilon, back: bool) -> None:
    ends = (1.0, 0.0) if back else (0.0, 1.0)
    true_m, true_v = law(ends[1])

    def error(nfe: int) -> float:
        m, v = moments(plan_interpolant(gamma, epsilon, nfe, ends))
        return abs(m - true_m) + abs(v - true_v)

    assert error(400) < 0.03 * true_v
    assert math.log2(error(400) / error(800)) > (1.8 if epsilon is not EPSILONS["gamma"] else 1.3)


def test_a_one_sided_interpolant_is_a_flow_with_noise() -> None:
    """x_t = (1 - t) z + t x_1 with epsilon = eta^2 sigma^2 dlambda/dt is a flow's SDE: same law, and the same
    share of what it began with."""
    eta, process = 0.7, ls.process.AlphaSigma(lambda t: 1 - t, lambda t: t, t_min=0.1, t_max=0.9)
    m, v = 0.5, 0.3

    def data(t: float, x: Tensor, one: Tensor) -> Tensor:
        a, s = t, 1 - t
        return m * one + a * v / (a * a * v + s * s) * (x - a * m * one)

    def noise(t: float, x: Tensor, one: Tensor) -> Tensor:
        return (x - t * data(t, x, one)) / (1 - t)

    plan = plan_interpolant(lambda t: 1 - t, lambda t: eta**2 * (1 - t) / t, 1600, (0.1, 0.9))
    size = 2 + len(plan.steps)
    one, start = torch.eye(size, dtype=F64)[:2, None]
    fields = [lambda t, x: data(t, x, one) - noise(t, x, one), lambda t, x: noise(t, x, one)]
    ours = run(fields, plan, start, Impulses(size, 2))[0][-1][0]
    other = ls.plan_sampling(process, "dpmpp_sde", 801, "log_snr", final="sigma_min", eta=eta)
    size = 2 + sum(len(step.brownian) - 1 for step in other.steps if step.brownian)
    one, start = torch.eye(size, dtype=F64)[:2, None]
    theirs = run([lambda t, x: data(1 - t, x, one)] * 4, other, start, Impulses(size, 2))[0][-1][0]
    assert ours[:2].tolist() == pytest.approx(theirs[:2].tolist(), abs=2e-4)
    assert float(ours[1:].square().sum()) == pytest.approx(float(theirs[1:].square().sum()), abs=2e-4)


def test_samples_and_refusals() -> None:
    plan = plan_interpolant(gamma, EPSILONS["bump"], 80)
    x = M0 + V0**0.5 * torch.randn(5000, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    nets = [lambda x, t, f=f: f(float(t[0]), x) for f in (velocity, denoiser)]
    y = sample_interpolant(*nets, x, plan, seed=2)
    assert float(y.mean()) == pytest.approx(M1, rel=0.03)
    assert float(y.var()) == pytest.approx(V1, rel=0.08)
    assert torch.equal(sample_interpolant(*nets, x[:4], plan, seed=2), y[:4])
    assert (plan.nfe, plan_interpolant(gamma, EPSILONS["ODE"], 80).nfe) == (80, 80)
    with pytest.raises(ls.ArgumentError, match="where gamma = 0"):
        plan_interpolant(gamma, lambda t: 1.0, 80)
    with pytest.raises(ls.ArgumentError, match="between two times"):
        plan_interpolant(gamma, EPSILONS["ODE"], 80, (0.0, 2.0))
