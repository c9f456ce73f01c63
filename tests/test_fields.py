"""Corrections that wrap a model: exact where theory says so, nothing where there is nothing to correct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride import compiled
from longstride.fields import calibrated, retimed, shared_times
from longstride.frame import PREDICTIONS
from longstride.learn import time_shift
from longstride.models import mixture

F64 = torch.float64
PROCESSES = {"edm": ls.process.EDM(), "vp": ls.process.VP(), "flow": ls.process.Flow()}
FIELD = {"flow": "velocity"}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def predicting(model: ls.Denoiser, predicts: str, bias: Tensor | None = None) -> ls.Denoiser:
    """The same model, its network predicting something else, with an error that does not depend on x."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        (time,) = set(t.tolist())
        if predicts == "raw":
            time = model.process.time(-4 * time)  # c_noise = log(sigma)/4
            c_skip, c_out, c_in, _ = model.process.preconditioning(time)
            out = (model.fields()[0](time, x / c_in) - c_skip * x / c_in) / c_out
        else:
            out = model.fields()[PREDICTIONS.index(FIELD.get(predicts, predicts))](time, x)
        return out if bias is None else out + bias

    return replace(model, net=net, predicts=predicts)


def test_the_network_is_told_another_time_and_nothing_else_changes() -> None:
    """D = t x of a network that returns t x: told 3 at t = 2, the noise prediction is (x - 3 x)/2."""
    model = ls.Denoiser(lambda x, t: t[:, None] * x, ls.process.EDM(), shape=(2,))
    x = torch.ones(1, 2, dtype=F64)
    data, noise, *_ = (f(2.0, x) for f in retimed(model, lambda t: t + 1).fields())
    assert torch.equal(data, 3 * x)
    assert torch.equal(noise, -x)
    twice = retimed(retimed(model, lambda t: t + 1), lambda t: 10 * t)
    assert torch.equal(twice.fields()[0](2.0, x), 21 * x)


def test_a_preconditioned_network_is_told_the_time_but_scaled_as_at_t() -> None:
    process = ls.process.EDM()
    model = ls.Denoiser(lambda x, t: t[:, None].exp() + x, process, predicts="raw", shape=(2,))
    x = torch.ones(1, 2, dtype=F64)
    c_skip, c_out, c_in, _ = process.preconditioning(2.0)
    noise = torch.tensor(process.preconditioning(3.0)[3], dtype=F64)
    found = retimed(model, lambda t: t + 1).fields()[0](2.0, x)
    assert torch.allclose(found, c_skip * x + c_out * (noise.exp() + c_in * x))


@each_process
def test_sharing_times_below_a_tiny_cutoff_changes_nothing(process) -> None:
    model = mixture(dim=4, process=process)
    x = ls.prior(model, 4, dtype=F64)
    shared = shared_times(model, process.t_min * (1 + 1e-9))
    assert torch.allclose(*(ls.sample(m, x_init=x, nfe=8) for m in (model, shared)), atol=1e-6)


@each_process
def test_within_a_part_the_network_is_told_one_time_and_that_is_never_below_t_min(process) -> None:
    cutoff = process.time(process.lambda_(process.t_min) - 2)
    told = shared_times(mixture(dim=4, process=process), cutoff, parts=4).told
    low, width = process.t_min, (cutoff - process.t_min) / 4
    inside = [low + (k + part) * width for k in range(4) for part in (0.01, 0.5, 0.99)]
    asked = [told(t) for t in inside]
    assert len(set(asked)) == 4
    assert asked == sorted(asked)
    assert all(abs(a - t) <= width / 2 for a, t in zip(asked, inside, strict=True))
    assert told(low / 2) == asked[0] > low
    assert told(cutoff) == cutoff


def test_sharing_times_takes_away_the_slope_in_t() -> None:
    """The exact noise prediction of a VP changes in t as log sigma does; within a part only by its scale."""
    process = PROCESSES["vp"]
    model = predicting(mixture(dim=4, process=process), "noise")
    cutoff = 0.02
    shared = shared_times(model, cutoff, parts=4)
    x = ls.prior(model, 16, dtype=F64) * 0.3
    t = process.t_min + 0.1 * (cutoff - process.t_min) / 4
    plain, flat = ((m.fields()[1](t + 1e-5, x) - m.fields()[1](t, x)).norm() / 1e-5 for m in (model, shared))
    assert plain > 1
    assert flat == 0


@each_process
@pytest.mark.parametrize("predicts", ["data", "noise", "v", "flow", "raw"])
def test_calibration_takes_a_constant_error_away_exactly(process, predicts: str) -> None:
    """With the same data and noises, the same table but for the bias, whatever the network predicts."""
    if (predicts == "raw" and process != PROCESSES["edm"]) or (predicts, process) == (
        "noise",
        PROCESSES["flow"],
    ):
        pytest.skip("raw is EDM's own, and noise says nothing where a flow begins")
    model = mixture(dim=4, process=process)
    bias = torch.tensor([0.3, -0.2, 0.0, 1.0], dtype=F64)
    exact, off = predicting(model, predicts), predicting(model, predicts, bias)
    plan = ls.plan_sampling(process, "dpmpp_2m", 8)
    data = model.net.distribution.sample(200)
    x = ls.prior(model, 5, dtype=F64)
    a, b, wrong = (
        ls.sample(m, x_init=x, plan=plan)
        for m in (*(calibrated(m, data, plan.evaluated) for m in (exact, off)), off)
    )
    assert torch.allclose(a, b, atol=1e-9)
    assert ls.metrics.endpoint_error(wrong, a) > 0.01


@each_process
def test_calibration_of_an_exact_model_is_monte_carlo_error(process) -> None:
    """What it takes off the data prediction is as large as the error of a mean of N: spread/sqrt(N)."""
    model, n = mixture(dim=16, process=process), 4000
    times = ls.plan_sampling(process, "dpmpp_2m", 8).evaluated
    x_0 = model.net.distribution.sample(n)
    right = calibrated(model, x_0, times)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(5), dtype=F64)
    for t in times:
        alpha, sigma = process.pair(t)
        x = alpha * x_0 + sigma * eps
        exact, changed = (m.fields()[0](t, x) for m in (model, right))
        taken, spread = ((a - b).square().mean().sqrt() for a, b in ((changed, exact), (exact, x_0)))
        assert taken < 1.6 * spread / n**0.5


def test_calibration_lowers_the_loss_by_the_square_of_the_mean_error() -> None:
    """The bias of the noise prediction is 0.2 in every element: the loss falls by 0.04 of 0.04 + its rest."""
    model = mixture(dim=4, process=PROCESSES["vp"])
    off = predicting(model, "noise", torch.full((4,), 0.2, dtype=F64))
    right = calibrated(off, model.net.distribution.sample(20000), [0.1, 0.4, 0.8])
    x_0 = model.net.distribution.sample(20000, seed=1)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(5), dtype=F64)
    for t in (0.1, 0.4, 0.8):
        alpha, sigma = model.process.pair(t)
        losses = [(m.fields()[1](t, alpha * x_0 + sigma * eps) - eps).square().mean() for m in (off, right)]
        assert losses[0] - losses[1] == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("make", [
    lambda m: calibrated(m, m.net.distribution.sample(50), [80.0, 5.0, 1.0, 0.002]),
    lambda m: shared_times(m, 1.0),
    lambda m: retimed(m, lambda t: 0.9 * t),
])  # fmt: skip
def test_wrapped_models_compile_and_move_as_others_do(make: Callable, monkeypatch) -> None:
    monkeypatch.setattr(
        compiled, "_compiled", lambda: compiled._advance
    )  # the algebra alone, without a compiler
    model = make(mixture(dim=4))
    stats = ls.Stats()
    x = ls.prior(model, 3, dtype=F64)
    one = ls.sample(model, x_init=x, nfe=7, stats=stats)
    assert torch.allclose(one, ls.sample(model, x_init=x, nfe=7, compile=True), rtol=1e-9, atol=1e-9)
    assert (stats.nfe, stats.network_calls) == (7, 7)
    assert model.to("cpu").device is None


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2, dtype=torch.bfloat16)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.layer(torch.cat([x, t[:, None].log()], 1)) + y[:, None].to(x.dtype)


def test_calibration_keeps_a_networks_precision_and_its_guidance() -> None:
    torch.manual_seed(0)
    model = ls.Denoiser(Net(), ls.process.EDM(), shape=(2,), null={"y": 0.0})
    right = calibrated(model, torch.randn(20, 2), [80.0, 1.0, 0.002], cond={"y": torch.ones(20)})
    assert (right.dtype, right._tensor.dtype) == (torch.float32, torch.bfloat16)  # type: ignore[union-attr]
    x = ls.sample(right, 4, nfe=5, cond={"y": 1.0}, guidance=2.0)
    assert x.dtype == torch.float32


@each_process
def test_a_time_shift_of_no_width_changes_nothing(process) -> None:
    model, plan = mixture(dim=8, process=process), ls.plan_sampling(process, "ddim", 6)
    x = ls.prior(model, 4, dtype=F64)
    shifted = time_shift(model, plan, window=0.0, samples=8)
    assert torch.allclose(*(ls.sample(m, x_init=x, plan=plan) for m in (model, shifted)), atol=1e-9)


@each_process
def test_a_time_shift_stays_in_its_window_and_above_its_cutoff(process) -> None:
    model, plan = mixture(dim=8, process=process), ls.plan_sampling(process, "ddim", 8)
    told = time_shift(model, plan, window=0.4, cutoff=plan.times[4]).told
    shifts = [process.lambda_(told(t)) - process.lambda_(t) for t in plan.times[1:-1]]
    assert max(map(abs, shifts)) <= 0.2 + 1e-9
    assert any(shifts[:3])
    assert shifts[3:] == [0.0] * len(shifts[3:])


@each_process
def test_a_time_shift_lowers_the_error_of_few_long_steps(process) -> None:
    """Measured on noises that the table has not seen, against the converged reference."""
    model, plan = mixture(process=process), ls.plan_sampling(process, "ddim", 6)
    x = ls.prior(model, 64, seed=99)
    reference = ls.reference(model, x, nfe=200)
    shifted = time_shift(model, plan, window=0.2)
    plain, better = (
        ls.metrics.endpoint_error(ls.sample(m, x_init=x, plan=plan), reference) for m in (model, shifted)
    )
    assert better < 0.95 * plain


def test_rf_solver_2_is_the_midpoint_rule_of_the_velocity() -> None:
    """The paper's step, written out: a Taylor polynomial whose v' is a difference over half a step."""
    model = mixture(dim=4, process=PROCESSES["flow"])
    velocity = model.fields()[PREDICTIONS.index("velocity")]
    times = [1.0, 0.7, 0.5, 0.2, 0.05]
    x = found = ls.prior(model, 3, dtype=F64)
    for s, t in pairwise(times):
        h, v = t - s, velocity(s, x)
        slope = (velocity(s + h / 2, x + h / 2 * v) - v) / (h / 2)
        x = x + h * v + h**2 / 2 * slope
    paper, midpoint = (
        ls.plan_sampling(model.process, name, grid=times, final="sigma_min", **options)
        for name, options in (("rf_solver_2", {}), ("midpoint", {"prediction": "velocity"}))
    )
    assert paper.steps == midpoint.steps
    assert torch.allclose(ls.sample(model, x_init=found, plan=paper), x, atol=1e-12)


MIX = mixture(dim=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shared_times(MIX, 0.001), "cutoff"),
        (lambda: shared_times(MIX, 100.0), "cutoff"),
        (lambda: shared_times(MIX, 1.0, parts=0), "parts"),
        (lambda: calibrated(MIX, torch.zeros(3, 5), [2.0, 1.0]), "give x_0"),
        (lambda: calibrated(MIX, torch.zeros(3, 2), [2.0]), "two times"),
        (lambda: calibrated(shared_times(MIX, 1.0), torch.zeros(3, 2), [2.0, 1.0]), "before that"),
        (lambda: time_shift(MIX, ls.plan_sampling(MIX.process, "ddim", 4), window=-1.0), "window"),
        (lambda: time_shift(MIX, ls.plan_sampling(PROCESSES["vp"], "ddim", 4)), "another process"),
        (lambda: time_shift(MIX, ls.plan_sampling(MIX.process, "ddim", 4, t_start=0.1)), "noise alone"),
    ],
)
def test_bad_arguments_say_what_to_do(make: Callable, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        make()
