"""One number for each step: what the neutral one leaves alone, and what the fitted one gains held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.learn import d_ode, dc_solver, timestep_aligner
from longstride.learn.d_ode import distilled
from longstride.learn.dc_solver import compensated
from longstride.learn.stepwise import least_squares
from longstride.learn.trajectories import trajectories
from longstride.metrics import endpoint_error
from longstride.models import mixture
from longstride.models.exact import Mixture, random_mixture

F64 = torch.float64
EDM, VP, FLOW = ls.process.EDM(), ls.process.VP(), ls.process.Flow()
PROCESSES = pytest.mark.parametrize("process", [EDM, VP, FLOW], ids=["edm", "vp", "flow"])
LABELS, CFG = 4, 7.5


def labelled(process) -> ls.Denoiser:
    """A mixture in 8 dimensions, exact: label y is its y-th component, none is all of it."""
    whole = random_mixture(8, LABELS)
    parts = [Mixture(torch.ones(1), whole.means[[k]], whole.covs[[k]]) for k in range(LABELS)]

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        pair = process.pair(t.double())
        outs = torch.stack([part.posterior_mean(x.double(), *pair) for part in (*parts, whole)])
        return outs[y.long(), torch.arange(len(x))].to(x.dtype)

    return ls.Denoiser(net, process, shape=(8,), null={"y": LABELS})


def errors(
    model: ls.Denoiser, *plans: ls.Plan, n: int = 256, reached: Callable[[int], dict] = lambda n: {}
) -> list[float]:
    """End-point errors of plans on noises that no fit has seen."""
    noise, asked = ls.prior(model, n, seed=99, dtype=F64), reached(n)
    truth = ls.reference(model, noise, **asked)
    return [endpoint_error(ls.sample(model, x_init=noise, plan=plan, **asked), truth) for plan in plans]


def guided(n: int) -> dict:
    return {"cond": {"y": torch.arange(n) % LABELS}, "guidance": CFG}


def trajectory_error(model: ls.Denoiser, plan: ls.Plan, noise: Tensor, paths) -> float:
    """Mean square over the states of all steps."""
    squares: list[float] = []

    def look(n: int, t: float, x: Tensor) -> None:
        squares.append(float((x - paths.at(plan.times[n + 1])).square().mean()))

    ls.sample(model, x_init=noise, plan=plan, callback=look, batch=len(noise))
    return sum(squares) / len(squares)


def test_a_linear_residual_is_solved_in_closed_form() -> None:
    a, b = torch.tensor([1.0, -2.0, 3.0], dtype=F64), torch.tensor([0.5, 1.0, -1.0], dtype=F64)
    p, error, first = least_squares(lambda p: a + p * b, 0.0)
    assert p == pytest.approx(float(-(a @ b) / (b @ b)), rel=1e-9)
    assert error == pytest.approx(float(a @ a - (a @ b) ** 2 / (b @ b)), rel=1e-9)
    assert first == pytest.approx(float(a @ a))


def test_a_number_never_ends_worse_than_it_began() -> None:
    """Newton's method on atan diverges from there."""
    p, error, first = least_squares(lambda p: torch.atan(torch.tensor([p], dtype=F64)), 3.0)
    assert error < 1e-12 < first
    assert abs(p) < 1e-6
    assert least_squares(lambda p: torch.ones(1), 2.0) == (2.0, 1.0, 1.0)
    assert least_squares(lambda p: torch.tensor([float("nan")]), 2.0)[0] == 2.0


@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m", "deis_3", "unipc_3", "heun", "f_pndm", "bdia"])
@PROCESSES
def test_lambda_zero_is_the_method_to_the_last_bit(method: str, process) -> None:
    model = mixture(dim=3, process=process)
    base = ls.plan_sampling(process, method, 15)
    plan = distilled(base, [0.0] * len(base.steps))
    noise = ls.prior(model, 4, dtype=F64)
    assert plan.nfe == base.nfe
    assert torch.equal(*(ls.sample(model, x_init=noise, plan=p) for p in (plan, base)))


@pytest.mark.parametrize("method", ["unipc_1", "unipc_2", "unipc_3", "dpmpp_3m", "heun", "deis_3"])
@PROCESSES
def test_rho_one_is_the_method(method: str, process) -> None:
    model = mixture(dim=3, process=process)
    base = ls.plan_sampling(process, method, 9)
    noise = ls.prior(model, 8, dtype=F64)
    for K in (1, 2, 3):
        plan = compensated(base, [1.0] * len(base.steps), K)
        ours, theirs = (ls.sample(model, x_init=noise, plan=p) for p in (plan, base))
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_compensation_is_exact_where_the_evaluations_are_a_polynomial_in_t() -> None:
    """Data prediction a + b t + c t^2: at t_i, K = 2 nodes give it at t' whatever rho is, by hand."""
    base = ls.plan_sampling(VP, "unipc_2", 5)
    a, b, c = (torch.tensor([w], dtype=F64) for w in (0.3, -0.7, 0.4))
    asked = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return (a + b * t + c * t**2)[:, None].expand_as(x)

    model = ls.Denoiser(net, VP, shape=(1,))
    rho, noise = [1.0, 1.0, 1.0, 1.0, 1.7], ls.prior(model, 1, dtype=F64)
    x = ls.sample(model, x_init=noise, plan=compensated(base, rho))
    t = rho[4] * base.times[4] + (1 - rho[4]) * base.times[3]
    assert float(x) == pytest.approx(
        float(a + b * t + c * t**2), abs=1e-10
    )  # the end is the newest, replaced
    assert asked == base.evaluated


def test_distilled_weights_are_those_of_the_equations() -> None:
    base = ls.plan_sampling(EDM, "ddim", 3)
    lam = [0.0, 0.5, -2.0]
    plan = distilled(base, lam)
    for n in (1, 2):
        (w,) = base.steps[n].stages[-1].f
        assert plan.steps[n].stages[-1].f[-2:] == pytest.approx((-lam[n] * w, (1 + lam[n]) * w))


@PROCESSES
def test_one_scalar_a_step_cuts_the_error_of_ddim_by_40_percent(process) -> None:
    """The card of P204: a mixture in the plane, 10 NFE, 64 samples."""
    model = mixture(dim=2, process=process)
    fitted, plain = errors(model, d_ode(model, 10), ls.plan_sampling(process, "ddim", 10))
    assert fitted < 0.6 * plain


@pytest.mark.parametrize("method", ["deis_2", "dpmpp_2m", "heun", "unipc_2"])
def test_any_method_misses_less_with_a_scalar_a_step(method: str) -> None:
    model = mixture(dim=8, process=VP)
    plan = d_ode(model, 8, method=method)
    assert plan.nfe == 8
    assert all(after <= before * (1 + 1e-12) for before, after in plan.report["step_error"])
    fitted, plain = errors(model, plan, ls.plan_sampling(VP, method, 8))
    assert fitted < plain


@pytest.mark.parametrize(
    ("method", "process"), [("unipc_2", EDM), ("unipc_2", FLOW), ("unipc_2", VP), ("unipc_3", VP)]
)
def test_dynamic_compensation_cuts_the_squared_error_of_guided_unipc_by_20_percent(method, process) -> None:
    """The card of P030: guidance 7.5, 5 NFE, 10 samples. UniPC is not stable there, and this makes it so."""
    model = labelled(process)
    plan = dc_solver(model, 5, method=method, **guided(10))
    fitted, plain = errors(model, plan, ls.plan_sampling(process, method, 5), reached=guided)
    assert fitted**2 < 0.8 * plain**2
    assert plan.report["rho"][:2] == [1.0, 1.0]  # fewer than K + 1 evaluations to interpolate


@pytest.mark.parametrize(("dim", "samples"), [(2, 64), (64, 128)])
@PROCESSES
def test_aligned_timesteps_cut_the_squared_error_along_the_way_by_25_percent(process, dim, samples) -> None:
    """The card of P074: 6 steps of DDIM, at equal NFE.

    In 64 dimensions a few noises that end at the wrong component are most of the error: it takes many of
    them to fit, and to say how good the fit is.
    """
    model, plan = mixture(process=process, dim=dim), ls.plan_sampling(process, "ddim", 6)
    aligned = timestep_aligner(model, plan, samples=samples)
    noise = ls.prior(model, 1024, seed=99, dtype=F64)
    paths = trajectories(model, noise, nfe=64)
    after, before = (trajectory_error(m, plan, noise, paths) for m in (aligned, model))
    assert after < 0.75 * before
    assert all(process.t_min <= aligned.told(t) <= process.t_max for t in plan.evaluated)


@pytest.mark.parametrize("method", ["ddim", "heun", "unipc_2"])
def test_a_model_that_does_not_ask_the_time_is_told_the_time(method: str) -> None:
    """Nothing to gain, so tau = t and the run is that of the model as it was."""
    model = ls.Denoiser(lambda x, t: 0.3 * x, VP, shape=(2,))
    plan = ls.plan_sampling(VP, method, 6)
    aligned = timestep_aligner(model, plan, samples=4)
    noise = ls.prior(model, 4, dtype=F64)
    assert [aligned.told(t) for t in plan.evaluated] == plan.evaluated
    assert torch.equal(*(ls.sample(m, x_init=noise, plan=plan) for m in (aligned, model)))


@pytest.mark.parametrize("make", [d_ode, dc_solver])
def test_the_report_is_of_noises_that_were_not_fitted_to(make, tmp_path) -> None:
    model = mixture(dim=4)
    plan = make(model, 6, samples=16, seed=3)
    method = next(name for name in plan.report["held_out"] if name != "fitted")
    noise = ls.prior(model, 16, seed=3, dtype=F64, first=16)
    truth = ls.reference(model, noise)
    for name, p in (("fitted", plan), (method, ls.plan_sampling(EDM, method, 6))):
        error = endpoint_error(ls.sample(model, x_init=noise, plan=p), truth)
        assert plan.report["held_out"][name] == pytest.approx(error, rel=1e-9)
    plan.save(tmp_path / "plan.json")
    loaded = ls.Plan.load(tmp_path / "plan.json")
    assert loaded.steps == plan.steps == make(model, 6, samples=16, seed=3).steps


def test_evaluations_are_counted() -> None:
    counted = 0
    exact = mixture(dim=2)

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal counted
        counted += len(x)
        return exact.net(x, t)

    plan = d_ode(ls.Denoiser(net, EDM, shape=(2,)), 5, samples=8)
    assert plan.report["evaluations"] == counted / 8


def test_a_float32_network_is_fitted_as_the_same_in_float64() -> None:
    class Single(torch.nn.Module):
        def __init__(self, net) -> None:
            super().__init__()
            self.net, self.one = net, torch.nn.Parameter(torch.ones((), dtype=torch.float32))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            assert x.dtype == t.dtype == torch.float32
            return self.one * self.net(x, t)

    model = mixture(dim=4)
    single = replace(model, net=Single(model.net))
    ours, theirs = (d_ode(m, 6, samples=8).report["lambda"] for m in (single, model))
    assert ours == pytest.approx(theirs, abs=1e-3)
    ours, theirs = (dc_solver(m, 6).report["rho"] for m in (single, model))
    assert ours == pytest.approx(theirs, abs=1e-2)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: d_ode(m, 5, method="ddpm"), "deterministic"),
        (lambda m: d_ode(m, 5, samples=0), "samples = 0"),
        (lambda m: dc_solver(m, 5, K=0), "at least linear"),
        (lambda m: timestep_aligner(m, ls.plan_sampling(VP, "ddim", 5)), "another process"),
        (lambda m: timestep_aligner(m, ls.plan_sampling(EDM, "ddpm", 5)), "deterministic"),
    ],
)
def test_bad_requests_are_refused(call, word: str) -> None:
    with pytest.raises(ls.ArgumentError, match=word):
        call(mixture(dim=2))
