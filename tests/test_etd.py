"""Exponential and implicit-explicit methods on equations with real, imaginary and complex symbols."""

from __future__ import annotations

import cmath
import math
from decimal import Decimal, localcontext
from functools import cache

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods import REGISTRY, get
from longstride.methods.exponential import EXPONENTIAL_PAIRS
from longstride.operator import Phis, phi, phis
from longstride.spectral import Box, Fourier, Pointwise
from longstride.steppers.kinds import stepper

F64 = torch.float64
KINDS = ("exponential Runge-Kutta", "integrating factor", "exponential Adams", "IMEX")
SAMPLERS = ("deis", "dpm")  # published for diffusions, where the laws measure them
NAMES = [n for n in sorted(REGISTRY) if REGISTRY[n].kind in KINDS and not n.startswith(SAMPLERS)]
STEPS = {1: 100, 2: 100, 3: 64, 4: 96}
PAIRS = tuple(EXPONENTIAL_PAIRS)


def burgers(space: Fourier) -> Pointwise:
    return Pointwise(space, lambda u: u * u, writes=(-space.d() / 2,))


@cache
def equation(name: str) -> tuple[ls.ODE, Tensor]:
    """And a start; the run is over one unit of time."""
    if name == "NLS":
        space = Fourier(2 * math.pi, 24, real=False, dealias=0.5)
        x = space.x[0]
        wave = 0.5 + 0.4 * torch.cos(x) + 0.2j * torch.sin(2 * x)
        turning = Pointwise(space, lambda u: 1j * u * u.abs() ** 2)
        return ls.ODE(turning, L=-0.5j * space.k2, space=space), wave[None]
    length = 22.0 if name.startswith("KS") else 2 * math.pi
    space = Fourier(
        length, 32 if name.startswith("KS") else 24, dealias=0.5 if name == "Allen-Cahn" else 2 / 3
    )
    x = 2 * math.pi / length * space.x[0]
    start = (torch.cos(x) * (1 + torch.sin(x)) / 2)[None]
    if name == "Allen-Cahn":
        return ls.ODE(Pointwise(space, lambda u: 4 * (u - u**3)), L=-0.1 * space.k2, space=space), start
    L = {
        "KS": space.k2 - space.k2**2,
        "KdV": -0.1 * space.d(order=3),
        "KS-KdV": space.k2 - space.k2**2 - 2 * space.d(order=3),
    }[name]
    return ls.ODE(burgers(space), L=L, space=space), start


@cache
def solution(name: str) -> Tensor:
    problem, start = equation(name)
    return ls.solve(problem, start, t=(0, 1), method="hochbruck_ostermann", steps=500).x[-1]


def off(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def slope(errors: list[float]) -> float:
    return math.log2(errors[0] / errors[1])


# phi-functions


def exact_phis(z: complex, most: int) -> list[tuple[Decimal, Decimal]]:
    """phi_0, ..., phi_most in 90 digits: Taylor's series at z/2^m, then phi_k(2z) from those at z."""
    halvings = max(0, math.frexp(abs(z))[1] + 3)
    x, y = Decimal(z.real) / 2**halvings, Decimal(z.imag) / 2**halvings

    def times(a: tuple, b: tuple) -> tuple:
        return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]

    found = []
    for k in range(most + 1):
        total = (Decimal(0), Decimal(0))
        for j in reversed(range(45)):
            re, im = times(total, (x, y))
            total = re + 1 / Decimal(math.factorial(k + j)), im
        found.append(total)
    for _ in range(halvings):
        twice = [times(found[0], found[0])]
        for k in range(1, most + 1):
            re, im = times(found[0], found[k])
            for j in range(1, k + 1):
                re += found[j][0] / math.factorial(k - j)
                im += found[j][1] / math.factorial(k - j)
            twice.append((re / 2**k, im / 2**k))
        found = twice
    return found


@pytest.mark.parametrize("turn", [-1.0, 1.0, 1j, -1j, cmath.exp(1.0j), cmath.exp(2.0j), cmath.exp(2.6j)])
def test_phi_functions_are_good_to_round_off_from_1e_minus_12_to_1e4(turn: complex) -> None:
    """Relative to the size, or where imaginary z make zeros to what is around them, 1/(k! (1 + |z|))."""
    sizes = [10 ** (-12 + 16 * i / 70) for i in range(71)] + [0.99, 1.01, 2.5, 2.99, 3.01, 3.5]
    zs = [turn * r for r in sizes if (turn * r).real < 600]
    real = isinstance(turn, float)
    found = phis(torch.tensor(zs, dtype=F64 if real else torch.complex128), 5)
    with localcontext() as context:
        context.prec = 90
        for i, z in enumerate(zs):
            for k, (re, im) in enumerate(exact_phis(complex(z), 5)):
                value = complex(found[k][i])
                error = math.hypot(float(Decimal(value.real) - re), float(Decimal(value.imag) - im))
                around = 1 / (math.factorial(k) * (1 + abs(z))) if k else 0.0
                size = max(math.hypot(float(re), float(im)), around, 1e-300)
                assert error < 5 * 2.3e-16 * size, (k, z)
                if real:
                    assert math.isclose(phi(k, z), found[k][i], rel_tol=1e-15, abs_tol=1e-300)


def test_phi_functions_of_a_step_are_made_once() -> None:
    shared = Phis(torch.linspace(-9, 0, 5, dtype=F64))
    assert shared(2, 0.5) is shared(2, 0.5)
    assert torch.equal(shared(3, 0.5), phi(3, 0.5 * shared.z))
    L = torch.linspace(-9, 0, 5, dtype=F64)
    step = get("etdrk4").step([0.0, 0.1], 0, ls.ODE(lambda t, x: x, L=L).operator(True))
    weights = [w for stage in step.stages for row in (stage.x, stage.f) for w in row if isinstance(w, Tensor)]
    assert len({id(w) for w in weights}) < len(weights)  # rows have entries in common, and so their memory


# Orders


@pytest.mark.parametrize("problem", ["KS", "Allen-Cahn", "KdV", "NLS", "KS-KdV"])
@pytest.mark.parametrize("name", NAMES)
def test_order_from_the_first_step_to_the_last(name: str, problem: str) -> None:
    """Exponential Adams as published begins with one step of order 1, and so ends with order 2."""
    (ode, start), exact, order = equation(problem), solution(problem), get(name).order
    errors = [
        off(ls.solve(ode, start, t=(0, 1), method=name, steps=n).x[-1], exact)
        for n in (STEPS[order], 2 * STEPS[order])
    ]
    assert abs(slope(errors) - (2 if name in ("exp_adams_3", "exp_adams_4") else order)) < 0.2


def test_two_steps_of_exponential_adams_are_cox_and_matthews() -> None:
    """Their equation 6: ((1 + z) e^z - 1 - 2z)/z^2 and (1 + z - e^z)/z^2 of h F_n and h F_(n-1)."""
    z = torch.tensor([-4.0, -0.5, 0.7], dtype=F64)
    e = z.exp()
    step = get("etd_2").step([0.0, 1.0, 2.0], 1, ls.ODE(lambda t, x: x, L=z).operator(True))
    older, newer = step.stages[-1].f
    assert torch.allclose(newer, ((1 + z) * e - 1 - 2 * z) / z**2, rtol=1e-13)
    assert torch.allclose(older, (1 + z - e) / z**2, rtol=1e-13)


def test_implicit_weights_decay_where_L_does() -> None:
    """L-stable: a mode that decays at once is gone after a step, and rests at -F/L."""
    stiff = ls.ODE(lambda t, x: torch.ones_like(x), L=torch.full((1,), -1e9, dtype=F64))
    for name in ("imex_euler", "ars_222", "ars_443", "ark_3", "ark_4", "sbdf_2", "sbdf_3"):
        x = ls.solve(stiff, torch.ones(1, 1, dtype=F64), t=(0, 1), method=name, steps=9).x[-1]
        assert abs(float(x) - 1e-9) < 1e-10, name
    matrix = ls.ODE(lambda t, x: x, L=ls.Matrix(torch.eye(2, dtype=F64)))
    with pytest.raises(ls.ArgumentError, match="etdrk4"):
        ls.solve(matrix, torch.ones(1, 2, dtype=F64), t=(0, 1), method="sbdf_2", steps=4)


# Adaptive pairs


def stepped(method: str, name: str, h: float, n: int, linear: str | None = None):
    """n steps of h by an adaptive method, whatever its estimate; the last of them, and what took it."""
    ode, start = equation(name)
    x, inner = ode.space.enter(start), ode.entered()
    tolerance = torch.full((), 1e-12, dtype=F64)
    steps = stepper(method)(inner.rate, x, 1.0, False, False, tolerance, tolerance)
    steps.suit(None, (), linear)
    steps.apart(inner.L, inner.nonlinear)
    size = torch.full((1,), h, dtype=F64)
    first = steps.rate(0 * size, x)
    steps.prepare(x, first)
    for i in range(n):
        trial = steps.trial(i * size, size, x, first)
        x, first = trial.x1, trial.last
    return trial, steps, ode.space


@pytest.mark.parametrize("problem", ["KS", "KdV", "KS-KdV"])
@pytest.mark.parametrize("method", PAIRS)
def test_orders_of_pairs_of_their_estimates_and_of_what_lies_between(method: str, problem: str) -> None:
    """Order 4; the estimate, and the error between the ends of a step of h, fall with h^4."""
    ode, start = equation(problem)
    ends, estimates, middles = [], [], []
    for n in (64, 128):
        last, _, space = stepped(method, problem, 1 / n, n)
        ends.append(off(space.leave(last.x1), solution(problem)))
        estimates.append(float(space.norm(last.error)[0]))
        step, steps, _ = stepped(method, problem, 1 / n, 1)
        fine = ls.solve(ode, start, t=(0, 0.4 / n), method="hochbruck_ostermann", steps=40).x[-1]
        middles.append(off(space.leave(steps.along(step, 0.4 + 0 * step.h)), fine))
        assert torch.allclose(steps.along(step, 1 + 0 * step.h), step.x1, rtol=0, atol=1e-15)
    assert abs(slope(ends) - 4) < 0.2
    assert abs(slope(estimates) - 4) < 0.3
    assert abs(slope(middles) - 4) < 0.3


@pytest.mark.parametrize("problem", ["KS", "NLS", "KS-KdV"])
def test_an_adaptive_run_keeps_to_its_tolerance_wherever_it_is_read(problem: str) -> None:
    ode, start = equation(problem)
    times = [0.0, 0.123, 0.5, 1.0]
    exact = ls.solve(ode, start, t=(0, 1), method="krogstad", steps=60, save_at=times).x
    runs = [ls.solve(ode, start, t=(0, 1), rtol=rtol, save_at=times) for rtol in (1e-5, 1e-7)]
    for run, rtol in zip(runs, (1e-5, 1e-7), strict=True):
        assert all(off(a, b) < 10 * rtol for a, b in zip(run.x[1:], exact[1:], strict=True))
    named = ls.solve(ode, start, t=(0, 1), method="krogstad43", rtol=1e-7, save_at=times)
    assert torch.equal(named.x, runs[1].x)  # what a problem with a symbol takes where none is named
    if problem == "NLS":  # the others forget
        back = ls.solve(ode, runs[1].x[-1], t=(1, 0), rtol=1e-7)
        assert off(back.x[-1], runs[1].x[0]) < 1e-5


@pytest.mark.parametrize("w", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("method", PAIRS)
def test_a_force_that_depends_on_time_alone_is_seen(method: str, w: float) -> None:
    """x' = -x + cos w t from 0, at a start where cos has its largest slope and at one where it has none."""
    problem = ls.ODE(lambda t, x: torch.cos(w * t).view(-1, 1), L=-torch.ones(1, dtype=F64))
    turn = complex(1, w)
    for a in (0.0, -math.pi / 2 / w):
        found = ls.solve(
            problem, torch.zeros(1, 1, dtype=F64), t=(a, 10), method=method, rtol=1e-6, atol=1e-8
        )
        exact = (cmath.exp(10j * w) / turn - cmath.exp(1j * w * a - (10 - a)) / turn).real
        assert abs(float(found.x[-1]) - exact) < 1e-5


def test_samples_step_on_their_own_on_a_ladder_they_share() -> None:
    """The weights of a rung serve all samples and steps, and nobody's result hangs on the others."""
    ode, start = equation("KS")
    starts = torch.cat([start, 3 * start, 0.1 * start])
    x, sizes = ode.space.enter(starts), set()
    inner = ode.entered()
    watch = lambda t, x, h: sizes.update(h.tolist())  # noqa: E731
    many = ls.solve(inner, x, t=(0, 8), rtol=1e-6, watch=watch)
    between = [h for h in sizes if h and abs(4 * math.log2(h) % 1 - 0.5) < 0.5 - 1e-9]
    assert len(between) <= 3 * len(starts)  # the first step and the two that end the run
    assert len(sizes) < int(many.stats.accepted.sum()) / 3
    for i in range(3):
        alone = ls.solve(inner, x[i : i + 1], t=(0, 8), rtol=1e-6)
        assert torch.allclose(alone.x[0, 0], many.x[0, i], rtol=0, atol=1e-12)
        assert int(alone.stats.accepted[0]) == int(many.stats.accepted[i])
    shared = ls.solve(inner, x, t=(0, 8), rtol=1e-6, shared_step=True)
    assert off(shared.x, many.x) < 1e-4


def test_symbols_of_each_sample_and_matrices() -> None:
    z = torch.tensor([[-300.0, -3.0, -1.0, 0.5], [-30.0, -2.0, 0.0, 0.1]], dtype=F64)
    f, x0 = lambda t, x: torch.sin(x), torch.linspace(-1, 1, 8, dtype=F64).view(2, 4)
    options = {"t": (0, 2), "rtol": 1e-8, "save_at": [0.7, 2.0]}
    both = ls.solve(ls.ODE(f, L=z), x0, **options)
    for i in range(2):
        alone = ls.solve(ls.ODE(f, L=z[i]), x0[i : i + 1], **options)
        assert torch.allclose(alone.x[:, 0], both.x[:, i], rtol=1e-12, atol=1e-14)
    Q = torch.linalg.qr(torch.randn(4, 4, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    turned = ls.ODE(lambda t, y: f(t, y @ Q) @ Q.T, L=ls.Matrix(Q @ torch.diag(z[0]) @ Q.T))
    plain = ls.solve(ls.ODE(f, L=z[0]), x0, **options)
    for shared in (True, False):
        dense = ls.solve(turned, x0 @ Q.T, shared_step=shared, **options)
        assert torch.allclose(dense.x @ Q, plain.x, rtol=0, atol=1e-7)


def test_gradients_through_an_adaptive_run() -> None:
    ode, start = equation("KS")

    def end(x: Tensor, **options) -> Tensor:
        return ls.solve(ode, x, t=(0, 0.5), rtol=1e-9, **options).x[-1].square().sum()

    x = start.clone().requires_grad_()
    (found,) = torch.autograd.grad(end(x), x)
    (again,) = torch.autograd.grad(end(x, grad="checkpoint"), x)
    along = torch.cos(torch.arange(x.numel(), dtype=F64)).view_as(x)
    with torch.no_grad():
        difference = (end(x + 1e-4 * along) - end(x - 1e-4 * along)) / 2e-4
    assert math.isclose(float((found * along).sum()), float(difference), rel_tol=1e-6)
    assert torch.allclose(found, again, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("grad", [True, "checkpoint"])
def test_an_adaptive_run_is_differentiated_by_what_l_is_made_of(grad: bool | str, dense: bool) -> None:
    """F does not know of it."""

    def end(rate: Tensor, **options) -> Tensor:
        symbol = -rate * torch.arange(1.0, 4.0, dtype=F64)
        ode = ls.ODE(lambda t, x: -(x**2), L=ls.Matrix(torch.diag(symbol)) if dense else symbol)
        return ls.solve(ode, torch.ones(2, 3, dtype=F64), t=(0, 1), rtol=1e-9, **options).x.sum()

    rate = torch.tensor(2.0, dtype=F64, requires_grad=True)
    (found,) = torch.autograd.grad(end(rate, grad=grad), rate)
    with torch.no_grad():
        difference = (end(rate + 1e-4) - end(rate - 1e-4)) / 2e-4
    assert math.isclose(float(found), float(difference), rel_tol=1e-6)


# What errors are weighed by


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("n", [(16,), (9,), (8, 10), (7, 9, 6)])
def test_the_norm_of_coefficients_is_that_of_the_field(n: tuple[int, ...], real: bool) -> None:
    space = Fourier(3.0, n, real=real)
    made = torch.Generator().manual_seed(1)
    u = torch.randn(2, 3, *n, dtype=F64 if real else torch.complex128, generator=made)
    u = space.leave(space.enter(u))  # of the modes that are kept
    assert torch.allclose(space.norm(space.enter(u)), u.abs().square().mean((*range(1, u.ndim),)).sqrt())


@pytest.mark.parametrize("walls", ["neumann", "dirichlet", ("periodic", "neumann")])
def test_the_norm_between_walls_too(walls: str | tuple[str, str]) -> None:
    space = Box(3.0, (8, 11), walls)
    u = torch.randn(2, 8, 11, dtype=F64, generator=torch.Generator().manual_seed(2))
    u = space.leave(space.enter(u))
    assert torch.allclose(space.norm(space.enter(u)), u.square().mean((1, 2)).sqrt())


@pytest.mark.parametrize("method", ["krogstad43", "rodas5p", "bdf"])
def test_modes_that_say_nothing_cost_nothing(method: str) -> None:
    """A field that 20 modes resolve is weighed as a whole: with 40 the steps are those of 20."""
    accepted = []
    for n in (64, 128):
        space = Fourier(2 * math.pi, n)
        ode = ls.ODE(burgers(space), L=-0.2 * space.k2, space=space)
        run = ls.solve(ode, torch.sin(space.x[0])[None], t=(0, 0.5), method=method, rtol=1e-5, atol=0.0)
        accepted.append(int(run.stats.accepted))
    assert abs(accepted[1] - accepted[0]) <= 1


# Exponential Rosenbrock methods on coefficients of real fields


@pytest.mark.parametrize("linear", [None, "krylov"])
@pytest.mark.parametrize(("method", "order"), [("exprb32", 3), ("pexprb43", 4)])
def test_exponential_rosenbrock_on_coefficients(method: str, order: int, linear: str | None) -> None:
    exact = solution("KS")
    ends = [
        off(space.leave(trial.x1), exact)
        for trial, _, space in (stepped(method, "KS", 1 / n, n, linear) for n in (4, 8))
    ]
    assert abs(slope(ends) - order) < 0.3


@pytest.mark.parametrize("linear", [None, "krylov"])
def test_a_derivative_that_mixes_a_number_with_its_conjugate_is_seen_whole(linear: str | None) -> None:
    """z' = a z + b conj(z) is linear in two real numbers and not in one complex: it is solved exactly."""
    a, b = -0.3 + 2.0j, 1.5 - 0.4j
    z0 = torch.tensor([[1.0 + 0.5j, -0.2 + 1.0j, 0.4 - 0.1j]], dtype=torch.complex128)
    run = ls.solve(
        ls.ODE(lambda t, z: a * z + b * z.conj()), z0, t=(0, 1), method="exprb32", rtol=1e-9, linear=linear
    )
    A = torch.tensor(
        [[a.real + b.real, b.imag - a.imag], [a.imag + b.imag, a.real - b.real]], dtype=F64
    )  # of the real and the imaginary part
    exact = torch.view_as_real(z0) @ torch.linalg.matrix_exp(A).T
    assert torch.allclose(torch.view_as_real(run.x[-1]), exact, rtol=0, atol=1e-8)
    assert int(run.stats.accepted) < 10
