"""Ready problems: what they keep, exact solutions, published end points, and what is refused.

Partial differential equations are here with what they have in common with the others, on few points; all else
of theirs is in test_equations.py.

Published values, to all the digits given there:
- robertson, hires, oregonator, van_der_pol, pleiades: Mazzia and Magherini 2008, Test Set for Initial Value
  Problem Solvers, release 2.4, University of Bari, from runs in extended precision.
- arenstorf, figure_eight: periodic, Hairer, Norsett and Wanner 1993, II.0, and Chenciner and Montgomery 2000.
"""

from __future__ import annotations

import inspect
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods import REGISTRY
from longstride.steppers.kinds import KINDS
from longstride.systems.base import STIFF as STIFF_METHODS

F64 = torch.float64
NAMES = tuple(ls.systems.SYSTEMS)
KEEP = [one.name for one in ls.systems.list_systems() if one.invariants]
EXACT = [one.name for one in ls.systems.list_systems() if one.exact and not isinstance(one, ls.PDE)]
PDES = [one.name for one in ls.systems.list_systems() if isinstance(one, ls.PDE)]
KNOWN = {name for table, _ in KINDS for name in table}
IMPLICIT = [name for name in STIFF_METHODS[:-1] if name in KNOWN][:1]  # what the systems take

PUBLISHED = {
    "robertson": (0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050),
    "hires": (
        0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4, 0.1175651343283149e-2,
        0.2386356198831331e-2, 0.6238968252742796e-2, 0.2849998395185769e-2, 0.2850001604814231e-2,
    ),
    "oregonator": (0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3),
    # The set scales time and x' by mu = 1000: x'(2000) = -0.8928...e-3 here.
    "van_der_pol": (0.1706167732170483e1, -0.8928097010247975e-3),
    "pleiades": (
        0.3706139143970502, 0.3237284092057233e1, -0.3222559032418324e1, 0.6597091455775310,
        0.3425581707156584, 0.1562172101400631e1, -0.7003092922212495,
        -0.3943437585517392e1, -0.3271380973972550e1, 0.5225081843456543e1, -0.2590612434977470e1,
        0.1198213693392275e1, -0.2429682344935824, 0.1091449240428980e1,
        0.3417003806314313e1, 0.1354584501625501e1, -0.2590065597810775e1, 0.2025053734714242e1,
        -0.1155815100160448e1, -0.8072988170223021, 0.5952396354208710,
        -0.3741244961234010e1, 0.3773459685750630, 0.9386858869551073, 0.3667922227200571,
        -0.3474046353808490, 0.2344915448180937e1, -0.1947020434263292e1,
    ),
}  # fmt: skip


def solved(system: ls.systems.System, x0: Tensor | None = None, end: float | None = None, **how: object):
    how = {"method": "dopri8", "rtol": 1e-11, "atol": 1e-13, **how}
    x0 = system.x0 if x0 is None else x0
    found = ls.solve(system, x0, t=(0.0, system.t[1] if end is None else end), **how)
    assert set(found.status) <= {"reached", "done"}, found.message
    return found.x[-1]


def built(name: str, **parameters: object) -> ls.systems.System:
    """With few points where it is a partial differential equation."""
    few = {"n": 32} if name in PDES else {}
    return ls.systems.get(name, **few, **parameters)


def rate(system: ls.systems.System, x: Tensor) -> Tensor:
    t = torch.zeros((), dtype=x.dtype.to_real())
    if system.space is None:
        return system.f(t, x)
    return system.space.leave(system.rate(t, system.space.enter(x)))


def near(system: ls.systems.System, n: int = 5) -> Tensor:
    """States [n, *shape] about the start, no two numbers alike, all positive where the start is."""
    torch.manual_seed(0)
    random = torch.rand(n, *system.x0.shape[1:], dtype=system.x0.dtype)
    x = system.x0 + (0.1 + 0.2 * system.x0.abs()) * random
    return x if system.space is None else system.space.leave(system.space.enter(x))


@pytest.mark.parametrize("name", KEEP)
def test_invariants_are_orthogonal_to_the_flow(name: str) -> None:
    """dI/dt = grad I . f = 0 at any state, to round-off."""
    system = built(name)
    x = near(system).requires_grad_()
    flow = rate(system, x).detach()
    for invariant in system.invariants.values():
        (slope,) = torch.autograd.grad(invariant(x).sum(), x)
        across = (slope.conj() * flow).real.flatten(1)
        assert (across.sum(1).abs() <= 1e-13 * across.abs().sum(1) + 1e-15).all()


@pytest.mark.parametrize("name", KEEP)
def test_drift_falls_at_the_order_of_the_method(name: str) -> None:
    """Halving the step of rk4 brings what is kept 2^4-fold nearer or better; sums stay to round-off."""
    system = built(name)
    x0 = near(system, 1)
    scale = float((x0.norm() + 0.1) / (rate(system, x0).norm() + 0.1))
    end = min(0.25 * scale, 1e-3 if system.methods == STIFF_METHODS else 0.1)
    drifts = []
    for n in (32, 64) if name in PDES else (8, 16):  # their fastest waves ask for it
        x = ls.solve(system, x0, t=(0.0, end), method="rk4", steps=n).x[-1]
        drifts.append(system.drift(x, x0))
    for key in system.invariants:
        coarse, fine = (float(d[key].max()) for d in drifts)
        assert coarse < 1e-13 or fine < coarse / 2**3.7, (coarse, fine)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("t", [0.7, 9.0])
def test_exact_solutions_are_those_of_the_equation(name: str, t: float) -> None:
    """From starts of all kinds, among them a turned ellipse, clockwise and a circle."""
    system = ls.systems.get(name)
    x0 = near(system)
    if name == "kepler":
        x0[:, 2:] *= 0.5  # bound
        x0[1, 2:] *= -1
        x0[2] = torch.tensor([0.0, 2.0, 0.5**0.5, 0.0], dtype=F64)
    np.testing.assert_allclose(system.exact(t, x0), solved(system, x0, t, rtol=1e-13), rtol=1e-8, atol=1e-9)
    assert torch.allclose(system.exact(0.0, x0), x0, atol=1e-14)


def test_the_rigid_body_moves_as_elliptic_functions() -> None:
    """w = (u cn, k sn, w dn)(c t | m) from (u, 0, w): its derivative gives c, k and m."""
    special = pytest.importorskip("scipy.special")
    system, t = ls.systems.rigid_body(), 7.3
    a1, a2, a3 = -2.0, 1.25, -0.5  # (I2 - I3)/I1 and so in turn
    u, w = 1.0, 0.9
    c = math.sqrt(-a1 * a2) * w  # -u c sn dn = a1 (k sn)(w dn) and k c cn dn = a2 (u cn)(w dn)
    k, m = a2 * u * w / c, -a3 * a2 * u * u / c**2  # -w m c sn cn = a3 (u cn)(k sn)
    sn, cn, dn, _ = special.ellipj(c * t, m)
    np.testing.assert_allclose(solved(system, end=t)[0], [u * cn, k * sn, w * dn], atol=1e-9)


def test_the_pendulum_returns_after_its_period() -> None:
    special = pytest.importorskip("scipy.special")
    period = 4 * special.ellipk(math.sin(1.0) ** 2)  # scipy's argument is the modulus squared
    omega = torch.tensor([1.0, 2.0], dtype=F64)
    once = solved(ls.systems.pendulum(omega=omega), end=period)
    assert torch.allclose(once[0], torch.tensor([2.0, 0.0], dtype=F64), atol=1e-9)
    assert torch.allclose(once[1], once[0], atol=1e-8)  # twice as fast, round twice


@pytest.mark.parametrize(("name", "error"), [("arenstorf", 1e-6), ("figure_eight", 1e-6), ("kepler", 1e-8)])
def test_closed_orbits_close(name: str, error: float) -> None:
    """To the digits that start and period are given with; Arenstorf's multiplies errors by thousands."""
    system = ls.systems.get(name)
    end = solved(system, method="dopri8", rtol=1e-13, atol=1e-14)
    assert torch.allclose(end, system.x0, atol=error)


def test_pleiades_ends_where_the_test_set_says() -> None:
    np.testing.assert_allclose(solved(ls.systems.pleiades())[0], PUBLISHED["pleiades"], rtol=1e-6)


STIFF = ("robertson", "hires", "oregonator", "van_der_pol")


@pytest.mark.parametrize("name", STIFF)
def test_stiff_equations_are_those_of_the_test_set(name: str) -> None:
    """By scipy's Radau, which knows nothing of ours: it tests the equations."""
    integrate = pytest.importorskip("scipy.integrate")
    system = ls.systems.get(name)

    def f(t: float, x: np.ndarray) -> np.ndarray:
        return rate(system, torch.from_numpy(x)[None])[0].numpy()

    def jacobian(t: float, x: np.ndarray) -> np.ndarray:
        return torch.func.jacrev(lambda x: rate(system, x[None])[0])(torch.from_numpy(x)).numpy()

    x0, atol = system.x0[0].numpy(), 1e-18 if name == "robertson" else 1e-12
    found = integrate.solve_ivp(f, system.t, x0, "Radau", rtol=1e-7, atol=atol, jac=jacobian)
    assert found.success
    np.testing.assert_allclose(found.y[:, -1], PUBLISHED[name], rtol=1e-4)


@pytest.mark.parametrize("method", IMPLICIT)
@pytest.mark.parametrize("name", STIFF)
def test_our_stiff_methods_end_where_the_test_set_says(name: str, method: str) -> None:
    system = ls.systems.get(name)
    atol = 1e-16 if name == "robertson" else 1e-10
    x = solved(system, method=method, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(x[0], PUBLISHED[name], rtol=2e-3)


def test_the_brusselator_on_a_line_follows_its_modes() -> None:
    """A small sin(k pi x) about the rest grows by the 2x2 matrix of the mode, with the grid's Laplacian."""
    n, k, t, a, b, alpha = 9, 2, 0.4, 1.2, 2.5, 0.03
    system = ls.systems.brusselator_1d(n=n, a=a, b=b, alpha=alpha)
    x = torch.arange(1, n + 1, dtype=F64) / (n + 1)
    rest = torch.tensor([a, b / a], dtype=F64).expand(n, 2)
    assert torch.allclose(rate(system, rest[None]), torch.zeros(1, n, 2, dtype=F64), atol=1e-13)
    wave, amount = torch.sin(k * math.pi * x)[:, None], torch.tensor([2e-6, -1e-6], dtype=F64)
    damped = 4 * alpha * (n + 1) ** 2 * math.sin(k * math.pi / (2 * (n + 1))) ** 2
    matrix = torch.tensor([[b - 1 - damped, a * a], [-b, -a * a - damped]], dtype=F64)
    after = solved(system, (rest + amount * wave)[None], t, atol=1e-15)[0] - rest
    expected = (torch.linalg.matrix_exp(t * matrix) @ amount) * wave
    assert torch.allclose(after, expected, atol=1e-10)


def test_known_rests() -> None:
    c = math.sqrt(8 / 3 * 27)
    for name, at in (
        ("lorenz63", (-c, -c, 27.0)),
        ("brusselator", (1.0, 3.0)),
        ("lotka_volterra", (3.0, 1.5)),
    ):
        system = ls.systems.get(name)
        assert rate(system, torch.tensor([at], dtype=F64)).abs().max() < 1e-13, name
    a, b, c = 0.2, 0.2, 5.7
    y = (-c + math.sqrt(c * c - 4 * a * b)) / (2 * a)
    assert rate(ls.systems.roessler(), torch.tensor([[-a * y, y, -y]], dtype=F64)).abs().max() < 1e-12


def test_the_lorenz_flow_shrinks_volumes_and_is_symmetric() -> None:
    system = ls.systems.lorenz63()
    x = near(system, 1)[0]
    jacobian = torch.func.jacrev(lambda x: rate(system, x[None])[0])(x)
    assert math.isclose(float(jacobian.trace()), -(10 + 1 + 8 / 3))
    turned = torch.tensor([-1.0, -1.0, 1.0], dtype=F64)
    assert torch.equal(rate(system, (x * turned)[None]), rate(system, x[None]) * turned)


def test_lorenz96_changes_its_energy_by_damping_and_forcing_alone() -> None:
    system = ls.systems.lorenz96(n=7, F=3.0)
    x = near(system)
    assert torch.allclose((x * rate(system, x)).sum(1), -(x * x).sum(1) + 3 * x.sum(1))


def test_the_double_pendulum_swings_in_two_modes() -> None:
    """Equal bobs and rods: omega^2 = (2 -+ sqrt 2) g/l, theta_2 = +-sqrt 2 theta_1."""
    system = ls.systems.double_pendulum(l1=2.0, l2=2.0)
    for sign in (1, -1):
        x0 = torch.tensor([[1.0, sign * math.sqrt(2), 0.0, 0.0]], dtype=F64) * 1e-6
        omega = math.sqrt((2 - sign * math.sqrt(2)) * 9.81 / 2)
        x = solved(system, x0, 1.3, atol=1e-18)
        assert torch.allclose(x[:, :2], x0[:, :2] * math.cos(1.3 * omega), atol=1e-12)


def test_fitzhugh_nagumo_fires_between_the_currents_of_its_hopf_bifurcations() -> None:
    """The trace of the Jacobian, 1 - v^2 - b/tau, is 0 at the rest for currents near 0.33 and 1.42."""
    v = math.sqrt(1 - 0.8 / 12.5)
    edges = [s * v**3 / 3 - s * v + (s * v + 0.7) / 0.8 for s in (-1, 1)]
    assert [round(e, 2) for e in edges] == [0.33, 1.42]
    for current, unstable in ((edges[0] - 0.05, False), (edges[0] + 0.05, True), (edges[1] + 0.05, False)):
        system = ls.systems.fitzhugh_nagumo(current=current)
        roots = np.roots([-1 / 3, 0, 1 - 1 / 0.8, current - 0.7 / 0.8])
        v = float(roots[np.abs(roots.imag) < 1e-9].real[0])
        x = torch.tensor([v, (v + 0.7) / 0.8], dtype=F64)
        jacobian = torch.func.jacrev(lambda x: rate(system, x[None])[0])(x)  # noqa: B023
        assert rate(system, x[None]).abs().max() < 1e-12
        assert bool(torch.linalg.eigvals(jacobian).real.max() > 0) == unstable


def batched(name: str) -> tuple[ls.systems.System, list[ls.systems.System]]:
    takes = inspect.signature(ls.systems.SYSTEMS[name]).parameters
    free = {k: p.default for k, p in takes.items() if isinstance(p.default, float) and k != "length"}
    scale = torch.tensor([0.9, 1.0, 1.1], dtype=F64)
    both = built(name, **{k: v * scale for k, v in free.items()})
    return both, [built(name, **{k: v * float(s) for k, v in free.items()}) for s in scale]


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_parameters_is_each_of_them(name: str) -> None:
    """Start, rate and invariants, on states [B, *shape] and on trajectories [T, B, *shape]."""
    both, each = batched(name)
    x = near(both, 1) if len(both.x0) == 1 else near(both, 3)
    x = x.expand(3, *x.shape[1:])
    path = torch.stack([x, 1.1 * x])
    for i, one in enumerate(each):
        assert torch.allclose(both.x0.expand_as(x)[i], one.x0[0], rtol=1e-14)
        assert torch.allclose(rate(both, x)[i], rate(one, x[i : i + 1])[0], rtol=1e-12, atol=1e-12)
        assert torch.allclose(rate(both, path)[:, i], rate(one, path[:, i]), rtol=1e-12, atol=1e-12)
        for key, invariant in one.invariants.items():
            of_both = both.invariants[key](path)[:, i]
            assert torch.allclose(of_both, invariant(path[:, i]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_system_is_solved_in_the_precision_of_its_state(name: str) -> None:
    system = built(name)
    end = min(system.t[1], 1e-3 if system.methods == STIFF_METHODS else 0.02)
    how = {"method": system.method, "dt": end / 2} if name in PDES else {}
    loose = {} if name in PDES else {"rtol": 1e-5, "atol": 1e-7}
    double = ls.solve(system, system.x0, t=(0.0, end), **how).x[-1]
    x0 = system.x0.to(torch.complex64 if system.x0.is_complex() else torch.float32)
    single = ls.solve(system, x0, t=(0.0, end), **how, **loose).x[-1]
    assert single.dtype == x0.dtype
    assert torch.allclose(single.to(double.dtype), double, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_parameters() -> None:
    """d/dr of e^(-r t) at t = 2 for three rates at once."""
    r = torch.tensor([0.5, 1.0, 2.0], dtype=F64, requires_grad=True)
    system = ls.systems.exponential_decay(rate=r)
    assert system.x0.shape == (3, 1)
    ls.solve(system, system.x0, t=(0, 2), rtol=1e-9, atol=1e-11).x.sum().backward()
    assert torch.allclose(r.grad, -2 * torch.exp(-2 * r.detach()), atol=1e-7)


def test_what_a_system_says_of_itself_fits_its_state() -> None:
    for system in ls.systems.list_systems():
        points = math.prod(system.space.n) if system.name in PDES else 1
        assert len(system.labels) * points == system.x0[0].numel(), system.name
        assert len(set(system.labels)) == len(system.labels)
        assert system.method in (REGISTRY if system.name in PDES else KNOWN)
        assert system.reference
        assert system.parameters == {
            k: p.default for k, p in inspect.signature(ls.systems.SYSTEMS[system.name]).parameters.items()
        }


BAD = {
    "name": (("lorenz", {}), "lorenz63"),
    "parameter": (("lorenz63", {"tau": 1.0}), "sigma, rho, beta"),
    "no parameters": (("hires", {"k": 1.0}), "none"),
    "word": (("lorenz63", {"rho": "28"}), "rho"),
    "infinite": (("lorenz63", {"rho": math.inf}), "rho"),
    "sign": (("van_der_pol", {"mu": -1.0}), "mu"),
    "sign of one": (("van_der_pol", {"mu": torch.tensor([1.0, -1.0])}), "mu"),
    "NaN of one": (("lorenz63", {"rho": torch.tensor([1.0, math.nan])}), "rho"),
    "shape": (("lorenz63", {"rho": torch.ones(2, 2)}), "rho"),
    "integers": (("lorenz63", {"rho": torch.ones(2, dtype=torch.int64)}), "rho"),
    "batches": (("lorenz63", {"rho": torch.ones(2), "beta": torch.ones(3)}), "2 and 3"),
    "size": (("lorenz96", {"n": 3}), "n = 3"),
    "fraction": (("lorenz96", {"n": 40.5}), "n = 40.5"),
    "points": (("korteweg_de_vries", {"n": 3}), "n = 3"),
    "length of each": (("korteweg_de_vries", {"length": torch.ones(2)}), "length"),
    "parabola": (("kepler", {"e": 1.0}), "e = 1.0"),
}


@pytest.mark.parametrize(("given", "says"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(given: tuple[str, dict], says: str) -> None:
    with pytest.raises(ls.ArgumentError, match=says):
        ls.systems.get(given[0], **given[1])


def test_a_parameter_that_a_system_lacks_is_named_in_a_direct_call_too() -> None:
    with pytest.raises(ls.ArgumentError, match=r"burgers has no parameter 'nu'; its parameters: viscosity"):
        ls.systems.burgers(nu=0.1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("samples", [0, 2.5, "two"])
def test_random_starts_are_counted(samples) -> None:
    with pytest.raises(ls.ArgumentError, match="samples"):
        ls.systems.burgers(n=16).random_starts(samples)  # type: ignore[attr-defined]


def test_systems_are_imported_when_they_are_asked_for() -> None:
    code = "import longstride, sys; assert 'longstride.systems' not in sys.modules; longstride.systems.kepler"
    subprocess.run([sys.executable, "-c", code], check=True)
