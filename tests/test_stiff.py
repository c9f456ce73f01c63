"""Implicit methods: orders, stability, df/dx in each of its forms, reuse, gradients, failure."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import longstride as ls
from counting import column
from longstride.methods.collocation import COLLOCATION
from longstride.methods.esdirk import ESDIRK
from longstride.methods.rosenbrock import ROSENBROCK
from longstride.steppers.gmres import gmres
from longstride.steppers.jacobian import Tangent
from longstride.steppers.kinds import stepper
from longstride.steppers.linear import structure

F64 = torch.float64
METHODS = (*ROSENBROCK, *ESDIRK, *COLLOCATION)
NEWTON = (*ESDIRK, *COLLOCATION)
ADDITIVE = tuple(name for name, table in ESDIRK.items() if table.explicit)
ORDER = {name: table.order for kind in (ROSENBROCK, ESDIRK, COLLOCATION) for name, table in kind.items()}


def fixed(name: str, f, x0: Tensor, t: tuple[float, float], n: int, tol: float, **problem) -> Tensor:
    """n equal steps of a method, whatever its estimate; systems are solved to tol/100."""
    one = torch.ones((), dtype=F64)
    p = ls.ODE(f, **problem)
    sign = 1.0 if t[1] >= t[0] else -1.0
    steps = stepper(name)(p.rate, x0, sign, False, False, tol * one, tol * one)
    steps.suit(p.jacobian, p.parts, None)
    if name in NEWTON:
        steps.newton.kappa = 1e-2
    h = torch.full((len(x0),), abs(t[1] - t[0]) / n, dtype=F64)
    x, first = x0, p.rate(torch.full((len(x0),), t[0], dtype=F64), x0)
    steps.prepare(x, first)
    for i in range(n):
        with patch("longstride.steppers.newton.MOST", 60):
            trial = steps.trial(sign * t[0] + i * h, h, x, first)
        assert trial.failed is None or not bool(trial.failed.any())
        x, first = trial.x1, trial.last
    return x


def order(errors: list[float]) -> float:
    return math.log2(errors[0] / errors[1])


def nonlinear(t: Tensor, x: Tensor) -> Tensor:
    """x' = cos(t) x^2: x0/(1 - x0 (sin t - sin t0))."""
    return torch.cos(t)[:, None] * x * x


@pytest.mark.parametrize("name", METHODS)
def test_measured_orders(name: str) -> None:
    x0 = torch.tensor([[0.5, 0.7, 0.9]], dtype=F64)
    exact = x0 / (1 - x0 * (math.sin(1.5) - math.sin(0.3)))
    n = {2: 64, 3: 32, 4: 16, 5: 12}[ORDER[name]]
    errors = [float((fixed(name, nonlinear, x0, (0.3, 1.5), m, 1e-11) - exact).norm()) for m in (n, 2 * n)]
    assert abs(order(errors) - ORDER[name]) < 0.35


@pytest.mark.parametrize("name", METHODS)
def test_order_of_estimate_and_interpolant_in_one_step(name: str) -> None:
    """The estimate falls as its table claims, what is read between ends as h^4 (of rodas5p as h^5)."""
    x0, found = torch.tensor([[0.5, 0.7, 0.9]], dtype=F64), []
    h0 = 0.1 if ORDER[name] == 5 else 0.05
    one = torch.ones((), dtype=F64)
    for h in (h0, h0 / 2):
        steps = stepper(name)(nonlinear, x0, 1.0, False, False, 0 * one, one)
        steps.suit(None, (), None)
        if name in NEWTON:
            steps.newton.kappa = 1e-13
        s = torch.tensor([0.3], dtype=F64)
        first = nonlinear(s, x0)
        steps.prepare(x0, first)
        with patch("longstride.steppers.newton.MOST", 60):
            trial = steps.trial(s, 0 * s + h, x0, first)
        between = [
            steps.along(trial, 0 * s + th) - x0 / (1 - x0 * (math.sin(0.3 + th * h) - math.sin(0.3)))
            for th in (0.2, 0.5, 0.8)
        ]
        found.append((float(steps.ratio(trial)), float(torch.cat(between).norm())))
    estimate, dense = (order([a, b]) for a, b in zip(*found, strict=True))
    assert abs(estimate - steps.shrinks) < 0.4
    assert dense > min({"tr_bdf2": 3, "rodas5p": 5}.get(name, 4), 5) - 0.35


@pytest.mark.parametrize("name", METHODS)
def test_stability_function_on_the_imaginary_axis_and_at_infinity(name: str) -> None:
    """A-stable: |R(iy)| <= 1. L-stable: R(-inf) = 0; of ros3p it is -0.73 (Lang and Verwer 2001)."""
    ys = torch.logspace(-2, 4, 60, dtype=F64)
    turn = lambda t, x: torch.stack([-ys * x[:, 1], ys * x[:, 0]], 1)  # noqa: E731
    x0 = torch.tensor([[1.0, 0.0]], dtype=F64).expand(60, 2).clone()
    grown = fixed(name, turn, x0, (0.0, 1.0), 1, 1e-6).norm(dim=1)
    assert bool((grown <= 1 + 1e-9).all())
    far = float(fixed(name, lambda t, x: -1e9 * x, column(1.0), (0.0, 1.0), 1, 1e-6).abs())
    assert far < (0.74 if name == "ros3p" else 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_linear_problems_of_constant_coefficients_give_the_rational_function(name: str) -> None:
    """One step on x' = A x is R(hA) x with e^z - R(z) = O(z^(p+1)), and Newton has nothing left to do."""
    A = torch.tensor([[-2.0, 1.0], [0.3, -1.0]], dtype=F64)
    f = lambda t, x: x @ A.T  # noqa: E731
    x0, steps = torch.tensor([[1.0, 2.0]], dtype=F64), (0.1, 0.05) if ORDER[name] > 3 else (0.04, 0.02)
    errors = [
        float((fixed(name, f, x0, (0.0, h), 1, 1e-12) - x0 @ torch.linalg.matrix_exp(h * A).T).norm())
        for h in steps
    ]
    above = 1.0 if name == "rodas5p" else 0.35  # its error constant is so small that the next one is seen
    assert -0.35 < order(errors) - ORDER[name] - 1 < above


@pytest.mark.parametrize(
    ("name", "stiff"),
    [
        ("rodas4", 1),
        ("tr_bdf2", 2),
        ("kvaerno3", 2),
        ("kvaerno5", 2),
        ("kencarp4", 2),
        ("radau5", 3),
        ("rodas5p", 3),
    ],
)
def test_order_reduction_on_prothero_and_robinson(name: str, stiff: int) -> None:
    """x' = L (x - g) + g', x = g = sin t, h L << -1: the stages set the order and not p.

    With stage order q and R(-inf) = 0 the error is O(h^(q+1)/(h L)) = O(h^q/L): q is 2 for the ESDIRKs,
    whose first stage is explicit, and 3 for Radau IIA. Rosenbrock methods have q = 1; Rodas5P has further
    conditions of order for these problems (Steinebach 2023).
    """
    f = lambda t, x: -1e6 * (x - torch.sin(t)[:, None]) + torch.cos(t)[:, None]  # noqa: E731
    errors = [
        float((fixed(name, f, column(math.sin(0.5)), (0.5, 1.5), n, 1e-11) - math.sin(1.5)).abs())
        for n in (8, 16)
    ]
    assert abs(order(errors) - stiff) < 0.6


@pytest.mark.parametrize(("name", "linear"), [("rodas4", None), ("kvaerno3", "gmres")])
def test_inference_mode_changes_nothing(name: str, linear: str | None) -> None:
    """df/dt, and products with df/dx, are differentiated there as well."""

    def f(t: Tensor, x: Tensor) -> Tensor:
        return -50 * (x - torch.cos(3 * t)[:, None])

    runs = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            x0 = torch.tensor([[0.3, 2.0]], dtype=F64)
            runs.append(ls.solve(ls.ODE(f), x0, t=(0, 1), method=name, linear=linear, rtol=1e-4))
    assert torch.equal(runs[0].x, runs[1].x)
    assert runs[0].stats.nfe == runs[1].stats.nfe


def exponential_decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


# df/dx


def coupled(t: Tensor, x: Tensor) -> Tensor:
    """Row i depends on x_(i-2) ... x_(i+1), and on t."""
    pad = torch.nn.functional.pad(x, (2, 1))
    return (1 + t[:, None]) * (-3 * x + torch.sin(pad[:, :-3]) + pad[:, 1:-2] * x - pad[:, 3:] ** 2)


@pytest.mark.parametrize("c", [0.3, 0.2 + 0.7j])
def test_ways_to_df_dx_agree(c: complex) -> None:
    """Dense, banded and by products: the same matrix, and the same solutions with I - c J."""
    torch.manual_seed(0)
    x, t, D = torch.randn(3, 41, dtype=F64), torch.rand(3, dtype=F64), 41
    tangent = Tangent(coupled, t, x)
    exact = torch.func.vmap(torch.func.jacfwd(lambda t, x: coupled(t[None], x[None])[0], 1))(t, x)
    dense, banded, free = structure(None, x), structure((2, 1), x), structure(None, x, "gmres")
    J = dense.jacobian(tangent)
    assert torch.allclose(J[0], exact, atol=1e-14)
    v = torch.randn(3, D, dtype=F64)
    assert torch.allclose(tangent.times(v), (exact @ v[..., None])[..., 0])
    assert torch.allclose(tangent.pull(v), (v[:, None] @ exact)[:, 0])
    assert torch.allclose(tangent.by_time, coupled(0 * t, x), atol=1e-13)
    shift = torch.full((3,), c, dtype=F64 if isinstance(c, float) else torch.complex128)
    r = v.to(shift.dtype)
    solved = [way.solve(way.factor(way.jacobian(tangent), shift), r) for way in (dense, banded)]
    assert torch.allclose(torch.linalg.solve(torch.eye(D) - c * exact, r[..., None])[..., 0], solved[0])
    assert torch.allclose(*solved, rtol=1e-10)
    found = free.krylov(free.factor(free.jacobian(tangent), shift), r, 1e-12, transposed=False)
    assert torch.allclose(found, solved[0], rtol=1e-8)


def test_gmres_gives_each_sample_what_it_gets_alone() -> None:
    torch.manual_seed(1)
    A = (
        torch.eye(12, dtype=F64)
        + torch.randn(3, 12, 12, dtype=F64) / torch.tensor([99.0, 9.0, 5.0])[:, None, None]
    )
    r = torch.randn(3, 12, dtype=F64)
    both = gmres(lambda v: (A @ v[..., None])[..., 0], r, 1e-6)
    for i in range(3):
        alone = gmres(lambda v, i=i: (A[i : i + 1] @ v[..., None])[..., 0], r[i : i + 1], 1e-6)
        assert torch.allclose(alone[0], both[i], rtol=1e-12)
        assert (A[i] @ both[i] - r[i]).norm() < 1e-6 * r[i].norm()


@pytest.mark.parametrize("name", ["rodas5p", "kvaerno5", "radau5"])
def test_a_run_does_not_depend_on_how_df_dx_is_known(name: str) -> None:
    x0 = torch.linspace(0.1, 1.0, 24, dtype=F64).view(2, 12)
    whole = lambda t, x: torch.func.vmap(  # noqa: E731
        torch.func.jacfwd(lambda t, x: coupled(t[None], x[None])[0], 1)
    )(t, x)
    runs = [
        ls.solve(ls.ODE(coupled, jacobian=jacobian), x0, t=(0, 2), method=name)
        for jacobian in (None, (2, 1), whole)
    ]
    for run in runs[1:]:
        assert torch.allclose(run.x, runs[0].x, rtol=1e-9)
        assert run.stats.nfe == runs[0].stats.nfe
    alone = ls.ODE(lambda t, x: -50 * (x**3 - 1), jacobian="diagonal")
    full = ls.ODE(alone.f)
    runs = [ls.solve(p, x0, t=(0, 2), method=name) for p in (alone, full)]
    assert torch.allclose(runs[0].x, runs[1].x, rtol=1e-9)


# Runs


def robertson(k2: Tensor | float = 3e7):
    def f(t: Tensor, x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        slow, fast, back = 0.04 * a, k2 * b * b, 1e4 * b * c
        return torch.stack([back - slow, slow - back - fast, fast], 1)

    return f


@pytest.mark.parametrize("name", METHODS)
def test_robertson_keeps_its_mass_and_comes_to_the_known_end(name: str) -> None:
    """At t = 1e11, of the test set for initial value problems (Mazzia and Magherini 2008, ROBER)."""
    tol = {2: 1e-3, 3: 1e-4}.get(ORDER[name], 1e-5)
    x0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    run = ls.solve(ls.ODE(robertson()), x0, t=(0, 1e11), method=name, rtol=tol, atol=1e-6 * tol)
    assert run.status == ("reached",)
    end = torch.tensor([0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050], dtype=F64)
    assert torch.allclose(run.x[-1, 0], end, rtol=50 * tol)
    assert abs(float(run.x[-1].sum()) - 1) < 1e-9


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    k2 = torch.tensor([1e6, 3e7, 1e8], dtype=F64)
    x0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64).expand(3, 3)
    options = {"t": (0, 40.0), "method": name, "rtol": 1e-4, "atol": 1e-9, "save_at": [0.3, 7.0, 40.0]}
    batch = ls.solve(ls.ODE(robertson(k2)), x0, **options)
    for i in range(3):
        alone = ls.solve(ls.ODE(robertson(k2[i])), x0[i : i + 1], **options)
        assert torch.allclose(alone.x[:, 0], batch.x[:, i], rtol=1e-8, atol=1e-12)
        assert alone.stats.accepted[0] == batch.stats.accepted[i]
        assert alone.stats.rejected[0] == batch.stats.rejected[i]


@pytest.mark.parametrize("name", METHODS)
def test_backward_in_time_is_the_mirrored_problem(name: str) -> None:
    f = lambda t, x: 30 * (x - torch.cos(t)[:, None])  # noqa: E731
    g = lambda s, x: -f(-s, x)  # noqa: E731
    marks = [1.3, 0.2, -1.0]
    down = ls.solve(ls.ODE(f), column(1.0, 0.5), t=(2, -1), method=name, save_at=marks, rtol=1e-5)
    up = ls.solve(ls.ODE(g), column(1.0, 0.5), t=(-2, 1), method=name, save_at=[-m for m in marks], rtol=1e-5)
    assert torch.allclose(down.x, up.x, rtol=1e-10)
    exact = (900 * math.cos(-1) - 30 * math.sin(-1)) / 901
    assert abs(down.x[-1, 0, 0] - exact) < 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_a_complex_state_is_its_parts(name: str) -> None:
    """x' = i w x - 50 (x - 1), of any shape: an exponential."""
    z, x0 = -50 + 3j, torch.full((2, 2, 1), 2.0 - 1j, dtype=torch.complex128)
    run = ls.solve(ls.ODE(lambda t, x: z * x + 50), x0, t=(0, 0.1), method=name, save_at=[0.05, 0.1])
    exact = torch.tensor([complex(math.e ** (z * t)) for t in (0.05, 0.1)], dtype=x0.dtype).view(2, 1, 1, 1)
    assert torch.allclose(run.x, (x0 + 50 / z) * exact - 50 / z, atol=3e-4)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("options", [{}, {"save_at": [0.5, 2.0]}, {"jump_times": [1.0]}, {"first_step": 2.0}])
def test_nfe_is_what_the_field_counts(name: str, options: dict) -> None:
    calls = 0

    def f(t: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return -100 * (x - torch.sin(3 * t)[:, None]) - x**3

    run = ls.solve(ls.ODE(f), column(1.0), t=(0, 2), method=name, rtol=1e-3, **options)
    assert run.stats.nfe == calls
    run = ls.solve(ls.ODE(f), column(1.0), t=(0, 2), method=name, nfe=100)
    assert run.stats.nfe <= 100


def test_df_dx_and_factors_are_kept_while_they_serve() -> None:
    """On a linear problem one df/dx serves to the end; on Robertson's fewer than there are steps."""
    linear = ls.ODE(lambda t, x: -100 * (x - torch.sin(t)[:, None]))
    run = ls.solve(linear, column(0.0), t=(0, 10), method="kvaerno5", rtol=1e-6)
    assert run.stats.jacobians <= 1 + run.stats.rejected
    x0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    run = ls.solve(ls.ODE(robertson()), x0, t=(0, 1e6), method="radau5", rtol=1e-6, atol=1e-12)
    assert run.stats.jacobians < run.stats.steps / 2
    assert run.stats.factorizations < run.stats.steps


def test_jumps_are_stepped_onto() -> None:
    """x' = -k (x - target), which jumps at 1: an exponential to 1, then one to 3."""
    f = lambda t, x: -40 * (x - torch.where(t < 1, 1.0, 3.0)[:, None])  # noqa: E731
    for name in METHODS:
        run = ls.solve(ls.ODE(f), column(0.0), t=(0, 1.1), method=name, jump_times=[1.0], rtol=1e-5)
        assert abs(run.x[-1, 0, 0] - (3 - 2 * math.exp(-4))) < 2e-4


def test_a_stiff_problem_fails_explicitly_with_advice_that_works() -> None:
    f = lambda t, x: -1e6 * (x - torch.cos(t)[:, None])  # noqa: E731
    run = ls.solve(ls.ODE(f), column(0.0), t=(0, 10), max_steps=2000)
    assert "rodas5p" in run.message[0]
    run = ls.solve(ls.ODE(f), column(0.0), t=(0, 10), max_steps=2000, method="rodas5p")
    assert run.status == ("reached",)


def test_one_sample_that_blows_up_stops_alone() -> None:
    for name in ("rodas5p", "kvaerno5"):
        run = ls.solve(ls.ODE(lambda t, x: x * x), column(0.5, 2.0, -1.0), t=(0, 1), method=name)
        assert run.status[0] == run.status[2] == "reached"
        assert run.status[1] in ("step_underflow", "non_finite")
        assert abs(run.t_end[1] - 0.5) < 1e-3
        assert torch.allclose(run.x[-1, ::2], column(1.0, -0.5), rtol=1e-4)


# Split problems


@pytest.mark.parametrize("name", ADDITIVE)
def test_additive_methods_have_their_order_on_a_split_problem(name: str) -> None:
    """Both parts nonlinear and coupled: the order needs the conditions that couple the two tables."""
    f = lambda t, x: torch.stack([x[:, 1], -x[:, 0] * x[:, 1] * torch.cos(t)], 1)  # noqa: E731
    g = lambda t, x: torch.stack([-2 * x[:, 0] ** 2, torch.sin(x[:, 0]) - 3 * x[:, 1]], 1)  # noqa: E731
    x0 = torch.tensor([[1.0, 0.5]], dtype=F64)
    exact = fixed("radau5", lambda t, x: f(t, x) + g(t, x), x0, (0, 1), 100, 1e-13)
    errors = [float((fixed(name, f, x0, (0, 1), n, 1e-12, stiff=g) - exact).norm()) for n in (16, 32)]
    assert abs(order(errors) - ORDER[name]) < 0.35


@pytest.mark.parametrize("name", ADDITIVE)
def test_the_explicit_part_is_never_differentiated(name: str) -> None:
    def f(t: Tensor, x: Tensor) -> Tensor:
        assert not x.requires_grad
        return torch.cos(t)[:, None].expand_as(x)

    L = -100.0 * torch.arange(1, 4, dtype=F64)
    x0 = torch.ones(2, 3, dtype=F64)
    ways = [ls.ODE(f, L=L), ls.ODE(f, stiff=lambda t, x: L * x, jacobian="diagonal")]
    runs = [ls.solve(way, x0, t=(0, 1), method=name, rtol=1e-5, atol=1e-6) for way in ways]
    exact = (-L * math.cos(1) + math.sin(1)) / (1 + L * L)
    for run in runs:
        assert torch.allclose(run.x[-1], exact.expand(2, 3), atol=1e-5)


# Gradients


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_those_of_the_steps_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Central differences over the same steps, to state and parameter, through stages that were iterated."""
    rate = torch.tensor(20.0, dtype=F64, requires_grad=True)
    x0 = torch.tensor([[1.0, 0.3]], dtype=F64, requires_grad=True)

    def f(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([-rate * (x[:, 0] ** 3 - torch.cos(t)), x[:, 0] * x[:, 1] - x[:, 1] ** 2], 1)

    def end() -> Tensor:
        run = ls.solve(
            ls.ODE(f), x0, t=(0, 0.6), method=name, first_step=0.1, max_step=0.1, rtol=1.0, atol=1.0,
            controller=ls.control.I(),
        )  # fmt: skip
        return run.x[-1, 0, 1] + run.x[-1, 0, 0]

    # Equal steps, and stages solved to where differences can be taken.
    monkeypatch.setattr("longstride.steppers.implicit.kappa", lambda rtol, eps: 1e-9)
    monkeypatch.setattr("longstride.steppers.newton.MOST", 60)
    found = torch.autograd.grad(end(), (rate, x0))
    eps = 1e-4
    for who, index, slope in ((rate, (), found[0]), (x0, (0, 0), found[1][0, 0])):
        ends = []
        for step in (eps, -eps):
            with torch.no_grad():
                who[index] += step
            ends.append(end().item())
            with torch.no_grad():
                who[index] -= step
        assert abs((ends[0] - ends[1]) / (2 * eps) - slope) < 1e-6 * max(1.0, abs(float(slope)))


@pytest.mark.parametrize("name", ["kvaerno5", "kencarp3"])
def test_gradients_without_a_matrix_are_those_with_one(name: str) -> None:
    x0 = torch.linspace(0.1, 1.0, 12, dtype=F64).view(2, 6).requires_grad_()
    found = []
    for linear in (None, "gmres"):
        run = ls.solve(ls.ODE(coupled), x0, t=(0, 0.3), method=name, linear=linear, rtol=1e-6)
        found.append(torch.autograd.grad((run.x**2).sum(), x0)[0])
    assert torch.allclose(*found, rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        ({"jacobian": "full"}, {}, "jacobian"),
        ({"jacobian": (1, -1)}, {}, "at least 0"),
        ({}, {"linear": "lu"}, "gmres"),
        ({}, {"linear": "gmres", "method": "rodas4"}, "kvaerno5"),
        ({}, {"linear": "gmres", "method": "tsit5"}, "implicit"),
        ({"jacobian": lambda t, x: x}, {"method": "radau5"}, "return df/dx"),
    ],
)
def test_bad_arguments_are_refused(problem: dict, options: dict, message: str) -> None:
    with pytest.raises(ls.SolveError, match=message):
        ls.solve(
            ls.ODE(exponential_decay, **problem),
            column(1.0, 2.0),
            t=(0, 1),
            **{"method": "kvaerno3", **options},
        )


@pytest.mark.parametrize("name", [*METHODS, "bdf", "auto", "adams_bdf"])
def test_a_state_of_a_number_a_sample_is_one_of_a_column(name: str) -> None:
    """x [B] is x [B, 1]."""
    x0 = torch.tensor([1.0, 0.2], dtype=F64)
    f = ls.ODE(lambda t, x: -(x**3))
    flat, tall = (ls.solve(f, x, t=(0.0, 1.0), method=name, rtol=1e-5) for x in (x0, x0[:, None]))
    assert torch.equal(flat.x[..., None], tall.x)
    assert (flat.x[0] - x0 / (1 + 2 * x0**2).sqrt()).abs().max() < 1e-4
