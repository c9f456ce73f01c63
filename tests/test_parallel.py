"""Plans swept in parallel: the sequential run's samples, in rounds, on one process and on two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods import REGISTRY
from longstride.models import mixture
from longstride.parallel import fixed_point

F64 = torch.float64
PROCESSES = [ls.process.EDM(), ls.process.VP(), ls.process.Flow()]
METHODS = ["ddim", "dpmpp_2m", "heun", "unipc_3", "dpmpp_2m_sde", "ddpm"]


def swept(model: ls.Denoiser, plan: ls.Plan, x: Tensor, how: ls.Parallel, **more: object):
    """(sequential samples, samples in parallel, what these cost)."""
    stats = ls.Stats()
    one = ls.sample(model, x_init=x, plan=plan, seed=3, **more)
    return one, ls.sample(model, x_init=x, plan=plan, seed=3, parallel=how, stats=stats, **more), stats


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_without_tolerance_it_is_the_sequential_run_within_its_rounds(method: str, process) -> None:
    model = mixture(dim=4, components=3, process=process)
    plan = ls.plan_sampling(process, method, 8)
    x = ls.prior(model, 3, t=plan.times[0], dtype=F64)
    one, many, stats = swept(model, plan, x, ls.Parallel(4, 0.0))
    assert torch.allclose(many, one, rtol=1e-9, atol=1e-9)
    assert stats.rounds <= plan.nfe <= stats.nfe


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("method", METHODS)
def test_it_differs_from_the_sequential_run_by_about_the_tolerance(method: str, process) -> None:
    model = mixture(dim=4, components=3, process=process)
    plan = ls.plan_sampling(process, method, 40)
    x = ls.prior(model, 3, t=plan.times[0], dtype=F64)
    for adaptive in (False, True):
        one, many, stats = swept(model, plan, x, ls.Parallel(16, 1e-5, adaptive))
        assert ls.metrics.endpoint_error(many, one) < 3e-5
        assert stats.rounds < plan.nfe


def test_a_window_of_one_is_the_sequential_run() -> None:
    model = mixture(dim=4)
    plan = ls.plan_sampling(model.process, "dpmpp_2m", 9)
    one, many, stats = swept(model, plan, ls.prior(model, 2, dtype=F64), ls.Parallel(1, 1.0))
    assert torch.allclose(many, one, rtol=1e-12, atol=1e-12)
    assert (stats.rounds, stats.nfe, stats.network_calls) == (9, 9, 9)


def rotation(steps: int) -> tuple[Tensor, list[Tensor]]:
    """A linear drift that does not fade, and the states of the sequential run."""
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    xs = [torch.tensor([[1.0, 0.0]], dtype=F64)]
    for _ in range(steps):
        xs.append(xs[-1] + 0.3 * xs[-1] @ J.T)
    return J, xs


def test_after_r_rounds_the_first_r_evaluations_are_exact() -> None:
    """Picard alone, on a drift that never settles by itself: round r asks at the exact states 0 to r - 1."""
    J, xs = rotation(8)
    seen: list[dict[int, Tensor]] = []

    def drift(k: Tensor, sample: Tensor, x: Tensor) -> Tensor:
        seen.append(dict(zip(k.tolist(), x, strict=True)))
        return x @ J.T

    how = ls.Parallel(8, 0.0, anderson=0)
    (end,), rounds, asked = fixed_point(drift, lambda k, c, F: (c[0] + 0.3 * F,), (xs[0],), 8, how)
    assert torch.equal(end, xs[-1])
    assert rounds <= 8
    assert asked == [sum(k in states for states in seen) for k in range(8)]
    for r, states in enumerate(seen):
        for k, x in states.items():
            if k <= r:
                assert torch.equal(x, xs[k][0])


def test_secants_of_a_linear_drift_end_the_run_in_a_few_rounds() -> None:
    """In two dimensions two secants are the Jacobian, known after four rounds: the window begins at one.

    Each round after them leaves a millionth of the error, the ridge's share; 1e3, where Picard's iterates go
    at first, is below 1e-10 after three. Picard's own bound (60 * 0.3)^n/n! is above 1 until n = 47.
    """
    J, xs = rotation(60)
    ends = {}
    for anderson in (0, 2):
        how = ls.Parallel(60, 1e-10, anderson=anderson)
        (end,), ends[anderson], _ = fixed_point(
            lambda k, sample, x: x @ J.T, lambda k, c, F: (c[0] + 0.3 * F,), (xs[0],), 60, how
        )
        assert torch.allclose(end, xs[-1], rtol=1e-7)
    assert ends[2] <= 4 + 3 + 2 < 40 < ends[0]


def test_what_an_optimizer_carries_is_swept_along() -> None:
    """P128's check: Adam on the score distillation of a mixture, its noises frozen, 300 steps."""
    model = mixture(dim=2, components=2)
    alphas, steps, rate = torch.linspace(1.0, 0.1, 300, dtype=F64), 300, 0.01
    g = torch.Generator().manual_seed(0)
    eps = torch.randn(steps, 4, 2, generator=g, dtype=F64)

    def drift(k: Tensor, sample: Tensor, x: Tensor) -> Tensor:
        """The gradient of score distillation, (x - D(x + sigma eps))/sigma."""
        sigma = alphas[k][:, None]
        return (x - model.net(x + sigma * eps[k, sample], alphas[k])) / sigma

    def adam(k: int, carry: tuple[Tensor, ...], F: Tensor) -> tuple[Tensor, ...]:
        x, m, v = carry
        m, v = 0.9 * m + 0.1 * F, 0.999 * v + 0.001 * F * F
        return x - rate * (m / (1 - 0.9 ** (k + 1))) / ((v / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8), m, v

    x = torch.randn(4, 2, generator=g, dtype=F64)
    begin = carry = (x, torch.zeros_like(x), torch.zeros_like(x))
    for k in range(steps):
        carry = adam(k, carry, drift(torch.full((4,), k), torch.arange(4), carry[0]))
    (end, *_), rounds, _ = fixed_point(drift, adam, begin, steps, ls.Parallel(20, 1e-3))
    assert (end - carry[0]).abs().max() < 1e-2
    assert rounds <= steps / 2


def test_the_check_of_paradigms() -> None:
    """P260: a mixture in 2D, 200 steps of DDIM, window 64, tolerance 1e-3: 40 rounds, 2e-3 at most."""
    model = mixture(dim=2, process=ls.process.VP())
    plan = ls.plan_sampling(model.process, "ddim", 200)
    one, many, stats = swept(model, plan, ls.prior(model, 16, dtype=F64), ls.Parallel(64, 1e-3))
    assert ls.metrics.endpoint_error(many, one) < 2e-3
    assert stats.rounds <= 40


def test_guidance_that_is_on_at_some_of_the_times_is_asked_apart() -> None:
    calls: list[int] = []

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.tanh(y[:, None] + x / (1 + t[:, None] ** 2))

    model = ls.Denoiser(net, ls.process.EDM(), shape=(2,), null={"y": 0.0}, data_range=(-1, 1))
    plan = ls.plan_sampling(model.process, "dpmpp_2m", 12)
    guidance = ls.Guidance(lambda t: 2 + 0.1 * t, interval=(0.1, 10.0), rescale=0.5, threshold=0.9)
    cond = {"y": torch.tensor([0.5, -0.5, 1.0])}
    x = ls.prior(model, 3, dtype=F64)
    one = ls.sample(model, x_init=x, plan=plan, cond=cond, guidance=guidance)
    calls.clear()
    stats = ls.Stats()
    many = ls.sample(
        model, x_init=x, plan=plan, cond=cond, guidance=guidance, parallel=ls.Parallel(6, 0.0), stats=stats
    )
    assert torch.allclose(many, one, rtol=1e-9, atol=1e-9)
    assert sum(calls) == 3 * stats.network_calls
    assert stats.nfe < stats.network_calls < 2 * stats.nfe


def test_a_restart_goes_back_in_time_in_parallel_too() -> None:
    model = mixture(dim=4)
    plan = ls.samplers.plan_restart(model.process, 26, [(0.1, 1.0, 2, 3)])
    one, many, _ = swept(model, plan, ls.prior(model, 3, dtype=F64), ls.Parallel(5, 0.0))
    assert torch.allclose(many, one, rtol=1e-9, atol=1e-9)


def test_the_batch_is_in_the_result_up_to_the_tolerance_only() -> None:
    model = mixture(dim=4)
    plan = ls.plan_sampling(model.process, "dpmpp_2m", 30)
    x = ls.prior(model, 6, dtype=F64)
    for tolerance, apart in ((1e-5, 3e-5), (0.0, 1e-9)):
        how = ls.Parallel(10, tolerance)
        together = ls.sample(model, x_init=x, plan=plan, parallel=how)
        parts = ls.sample(model, x_init=x, plan=plan, parallel=how, batch=2)
        assert torch.allclose(together, parts, atol=apart)


def test_float32_agrees_with_float64() -> None:
    model = mixture(dim=4)
    plan = ls.plan_sampling(model.process, "dpmpp_2m_sde", 30)
    x = ls.prior(model, 4, dtype=F64)
    a, b = (
        ls.sample(model, x_init=x.to(d), plan=plan, seed=1, parallel=ls.Parallel(10, 1e-5))
        for d in (F64, torch.float32)
    )
    assert torch.allclose(a, b.double(), atol=1e-4)


TWO = """
import sys
import torch
import longstride as ls

def run():
    how = ls.Parallel(7, 1e-4, group=torch.distributed.group.WORLD)
    stats = ls.Stats()
    x = ls.sample(ls.load("digits"), 3, nfe=16, cond={"y": [1, 2, 3]}, parallel=how, stats=stats)
    torch.save({"x": x, "rounds": stats.rounds}, f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
run()  # a group that is held until Python ends has threads that may abort it
torch.distributed.destroy_process_group()
"""


def test_two_processes_return_the_same_samples_as_one(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ls.__file__).parents[1])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "two.py"), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first["x"], second["x"])
    stats = ls.Stats()
    alone = ls.sample(
        ls.load("digits"), 3, nfe=16, cond={"y": [1, 2, 3]}, parallel=ls.Parallel(7, 1e-4), stats=stats
    )
    assert stats.rounds == first["rounds"] == second["rounds"]
    assert torch.allclose(first["x"], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parallel": ls.Parallel(9)}, "window = 9 is larger than the plan, which evaluates 8 times"),
        ({"parallel": ls.Parallel(4), "grad": True}, "without grad"),
        ({"parallel": ls.Parallel(4), "compile": True}, "without compile"),
        ({"parallel": ls.Parallel(4), "callback": print}, "without callback"),
        ({"parallel": 4}, "it is a Parallel"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(arguments: dict, message: str) -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the network was called")

    with pytest.raises(ls.ArgumentError, match=message):
        ls.sample(ls.Denoiser(net, ls.process.EDM(), shape=(2,)), 2, nfe=8, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "one at least"),
        ({"window": 2.5}, "whole number"),
        ({"window": 2, "tolerance": -1.0}, "0 .round-off. or more"),
        ({"window": 2, "tolerance": float("nan")}, "finite"),
        ({"window": 2, "adaptive": "no"}, "True or False"),
        ({"window": 2, "anderson": -1}, "at least 0"),
        ({"window": 2, "group": "gloo"}, "process group"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        ls.Parallel(**arguments)


def test_a_cached_model_is_asked_in_order() -> None:
    model = ls.fields.cached(mixture(dim=2), (1,))
    with pytest.raises(ls.ArgumentError, match="parallel="):
        ls.sample(model, 2, nfe=6, parallel=ls.Parallel(3))


def test_what_goes_wrong_is_named_by_step_and_time() -> None:
    def nan(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[:, None] < 1, float("nan"), 0 * x)

    def error(x: Tensor, t: Tensor) -> Tensor:
        return x / 0 + {}[0] if t.min() < 1 else x

    for net in (nan, error):
        with pytest.raises(ls.SolveError, match=r"ddim, step 4 of 6"):
            ls.sample(
                ls.Denoiser(net, ls.process.EDM(), shape=(2,)),
                2,
                method="ddim",
                grid=[80.0, 20.0, 5.0, 0.9, 0.3, 0.1],
                parallel=ls.Parallel(4),
            )


def test_a_guess_that_fails_does_not_spoil_the_run() -> None:
    """The drift is NaN where only a wrong guess goes: the sweep goes on one exact state at a time."""

    def drift(k: Tensor, sample: Tensor, x: Tensor) -> Tensor:
        return torch.where(x > 3, float("nan"), -x)

    def update(k: int, carry: tuple[Tensor], F: Tensor) -> tuple[Tensor]:
        return (carry[0] - F if k == 0 else carry[0] + 0.5 * F,)

    start = (torch.tensor([[1.5]], dtype=F64),)
    (end,), rounds, _ = fixed_point(drift, update, start, 6, ls.Parallel(6, 0.0))
    assert torch.allclose(end, torch.tensor([[3.0 / 2**5]], dtype=F64))
    assert rounds <= 6
