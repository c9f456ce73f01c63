"""A solver whose every number is free, and tune: exact cases, minima, honesty, interruption."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.core import Field
from longstride.frame import DATA
from longstride.learn.axis import Diffusion
from longstride.learn.catalogue import untuned
from longstride.learn.descent import descend
from longstride.learn.drawn import drawn
from longstride.learn.frechet import Frechet
from longstride.learn.free import Free, fit, march
from longstride.learn.hops import Begun, check_storage, hopped
from longstride.learn.judge import Judge
from longstride.learn.polish import polish, polish_set
from longstride.learn.recipes import RECIPES
from longstride.learn.slope import slope
from longstride.learn.starts import split
from longstride.learn.subject import SEED, Sampling
from longstride.learn.trajectories import trajectories
from longstride.methods import REGISTRY
from longstride.models import ideal, mixture
from longstride.models.exact import Mixture

F64 = torch.float64
EDM, VP, FLOW = ls.process.EDM(), ls.process.VP(discrete=True), ls.process.Flow()
PROCESSES = pytest.mark.parametrize("process", [EDM, VP, FLOW], ids=["EDM", "VP", "flow"])
FEW = {"noises": 256, "select": 64, "report": 128, "iterations": 4, "hops": 1}


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
    solver = Free(Diffusion(process), times, times[:-1], tuple((0.0,) * i for i in range(5)))
    plan = ls.plan_sampling(process, "ddim", 5, "log_snr")
    ours, theirs = (ls.sample(model, x_init=paths.noise, plan=p) for p in (solver.plan(), plan))
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.equal(march(field, solver, paths.noise).end, ours)


@PROCESSES
def test_a_network_that_always_says_the_same_is_exact_whatever_the_weights(process) -> None:
    generator = torch.Generator().manual_seed(0)
    times = tuple(ls.grid.times(process, 4, "log_snr"))
    weights = tuple(tuple(torch.randn(i, generator=generator).tolist()) for i in range(4))
    solver = Free(Diffusion(process), (*times, process.t_end), times, weights)
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
            torch.allclose(x, y, rtol=1e-10)
            for x, y in zip(a.evaluations[:first], b.evaluations[:first], strict=True)
        )
        state = first + (5 <= k < 11)  # an asking time changes what is said, the others what it is asked of
        assert not torch.allclose(a.states[state], b.states[state], rtol=1e-9, atol=0)
        assert torch.allclose(march(field, other, a.states[0], a, first).end, b.end, rtol=1e-10)


@PROCESSES
def test_an_evaluation_that_is_added_changes_nothing_yet(process) -> None:
    """Wherever it is put; where it is put best, a polish makes much of it."""
    model = three(process)
    field, paths, times = some(model, 4)
    solver = polish(lambda rows: field, fit(field, times, paths)[0], paths, iterations=1)[0]
    end, errors = march(field, solver, paths.noise).end, []
    for i in range(4):
        larger = solver.enlarged(i)
        assert larger.nfe == 5
        assert torch.allclose(march(field, larger, paths.noise).end, end, atol=1e-10)
        assert torch.allclose(march(field, larger.enlarged(i), paths.noise).end, end, atol=1e-9)
        errors.append(polish(lambda rows: field, larger, paths, iterations=3)[1])
    assert min(errors) < 0.9 * float((end - paths.end).square().mean().sqrt())


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
    for _ in range(10):  # an iteration that gains less than 1e-3 ends a polish; more of them lead on
        solver, error = polish(lambda rows: field, solver, paths, iterations=40)

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


@PROCESSES
def test_the_slope_is_that_of_central_differences(process) -> None:
    model = three(process)
    field, paths, times = some(model, 4, 200)
    solver, _ = fit(field, times, paths)
    shaken = torch.tensor(solver.vector(), dtype=F64)
    shaken += 0.03 * torch.randn(len(shaken), generator=torch.Generator().manual_seed(3), dtype=F64)
    shaken[3] = 0.5  # the first evaluation comes later: the start's own time has nothing before it
    solver = solver.with_vector(shaken.tolist())

    def features(x: Tensor) -> Tensor:
        return torch.cat([x.tanh(), x.square()], 1)

    weights = torch.arange(1.0, 201.0, dtype=F64) / 100

    def half(vector: list[float]) -> float:
        end = march(field, solver.with_vector(vector), paths.noise).end
        return 0.5 * float((weights[:, None] * (features(end) - features(paths.end)).square()).sum())

    run = march(field, solver, paths.noise)
    found = slope(lambda rows: field, solver, run, paths.end, features, weights)
    expected, h = [], 1e-6
    for k in range(len(found)):
        ahead, behind = ([*solver.vector()] for _ in range(2))
        ahead[k] += 0.0 if solver.bound(k) else h
        behind[k] -= h
        expected.append((half(ahead) - half(behind)) / (h if solver.bound(k) else 2 * h))
    expected = torch.tensor(expected, dtype=F64)
    size, late = float(found.norm()), 2 * 4 - 1  # times are by difference quotients of 1e-3, the rest exact
    assert torch.allclose(found[late:], expected[late:], rtol=1e-6, atol=1e-6 * size)
    assert torch.allclose(found[:late], expected[:late], rtol=0.02, atol=0.005 * size)


def test_a_jacobian_of_few_noises_leads_to_the_minimum_over_all() -> None:
    """By the slope over all; a field that torch cannot differentiate is polished by that of the few."""
    model = three()
    field, paths, times = some(model, 3, 2048)
    before, _ = fit(field, times, paths)

    def opaque(t: float, x: Tensor) -> Tensor:
        return torch.from_numpy(field(t, torch.from_numpy(x.numpy())).numpy())

    def polished(f: Field, part: int) -> float:
        return polish(lambda rows: f, before, paths, part=part, iterations=30)[1]

    start = ls.metrics.endpoint_error(march(field, before, paths.noise).end, paths.end)
    least, whole, few = polished(field, 2048), polished(field, 64), polished(opaque, 64)
    assert whole < few < 0.2 * start
    assert whole < 1.001 * least


def test_a_noise_of_weight_two_counts_as_two() -> None:
    field, paths, times = some(three(), 4, 96)
    before, _ = fit(field, times, paths)
    weights = torch.ones(96)
    weights[:32] = 2
    twice = torch.cat([torch.arange(96), torch.arange(32)])
    one, error = polish(lambda rows: field, before, paths, weights=weights, iterations=5)
    other, same = polish(lambda rows: field, before, paths.part(twice), iterations=5)
    assert error == pytest.approx(same, rel=1e-6)
    assert one.vector() == pytest.approx(other.vector(), rel=1e-4, abs=1e-6)


def test_noises_that_matter_tell_a_mean_without_bias_and_with_less_spread() -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(1), dtype=F64).exp() ** 3
    guess = values * (1 + 0.5 * torch.rand(2000, generator=torch.Generator().manual_seed(2), dtype=F64))
    generator, total = torch.Generator().manual_seed(3), float(values.sum())

    def sums(sizes: Tensor, mass: Tensor | None = None) -> Tensor:
        found = []
        for _ in range(400):
            rows, counts = drawn(sizes, 100, generator, mass)
            assert len(rows.unique()) == len(rows) <= 100
            found.append(float(counts @ values[rows]))
        return torch.tensor(found, dtype=F64)

    good, even = sums(guess), sums(torch.zeros(2000, dtype=F64))  # a guess of nothing is even
    assert abs(good.mean() - total) < 4 * good.std() / 400**0.5
    assert good.std() < 0.2 * even.std()
    mass = torch.rand(2000, generator=torch.Generator().manual_seed(4), dtype=F64)
    heavier = sums(guess, mass)  # where each stands for so many already
    assert abs(heavier.mean() - float(mass @ values)) < 4 * heavier.std() / 400**0.5


def test_noises_made_around_those_that_matter_have_the_distribution_of_all() -> None:
    """How often |x| > 3 where y = 1, of 16,384 numbers from a normal distribution: 22 times, to a tenth.

    The other coordinate is what it was, and so is the condition.
    """
    subject = Sampling(three(), {"y": torch.tensor([0, 1])}, 1.0, 16384, 0, 256)

    def sizes(rows: Tensor) -> Tensor:
        return subject.x[rows][:, 0].abs() / subject.spread * subject.cond(rows)["y"]

    generator = torch.Generator().manual_seed(0)
    rows, size, mass = split(subject, torch.arange(16384), sizes, generator)
    assert float(mass.sum()) == pytest.approx(16384)
    assert torch.equal(size, sizes(rows))
    rare = size > 3
    assert float(mass[rare].sum() / 16384) == pytest.approx(math.erfc(3 / 2**0.5) / 2, rel=0.15)
    assert int(rare.sum()) > 5 * int(rare[:16384].sum())
    other = subject.x[rows][:, 1] / subject.spread
    assert float((mass * other**2)[rare].sum() / mass[rare].sum()) == pytest.approx(1, rel=0.15)


def test_polishes_go_by_the_few_noises_that_an_error_hangs_on(tmp_path) -> None:
    """Drawn from thirty times as many, 512 noises make a plan that is better on plain ones."""
    model, few = three(), {"noises": 512, "select": 2048, "report": 128, "iterations": 8, "hops": 2}
    plan = ls.tune(model, 6, **few)
    found = ls.tune(model, 6, **few, of=16384, cache=tmp_path)
    x = ls.prior(model, 8192, seed=9)
    truth = ls.reference(model, x)
    before, after = (
        ls.metrics.endpoint_error(ls.sample(model, x_init=x, plan=p), truth) for p in (plan, found)
    )
    assert after < 0.9 * before
    assert found.report["noises"] == {"fitted": 512, "selection": 2048, "report": 128, "drawn from": 16384}
    again = ls.tune(model, 6, **few, of=16384, cache=tmp_path)
    assert again.weights == found.weights
    assert again.report["evaluations"] < 0.2 * found.report["evaluations"]  # what is drawn is kept


def test_the_catalogue_is_judged_by_the_few_noises_that_an_error_hangs_on() -> None:
    """On sixteen noises another method seems best: none of them ends in a wrong mode."""
    subject, judge = Sampling(three(), None, 1.0, 1024, 0, 1024), Judge(lambda x: x, None)
    subject.screened = subject.grids = ("log_snr", "flow_shift:shift=1:open=true")
    rows = torch.arange(1024)
    truth = subject.reference(rows, 128)
    plans = [subject.published(method, grid, 10) for method in REGISTRY for grid in subject.grids]
    known = [judge.squares(plan, subject, rows, truth) for plan in plans if plan and not plan.stochastic]
    least = min(float(squares.mean()) for squares in known)
    by_few = min(known, key=lambda squares: float(squares[:16].mean()))
    assert float(by_few.mean()) > 1.2 * least
    assert untuned(subject, judge, rows, truth, 10)[0].error ** 2 == pytest.approx(least)


def test_a_report_on_too_few_noises_says_so() -> None:
    """One sample in a hundred ends in a wrong mode: none of sixteen, forty of those that choose."""
    asked = {"noises": 512, "select": 4096, "hops": 0, "iterations": 2}
    few, many = (ls.tune(three(), 8, report=n, **asked).report for n in (16, 4096))
    assert few["error"] < 0.5 * many["error"]
    assert "larger report=" in few["verdict"]
    assert "larger report=" not in many["verdict"]


def test_a_model_without_derivatives_is_tuned_and_that_is_said() -> None:
    def silent(x: Tensor, t: Tensor) -> Tensor:
        return torch.from_numpy(known.net(x, t).numpy())

    known, lines = three(), {True: list[str](), False: list[str]()}
    for differentiable, model in ((True, known), (False, replace(known, net=silent))):
        plan = ls.tune(model, 3, **{**FEW, "hops": 0}, progress=lines[differentiable].append)
        assert plan.report["ratio"] < 1
        assert any("cannot differentiate" in line for line in lines[differentiable]) is not differentiable


def test_a_plan_that_tune_begins_from_is_not_lost() -> None:
    """It competes as it is: nothing that few noises lead to is better on many."""
    model = three()
    good = ls.tune(model, 4, noises=2048, select=1024, report=128, iterations=10, hops=1)
    kept = ls.tune(model, 4, **{**FEW, "noises": 64, "select": 2048, "hops": 0, "seed": 3}, begin=[good])
    tried = {row["what"]: row["selection_error"] for row in kept.report["tried"]}
    assert tried[f"{good.report['what']}, as it began"] == pytest.approx(min(tried.values()))
    assert kept.weights == good.weights


@PROCESSES
def test_gradients_lead_to_weights_that_no_single_move_betters(process) -> None:
    model = three(process)
    field, paths, times = some(model, 4, 128)
    before, _ = fit(field, times, paths)
    start = ls.metrics.endpoint_error(march(field, before, paths.noise).end, paths.end)
    solver, error = descend(lambda rows: field, before, paths, iterations=200)
    assert error < 0.9 * start
    assert (solver.times, solver.at) == (before.times, before.at)
    best = solver.vector()
    for k in range(2 * 4 - 1, solver.slackness.start):
        for h in (0.01, -0.01):
            moved = list(best)
            moved[k] += h
            end = march(field, solver.with_vector(moved), paths.noise).end
            assert ls.metrics.endpoint_error(end, paths.end) > 0.999 * error
    still = [*range(7), *solver.slackness]
    held = polish(lambda rows: field, before, paths, fixed=still, iterations=60)[1]
    assert error < 1.1 * held  # both are at a minimum over the weights
    assert polish(lambda rows: field, before, paths, fixed=range(7), iterations=60)[1] < 0.9 * held  # slack


def test_the_report_is_what_anybody_measures() -> None:
    model = three()
    plan = ls.tune(model, 4, **FEW)
    report = plan.report
    assert plan.nfe == 4
    noise = ls.prior(model, 256 + 64 + 128, SEED)[-128:]
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
    for plan in whole.values():
        assert plan.report["error"] < plan.report["untuned"]["error"]

    def stop(line: str) -> None:
        if line.startswith("4 NFE: conditioning times"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ls.tune(model, [3, 4], **FEW, cache=tmp_path, progress=stop)
    calls = 0
    halves = ls.tune(model, [3, 4], **FEW, cache=tmp_path)
    rest, calls = calls, 0
    ls.tune(model, [3, 4], **FEW)
    assert rest < calls - 128 * (256 + 64 + 128)  # the solutions were there
    assert all(halves[k].steps == whole[k].steps for k in (3, 4))


def test_a_budget_begins_from_the_one_before_it() -> None:
    """Also from a plan that is handed over."""
    asked = {**FEW, "hops": 0}
    plans = ls.tune(three(), [3, 5], **asked)
    again = ls.tune(three(), 5, begin=plans[3], **asked)
    assert plans[5].report["error"] < plans[3].report["error"]
    for plan in (plans[5], again):
        assert any("a plan of 3 evaluations" in tried["what"] for tried in plan.report["tried"])
    assert again.times == plans[5].times


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


def pendulum(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[:, 1], -x[:, 0].sin()], 1)


def test_an_equation_whose_solutions_are_all_alike_is_solved_by_two_evaluations() -> None:
    """dx/dt = -x: the end is linear in x_0, so one weight that is free reaches it, forward and backward."""
    x0 = torch.randn(96, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    for t in ((0.0, 2.0), (2.0, 0.0)):
        plan = ls.tune(ls.ODE(lambda t, x: -x), 2, x0=x0, t=t, select=16, report=16)
        end = ls.solve(ls.ODE(lambda t, x: -x), x0, plan=plan).x[-1]
        assert torch.allclose(end, x0 * math.exp(t[0] - t[1]), atol=1e-5 * math.exp(abs(t[0] - t[1])))


def test_nothing_is_recorded_for_gradients_of_a_network_in_training() -> None:
    net, asked = torch.nn.Linear(2, 2).double(), set()

    def f(t: float, x: Tensor) -> Tensor:
        asked.add(net(x).requires_grad)
        return net(x)

    starts = torch.randn(160, 2, dtype=torch.float64)
    ls.tune(ls.ODE(f), 2, x0=starts, t=(0.0, 1.0), noises=48, select=16, report=16, hops=0, iterations=2)
    assert asked == {False}
    ls.tune(ls.ODE(f), 2, x0=starts, t=(0.0, 1.0), noises=128, select=16, report=16, hops=0, iterations=2)
    assert asked == {False, True}  # where a polish asks for its slope, in the states
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("of", [None, 320])
def test_a_plan_for_an_equation_is_better_on_states_it_has_not_seen(of) -> None:
    x0 = torch.randn(640, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    problem = ls.ODE(pendulum)
    plan = ls.tune(problem, 5, x0=x0, t=(0.0, 3.0), of=of, select=64, report=128, iterations=8, hops=2)
    fitted = plan.report["noises"]["fitted"]
    assert fitted == 640 - 64 - 128 - (of or 0)
    x0 = x0[fitted + 64 :][:128]
    truth = ls.solve(problem, x0, t=(0.0, 3.0), method="rk4", steps=400).x[-1]
    error = ls.metrics.endpoint_error(ls.solve(problem, x0, plan=plan).x[-1], truth)
    assert plan.nfe == 5
    assert error == pytest.approx(plan.report["error"], rel=1e-3)
    fixed = [ls.solve(problem, x0, t=(0.0, 3.0), method=m, steps=n).x[-1]
             for m, n in (("euler", 5), ("heun", 2), ("rk4", 1), ("ab_2", 5), ("ab_3", 5))]  # fmt: skip
    assert error < 0.5 * min(ls.metrics.endpoint_error(x, truth) for x in fixed)


def labelled() -> ls.Denoiser:
    """Three Gaussians of variance 1/4 in the plane for each of two labels; label 2 is none."""
    means = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(2), dtype=F64)

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        off, v = x[:, None] - means[y], 0.25 + t[:, None, None] ** 2
        p = (-off.square() / (2 * v)).sum(2).softmax(1)[..., None]
        return (p * (means[y] + 0.25 / v * off)).sum(1)

    return ls.Denoiser(net, EDM, predicts="data", shape=(2,), null={"y": 2})


def test_several_guidances_are_dealt_out_to_all_conditions() -> None:
    model = labelled()
    subject = Sampling(model, {"y": torch.arange(2)}, [1.0, 2.0, 4.0], 18, 0, 5)
    rows = torch.arange(18)
    met = {(int(r) % 2, str(g)) for places, g in subject._groups(rows) for r in rows[places]}
    assert met == {(y, w) for y in (0, 1) for w in ("1", "2", "4")}
    plan = ls.plan_sampling(EDM, "dpmpp_2m", 5)
    ends, paths = subject.ends(plan, rows), subject.solutions(rows, 32)
    field = subject.field(rows)(1.0, paths.at(1.0))
    for places, guidance in subject._groups(rows):
        for r in places.tolist():
            given = {"cond": {"y": r % 2}, "guidance": guidance}
            alone = ls.sample(model, x_init=subject.x[r : r + 1], plan=plan, **given)
            assert torch.allclose(ends[r : r + 1], alone)
            one = model.fields(model.conditioning(given["cond"], 1), guidance)[DATA]
            assert torch.allclose(field[r : r + 1], one(1.0, paths.at(1.0)[r : r + 1]))
            exact = ls.reference(model, subject.x[r : r + 1], nfe=32, **given)
            assert torch.allclose(paths.end[r : r + 1], exact)


def test_a_plan_for_several_guidances_serves_each(recwarn: pytest.WarningsRecorder) -> None:
    model, given = labelled(), {"cond": {"y": torch.arange(2)}}
    plan = ls.tune(model, 4, guidance=[1.0, 3.0], **given, **FEW)
    noise = ls.prior(model, 400, seed=9, dtype=F64)
    for weight in (1.0, 3.0):
        asked = {"cond": {"y": torch.arange(400) % 2}, "guidance": weight}
        truth = ls.reference(model, noise, nfe=128, **asked)
        ours, theirs = (
            ls.metrics.endpoint_error(ls.sample(model, x_init=noise, plan=p, **asked), truth)
            for p in (plan, ls.plan_sampling(EDM, "dpmpp_2m", 4))
        )
        assert ours < theirs
    assert not [w for w in recwarn if "tuned for" in str(w.message)]
    with pytest.warns(UserWarning, match="tuned for guidance"):
        ls.sample(model, 2, plan=plan, cond={"y": [0, 1]}, guidance=5.0)


def test_an_objective_chooses_and_reports() -> None:
    model = three()
    plan = ls.tune(model, 3, objective=ls.metrics.frechet, recipes=["gits", "d_ode"], dtype=F64, **FEW)
    noise = ls.prior(model, 256 + 64 + 128, SEED, dtype=F64)[-128:]
    found = ls.sample(model, x_init=noise, plan=plan), ls.reference(model, noise, nfe=128)
    assert plan.report["error"] == pytest.approx(ls.metrics.frechet(*found), rel=1e-9)
    tried = {t["what"]: t["selection_error"] for t in plan.report["tried"]}
    assert {"gits", "d_ode"} < set(tried)
    assert tried[plan.report["what"]] == min(tried.values())


def test_the_residuals_of_a_frechet_distance_are_its_square() -> None:
    """And it falls where the ends' error rises: what is left over is put where the moments are right."""
    g = torch.Generator().manual_seed(0)
    data, x = (torch.randn(300, 4, generator=g, dtype=F64) @ torch.randn(4, 4, generator=g, dtype=F64)
               for _ in range(2))  # fmt: skip
    objective = Frechet(data)
    found = objective.residuals(objective.means(x)).square().sum()
    again = torch.cat([x, x])  # of n samples the covariance over n is nearer to that over n - 1
    assert float(found) == pytest.approx(objective(again), rel=5e-3)
    mean, second = data.mean(0), objective.cov + data.mean(0)[:, None] * data.mean(0)
    assert objective.residuals(torch.cat([mean, second.flatten()])).abs().max() < 1e-9


def test_a_plan_for_a_frechet_distance_is_nearer_to_the_data() -> None:
    model = three()
    data = ls.reference(model, ls.prior(model, 2048, 7, dtype=F64))
    field, paths, times = some(model, 3, 512)
    ended, _ = polish(lambda rows: field, fit(field, times, paths)[0], paths, iterations=4)
    assert Free.of(ended.plan(), ended.axis).vector() == pytest.approx(ended.vector(), abs=1e-12)
    objective = Frechet(data)
    x = ls.prior(model, 2048, 8, dtype=F64)
    solver, left = polish_set(lambda rows: field, ended, x, objective, part=256)
    held = ls.prior(model, 2048, 9, dtype=F64)
    before, after = (objective(ls.sample(model, x_init=held, plan=s.plan())) for s in (ended, solver))
    assert after < 0.5 * before
    assert left == pytest.approx(objective(ls.sample(model, x_init=x, plan=solver.plan())) ** 0.5, rel=1e-2)


def test_what_is_tuned_for_a_distance_from_data_is_polished_for_it() -> None:
    model = three()
    objective = Frechet(ls.reference(model, ls.prior(model, 512, 7, dtype=F64)))
    plan = ls.tune(model, 3, objective=objective, **FEW | {"noises": 512, "select": 512})
    tried = {t["what"]: t["selection_error"] for t in plan.report["tried"]}
    for_ends = min(tried[what] for what in tried if what.startswith("conditioning times"))
    assert tried["all of these for the objective itself"] < 0.7 * for_ends


def test_recipes_compete_and_none_is_left_out() -> None:
    model = three()
    lines: list[str] = []
    plan = ls.tune(model, 4, recipes=["all"], progress=lines.append, **FEW)
    named = {t["what"] for t in plan.report["tried"]} & set(RECIPES)
    cannot = {line.split()[2] for line in lines if " cannot: " in line}
    assert named | cannot == set(RECIPES)
    assert len(cannot) <= 2
    assert plan.report["error"] < plan.report["untuned"]["error"]


def test_states_on_the_way_are_nearer_when_they_count() -> None:
    model = three()
    field, paths, times = some(model, 4, 256)
    before, _ = fit(field, times, paths)

    def missed(solver: Free) -> float:
        states = march(field, solver, paths.noise).states[1:-1]
        return sum(
            ls.metrics.endpoint_error(x, paths.at(t)) for t, x in zip(solver.times[1:], states, strict=False)
        )

    free, with_them = (polish(lambda rows: field, before, paths, through=w)[0] for w in (0.0, 1.0))
    assert missed(with_them) < missed(free)


def test_a_storage_is_shared_and_what_is_done_is_done(tmp_path) -> None:
    pytest.importorskip("optuna")
    model = three()
    asked = {**FEW, "hops": 3, "storage": tmp_path / "study.log"}
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_tuned, args=(asked,)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
        assert other.exitcode == 0
    written = (tmp_path / "study.log").read_text().count('"solver"')
    assert 3 <= written <= 4  # each looked before it began its last one
    first, second = (ls.tune(model, 3, **asked) for _ in range(2))
    assert (tmp_path / "study.log").read_text().count('"solver"') == written
    assert first.steps == second.steps


def _tuned(asked: dict) -> None:
    ls.tune(three(), 3, **asked)


def test_refusals() -> None:
    model = three()
    for nfe in (0, 1):
        with pytest.raises(ls.ArgumentError, match="nothing to tune"):
            ls.tune(model, nfe)
    with pytest.raises(ls.ArgumentError, match="budget"):
        ls.tune(model, [])
    with pytest.raises(ls.ArgumentError, match="other starts"):
        ls.tune(model, 4, noises=3)
    with pytest.raises(ls.ArgumentError, match="in turn"):
        ls.tune(model, 4, cond={"y": [1, 2], "z": [1, 2, 3]})
    with pytest.raises(ls.ArgumentError, match="unknown recipe 'git'"):
        ls.tune(model, 4, recipes=["git"])
    with pytest.raises(ls.ArgumentError, match="guidance is empty"):
        ls.tune(model, 4, guidance=[])
    with pytest.raises(ls.ArgumentError, match="give x0="):
        ls.tune(ls.ODE(pendulum), 4)
    with pytest.raises(ls.ArgumentError, match="too few"):
        ls.tune(ls.ODE(pendulum), 4, x0=torch.randn(300, 2), t=(0.0, 1.0))
    with pytest.raises(ls.ArgumentError, match="belong to an ODE"):
        ls.tune(model, 4, t=(0.0, 1.0))
    with pytest.raises(ls.ArgumentError, match="reference_nfe = 16"):
        ls.tune(model, 4, reference_nfe=16)
    for wrong in (4.5, None, "4", [4, "5"]):
        with pytest.raises(ls.ArgumentError, match="whole number"):
            ls.tune(model, wrong)
    for thing in (None, "digits", torch.nn.Linear(2, 2)):
        with pytest.raises(ls.ArgumentError, match=r"the model is of type \w+: an ls.Denoiser"):
            ls.tune(thing, 4)
    with pytest.raises(ls.ArgumentError, match="larger reference_nfe"):
        ls.tune(model, 128)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipes": "git"}, "unknown recipe 'git'"),
        ({"recipes": 3}, "unknown recipe 3"),
        ({"seed": 1.5}, "seed"),
        ({"iterations": -1}, "iterations"),
        ({"dtype": torch.int64}, "dtype = torch.int64"),
        ({"dtype": "float64"}, "dtype = float64"),
        ({"hops": -1}, "hops"),
        ({"batch": 0}, "batch"),
        ({"through": math.nan}, "through"),
        ({"through": -0.5}, "through"),
        ({"of": "many"}, "whole number"),
        ({"of": 4095}, "of = 4095: the 4096"),
        ({"of": 8192, "through": 0.5}, "leave of out"),
        ({"features": "inception"}, "features"),
        ({"objective": "frechet"}, "objective"),
        ({"progress": 3}, "progress"),
        ({"begin": "plan.json"}, "plans that ls.tune has made"),
        ({"begin": [ls.plan_sampling(VP, "ddim", 3)]}, "from t = "),
        ({"begin": [ls.plan_sampling(EDM, "heun", 5)]}, "not one of a tuned plan"),
        ({"cache": __file__}, "is a file"),
        ({"cache": "/proc/none"}, "cannot write"),
        ({"storage": f"{__file__}/study.log"}, "is a file"),
    ],
)
def test_bad_arguments_are_refused_before_the_model_is_asked(arguments: dict, message: str) -> None:
    model = ls.Denoiser(lambda x, t: pytest.fail("asked"), EDM, predicts="data", shape=(2,))
    with pytest.raises(ls.ArgumentError, match=message):
        ls.tune(model, 4, **arguments)


def test_a_storage_that_is_something_else_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    text = tmp_path / "notes.txt"
    text.write_text("mine")
    for storage in (tmp_path, text):
        with pytest.raises(ls.ArgumentError, match="no file of a study"):
            ls.tune(three(), 4, storage=storage)
    assert text.read_text() == "mine"
    study = tmp_path / "study.log"
    for _ in range(2):  # one that is there goes on
        check_storage(study)
        hopped(
            [Begun(Free(Diffusion(EDM), (1.0, 0.0), (1.0,), ((1.0,),), ((0.0,),)), 1.0, "")],
            None,
            0,
            storage=study,
        )
    assert study.exists()


def test_failures() -> None:
    broken = ls.Denoiser(lambda x, t: x / 0, EDM, predicts="data", shape=(2,))
    with pytest.raises(ls.SolveError, match="NaN"):
        ls.tune(broken, 4, **FEW)
    points = ideal(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), EDM)
    with pytest.raises(ls.SolveError, match="not converged"):
        ls.tune(points, 5, **FEW, reference_nfe=32)
