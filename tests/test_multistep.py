"""Multistep methods and switching: orders, exactness, stability, pasts over events and jumps, invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import longstride as ls
from counting import Counted
from longstride.methods.multistep import ADAMS, BDFS
from longstride.steppers.adams import Adams
from longstride.steppers.bdf import BDF
from longstride.steppers.multistep import Course, Multistep
from longstride.steppers.past import Past, basis

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)
RATIOS = (1.0, 0.7, 1.6, 1.1, 0.5, 1.9, 0.8, 1.3, 0.9, 1.2, 0.6, 1.5, 1.0, 1.4)  # of unequal steps


def turn(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[..., 1], -x[..., 0]], -1)


def van_der_pol(mu: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda t, x: torch.stack([x[:, 1], mu * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1)


def remembered(values: Callable[[float], Tensor], times: list[float]) -> Past:
    """A past of values at rising times."""
    width, steps = len(times), [b - a for a, b in pairwise(times)]
    first = values(times[0])
    past = Past(first.new_zeros(width, *first.shape), torch.zeros(1, width + 2, dtype=F64), torch.zeros(1))
    past = past.begun(first[None], 1, steps[0] * ONE)
    for step, t in zip(steps, times[1:], strict=True):
        h = step * ONE
        past = past.pushed(values(t), past.star(h), h)
        past = replace(past, rows=past.rows[:width])
    return past


def at_order(
    kind: type[Multistep], k: int, f: Callable, x: Callable, t: float, h: float, tol: float = 1e-12
) -> tuple[Multistep, Course]:
    """One step of h from t at order k, from exact values at unequal steps behind it."""
    x0 = x(t)
    table = (ADAMS["adams"] if kind is Adams else BDFS["bdf"])[:k]
    one = torch.ones((), dtype=F64)
    stepper = kind(table, f, x0, 1.0, False, False, 0 * one, tol * one)
    stepper.suit(None, (), None)
    stepper.prepare(x0, x0)
    times = [t]
    for ratio in RATIOS[: k + kind.lag]:
        times.insert(0, times[0] - ratio * h)
    of = x if kind.lag else lambda s: f(s * ONE, x(s))
    stepper.k = stepper.shrinks = stepper.k * 0 + k
    stepper.past, stepper.beginning = remembered(of, times), False
    trial = stepper.trial(t * ONE, h * ONE, x0, f(t * ONE, x0))
    assert isinstance(trial, Course)
    return stepper, trial


CASES = [(Adams, k) for k in range(1, 13)] + [(BDF, k) for k in range(1, 6)]


def name(case: tuple[type[Multistep], int]) -> str:
    return f"{case[0].__name__}{case[1]}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_local_orders_of_step_estimate_and_interpolant(case: tuple[type[Multistep], int]) -> None:
    """x' = -x^2, x = 1/t in unequal steps: Adams is of order k + 1, BDF of order k, as both estimates."""
    kind, k = case
    x = lambda t: torch.tensor([[1 / t]], dtype=F64)  # noqa: E731
    f = lambda t, x: -x * x  # noqa: E731
    h = 0.1 if k < 6 else 0.2
    errors = []
    for step in (h, 0.8 * h):
        stepper, trial = at_order(kind, k, f, x, 8.0, step)
        between = stepper.along(trial, 0.4 * ONE) - x(8.0 + 0.4 * step)
        end = trial.x1 - x(8.0 + step)
        errors.append([float(e.abs()) for e in (end, stepper.ratio(trial), between)])
    found = [math.log(a / b) / -math.log(0.8) for a, b in zip(*errors, strict=True)]
    order = k + 1 if kind is Adams else k
    # Above order 5 there is no room between the asymptotic range and round-off for more than a bound from
    # below; that the order is no higher is seen from polynomials.
    above = 0.3 if k < 6 else math.inf
    for slope, theory in zip(found, (order + 1, k + 1, order + 1), strict=True):
        assert -0.3 < slope - theory < above, (found, errors)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_polynomials_are_exact_in_unequal_steps(case: tuple[type[Multistep], int]) -> None:
    """Up to k + 1 with Adams, whose corrector is of order k + 1, up to k with BDF, and no further."""
    kind, k = case
    order = k + 1 if kind is Adams else k
    for n in (order, order + 1):
        x = lambda t, n=n: torch.tensor([[(t - 1.1) ** n]], dtype=F64)  # noqa: E731
        f = lambda t, x, n=n: n * (t - 1.1)[:, None] ** (n - 1)  # noqa: E731
        stepper, trial = at_order(kind, k, f, x, 1.2, 0.1)
        size = max(abs(1.2 - 0.1 * sum(RATIOS[: k + 1]) - 1.1), 0.2) ** n
        off = (trial.x1 - x(1.3), stepper.along(trial, 0.3 * ONE) - x(1.23))
        assert (max(float(e.abs()) for e in off) < 1e-12 * size) == (n == order)


@pytest.mark.parametrize("m", [1, 3, 6, 12])
def test_a_past_is_the_polynomial_through_its_values(m: int) -> None:
    """sum B_j(theta) Phi*_j at any theta, behind and ahead, of a polynomial of degree m - 1."""
    times = [0.0]
    for ratio in RATIOS[: m + 1]:
        times.append(times[-1] + 0.1 * ratio)
    value = lambda t: torch.tensor([[(t - 0.4) ** (m - 1)]], dtype=F64)  # noqa: E731
    past = remembered(value, times)
    h = 0.13 * ONE
    for theta in (-0.5, 0.0, 0.6, 1.0):
        weights = basis(theta * ONE, h, past.back)[:, :m]
        found = (past.wide(weights) * past.star(h)[:m]).sum(0)
        assert torch.allclose(found, value(times[-1] + 0.13 * theta), rtol=1e-10, atol=1e-12)


def companion(k: int, z: complex) -> Tensor:
    """What a step of BDF of order k does to the differences of x' = z x/h: a matrix, column by column."""
    x0 = torch.zeros(1, k + 1, dtype=torch.complex128)
    one = torch.ones((), dtype=F64)
    stepper = BDF(BDFS["bdf"][:k], lambda t, x: z * x, x0, 1.0, False, False, one, one)
    stepper.suit(None, (), None)
    stepper.prepare(x0, x0)
    rows = torch.eye(k + 1, dtype=torch.complex128)[:, None]
    stepper.k = stepper.k * 0 + k
    stepper.past = Past(rows, torch.arange(k + 3, dtype=F64)[None], torch.full((1,), k + 1))
    stepper.beginning = False
    trial = stepper.trial(0 * ONE, ONE, rows[0], rows[0])
    return trial.past.pushed(trial.x1, trial.K[:-1], ONE).rows[: k + 1, 0]


@pytest.mark.parametrize(("k", "alpha"), [(1, 90.0), (2, 90.0), (3, 86.03), (4, 73.35), (5, 51.84)])
def test_bdf_is_stable_in_the_sector_of_its_order(k: int, alpha: float) -> None:
    """A(alpha) of Hairer and Wanner 1996, V.2: no mode grows within it, one does just outside; 0 at -inf."""

    def radius(degrees: float, size: float) -> float:
        angle = math.radians(180 - degrees)
        z = size * complex(math.cos(angle), math.sin(angle))
        return float(torch.linalg.eigvals(companion(k, z)).abs().max())

    sizes = [10 ** (e / 8) for e in range(-12, 17)]
    assert max(radius(alpha - 0.1, size) for size in sizes) < 1 + 1e-9
    if alpha < 90:
        assert max(radius(alpha + 1.0, size) for size in sizes) > 1 + 1e-6
    assert radius(0.0, 1e8) < 0.05 ** (1 / k)


def test_adams_at_order_one_is_heun() -> None:
    """P_1 E C_2 E multiplies by 1 + z + z^2/2."""
    x = lambda t: torch.ones(1, 1, dtype=F64)  # noqa: E731
    _, trial = at_order(Adams, 1, lambda t, x: -1.7 * x, x, 0.0, 0.5)
    assert math.isclose(float(trial.x1), 1 - 0.85 + 0.85**2 / 2, rel_tol=1e-14)


METHODS = ("adams", "bdf", "auto", "adams_bdf")


@pytest.mark.parametrize("method", METHODS)
def test_error_is_proportional_to_the_tolerance(method: str) -> None:
    """Three decades of tolerance are three decades of error, within one and a half."""
    x0, errors = torch.tensor([[1.0, 0.0]], dtype=F64), []
    exact = torch.tensor([math.cos(10), -math.sin(10)], dtype=F64)
    for tol in (1e-4, 1e-7):
        run = ls.solve(ls.ODE(turn), x0, t=(0, 10), method=method, rtol=tol, atol=tol)
        errors.append(float((run.x[-1, 0] - exact).norm()))
    assert 1.5 < math.log10(errors[0] / errors[1]) < 4.5
    assert errors[1] < 300 * 1e-7


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_its_batch(method: str) -> None:
    """Nor on the orders, the stiffness and the ends of the others."""
    mu = torch.tensor([0.5, 3.0, 10.0 if method == "adams" else 200.0], dtype=F64)
    x0, marks = torch.tensor([[2.0, 0.0]], dtype=F64).repeat(3, 1), [0.7, 3.0, 4.0]
    how = {"t": (0, 4), "method": method, "save_at": marks, "rtol": 1e-5, "atol": 1e-8}
    batch = ls.solve(ls.ODE(van_der_pol(mu)), x0, **how)
    for i in range(len(x0)):
        alone = ls.solve(ls.ODE(van_der_pol(mu[i : i + 1])), x0[i : i + 1], **how)
        assert torch.allclose(alone.x[:, 0], batch.x[:, i], rtol=1e-9)
        assert (alone.stats.accepted[0], alone.stats.rejected[0]) == (
            batch.stats.accepted[i], batch.stats.rejected[i]
        )  # fmt: skip
    assert len(set(batch.stats.accepted.tolist())) == 3


@pytest.mark.parametrize("method", METHODS)
def test_backward_output_is_that_of_the_mirrored_problem(method: str) -> None:
    f = lambda t, x: torch.cos(3 * t)[:, None] * x  # noqa: E731
    x0 = torch.tensor([[1.0], [2.0]], dtype=F64)
    down = ls.solve(ls.ODE(f), x0, t=(3, 1), save_at=[2.5, 1.7, 1.0], method=method)
    up = ls.solve(ls.ODE(lambda s, x: -f(-s, x)), x0, t=(-3, -1), save_at=[-2.5, -1.7, -1.0], method=method)
    assert torch.allclose(down.x, up.x, rtol=1e-12)
    exact = x0 * math.exp((math.sin(3) - math.sin(9)) / 3)
    assert torch.allclose(down.x[-1], exact, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_looking_at_a_run_does_not_change_it(method: str) -> None:
    """Output and events that do not stop are read off the steps: same steps, same end, and they are right."""
    x0 = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=F64)
    how = {"t": (0, 9), "method": method, "rtol": 1e-8, "atol": 1e-10}
    plain = ls.solve(ls.ODE(turn), x0, **how)
    marks = torch.linspace(0, 9, 11, dtype=F64)
    event = ls.Event(lambda t, x: x[:, 0], terminal=False)
    seen = ls.solve(ls.ODE(turn), x0, save_at=marks, events=[event], **how)
    assert torch.allclose(plain.x[-1], seen.x[-1], rtol=1e-12)
    assert torch.equal(plain.stats.accepted, seen.stats.accepted)
    exact = torch.stack([marks.cos(), -marks.sin()], 1)
    assert torch.allclose(seen.x[:, 0], exact, atol=2e-6)
    odd = torch.tensor([0.5, 1.5, 2.5], dtype=F64) * math.pi
    assert torch.allclose(seen.events[0].t[seen.events[0].sample == 0], odd, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_past_ends_at_a_jump_and_begins_behind_it(method: str) -> None:
    """x' = 1 to t = 0.3, then 3 x, and back: nothing of the one side is remembered on the other."""
    f = lambda t, x: torch.where(t[:, None] < 0.3, torch.ones_like(x), 3 * x)  # noqa: E731
    x0 = torch.tensor([[0.0], [1.0]], dtype=F64)
    there = ls.solve(ls.ODE(f), x0, t=(0, 1), method=method, jump_times=[0.3], save_at=[0.3, 1.0], rtol=1e-8)
    assert torch.allclose(there.x[0], x0 + 0.3, atol=1e-8)
    assert torch.allclose(there.x[1], (x0 + 0.3) * math.exp(2.1), rtol=1e-5)
    back = ls.solve(ls.ODE(f), there.x[1], t=(1, 0), method=method, jump_times=[0.3], rtol=1e-8)
    assert torch.allclose(back.x[-1], x0, atol=1e-5)


def test_a_jump_that_nobody_told_of_ends_the_past_as_well() -> None:
    """Steps refused again and again: order 1, and on."""
    f = lambda t, x: torch.where(t[:, None] < 0.3, 1.0, 100.0) * torch.ones_like(x)  # noqa: E731
    run = ls.solve(ls.ODE(f), torch.zeros(1, 1, dtype=F64), t=(0, 1), method="adams", rtol=1e-7)
    assert abs(run.x[-1, 0, 0] - 70.3) < 1e-4
    assert run.stats.nfe < 300


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [0, 1, 7, 60, 61])
def test_a_budget_is_never_exceeded(method: str, budget: int) -> None:
    f = Counted(van_der_pol(torch.tensor([50.0], dtype=F64)))
    x0 = torch.tensor([[2.0, 0.0]], dtype=F64)
    run = ls.solve(ls.ODE(f), x0, t=(0, 100), nfe=budget, method=method, jump_times=[0.001])
    assert f.calls == run.stats.nfe <= budget
    assert run.status == ("nfe_limit",)
    assert run.t_end > 0 if budget >= 60 else run.t_end < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_nfe_is_what_the_field_counts(method: str) -> None:
    f = Counted(van_der_pol(torch.tensor([1.0, 30.0], dtype=F64)))
    x0 = torch.tensor([[2.0, 0.0]], dtype=F64).repeat(2, 1)
    run = ls.solve(ls.ODE(f), x0, t=(0, 1), method=method, save_at=[0.1, 1.0], rtol=1e-4)
    assert run.stats.nfe == f.calls


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_step_is_that_of_the_batch_as_one_sample(method: str) -> None:
    f = lambda t, x: -x * (1 + t)  # noqa: E731
    x0 = torch.tensor([[1.0], [3.0]], dtype=F64)
    run = ls.solve(ls.ODE(f), x0, t=(0, 2), method=method, shared_step=True, save_at=[1.0, 2.0])
    g = lambda t, x: -x * (1 + t)[:, None]  # noqa: E731
    one = ls.solve(ls.ODE(g), x0.view(1, 2), t=(0, 2), method=method, save_at=[1.0, 2.0])
    assert torch.allclose(run.x[:, :, 0], one.x[:, 0], rtol=1e-12)
    assert run.stats.nfe == one.stats.nfe


@pytest.mark.parametrize("method", METHODS)
def test_states_of_any_shape_complex_and_single(method: str) -> None:
    x0 = torch.ones(2, 3, 2, dtype=torch.complex128)
    run = ls.solve(ls.ODE(lambda t, x: 1j * x), x0, t=(0, 1), method=method)
    assert torch.allclose(run.x[-1], x0 * complex(math.cos(1), math.sin(1)), atol=1e-5)
    run = ls.solve(ls.ODE(lambda t, x: -x), torch.ones(3, 1), t=(0, 1), rtol=1e-4, method=method)
    assert run.x.dtype == torch.float32
    assert torch.allclose(run.x[-1], torch.full((3, 1), math.exp(-1)), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_agree_with_finite_differences(method: str) -> None:
    """Along a random direction, with respect to the state and a parameter."""
    x0 = torch.tensor([[0.4, 1.0], [1.5, -0.3]], dtype=F64, requires_grad=True)
    rate = torch.tensor(1.3, dtype=F64, requires_grad=True)

    def loss(x: Tensor, k: Tensor) -> Tensor:
        f = lambda t, y: torch.sin(k * y.flip(1)) * (1 + t[:, None])  # noqa: E731
        how = {"t": (0, 0.5), "save_at": [0.2, 0.5], "rtol": 1e-8, "atol": 1e-8, "method": method}
        return ls.solve(ls.ODE(f), x, **how).x.square().sum()

    dx, dk = torch.autograd.grad(loss(x0, rate), (x0, rate))
    with torch.no_grad():
        v, e = torch.tensor([[0.3, -0.8], [0.5, 1.0]], dtype=F64), 1e-3
        along = (loss(x0 + e * v, rate) - loss(x0 - e * v, rate)) / (2 * e)
        for_k = (loss(x0, rate + e) - loss(x0, rate - e)) / (2 * e)
    assert abs((dx * v).sum() - along) < 2e-5 * (1 + abs(along))
    assert abs(dk - for_k) < 2e-5 * (1 + abs(for_k))


@pytest.mark.parametrize("method", ["adams", "bdf", "adams_bdf"])
@pytest.mark.parametrize("starts", [(1.0, 0.2, 0.9), (1.0,)])
def test_steps_that_failed_leave_no_nan_in_a_gradient(method: str, starts: tuple[float, ...]) -> None:
    """x' = -c sqrt(x): (sqrt(x0) - c t/2)^2. Trials that overshoot below 0 are NaN and rejected."""
    c = torch.tensor([1.0, 0.01, 1.0][: len(starts)], dtype=F64)[:, None]
    x0 = torch.tensor(starts, dtype=F64)[:, None].requires_grad_()
    f = lambda t, x: -c * x.sqrt()  # noqa: E731
    run = ls.solve(ls.ODE(f), x0, t=(0, 1.7), rtol=1e-8, first_step=1.7, method=method)
    (found,) = torch.autograd.grad(run.x.sum(), x0)
    assert run.stats.rejected[0] > 0
    assert torch.allclose(found, 1 - c * 0.85 / x0.detach().sqrt(), rtol=1e-5)


# Switching


def test_auto_is_the_explicit_method_where_nothing_is_stiff() -> None:
    x0, asked = torch.tensor([[1.0, 0.0]], dtype=F64), {"rtol": 1e-8, "controller": ls.control.I()}
    for method, explicit in (("auto", "tsit5"), ("adams_bdf", "adams")):
        runs = [ls.solve(ls.ODE(turn), x0, t=(0, 20), method=m, **asked) for m in (method, explicit)]
        assert torch.allclose(runs[0].x, runs[1].x, rtol=1e-12)
        assert (runs[0].stats.nfe, runs[0].stats.jacobians) == (runs[1].stats.nfe, 0)


@pytest.mark.parametrize("method", ["auto", "adams_bdf"])
def test_auto_leaves_the_explicit_method_where_stability_limits_it_and_comes_back(method: str) -> None:
    """x' = -k(t) (x - cos t): stiff to t = 1 with k = 1e5, then k = 1. Explicit steps are below 3/k there."""
    k = lambda t: torch.where(t < 1, 1e5, 1.0)[:, None]  # noqa: E731
    f = lambda t, x: -k(t) * (x - torch.cos(t)[:, None])  # noqa: E731
    x0 = torch.ones(1, 1, dtype=F64)
    run = ls.solve(ls.ODE(f), x0, t=(0, 30), method=method, jump_times=[1.0])
    stiff = ls.solve(ls.ODE(f), x0, t=(0, 1), method=method)
    assert run.status == ("reached",)
    assert run.stats.accepted[0] < 500 < 1e5 / 3
    assert 0 < run.stats.jacobians < stiff.stats.jacobians + 20
    exact = (math.cos(30) + math.sin(30)) / 2  # and what is left of the start is e^-29
    assert abs(run.x[-1, 0, 0] - exact) < 1e-5


@pytest.mark.parametrize("name", ["adams", "bdf", "adams_bdf", "tsit5", "radau5"])
@pytest.mark.parametrize("save_at", [None, [0.5, 3.0]])
def test_crossings_in_a_shared_step_are_of_each_sample_where_it_is(name: str, save_at: list | None) -> None:
    """a cos t = 1/2, of samples that cross in one step at places of their own."""
    size = torch.tensor([1.0, 0.9, 0.8], dtype=F64)
    x0 = torch.stack([size, 0 * size], 1)
    event = ls.Event(lambda t, x: x[:, 0] - 0.5, direction=-1, terminal=False)
    run = ls.solve(
        ls.ODE(turn), x0, t=(0.0, 3.0), method=name, shared_step=True, save_at=save_at, events=[event],
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    seen = run.events[0]
    when = torch.arccos(0.5 / size)
    assert (seen.t[seen.sample.argsort()] - when).abs().max() < 3e-6
    assert (run.x[-1, :, 0] - size * math.cos(3.0)).abs().max() < 3e-6


@pytest.mark.parametrize("name", ["adams", "bdf", "adams_bdf"])
def test_a_solution_is_kept_whole_where_steps_of_all_are_refused(name: str) -> None:
    """Nothing is read of a step that nobody takes: x' = x^2 with a first step that is far too long."""
    x0 = torch.tensor([[0.5]], dtype=F64)
    run = ls.solve(
        ls.ODE(lambda t, x: x * x), x0, t=(0.0, 1.5), method=name, dense=True, save_at="steps",
        first_step=1.5, rtol=1e-7, atol=1e-9,
    )  # fmt: skip
    assert int(run.stats.rejected) > 0
    times = torch.linspace(0.0, 1.5, 7, dtype=F64)
    assert (run.interpolant(times)[:, 0, 0] - 0.5 / (1 - 0.5 * times)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["adams", "bdf", "adams_bdf"])
def test_an_integral_is_as_exact_as_the_solution(name: str) -> None:
    """int x^2 of x = cos t is as far off as x^2 is along the way, at the most, times the length of it."""
    x0, times = torch.tensor([[1.0, 0.0]], dtype=F64), torch.linspace(0.0, 3.0, 400, dtype=F64)
    square = ls.Integral(lambda t, x: x[:, 0] ** 2)
    run = ls.solve(
        ls.ODE(turn), x0, t=(0.0, 3.0), method=name, reduce=square, dense=True, rtol=1e-8, atol=1e-8
    )
    off = (run.interpolant(times)[:, 0, 0] ** 2 - times.cos() ** 2).abs().max()
    assert abs(float(run.reduced) - (1.5 + math.sin(6.0) / 4)) < 3 * off
