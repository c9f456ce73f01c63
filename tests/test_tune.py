"""A solver whose every number is free, and tune: exact cases, minima, honesty, interruption."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.frame import DATA
from longstride.learn.free import Free, fit, march, polish
from longstride.learn.trajectories import trajectories
from longstride.learn.tune import SEED
from longstride.models import ideal, mixture
from longstride.models.exact import Mixture

F64 = torch.float64
EDM, VP, FLOW = ls.process.EDM(), ls.process.VP(discrete=True), ls.process.Flow()
PROCESSES = pytest.mark.parametrize("process", [EDM, VP, FLOW], ids=["EDM", "VP", "flow"])
FEW = {"noises": 256, "select": 64, "report": 128, "iterations": 4}


def three(process: ls.process.Process = EDM) -> ls.Denoiser:
    """Three Gaussians in the plane."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    return mixture(Mixture(torch.ones(3), means, 0.05 * torch.eye(2).expand(3, 2, 2)), process)


def gaussian(process: ls.process.Process, variance: float = 0.3) -> ls.Denoiser:
    return mixture(Mixture(torch.ones(1), torch.zeros(1, 2), variance * torch.eye(2)[None]), process)


def some(model: ls.Denoiser, nfe: int, n: int = 64) -> tuple:
    """A field, solutions from n noises, and an untouched solver on the default grid."""
    paths = trajectories(model, ls.prior(model, n, dtype=F64), nfe=256)
    times = (*ls.grid.times(model.process, nfe, "log_snr"), model.process.t_end)
    return model.fields()[DATA], paths, times


@PROCESSES
def test_without_other_weights_it_is_ddim(process) -> None:
    model = three(process)
    field, paths, times = some(model, 5)
    solver = Free(process, times, times[:-1], tuple((0.0,) * i for i in range(5)))
    plan = ls.plan_sampling(process, "ddim", 5, "log_snr")
    ours, theirs = (ls.sample(model, x_init=paths.noise, plan=p) for p in (solver.plan(), plan))
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.equal(march(field, solver, paths.noise).end, ours)


@PROCESSES
def test_a_network_that_always_says_the_same_is_exact_whatever_the_weights(process) -> None:
    generator = torch.Generator().manual_seed(0)
    times = tuple(ls.grid.times(process, 4, "log_snr"))
    weights = tuple(tuple(torch.randn(i, generator=generator).tolist()) for i in range(4))
    solver = Free(process, (*times, process.t_end), times, weights)
    x_0, eps = torch.randn(2, 3, 2, dtype=F64, generator=generator)
    alpha, sigma = process.pair(process.t_max)
    run = march(lambda t, x: x_0, solver, alpha * x_0 + sigma * eps)
    for t, x in zip(solver.times, run.states, strict=True):
        alpha, sigma = process.pair(t)
        assert torch.allclose(x, alpha * x_0 + sigma * eps, atol=1e-9 * sigma + 1e-9)


def test_the_free_numbers_make_the_solver_again() -> None:
    model = three()
    field, paths, times = some(model, 6)
    solver, _ = fit(field, times, paths)
    again = solver.with_vector(solver.vector())
    assert again.weights == solver.weights
    assert again.times == pytest.approx(solver.times, rel=1e-12)
    assert again.at == pytest.approx(solver.at, rel=1e-12)
    for k in range(len(solver.vector())):  # nothing before `begins` changes, and something there does
        moved = solver.vector()
        moved[k] += -1e-3 if solver.bound(k) else 1e-3
        other, first = solver.with_vector(moved), solver.begins(k)
        a, b = march(field, solver, paths.noise), march(field, other, paths.noise)
        assert all(
            torch.allclose(x, y, rtol=1e-10) for x, y in zip(a.states[: first + 1], b.states, strict=False)
        )
        assert not torch.allclose(a.states[first + 1], b.states[first + 1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("process", [EDM, ls.process.VP(), FLOW], ids=["EDM", "VP", "flow"])
def test_between_known_states_trajectories_are_of_order_four(process) -> None:
    """A Gaussian's are known: x_t = x_T times the ratio of standard deviations."""
    model = gaussian(process)
    x = ls.prior(model, 8, dtype=F64)
    std = lambda t: math.hypot(process.alpha(t) * 0.3**0.5, process.sigma(t))  # noqa: E731

    def error(nfe: int) -> float:
        paths = trajectories(model, x, nfe=nfe)
        times = ls.grid.times(process, 23, "log_snr")[1:]
        return max(float((paths.at(t) / std(t) - x / std(process.t_max)).abs().max()) for t in times)

    assert (
        math.log2(error(100) / error(200)) > 3.4
    )  # the fourth order, of which a coarse grid shows a little less


@PROCESSES
def test_a_gaussian_is_solved_by_two_evaluations(process) -> None:
    """All is linear in x_T there, so one weight that is free reaches the end exactly."""
    model = gaussian(process)
    field, paths, times = some(model, 2)
    solver, end = fit(field, times, paths)
    assert float((end - paths.end).abs().max()) < 1e-6
    held = ls.prior(model, 16, seed=5, dtype=F64)
    truth = ls.reference(model, held, nfe=256)
    assert ls.metrics.endpoint_error(ls.sample(model, x_init=held, plan=solver.plan()), truth) < 1e-6


def test_a_polish_ends_at_a_minimum_and_leaves_what_is_fixed() -> None:
    model = three()
    field, paths, times = some(model, 3, 256)
    before, _ = fit(field, times, paths)
    start = ls.metrics.endpoint_error(march(field, before, paths.noise).end, paths.end)
    solver, error = polish(lambda rows: field, before, paths, iterations=40)
    assert error < 0.7 * start

    def measured(vector: list[float]) -> float:
        return ls.metrics.endpoint_error(march(field, before.with_vector(vector), paths.noise).end, paths.end)

    best = solver.vector()
    assert measured(best) == pytest.approx(error, rel=1e-9)
    for k in range(len(best)):
        for h in (0.02, -0.02):
            moved = list(best)
            moved[k] += h
            assert measured(moved) > 0.995 * error
    fixed = range(4)
    other, _ = polish(lambda rows: field, before, paths, fixed=fixed)
    assert other.vector()[:4] == pytest.approx(before.vector()[:4], rel=1e-12)
    assert other.weights != before.weights


def test_the_report_is_what_anybody_measures() -> None:
    model = three()
    plan = ls.tune(model, 4, **FEW)
    report = plan.report
    assert plan.nfe == 4
    noise = ls.prior(model, 256 + 64 + 128, SEED, dtype=F64)[-128:]
    truth = ls.reference(model, noise, nfe=128)
    error = ls.metrics.endpoint_error(ls.sample(model, x_init=noise, plan=plan), truth)
    assert error == pytest.approx(report["error"], rel=1e-9)
    low, high = report["interval"]
    assert low < error < high
    assert report["ratio"] == pytest.approx(error / report["untuned"]["error"])
    assert error < 0.7 * report["untuned"]["error"]
    chosen = min(report["tried"], key=lambda t: t["selection_error"])
    assert chosen["what"] == report["what"]
    again = ls.tune(model, 4, **FEW, batch=50)
    assert again.times == pytest.approx(plan.times, rel=1e-6)


def test_a_method_that_is_exact_is_returned_as_it_is() -> None:
    """A point: DDIM is exact, so nothing tuned can be better, and the report says so."""
    model = ls.Denoiser(lambda x, t: torch.full_like(x, 0.3), EDM, predicts="data", shape=(2,))
    plan = ls.tune(model, 4, **FEW)
    assert plan.report["error"] < 1e-9


def test_several_budgets_share_their_solutions_and_an_interrupted_tune_goes_on(tmp_path) -> None:
    calls = 0

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return exact.net(x, t)

    exact = three()
    model = ls.Denoiser(net, EDM, predicts="data", shape=(2,))
    whole = ls.tune(model, [3, 4], **FEW)
    assert list(whole) == [3, 4]
    assert whole[4].report["error"] < whole[3].report["error"]

    def stop(line: str) -> None:
        if line.startswith("4 NFE: times"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ls.tune(model, [3, 4], **FEW, cache=tmp_path, progress=stop)
    calls = 0
    halves = ls.tune(model, [3, 4], **FEW, cache=tmp_path)
    rest, calls = calls, 0
    ls.tune(model, [3, 4], **FEW)
    assert rest < calls - 128 * (256 + 64 + 128)  # the solutions were there
    assert all(halves[k].steps == whole[k].steps for k in (3, 4))


def test_conditions_belong_to_their_noise_and_guidance_is_said() -> None:
    """Two points, one for each label: a solver that mixed labels up would find no weights."""
    net = lambda x, t, y: (2.0 * (y == 1) - 1.0)[:, None] * (y < 2)[:, None] + 0 * x  # noqa: E731
    model = ls.Denoiser(net, EDM, predicts="data", shape=(2,), null={"y": 2})
    plan = ls.tune(model, 3, cond={"y": torch.arange(2)}, guidance=2.0, **FEW)
    assert plan.report["error"] < 1e-9
    assert plan.report["tuned_for"]["guidance"] == "2"
    with pytest.warns(UserWarning, match="tuned for guidance 2"):
        ls.sample(model, 2, plan=plan, cond={"y": torch.arange(2)})


def test_a_tuned_plan_goes_where_every_plan_goes(tmp_path) -> None:
    diffusers = pytest.importorskip("diffusers")
    assert diffusers
    from longstride.compat.diffusers import PlanScheduler

    model = three(VP)
    plan = ls.tune(model, 4, **FEW)
    plan.save(tmp_path / "plan.json")
    assert ls.Plan.load(tmp_path / "plan.json").steps == plan.steps
    config = {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    scheduler = PlanScheduler.from_config(config, plan=plan)
    scheduler.set_timesteps(4)
    x = noise = ls.prior(model, 5, dtype=F64)
    fields = model.fields()
    for t in scheduler.timesteps:
        x = scheduler.step(fields[1](float(t), x), t, x).prev_sample
    assert torch.allclose(x, ls.sample(model, x_init=noise, plan=plan), atol=1e-6)


def test_refusals() -> None:
    model = three()
    for nfe in (0, 1):
        with pytest.raises(ls.ArgumentError, match="nothing to tune"):
            ls.tune(model, nfe)
    with pytest.raises(ls.ArgumentError, match="budget"):
        ls.tune(model, [])
    with pytest.raises(ls.ArgumentError, match="other noises"):
        ls.tune(model, 4, noises=3)
    with pytest.raises(ls.ArgumentError, match="in turn"):
        ls.tune(model, 4, cond={"y": [1, 2], "z": [1, 2, 3]})
    broken = ls.Denoiser(lambda x, t: x / 0, EDM, predicts="data", shape=(2,))
    with pytest.raises(ls.SolveError, match="NaN"):
        ls.tune(broken, 4, **FEW)
    points = ideal(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), EDM)
    with pytest.raises(ls.SolveError, match="not converged"):
        ls.tune(points, 5, **FEW, reference_nfe=12)
