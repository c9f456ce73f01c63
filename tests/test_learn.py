"""Plans made for one model: what the fit must improve, and what it must leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.frame import Frame
from longstride.learn import dpm_solver_v3, iia, model_statistics
from longstride.methods import Method, get
from longstride.methods.adams import exact, predictor_corrector
from longstride.metrics.order import diffusion_trial, measured_order
from longstride.models import mixture
from longstride.models.exact import Mixture

F64 = torch.float64
PROCESSES = {"edm": ls.process.EDM(), "vp": ls.process.VP(), "flow": ls.process.Flow()}
LAMBDAS = np.linspace(-3, 5, 20001)  # so fine that the corners of the table do not show
CURVED = {
    "lambda": LAMBDAS.tolist(),
    "l": (0.5 + 0.3 * np.sin(LAMBDAS)).tolist(),
    "s": (0.4 * np.cos(LAMBDAS) - 0.2).tolist(),
}


def constant(l: float, s: float) -> dict[str, list[float]]:  # noqa: E741
    return {"lambda": [-1.0, 1.0], "l": [l, l], "s": [s, s]}


def held_out(model: ls.Denoiser) -> tuple[Tensor, Tensor]:
    noise = ls.prior(model, 64, seed=99, dtype=F64)
    return noise, ls.reference(model, noise)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_improved_integration_halves_the_error_of_ddim_on_noises_it_has_not_seen(process) -> None:
    model = mixture(process=process)
    noise, truth = held_out(model)
    plain, fitted = (
        ls.metrics.endpoint_error(ls.sample(model, x_init=noise, plan=plan), truth)
        for plan in (ls.plan_sampling(process, "ddim", 8), iia(model, 8))
    )
    assert fitted < plain / 2


@pytest.mark.parametrize("method", ["dpmpp_2m", "unipc_2", "heun", "f_pndm", "bdia", "dpm_v3_2"])
def test_improved_integration_keeps_the_budget_of_any_method_and_misses_less(method: str) -> None:
    model = mixture(dim=8, process=PROCESSES["vp"])
    base, plan = ls.plan_sampling(model.process, method, 15), iia(model, 15, method=method, memory=3)
    assert plan.nfe == base.nfe == 15
    assert plan.times == base.times
    assert all(after <= before + 1e-12 for before, after in plan.report["step_error"])
    assert sum(after < 0.9 * before for before, after in plan.report["step_error"]) > len(plan.steps) / 2


@pytest.mark.parametrize("method", ["ddim", "f_pndm", "unipc_3", "dpm_v3_2"])
def test_improved_integration_changes_nothing_where_the_method_is_exact(method: str) -> None:
    """A constant data prediction is integrated exactly, so the nearest exact weights are the method's own."""
    c = torch.tensor([0.3, -0.7], dtype=F64)
    model = ls.Denoiser(lambda x, t: c.expand_as(x), PROCESSES["vp"], shape=(2,))
    noise = ls.prior(model, 4, dtype=F64)
    plan = iia(model, 15, method=method, memory=4)
    base = ls.plan_sampling(model.process, method, 15)
    ours, theirs = (ls.sample(model, x_init=noise, plan=p) for p in (plan, base))
    assert torch.allclose(ours, theirs, atol=1e-8)
    for fitted, step in zip(plan.steps, base.steps, strict=True):
        row = fitted.stages[-1].f[-len(step.stages[-1].f) :]
        if method != "f_pndm":  # its start keeps others than the newest
            assert np.allclose(row, step.stages[-1].f, atol=1e-6)


def test_improved_integration_is_for_deterministic_methods() -> None:
    with pytest.raises(ls.ArgumentError, match="deterministic"):
        iia(mixture(dim=2), 5, method="ddpm")
    with pytest.raises(ls.ArgumentError, match="at least 1"):
        iia(mixture(dim=2), 5, memory=0)


@pytest.mark.parametrize("make", [iia, dpm_solver_v3])
def test_a_fitted_plan_is_saved_and_is_the_same_for_the_same_seed(make, tmp_path: Path) -> None:
    model = mixture(dim=4)
    plan = make(model, 6, samples=16, seed=3)
    plan.save(tmp_path / "plan.json")
    loaded = ls.Plan.load(tmp_path / "plan.json")
    assert loaded.steps == plan.steps == make(model, 6, samples=16, seed=3).steps
    assert loaded.report == plan.report
    assert loaded.report["evaluations"] > 0
    x = ls.sample(model, 3, plan=loaded)
    assert torch.equal(x, ls.sample(model, 3, plan=plan))


def test_it_fits_a_trained_network_in_its_own_precision() -> None:
    model = ls.load("digits")
    noise = ls.prior(model, 16, seed=5)
    truth = ls.reference(model, noise, nfe=64)
    plain, fitted = (
        ls.metrics.endpoint_error(ls.sample(model, x_init=noise, plan=plan), truth)
        for plan in (ls.plan_sampling(model.process, "ddim", 6), iia(model, 6, samples=16))
    )
    assert fitted < plain


def test_the_statistics_of_a_gaussian_are_its_own() -> None:
    """x0_hat = alpha v x/(alpha^2 v + sigma^2) has the trace that l wants, and leaves f = 0 to s."""
    process, v = PROCESSES["vp"], 0.25
    data = Mixture(torch.ones(1), torch.zeros(1, 3), v * torch.eye(3)[None])
    found = model_statistics(mixture(data, process), samples=8, points=9)
    for lam, l in zip(found["lambda"], found["l"], strict=True):  # noqa: E741
        alpha, sigma = process.pair(process.time(lam))
        assert l == pytest.approx(sigma**2 / (alpha**2 * v + sigma**2), abs=1e-5)


def end(method: Method, model: ls.Denoiser, steps: int = 8) -> Tensor:
    times = ls.grid.times(model.process, steps + 1, "log_snr")
    xs, fs = [ls.prior(model, 4, dtype=F64)], []
    for n in range(steps):
        xs, fs = ls.advance(
            model.fields(), method.step(times, n, Frame(model.process, method.prediction)), xs, fs
        )
    return xs[-1]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("prediction", "l", "s"), [("data", 1.0, 0.0), ("noise", 0.0, -1.0)])
def test_constant_statistics_are_dpm_solver_with_a_corrector(prediction, l, s, k) -> None:  # noqa: E741
    model = mixture(dim=3, components=3, process=PROCESSES["vp"])
    ours = get(f"dpm_v3_{k}", statistics=constant(l, s))
    known = predictor_corrector(k, exact, prediction, lower_order_final=True)
    assert torch.allclose(end(ours, model), end(known, model), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("k", "n"), [(1, 200), (2, 100), (3, 100)])
def test_any_smooth_statistics_keep_the_order(k: int, n: int) -> None:
    method = get(f"dpm_v3_{k}", statistics=CURVED, lower_order_final=False)
    trial = diffusion_trial(ls.process.EDM(sigma_min=0.5, sigma_max=4.0), "data")
    assert abs(measured_order(method, trial, n) - (k + 1)) < 0.2


def test_a_gaussian_is_sampled_exactly_with_its_own_statistics() -> None:
    """f = 0, so the linear part is all there is: one step from end to end, but for the table of l."""
    process, v = ls.process.VP(t_min=0.05, t_max=0.9), 0.25
    model = mixture(Mixture(torch.ones(1), torch.zeros(1, 3), v * torch.eye(3)[None]), process)
    lambdas = np.linspace(process.lambda_(0.9), process.lambda_(0.05), 2001)
    pairs = [process.pair(process.time(lam)) for lam in lambdas]
    l = [s**2 / (a**2 * v + s**2) for a, s in pairs]  # noqa: E741
    statistics = {"lambda": lambdas.tolist(), "l": l, "s": [0.0] * len(l)}
    noise = ls.prior(model, 5, dtype=F64)
    x = ls.sample(
        model,
        x_init=noise,
        method="dpm_v3_2",
        statistics=statistics,
        nfe=2,
        final="sigma_min",
        grid=[0.9, 0.05],
    )
    (a, s), (b, t) = process.pair(0.9), process.pair(0.05)
    assert torch.allclose(x, noise * ((b**2 * v + t**2) / (a**2 * v + s**2)) ** 0.5, rtol=1e-5)


@pytest.mark.parametrize("name", ["edm", "vp"])
def test_statistics_of_the_model_beat_those_of_data_prediction(name: str) -> None:
    """In the median of the samples' errors; the mean is of the few that end in another component."""
    model = mixture(process=PROCESSES[name])
    noise, truth = held_out(model)
    statistics = model_statistics(model)
    for nfe in (8, 10):
        v3, pp, unipc = (
            (ls.sample(model, x_init=noise, plan=plan) - truth).square().mean(1).sqrt().median()
            for plan in (
                dpm_solver_v3(model, nfe, grid="log_snr", statistics=statistics),
                *(ls.plan_sampling(model.process, m, nfe, "log_snr") for m in ("dpmpp_2m", "unipc_2")),
            )
        )
        assert v3 < 0.8 * min(pp, unipc)


@pytest.mark.parametrize(
    ("statistics", "word"),
    [
        ({"lambda": [0.0, 1.0], "l": [1.0, 1.0]}, "model_statistics"),
        ({"lambda": [0.0, 1.0], "l": [1.0], "s": [0.0, 0.0]}, "one length"),
        ({"lambda": [1.0, 0.0], "l": [1.0, 1.0], "s": [0.0, 0.0]}, "rise"),
        ({"lambda": [0.0, 1.0], "l": [1.0, float("nan")], "s": [0.0, 0.0]}, "finite"),
    ],
)
def test_bad_statistics_are_refused(statistics: dict, word: str) -> None:
    with pytest.raises(ls.ArgumentError, match=word):
        get("dpm_v3_2", statistics=statistics)
    with pytest.raises(ls.ArgumentError, match="at least"):
        model_statistics(mixture(dim=2), points=1)
