"""Long runs in equal steps: every way to the same numbers gives the same numbers."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.equal_steps.pace import Pace, one_step
from longstride.equal_steps.rollout import Rollout, Stand
from longstride.equal_steps.running import LOOK
from longstride.equal_steps.stretches import Stretches
from longstride.errors import Diverged
from longstride.integrate import plan_problem
from longstride.methods import REGISTRY, get
from longstride.native import steps

F64 = torch.float64
KS = ls.systems.kuramoto_sivashinsky(length=22.0, n=32)
SOLVING = [name for name in REGISTRY if not get(name).diffusion]
SINGLE = [name for name in SOLVING if one_step(get(name))]


def linear(dtype: torch.dtype = F64) -> ls.ODE:
    """Decay at several rates, forced: x' = L x + cos t - x^2/4."""
    L = torch.tensor([-0.3, -1.0, -3.0], dtype=F64)
    return ls.ODE(lambda t, x: torch.cos(t) - x * x / 4, L=L)


X0 = torch.tensor([[1.0, 0.5, -0.2], [0.1, 2.0, 0.3]], dtype=F64)


def same(a: Tensor, b: Tensor, tol: float = 1e-13) -> None:
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


# Times


def test_times_are_met_and_sizes_that_differ_by_round_off_are_one() -> None:
    turns = [0.0, 0.1, 0.3, 1.0, 1e3]
    times = Stretches.between(turns, [1, 2, 7, 9990], 0.1)
    assert set(times.sizes) == {0.1}
    assert [times[n] for n in times.ends] == turns
    assert len(times) == 10001
    assert all(abs(times[n] - 0.1 * n) < 1e-12 for n in range(10001))
    assert list(times[-2:]) == [times[9999], 1e3]
    back = Stretches.between([1.0, 0.0], [3], 1 / 3)
    assert back.sizes == (-1 / 3,)
    assert back[3] == 0.0


# The same numbers by every way


@pytest.mark.parametrize("name", SOLVING)
def test_weights_written_once_are_those_of_a_plan(name: str) -> None:
    """Steps of sizes that change, in the middle of a multistep method's history too."""
    marks, problem = [0.0, 1.0, 1.45, 3.0], linear()
    sol = ls.solve(problem, X0, t=(0, 3), method=name, dt=0.1, save_at=marks)
    rule, times = get(name), [0.1 * n for n in range(10)] + [1.0 + 0.09 * n for n in range(5)]
    times += [1.45 + 1.55 * n / 16 for n in range(17)]
    operator = problem.operator(rule.splits)
    steps = tuple(rule.step(times, n, operator) for n in range(len(times) - 1))
    plan = ls.Plan(tuple(times), steps, {}, name)
    same(sol.x[-1], ls.solve(problem, X0, plan=plan).x[-1], 1e-12)
    assert sol.stats.nfe == plan.nfe


def test_a_pace_writes_as_many_steps_as_differ() -> None:
    marks = [0.0, *(i + 0.37 * (i % 2) for i in range(1, 40))]
    times = Stretches.between(marks, [20] * 39)
    assert len(set(times.sizes)) == 2
    pace = Pace(linear(), get("etdrk4"), X0)
    Rollout(linear(), pace, times).go(Stand(0, 0, (X0,)), times.steps)
    assert len(pace.steady) + len(pace.written) == 2
    plan = plan_problem(linear(), list(times), "etdrk4", X0)
    assert len({id(step.stages[-1].x[0]) for step in plan.steps}) == 2


@pytest.mark.parametrize("way", ["checkpoint", "reverse", "adjoint"])
def test_the_way_of_plans_ends_where_rollouts_do(way: str) -> None:
    method = "bdia" if way == "reverse" else "etdrk4"
    x0 = X0.clone().requires_grad_()
    options = {"t": (0, 3), "dt": 0.1, "method": method, "save_every": 4}
    sol, other = (ls.solve(linear(), x0, grad=grad, **options) for grad in (True, way))
    same(sol.x, other.x)
    same(sol.x_end, other.x_end)
    assert sol.t == other.t


def test_save_every_is_save_at() -> None:
    options = {"t": (0, 10), "dt": 0.1, "method": "etdrk4"}
    every = ls.solve(KS, KS.x0, save_every=30, **options)
    at = ls.solve(KS, KS.x0, save_at=[0.0, 3.0, 6.0, 9.0], **options)
    assert torch.equal(every.x, at.x)
    assert every.t == pytest.approx(at.t)
    steps = ls.solve(KS, KS.x0, save_at="steps", **options)
    assert torch.equal(steps.x[::30], every.x)
    assert torch.equal(steps.x[-1], every.x_end)
    same(every.x[0], KS.space.leave(KS.space.enter(KS.x0)))


def test_weights_are_as_precise_as_the_state_on_every_path() -> None:
    x = KS.x0.float()
    for grad in (True, "checkpoint"):
        sol = ls.solve(KS, x, t=(0, 5), dt=0.1, method="etdrk4", grad=grad)
        assert sol.x.dtype == torch.float32
        same(sol.x.double(), ls.solve(KS, KS.x0, t=(0, 5), dt=0.1, method="etdrk4").x, 2e-4)


# Steppers


@pytest.mark.parametrize("name", ["etdrk4", "krogstad", "rk4", "tsit5"])
def test_a_stepper_repeated_is_a_solution(name: str) -> None:
    step = ls.stepper(linear(), name, dt=0.125)
    sol = ls.solve(linear(), X0, t=(1, 3), method=name, dt=0.125)
    assert torch.equal(step.repeat(X0, 16, t=1.0), sol.x[-1])
    u = X0
    for n in range(16):
        u = step(u, 1.0 + 0.125 * n)
    assert torch.equal(u, sol.x[-1])
    assert torch.equal(step.repeat(step.repeat(X0, 5), 11, t=0.625), step.repeat(X0, 16))
    with torch.no_grad():  # in buffers
        ks, c = ls.stepper(KS.entered(), name, dt=0.01), KS.space.enter(KS.x0)
        assert torch.equal(ks.repeat(ks(ks.repeat(c, 9)), 10), ks.repeat(c, 20))
    assert step.repeat(X0, 0) is X0


def test_a_stepper_sees_fields_and_trees() -> None:
    step, u = ls.stepper(KS, dt=0.25), KS.x0
    sol = ls.solve(KS, u, t=(0, 5), method="etdrk4", dt=0.25)
    assert torch.equal(step.repeat(u, 20), sol.x[-1])
    turn = ls.stepper(ls.ODE(lambda t, s: {"q": s["p"], "p": -s["q"]}), "rk4", dt=1e-2)
    end = turn.repeat({"q": torch.zeros(1, dtype=F64), "p": torch.ones(1, dtype=F64)}, 100)
    same(end["q"], torch.ones(1, dtype=F64).sin(), 1e-9)
    same(end["p"], torch.ones(1, dtype=F64).cos(), 1e-9)


def test_weights_of_a_stepper_serve_all_calls_and_each_precision_has_its_own() -> None:
    step = ls.stepper(KS, dt=0.25)
    for u in (KS.x0, KS.x0.float(), KS.x0.repeat(3, 1)):
        assert step(u).dtype == u.dtype
        assert torch.equal(step(u), step(u, t=7.0))
    assert [len(pace.steady) for pace in step._paces.values()] == [1, 1]
    same(step(KS.x0.repeat(3, 1)), step(KS.x0).repeat(3, 1), 1e-12)


def test_a_learned_linear_part_is_differentiated_in_every_call() -> None:
    L = torch.tensor([-0.5, -1.0, -2.0], dtype=F64, requires_grad=True)
    step = ls.stepper(ls.ODE(lambda t, x: 0 * x, L=L), dt=0.1)
    for _ in range(2):
        (slope,) = torch.autograd.grad(step.repeat(X0, 10).sum(), L)
        same(slope, (X0 * L.exp()).sum(0).detach(), 1e-12)


def test_a_linear_part_that_was_trained_since_is_seen_without_gradients_too() -> None:
    L = torch.tensor([-0.5, -1.0, -2.0], dtype=F64, requires_grad=True)
    step = ls.stepper(ls.ODE(lambda t, x: 0 * x, L=L), dt=0.1)
    with torch.no_grad():
        for _ in range(2):
            same(step(X0), X0 * (0.1 * L).exp())
            L.mul_(2.0)


def test_multistep_methods_are_no_steppers() -> None:
    with pytest.raises(ls.ArgumentError, match=r"'ab_3' goes on from steps before.*one-step.*save_every"):
        ls.stepper(KS, "ab_3", dt=0.1)
    for dt in (0.0, math.nan):
        with pytest.raises(ls.ArgumentError, match="dt"):
            ls.stepper(KS, dt=dt)


# Gradients


@pytest.mark.parametrize("name", ["etdrk4", "rk4"])
def test_gradients_from_few_states_are_those_of_backpropagation(name: str) -> None:
    rate = torch.tensor(0.7, dtype=F64, requires_grad=True)
    problem = ls.ODE(lambda t, x: torch.sin(t) - rate * x * x, L=torch.tensor([-0.5, -1.0, -2.0], dtype=F64))
    step, x0 = ls.stepper(problem, name, dt=0.05), X0.clone().requires_grad_()
    found = []
    for way in (True, "checkpoint"):
        end = step.repeat(x0, 60, grad=way)
        found.append(torch.autograd.grad(end.square().sum(), (x0, rate)))
        sol = ls.solve(problem, x0, t=(0, 3), dt=0.05, method=name, grad=way, save_every=20)
        found.append(torch.autograd.grad(sol.x_end.square().sum(), (x0, rate)))
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            same(a, b, 1e-12)


def test_gradients_through_a_rollout_are_finite_differences() -> None:
    step, u = ls.stepper(KS, dt=0.25), KS.x0.clone().requires_grad_()
    along = torch.randn(u.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(step.repeat(u, 20).square().sum(), u)
    with torch.no_grad():
        ends = [step.repeat(u + h * along, 20).square().sum() for h in (1e-5, -1e-5)]
    same((slope * along).sum(), (ends[0] - ends[1]) / 2e-5, 1e-6)


# Resume

LONG = {"t": (0.0, 60.0), "dt": 0.05, "save_every": 100}


def reductions() -> list:
    return [
        ls.Record(lambda t, u: u.square().mean(-1), every=50),
        ls.Fold(lambda most, t, u: torch.maximum(most, u.abs().amax(-1)), KS.x0.new_zeros(1)),
    ]


@pytest.fixture
def heard() -> Iterator[None]:
    """SIGINT interrupts, also where the tests run in the background of a shell that ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("method", ["etdrk4", "ab_3"])
@pytest.mark.parametrize("stop", [1, 64, 777])
def test_an_interrupted_run_goes_on_bit_for_bit(method: str, stop: int, tmp_path: Path) -> None:
    options = {**LONG, "method": method, "dt": 0.05 if method == "etdrk4" else 1e-4}
    options["t"] = (0.0, 1200 * options["dt"])
    whole = ls.solve(KS, KS.x0, reduce=reductions(), grad=False, **options)

    def ctrl_c(n: int, t: float, x: Tensor) -> None:
        if n == stop:
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "run"
    book = {"checkpoint": folder, "grad": False, **options}
    with pytest.raises(KeyboardInterrupt):
        ls.solve(KS, KS.x0, reduce=reductions(), callback=ctrl_c, **book)
    taken = []
    sol = ls.solve(KS, KS.x0, reduce=reductions(), callback=lambda n, t, x: taken.append(n), **book)
    assert taken == list(range(stop + 1, 1200))
    again = ls.solve(KS, KS.x0, reduce=reductions(), callback=lambda n, t, x: taken.append(n), **book)
    assert len(taken) == 1199 - stop  # what has ended is there at once
    for found in (sol, again):
        assert torch.equal(found.x, whole.x)
        assert torch.equal(found.x_end, whole.x_end)
        (t, energy), most = found.reduced
        assert torch.equal(energy, whole.reduced[0][1])
        assert torch.equal(t, whole.reduced[0][0])
        assert torch.equal(most, whole.reduced[1])
        assert (found.stats.nfe, found.stats.steps) == (whole.stats.nfe, 1200)


def slowly(folder: Path) -> None:
    ls.solve(
        KS, KS.x0, method="etdrk4", grad=False, checkpoint=folder, checkpoint_every=0.05, **LONG,
        callback=lambda n, t, x: time.sleep(1e-2),
    )  # fmt: skip


def test_a_killed_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=slowly, args=(folder,))
    process.start()
    while len(list(folder.glob("saved-*"))) < 3 and process.is_alive():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    steps = []
    sol = ls.solve(
        KS, KS.x0, method="etdrk4", grad=False, checkpoint=folder, **LONG,
        callback=lambda n, t, x: steps.append(n),
    )  # fmt: skip
    whole = ls.solve(KS, KS.x0, method="etdrk4", **LONG)
    assert steps[0] > 100  # a kill between the third saved state and what goes with it falls back on the last
    assert steps[-1] == 1199
    assert torch.equal(sol.x, whole.x)
    assert torch.equal(sol.x_end, whole.x_end)


def test_a_run_between_walls_is_written_down_whatever_its_strides(tmp_path: Path) -> None:
    space = ls.spectral.Box((2.0, 1.0), (8, 6), "periodic,dirichlet-neumann")
    heat = ls.PDE(space=space, L=-0.02 * space.k2, f=ls.Pointwise(space, lambda u: u - u**3))

    def run(**more: Any) -> ls.Solution:
        return ls.solve(heat, heat.x0, t=(0, 1), method="krogstad", dt=0.05, grad=False, **more)

    def stopped(n: int, t: float, x: Any) -> None:
        if n == 10:
            raise MemoryError

    with pytest.raises(MemoryError):
        run(checkpoint=tmp_path / "walls", checkpoint_every=1e-9, callback=stopped)
    assert torch.equal(run(checkpoint=tmp_path / "walls").x, run().x)


def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path: Path) -> None:
    options = {"t": (0, 5), "dt": 0.05, "method": "etdrk4", "checkpoint": tmp_path / "run", "grad": False}
    ls.solve(KS, KS.x0, **options)
    files = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    for change, what in (
        ({"dt": 0.1}, r"dt 0\.05 and not 0\.1.*steps 100 and not 50"),
        ({"method": "krogstad"}, "method etdrk4 and not krogstad"),
        ({"save_every": 7}, "saved"),
        ({"t": (0, 6)}, r"t \[0\.0, 5\.0\] and not \[0\.0, 6\.0\]"),
    ):
        with pytest.raises(ls.ArgumentError, match=rf"of another run: .*{what}.*name another folder"):
            ls.solve(KS, KS.x0, **options | change)
    with pytest.raises(ls.ArgumentError, match=r"of another run: .*start"):
        ls.solve(KS, 2 * KS.x0, **options)
    with pytest.raises(ls.ArgumentError, match=r"of another run: problem"):
        ls.solve(ls.systems.kuramoto_sivashinsky(length=23.0, n=32), KS.x0, **options)
    with pytest.raises(ls.ArgumentError, match=r"no graph.*grad=False"):
        ls.solve(KS, KS.x0.clone().requires_grad_(), **options | {"grad": True})
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == files
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ls.ArgumentError, match="cannot read checkpoint"):
        ls.solve(KS, KS.x0, **options)
    (tmp_path / "file").touch()
    with pytest.raises(ls.ArgumentError, match="cannot write checkpoint"):
        ls.solve(KS, KS.x0, **options | {"checkpoint": tmp_path / "file"})


# Divergence


def test_what_goes_to_infinity_is_named_with_a_step_that_would_have_done() -> None:
    """x' = -k x by Euler multiplies by 1 - k h: bounded for h <= 2/k."""
    rates = torch.tensor([[1.0], [30.0], [5.0]], dtype=F64)
    problem, x0 = ls.ODE(lambda t, x: -rates * x), torch.ones(3, 1, dtype=F64)
    with pytest.raises(Diverged, match=r"method euler, step \d+ of 10000.*in 1 of 3 samples \(1\)") as raised:
        ls.solve(problem, x0, t=(0, 1000), dt=0.1, method="euler")
    error = raised.value
    assert error.samples == (1,)
    assert error.dt == 0.05
    assert error.t == pytest.approx(0.1 * error.step)
    same(error.x, ls.solve(problem, x0, t=(0, error.t), dt=0.1, method="euler").x_end, 1e-9)
    assert torch.isfinite(error.x).all()
    assert f"dt = {error.dt:.3g}" in str(error)
    first = math.ceil(1024 - math.log2(30))  # 30 2^n overflows
    assert f"step {first + 1} of" in str(error)


def test_a_field_that_diverges_is_handed_back_as_a_field() -> None:
    burgers = ls.systems.kuramoto_sivashinsky(length=22.0, n=32)
    with pytest.raises(Diverged) as raised:
        ls.solve(burgers, 40 * KS.x0, t=(0, 50), dt=0.5, method="etdrk4")
    error = raised.value
    assert error.x.shape == KS.x0.shape
    assert not error.x.is_complex()
    sol = ls.solve(burgers, error.x, t=(error.t, 50.0), dt=error.dt, method="etdrk4")
    assert sol.x_end.abs().max() < 10  # the attractor's size is 3


def test_a_step_much_too_long_is_told_one_that_would_do() -> None:
    """In 2 dimensions too, where steps a hundred times as short are wanted."""
    flow = ls.systems.navier_stokes_2d(n=16)
    for pde, x0, dt in ((KS, 100 * KS.x0, 1.0), (flow, 20 * flow.x0, 0.5)):
        with pytest.raises(Diverged, match="stays bounded with dt") as raised:
            ls.solve(pde, x0, t=(0, 20), dt=dt, method="etdrk4")
        error = raised.value
        assert error.dt is not None
        ls.solve(pde, error.x, t=(error.t, error.t + dt), dt=error.dt, method="etdrk4")


def test_a_small_start_that_grows_by_itself_is_told_a_step_that_would_do() -> None:
    """Lorenz's butterfly is fifty times as large as (1, 1, 1); waves of KS grow until they break."""
    lorenz, ks = ls.systems.lorenz63(), ls.systems.kuramoto_sivashinsky()
    for problem, x0, dt in ((lorenz, lorenz.x0, 1.0), (ks, ks.x0, 10.0)):
        with pytest.raises(Diverged, match="stays bounded with dt") as raised:
            ls.solve(problem, x0, t=(0, 100), dt=dt)
        assert raised.value.dt is not None
        ls.solve(problem, x0, t=(0, 100), dt=raised.value.dt)


@pytest.mark.parametrize(
    ("x0", "words"),
    [
        (KS.x0[:0], "no samples"),
        (KS.x0.numpy(), "tensor"),
        (KS.x0.long(), "tensor"),
        (KS.x0.bfloat16(), "float32"),
        (KS.x0[0], "batch"),
    ],
)
def test_states_that_no_space_takes(x0: Any, words: str) -> None:
    for run in (lambda: ls.solve(KS, x0, t=(0, 1), dt=0.1), lambda: ls.stepper(KS, dt=0.1)(x0)):
        with pytest.raises(ls.ArgumentError, match=words):
            run()


def test_a_solution_that_goes_to_infinity_has_no_step_that_helps() -> None:
    with pytest.raises(Diverged, match="goes to infinity") as raised:
        ls.solve(ls.ODE(lambda t, x: x * x), torch.ones(1, 1, dtype=F64), t=(0, 3), dt=0.01)
    assert raised.value.dt is None
    assert raised.value.t < 1.0


# Diagnostics


def test_records_and_folds_see_what_saving_would_have() -> None:
    options = {"t": (0, 20), "dt": 0.1, "method": "etdrk4"}
    sol = ls.solve(KS, KS.x0, save_every=1, **options)
    spectrum = ls.Record(lambda t, u: torch.fft.rfft(u).abs().square(), every=20)
    mean = ls.Fold(lambda total, t, u: total + u, lambda t, u: 0 * u, every=4)
    found = ls.solve(KS, KS.x0, reduce=[spectrum, mean], **options)
    (t, values), total = found.reduced
    assert t.tolist() == pytest.approx([2.0 * i for i in range(11)])
    assert torch.equal(values, torch.fft.rfft(sol.x[::20]).abs().square())
    same(total, sol.x[4::4].sum(0), 1e-12)
    assert len(found.x) == 1
    assert torch.equal(found.x_end, sol.x[-1])


def test_what_belongs_to_equal_steps_is_refused_elsewhere() -> None:
    one, x0 = ls.ODE(lambda t, x: -x), torch.ones(1, 1, dtype=F64)
    for options, what in (
        ({"save_every": 2}, "save_every= go with dt="),
        ({"reduce": ls.Record(lambda t, x: x)}, "a Fold or an Integral"),
        ({"reduce": ls.Fold(lambda c, t, x: c, x0, every=2)}, "every="),
        ({"dt": 0.1, "reduce": ls.Integral(lambda t, x: x)}, "Record"),
        ({"dt": 0.1, "save_every": 0}, "at least 1"),
        ({"dt": 0.1, "save_every": 2, "save_at": [1.0]}, "not both"),
        ({"dt": 0.1, "progress": True, "grad": "checkpoint"}, "progress: leave out grad"),
    ):
        with pytest.raises(ls.ArgumentError, match=what):
            ls.solve(one, x0, t=(0, 1), **options)


def test_a_bar_of_ones_own_is_moved_to_the_end() -> None:
    seen = []
    ls.solve(linear(), X0, t=(0, 1), dt=0.01, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (100, 100)
    assert len(seen) < 100


def test_states_between_looks_are_not_remembered() -> None:
    """What a run holds does not grow with its steps."""
    import gc

    def alive(n: int, t: float, x: Tensor) -> None:
        if n in (3 * LOOK, 9 * LOOK):
            counts.append(sum(type(o) is Tensor for o in gc.get_objects()))

    counts: list[int] = []
    with torch.no_grad():
        ls.solve(linear(), X0, t=(0, 1), steps=10 * LOOK, method="etdrk4", callback=alive)
    assert counts[0] == counts[1]


# Precision


def test_a_state_in_float64_is_not_rounded_where_f_is() -> None:
    """f in float32 costs eps of f, whatever the number of steps; a state in float32 eps in each of them."""
    space = ls.spectral.Fourier(2 * math.pi, 32, dealias=1 / 2)
    cubic = ls.spectral.Pointwise(space, lambda u: -(u**3))
    allen_cahn = ls.ODE(cubic, L=1 - 0.02 * space.k2, space=space)
    x0 = 0.5 * torch.sin(space.x[0] + 0.3)[None] + 0.1 * torch.cos(3 * space.x[0])

    def end(problem: ls.ODE, x: Tensor) -> Tensor:
        return ls.solve(problem, x, t=(0, 2), dt=0.002, method="etdrk4").x_end.double()

    exact, eps = end(allen_cahn, x0), torch.finfo(torch.float32).eps
    both = [(end(*run) - exact).abs().max() for run in ((ls.mixed(allen_cahn), x0), (allen_cahn, x0.float()))]
    assert both[0] < 2 * eps
    assert both[0] < both[1] / 8
    same(end(ls.mixed(allen_cahn), x0.float()), end(allen_cahn, x0.float()))  # it has no more to lose


# Compiled


def test_compiled_steps_are_the_same_and_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loops, made = [], steps.Loop
    monkeypatch.setattr(steps, "Loop", lambda graph: loops.append(made(graph)) or loops[-1])
    problem = ls.ODE(lambda t, x: torch.sin(t * x))
    options = {"t": (0, 3), "dt": 0.1, "method": "rk4", "save_every": 10}
    with torch.no_grad():
        plain, compiled = (ls.solve(problem, X0, compile=c, **options) for c in (False, True))
        step = ls.stepper(problem, "rk4", dt=0.1, compile=True)
        same(step.repeat(step.repeat(X0, 10), 20, t=1.0), plain.x_end)
    same(plain.x, compiled.x)
    assert len(loops) == 1  # of the run and of the stepper
