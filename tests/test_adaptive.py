"""The adaptive loop: orders, tolerances, invariances, events, statuses, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from counting import Counted, column
from longstride.methods.embedded import PAIRS, Pair
from longstride.steppers.trial import Explicit

F64 = torch.float64
NAMES = tuple(PAIRS)


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


def turn(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[..., 1], -x[..., 0]], -1)


def square(t: Tensor, x: Tensor) -> Tensor:
    """x' = x^2: x0/(1 - x0 t), infinite at t = 1/x0."""
    return x * x


def one_step(pair: Pair, h: float) -> tuple[float, float, float]:
    """Errors of one step of x' = cos(t) x^2 from 0.7 on: at its end, its estimate, between its ends."""
    x0, s = torch.tensor([[0.5, 0.7, 0.9, 1.1]], dtype=F64), torch.tensor([0.7], dtype=F64)
    rate = lambda t, x: torch.cos(t)[:, None] * x * x  # noqa: E731
    one = torch.ones((), dtype=F64)
    stepper = Explicit(pair, rate, x0, 1.0, False, False, 0 * one, one)
    stepper.prepare(x0, x0)
    trial = stepper.trial(s, torch.full_like(s, h), x0, rate(s, x0))
    exact = lambda h: x0 / (1 + x0 * (math.sin(0.7) - math.sin(0.7 + h)))  # noqa: E731
    thetas = (0.13, 0.5, 0.77)
    between = [stepper.along(trial, torch.full_like(s, th)) - exact(th * h) for th in thetas]
    end = float((trial.x1 - exact(h)).norm())
    return end, float(stepper.ratio(trial)), float(torch.cat(between).norm())


@pytest.mark.parametrize("name", NAMES)
def test_local_orders_of_step_estimate_and_interpolant(name: str) -> None:
    """In one step the solution errs by h^(p+1), the estimate falls as claimed, the interpolant by h^(q+1)."""
    pair = PAIRS[name]
    h = {9: 0.4, 8: 0.4, 7: 0.2, 5: 0.05, 3: 0.02, 2: 0.02}[pair.order]
    errors = zip(one_step(pair, h), one_step(pair, h / 2), strict=True)
    end, estimate, between = (math.log2(a / b) for a, b in errors)
    # At high order there is no room between the asymptotic range and round-off for more than a bound from
    # below; the two rows of dopri8's estimate are checked below, all conditions of order in test_explicit.
    above = math.inf if pair.order > 5 else 0.3
    assert -0.3 < end - (pair.order + 1) < above
    assert pair.order == 8 or -0.3 < estimate - pair.shrinks < above
    assert -0.3 < between - (pair.dense_order + 1) < above


@pytest.mark.parametrize(("name", "row", "order"), [("bosh3", 0, 2), ("tsit5", 0, 4), ("dopri5", 0, 4),
                                                    ("dopri8", 0, 5), ("dopri8", 1, 3), ("vern7", 0, 6),
                                                    ("vern9", 0, 8), ("adaptive_heun", 0, 1),
                                                    ("fehlberg2", 0, 1)])  # fmt: skip
def test_estimates_are_of_embedded_methods_of_the_order_claimed(name: str, row: int, order: int) -> None:
    """b - b_hat is 0 on c^k for k < order, and sees c^order."""
    pair = PAIRS[name]
    e = np.array(pair.error[row])
    c = np.array(pair.c)[: len(e)]
    assert all(abs(e @ c**k) < 1e-14 for k in range(order))
    assert abs(e @ c**order) > 1e-6


def test_dopri8_and_dopri5_are_those_of_scipy() -> None:
    """Written from the papers, compared with scipy's tables."""
    known = pytest.importorskip("scipy.integrate._ivp.dop853_coefficients")
    from scipy.integrate import RK45

    pair = PAIRS["dopri8"]
    for row, theirs in zip((*pair.a, *pair.extra_a), known.A, strict=True):
        np.testing.assert_allclose(row, theirs[: len(row)], rtol=1e-14)
    np.testing.assert_allclose(pair.error[0], known.E5[:12], atol=1e-15)
    np.testing.assert_allclose(pair.error[1], known.E3[:12], atol=1e-15)
    np.testing.assert_allclose(PAIRS["dopri5"].dense, RK45.P, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_polynomials_of_t_are_exact(name: str) -> None:
    """x' = sum k t^(k-1) up to the order, at the end; between steps up to the interpolant's."""
    pair = PAIRS[name]
    for degree, marks in ((pair.order, None), (pair.dense_order, [0.3, 1.1, 1.7, 2.0])):
        rate = lambda t, x, n=degree: (n * t ** (n - 1))[:, None].expand_as(x)  # noqa: E731
        run = ls.solve(ls.ODE(rate), column(0.0), t=(0, 2), method=name, save_at=marks, first_step=0.4)
        exact = torch.tensor(marks or [2.0], dtype=F64) ** degree
        digits = 1e-12 if pair.order < 9 else 2e-11  # vern9's interpolant has coefficients of thousands
        assert torch.allclose(run.x[:, 0, 0], exact, rtol=digits, atol=digits)


@pytest.mark.parametrize("name", NAMES)
def test_error_is_proportional_to_the_tolerance(name: str) -> None:
    """Three decades of tolerance are three decades of error, within one and a half."""
    x0 = torch.tensor([[1.0, 0.0]], dtype=F64)
    errors = []
    for tol in (1e-5, 1e-8):
        run = ls.solve(ls.ODE(turn), x0, t=(0, 10), method=name, rtol=tol, atol=tol)
        exact = torch.tensor([math.cos(10), -math.sin(10)], dtype=F64)
        errors.append(float((run.x[-1, 0] - exact).norm()))
    assert 1.5 < math.log10(errors[0] / errors[1]) < 4.5
    # fehlberg2 is told h (K3 - K1)/512 of what adaptive_heun calls h (K2 - K1)/2.
    assert errors[1] < 100 * 1e-8 * (256 if name == "fehlberg2" else 1)


def test_energy_of_the_oscillator_and_the_way_back() -> None:
    x0 = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=F64)
    there = ls.solve(ls.ODE(turn), x0, t=(0, 20), method="dopri8", rtol=1e-11, atol=1e-12)
    assert torch.allclose((there.x[-1] ** 2).sum(1), (x0**2).sum(1), rtol=1e-9)
    back = ls.solve(ls.ODE(turn), there.x[-1], t=(20, 0), method="dopri8", rtol=1e-11, atol=1e-12)
    assert torch.allclose(back.x[-1], x0, atol=1e-9)
    assert (back.t, back.t_end.tolist()) == ((0.0,), [0.0, 0.0])


def test_backward_output_is_that_of_the_mirrored_problem() -> None:
    """x' = f(t, x) from 3 down to 1 is y' = -f(-s, y) from -3 up to -1."""
    f = lambda t, x: torch.cos(3 * t)[:, None] * x  # noqa: E731
    g = lambda s, x: -f(-s, x)  # noqa: E731
    down = ls.solve(ls.ODE(f), column(1.0, 2.0), t=(3, 1), save_at=[2.5, 1.7, 1.0])
    up = ls.solve(ls.ODE(g), column(1.0, 2.0), t=(-3, -1), save_at=[-2.5, -1.7, -1.0])
    assert torch.allclose(down.x, up.x, rtol=1e-14)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    f = lambda t, x: torch.sin(x * t[:, None] * 3)  # noqa: E731
    x0, marks = column(0.1, 1.0, 2.5, 7.0), [0.5, 3.0, 4.0]
    batch = ls.solve(ls.ODE(f), x0, t=(0, 4), save_at=marks)
    for i in range(len(x0)):
        alone = ls.solve(ls.ODE(f), x0[i : i + 1], t=(0, 4), save_at=marks)
        assert torch.allclose(alone.x[:, 0], batch.x[:, i], rtol=1e-12)
        assert alone.stats.nfe == batch.stats.nfe_each[i]
        assert alone.stats.rejected == batch.stats.rejected[i]
    assert len(set(batch.stats.nfe_each.tolist())) > 1


def test_a_shared_step_gives_f_a_scalar_time_and_one_count() -> None:
    def f(t: Tensor, x: Tensor) -> Tensor:
        assert t.shape == ()
        return -x * (1 + t)

    run = ls.solve(ls.ODE(f), column(1.0, 3.0), t=(0, 2), shared_step=True, save_at=[1.0, 2.0])
    assert torch.allclose(run.x[-1], column(1.0, 3.0) * math.exp(-4), atol=1e-6)
    assert torch.allclose(run.x[0], column(1.0, 3.0) * math.exp(-1.5), atol=1e-6)
    assert run.stats.nfe_each.tolist() == [run.stats.nfe] * 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options", [{}, {"save_at": [0.0, 0.5, 2.0]}, {"jump_times": [1.0]}, {"first_step": 2.0}]
)
def test_nfe_is_what_the_field_counts(name: str, options: dict) -> None:
    f = Counted(lambda t, x: torch.sin(20 * t)[:, None] * x)
    run = ls.solve(ls.ODE(f), column(1.0), t=(0, 2), method=name, rtol=1e-5, **options)
    assert run.stats.nfe == f.calls
    assert run.stats.steps == run.stats.accepted + run.stats.rejected


def test_states_of_any_shape_complex_and_single() -> None:
    x0 = torch.ones(2, 3, 2, dtype=torch.complex128)
    run = ls.solve(ls.ODE(lambda t, x: 1j * x), x0, t=(0, 1))
    assert torch.allclose(run.x[-1], x0 * complex(math.cos(1), math.sin(1)), atol=1e-6)
    run = ls.solve(ls.ODE(decay, L=-1.0), torch.ones(3), t=(0, 1), rtol=1e-5)
    assert run.x.dtype == torch.float32
    assert torch.allclose(run.x[-1], torch.full((3,), math.exp(-2)), rtol=1e-4)


@pytest.mark.parametrize("controller", [ls.control.I(), ls.control.PI(), ls.control.PID()])
def test_controllers_keep_the_tolerance(controller: object) -> None:
    run = ls.solve(ls.ODE(turn), torch.tensor([[1.0, 0.0]], dtype=F64), t=(0, 10), controller=controller)
    assert abs(run.x[-1, 0, 0] - math.cos(10)) < 1e-5


def test_pi_rejects_fewer_steps_than_i_where_stability_limits_them() -> None:
    """On x' = -1000 (x - cos t) steps are at the edge of stability: the reason there is PI control."""
    f = lambda t, x: -1000 * (x - torch.cos(t)[:, None])  # noqa: E731
    runs = [
        ls.solve(ls.ODE(f), column(1.0), t=(0, 2), method="dopri5", rtol=1e-4, atol=1e-6, controller=c)
        for c in (ls.control.I(), ls.control.PI())
    ]
    assert runs[1].stats.rejected < runs[0].stats.rejected


# Events


def test_a_falling_ball_lands_when_the_quadratic_says() -> None:
    """x'' = -g from heights h: at t = sqrt(2h/g), each sample its own; every pair is exact on it."""
    g, heights = 9.81, torch.tensor([1.0, 5.0, 50.0], dtype=F64)
    x0 = torch.stack([heights, torch.zeros(3, dtype=F64)], 1)
    f = lambda t, x: torch.stack([x[:, 1], torch.full_like(x[:, 1], -g)], 1)  # noqa: E731
    ground = ls.Event(lambda t, x: x[:, 0], direction=-1)
    run = ls.solve(ls.ODE(f), x0, t=(0, 2.5), events=[ground], save_at=[0.4, 2.0])
    when = (2 * heights / g).sqrt()
    assert run.status == ("event", "event", "reached")
    assert torch.allclose(run.t_end[:2], when[:2], rtol=1e-13)
    assert torch.allclose(run.x_end[:2, 1], -g * when[:2], rtol=1e-12)
    assert run.events[0].sample.tolist() == [0, 1]
    assert run.x[:, :, 0].isnan().tolist() == [[False] * 3, [True, True, False]]


@pytest.mark.parametrize(("direction", "crossings"), [(0, [0.5, 1.5, 2.5]), (1, [1.5]), (-1, [0.5, 2.5])])
def test_directions_of_crossings(direction: int, crossings: list[float]) -> None:
    """cos t crosses 0 at odd multiples of pi/2; there sin t is +-1."""
    event = ls.Event(lambda t, x: x[:, 0], direction=direction, terminal=False)
    x0 = torch.tensor([[1.0, 0.0]], dtype=F64)
    run = ls.solve(ls.ODE(turn), x0, t=(0, 9), rtol=1e-10, atol=1e-10, method="dopri8", events=[event])
    assert torch.allclose(run.events[0].t / math.pi, torch.tensor(crossings, dtype=F64), atol=1e-8)
    assert torch.allclose(run.events[0].x[:, 1].abs(), torch.ones(len(crossings), dtype=F64), atol=1e-8)
    assert run.status == ("reached",)


def test_the_first_terminal_event_of_several_ends_a_backward_run() -> None:
    """x = e^-t from t = 0 down: 3 comes before 4, and 2 is noted on the way."""
    events = [ls.Event(lambda t, x, k=k: x[:, 0] - k, terminal=k > 2) for k in (2, 4, 3)]
    run = ls.solve(ls.ODE(decay), column(1.0), t=(0, -5), events=events, rtol=1e-10, first_step=3.0)
    assert run.status == ("event",)
    assert abs(run.t_end[0] + math.log(3)) < 1e-6
    assert [len(e.t) for e in run.events] == [1, 0, 1]
    assert abs(run.events[0].t[0] + math.log(2)) < 1e-6


# Failure is data


def test_one_sample_that_blows_up_stops_alone() -> None:
    """x' = x^2 is infinite at 1/x0: sample 1 stops near 1/2, the others come to 1."""
    run = ls.solve(ls.ODE(square), column(0.5, 2.0, -1.0), t=(0, 1), save_at=[0.25, 1.0])
    assert run.status[0] == run.status[2] == "reached"
    assert run.status[1] in ("step_underflow", "non_finite")
    assert abs(run.t_end[1] - 0.5) < 1e-4
    assert torch.allclose(run.x[:, 0, 0], 0.5 / (1 - 0.5 * torch.tensor([0.25, 1.0], dtype=F64)), rtol=1e-5)
    assert abs(run.x[0, 1, 0] - 4) < 1e-4
    assert run.x[1, 1].isnan()
    assert "blow up" in run.message[1]
    assert run.message[0] == ""
    with pytest.raises(ls.SolveError, match=r"1 of 3 samples failed; sample 1.*t = 0.[45]"):
        ls.solve(ls.ODE(square), column(0.5, 2.0, -1.0), t=(0, 1), raise_on_failure=True)


def test_a_state_that_is_nan_at_the_start_is_that_samples_own_affair() -> None:
    run = ls.solve(ls.ODE(decay), column(1.0, math.nan), t=(0, 1))
    assert run.status == ("reached", "non_finite")
    assert "start" in run.message[1]
    assert abs(run.x[-1, 0, 0] - math.exp(-1)) < 1e-6


def test_f_that_becomes_nan_is_named_with_its_time() -> None:
    f = lambda t, x: torch.where(t[:, None] < 0.7, 1.0, math.nan).to(x)  # noqa: E731
    run = ls.solve(ls.ODE(f), column(0.0), t=(0, 1))
    assert run.status == ("non_finite",)
    assert abs(run.t_end[0] - 0.7) < 1e-9
    assert "t = 0.7" in run.message[0]


def test_a_jump_is_an_underflow_only_where_steps_may_not_shrink() -> None:
    """x' = 1 then 1000 at 0.3: with its time given no step is rejected and the result is exact."""
    f = lambda t, x: torch.where(t < 0.3, 1.0, 1000.0)[:, None].to(x)  # noqa: E731
    told = ls.solve(ls.ODE(f), column(0.0), t=(0, 1), jump_times=[0.3])
    assert (told.stats.rejected.tolist(), told.status) == ([0], ("reached",))
    assert abs(told.x[-1, 0, 0] - 700.3) < 1e-9
    blind = ls.solve(ls.ODE(f), column(0.0), t=(0, 1), min_step=1e-3, rtol=1e-8)
    assert blind.status == ("step_underflow",)
    assert 0 <= 0.3 - blind.t_end[0] < 5e-3  # the last step tried was at most five times what was wanted
    assert "jump_times" in blind.message[0]


def test_jumps_backward_and_per_sample() -> None:
    f = lambda t, x: torch.where(t < 0.3, 1.0, 1000.0)[:, None] * torch.ones_like(x)  # noqa: E731
    run = ls.solve(ls.ODE(f), column(700.3, 0.0), t=(1, 0), jump_times=[0.3], save_at=[0.3, 0.0])
    assert torch.allclose(run.x[:, :, 0], torch.tensor([[0.3, -700.0], [0.0, -700.3]], dtype=F64), atol=1e-9)


@pytest.mark.parametrize("budget", [0, 1, 5, 40, 41])
def test_a_budget_is_never_exceeded_and_gives_what_was_reached(budget: int) -> None:
    f = Counted(lambda t, x: torch.cos(50 * t)[:, None].expand_as(x))
    run = ls.solve(ls.ODE(f), column(0.0), t=(0, 10), nfe=budget)
    assert f.calls == run.stats.nfe <= budget
    assert run.status == ("nfe_limit",)
    assert abs(run.x_end[0, 0] - torch.sin(50 * run.t_end[0]) / 50) < 1e-5
    assert run.x.isnan().all()
    if budget >= 40:
        assert run.stats.nfe > budget - 6
        assert run.t_end > 0


@pytest.mark.parametrize("limit", [0, 7])
def test_step_limit(limit: int) -> None:
    x0 = torch.ones(1, 2, dtype=F64)
    run = ls.solve(ls.ODE(turn), x0, t=(0, 100), max_steps=limit, save_at=[0.0, 100.0])
    assert (run.status, run.stats.steps) == (("step_limit",), limit)
    assert torch.equal(run.x[0], x0)
    assert run.x[1].isnan().all()
    assert "max_steps" in run.message[0]


def test_what_the_messages_say_of_stiffness_and_round_off() -> None:
    stiff = lambda t, x: -1e5 * (x - torch.cos(t)[:, None])  # noqa: E731
    run = ls.solve(ls.ODE(stiff), column(1.0), t=(0, 10), max_steps=400)
    assert "stiff" in run.message[0]
    fine = ls.solve(ls.ODE(turn), torch.ones(1, 2), t=(0, 100), rtol=1e-8, atol=1e-9, max_steps=50)
    assert "round-off" in fine.message[0]
    coarse = ls.solve(
        ls.ODE(stiff), column(1.0).float(), t=(0, 10), max_steps=400
    )  # rtol is at its round-off too
    assert "stiff" in coarse.message[0]
    none = ls.solve(ls.ODE(turn), torch.ones(1, 2), t=(0, 100), max_steps=0)
    assert "before the first step: give more" in none.message[0]


def test_an_interval_of_length_zero_is_the_start() -> None:
    x0 = column(1.0, 2.0)
    for marks in (None, [3.0]):
        run = ls.solve(ls.ODE(decay), x0, t=(3, 3), save_at=marks)
        assert (run.status, run.stats.nfe) == (("reached",) * 2, 0)
        assert torch.equal(run.x, x0[None])


# Gradients


@pytest.mark.parametrize(
    "options", [{}, {"save_at": [0.2, 0.5, 1.0]}, {"method": "dopri8", "save_at": [0.3]}]
)
def test_gradients_agree_with_finite_differences(options: dict) -> None:
    """Along a random direction, with respect to the state and a parameter."""
    x0 = torch.tensor([[0.4, 1.0], [1.5, -0.3]], dtype=F64, requires_grad=True)
    rate = torch.tensor(1.3, dtype=F64, requires_grad=True)

    def loss(x: Tensor, k: Tensor) -> Tensor:
        f = lambda t, y: torch.sin(k * y.flip(1)) * (1 + t[:, None])  # noqa: E731
        return ls.solve(ls.ODE(f), x, t=(0, 1), rtol=1e-10, atol=1e-10, **options).x.square().sum()

    dx, dk = torch.autograd.grad(loss(x0, rate), (x0, rate))
    with torch.no_grad():
        v, e = torch.tensor([[0.3, -0.8], [0.5, 1.0]], dtype=F64), 1e-4
        along = (loss(x0 + e * v, rate) - loss(x0 - e * v, rate)) / (2 * e)
        for_k = (loss(x0, rate + e) - loss(x0, rate - e)) / (2 * e)
    assert abs((dx * v).sum() - along) < 1e-6 * (1 + abs(along))
    assert abs(dk - for_k) < 1e-6 * (1 + abs(for_k))


def test_the_way_with_gradients_is_the_way_without() -> None:
    x0 = column(0.3, 2.0)
    plain = ls.solve(ls.ODE(square), -x0, t=(0, 3), save_at=[1.0, 3.0])
    graph = ls.solve(ls.ODE(square), (-x0).requires_grad_(), t=(0, 3), save_at=[1.0, 3.0])
    assert graph.x.requires_grad
    assert torch.allclose(plain.x, graph.x, rtol=1e-14)
    assert plain.stats.nfe == graph.stats.nfe


@pytest.mark.parametrize("starts", [(1.0, 0.2, 0.9), (1.0,)])
def test_steps_that_failed_leave_no_nan_in_a_gradient(starts: tuple[float, ...]) -> None:
    """x' = -c sqrt(x): (sqrt(x0) - c t/2)^2. Trials that overshoot below 0 are NaN and rejected."""
    c = torch.tensor([1.0, 0.01, 1.0][: len(starts)], dtype=F64)[:, None]
    x0 = column(*starts).requires_grad_()
    run = ls.solve(ls.ODE(lambda t, x: -c * x.sqrt()), x0, t=(0, 1.7), rtol=1e-8, first_step=1.7)
    (found,) = torch.autograd.grad(run.x.sum(), x0)
    assert run.stats.rejected[0] > 0
    assert torch.allclose(found, 1 - c * 0.85 / x0.detach().sqrt(), rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rtol": 0.0, "atol": 0.0}, "both 0"),
        ({"rtol": -1e-3}, "not negative"),
        ({"atol": torch.ones(3)}, "does not go with"),
        ({"save_at": [0.5, 0.2]}, "turning back"),
        ({"save_at": [0.5, 1.2]}, "turning back"),
        ({"save_at": []}, "empty"),
        ({"t": (0, math.inf)}, "finite"),
        ({"t": 1.0}, r"\(start, end\)"),
        ({"t": torch.linspace(0, 1, 9)}, r"tensor \(9,\): give \(start, end\).*save_at"),
        ({"save_at": 0.5}, "list of times"),
        ({"events": ls.Event(lambda t, x: x[:, 0])}, "a list of ls.Event"),
        ({"events": [lambda t, x: x[:, 0]]}, "a list of ls.Event"),
        ({"method": "BDF"}, "did you mean bdf"),
        ({"method": "leapfrg", "dt": 0.1}, "did you mean leapfrog"),
        ({"method": "rodas5p", "dt": 0.1}, "chooses its steps"),
        ({"method": "euler_maruyama", "dt": 0.1}, "for an ls.SDE"),
        ({"x0": torch.ones(2, dtype=torch.int64)}, "floating"),
        ({"method": "rk4"}, "no error estimate"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_step": 0.0}, "max_step"),
        ({"first_step": -1.0}, "first_step"),
        ({"nfe": 2.5}, "whole number"),
        ({"rtoll": 1e-3}, "unknown argument .*rtol"),
        ({"shared_step": True, "events": [ls.Event(lambda t, x: x[:, 0])]}, "one by one"),
        ({"callback": print}, "callback"),
        ({"save_at": 0.5}, "a list of times"),
        ({"jump_times": 0.5}, "a list of times"),
        ({"rtol": "tight"}, "rtol = 'tight'"),
        ({"atol": None}, "atol = None"),
        ({"max_step": "long"}, "max_step"),
        ({"events": ls.Event(lambda t, x: x[:, 0])}, "list of ls.Event"),
        ({"events": [lambda t, x: x[:, 0]]}, "list of ls.Event"),
        ({"controller": 3}, "controller = 3"),
        ({"controller": ls.control.PI}, r"it is ls\.control\.PI\(\)"),
        ({"t": (0, 1, 2)}, r"t is 3 times: give \(start, end\)"),
        ({"save_at": [0.5, 0.5]}, "each time once"),
        ({"save_at": torch.ones(2, 2)}, r"a tensor \(2, 2\): give a list of times"),
        ({"dt": 1e-300}, "more steps than can be counted"),
        ({"dt": 0.1, "callback": 3}, "callback = 3"),
        ({"dt": 0.1, "progress": "bar"}, "progress = 'bar'"),
        ({"t": None, "plan": "six.json"}, r"Plan\.load"),
        ({"norm": 3}, "norm = 3"),
        ({"watch": 3}, "watch = 3"),
        ({"regularize": 3}, "regularize = 3"),
        ({"method": ["tsit5"]}, "it is a name"),
        ({"reduce": ls.Fold(lambda c, t, x: c, torch.zeros(2, dtype=F64), at=0.5)}, "a list of times"),
        ({"reduce": ls.Fold(lambda c, t, x: c, torch.zeros(3, dtype=F64))}, "B = 2"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    f = Counted(decay)
    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(ls.ODE(f), **{"x0": column(1.0, 2.0), "t": (0, 1), **arguments})
    assert f.calls <= ("reduce" in arguments)  # what a fold begins with may be a function of the start


@pytest.mark.parametrize("f", [None, 3, "decay"])
def test_what_is_no_function_is_no_field(f) -> None:
    with pytest.raises(ls.ArgumentError, match=r"function of \(t, x\)"):
        ls.ODE(f)


def test_a_function_is_no_problem() -> None:
    with pytest.raises(ls.ArgumentError, match=r"of type function: wrap .* ls\.ODE"):
        ls.solve(decay, column(1.0), t=(0, 1))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda t, x: x.float(), "float32.*x's own dtype"),
        (lambda t, x: x.sum(), "one for one"),
        (lambda t, x: None, "tsit5, t = 0: f returned NoneType"),
        (lambda t, x: x @ torch.ones(7, dtype=F64), "tsit5, t = 0"),
    ],
)
def test_a_field_that_returns_something_else_is_named(f, message: str) -> None:
    with pytest.raises(ls.SolveError, match=message):
        ls.solve(ls.ODE(f), column(1.0, 2.0), t=(0, 1))
