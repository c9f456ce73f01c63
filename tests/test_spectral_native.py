"""Steps on a periodic axis as one function in C: what the other ways of taking them give."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.core import advance
from longstride.equal_steps import rollout
from longstride.equal_steps.bound import fits
from longstride.equal_steps.pace import Pace
from longstride.equal_steps.stretches import Stretches
from longstride.methods import get
from longstride.native import library
from longstride.spectral import Fourier, Pointwise, dfti, native
from test_fourier import burgers, drawn, parametrized, random_step, schroedinger, swapped

F64 = torch.float64
here = pytest.mark.skipif(
    library.compiler() is None or dfti.functions() is None, reason="needs a C++ compiler and MKL"
)


def several(n: int = 15) -> ls.ODE:
    """Two fields read twice, three made of them and written by symbols of all kinds, and more beside."""
    space = Fourier(3.0, n, dealias="smooth")
    signs = torch.tensor([[-1.0], [0.5]], dtype=F64)

    def g(u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        first, second = u.unbind(-2)
        return (
            (first * second)[..., None, :],
            torch.stack([v[..., 0, :] ** 3, first.clone().mul_(0.1).cos()], -2),
            u * u,
        )

    f = Pointwise(
        space,
        g,
        reads=(None, space.d() + 0.2),
        writes=(signs, 0.01 * space.d(), None),
        linear=0.3 * signs,
        source=torch.stack([space.enter(torch.ones(space.n, dtype=F64)), 0j * space.k2]),
    )
    return ls.ODE(f, L=torch.stack([-0.1 * space.k2 + 0j, 0.2 * space.d(order=3) - 1]), space=space)


def pulses() -> ls.ODE:
    return ls.systems.dispersive_kuramoto_sivashinsky(n=24)


KINDS = [
    ("etdrk4", burgers, (), F64),  # real L, imaginary symbol
    ("ifrk4", lambda: ls.systems.korteweg_de_vries(n=24), (), F64),  # imaginary L
    ("krogstad", pulses, (), torch.float32),  # complex L
    ("exp_adams_2", several, (2,), F64),  # with a history
]


def close(found: Tensor, other: Tensor, tolerance: float) -> bool:
    return torch.allclose(found, other, rtol=0, atol=tolerance * float(other.abs().max()))


@here
@pytest.mark.parametrize(("method", "make", "fields", "dtype"), KINDS)
def test_a_native_step_is_the_step_of_the_core(method, make, fields, dtype) -> None:
    """To round-off, for one sample and for three on two threads; what is given is left alone."""
    problem, eps = make(), torch.finfo(dtype).eps
    x = problem.space.enter(drawn(problem.space, 3, *fields).to(dtype))
    pace, times = Pace(problem.entered(), get(method), x), Stretches.repeated(0.0, 1e-3, 40)
    steady = pace.step(times, 20)
    (field,) = problem.fields(True)
    xs, fs = [x], list[Tensor]()
    for n in range(pace.depth):
        xs, fs = advance([field], pace.step(times, n), xs, fs)
    steps, before = problem.f.native(steady, xs, fs), [v.clone() for v in (*xs, *fs)]
    assert steps is not None
    torch.set_num_threads(2)
    try:
        found = steps.go(xs, fs, 5)
    finally:
        torch.set_num_threads(1)
    alone = steps.go([v[1:2] for v in xs], [v[1:2] for v in fs], 5)
    assert all(torch.equal(a, b) for a, b in zip(before, (*xs, *fs), strict=True))
    for _ in range(5):
        xs, fs = advance([field], steady, xs, fs)
    for one, sample, other in zip((*found[0], *found[1]), (*alone[0], *alone[1]), (*xs, *fs), strict=True):
        assert close(one, other, 50 * eps)
        assert torch.equal(one[1:2], sample)


@here
def test_no_value_is_written_over_before_its_last_use() -> None:
    """Rows at random, whose values live as long as chance has it, twice."""
    problem, chance = several(12), random.Random(3)
    x, t = problem.space.enter(0.02 * drawn(problem.space, 2, 2)), torch.zeros((), dtype=F64)
    for _ in range(3):
        step, *counts = random_step(chance, x)
        xs, fs = ([v / (i + 1) for i in range(n)] for v, n in zip((x, problem.f(t, x)), counts, strict=True))
        if not fits(step):
            continue
        found = problem.f.native(step, xs, fs).go(xs, fs, 2)
        for _ in range(2):
            xs, fs = advance([lambda at, c: problem.f(t, c)], step, xs, fs)
        size = max(float(v.abs().max()) for v in (*xs, *fs, x))
        for one, other in zip((*found[0], *found[1]), (*xs, *fs), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-11 * size)


def uneven() -> ls.ODE:
    space = Fourier(1.0, 16)
    return ls.ODE(Pointwise(space, lambda u: u * torch.cos(space.x[0])), L=-0.1 * space.k2, space=space)


def shifted() -> ls.ODE:
    space = Fourier(1.0, 16)
    return ls.ODE(Pointwise(space, lambda u: u * torch.roll(u, 1, -1)), L=-0.1 * space.k2, space=space)


OTHERS = [
    (schroedinger, (2,)),  # complex fields
    (uneven, (2,)),  # numbers of each point
    (shifted, (2,)),  # a point that hangs on others
    (lambda: parametrized("L"), (5,)),  # and samples with numbers of their own
    (lambda: parametrized("g"), (5,)),
    (lambda: swapped((12, 15)), (1, 2)),  # two axes
]


@pytest.mark.parametrize(("make", "lead"), OTHERS)
def test_what_is_no_loop_along_an_axis_is_bound_as_without_compile(make, lead) -> None:
    problem = make()
    u0, how = drawn(problem.space, *lead), {"t": (0.0, 0.2), "method": "etdrk4", "dt": 0.01}
    plain, compiled = (ls.solve(problem, u0, **how, compile=c, grad=False).x for c in (False, True))
    assert torch.equal(plain, compiled)


@here
def test_compile_takes_native_steps_where_nothing_is_differentiated(monkeypatch) -> None:
    """A run and a stepper, the first step of which shows whether anything is."""
    problem, made = burgers(), list[native.Native]()
    build = native.Native.__init__
    monkeypatch.setattr(native.Native, "__init__", lambda self, *a: (build(self, *a), made.append(self))[0])
    monkeypatch.setattr(rollout.torch, "compile", lambda take: take)
    u0, how = drawn(problem.space, 2), {"t": (0.0, 0.4), "method": "etdrk4", "dt": 0.01}
    plain = ls.solve(problem, u0, **how).x
    for grad in (True, False):
        assert close(ls.solve(problem, u0, **how, compile=True, grad=grad).x, plain, 1e-13)
    step = ls.stepper(problem, "etdrk4", dt=0.01, compile=True)
    assert close(step.repeat(step.repeat(u0, 20), 20), plain[-1], 1e-13)
    assert len(made) == 3
    inner = u0.clone().requires_grad_()
    (slope,) = torch.autograd.grad(step.repeat(inner, 20).square().sum(), inner)
    (expected,) = torch.autograd.grad(
        ls.stepper(problem, "etdrk4", dt=0.01).repeat(inner, 20).square().sum(), inner
    )
    assert close(slope, expected, 1e-12)
    assert len(made) == 3


@here
def test_numbers_that_change_between_runs_are_seen() -> None:
    """g has a parameter that an optimizer writes to in place."""
    space, strength = Fourier(1.0, 16), torch.nn.Parameter(torch.tensor(1.0, dtype=F64))
    problem = ls.ODE(
        Pointwise(space, lambda u: strength * u * u, writes=(space.d(),)), L=-space.k2, space=space
    )
    step, plain = (ls.stepper(problem, "etdrk4", dt=0.01, compile=c) for c in (True, False))
    u = 0.1 * drawn(space, 1)
    for _ in range(2):
        assert close(step.repeat(u, 10, grad=False), plain.repeat(u, 10, grad=False), 1e-13)
        with torch.no_grad():
            strength.add_(1.0)


def test_without_a_compiler_steps_are_bound_as_they_are_without_compile(monkeypatch) -> None:
    problem = burgers()
    u0, how = drawn(problem.space, 2), {"t": (0.0, 0.4), "method": "etdrk4", "dt": 0.01, "grad": False}
    monkeypatch.setattr(native, "compiler", lambda: None)
    plain, compiled = (ls.solve(problem, u0, **how, compile=c).x for c in (False, True))
    assert torch.equal(plain, compiled)
