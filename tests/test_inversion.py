"""Going back: rows solved exactly, states that go on, fixed points, and what is only approximate."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.anderson import anderson
from longstride.integrate import run
from longstride.methods import REGISTRY
from longstride.models import mixture
from longstride.reverse import reverse

F64 = torch.float64
EDM = ls.process.EDM()
REVERSIBLE = [name for name in sorted(REGISTRY) if REGISTRY[name].kind == "reversible"]
PROCESSES = {"EDM": EDM, "VP": ls.process.VP(), "flow": ls.process.Flow()}


def relative(x: Tensor, y: Tensor) -> float:
    """The largest relative error of a sample."""
    return float(((x - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).max())


def data(model: ls.Denoiser, n: int = 4) -> Tensor:
    return ls.sample(model, n, nfe=20, final="sigma_min", dtype=F64, seed=5)


def labelled(process: ls.process.Process = EDM) -> ls.Denoiser:
    """A mixture in 4 dimensions shifted by its label; none is no shift."""
    exact = mixture(dim=4, components=3, process=process)

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha = process.pair(t.double())[0].to(x)[:, None]
        return exact.net(x - alpha * y[:, None], t) + y[:, None]

    return ls.Denoiser(net, process, shape=(4,), null={"y": 0.0})


@pytest.mark.parametrize("method", REVERSIBLE)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("nfe", [5, 6, 20, 50])
def test_a_reversible_method_comes_back(method: str, process: ls.process.Process, nfe: int) -> None:
    model = mixture(dim=8, process=process)
    x, stats = data(model), ls.Stats()
    state = ls.invert(model, x, method=method, nfe=nfe, stats=stats)
    assert relative(ls.sample(model, x_init=state), x) < 1e-9
    assert stats.nfe <= nfe + 3  # at most 3 older states, of a first-order step each
    assert state.residual is None


@pytest.mark.parametrize("prediction", ["data", "noise", "sigma", "velocity", "v"])
@pytest.mark.parametrize("gamma", [None, 1.0, 0.8])
def test_bdia_comes_back_in_every_frame(gamma: float | None, prediction: str) -> None:
    model = mixture(dim=3, process=ls.process.EDM(sigma_min=0.05, sigma_max=20.0))
    x = data(model)
    state = ls.invert(model, x, method="bdia", nfe=10, gamma=gamma, prediction=prediction, grid="log_snr")
    assert relative(ls.sample(model, x_init=state), x) < 1e-9


@pytest.mark.parametrize("guidance", [0.0, 2.0, 7.5])
@pytest.mark.parametrize("nfe", [5, 100])
def test_round_off_stays_bounded_under_guidance(guidance: float, nfe: int) -> None:
    """gamma = e^(-|lambda_s - lambda_r|); a constant gamma below 1 divides by itself 100 times."""
    model = labelled()
    x = data(mixture(dim=4, components=3))
    told = {"cond": {"y": torch.tensor([0.5, -0.5, 1.0, 2.0], dtype=F64)}, "guidance": guidance}
    for method in ("bdia", "rev_adams_2", "rev_adams_3"):
        state = ls.invert(model, x, method=method, nfe=nfe, **told)
        assert relative(ls.sample(model, x_init=state, **told), x) < 1e-6
    if nfe == 100:
        state = ls.invert(model, x, method="bdia", nfe=nfe, gamma=0.5, **told)
        assert relative(ls.sample(model, x_init=state, **told), x) > 1e-3


@pytest.mark.parametrize("J", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("nfe", [4, 12, 100])
def test_the_parasitic_zero_of_bdia_grows_no_faster_than_the_noise(nfe: int, J: float) -> None:
    """z^2 = (b + J f) z + g on even steps h in lambda: within [e^(-h), 1] for every slope J of the field."""
    plan = ls.plan_sampling(EDM, "bdia", nfe, "log_snr", final="sigma_min")
    h = EDM.lambda_(plan.times[2]) - EDM.lambda_(plan.times[1])
    row = plan.steps[2].stages[1]
    (g, b), (f,) = row.x, row.f
    half = (b + J * f) / 2
    parasitic = half - math.sqrt(half**2 + g)
    assert math.exp(-h) - 1e-12 <= -parasitic <= 1 + 1e-12


@pytest.mark.parametrize("method", REVERSIBLE)
def test_reversing_undoes_a_run_and_twice_is_the_plan(method: str) -> None:
    model = mixture(dim=3)
    fields, x = model.fields(), ls.prior(model, 4, dtype=F64)
    plan = ls.plan_sampling(EDM, method, 9, final="sigma_min")
    kept: list[Tensor] = []
    run(fields, plan, x, kept=kept)
    back = reverse(plan)
    assert back.times == plan.times[::-1]
    assert relative(run(fields, back, kept)[0][-1], x) < 1e-9

    part = reverse(plan, start=False)
    onward = reverse(part)
    first, again, twice = list[Tensor](), list[Tensor](), list[Tensor]()
    run(fields, part, kept, kept=first)
    run(fields, onward, first, kept=again)
    run(fields, reverse(onward), kept, kept=twice)
    for a, b in zip([*again, *twice], [*kept, *first], strict=True):
        assert relative(a, b) < 1e-9
    assert onward.states == part.states == len(kept)
    assert onward.times == plan.times[-len(onward.times) :]


def test_a_step_back_costs_what_the_step_does() -> None:
    for method in REVERSIBLE:
        plan = ls.plan_sampling(EDM, method, 20, final="sigma_min")
        back = reverse(plan, start=False)
        ahead = sum(step.nfe for step in plan.steps[len(plan.steps) - len(back.steps) :])
        shared = len(back.steps[0].keep_f)  # evaluations that the steps forward found made already
        assert back.nfe == ahead + shared


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dpmpp_2m", {}, "step 6 of 6.*cannot be undone: its evaluations.*fixed_point=True"),
        ("ddim", {}, "cannot be undone"),
        ("heun", {}, "cannot be undone"),
        ("ddpm", {}, "draws noise"),
        ("dpmpp_2m", {"eta": 1.0}, "draws noise"),
        ("bdia", {"fixed_point": True}, "carries several states"),
        ("bdia", {"gamma": 0.0}, "positive"),
        ("bdia", {"final": "data"}, "clean data.*sigma_min"),
        ("rev_adams_3", {"nfe": 2}, "larger nfe"),
        ("bdia", {"iterations": -1}, "iterations"),
        ("ddim", {"fixed_point": True, "tolerance": 0.0}, "positive"),
    ],
)
def test_what_cannot_be_inverted_is_refused(method: str, options: dict, message: str) -> None:
    model = mixture(dim=2)
    with pytest.raises(ls.ArgumentError, match=message):
        ls.invert(model, torch.zeros(1, 2), **{"method": method, "nfe": 6, **options})


def test_plans_and_data_that_do_not_fit_are_refused() -> None:
    model = mixture(dim=2)
    with pytest.raises(ls.ArgumentError, match=r"n, \*\[2\]"):
        ls.invert(model, torch.zeros(1, 3))
    with pytest.raises(ls.ArgumentError, match="floats"):
        ls.invert(model, torch.zeros(1, 2, dtype=torch.int))
    with pytest.raises(ls.PlanError, match="another process"):
        ls.invert(model, torch.zeros(1, 2), plan=ls.plan_sampling(ls.process.VP(), "bdia", 5))
    with pytest.raises(ls.ArgumentError, match="leave those out"):
        ls.invert(model, torch.zeros(1, 2), plan=ls.plan_sampling(EDM, "bdia", 5), nfe=5)
    state = ls.invert(model, torch.ones(1, 2), nfe=5)
    with pytest.raises(ls.ArgumentError, match="brings its plan"):
        ls.sample(model, x_init=state, nfe=5)
    with pytest.raises(ls.ArgumentError, match="compile=True"):
        ls.sample(model, x_init=state, compile=True)
    with pytest.raises(ls.ArgumentError, match="begins with 2 states, not 1"):
        run(model.fields(), state.plan, state.x)
    plan = ls.plan_sampling(EDM, "bdia", 6)
    with pytest.raises(ls.ArgumentError, match=r"step 6 of 6.*forgets where it began"):
        reverse(plan)


@pytest.mark.parametrize("method", ["bdia", "rev_adams_3", "edict", "ddim"])
def test_a_sample_does_not_depend_on_its_batch(method: str) -> None:
    model, y = labelled(), torch.tensor([0.5, -0.5, 1.0], dtype=F64)
    x = data(mixture(dim=4, components=3), 3) + y[:, None]
    told = {"cond": {"y": y}, "guidance": 1.0 if method == "ddim" else 2.0}
    how = {"method": method, "nfe": 24, "fixed_point": method == "ddim", "tolerance": 1e-11}
    whole, split = (ls.invert(model, x, batch=batch, **how, **told) for batch in (3, 2))
    for a, b in zip(whole.xs, split.xs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)
    assert relative(ls.sample(model, x_init=whole, batch=1, **told), x) < 1e-7


def test_a_state_without_its_history_returns_approximately_and_says_so() -> None:
    model = mixture(dim=4)
    x = data(model)
    for method, least, most in (("bdia", 1e-6, 1e-2), ("edict", 1e-3, 1e2)):
        state = ls.invert(model, x, method=method, nfe=40)
        assert (state.t, len(state.x)) == (state.plan.times[0], 4)
        with pytest.warns(UserWarning, match="x alone"):
            near = ls.sample(model, x_init=state.x, plan=state.plan)
        assert least < relative(near, x) < most


def test_a_state_sampled_under_another_condition_is_an_edit() -> None:
    """Data of label y is the mixture shifted by y, so a change of label moves x by the difference."""
    model = labelled()
    x, y = data(mixture(dim=4, components=3)) + 2.0, torch.full((4,), 2.0, dtype=F64)
    for method in REVERSIBLE:
        state = ls.invert(model, x, method=method, nfe=60, cond={"y": y})
        edited = ls.sample(model, x_init=state, cond={"y": y - 0.01})
        assert torch.allclose(edited, x - 0.01, atol=5e-3)


def test_a_state_is_saved_with_its_plan(tmp_path) -> None:
    model = mixture(dim=2)
    state = ls.invert(model, data(model), nfe=6)
    state.plan.save(tmp_path / "plan.json")
    assert ls.Plan.load(tmp_path / "plan.json") == state.plan


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("method", ["ddim", "heun", "dpmpp_2m", "ipndm_3"])
def test_the_fixed_point_is_the_inverse(method: str, process: ls.process.Process) -> None:
    model = mixture(dim=8, process=process)
    x, stats, calls = data(model), ls.Stats(), 0

    def net(*given: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return model.net(*given)

    counted = ls.Denoiser(net, process, shape=(8,))
    state = ls.invert(
        counted, x, method=method, nfe=50, fixed_point=True, tolerance=1e-11, stats=stats, iterations=100
    )
    assert calls == stats.nfe == stats.network_calls
    assert float(state.residual.max()) <= 1e-11
    assert relative(ls.sample(model, x_init=state), x) < 1e-9


def test_an_unfinished_fixed_point_says_so() -> None:
    model = mixture(dim=8)
    with pytest.warns(UserWarning, match=r"of 4 samples was not found.*State.residual"):
        state = ls.invert(model, data(model), method="heun", nfe=8, fixed_point=True, iterations=2)
    assert float(state.residual.max()) > 1e-6


def test_bdia_returns_where_ddim_inversion_does_not() -> None:
    """The check of BDIA's card: 20 steps, below 1e-8 against above 1e-3; and DDIM as gamma goes to 0."""
    model = mixture(dim=8)
    x = data(model)
    exact = ls.invert(model, x, method="bdia", nfe=20)
    rough = ls.invert(model, x, method="ddim", nfe=20, fixed_point=True, iterations=0)
    assert relative(ls.sample(model, x_init=exact), x) < 1e-8
    assert relative(ls.sample(model, x_init=rough), x) > 1e-3
    noise = ls.prior(model, 4, dtype=F64)
    ddim = ls.sample(model, x_init=noise, method="ddim", nfe=20)
    limit = ls.sample(model, x_init=noise, method="bdia", nfe=20, gamma=1e-14)
    assert torch.allclose(limit, ddim, atol=1e-10)


def test_rf_solver_run_backward_is_approximate_at_its_order() -> None:
    """Backward and forward the leading errors of an even order cancel, so a second-order rule shows 3."""
    process = ls.process.Flow()
    model = mixture(dim=8, process=process)
    x = data(model, 8)

    def error(method: str, nfe: int) -> float:
        state = ls.invert(model, x, method=method, nfe=nfe, fixed_point=True, iterations=0)
        return float((ls.sample(model, x_init=state) - x).norm() / x.norm())

    errors = [error("rf_solver_2", nfe) for nfe in (80, 160, 320)]
    assert all(math.log2(a / b) >= 1.8 for a, b in pairwise(errors))
    assert error("rf_solver_2", 40) < error("euler", 40) / 4


def test_anderson_solves_a_linear_problem_in_as_many_updates_as_dimensions() -> None:
    """With enough memory it is GMRES: exact after d + 1, where the plain iteration diverges."""
    generator = torch.Generator().manual_seed(0)
    d = 6
    A = torch.randn(3, d, d, generator=generator, dtype=F64)
    b = torch.randn(3, d, generator=generator, dtype=F64)
    exact = torch.linalg.solve(torch.eye(d, dtype=F64) - A, b)

    def g(x: Tensor) -> Tensor:
        return (A @ x[..., None])[..., 0] + b

    x, residual, updates = anderson(g, torch.zeros_like(b), memory=d, tolerance=1e-12, iterations=50)
    assert updates <= d + 2
    assert torch.allclose(x, exact, rtol=1e-9)
    assert float(residual.max()) <= 1e-12
    assert float(anderson(g, torch.zeros_like(b), memory=0, tolerance=1e-12, iterations=50)[1].max()) > 0.1


def test_anderson_leaves_what_is_found_and_gives_back_the_best() -> None:
    at = torch.tensor([[1.0], [5.0]], dtype=F64)
    asked = []

    def g(x: Tensor) -> Tensor:
        asked.append(x.clone())
        return torch.cat([at[:1], torch.cos(x[1:])])

    x, residual, updates = anderson(g, at, tolerance=1e-14, iterations=30)
    assert all(float(seen[0]) == 1.0 for seen in asked)
    assert float(x[1]) == pytest.approx(0.7390851332151607, abs=1e-12)
    assert updates == len(asked) - 1
    x, residual, updates = anderson(g, at, iterations=0)
    assert torch.equal(x, at)
    assert float(residual[1]) > 1
    assert updates == 0
    with pytest.raises(ls.SolveError, match="NaN or infinity"):
        anderson(lambda x: x / 0, at)
