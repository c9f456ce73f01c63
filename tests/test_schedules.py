"""Solver schedules, AutoDiffusion, their search: known plans where they write one, better on unseen noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import longstride as ls
from longstride import compiled
from longstride.fields import cached_features
from longstride.learn import Choice, Schedule, autodiffusion, solver_schedule
from longstride.learn.evolution import evolve, predicted
from longstride.learn.solver_schedule import SPACE, fixed
from longstride.models import mixture

F64 = torch.float64
PROCESSES = {"edm": ls.process.EDM(), "vp": ls.process.VP(), "flow": ls.process.Flow()}
MIX = mixture(dim=2)
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


def held_out(model: ls.Denoiser) -> tuple[Tensor, Tensor]:
    noise = ls.prior(model, 512, seed=99)
    return noise, ls.reference(model, noise, nfe=200)


def error(model: ls.Denoiser, plan: ls.Plan, noise: Tensor, truth: Tensor) -> float:
    return ls.metrics.endpoint_error(ls.sample(model, x_init=noise, plan=plan), truth)


@each_process
@pytest.mark.parametrize(
    ("method", "options", "choice"),
    [
        ("ddim", {}, Choice("data", 1)),
        ("exp_adams_3", {}, Choice("data", 3)),
        ("deis_3", {}, Choice("noise", 3)),
        ("dpmpp_2m", {}, Choice("data", 2, moments="halved")),
        ("dpmpp_3m", {}, Choice("data", 3, moments="halved")),
        ("dpm_3m", {}, Choice("noise", 3, moments="halved")),
        ("lms_3", {"prediction": "sigma"}, Choice("sigma", 3)),
        ("ab_2", {"prediction": "velocity"}, Choice("velocity", 2)),
        ("ab_4", {"prediction": "v"}, Choice("v", 4)),
        ("unipc_3", {"lower_order_final": False}, Choice("data", 3, True, "bh2")),
        ("unipc_2", {"lower_order_final": False, "variant": "bh1"}, Choice("data", 2, True, "bh1")),
        ("unipc_2", {"lower_order_final": False, "prediction": "noise"}, Choice("noise", 2, True, "bh2")),
    ],
)
def test_the_same_choice_at_every_step_is_the_published_sampler(process, method, options, choice) -> None:
    """Up to the last step, which they all end with the data prediction."""
    model = mixture(dim=4, process=process)
    noise = ls.prior(model, 16, dtype=F64)
    known = ls.plan_sampling(process, method, 7, "log_snr", **options)
    end = choice if choice.prediction in ("data", "noise") else Choice("data")
    plan = Schedule(known.times[:-1], (*(choice,) * 6, end)).plan(process)
    assert (plan.nfe, plan.times) == (7, known.times)
    ours, theirs = (ls.sample(model, x_init=noise, plan=p) for p in (plan, known))
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@each_process
def test_any_schedule_is_exact_where_the_data_prediction_is_constant(process) -> None:
    """Every frame integrates the straight line to c exactly, so no mixture of them can leave it."""
    c = torch.tensor([0.3, -0.7], dtype=F64)
    model = ls.Denoiser(lambda x, t: c.expand_as(x), process, shape=(2,))
    noise = ls.prior(model, 4, dtype=F64)
    exact = [c for c in SPACE if c.moments == "exact" and c.prediction != "v"]  # v goes round, in an arc
    times = tuple(ls.grid.times(process, len(exact), "log_snr"))
    for choices in (exact, exact[::-1], exact[1::2] + exact[::2]):
        plan = Schedule(times, tuple(choices)).plan(process)
        assert torch.allclose(ls.sample(model, x_init=noise, plan=plan), c.expand(4, 2), atol=1e-9)


def test_a_mixed_schedule_converges_at_the_order_of_its_steps() -> None:
    """Order 2 throughout, frames and correctors mixed: four times less error for half the step."""
    process = ls.process.EDM(sigma_min=0.3, sigma_max=5.0)
    model = mixture(dim=3, components=3, process=process)
    noise = ls.prior(model, 8, dtype=F64)
    mix = [Choice("data", 2), Choice("noise", 2, True), Choice("sigma", 2), Choice("velocity", 2, True)]

    def run(n: int) -> Tensor:
        times = tuple(ls.grid.times(process, n + 1, "log_snr"))
        start = (Choice("data", 1, True),)  # a first step of order 2 as well
        plan = Schedule(times, (*start, *(mix[i % 4] for i in range(n - 1)), Choice("data"))).plan(process)
        return ls.sample(model, x_init=noise, plan=plan)

    a, b, c = (run(n) for n in (40, 80, 160))
    assert 3.2 < float((a - b).norm() / (b - c).norm()) < 6


def test_a_schedule_is_saved_counted_and_compiled(tmp_path: Path, monkeypatch) -> None:
    model = mixture(dim=4)
    calls = []
    counting = replace(model, net=lambda x, t: calls.append(t) or model.net(x, t))
    choices = (Choice("v", 1, True), Choice("noise", 3), Choice("sigma", 2, True), Choice("data", 3))
    plan = Schedule((80.0, 5.0, 1.0, 0.2), choices).plan(model.process)
    plan.save(tmp_path / "plan.json")
    loaded = ls.Plan.load(tmp_path / "plan.json")
    assert loaded.steps == plan.steps
    noise = ls.prior(model, 3, dtype=F64)
    x = ls.sample(counting, x_init=noise, plan=loaded)
    assert len(calls) == plan.nfe == 4
    monkeypatch.setattr(compiled, "_compiled", lambda: compiled._advance)  # the algebra, without a compiler
    assert torch.allclose(x, ls.sample(model, x_init=noise, plan=plan, compile=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["edm", "vp"])
def test_a_searched_schedule_beats_every_fixed_solver_on_unseen_noise(name: str) -> None:
    """P003's check: 6 evaluations of an exact 8-mode mixture, at most 0.8 of the best of 378."""
    model = mixture(dim=2, components=8, process=PROCESSES[name])
    noise, truth = held_out(model)
    best = min(error(model, s.plan(model.process), noise, truth) for s in fixed(model.process, 6))
    plan = solver_schedule(model, 6, samples=256, evaluations=650)
    assert plan.nfe == 6
    assert error(model, plan, noise, truth) < 0.8 * best
    assert plan.report["value"] < plan.report["fixed"]
    assert plan.report["evaluations"] == 650


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    """Mean distance of sorted projections on 64 directions."""
    directions = torch.randn(a.shape[1], 64, generator=torch.Generator().manual_seed(0))
    directions /= directions.norm(dim=0)
    return float(((a @ directions).sort(0)[0] - (b @ directions).sort(0)[0]).abs().mean())


@pytest.mark.parametrize(("name", "grid"), [("vp", "uniform"), ("vp", "trailing"), ("edm", "uniform")])
def test_evolved_times_of_ddim_are_better_than_uniform_ones_on_unseen_noise(name: str, grid: str) -> None:
    """P017's check: 4 steps, 30 % less, here within 250 candidates where 2000 are allowed."""
    model = mixture(dim=2, process=PROCESSES[name])
    noise, truth = held_out(model)
    uniform = ls.plan_sampling(model.process, "ddim", 4, grid)
    evolved = autodiffusion(model, 4, evaluations=250)
    assert evolved.report["evaluations"] <= 250
    assert error(model, evolved, noise, truth) < 0.7 * error(model, uniform, noise, truth)


def test_any_function_of_samples_can_be_what_is_minimised() -> None:
    model = mixture(dim=2, process=PROCESSES["vp"])
    data, (noise, _) = model.net.distribution.sample(256).float(), held_out(model)
    plan = autodiffusion(model, 4, evaluations=250, objective=lambda x: sliced_wasserstein(x, data))
    fresh = model.net.distribution.sample(512, seed=1).float()
    uniform = ls.plan_sampling(model.process, "ddim", 4, "uniform")
    ours, theirs = (
        sliced_wasserstein(ls.sample(model, x_init=noise, plan=p), fresh) for p in (plan, uniform)
    )
    assert ours < 0.7 * theirs


class Split(nn.Module):
    """An exact denoiser whose output passes through a module that is the same at all states and times."""

    def __init__(self, exact: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.exact, self.deep = exact, nn.Linear(1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        nothing = self.deep(torch.zeros(len(x), 1))
        return self.exact(x, t) + 0 * nothing


def test_where_features_do_not_change_evolution_buys_more_evaluations_with_them() -> None:
    """At a quarter of the cost, 3 evaluations' worth is 1 and up to 8 cheap ones that are as good."""
    whole = mixture(dim=2, process=PROCESSES["vp"])
    model = replace(whole, net=Split(whole.net))
    asked = {"samples": 128, "evaluations": 300}
    plain = autodiffusion(model, 3, **asked)
    plan = autodiffusion(model, 3, modules=["deep"], share=0.25, **asked)
    reused = plan.options["reused"]
    assert plain.nfe == 3
    assert plain.options["reused"] == []
    assert plan.nfe - len(reused) + 0.25 * len(reused) <= 3
    noise, truth = held_out(model)
    cheap = cached_features(model, reused, plan.options["modules"])
    assert error(cheap, plan, noise, truth) < 0.6 * error(model, plain, noise, truth)


def test_cheap_evaluations_that_are_worth_nothing_do_no_harm() -> None:
    """The network's whole output as its features: stale ones are longer steps, which the times could be too.

    The first half of the search is the one without, and the second begins with what it found.
    """

    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Identity()

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.deep(MIX.net(x, t))

    model = replace(MIX, net=Through())
    alone = autodiffusion(model, 3, samples=64, evaluations=150)
    joint = autodiffusion(model, 3, samples=64, evaluations=300, modules=["deep"], share=0.5)
    assert joint.report["value"] <= alone.report["value"]
    assert autodiffusion(model, 3, samples=64, evaluations=150).steps == alone.steps


def test_evolution_finds_the_minimum_of_a_bowl_and_a_predictor_finds_it_sooner() -> None:
    def child(rng, a, b):
        return tuple(rng.choice(pair) + round(rng.gauss(0, 3)) for pair in zip(a, b, strict=True))

    start = [(50 + i, -50, 20, 10) for i in range(20)]
    score = lambda c: float(sum(v * v for v in c))  # noqa: E731
    plain, guided = (
        min(evolve(score, start, child, evaluations=400, seed=0, **more).values())
        for more in ({}, {"numbers": lambda c: c, "pool": 10})
    )
    assert guided < plain / 2 < 1500
    assert evolve(score, start, child, evaluations=50, seed=0) == evolve(
        score, start, child, evaluations=50, seed=0
    )


def test_the_predictor_orders_what_it_has_not_seen() -> None:
    """A quadratic of 5 numbers, from 200 values of it: 0.9 of all pairs in their order."""
    g = torch.Generator().manual_seed(0)
    rows, asked = torch.randn(200, 5, generator=g), torch.randn(100, 5, generator=g)
    true = lambda x: x.square().sum(1)  # noqa: E731
    guess = torch.tensor(predicted(rows.tolist(), true(rows).tolist(), asked.tolist()))
    right = (guess[:, None] < guess) == (true(asked)[:, None] < true(asked))
    assert right.double().mean() > 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice("score"), "one of"),
        (lambda: Choice("data", 0), "order"),
        (lambda: Choice("data", 2, moments="some"), "moments"),
        (lambda: Schedule((1.0, 0.5), (Choice(),)), "after each time"),
        (lambda: Schedule((0.5, 1.0), (Choice(),) * 2).plan(MIX.process), "one way"),
        (lambda: solver_schedule(MIX, 0), "nfe"),
        (lambda: solver_schedule(MIX, 3, samples=0), "samples"),
        (lambda: autodiffusion(MIX, 4, candidates=3), "candidates"),
        (lambda: autodiffusion(MIX, 4, method="heun", samples=2), "evaluates once"),
        (lambda: autodiffusion(MIX, 4, modules=["deep"], share=2.0), "share"),
        (lambda: autodiffusion(MIX, 4, modules=["deep"], share=0.5, evaluations=80, samples=2), "no torch"),
    ],
)
def test_bad_arguments_say_what_to_do(make: Callable, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        make()


def test_a_model_that_returns_nan_is_named_before_anything_is_searched() -> None:
    broken = replace(MIX, net=lambda x, t: x * float("nan"))
    for search in (solver_schedule, autodiffusion):
        with pytest.raises(ls.SolveError, match="NaN"):
            search(broken, 3, samples=2)
