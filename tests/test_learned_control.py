"""Policies over the history of errors: PI where they are zero, no units, tolerances kept, files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.error_policy import BOUNDS, NUMBERS, ErrorPolicy, plain
from longstride.learn.step_training import Course, van_der_pol, work
from longstride.nbody import Policy

F64 = torch.float64


def corrected(width: float, seed: int, *many: int) -> Tensor:
    """Numbers of PI control with random corrections, [24, *many]."""
    made = torch.Generator().manual_seed(seed)
    corrections = width * torch.randn(NUMBERS - 3, *many, dtype=F64, generator=made)
    return torch.cat([plain()[:3].view(3, *(1,) * len(many)).expand(3, *many), corrections])


SOME = ErrorPolicy(corrected(0.3, 3))


def relaxation(scale: float = 1.0, pace: float = 1.0) -> ls.ODE:
    """Van der Pol's oscillator, mu = 5, in units in which x is `scale` times, and t 1/pace times as large."""

    def f(t: Tensor, x: Tensor) -> Tensor:
        q, v = (x / scale).unbind(1)
        return scale * pace * torch.stack([v, 5 * (1 - q * q) * v - q], 1)

    return ls.ODE(f)


def starts() -> Tensor:
    return torch.tensor([[2.0, 0.0], [0.1, 0.1], [-1.0, 3.0]], dtype=F64)


@pytest.mark.parametrize("method", ["tsit5", "vern7", "rodas5p", "bdf"])
def test_zeros_are_pi_control_to_the_last_bit(method: str) -> None:
    first, second = (
        ls.solve(relaxation(), starts(), t=(0.0, 12.0), method=method, rtol=1e-5, controller=controller)
        for controller in (ls.control.PI(), ErrorPolicy())
    )
    assert torch.equal(first.x_end, second.x_end)
    assert first.stats.nfe == second.stats.nfe


@pytest.mark.parametrize(("scale", "pace"), [(2.0**10, 1.0), (1.0, 2.0**-4), (2.0**-7, 2.0**5)])
def test_units_of_x_and_t_do_not_matter(scale: float, pace: float) -> None:
    """Powers of 2 scale without rounding: the same steps, and the same bits in other units."""
    asked = {"method": "tsit5", "rtol": 1e-4, "controller": SOME}
    plain = ls.solve(relaxation(), starts(), t=(0.0, 12.0), atol=1e-6, first_step=2.0**-10, **asked)
    other = ls.solve(
        relaxation(scale, pace), scale * starts(), t=(0.0, 12.0 / pace), atol=1e-6 * scale,
        first_step=2.0**-10 / pace, **asked,
    )  # fmt: skip
    assert torch.equal(other.x_end, scale * plain.x_end)
    assert torch.equal(other.stats.accepted, plain.stats.accepted)
    assert torch.equal(other.stats.rejected, plain.stats.rejected)


def test_the_power_of_h_does_not_matter() -> None:
    """Methods differ in how fast r falls with h: where r^(1/k) is the same, so is the tolerance kept."""
    asked = torch.linspace(-1.0, 1.0, 41, dtype=F64)
    history = SOME.start(torch.ones_like(asked))
    kept = [SOME.control((k * asked).exp(), history, k)[1] for k in (2, 5, 8)]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_a_batch_of_policies_is_each_of_them() -> None:
    many = corrected(0.3, 5, 3)
    asked = {"t": (0.0, 12.0), "method": "tsit5", "rtol": 1e-4}
    found = ls.solve(relaxation(), starts(), controller=ErrorPolicy(many), **asked)
    for i in range(3):
        one = ls.solve(relaxation(), starts()[i : i + 1], controller=ErrorPolicy(many[..., i]), **asked)
        assert int(one.stats.accepted[0]) == int(found.stats.accepted[i])
        assert torch.allclose(one.x_end[0], found.x_end[i], rtol=1e-9)


@pytest.mark.parametrize("width", [0.3, 30.0])
def test_the_tolerance_is_kept_within_its_bound(width: float) -> None:
    """u <= 0.5 at most is kept, u <= -0.5 always; a refused step becomes shorter, a failed one is refused."""
    policy, k = ErrorPolicy(corrected(width, 3)), 5
    ratio = torch.cat([torch.logspace(-8, 8, 65, dtype=F64), torch.tensor([math.nan, math.inf], dtype=F64)])
    history = policy.start(torch.ones_like(ratio))
    for _ in range(6):
        factor, accept, history = policy.control(ratio, history, k)
        u = ratio.log() / k
        assert not accept[u > BOUNDS[2]].any()
        assert not accept[-2:].any()
        assert accept[:-2][u[:-2] <= -BOUNDS[2]].all()
        assert (factor[~accept] <= 0.95).all()
        assert (factor > 0).all()


def test_the_end_error_falls_with_the_tolerance_at_the_rate_of_the_method() -> None:
    """r falls with h^5, and so does the error at later times: with rtol to the power 1."""
    problem, times = ls.systems.lotka_volterra(), torch.linspace(0.5, 10.0, 20).tolist()
    asked = {"t": (0.0, 10.0), "save_at": times}
    exact = ls.solve(problem, problem.x0, method="vern9", rtol=1e-13, atol=1e-13, **asked).x
    policy, tolerances, errors = ErrorPolicy(corrected(0.1, 3)), np.logspace(-5, -11, 7), []
    for rtol in tolerances:
        found = ls.solve(
            problem, problem.x0, method="tsit5", rtol=rtol, atol=rtol, controller=policy, **asked
        )
        errors.append(float((found.x - exact).square().mean().sqrt()))
    assert abs(np.polyfit(np.log(tolerances), np.log(errors), 1)[0] - 1) < 0.2


def test_a_saved_policy_takes_the_same_steps(tmp_path: Path) -> None:
    SOME.save(tmp_path / "mine")
    again = ls.control.load(tmp_path / "mine")
    assert isinstance(again, ErrorPolicy)
    asked = {"t": (0.0, 12.0), "method": "tsit5"}
    first, second = (ls.solve(relaxation(), starts(), controller=p, **asked) for p in (SOME, again))
    assert torch.equal(first.x_end, second.x_end)


def test_each_kind_of_policy_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    Policy(torch.zeros(9, dtype=F64), 0.02).save(tmp_path / "bodies")
    assert isinstance(ls.control.load(tmp_path / "bodies"), Policy)
    SOME.save(tmp_path / "mine")
    told = json.loads((tmp_path / "mine.json").read_text())
    told["observation"] = told["observation"][:-1]
    (tmp_path / "mine.json").write_text(json.dumps(told))
    with pytest.raises(ls.ArgumentError, match="another observation"):
        ls.control.load(tmp_path / "mine")
    with pytest.raises(ls.ArgumentError, match="numbers"):
        ErrorPolicy(torch.zeros(9))
    with pytest.raises(ls.ArgumentError, match="finite"):
        ErrorPolicy(torch.full((NUMBERS,), math.nan))


def test_a_budget_is_reached_by_a_policy_too() -> None:
    found = ls.solve(
        relaxation(), starts(), t=(0.0, 6.0), method="tsit5", rtol=1e-10, nfe=600, on_budget="reach",
        controller=SOME,
    )  # fmt: skip
    assert set(found.status) == {"stretched"}
    assert found.stats.nfe <= 600


def test_work_at_equal_error_of_a_power_law() -> None:
    """error = c N^-5: log N = (log c - log error)/5 between tolerances; beyond them nothing is promised."""
    error = np.array([-2.0, -3.0, -4.0])
    cost = (np.log(7.0) - error * np.log(10)) / 5
    found = work((error, cost), (-2.0, -2.25, -3.8))
    assert np.allclose(found, (np.log(7.0) - np.array([-2.0, -2.25, -3.8]) * np.log(10)) / 5)
    worse = np.insert(error, 1, -1.0), np.insert(cost, 1, 9.0)
    assert np.array_equal(work(worse, (-2.0, -2.25, -3.8)), found)
    looser, tighter = work((error, cost), (-1.0, -5.0))
    assert looser == cost[0]
    assert tighter > cost[-1] + np.log(10) / 3


def test_copies_in_one_batch_are_runs_of_their_own() -> None:
    cases = van_der_pol(3, 0, 2.0, 4.0)
    tolerances = torch.tensor([1e-2, 1e-3], dtype=F64)
    course = Course.of("tsit5", cases, ("dopri8", 1e-10), tolerances, (-3.0,))
    numbers = torch.stack([plain(), SOME.numbers], 1)
    both, _ = course.runs(ErrorPolicy(numbers.repeat_interleave(course.spread(), 1)), copies=2)
    for i, policy in enumerate((ls.control.PI(), SOME)):
        assert torch.allclose(both[i], course.runs(policy)[0][0], rtol=1e-6)


def test_the_policy_that_is_shipped_costs_less_than_pi_control() -> None:
    """On oscillators that training never saw, at equal error."""
    tolerances = torch.logspace(-1.5, -4.5, 4, dtype=F64)
    cases = van_der_pol(12, 77, 2.0, 8.0)
    course = Course.of("tsit5", cases, ("dopri8", 1e-9), tolerances, (-2.0, -3.0, -4.0))
    policy = ls.control.load("oscillators")
    assert course.work(policy).mean() < course.work(ls.control.PI()).mean()
