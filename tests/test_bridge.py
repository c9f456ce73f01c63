"""Bridges between jointly Gaussian pairs, where the denoiser and so every law is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.frame import PREDICTIONS
from longstride.integrate import run
from longstride.methods import get
from longstride.metrics.order import Impulses, diffusion_trial, measured_order, without_noise
from longstride.samplers import Bridge, plan_bridge

F64 = torch.float64
BROWNIAN = Bridge(ls.process.AlphaSigma(torch.ones_like, torch.sqrt, t_min=1e-3, name="brownian"))
VP = Bridge(ls.process.VP(t_min=0.02))
SMOOTH = {  # without the ends, where order 3 on the Brownian bridge changes sign
    BROWNIAN: Bridge(
        ls.process.AlphaSigma(torch.ones_like, torch.sqrt, t_min=0.1, name="brownian"), t_max=0.9
    ),
    VP: VP,
}
BRIDGES = pytest.mark.parametrize("bridge", [BROWNIAN, VP], ids=["Brownian", "VP"])
SLOPE, VARIANCE = 0.6, 0.3  # of x_0 given x_T, which is SLOPE x_T + N(0, VARIANCE)


def functional(plan: ls.Plan, bridge: Bridge, slope: float = SLOPE, variance: float = VARIANCE) -> Tensor:
    """The weights of x_T and of each normal in what the plan ends with: no sampling.

    With x_0 | x_T ~ N(s x_T, v), E[x_0 | x_t, x_T] = s x_T + b v/(b^2 v + c^2) (x_t - (a + b s) x_T).
    """
    size = 1 + sum(len(step.brownian) - 1 for step in plan.steps if step.brownian)
    x_T = torch.eye(size, dtype=F64)[:1]

    def field(t: float, x: Tensor) -> Tensor:
        if t == bridge.t_pin:
            return slope * x_T
        b, c = bridge.pair(t)
        return slope * x_T + b * variance / (b * b * variance + c * c) * (
            x - (bridge.pull(t) + b * slope) * x_T
        )

    return run([field] * len(PREDICTIONS), plan, x_T, Impulses(size, 1))[0][-1][0]


def at_t_min(bridge: Bridge, method: str, nfe: int, **options: object) -> tuple[float, float]:
    """Errors of the weight of x_T and of the variance given it."""
    plan = plan_bridge(bridge, method, nfe, "log_snr", final="sigma_min", **options)
    row, (b, c) = functional(plan, bridge), bridge.pair(bridge.t_min)
    return (
        float(row[0]) - bridge.pull(bridge.t_min) - b * SLOPE,
        float(row[1:].square().sum()) - b * b * VARIANCE - c * c,
    )


def test_the_brownian_bridge_is_the_textbooks() -> None:
    for t in (0.001, 0.3, 0.9):
        assert BROWNIAN.pull(t) == pytest.approx(t)
        assert BROWNIAN.pair(t) == pytest.approx((1 - t, math.sqrt(t * (1 - t))))
    assert BROWNIAN.pull(1.0) == 1.0
    assert VP.pull(VP.t_pin) == pytest.approx(1.0)


@BRIDGES
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_every_eta_keeps_the_marginals_given_x_0(bridge: Bridge, eta: float) -> None:
    """With x_0 known (variance 0), x_t has mean a x_T + b x_0 and variance c^2 at every step."""
    plan = plan_bridge(bridge, "ddim", 9, final="sigma_min", eta=eta)
    for n in range(1, len(plan.steps) + 1):
        part = ls.Plan(plan.times[: n + 1], plan.steps[:n])
        row, t = functional(part, bridge, variance=0.0), plan.times[n]
        b, c = bridge.pair(t)
        assert float(row[0]) == pytest.approx(bridge.pull(t) + b * SLOPE, rel=1e-10)
        assert float(row[1:].square().sum()) == pytest.approx(c * c, rel=1e-9)


@BRIDGES
@pytest.mark.parametrize(
    ("method", "order"), [("ddim", 1), ("exp_adams_2", 2), ("exp_adams_3", 3), ("dpmpp_2s", 2)]
)
def test_the_order_is_that_of_the_method(bridge: Bridge, method: str, order: int) -> None:
    """About the moving mean, with exact starting values; and from the booting noise, where the first step
    after it is of order 1, so that no more than 2 is sure. The flow takes y on as the root of its variance.
    """
    bridge = SMOOTH[bridge]
    options = {"prediction": "data"} if method.startswith("exp") else {}
    whole = get(method, **options, **without_noise(method))
    slope = measured_order(whole, diffusion_trial(bridge, "data"))
    assert slope == pytest.approx(order, abs=0.2)

    def error(nfe: int) -> float:
        plan = plan_bridge(bridge, method, nfe, "log_snr", final="sigma_min", **options)
        (b, c), (b1, c1) = bridge.pair(bridge.t_min), bridge.pair(bridge.t_max)
        std = math.sqrt((b * b * VARIANCE + c * c) / (b1 * b1 * VARIANCE + c1 * c1)) * c1
        return abs(float(functional(plan, bridge)[1]) - std)

    n = 201 if method == "dpmpp_2s" else 200
    assert math.log2(error(n) / error(2 * n - 1)) > min(order, 2) - 0.2


@BRIDGES
def test_noise_on_the_way_converges_too(bridge: Bridge) -> None:
    for eta in (0.4, 1.0):
        coarse, fine = (at_t_min(bridge, "ddim", n, eta=eta)[1] for n in (100, 200))
        assert math.log2(abs(coarse) / abs(fine)) > 0.8


def euler_maruyama(nfe: int) -> float:
    """Variance at t_min by uniform steps of the VP bridge's reverse SDE, from the law at t_max."""
    times = torch.linspace(VP.t_max, VP.t_min, nfe + 1, dtype=F64).tolist()
    b, c = VP.pair(times[0])
    v = b * b * VARIANCE + c * c
    for s, t in pairwise(times):
        (b, c), beta = VP.pair(s), 0.1 + 19.9 * s
        tie = 1 / (VP.base.sigma(s) ** 2 * math.expm1(2 * (VP.base.lambda_(s) - VP.base.lambda_(VP.t_pin))))
        drift = beta * (0.5 - 1 / (b * b * VARIANCE + c * c) + tie)  # of x about its mean, backwards
        v = (1 + (s - t) * drift) ** 2 * v + (s - t) * beta
    return v


def test_ten_steps_beat_euler_maruyama_three_times() -> None:
    b, c = VP.pair(VP.t_min)
    theirs = abs(euler_maruyama(10) - b * b * VARIANCE - c * c)
    ours = abs(at_t_min(VP, "exp_adams_2", 10, prediction="data")[1])
    assert theirs > 3 * ours


def model(bridge: Bridge) -> ls.Denoiser:
    def net(x: Tensor, t: Tensor, x_T: Tensor) -> Tensor:
        if float(t[0]) == bridge.t_pin:
            return SLOPE * x_T
        b, c = bridge.pair(float(t[0]))
        shift = x - (bridge.pull(float(t[0])) + b * SLOPE) * x_T
        return SLOPE * x_T + b * VARIANCE / (b * b * VARIANCE + c * c) * shift

    return ls.Denoiser(net, bridge, shape=(1,))


@BRIDGES
def test_samples_through_the_usual_call(bridge: Bridge, tmp_path) -> None:
    x_T = torch.linspace(-2, 2, 4000, dtype=F64)[:, None]
    plan = plan_bridge(bridge, "exp_adams_3", 20, grid="log_snr", prediction="data")
    assert plan.nfe == 20
    x = ls.sample(model(bridge), x_init=x_T, plan=plan, cond={"x_T": x_T}, seed=3)
    assert float((x - SLOPE * x_T).var()) == pytest.approx(VARIANCE, rel=0.08)
    few = ls.sample(model(bridge), x_init=x_T[:3], plan=plan, cond={"x_T": x_T[:3]}, seed=3)
    assert torch.equal(few, x[:3])
    plan.save(tmp_path / "bridge.json")
    assert ls.Plan.load(tmp_path / "bridge.json").steps == plan.steps


def test_any_history_is_carried_and_another_prediction_is_refused() -> None:
    flat = functional(plan_bridge(VP, "unipc_3", 12, final="sigma_min", prediction="data"), VP, 0.6, 0.0)
    b, _ = VP.pair(VP.t_min)
    assert float(flat[0]) == pytest.approx(VP.pull(VP.t_min) + b * SLOPE, rel=1e-9)
    with pytest.raises(ls.ArgumentError, match="prediction='data'"):
        plan_bridge(VP, "euler", 8)
    with pytest.raises(ls.ArgumentError, match="boots"):
        plan_bridge(VP, "ddim", 1)
    with pytest.raises(ls.ArgumentError, match="alpha > 0"):
        Bridge(ls.process.Flow())
    with pytest.raises(ls.PlanError, match="another process"):
        ls.sample(model(VP), x_init=torch.zeros(2, 1), plan=plan_bridge(BROWNIAN, "ddim", 4))
