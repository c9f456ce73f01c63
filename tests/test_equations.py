"""Partial differential equations on periodic boxes: terms, analytic solutions, orders, what they keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from waves import F64, Waves, waves

FAMILIES = ("transport", "dispersive", "patterns", "reaction_diffusion", "fluids")
NAMES = [n for n, build in ls.systems.SYSTEMS.items() if build.__module__.split(".")[-1] in FAMILIES]


def run(
    pde: ls.PDE, x0: Tensor, end: float, steps: int = 1, method: str = "etdrk4", **more: object
) -> Tensor:
    return ls.solve(pde, x0, t=(0.0, end), method=method, steps=steps, grad=False, **more).x[-1]


def error(a: Tensor, b: Tensor) -> float:
    """Relative, root mean square."""
    return float((a - b).norm() / b.norm())


def observed(error_at: Callable[[int], float], steps: int) -> float:
    """The order between `steps` and twice as many."""
    return math.log2(error_at(steps) / error_at(2 * steps))


# What each equation says, as in a book: from fields and parameters to the rates of all fields.


def _flow(p: SimpleNamespace, psi: Waves) -> list[Waves]:
    w = -psi.laplacian
    advected = psi.d(1) * w.d(0) - psi.d(0) * w.d(1)
    return [p.viscosity * w.laplacian - p.drag * w - advected]


def _kolmogorov(p: SimpleNamespace, psi: Waves) -> list[Waves]:
    m = p.waves_of_force
    force = Waves({(0, m): -0.5j * p.force, (0, -m): 0.5j * p.force}, p.length)  # A sin(k y) along x
    return [_flow(p, psi)[0] - force.d(1)]


def _burgers(p: SimpleNamespace, *u: Waves) -> list[Waves]:
    half = [sum(((v * w).d(j) for j, w in enumerate(u)), 0) * 0.5 for v in u]
    return [p.viscosity * v.laplacian - flux for v, flux in zip(u, half, strict=True)]


def _gray_scott(p: SimpleNamespace, u: Waves, v: Waves) -> list[Waves]:
    eaten = u * v * v
    return [
        p.diffusivity_u * u.laplacian - eaten + p.feed * (1.0 - u),
        p.diffusivity_v * v.laplacian + eaten - (p.feed + p.kill) * v,
    ]


def _nerve(p: SimpleNamespace, v: Waves, w: Waves) -> list[Waves]:
    return [
        p.diffusivity * v.laplacian + v - v * v * v * (1 / 3) - w + p.current,
        (v + p.a - p.b * w) * (1 / p.tau),
    ]


def _along(u: Waves, order: int) -> Waves:
    return sum((u.d(*[i] * order) for i in range(u.dim)), 0)


EQUATIONS: dict[str, Callable[..., list[Waves]]] = {
    "advection": lambda p, u: [-p.velocity * _along(u, 1)],
    "diffusion": lambda p, u: [p.diffusivity * u.laplacian],
    "dispersion": lambda p, u: [p.dispersivity * _along(u, 3)],
    "hyper_diffusion": lambda p, u: [-p.diffusivity * u.laplacian.laplacian],
    "burgers": _burgers,
    "korteweg_de_vries": lambda p, u: [-6 * u * u.d(0) - u.d(0, 0, 0)],
    "nonlinear_schroedinger": lambda p, u: [0.5j * u.laplacian + 1j * p.kappa * u * u * u.conj],
    "kuramoto_sivashinsky": lambda p, u: [-u.d(0, 0) - u.d(0, 0, 0, 0) - u * u.d(0)],
    "dispersive_kuramoto_sivashinsky": lambda p, u: [
        -u.d(0, 0) - p.dispersivity * u.d(0, 0, 0) - u.d(0, 0, 0, 0) - u * u.d(0)
    ],
    "kuramoto_sivashinsky_2d": lambda p, u: [
        -u.laplacian - u.laplacian.laplacian - 0.5 * (u.d(0) * u.d(0) + u.d(1) * u.d(1))
    ],
    "ginzburg_landau": lambda p, u: [u + (1 + 1j * p.b) * u.laplacian - (1 + 1j * p.c) * u * u * u.conj],
    "swift_hohenberg": lambda p, u: [
        p.r * u - u - 2 * u.laplacian - u.laplacian.laplacian + p.g * u * u - u * u * u
    ],
    "allen_cahn": lambda p, u: [p.epsilon**2 * u.laplacian + u - u * u * u],
    "cahn_hilliard": lambda p, u: [(u * u * u - u - p.epsilon**2 * u.laplacian).laplacian],
    "fisher_kpp": lambda p, u: [p.diffusivity * u.laplacian + p.r * u * (1.0 - u)],
    "gray_scott": _gray_scott,
    "fitzhugh_nagumo_waves": _nerve,
    "navier_stokes_2d": _flow,
    "taylor_green": lambda p, psi: _flow(SimpleNamespace(drag=0.0, viscosity=p.viscosity), psi),
    "kolmogorov_flow": _kolmogorov,
}
FLUIDS = ("navier_stokes_2d", "taylor_green", "kolmogorov_flow")  # given by psi, their state is -Delta psi
OTHERS = [  # not the default: other dimensions, and terms that are 0 by default
    *[
        (name, {"dim": d})
        for name in NAMES
        if "dim" in ls.systems.get(name, n=16).parameters
        for d in (1, 2, 3)
    ],
    ("nonlinear_schroedinger", {"kappa": -0.7}),
    ("ginzburg_landau", {"b": 2.0, "c": -1.0}),
    ("swift_hohenberg", {"g": 1.0}),
    ("fitzhugh_nagumo_waves", {"current": 0.4}),
    ("navier_stokes_2d", {"drag": 0.3}),
]


def test_every_equation_is_written_down_here() -> None:
    assert sorted(EQUATIONS) == sorted(NAMES)


@pytest.mark.parametrize(("name", "given"), [(name, {}) for name in NAMES] + OTHERS)
def test_the_rate_is_the_equation(name: str, given: dict) -> None:
    """On an even and an odd number of points; products of the waves are among the modes that are kept."""
    for n in (16, 17) if given.get("dim") == 3 else (32, 33):
        pde = ls.systems.get(name, n=n, **given)
        space, highest = pde.space, 1 if pde.space.dim == 3 else 2
        states = [
            waves(space.dim, space.length[0], highest, space.real, seed) for seed in range(len(pde.labels))
        ]
        shown = [-u.laplacian for u in states] if name in FLUIDS else states
        fields = [u(*space.x) for u in shown]
        state = torch.stack(fields) if len(fields) > 1 else fields[0]
        rates = [r(*space.x) for r in EQUATIONS[name](SimpleNamespace(**pde.parameters), *states)]
        expected = torch.stack(rates) if len(rates) > 1 else rates[0]
        if name == "kuramoto_sivashinsky_2d":
            expected = expected - expected.mean()
        if space.real:
            state, expected = state.real, expected.real
        c = space.enter(state[None])
        found = space.leave(pde.rate(torch.zeros((), dtype=F64), c))[0]
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) < 1e-12 * float(expected.abs().max()) + 1e-13


# Solutions that are known


MODES = {
    "advection": lambda p, k, t: (1.0, p.velocity * sum(k) * t),
    "diffusion": lambda p, k, t: (math.exp(-p.diffusivity * sum(q * q for q in k) * t), 0.0),
    "dispersion": lambda p, k, t: (1.0, p.dispersivity * sum(q**3 for q in k) * t),
    "hyper_diffusion": lambda p, k, t: (math.exp(-p.diffusivity * sum(q * q for q in k) ** 2 * t), 0.0),
}


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", MODES)
def test_modes_move_and_decay_exactly_in_one_step(name: str, dim: int) -> None:
    pde = ls.systems.get(name, n=12, dim=dim)
    k, t = (3, -2, 1)[:dim], 0.9
    angle = sum(q * x for q, x in zip(k, pde.space.x, strict=True))
    size, turned = MODES[name](SimpleNamespace(**pde.parameters), k, t)
    expected = size * torch.cos(angle - turned)[None]
    assert torch.allclose(run(pde, torch.cos(angle)[None], t), expected, atol=1e-14)
    assert torch.allclose(pde.exact(t, torch.cos(angle)[None]), expected, atol=1e-14)


def soliton(x: Tensor, t: float, c: float = 2.0) -> Tensor:
    """Of u_t + 6 u u_x + u_xxx = 0, on a box of 40."""
    return (c / 2 / torch.cosh(math.sqrt(c) / 2 * (torch.remainder(x - c * t, 40.0) - 20)) ** 2)[None]


def bright(x: Tensor, t: float, a: float = 1.3) -> Tensor:
    v = 4 * 2 * math.pi / 40
    phase = v * x + (a * a - v * v) * t / 2
    wrapped = torch.remainder(x - v * t, 40.0) - 20
    turns = torch.round((x - v * t - 20 - wrapped) / 40)  # the phase is that of the place before wrapping
    assert turns.abs().max() <= 1
    return (a / torch.cosh(a * wrapped) * torch.exp(1j * phase))[None]


@pytest.mark.parametrize("method", ["etdrk4", "krogstad", "hochbruck_ostermann"])
def test_a_soliton_of_korteweg_and_de_vries_moves_as_it_is(method: str) -> None:
    pde = ls.systems.korteweg_de_vries()
    x = pde.space.x[0]

    def error_at(steps: int) -> float:
        return error(run(pde, soliton(x, 0.0), 1.0, steps, method), soliton(x, 1.0))

    assert abs(observed(error_at, 200) - 4) < 0.2
    assert error_at(800) < 3e-10


def test_a_bright_soliton_of_the_schroedinger_equation() -> None:
    pde = ls.systems.nonlinear_schroedinger(n=512)
    x = pde.space.x[0]

    def error_at(steps: int) -> float:
        return error(run(pde, bright(x, 0.0), 2.0, steps), bright(x, 2.0))

    assert abs(observed(error_at, 100) - 4) < 0.2
    assert error_at(800) < 1e-10


def test_a_train_of_dark_solitons_of_the_schroedinger_equation() -> None:
    """u = a sqrt(m) sn(a x | m) e^(-i a^2 (1 + m) t/2) where kappa = -1, one period on the box."""
    special = pytest.importorskip("scipy.special")
    m = 0.99
    pde = ls.systems.nonlinear_schroedinger(kappa=-1.0, n=256)
    a = 4 * special.ellipk(m) / 40
    sn = torch.from_numpy(special.ellipj(a * pde.space.x[0].numpy(), m)[0])
    x0 = (a * math.sqrt(m) * sn).to(torch.complex128)[None]
    exact = x0 * np.exp(-0.5j * a * a * (1 + m) * 5.0)
    assert abs(observed(lambda n: error(run(pde, x0, 5.0, n), exact), 20) - 4) < 0.2
    assert error(run(pde, x0, 5.0, 400), exact) < 1e-10


def test_burgers_by_the_transform_of_cole_and_hopf() -> None:
    """With a mean flow, and two viscosities at once."""
    pde = ls.systems.burgers(viscosity=torch.tensor([0.1, 0.2], dtype=F64), n=256)
    x = pde.space.x[0]
    x0 = (0.5 + torch.sin(x) + 0.5 * torch.cos(2 * x))[None].expand(2, -1)
    exact = pde.exact(2.0, x0)
    assert abs(observed(lambda n: error(run(pde, x0, 2.0, n), exact), 40) - 4) < 0.2
    assert error(run(pde, x0, 2.0, 800), exact) < 1e-9
    assert torch.allclose(pde.exact(0.0, x0), x0, atol=1e-10)


def test_taylor_green_is_exact() -> None:
    pde = ls.systems.taylor_green(n=24, length=3.0)
    assert error(run(pde, pde.x0, 20.0, 10), pde.exact(20.0, pde.x0)) < 1e-13


def test_the_shear_of_the_kolmogorov_force_is_at_rest() -> None:
    pde = ls.systems.kolmogorov_flow(n=32, viscosity=0.02, drag=0.1, force=0.7, waves_of_force=3)
    y = pde.space.x[1].expand(32, 32)
    shear = (-0.7 * 3 * torch.cos(3 * y) / (0.02 * 9 + 0.1))[None]
    assert error(run(pde, shear, 1.0, 10), shear) < 1e-14


def test_a_front_of_fisher_with_the_speed_at_which_it_is_known() -> None:
    """Ablowitz and Zeppetella 1979: (1 + e^(z/sqrt 6))^-2, z = x - 5/sqrt(6) t at r = D = 1; two mirrored."""
    pde = ls.systems.fisher_kpp(length=240.0, n=512)
    x, root = pde.space.x[0] - 120.0, math.sqrt(6)

    def fronts(t: float) -> Tensor:
        reach = 60.0 + 5 / root * t
        return (1 / ((1 + torch.exp((x - reach) / root)) * (1 + torch.exp((-x - reach) / root))) ** 2)[None]

    assert float((run(pde, fronts(0.0), 6.0, 240) - fronts(6.0)).abs().max()) < 1e-7


def test_a_population_spreads_as_kolmogorov_petrovsky_and_piskunov_say() -> None:
    """x(t) = 2 t - 3/2 log t - 3 sqrt(pi/t) + const at r = D = 1 (Ebert and van Saarloos 2000)."""
    pde = ls.systems.fisher_kpp(r=2.0, diffusivity=0.5, length=80.0, n=512)  # speed 2, times half as long
    found = ls.solve(pde, pde.x0, t=(0, 12), method="etdrk4", dt=0.05, save_at=[8.0, 12.0], grad=False).x[
        :, 0
    ]

    def place(u: Tensor) -> float:
        """Where it is 1/2, right of the middle, between the points, in units of sqrt(D/r)."""
        half = u[256:]
        i = int((half > 0.5).sum()) - 1
        return 2 * 80 / 512 * (i + float((half[i] - 0.5) / (half[i] - half[i + 1])))

    def law(t: float) -> float:
        return 2 * t - 1.5 * math.log(t) - 3 * math.sqrt(math.pi / t)

    moved = place(found[1]) - place(found[0])
    assert abs(moved - (law(24.0) - law(16.0))) < 0.15  # 15.64; at the speed 2 it would be 16


def test_a_border_of_allen_and_cahn_stands() -> None:
    """tanh(x/(sqrt(2) eps)) is at rest, and so are two that are far apart; one too thick gets as thin."""
    pde = ls.systems.allen_cahn(epsilon=0.1, n=512, dim=1)
    x = pde.space.x[0]

    def borders(width: float) -> Tensor:
        left = torch.tanh((x - math.pi / 2) / (math.sqrt(2) * width))
        return (left - torch.tanh((x - 3 * math.pi / 2) / (math.sqrt(2) * width)) - 1)[None]

    assert torch.allclose(run(pde, borders(0.1), 10.0, 200), borders(0.1), atol=1e-7)
    assert torch.allclose(run(pde, borders(0.15), 20.0, 400), borders(0.1), atol=1e-5)


def test_a_disc_of_allen_and_cahn_shrinks_by_its_curvature() -> None:
    """R^2 = R0^2 - 2 eps^2 t but for terms of eps^2/R^2, in two dimensions; 4 in place of 2 in three."""
    for dim, n in ((2, 64), (3, 32)):
        eps = 0.2
        pde = ls.systems.allen_cahn(epsilon=eps, n=n, dim=dim)
        r = sum((x - math.pi) ** 2 for x in pde.space.x).sqrt()
        x0 = torch.tanh((2.0 - r) / (math.sqrt(2) * eps))[None]

        def size(u: Tensor, dim: int = dim) -> float:
            """The volume of what is above 0 is that of a ball of radius R."""
            volume = float(((u + 1) / 2).mean()) * (2 * math.pi) ** dim
            return (volume / {2: math.pi, 3: 4 / 3 * math.pi}[dim]) ** (1 / dim)

        after = run(pde, x0, 8.0, 80)
        early = run(pde, x0, 2.0, 20)
        fall = size(early) ** 2 - size(after) ** 2
        assert abs(fall / (2 * (dim - 1) * eps**2 * 6.0) - 1) < 0.1


def test_plane_waves_of_ginzburg_and_landau() -> None:
    pde = ls.systems.ginzburg_landau(b=0.5, c=-0.6, length=40.0, n=32, dim=2)
    q, t = 2 * 2 * math.pi / 40, 6.0
    x0 = math.sqrt(1 - q * q) * torch.exp(1j * q * pde.space.x[0]).expand(32, 32)[None]
    exact = x0 * np.exp(-1j * (-0.6 + (0.5 + 0.6) * q * q) * t)
    assert abs(observed(lambda n: error(run(pde, x0, t, n), exact), 80) - 4) < 0.2
    assert error(run(pde, x0, t, 800), exact) < 1e-9


GROWTH = {
    "kuramoto_sivashinsky": ({}, lambda p, k2: k2 - k2**2),
    "kuramoto_sivashinsky_2d": ({}, lambda p, k2: k2 - k2**2),
    "swift_hohenberg": ({}, lambda p, k2: p.r - (1 - k2) ** 2),
    "allen_cahn": ({}, lambda p, k2: 1 - p.epsilon**2 * k2),
    "cahn_hilliard": ({}, lambda p, k2: k2 - p.epsilon**2 * k2**2),
    "fisher_kpp": ({"dim": 2}, lambda p, k2: p.r - p.diffusivity * k2),
}


@pytest.mark.parametrize("name", GROWTH)
def test_small_waves_grow_as_they_should(name: str) -> None:
    given, rate = GROWTH[name]
    pde = ls.systems.get(name, n=48, **given)
    k = [2 * math.pi / pde.space.length[0] * m for m in (4, 3)[: pde.space.dim]]
    wave = 1e-7 * torch.cos(sum(q * x for q, x in zip(k, pde.space.x, strict=True)))[None]
    t = 20 * pde.dt
    grown = math.exp(rate(SimpleNamespace(**pde.parameters), sum(q * q for q in k)) * t)
    assert error(run(pde, wave, t, 20), grown * wave) < 1e-5


def test_dispersion_turns_waves_while_they_grow() -> None:
    pde = ls.systems.dispersive_kuramoto_sivashinsky(dispersivity=3.0, n=64)
    k, t, x = 10 / 16, 4.0, pde.space.x[0]
    after = run(pde, 1e-7 * torch.cos(k * x)[None], t, 40)
    expected = 1e-7 * math.exp((k**2 - k**4) * t) * torch.cos(k * x + 3.0 * k**3 * t)[None]
    assert error(after, expected) < 1e-5


# Orders


ORDERS = {
    "korteweg_de_vries": ({"n": 64}, "etdrk4", 0.5, 100),
    "dispersive_kuramoto_sivashinsky": ({"n": 64}, "etdrk4", 5.0, 60),
    "kuramoto_sivashinsky": ({"n": 64}, "etdrk4", 8.0, 60),
    "allen_cahn": ({"n": 32, "epsilon": 0.15}, "krogstad", 4.0, 40),
    "navier_stokes_2d": ({"n": 32, "viscosity": 0.02}, "etdrk4", 0.5, 30),
    "gray_scott": ({"n": 32}, "etdrk4", 50.0, 25),
    "burgers": ({"n": 24, "dim": 2}, "etdrk4", 1.0, 20),
    "kuramoto_sivashinsky_2d": ({"n": 24, "length": 20.0}, "krogstad", 1.0, 80),
}


@pytest.mark.parametrize("name", ORDERS)
def test_orders(name: str) -> None:
    """Real, imaginary and complex symbols, against eight times as many steps."""
    given, method, end, steps = ORDERS[name]
    pde = ls.systems.get(name, **given)
    x0 = pde.space.leave(pde.space.enter(pde.x0))
    fine = run(pde, x0, end, 16 * steps, method)
    assert abs(observed(lambda n: error(run(pde, x0, end, n, method), fine), steps) - 4) < 0.2


# What is kept, and what falls


def test_flows_without_viscosity_keep_energy_and_enstrophy() -> None:
    """The truncated equations keep them, the steps at their order or better."""
    pde = ls.systems.navier_stokes_2d(viscosity=0.0, n=24)
    assert sorted(pde.invariants) == ["energy", "enstrophy", "mean"]
    x0 = pde.space.leave(pde.space.enter(pde.x0))
    drifts = [pde.drift(run(pde, x0, 1.0, n), x0) for n in (50, 100)]
    for key in ("energy", "enstrophy"):
        coarse, fine = (float(d[key]) for d in drifts)
        assert fine < coarse / 2**3.7
    energy = pde.invariants["energy"]
    x, y = pde.space.x
    assert math.isclose(energy((torch.cos(2 * x) + 0 * y)[None]), 1 / 16)  # u = (0, sin(2 x)/2): 1/2 mean u^2


def test_two_phases_part_and_none_is_lost() -> None:
    pde = ls.systems.cahn_hilliard(epsilon=0.15, n=32)
    path = ls.solve(pde, 0.2 + pde.x0, t=(0, 2), method="etdrk4", dt=0.01, save_at="steps", grad=False).x[
        1:, 0
    ]
    slope = ls.systems.pde.gradient(pde.space, path)
    energy = ((path**2 - 1) ** 2 / 4).mean((-1, -2)) + 0.15**2 / 2 * slope.square().sum(0).mean((-1, -2))
    assert (energy.diff() < 0).all()
    assert energy[-1] < 0.7 * energy[0]
    assert float((path.mean((-1, -2)) - 0.2).abs().max()) < 1e-14


@pytest.mark.parametrize(("dim", "n"), [(2, 24), (3, 12)])
def test_what_no_field_shows_does_not_grow(dim: int, n: int) -> None:
    """Round-off that is not that of a real field grows as e^(100 t) here, unless it is held down."""
    pde = ls.systems.cahn_hilliard(epsilon=0.05, n=n, dim=dim)
    whole = run(pde, pde.x0, 0.8, 400)
    parts = pde.x0
    for _ in range(8):  # each begins from a field
        parts = run(pde, parts, 0.1, 50)
    assert torch.allclose(whole, parts, atol=1e-9)


@pytest.mark.parametrize("name", ["cahn_hilliard", "fitzhugh_nagumo_waves"])
def test_what_is_held_down_is_so_in_buffers_too(name: str) -> None:
    """On coefficients that are not those of a real field."""
    pde = ls.systems.get(name, n=16)
    f, c = pde.entered().nonlinear, pde.space.enter(pde.x0)
    c = c + 0.01 * torch.randn(c.shape, dtype=c.dtype, generator=torch.Generator().manual_seed(0))
    assert isinstance(f, ls.spectral.Held)
    bound = f.bind(c, True)
    x = bound.buffer().copy_(c)
    out, call = bound.evaluation(x)
    call()
    assert bound.scale is None
    t = torch.zeros((), dtype=F64)
    assert torch.allclose(out, f(t, c), rtol=1e-12, atol=1e-14)
    assert float((f(t, c) - pde.f(t, c))[..., 0].abs().max()) > 1e-3


def test_what_is_held_down_is_so_without_a_PDE() -> None:
    """Any ODE on the space does that, and where L lets nothing grow none."""
    pde = ls.systems.get("cahn_hilliard", n=16)
    own = ls.ODE(pde.f, L=pde.L, space=pde.space)
    assert isinstance(own.entered().f, ls.spectral.Held)
    assert isinstance(ls.ODE(pde.f, L=-pde.space.k2, space=pde.space).entered().f, ls.Pointwise)
    assert torch.equal(run(own, pde.x0, 0.1, 5), run(pde, pde.x0, 0.1, 5))


def test_a_state_of_other_fields_is_refused_before_anything_runs() -> None:
    two, line = ls.systems.gray_scott(n=8), ls.Fourier(1.0, 8)
    for wrong in (torch.ones(1, 3, 8, 8, dtype=F64), torch.ones(2, 8, 8, dtype=F64)):
        with pytest.raises(ls.ArgumentError, match=r"fields u, v, give \[B, 2, 8, 8\]"):
            run(two, wrong, 1.0, 1)
    both = ls.PDE(space=line, L=torch.stack([-line.k2, -2 * line.k2]))
    with pytest.raises(ls.ArgumentError, match="as many fields"):
        run(both, both.x0, 1.0, 1)
    with pytest.raises(ls.ArgumentError, match="needs space="):
        ls.PDE(L=-line.k2)  # type: ignore[call-arg]


def _steps_by_scipy(f: Callable, x0: np.ndarray, end: float) -> np.ndarray:
    integrate = pytest.importorskip("scipy.integrate")
    flat = lambda t, x: f(x.reshape(x0.shape)).ravel()  # noqa: E731
    return (
        integrate.solve_ivp(flat, (0, end), x0.ravel(), "DOP853", rtol=1e-11, atol=1e-12)
        .y[:, -1]
        .reshape(x0.shape)
    )


def _laplacian(u: np.ndarray, length: float) -> np.ndarray:
    k = 2 * np.pi * np.fft.fftfreq(u.shape[-1], length / u.shape[-1])
    return np.fft.ifft(-k * k * np.fft.fft(u)).real


def test_gray_and_scott_as_scipy_solves_it() -> None:
    pde = ls.systems.gray_scott(dim=1, n=128, length=0.3)
    bump = torch.exp(4 * torch.cos(2 * math.pi / 0.3 * pde.space.x[0]) - 4)
    x0 = torch.stack([1 - bump / 2, bump / 3])[None]

    def f(x: np.ndarray) -> np.ndarray:
        u, v = x
        return np.stack([
            2e-5 * _laplacian(u, 0.3) - u * v * v + 0.04 * (1 - u),
            1e-5 * _laplacian(v, 0.3) + u * v * v - 0.1 * v,
        ])  # fmt: skip

    expected = _steps_by_scipy(f, x0[0].numpy(), 50.0)
    np.testing.assert_allclose(run(pde, x0, 50.0, 200)[0], expected, atol=1e-7)


def test_nerve_cells_as_scipy_solves_them() -> None:
    pde = ls.systems.fitzhugh_nagumo_waves(dim=1, n=128, length=30.0, current=0.1, b=0.8)
    bump = torch.exp(4 * torch.cos(2 * math.pi / 30 * pde.space.x[0]) - 4)
    x0 = torch.stack([-1.2 + 2.5 * bump, -0.6 + 0.3 * bump.roll(20)])[None]

    def f(x: np.ndarray) -> np.ndarray:
        v, w = x
        return np.stack([_laplacian(v, 30.0) + v - v**3 / 3 - w + 0.1, (v + 0.7 - 0.8 * w) / 12.5])

    expected = _steps_by_scipy(f, x0[0].numpy(), 10.0)
    np.testing.assert_allclose(run(pde, x0, 10.0, 400)[0], expected, atol=1e-6)


# Parameters, and equations of one's own


BATCHES = {
    "gray_scott": {"feed": (0.02, 0.04), "kill": (0.05, 0.06)},
    "dispersive_kuramoto_sivashinsky": {"dispersivity": (0.0, 1.0)},
    "allen_cahn": {"epsilon": (0.1, 0.2)},
    "nonlinear_schroedinger": {"kappa": (1.0, -1.0)},
    "kolmogorov_flow": {"viscosity": (0.01, 0.05), "force": (1.0, 2.0)},
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_run_of_several_parameters_is_a_run_of_each(name: str) -> None:
    both = ls.systems.get(name, n=24, **{k: torch.tensor(v, dtype=F64) for k, v in BATCHES[name].items()})
    assert len(both.x0) == 2
    after = run(both, both.x0, 8 * both.dt, 8)
    for i in (0, 1):
        one = ls.systems.get(name, n=24, **{k: v[i] for k, v in BATCHES[name].items()})
        assert torch.allclose(after[i], run(one, one.x0, 8 * one.dt, 8)[0], rtol=1e-11, atol=1e-13)


def test_gradients_reach_parameters_of_the_linear_part() -> None:
    """d/dD of e^(-D k^2 t) is -k^2 t e^(-D k^2 t)."""
    D = torch.tensor([0.1, 0.3], dtype=F64, requires_grad=True)
    pde = ls.systems.diffusion(diffusivity=D, n=16)
    wave = torch.cos(2 * pde.space.x[0])
    found = ls.solve(pde, wave.expand(2, -1), t=(0, 1), method="etdrk4", steps=4).x[-1]
    (found @ wave / 8).sum().backward()
    assert torch.allclose(D.grad, -4 * torch.exp(-4 * D.detach()), rtol=1e-10)


def test_an_equation_of_ones_own_needs_a_space_a_symbol_and_a_function() -> None:
    space = ls.Fourier(32 * math.pi, 128)
    mine = ls.PDE(
        space=space,
        L=space.k2 - space.k2**2,
        f=ls.Pointwise(space, lambda u: -u * u / 2, writes=(space.d(),)),
    )
    theirs = ls.systems.kuramoto_sivashinsky()
    assert mine.x0.shape == (1, 128)
    assert mine.view.last == 32 * math.pi
    assert torch.equal(run(mine, theirs.x0, 5.0, 20), run(theirs, theirs.x0, 5.0, 20))
    heat = ls.PDE(space=ls.Fourier(1.0, [8, 6]), L=-ls.Fourier(1.0, [8, 6]).k2)
    assert run(heat, heat.x0, heat.t[1], round(heat.t[1] / heat.dt)).shape == (1, 8, 6)


def test_a_start_of_waves_is_the_same_on_any_grid() -> None:
    coarse, fine = (ls.systems.navier_stokes_2d(n=n).x0 for n in (24, 72))
    assert torch.allclose(fine[..., ::3, ::3], coarse, atol=1e-13)


BAD = {
    "parameter": (lambda: ls.systems.get("burgers", nu=0.1), "viscosity"),
    "name": (lambda: ls.systems.get("kuramoto_sivashinski"), "kuramoto_sivashinsky"),
    "axes": (lambda: ls.systems.allen_cahn(dim=4), "dim = 4"),
    "sign": (lambda: ls.systems.diffusion(diffusivity=-1.0), "diffusivity"),
    "points": (lambda: ls.systems.burgers(n=3), "n = 3"),
    "symbol": (lambda: ls.PDE(space=ls.Fourier(1.0, 16), L=torch.ones(16)), "space.k2"),
    "field": (lambda: run(ls.systems.burgers(n=16), torch.zeros(1, 17, dtype=F64), 1.0), r"\(16,\)"),
}


@pytest.mark.parametrize(("act", "says"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(act: Callable[[], object], says: str) -> None:
    with pytest.raises(ls.ArgumentError, match=says):
        act()
