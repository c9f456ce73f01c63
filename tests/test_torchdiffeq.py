"""torchdiffeq's calls on our core: what each option does, gradients, events, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import longstride as ls
from longstride.compat.torchdiffeq import odeint, odeint_adjoint, odeint_event
from longstride.compat.torchdiffeq.fixed import adams_weights
from longstride.compat.torchdiffeq.inputs import METHODS

F64 = torch.float64
GRID = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
SPIRAL = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=F64)


def numbers(*values: float, dtype: torch.dtype = F64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def spiral(t: Tensor, y: Tensor) -> Tensor:
    return y @ SPIRAL


def exact(y0: Tensor, t: Tensor) -> Tensor:
    return torch.stack([y0 @ torch.matrix_exp(SPIRAL * s) for s in t])


class Seen:
    """A right-hand side that keeps the times it is asked at."""

    def __init__(self, f: Callable[[Tensor, Any], Any]) -> None:
        self.f, self.times = f, list[Tensor]()

    def __call__(self, t: Tensor, y: Any) -> Any:
        self.times.append(t)
        return self.f(t, y)


class Steps(Seen):
    """... and what its callbacks are told."""

    def __init__(self, f: Callable[[Tensor, Any], Any]) -> None:
        super().__init__(f)
        self.tried, self.kept, self.refused = ([], [], [])

    def callback_step(self, t0: Tensor, y0: Any, dt: Tensor) -> None:
        self.tried.append((float(t0), float(dt)))

    def callback_accept_step(self, t0: Tensor, y0: Any, dt: Tensor) -> None:
        self.kept.append((float(t0), float(dt)))

    def callback_reject_step(self, t0: Tensor, y0: Any, dt: Tensor) -> None:
        self.refused.append((float(t0), float(dt)))


class Field(nn.Module):
    """dy/dt = (1 + t/2) tanh(W y)."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.tensor([[0.3, -1.2], [0.8, 0.1]], dtype=F64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return (1 + t / 2) * torch.tanh(y @ self.W)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fixed_adams"])
def test_every_method_solves_forward_and_back(method: str) -> None:
    """Against e^(At), at each method's own accuracy, and home again."""
    if method == "scipy_solver":
        pytest.importorskip("scipy")
    y0, t = numbers(2.0, 0.0), torch.linspace(0, 2, 5, dtype=F64)
    low = {"fehlberg2": 2e-2, "adaptive_heun": 1e-4, "bosh3": 2e-4}
    adams = "adams" in method
    options = {"step_size": 0.02, **({"max_order": 5} if adams else {})} if method in GRID or adams else None
    tolerances = {"rtol": 1e-5, "atol": 1e-5} if method in low else {}
    bound = low.get(method, 4 * 0.02 ** GRID[method] * 10 if method in GRID else 1e-5)
    there = odeint(spiral, y0, t, method=method, options=options, **tolerances)
    back = odeint(spiral, there[-1], t.flip(0), method=method, options=options, **tolerances)
    assert (there - exact(y0, t)).abs().max() < bound
    assert (back.flip(0) - there).abs().max() < 2 * bound


@pytest.mark.parametrize(("method", "order", "options"), [
    *((name, order, {}) for name, order in GRID.items()),
    ("explicit_adams", 3, {"max_order": 4}), ("explicit_adams", 4, {"max_order": 5}),
    ("implicit_adams", 4, {"max_order": 4, "max_iters": 10}),
    ("implicit_adams", 5, {"max_order": 5, "max_iters": 10}),
])  # fmt: skip
@pytest.mark.parametrize("even", [True, False])
def test_order_on_a_grid(method: str, order: int, options: dict[str, Any], even: bool) -> None:
    """Also of Adams on uneven grids, where fixed coefficients would be of lower order."""
    y0, errors = numbers(1.0, 0.5), list[float]()
    rate = lambda t, y: spiral(t, y) * (1 + torch.cos(t) / 2)  # noqa: E731
    whole = torch.tensor(3.0, dtype=F64)
    true = y0 @ torch.matrix_exp(SPIRAL * (whole + torch.sin(whole) / 2))
    for n in (120, 240):
        s = torch.linspace(0, 3, n + 1, dtype=F64)
        grid = s if even else s + 0.1 * torch.sin(4 * math.pi * s / 3)
        run = odeint(rate, y0, grid, method=method, options=options, rtol=1e-10, atol=1e-12)
        errors.append(float((run[-1] - true).norm()))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


def test_weights_of_adams_are_exact_for_polynomials() -> None:
    """To what is left where the terms of a moment cancel."""
    for m in range(1, 13):
        nodes = 1 - torch.arange(m, dtype=F64)
        for degree in range(m):
            terms = adams_weights(nodes) * nodes**degree
            assert abs(terms.sum() - 1 / (degree + 1)) < 1e-14 * terms.abs().sum()
    assert adams_weights(numbers(0.0, -1.0, -2.0)).tolist() == pytest.approx([23 / 12, -16 / 12, 5 / 12])


def test_the_corrector_of_adams_goes_on_until_each_element_stands_still() -> None:
    """A tolerance of each element: the one that is loose everywhere asks less often."""
    counts, y0 = [], torch.ones(2, 2, dtype=F64)
    for tol in (1e-3, 1e-12):
        f = Seen(lambda t, y: -3 * y)
        atol = torch.tensor([[1e-2, 1e-3], [1e-3, tol]], dtype=F64)
        run = odeint(f, y0, torch.linspace(0, 1, 21, dtype=F64), method="implicit_adams", rtol=0.0, atol=atol,
                     options={"max_order": 5, "max_iters": 20})  # fmt: skip
        counts.append(len(f.times))
        assert torch.allclose(run[-1], y0 * math.exp(-3), atol=1e-4)
    assert counts[0] < counts[1]


def test_rk4_is_the_rule_of_three_eighths() -> None:
    f = Seen(lambda t, y: y)
    run = odeint(f, numbers(1.0), numbers(0.0, 0.6), method="rk4")
    assert [round(float(t), 12) for t in f.times] == [0.0, 0.2, 0.4, 0.6]
    assert run[-1, 0] == pytest.approx(sum(0.6**k / math.factorial(k) for k in range(5)), rel=1e-15)


@pytest.mark.parametrize("y_dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("t_dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_dtypes_of_times_and_states(y_dtype: torch.dtype, t_dtype: torch.dtype, method: str) -> None:
    """The output is of the state's dtype; func gets a scalar in its real precision."""
    f = Seen(lambda t, y: 1j * y if y.is_complex() else -y)
    y0, t = torch.ones(3, 1, dtype=y_dtype), torch.linspace(0, 1, 33, dtype=t_dtype)
    run = odeint(f, y0, t, method=method, rtol=1e-5, atol=1e-6)
    true = torch.exp((1j if y_dtype.is_complex else -1) * t.to(F64)).to(y_dtype)
    assert run.dtype == y_dtype
    assert torch.allclose(run, true[:, None, None].expand(run.shape), atol=2e-5)
    assert {(s.dtype, s.shape) for s in f.times} == {(y_dtype.to_real(), torch.Size())}


@pytest.mark.parametrize("method", ["rk4", "explicit_adams", "dopri5"])
def test_a_single_number_keeps_its_dtype_where_times_are_differentiated(method: str) -> None:
    t = numbers(0.0, 0.5, 1.0).requires_grad_()
    options = None if method == "dopri5" else {"step_size": 0.03, "interp": "cubic"}
    options = {**options, "max_order": 5} if method == "explicit_adams" else options
    f = Seen(lambda t, y: -y)
    run = odeint(f, torch.tensor(1.0), t, method=method, options=options, rtol=1e-5)
    assert (run.dtype, {s.dtype for s in f.times}) == (torch.float32, {torch.float32})
    assert torch.allclose(run.double(), torch.exp(-t), atol=1e-5)
    assert torch.allclose(
        torch.autograd.grad(run[-1], t)[0], math.exp(-1) * numbers(1.0, 0.0, -1.0), atol=1e-4
    )


def test_one_time_gives_the_start_and_asks_nothing() -> None:
    f = Seen(spiral)
    y0 = (numbers(1.0, 2.0), numbers(3.0))
    run = odeint(f, y0, numbers(0.3))
    assert torch.equal(run[0], y0[0][None])
    assert torch.equal(run[1], y0[1][None])
    assert not f.times


def test_a_tuple_is_measured_by_its_worst_part() -> None:
    """Parts that do not move dilute a tensor's root mean square, and not that of the part that does."""
    y0, still, t = numbers(2.0, 0.0), torch.zeros(1000, dtype=F64), numbers(0.0, 3.0)
    alone, beside = Seen(spiral), Seen(lambda t, y: (spiral(t, y[0]), 0 * y[1]))
    diluted = Seen(lambda t, y: torch.cat([spiral(t, y[:2]), 0 * y[2:]]))
    one = odeint(alone, y0, t)
    two = odeint(beside, (y0, still), t)
    odeint(diluted, torch.cat([y0, still]), t)
    assert torch.allclose(one, two[0], rtol=1e-13)
    assert two[1].shape == (2, 1000)
    assert len(alone.times) == len(beside.times) > len(diluted.times)


def test_shapes_of_a_tuple_come_back_and_tolerances_may_be_of_its_parts() -> None:
    y0 = (torch.tensor(1.0, dtype=F64), torch.ones(2, 3, dtype=F64))
    t = torch.linspace(1, 0, 4, dtype=F64)
    rate = lambda t, y: (y[0], -y[1])  # noqa: E731
    fine, coarse = (odeint(rate, y0, t, rtol=(r, r), atol=(1e-12, numbers(1e-12))) for r in (1e-9, 1e-2))
    assert (fine[0].shape, fine[1].shape) == ((4,), (4, 2, 3))
    errors = [(part[0] - torch.exp(t - 1)).abs().max() for part in (fine, coarse)]
    assert errors[0] < 1e-8 < errors[1]


def test_first_step_and_max_step() -> None:
    f = Steps(spiral)
    odeint(
        f,
        numbers(2.0, 0.0),
        numbers(0.0, 4.0),
        method="dopri5",
        options={"first_step": 0.01, "max_step": 0.07},
    )
    assert f.tried[0] == (0.0, 0.01)
    assert max(dt for _, dt in f.tried) == pytest.approx(0.07)


def test_factors_bound_how_fast_the_step_changes() -> None:
    """With a norm of nothing each step is longer by ifactor."""
    f = Steps(spiral)
    options = {"first_step": 1e-3, "ifactor": 3.0, "norm": lambda y: 0.0}
    odeint(f, numbers(2.0, 0.0), numbers(0.0, 2.0), method="dopri5", options=options)
    steps = [dt for _, dt in f.kept[:-1]]
    assert not f.refused
    assert steps == pytest.approx([1e-3 * 3**k for k in range(len(steps))], rel=1e-4)


def test_a_norm_sees_the_state_as_its_user_does() -> None:
    """What it leaves out is not measured: the fast part alone costs nothing more."""
    rate = lambda t, y: (spiral(t, y[0]), 50 * torch.cos(50 * t) * y[1])  # noqa: E731
    y0, t = (numbers(2.0, 0.0), torch.ones(2, 2, dtype=F64)), numbers(0.0, 3.0)
    shapes = set()

    def first(y: Any) -> Tensor:
        shapes.add(tuple(part.shape for part in y))
        return y[0].abs().max()

    whole, part = Seen(rate), Seen(rate)
    odeint(whole, y0, t)
    run = odeint(part, y0, t, method="dopri5", options={"norm": first})
    assert shapes == {((2,), (2, 2))}
    assert len(part.times) < len(whole.times) / 5
    assert torch.allclose(run[0], exact(y0[0], t), atol=1e-6)


def test_min_step_is_taken_whatever_the_error() -> None:
    """cos(400 t) at no tolerance to speak of: steps of min_step, all kept."""
    f = Steps(lambda t, y: torch.cos(400 * t).expand(1))
    run = odeint(f, numbers(0.0), numbers(0.0, 1.0), method="bosh3", rtol=1e-12, atol=1e-12,
                 options={"min_step": 0.01})  # fmt: skip
    assert len(f.kept) <= 101
    assert not [dt for _, dt in f.refused if dt <= 0.01]
    assert run.isfinite().all()


def test_times_of_jumps_are_stepped_on() -> None:
    """A right-hand side of three constants is then exact, and it is asked on the right sides."""
    f = Seen(lambda t, y: torch.where(t < 0.3, 1.0, torch.where(t < 0.7, -2.0, 5.0)).to(F64).expand(2))
    for jumps in ({"jump_t": numbers(0.7, 0.3)}, {"jump_t": numbers(0.3), "step_t": numbers(0.7)}):
        run = odeint(f, numbers(0.0, 1.0), numbers(0.0, 0.5, 1.0), method="dopri5", options=jumps)
        assert torch.allclose(run[1:, 0], numbers(0.3 - 0.4, 0.3 - 0.8 + 1.5), atol=1e-14)
        back = odeint(f, run[-1], numbers(1.0, 0.0), method="dopri5", options=jumps)
        assert torch.allclose(back[-1], numbers(0.0, 1.0), atol=1e-14)


def test_the_grid_of_a_step_size() -> None:
    """From the start on, the last step cut short; each way."""
    for t, times in ((numbers(0.0, 1.0), [0.0, 0.4, 0.8]), (numbers(1.0, 0.0), [1.0, 0.6, 0.2])):
        f = Seen(lambda t, y: torch.ones_like(y))
        run = odeint(f, numbers(2.0), t, method="euler", options={"step_size": 0.4})
        assert [float(s) for s in f.times] == pytest.approx(times)
        assert run[-1, 0] == pytest.approx(2.0 + float(t[-1] - t[0]))


def test_the_grid_of_a_constructor() -> None:
    def grid(func: Any, y0: Tensor, t: Tensor) -> Tensor:
        return torch.cat([t[:1], t[:1] + (t[-1] - t[0]) * numbers(0.1, 0.5), t[-1:]])

    f = Seen(lambda t, y: t.expand(1))
    run = odeint(
        f, numbers(0.0), numbers(2.0, 1.5, 0.0), method="midpoint", options={"grid_constructor": grid}
    )
    assert [float(s) for s in f.times] == pytest.approx([2.0, 1.9, 1.8, 1.4, 1.0, 0.5])
    assert run[-1, 0] == pytest.approx(-2.0)
    with pytest.raises(AssertionError, match="begin and end with t"):
        odeint(f, numbers(0.0), numbers(0.0, 1.0), method="euler",
               options={"grid_constructor": lambda f, y, t: t[:1]})  # fmt: skip


def test_between_the_points_of_a_grid() -> None:
    """The line between two states; or Hermite's cubic, exact for the cubic that rk4 solves exactly."""
    t = numbers(0.0, 0.25, 0.75, 2.0)
    cubic = lambda t, y: (3 * t * t).expand(1)  # noqa: E731
    line = odeint(cubic, numbers(0.0), t, method="rk4", options={"step_size": 1.0})
    curve = odeint(cubic, numbers(0.0), t, method="rk4", options={"step_size": 1.0, "interp": "cubic"})
    assert torch.allclose(line[:, 0], numbers(0.0, 0.25, 0.75, 8.0), rtol=1e-14)
    assert torch.allclose(curve[:, 0], t**3, rtol=1e-13)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_perturbed_times_stay_inside_the_step(sign: float) -> None:
    f = Seen(lambda t, y: torch.ones_like(y))
    odeint(f, numbers(0.0), sign * numbers(0.0, 0.5, 1.0), method="heun2", options={"perturb": True})
    up, down = torch.tensor(math.inf, dtype=F64), torch.tensor(-math.inf, dtype=F64)
    near = [(0.0, up), (0.5, down), (0.5, up), (1.0, down)]
    expected = [sign * torch.nextafter(torch.tensor(s, dtype=F64), way) for s, way in near]
    assert [float(t) for t in f.times] == [float(t) for t in expected]


@pytest.mark.parametrize("ends", [(0.0, 3.0), (3.0, 0.0)])
def test_callbacks_tile_the_interval(ends: tuple[float, float]) -> None:
    """Steps tried are those kept and those refused; dt is positive, and those kept go from end to end."""
    f = Steps(lambda t, y: torch.cos(9 * t) * y * y.abs())
    odeint(f, numbers(1.0), numbers(*ends), rtol=1e-6, method="dopri5", options={"first_step": 1.0})
    assert f.refused
    assert sorted(f.tried) == sorted(f.kept + f.refused)
    way, t = 1.0 if ends[1] > ends[0] else -1.0, ends[0]
    for t0, dt in f.kept:
        assert dt > 0
        assert t0 == pytest.approx(t)
        t = t0 + way * dt
    assert t == pytest.approx(ends[1])


def test_callbacks_on_a_grid_and_on_the_way_back() -> None:
    f = Steps(lambda t, y: (-y[0], y[1]))
    with pytest.warns(UserWarning, match="does not support callbacks"):
        odeint(
            f, (numbers(1.0), numbers(1.0, 2.0)), numbers(0.0, 1.0), method="rk4", options={"step_size": 0.5}
        )
    assert f.tried == [(0.0, 0.5), (0.5, 0.5)]
    assert not f.kept
    seen, field = [], Field()
    field.callback_step_adjoint = lambda t0, y0, dt: seen.append((float(t0), len(y0)))
    odeint_adjoint(field, numbers(1.0, 2.0), numbers(0.0, 1.0), method="rk4")[-1].sum().backward()
    assert seen == [(1.0, 4)]  # 0, x, a, dL/dW


def loss_of(solve: Callable[..., Tensor], method: str, **others: Any) -> Callable[..., Tensor]:
    """A function of the start, the weights and the times."""

    def loss(y0: Tensor, W: Tensor, t: Tensor) -> Tensor:
        field = Field()
        field.W = nn.Parameter(W.detach()) if not W.requires_grad else field.W
        f = lambda t, y: (1 + t / 2) * torch.tanh(y @ W)  # noqa: E731
        given = {"adjoint_params": (W,)} if solve is odeint_adjoint else {}
        y = solve(f, y0, t, method=method, rtol=1e-10, atol=1e-11, **given, **others)
        return (torch.sin(3 * y) * torch.arange(1, len(t) + 1, dtype=F64)[:, None]).sum()

    return loss


@pytest.mark.parametrize(("solve", "method", "options"), [
    (odeint, "dopri5", None), (odeint, "dopri8", None), (odeint_adjoint, "dopri5", None),
    (odeint, "rk4", None), (odeint, "euler", {"step_size": 0.31}), (odeint, "midpoint", {"interp": "cubic"}),
    (odeint, "explicit_adams", {"step_size": 0.11, "max_order": 5}),
])  # fmt: skip
def test_gradients_agree_with_finite_differences(
    solve: Callable[..., Tensor], method: str, options: dict[str, Any] | None
) -> None:
    """Of the start, the weights and the times. On a grid it is the run's own, and no step need be short."""
    loss = loss_of(solve, method, options=options)
    values = [numbers(0.5, -0.7).requires_grad_(), Field().W.detach().requires_grad_(),
              numbers(0.2, 0.7, 1.0, 1.7).requires_grad_()]  # fmt: skip
    found = torch.autograd.grad(loss(*values), values)
    with torch.no_grad():
        for i, (value, gradient) in enumerate(zip(values, found, strict=True)):
            way = torch.randn(value.shape, generator=torch.Generator().manual_seed(i), dtype=F64)
            up, down = (loss(*values[:i], value + s * way, *values[i + 1 :]) for s in (1e-5, -1e-5))
            assert float((gradient * way).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-6, abs=1e-6)


def test_gradients_do_not_leak_through_the_first_step() -> None:
    """The first step as chosen, given as a number, has the same gradient to the last bit."""
    gradients = []
    for options in ({}, None):
        f = Steps(lambda t, y: torch.sin(2 * y))
        y0 = numbers(0.4).requires_grad_()
        if options is not None:
            run = odeint(f, y0, numbers(0.0, 2.0), rtol=1e-3, atol=1e-3)
            first = f.tried[0][1]
        else:
            run = odeint(f, y0, numbers(0.0, 2.0), rtol=1e-3, atol=1e-3, method="dopri5",
                         options={"first_step": first})  # fmt: skip
        gradients.append(torch.autograd.grad(run[-1].sum(), y0)[0])
    assert torch.equal(*gradients)


def test_the_adjoint_agrees_with_backpropagation() -> None:
    """Module parameters, tuple states, and a norm that leaves the parameters out and costs less."""
    field, t = Field(), torch.linspace(0, 2, 4, dtype=F64)
    rate = Seen(lambda t, y: (field(t, y[0]), (y[0] * y[1]).sum(-1, keepdim=True)))
    found, costs = [], []
    for solve, given in (
        (odeint, {}),
        (odeint_adjoint, {"adjoint_params": field.parameters()}),
        (odeint_adjoint, {"adjoint_params": field.parameters(), "adjoint_options": {"norm": "seminorm"}}),
    ):
        y0 = (torch.tensor([[0.5, -0.7]], dtype=F64).requires_grad_(), torch.ones(1, 1, dtype=F64))
        rate.times.clear()
        run = solve(rate, y0, t, rtol=1e-9, atol=1e-10, **given)
        found.append(torch.autograd.grad(run[1].sum() + (run[0] ** 2).sum(), [y0[0], field.W]))
        costs.append(len(rate.times))
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(found[0], other, strict=True))
    assert costs[2] < costs[1]


def test_what_a_norm_of_the_adjoint_sees() -> None:
    shapes, field = set(), Field()

    def norm(parts: Any) -> Tensor:
        shapes.add(tuple(part.shape for part in parts))
        return torch.stack([part.abs().max() for part in parts]).max()

    y0 = (numbers(0.5, -0.7), torch.ones(3, dtype=F64))
    rate = lambda t, y: (field(t, y[0]), -y[1])  # noqa: E731
    options = {"adjoint_options": {"norm": norm}, "adjoint_params": tuple(field.parameters())}
    odeint_adjoint(rate, y0, numbers(0.0, 1.0), **options)[0].sum().backward()
    assert shapes == {((), (2,), (3,), (2,), (3,), (2, 2))}


def test_parameters_that_are_not_wanted() -> None:
    field = Field()
    field.other = nn.Parameter(numbers(1.0))
    field.frozen = nn.Parameter(numbers(1.0), requires_grad=False)
    odeint_adjoint(field, numbers(1.0, 1.0), numbers(0.0, 1.0))[-1].sum().backward()
    assert torch.equal(field.other.grad, numbers(0.0))
    assert field.frozen.grad is None
    assert odeint_adjoint(lambda t, y: -y, numbers(1.0), numbers(0.0, 1.0), adjoint_params=()).shape == (2, 1)


GRAVITY, SPEED, HEIGHT = 9.81, 5.0, 1.0


@pytest.mark.parametrize("interface", [odeint, odeint_adjoint])
@pytest.mark.parametrize(("method", "options"), [
    ("dopri5", None), ("tsit5", None), ("rk4", {"step_size": 0.05, "interp": "cubic"}),
])  # fmt: skip
def test_a_ball_falls_and_its_time_is_differentiable(
    interface: Callable[..., Any], method: str, options: dict[str, Any] | None
) -> None:
    """T = (v + sqrt(v^2 + 2 g h))/g: the time, and gradients of it and of the state then."""
    g, v, h, t0 = (torch.tensor(s, dtype=F64).requires_grad_() for s in (GRAVITY, SPEED, HEIGHT, 0.3))
    given = {"adjoint_params": (g,)} if interface is odeint_adjoint else {}
    when, (height, speed) = odeint_event(
        lambda t, y: (y[1], -g), (h, v), t0, event_fn=lambda t, y: y[0], method=method, options=options,
        odeint_interface=interface, **given,
    )  # fmt: skip
    last = torch.sqrt(v * v + 2 * g * h)
    true = t0 + (v + last) / g
    assert when.item() == pytest.approx(true.item(), abs=1e-12)
    assert abs(height[-1].item()) < 1e-12
    for one, other in ((when, true), (speed[-1], -last)):
        ours = torch.autograd.grad(one, (g, v, h, t0), retain_graph=True)
        theirs = torch.autograd.grad(other, (g, v, h, t0), retain_graph=True, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            assert a.item() == pytest.approx(0.0 if b is None else b.item(), abs=1e-8)


def test_events_of_several_elements_of_their_own_parameters_and_back_in_time() -> None:
    """y = e^t: the first of y = 2, y = c, t = 5; backward the last of before."""
    c = torch.tensor(1.5, dtype=F64).requires_grad_()

    def event(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[0] - 2, y[0] - c, 5 - t])

    when, y = odeint_event(lambda t, y: y, numbers(1.0), torch.tensor(0.0, dtype=F64), event_fn=event,
                           rtol=1e-11)  # fmt: skip
    assert when.item() == pytest.approx(math.log(1.5), abs=1e-8)
    assert y[-1].item() == pytest.approx(1.5)
    assert torch.autograd.grad(when, c)[0].item() == pytest.approx(1 / 1.5, rel=1e-7)
    start = torch.tensor(math.log(4.0), dtype=F64)
    back, _ = odeint_event(lambda t, y: y, numbers(4.0), start, event_fn=event,
                           reverse_time=True, rtol=1e-11)  # fmt: skip
    assert back.item() == pytest.approx(math.log(2.0), abs=1e-8)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_an_event_at_the_start_is_there(method: str) -> None:
    options = {"step_size": 0.1} if method == "rk4" else None
    when, y = odeint(lambda t, y: y, numbers(1.0), numbers(0.5, 1.0), event_fn=lambda t, y: y - 1,
                     method=method, options=options)  # fmt: skip
    assert when.item() == 0.5
    assert torch.equal(y, numbers(1.0, 1.0)[:, None])


@pytest.mark.parametrize(("change", "kind", "match"), [
    ({"method": "rk45"}, ValueError, "Invalid method"),
    ({"method": "implicit_euler"}, ValueError, "Must be one of"),
    ({"y0": [torch.ones(1)]}, AssertionError, "y0 must be"),
    ({"y0": torch.ones(2, dtype=torch.int64)}, TypeError, "convert it"),
    ({"t": [0.0, 1.0]}, AssertionError, r"torch\.Tensor"),
    ({"t": torch.tensor([0, 1])}, TypeError, "floating point"),
    ({"t": torch.ones(2, 2)}, AssertionError, "one dimensional"),
    ({"t": numbers(0.0, 1.0, 0.5)}, AssertionError, "strictly"),
    ({"t": numbers(0.0, 0.0)}, AssertionError, "strictly"),
    ({"t": numbers(0.0, math.nan)}, AssertionError, "finite"),
    ({"t": numbers(0.0, math.inf)}, AssertionError, "finite"),
    ({"rtol": numbers(1e-3).requires_grad_()}, AssertionError, "require gradient"),
    ({"rtol": -1.0}, ValueError, "not be negative|not negative"),
    ({"method": "rk4", "options": {"interp": "quintic"}}, ValueError, "quintic"),
    ({"method": "rk4", "options": {"step_size": 0.1, "grid_constructor": len}}, ValueError, "exclusive"),
    ({"method": "rk4", "options": {"step_size": -0.1}}, ValueError, "positive"),
    ({"method": "explicit_adams", "options": {"max_order": 13}}, AssertionError, "at most 12"),
    ({"method": "dopri5", "options": {"jump_t": numbers(0.5), "step_t": 0.5}}, ValueError, "repeated"),
    ({"method": "dopri5", "options": {"max_num_steps": 3}}, AssertionError, "max_num_steps exceeded"),
    ({"event_fn": lambda t, y: y.sum(), "t": numbers(0.0, 1.0, 2.0)}, ValueError, r"len\(t\) == 2"),
    ({"event_fn": lambda t, y: y.sum(), "method": "rk4"}, AssertionError, "step_size"),
    ({"event_fn": lambda t, y: y.sum(), "method": "scipy_solver"}, ValueError, "no events"),
    ({"func": lambda t, y: torch.ones(3, 2, dtype=F64)}, ls.SolveError, r"returned shape \(3, 2\)"),
    ({"func": lambda t, y: y * y * 10}, AssertionError, "underflow in dt|non-finite"),
])  # fmt: skip
def test_bad_input(change: dict[str, Any], kind: type[Exception], match: str) -> None:
    """The kinds of error that torchdiffeq raises, all of our family."""
    given = {"func": spiral, "y0": numbers(2.0, 1.0), "t": numbers(0.0, 5.0), **change}
    with pytest.raises(kind, match=match) as error:
        odeint(given.pop("func"), given.pop("y0"), given.pop("t"), **given)
    assert isinstance(error.value, ls.SolveError)


@pytest.mark.parametrize(("change", "match"), [
    ({"func": lambda t, y: -y}, "adjoint_params"),
    ({"method": "dopri5", "options": {}, "adjoint_method": "rk4"}, "adjoint_options"),
    ({"rtol": numbers(1e-3, 1e-3)}, "adjoint_rtol"),
    ({"adjoint_options": {"norm": "semi"}}, "seminorm"),
])  # fmt: skip
def test_bad_input_of_the_adjoint(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ls.ArgumentError, match=match):
        odeint_adjoint(change.pop("func", Field()), numbers(2.0, 1.0), numbers(0.0, 1.0), **change)


def test_an_event_that_never_comes_is_given_up() -> None:
    with pytest.raises(RuntimeError, match="event_fn"):
        odeint(lambda t, y: 0 * y, numbers(1.0), numbers(0.0, 1.0), event_fn=lambda t, y: y.sum(),
               method="euler", options={"step_size": 1.0})  # fmt: skip
    with pytest.raises(AssertionError, match="event"):
        odeint(lambda t, y: 0 * y, numbers(1.0), numbers(0.0, 1.0), event_fn=lambda t, y: y.sum())


def test_what_func_raises_comes_out_as_it_is() -> None:
    class Stop(Exception):
        pass

    def f(t: Tensor, y: Tensor) -> Tensor:
        if t > 0.5:
            raise Stop("enough")
        return -y

    for method in ("dopri5", "rk4"):
        with pytest.raises(Stop, match="enough"):
            odeint(f, numbers(1.0), torch.linspace(0, 1, 5, dtype=F64), method=method)


def test_unused_options_warn() -> None:
    for method, option in (("dopri5", {"step_size": 0.1}), ("rk4", {"first_step": 0.1})):
        with pytest.warns(UserWarning, match="Unexpected arguments"):
            odeint(spiral, numbers(2.0, 0.0), numbers(0.0, 1.0), method=method, options=option)
    with pytest.warns(UserWarning, match="reduces to `rk4`"):
        odeint(
            spiral, numbers(2.0, 0.0), numbers(0.0, 1.0), method="explicit_adams", options={"max_order": 3}
        )


def test_a_norm_of_samples_in_solve() -> None:
    """The largest element is at most sqrt(D) root mean squares: it takes as many steps, or more."""
    x0 = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]], dtype=F64)
    rate = ls.ODE(lambda t, x: torch.cat([spiral(t, x[:, :2]), 0 * x[:, 2:]], 1))
    runs = [ls.solve(rate, x0, t=(0, 5), norm=norm) for norm in (None, lambda v: v.abs().amax(1))]
    assert (runs[1].stats.accepted > runs[0].stats.accepted).all()
    with pytest.raises(ls.SolveError, match="norm returned"):
        ls.solve(rate, x0, t=(0, 5), norm=lambda v: v.abs().amax())


def test_a_watch_sees_each_step_before_it_is_tried() -> None:
    seen, f = [], Seen(lambda t, x: -x)
    run = ls.solve(ls.ODE(f), torch.ones(1, 1), t=(1, 0), shared_step=True,
                   watch=lambda t, x, h: seen.append((float(t), float(h), len(f.times))))  # fmt: skip
    assert len(seen) == run.stats.steps
    assert [count for *_, count in seen] == [2 + 6 * n for n in range(len(seen))]
    assert seen[0][0] == 1.0
