"""Fourier series: round trips, derivatives, products and aliasing; steps bound to buffers."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.core import Stage, Step, Weight, advance
from longstride.equal_steps import bound as bound_module
from longstride.equal_steps.bound import Bound, fits
from longstride.equal_steps.pace import Pace
from longstride.equal_steps.stretches import Stretches
from longstride.methods import REGISTRY, get
from longstride.spectral import Box, Fourier, Pointwise
from longstride.spectral.threads import best

F64 = torch.float64
BOXES = [
    (2.0, 16),
    (2.0, 15),
    ((2.0, 3.0), (12, 10)),
    ((2.0, 3.0), (9, 14)),
    ((1.0, 2.0, 4.0), (6, 7, 8)),
    ((1.0, 2.0, 4.0), (7, 6, 5)),
]


def drawn(space: Fourier, *lead: int) -> Tensor:
    """A field of kept modes."""
    torch.manual_seed(0)
    kind = F64 if space.real else torch.complex128
    return space.leave(space.enter(torch.randn(*lead, *space.n, dtype=kind)))


def wave(space: Fourier, modes: tuple[int, ...]) -> Tensor:
    """The phase 2 pi m.x/length at each point."""
    turns = [2 * math.pi * m / a * x for m, a, x in zip(modes, space.length, space.x, strict=True)]
    return sum(turns[1:], turns[0])


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("dealias", [2 / 3, 1 / 2, 1.0, "smooth"])
@pytest.mark.parametrize(("length", "n"), BOXES)
def test_a_field_of_kept_modes_comes_back(length, n, dealias, real) -> None:
    space = Fourier(length, n, dealias=dealias, real=real)
    u = drawn(space, 2, 3)
    assert torch.allclose(space.leave(space.enter(u)), u, atol=1e-14)
    c = space.enter(u)
    assert c.shape == (2, 3, *space.shape)
    alone = space.enter(u[1, 2])
    assert torch.allclose(alone, c[1, 2], atol=1e-15)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize(("length", "n"), BOXES)
def test_parseval(length, n, real) -> None:
    """The mean of |u|^2 is the sum of |c|^2, of a real field with those that are not kept, conjugates."""
    space = Fourier(length, n, real=real)
    u = drawn(space)
    power = space.enter(u).abs() ** 2
    if real:
        power = power * torch.where(space.modes[-1] > 0, 2, 1)
    assert torch.allclose(power.sum(), (u.abs() ** 2).mean(), rtol=1e-13)


@pytest.mark.parametrize(("length", "n"), BOXES)
def test_derivatives_of_trigonometric_polynomials_are_exact(length, n) -> None:
    space = Fourier(length, n)
    modes = tuple(range(1, space.dim + 1))
    modes = tuple(min(m, top) for m, top in zip(modes, space.highest, strict=True))
    phase = wave(space, modes)
    for axis in range(space.dim):
        k = 2 * math.pi * modes[axis] / space.length[axis]
        for order, exact in (
            (1, -k * torch.sin(phase)),
            (2, -k * k * torch.cos(phase)),
            (3, k**3 * torch.sin(phase)),
        ):
            found = space.leave(space.d(axis, order) * space.enter(torch.cos(phase)))
            assert torch.allclose(found, exact, atol=1e-12 * k**order)
    laplacian = space.leave(-space.k2 * space.enter(torch.cos(phase)))
    k2 = sum((2 * math.pi * m / a) ** 2 for m, a in zip(modes, space.length, strict=True))
    assert torch.allclose(laplacian, -k2 * torch.cos(phase), atol=1e-12 * k2)


def product(space: Fourier, power: int) -> tuple[Tensor, Tensor]:
    """Kept coefficients of u^power on the space's points, and on points enough for all its modes."""
    u = drawn(space)
    fine = Fourier(space.length, [4 * m for m in space.n], dealias=1.0)
    c = torch.zeros(fine.shape, dtype=torch.complex128)
    at = tuple(m.long() % n for m, n in zip(space.modes, [2 * top + 1 for top in fine.highest], strict=True))
    c[at] = space.enter(u)
    return space.enter(u**power), fine.enter(fine.leave(c) ** power)[at]


@pytest.mark.parametrize(("length", "n"), BOXES[:4])
@pytest.mark.parametrize(("power", "dealias"), [(2, 2 / 3), (3, 1 / 2)])
def test_products_are_exact_where_modes_are_cut_and_aliased_where_not(length, n, power, dealias) -> None:
    """m, m' < n/3 add up to less than 2n/3, which is seen as more than n/3; likewise three of n/4."""
    found, exact = product(Fourier(length, n, dealias=dealias), power)
    assert torch.allclose(found, exact, atol=1e-13)
    found, exact = product(Fourier(length, n, dealias=1.0), power)
    assert (found - exact).abs().max() > 1e-2


def test_the_smooth_filter_leaves_low_modes_and_stops_high_ones() -> None:
    space = Fourier(1.0, 64, dealias="smooth")
    m = space.modes[0]
    assert torch.all(space.filter[m <= 16] > 1 - 1e-9)
    assert math.isclose(space.filter[-1], math.exp(-36 * (31 / 32) ** 36))
    square = Pointwise(space, lambda u: u * u)
    c = space.enter(drawn(space))
    plain = space.enter(space.leave(c) ** 2)
    assert torch.allclose(square(torch.zeros(()), c), space.filter * plain, atol=1e-15)


@pytest.mark.parametrize(("length", "n"), BOXES[1:5])
def test_gradients_through_enter_and_leave(length, n) -> None:
    space = Fourier(length, n)
    u = drawn(space, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: space.leave(space.d(0, 2) * space.enter(u)).sum(0), u)


def burgers(length=1.0, n=32, **how) -> ls.ODE:
    space = Fourier(length, n, **how)
    return ls.ODE(
        Pointwise(space, lambda u: u * u, writes=(-space.d() / 2,)), L=-0.05 * space.k2, space=space
    )


def vorticity(length=(2.0, 3.0), n=(12, 15), **how) -> ls.ODE:
    space = Fourier(length, n, **how)
    inverse = torch.where(space.k2 > 0, 1 / space.k2, 0)
    f = Pointwise(
        space,
        lambda u, v: (u * v, u * u - v * v),
        reads=(space.d(1) * inverse, -space.d(0) * inverse),
        writes=(space.k[0] ** 2 - space.k[1] ** 2, -space.k[0] * space.k[1]),
        source=0.1 * (space.k2 == space.k2[1, 0]),
    )
    return ls.ODE(f, L=-0.01 * space.k2, space=space)


def mixed(length=(1.0, 2.0, 3.0), n=(6, 8, 7)) -> ls.ODE:
    """Two fields of which one symbol maps one alone, read plain and by a function, written by one."""
    space = Fourier(length, n, dealias=1 / 2)
    signs = torch.tensor([-1.0, 1.0], dtype=F64).view(2, 1, 1, 1)
    f = Pointwise(
        space,
        lambda c, first: (c[..., 1:, :, :, :] * first**2, c * c),
        reads=(None, lambda c: c[..., :1, :, :, :]),
        writes=(signs, lambda c: 0.1 * c.flip(-4)),
    )
    return ls.ODE(f, L=torch.stack([-0.1 * space.k2, -0.2 * space.k2 - 1]), space=space)


def walled() -> ls.ODE:
    """Two fields between walls, one product for both, and what is linear beside it."""
    space = Box((2.0, 3.0), (12, 9), ("neumann", "periodic"), dealias=1 / 2)
    two = torch.tensor([-1.0, 1.0], dtype=F64).view(2, 1, 1)
    f = Pointwise(
        space,
        lambda c: c[..., :1, :, :] * c[..., 1:, :, :] ** 2,
        writes=(two,),
        linear=0.3 * two,
        source=torch.stack([space.enter(torch.ones(space.n, dtype=F64)), 0j * space.k2]),
    )
    return ls.ODE(f, L=torch.stack([-0.1 * space.k2, -0.2 * space.k2 - 1]), space=space)


def swapped(n=(12, 15)) -> ls.ODE:
    """Each of two fields drives the other."""
    space = Fourier((2.0, 3.0), n, dealias=1 / 2)
    f = Pointwise(space, lambda c: -(c**3), linear=lambda c: c.flip(-3))
    return ls.ODE(f, L=-0.1 * space.k2, space=space)


def schroedinger(length=2.0, n=24) -> ls.ODE:
    space = Fourier(length, n, real=False, dealias=1 / 2)
    return ls.ODE(Pointwise(space, lambda u: 1j * u * u.abs() ** 2), L=-0.5j * space.k2, space=space)


PROBLEMS: list[tuple[Callable[[], ls.ODE], tuple[int, ...]]] = [
    (burgers, (3,)),
    (lambda: burgers(n=33, dealias="smooth"), (2,)),
    (lambda: burgers(n=4096), (1,)),
    (vorticity, (2,)),
    (lambda: vorticity(dealias="smooth"), (1,)),
    (mixed, (2, 2)),
    (walled, (2, 2)),
    (swapped, (1, 2)),
    (lambda: ls.systems.gray_scott(n=12), (2, 2)),
    (lambda: ls.systems.swift_hohenberg(n=12, walls="dirichlet"), (3,)),
    (schroedinger, (2,)),
    (lambda: schroedinger((1.0, 2.0, 3.0), (8, 6, 7)), (1,)),
]
NAMES = [n for n in sorted(REGISTRY) if get(n).exponential and not get(n).diffusion]
METHODS = [n for n in NAMES if get(n).kind != "reversible" and not n.startswith(("deis", "dpm"))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("make", "lead"), PROBLEMS)
def test_a_bound_step_is_the_step_of_the_core(make, lead, method) -> None:
    """To round-off, from the start or with a history."""
    problem = make()
    x = problem.space.enter(drawn(problem.space, *lead))
    equal, times = Pace(problem.entered(), get(method), x), Stretches.repeated(0.0, 0.01, 40)
    steady = equal.step(times, 20)
    (field,) = problem.fields(True)
    xs, fs = [x], []
    for n in range(equal.depth):
        xs, fs = advance([field], equal.step(times, n), xs, fs)
    bound = Bound(steady, problem.f.bind, xs, fs)
    found, evaluations = bound.go(xs, fs, 5)
    begun = [v.clone() for v in (*found, *evaluations)]
    for _ in range(5):
        xs, fs = advance([field], steady, xs, fs)
    for one, other in zip((*found, *evaluations), (*xs, *fs), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13 * float(other.abs().max()))
    bound.go(xs, fs, 2)
    assert all(torch.equal(a, b) for a, b in zip(begun, (*found, *evaluations), strict=True))  # the caller's


def random_step(chance: random.Random, like: Tensor) -> tuple[Step, int, int]:
    """Rows of ones, numbers and tensors that come again, and what is kept; how much it begins with."""
    shape, real = like.shape[1:], like.dtype.to_real()
    made = torch.Generator().manual_seed(chance.randrange(10**6))
    shared = [(torch.rand(shape, dtype=F64, generator=made) / 2).to(real) for _ in range(2)]
    if like.is_complex():
        shared.append(torch.complex(*shared))

    def weight() -> Weight:
        return chance.choice([0.0, 0.0, 1.0, chance.uniform(-0.5, 0.5), chance.choice(shared)])

    xs, fs = chance.choice([1, 1, 2]), chance.choice([0, 0, 1, 2])
    known, stages = [xs, fs], list[Stage]()
    for last in [False] * chance.randint(1, 4) + [True]:
        x, f = ([weight() for _ in range(n)] for n in known)
        x[chance.randrange(known[0])] = chance.choice([1.0, *shared])
        at = None if last and chance.random() < 0.6 else 0.1
        stages.append(Stage(tuple(x), tuple(f), at=at))
        known = [known[0] + 1, known[1] + (at is not None)]
    kept = (
        tuple(i - n for i in sorted(chance.sample(range(n), k))) for n, k in zip(known, (xs, fs), strict=True)
    )
    return Step(tuple(stages), *kept), xs, fs


@pytest.mark.parametrize("precision", [F64, torch.float32, "mixed"])
@pytest.mark.parametrize(("make", "lead"), PROBLEMS[:2] + PROBLEMS[3:])  # slopes of 4096 points overflow
def test_no_value_is_written_over_before_its_last_use(make, lead, precision) -> None:
    """Rows at random, whose values live as long as chance has it, twice."""
    problem = ls.mixed(make()) if precision == "mixed" else make()
    u, chance = 0.02 * drawn(problem.space, *lead), random.Random(str(lead))
    if precision == torch.float32:
        u = u.to(torch.complex64 if u.is_complex() else torch.float32)
    x, t = problem.space.enter(u), torch.zeros((), dtype=F64)
    for _ in range(12):
        step, *counts = random_step(chance, x)
        xs, fs = ([v / (i + 1) for i in range(n)] for v, n in zip((x, problem.f(t, x)), counts, strict=True))
        if not fits(step):
            continue
        found = Bound(step, problem.f.bind, xs, fs).go(xs, fs, 2)
        for _ in range(2):
            xs, fs = advance([lambda at, c: problem.f(t, c)], step, xs, fs)
        for one, other in zip((*found[0], *found[1]), (*xs, *fs), strict=True):
            size = max(float(v.abs().max()) for v in (*xs, *fs, x))
            assert torch.allclose(one, other, rtol=0, atol=(1e-11 if precision == F64 else 1e-4) * size)


def test_a_field_of_more_digits_than_the_state_is_refused_bound_and_unbound() -> None:
    space = Fourier(1.0, 16)
    wide = Pointwise(space, lambda u: u * space.x[0], writes=(space.d(),))
    problem = ls.ODE(wide, L=-space.k2, space=space)
    for grad in (True, False):
        with pytest.raises(
            ls.SolveError, match=r"etdrk4, step 1 of 10.* returned torch\.(float64|complex128)"
        ):
            ls.solve(problem, drawn(space, 1).float(), t=(0, 1), steps=10, method="etdrk4", grad=grad)


def parametrized(*of: str) -> ls.ODE:
    """Burgers' equation of five samples, each with a number of its own in L, in g, or in neither."""
    problem, own = burgers(), torch.linspace(0.5, 1.5, 5, dtype=F64)[:, None]
    strength = own if "g" in of else 1.0
    f = Pointwise(problem.space, lambda u: strength * u * u, writes=problem.f.writes)
    return ls.ODE(f, L=own * problem.L if "L" in of else problem.L, space=problem.space)


@pytest.mark.parametrize(("of", "size"), [((), 2), (("L",), 5), (("g",), 5)])
@pytest.mark.parametrize("method", ["etdrk4", "exp_adams_2"])
def test_samples_that_the_cache_does_not_hold_take_their_steps_in_groups(
    monkeypatch, method, of, size
) -> None:
    """Unless one has a number of its own: five by two, where the last group has one of the one before."""
    problem = parametrized(*of)
    u0 = drawn(problem.space, 5)
    how = {"t": (0.0, 0.4), "method": method, "dt": 0.01, "grad": False}
    whole = ls.solve(problem, u0, **how).x
    x = problem.space.enter(u0)
    monkeypatch.setattr(bound_module, "CACHE", 2 * x[0].nbytes)
    assert torch.allclose(ls.solve(problem, u0, **how).x, whole, rtol=1e-13, atol=1e-14)
    step = Pace(problem.entered(), get("etdrk4"), x).step(Stretches.repeated(0.0, 0.01, 40), 20)
    assert Bound(step, problem.f.bind, [x], []).size == size


def test_a_bound_step_takes_matrices_and_numbers_as_weights() -> None:
    problem = burgers(n=12)
    x = problem.space.enter(drawn(problem.space, 2))
    matrix = ls.Matrix(torch.diag(problem.L).to(torch.complex128))
    (field,) = problem.fields(True)
    for L in (matrix, -0.3):
        other = ls.ODE(problem.f, L=L)
        step = Pace(other, get("etdrk4"), x).step(Stretches.repeated(0.0, 0.01, 4), 0)
        (found,), _ = Bound(step, problem.f.bind, [x], []).go([x], [], 1)
        (core,), _ = advance([field], step, [x], [])
        assert torch.allclose(found, core, rtol=1e-12, atol=1e-14)


def test_what_a_step_keeps_must_be_in_order() -> None:
    step = get("etdrk4").step([0.0, 0.1, 0.2], 0, burgers().operator(True))
    assert fits(step)
    assert not fits(Step(step.stages, keep_x=(1, 0)))
    assert not fits(Step(step.stages, brownian=(0.1, 0.2)))


def test_a_rollout_binds_when_no_gradient_is_asked_for() -> None:
    """The numbers are the same; a parameter of f alone is reason enough not to."""
    problem = burgers()
    u0 = drawn(problem.space, 1)
    how = {"t": (0.0, 0.4), "method": "etdrk4", "dt": 0.01}
    by_core = ls.solve(problem, u0, **how, callback=lambda n, t, x: None).x
    assert torch.allclose(ls.solve(problem, u0, **how).x, by_core, rtol=1e-13, atol=1e-14)
    strength = torch.tensor(1.0, dtype=F64, requires_grad=True)
    space = problem.space
    stronger = ls.ODE(
        Pointwise(space, lambda u: strength * u * u, writes=(-space.d() / 2,)), L=problem.L, space=space
    )
    (slope,) = torch.autograd.grad(ls.solve(stronger, u0, **how).x.square().sum(), strength)

    def end(s: float) -> float:
        f = Pointwise(space, lambda u: s * u * u, writes=(-space.d() / 2,))
        return float(ls.solve(ls.ODE(f, L=problem.L, space=space), u0, **how).x.square().sum())

    assert math.isclose(slope, (end(1 + 1e-5) - end(1 - 1e-5)) / 2e-5, rel_tol=1e-7)


def test_saved_states_are_not_written_over() -> None:
    problem = burgers()
    u0 = drawn(problem.space, 1)
    step = ls.stepper(problem, "etdrk4", dt=0.01)
    first = step.repeat(u0, 20)
    copy = first.clone()
    step.repeat(first, 20)
    assert torch.equal(first, copy)


def test_threads_may_share_a_stepper() -> None:
    """Buffers are of one thread each."""
    problem = burgers()
    step, starts = ls.stepper(problem, "etdrk4", dt=0.01), drawn(problem.space, 3, 2)
    with torch.no_grad(), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda u: step.repeat(u, 600, grad=False), starts))
        for u, end in zip(starts, found, strict=True):
            assert torch.equal(end, step.repeat(u, 600, grad=False))


def test_threads_that_do_not_pay_are_left_out() -> None:
    """A clock that each transform moves by as much as its number of threads costs on a busy machine."""
    now = [0.0]

    def machine(costs: dict[int, float]) -> tuple[Callable[[], None], Callable[[], float]]:
        def transform() -> None:
            now[0] += costs[torch.get_num_threads()]

        return transform, lambda: now[0]

    before = torch.get_num_threads()
    with pytest.warns(UserWarning, match="100 times"):
        assert best(*(lambda f, clock: (f, 2, clock))(*machine({2: 100.0, 1: 1.0}))) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best(*(lambda f, clock: (f, 2, clock))(*machine({2: 0.6, 1: 1.0}))) == 2
        assert best(*(lambda f, clock: (f, 2, clock))(*machine({2: 1.1, 1: 1.0}))) == 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"length": -1.0}, "length"),
        ({"length": math.nan}, "length"),
        ({"length": (1.0, 2.0)}, "2 lengths and 1"),
        ({"n": 3}, "n = 3"),
        ({"n": 16.5}, "whole number"),
        ({"n": ()}, "one for each axis"),
        ({"dealias": 0.0}, "share of modes"),
        ({"dealias": 1.5}, "share of modes"),
        ({"dealias": "sharp"}, "smooth"),
    ],
)
def test_a_space_that_cannot_be_is_refused(how, said) -> None:
    with pytest.raises(ls.ArgumentError, match=said):
        Fourier(**{"length": 1.0, "n": 16, **how})


def test_a_field_that_does_not_fit_is_refused() -> None:
    space = Fourier(1.0, 16)
    with pytest.raises(ls.ArgumentError, match="must end in"):
        space.enter(torch.zeros(2, 15))
    with pytest.raises(ls.ArgumentError, match="real=False"):
        space.enter(torch.zeros(2, 16, dtype=torch.complex128))
