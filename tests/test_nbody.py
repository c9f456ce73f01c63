"""Bodies that attract each other: forces, Kepler's problem, methods made for them, what is kept."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods.extrapolation import gragg
from longstride.methods.runge_kutta import runge_kutta
from longstride.methods.second_order import RADAU
from longstride.metrics.order import measured_order, ode_trial
from longstride.nbody import KM_S, YEAR, Gravity, gravity, kepler_step, plummer_sphere, three_stars_at

F64 = torch.float64
CHOOSING = ("hermite", "gauss_radau_15", "bulirsch_stoer")


def some(n: int = 5, d: int = 3, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """masses [n], q and v [batch, n, d]."""
    g = torch.Generator().manual_seed(seed)
    q, v = (torch.randn(batch, n, d, generator=g, dtype=F64) for _ in range(2))
    return torch.rand(n, generator=g, dtype=F64) + 0.1, q, v


def ellipse(e: float, batch: int = 1) -> tuple[Gravity, Tensor]:
    """Two bodies of mass 1/2 on an orbit of axis 1 and period 2 pi, in the pericentre; the batch turned."""
    angle = torch.arange(batch, dtype=F64) * 0.9
    apart = (1 - e) * torch.stack([angle.cos(), angle.sin()], 1)
    speed = math.sqrt((1 + e) / (1 - e)) * torch.stack([-angle.sin(), angle.cos()], 1)
    half = torch.tensor([-0.5, 0.5], dtype=F64)[:, None]
    bodies = Gravity(torch.full((2,), 0.5, dtype=F64))
    return bodies, bodies.start(half * apart[:, None], half * speed[:, None])


def after(x: Tensor, t: float) -> Tensor:
    """The exact state of two bodies of mass 1/2 each."""
    q, v = (x[:, k, 1] - x[:, k, 0] for k in (0, 1))
    moved = kepler_step(q, v, t, 1.0)
    half = torch.tensor([-0.5, 0.5], dtype=F64)[:, None]
    return torch.stack([half * part[:, None] for part in moved], 1)


def solved(bodies: Gravity, x0: Tensor, end: float, method: str, **how: object) -> ls.Solution:
    found = ls.solve(bodies.problem(), x0, t=(0.0, end), method=method, **how)
    assert set(found.status) == {"reached"}, found.message
    return found


@pytest.mark.parametrize("softening", [0.0, 0.3])
def test_forces_are_the_slope_of_the_potential(softening: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a few bodies at a time, and with masses of each sample's own."""
    m, q, _ = some()
    bodies = Gravity(m, G=1.7, softening=softening)
    q.requires_grad_()
    (slope,) = torch.autograd.grad(bodies.potential(q).sum(), q)
    a = bodies.acceleration(q)
    assert torch.allclose(m[:, None] * a, -slope, rtol=1e-12)
    assert torch.allclose((m[:, None] * a).sum(-2), torch.zeros(2, 3, dtype=F64), atol=1e-12)
    own = Gravity(torch.stack([m, 2 * m]), G=1.7, softening=softening)
    assert torch.allclose(own.acceleration(q)[1], 2 * a[1], rtol=1e-13)
    assert torch.allclose(own.centre(q)[0], bodies.centre(q)[0])
    monkeypatch.setattr(gravity, "PAIRS", 21)  # two rows of five at a time
    assert torch.equal(bodies.acceleration(q), a)
    assert torch.allclose(bodies.potential(q), Gravity(m, 1.7, softening).potential(q))
    (again,) = torch.autograd.grad(bodies.potential(q).sum(), q)
    assert torch.allclose(again, slope, rtol=1e-12)


def test_jerks_are_how_forces_change_along_the_motion() -> None:
    m, q, v = some(d=2)
    bodies = Gravity(m, softening=0.1)
    a, jerk = bodies.jerk(q, v)
    plain, slope = torch.autograd.functional.jvp(bodies.acceleration, q, v)
    assert torch.allclose(a, plain, rtol=1e-13)
    assert torch.allclose(jerk, slope, rtol=1e-12)


def test_hermite_differentiates_what_gives_no_jerk() -> None:
    """The same steps, whether the jerk is given or made; also of a force that depends on time."""
    bodies, x0 = ellipse(0.3)
    known = solved(bodies, x0, 1.0, "hermite", rtol=1e-7)
    plain = ls.ODE(bodies.rate, acceleration=lambda t, x: bodies.acceleration(x[:, 0])[:, None])
    made = ls.solve(plain, x0, t=(0.0, 1.0), method="hermite", rtol=1e-7)
    assert torch.allclose(made.x_end, known.x_end, rtol=1e-12)
    pushed = ls.Newton(lambda t, x: torch.cos(3 * t)[:, None] - x)
    one = torch.ones(1, 1, dtype=F64)
    x, _ = ls.solve(pushed, (0 * one, 0 * one), t=(0.0, 2.0), method="hermite", rtol=1e-8, atol=1e-10).x_end
    assert abs(float(x) - (math.cos(2.0) - math.cos(6.0)) / 8) < 1e-7


def test_the_collision_time_is_the_least_of_all_pairs() -> None:
    m, q, v = some(4)
    bodies, least = Gravity(m), math.inf
    for i in range(4):
        for j in range(i):
            r, w = (q[0, i] - q[0, j]).norm(), (v[0, i] - v[0, j]).norm()
            least = min(least, float(r / w), float((r**3 / (m[i] + m[j])).sqrt()))
    assert math.isclose(float(bodies.collision_time(q, v)[0]), least, rel_tol=1e-13)


def test_kepler_orbits_of_every_kind() -> None:
    """Forward and back, many periods and short arcs; energy and angular momentum stay."""
    g = torch.Generator().manual_seed(1)
    q, v = (torch.randn(300, 3, generator=g, dtype=F64) for _ in range(2))
    v *= torch.logspace(-1, 1, 300, dtype=F64)[:, None]
    mu = torch.rand(300, generator=g, dtype=F64) + 0.5
    energy = v.square().sum(1) / 2 - mu / q.norm(dim=1)
    assert 50 < int((energy < 0).sum()) < 250
    dt = torch.randn(300, generator=g, dtype=F64) * torch.logspace(-2, 2, 300, dtype=F64).flip(0)
    q1, v1 = kepler_step(q, v, dt, mu)
    size = v1.square().sum(1) / 2 + v.square().sum(1) / 2 + mu / q1.norm(dim=1) + mu / q.norm(dim=1)
    assert bool(((v1.square().sum(1) / 2 - mu / q1.norm(dim=1) - energy).abs() < 2e-14 * size).all())
    turning, later = torch.linalg.cross(q, v), torch.linalg.cross(q1, v1)
    assert torch.allclose(later, turning, rtol=1e-10, atol=1e-11)
    back, _ = kepler_step(q1, v1, -dt, mu)
    assert float(((back - q).norm(dim=1) / q.norm(dim=1)).median()) < 1e-14
    assert torch.allclose(back, q, rtol=1e-6, atol=1e-6)


def test_known_orbits() -> None:
    """The ellipse of `systems.kepler`; a parabola by Barker's equation t = sqrt 2 (D + D^3/3)."""
    system = ls.systems.kepler(e=0.9)
    q, v = kepler_step(system.x0[:, :2], system.x0[:, 2:], 12.3, 1.0)
    assert torch.allclose(torch.cat([q, v], 1), system.exact(12.3, system.x0), rtol=1e-11)
    D = 1.7
    q, _ = kepler_step(
        torch.tensor([1.0, 0.0], dtype=F64),
        torch.tensor([0.0, 2**0.5], dtype=F64),
        2**0.5 * (D + D**3 / 3),
        1.0,
    )
    assert torch.allclose(q, torch.tensor([1 - D * D, 2 * D], dtype=F64), rtol=1e-13)


def test_kepler_orbits_are_differentiable() -> None:
    g = torch.Generator().manual_seed(2)
    given = [torch.randn(3, 2, generator=g, dtype=F64).requires_grad_() for _ in range(2)]
    given += [torch.rand(3, generator=g, dtype=F64).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(kepler_step, tuple(given))


def test_orders_of_hermite() -> None:
    """Aarseth's steps go with the root of eta, so a quarter of it makes the error 2^4 times smaller."""
    bodies, x0 = ellipse(0.3)
    coarse, fine = (
        float((solved(bodies, x0, 3.0, "hermite_aarseth", rtol=eta).x_end - after(x0, 3.0)).abs().max())
        for eta in (2e-3, 5e-4)
    )
    assert abs(math.log2(coarse / fine) - 4) < 0.3
    coarse, fine = (
        float((solved(bodies, x0, 3.0, "hermite_collision", rtol=dt).x_end - after(x0, 3.0)).abs().max())
        for dt in (0.04, 0.02)
    )
    assert abs(math.log2(coarse / fine) - 4) < 0.3


def test_the_order_of_gauss_radau() -> None:
    """With steps of the same length: rtol = 1e6 leaves them at max_step. The local error falls as h^16."""
    bodies, x0 = ellipse(0.2)
    errors = []
    for n in (4, 6):
        h = 3.0 / n
        found = solved(bodies, x0, 3.0, "gauss_radau_15", rtol=1e6, first_step=h, max_step=h * 1.0000001)
        assert found.stats.steps == n
        errors.append(float((found.x_end - after(x0, 3.0)).abs().max()))
    assert abs(math.log(errors[0] / errors[1]) / math.log(6 / 4) - 15) < 2.5


def test_the_nodes_of_gauss_radau_integrate_polynomials_of_degree_14() -> None:
    """Weights that integrate the first 8 powers do so to 2 * 8 - 2."""
    nodes = np.array([0.0, *RADAU["gauss_radau_15"].c])
    weights = np.linalg.solve(np.vander(nodes, 8, increasing=True).T, 1 / np.arange(1, 9))
    for degree in range(15):
        assert abs(weights @ nodes**degree - 1 / (degree + 1)) < 1e-14, degree
    assert abs(weights @ nodes**15 - 1 / 16) > 1e-10


def test_gauss_radau_is_exact_to_round_off() -> None:
    """Turns of eccentric orbits; and a run backward."""
    for e, turns in ((0.1, 5), (0.8, 2)):
        bodies, x0 = ellipse(e)
        there = solved(bodies, x0, turns * 2 * math.pi, "gauss_radau_15", rtol=1e-9).x_end
        assert float((bodies.energy(there) / bodies.energy(x0) - 1).abs().max()) < 3e-15
        assert float((there - x0)[:, 0].abs().max()) < 1e-12
    back = ls.solve(bodies.problem(), there, t=(1.0, 0.0), method="gauss_radau_15", rtol=1e-9).x_end
    assert torch.allclose(back, after(there, -1.0), rtol=0, atol=1e-12)


def test_tableaus_of_bulirsch_and_stoer_have_their_orders() -> None:
    """x' = x: a step is a polynomial in h whose first 2 k coefficients are those of e^h."""
    for k in (3, 5, 8):
        pair = gragg(k)
        n = len(pair.tableau.c)
        A = np.array([[*row, *[0.0] * (n - len(row))] for row in pair.a[:-1]])
        v, b = np.ones(n), np.array(pair.tableau.b)
        for j in range(1, 2 * k + 1):
            assert abs(b @ v * math.factorial(j) - 1) < 1e-9, (k, j)
            v = A @ v
        assert abs(b @ v * math.factorial(2 * k + 1) - 1) > 1e-6


def test_the_order_of_three_columns_of_bulirsch_and_stoer() -> None:
    assert abs(measured_order(runge_kutta(gragg(3).tableau), ode_trial(0.0), 40) - 6) < 0.2


@pytest.mark.parametrize(("method", "rtol", "error"), [
    ("hermite", 1e-9, 1e-6), ("gauss_radau_15", 1e-9, 2e-13), ("bulirsch_stoer", 1e-9, 1e-7),
    ("bulirsch_stoer", 1e-12, 1e-10),
])  # fmt: skip
def test_the_solution_between_steps_is_as_good(method: str, rtol: float, error: float) -> None:
    bodies, x0 = ellipse(0.5, 2)
    times = [0.0, 0.3, 1.1, 2.7, 4.0]
    found = solved(bodies, x0, 4.0, method, rtol=rtol, atol=rtol / 1000, save_at=times)
    for t, x in zip(times, found.x, strict=True):
        assert torch.allclose(x, after(x0, t), rtol=0, atol=error), t


@pytest.mark.parametrize("method", CHOOSING)
def test_a_system_does_not_depend_on_its_batch(method: str) -> None:
    """Each in steps of its own: as alone."""
    m, q, v = some(3, 2, 3, seed=4)
    bodies = Gravity(m, softening=0.05)
    x0, how = bodies.start(q, v), {"rtol": 1e-7, "atol": 1e-9}
    both = solved(bodies, x0, 1.0, method, **how)
    for i in range(3):
        alone = solved(bodies, x0[i : i + 1], 1.0, method, **how)
        assert torch.allclose(alone.x_end[0], both.x_end[i], rtol=1e-9, atol=1e-10)
        assert int(alone.stats.accepted[0]) == int(both.stats.accepted[i])


@pytest.mark.parametrize("method", [*CHOOSING, "hermite_aarseth", "hermite_collision", "leapfrog"])
def test_momentum_stays_to_round_off(method: str) -> None:
    """Forces cancel in pairs, and a step is linear in them; for angular momentum only a splitting's."""
    m, q, v = some(4, 3, 2, seed=5)
    bodies = Gravity(m, softening=0.1)
    x0 = bodies.start(q, v, centred=False)
    how = {"dt": 0.02} if method == "leapfrog" else {"rtol": 1e-3 if "_a" in method else 1e-2}
    how = how if "hermite_" in method or method == "leapfrog" else {"rtol": 1e-8}
    found = solved(bodies, x0, 1.0, method, **how)
    assert torch.allclose(bodies.momentum(found.x_end), bodies.momentum(x0), rtol=0, atol=2e-14)
    if method in ("leapfrog", "gauss_radau_15"):
        turned = bodies.angular_momentum(found.x_end)
        assert torch.allclose(turned, bodies.angular_momentum(x0), rtol=0, atol=2e-13)


@cache
def outer() -> ls.systems.System:
    return ls.systems.outer_solar_system()


def test_wisdom_holman_is_exact_for_one_planet() -> None:
    """Whatever the step, of an eccentric orbit; and comes back."""
    bodies, x0 = ellipse(0.9)
    found = solved(bodies, x0, 20.0, "wisdom_holman", steps=7, save_at=[3.0, 20.0])
    for t, x in zip((3.0, 20.0), found.x, strict=True):
        assert torch.allclose(x, after(x0, t), rtol=0, atol=1e-12)


def test_wisdom_holman_is_of_order_2_and_comes_back() -> None:
    """Halved steps, a quarter of the error; which is smaller than leapfrog's, as planets are lighter."""
    system, span = outer(), (0.0, 20_000.0)
    energy = system.invariants["energy"]

    def run(method: str, dt: float, x: Tensor, t: tuple[float, float] = span) -> Tensor:
        return ls.solve(system, x, t=t, method=method, dt=dt, save_at=[t[1]]).x_end

    truth = ls.solve(system, system.x0, t=span, method="dopri8", rtol=1e-12, atol=1e-15).x_end
    ends = {dt: run("wisdom_holman", dt, system.x0) for dt in (200.0, 100.0)}
    coarse, fine = (float((end - truth)[:, 0].abs().max()) for end in ends.values())
    assert abs(math.log2(coarse / fine) - 2) < 0.2
    plain = run("leapfrog", 100.0, system.x0)
    lost = [float((energy(x) / energy(system.x0) - 1).abs()) for x in (ends[100.0], plain)]
    assert lost[0] < lost[1] / 100
    back = run("wisdom_holman", 200.0, ends[200.0], span[::-1])
    assert torch.allclose(back, system.x0, rtol=0, atol=1e-11)


def test_a_logarithmic_leapfrog_follows_kepler_orbits_whatever_the_step() -> None:
    """Energy and the vector of Runge and Lenz stay to round-off, e = 0.999, at some 30 steps a turn."""
    bodies, x0 = ellipse(0.999)
    found = ls.nbody.logarithmic(bodies, x0, t=(0.0, 30.0), ds=0.05, save_at=[7.0, 30.0])
    assert found.status == ("reached",)
    for x in found.x:
        assert abs(float(bodies.energy(x) / bodies.energy(x0)) - 1) < 1e-11
        q, v = (x[0, k, 1] - x[0, k, 0] for k in (0, 1))
        turning = float(q[0] * v[1] - q[1] * v[0])
        lenz = torch.stack([v[1] * turning, -v[0] * turning]) - q / q.norm()
        assert torch.allclose(lenz, torch.tensor([0.999, 0.0], dtype=F64), atol=1e-9)


def test_a_logarithmic_leapfrog_is_of_order_2_and_lets_each_sample_go_its_way() -> None:
    system = ls.systems.burrau()
    bodies = system.acceleration.gravity
    x0 = torch.cat([system.x0, 0.9 * system.x0])
    truth = solved(bodies, x0, 1.0, "gauss_radau_15", rtol=1e-9).x_end
    ends = [ls.nbody.logarithmic(bodies, x0, t=(0.0, 1.0), ds=ds) for ds in (0.08, 0.04)]
    coarse, fine = (float((end.x_end - truth)[0, 0].abs().max()) for end in ends)
    assert abs(math.log2(coarse / fine) - 2) < 0.2
    alone = ls.nbody.logarithmic(bodies, x0[1:], t=(0.0, 1.0), ds=0.04)
    assert torch.allclose(alone.x_end[0], ends[1].x_end[1], rtol=1e-10)
    assert int(ends[1].stats.accepted[0]) != int(ends[1].stats.accepted[1])
    short = ls.nbody.logarithmic(bodies, x0, t=(0.0, 1.0), ds=0.04, max_steps=10, save_at=[0.0, 1.0])
    assert short.status == ("step_limit",) * 2
    assert torch.equal(short.x[0], x0)
    assert bool(short.x[1].isnan().all())


def test_systems_are_what_they_are_named_after() -> None:
    burrau = ls.systems.burrau()
    assert math.isclose(float(burrau.invariants["energy"](burrau.x0)), -769 / 60, rel_tol=1e-14)
    sun = ls.systems.outer_solar_system()
    bodies = sun.acceleration.gravity
    q, v = (sun.x0[0, k, 1] - sun.x0[0, k, 0] for k in (0, 1))
    mu = bodies.G * float(bodies.masses[0] + bodies.masses[1])
    axis = 1 / (2 / float(q.norm()) - float(v.square().sum()) / mu)
    assert abs(axis - 5.2) < 0.02  # Jupiter's, au
    assert abs(2 * math.pi * math.sqrt(axis**3 / mu) / 365.25 - 11.86) < 0.1
    assert math.isclose(KM_S, 29.7847, rel_tol=1e-5)
    assert math.isclose(YEAR, 2 * math.pi, rel_tol=2e-5)  # the day of Gauss' year is not quite ours


def test_three_stars_are_those_of_the_paper() -> None:
    q, v = three_stars_at(2000, seed=3)
    assert torch.equal(three_stars_at(5, seed=3)[0], q[:5])
    assert torch.allclose(v[0] * KM_S, torch.tensor([[0.0, 10.0], [-10.0, 0.0], [0.0, 0.0]], dtype=F64))
    for body, axis, low, high in ((1, 0, 5, 20), (1, 1, 0, 10), (2, 0, -10, 0), (2, 1, 5, 20)):
        drawn = q[:, body, axis]
        assert low <= float(drawn.min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(drawn.max()) <= high
        assert abs(float(drawn.mean()) - (low + high) / 2) < 0.02 * (high - low) * 3
    assert not q[:, 0].any()


def test_plummer_spheres_are_in_equilibrium() -> None:
    """T = 1/4 and V = -1/2, but for what is cut off at R = 10 a; no direction before another.

    Of V, int_R^inf M dM/r is left out, about a^2/R^3, and the mass within R is made 1. Half of it is within
    r with r^3/(r^2 + a^2)^(3/2) = M/2.
    """
    n, a, inside = 2500, 3 * math.pi / 16, (100 / 101) ** 1.5
    q, v = plummer_sphere(n, seed=2)
    bodies = Gravity(torch.full((n,), 1 / n, dtype=F64))
    assert abs(float(bodies.kinetic(v)) - 0.25) < 0.01
    assert abs(float(bodies.potential(q)) + (0.5 - 1e-3 / a) / inside**2) < 0.02
    half = a / math.sqrt((inside / 2) ** (-2 / 3) - 1)
    assert abs(float(q.norm(dim=1).median()) - half) < 0.04
    for part in (q, v):
        assert float((part / part.norm(dim=1, keepdim=True)).mean(0).abs().max()) < 4 / math.sqrt(3 * n)


def test_gradients_go_through_steps_that_were_chosen() -> None:
    """By the orbit's own derivative, which the Kepler solver knows."""
    bodies, start = ellipse(0.3)
    for method, rtol in (("hermite_aarseth", 1e-4), ("gauss_radau_15", 1e-9)):
        x0 = start.clone().requires_grad_()
        solved(bodies, x0, 0.7, method, rtol=rtol).x_end[0, 0, 1, 0].backward()
        (slope,) = torch.autograd.grad(after(given := start.clone().requires_grad_(), 0.7)[0, 0, 1, 0], given)
        apart = (x0.grad - x0.grad.flip(2)) / 2  # of the places between the two; their centre moves as well
        assert torch.allclose(apart, slope, atol=1e-4 if method != "gauss_radau_15" else 1e-9)


STARS = Gravity(torch.ones(3, dtype=F64))


def at_once_there() -> Tensor:
    """Two of three bodies in one place."""
    return torch.zeros(1, 2, 3, 2, dtype=F64).index_fill(2, torch.tensor([2]), 1.0)


BAD = {
    "a negative mass": (lambda: Gravity(torch.tensor([1.0, -1.0])), "not negative"),
    "masses of a cube": (lambda: Gravity(torch.ones(2, 2, 2)), r"\[N\] or \[B, N\]"),
    "a softening below 0": (lambda: Gravity(torch.ones(2), softening=-1.0), "softening"),
    "no gravity": (lambda: Gravity(torch.ones(2), G=0.0), "G = 0"),
    "one place": (
        lambda: Gravity(torch.ones(2)).start(torch.zeros(2, 2), torch.rand(2, 2)), "in one place"
    ),
    "another number": (lambda: Gravity(torch.ones(2)).start(torch.rand(3, 2), torch.rand(3, 2)), "2, 2"),
    "infinite": (
        lambda: Gravity(torch.ones(2)).start(torch.full((2, 2), math.inf), torch.rand(2, 2)), "finite"
    ),
    "a batch of another size": (
        lambda: Gravity(torch.ones(3, 2)).start(torch.rand(2, 2, 2), torch.rand(2, 2, 2)), "3 systems"
    ),
    "no bodies": (
        lambda: ls.solve(
            ls.Newton(lambda t, x: -x), (torch.ones(1, 2),) * 2, t=(0, 1), method="wisdom_holman", dt=0.1
        ),
        "planets",
    ),
    "no star": (
        lambda: ls.solve(
            ls.systems.burrau(), ls.systems.burrau().x0, t=(0, 1), method="wisdom_holman", dt=0.1
        ),
        "heaviest",
    ),
    "no bodies that collide": (
        lambda: ls.solve(
            ls.Newton(lambda t, x: -x), (torch.ones(1, 2),) * 2, t=(0, 1), method="hermite_collision"
        ),
        "collision time",
    ),
    "first order": (
        lambda: ls.solve(ls.ODE(lambda t, x: -x), torch.ones(1, 2), t=(0, 1), method="gauss_radau_15"),
        "ls.Newton",
    ),
    "bodies that meet, given by hand": (lambda: solved(STARS, at_once_there(), 1.0, "tsit5"), "one place"),
    "bodies that meet, in equal steps": (
        lambda: ls.solve(STARS.problem(), at_once_there(), t=(0, 1), method="leapfrog_dkd", dt=0.1),
        "one place",
    ),
    "too few bodies": (lambda: solved(STARS, at_once_there()[:, :, :2], 1.0, "hermite"), "Gravity.start"),
    "flat": (lambda: solved(STARS, at_once_there().flatten(1), 1.0, "hermite"), r"x0 is a tensor \(1, 12\)"),
    "a system's start": (
        lambda: ls.solve(ls.systems.burrau(), ls.systems.burrau().x0 * math.nan, t=(0, 1)), "finite"
    ),
    "backward in its own time": (
        lambda: ls.nbody.logarithmic(*ellipse(0.5), t=(1.0, 0.0), ds=0.1), "forward"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused(make: object, says: str) -> None:
    with pytest.raises(ls.ArgumentError, match=says):
        make()


def test_softening_lets_bodies_be_in_one_place() -> None:
    bodies = Gravity(torch.ones(2), softening=0.1)
    assert bool(
        bodies.acceleration(bodies.start(torch.zeros(2, 2), torch.zeros(2, 2))[:, 0]).isfinite().all()
    )
