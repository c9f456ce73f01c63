"""Linear parts in blocks, waves, flow in three dimensions, and what happens between walls."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import longstride as ls
from longstride.cli import app
from longstride.spectral import Box, Channel, Chebyshev, Fourier, Pointwise, nothing
from longstride.systems import get

F64, PI = torch.float64, math.pi
EXPONENTIAL = ("exp_euler", "etdrk2", "etdrk4", "krogstad", "hochbruck_ostermann")


def end(
    problem: ls.ODE, x0: Tensor, t: float, method: str = "etdrk4", steps: int = 1, **how: object
) -> Tensor:
    return ls.solve(problem, x0, t=(0.0, t), method=method, steps=steps, **how).x[-1]


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]


def close(a: Tensor, b: Tensor, atol: float) -> bool:
    return bool((a - b).abs().max() < atol)


# Blocks


@pytest.mark.parametrize("method", EXPONENTIAL)
@pytest.mark.parametrize("t", [1.0, 300.0])
def test_waves_are_exact_in_a_step_of_any_length(method: str, t: float) -> None:
    """d'Alembert: u0(x - c t)/2 + u0(x + c t)/2, the mean of u growing with that of u_t."""
    pde = get("wave", speed=3.0, n=65)
    x, bump = pde.space.x[0], lambda x: torch.exp(torch.sin(x))
    x0 = torch.stack([bump(x), torch.full_like(x, 0.5)])[None]
    found = end(pde, x0, t, method, 2)[0]
    assert close(found[0], bump(x - 3 * t) / 2 + bump(x + 3 * t) / 2 + t / 2, 1e-13 * (10 + t))
    assert close(pde.exact(t, x0)[0], found, 1e-13 * (10 + t))


def test_equal_steps_are_exponential_where_L_is_a_matrix() -> None:
    pde = get("wave", n=32)
    found = ls.solve(pde, pde.x0, t=(0.0, 4.0), dt=2.0).x[-1]
    assert close(found, pde.exact(4.0, pde.x0), 1e-12)


@pytest.mark.parametrize("C", [2, 3, 6])
@pytest.mark.parametrize("apart", [False, True])
def test_blocks_are_matrices_of_each_mode(C: int, apart: bool) -> None:
    torch.manual_seed(C)
    A = torch.randn(*([4] if apart else []), C, C, 3, 5, dtype=F64)
    x0 = torch.randn(4, C, 3, 5, dtype=F64)

    def moved(A: Tensor, x: Tensor) -> Tensor:
        whole = torch.linalg.matrix_exp(A.movedim((-4, -3), (-2, -1)).contiguous())
        return (whole @ x.movedim(1, -1)[..., None])[..., 0].movedim(-1, 1)

    exact = moved(A, x0)
    assert close(end(ls.ODE(nothing, L=ls.Blocks(A, dim=2)), x0, 1.0, steps=3), exact, 1e-11)
    rotating = end(ls.ODE(nothing, L=ls.Blocks(1j * A, dim=2)), x0 + 0j, 1.0, steps=3)
    assert close(rotating, moved(1j * A, x0 + 0j), 1e-11)
    real_on_complex = end(ls.ODE(nothing, L=ls.Blocks(A, dim=2)), x0 + 0.5j * x0, 1.0, steps=3)
    assert close(real_on_complex, (1 + 0.5j) * exact, 1e-11)


def test_blocks_without_enough_eigenvectors() -> None:
    """u'' = -2 s u' - w^2 u: u = (1 + s t) e^(-s t) where s = w, and within 1e-9 of it."""
    w = torch.tensor([0.0, 1.0, 1.0 + 1e-10, 3.0], dtype=F64)
    s = torch.tensor([0.0, 1.0, 1.0, 3.0], dtype=F64)
    L = ls.Blocks.of([[0.0, 1.0], [-w * w, -2 * s]], 1)
    x0 = torch.stack([torch.ones_like(w), torch.zeros_like(w)])[None]
    assert close(end(ls.ODE(nothing, L=L), x0, 1.5)[0, 0], (1 + s * 1.5) * torch.exp(-s * 1.5), 1e-9)


@pytest.mark.parametrize("grad", [True, "checkpoint"])
def test_gradients_reach_the_speed_of_a_wave(grad: bool | str) -> None:
    """d/dc of cos(c k t) cos(k x)."""
    c = torch.tensor(1.3, dtype=F64, requires_grad=True)
    pde = get("wave", speed=c, n=16)
    x = pde.space.x[0]
    x0 = torch.stack([torch.cos(3 * x), 0 * x])[None].detach()
    found = end(pde, x0, 2.0, steps=2, grad=grad)[0, 0, 0]
    found.backward()
    assert math.isclose(c.grad, -6 * math.sin(6 * 1.3), rel_tol=1e-10)


def test_a_stepper_learns_the_speed_of_a_wave() -> None:
    """Gradients of one step, again and again: cos(0.3 c k) cos(k x)."""
    c = torch.tensor(1.3, dtype=F64, requires_grad=True)
    pde = get("wave", speed=c, n=16)
    step = ls.stepper(pde, method="etdrk4", dt=0.3)
    x0 = torch.stack([torch.cos(3 * pde.space.x[0]), 0 * pde.space.x[0]])[None].detach()
    for _ in range(2):
        (slope,) = torch.autograd.grad(step(x0)[0, 0, 0], c, retain_graph=True)
        assert math.isclose(slope, -0.9 * math.sin(0.9 * 1.3), rel_tol=1e-10)
    A = torch.tensor([[0.0, 1.0], [-4.0, 0.0]], dtype=F64)[..., None].requires_grad_()
    step = ls.stepper(ls.ODE(nothing, L=ls.Blocks(A)), method="etdrk4", dt=0.3)
    slopes = [torch.autograd.grad(step(torch.ones(1, 2, 1, dtype=F64)).sum(), A)[0] for _ in range(2)]
    assert torch.equal(*slopes)


def test_weights_of_equal_steps_are_made_once_and_other_methods_see_a_field() -> None:
    pde = get("klein_gordon", n=32, length=10.0)
    fixed = end(pde, pde.x0, 2.0, "krogstad", 100)
    assert len(pde.L.made) < 20
    chosen = ls.solve(pde, pde.x0, t=(0, 2.0), method="tsit5", rtol=1e-9, atol=1e-11).x[-1]
    assert close(fixed, chosen, 1e-6)
    pair = ls.solve(pde, pde.x0, t=(0, 2.0), method="krogstad43", rtol=1e-9, atol=1e-11).x[-1]
    assert close(pair, chosen, 1e-5)
    single = end(pde, pde.x0.float(), 2.0, "krogstad", 100)
    assert single.dtype == torch.float32
    assert close(single.double(), fixed, 1e-5)


def test_matrices_are_not_compiled() -> None:
    pde = get("wave", n=16)
    with pytest.raises(ls.ArgumentError, match="compile=True"):
        ls.solve(pde, pde.x0, t=(0.0, 1.0), dt=0.5, compile=True)


def test_mass_is_kept_where_nothing_leaves() -> None:
    for name in ("diffusion", "hyper_diffusion", "cahn_hilliard"):
        kept = [list(get(name, n=16, dim=1, walls=w).invariants) for w in ("neumann", "dirichlet")]
        assert kept == [["mass"], []]


def test_bad_blocks() -> None:
    for A in (torch.ones(2, 3, 4), [[1.0]], torch.full((2, 2, 3), math.nan)):
        with pytest.raises(ls.ArgumentError, match="matrix"):
            ls.Blocks(A)


# Waves


@pytest.mark.parametrize("dim", [1, 2])
def test_maxwell_in_a_step_of_any_length(dim: int) -> None:
    """A plane wave E = cos(k x - c |k| t), c B = k x E/|k|, in one step; energy and div B to round-off."""
    pde = get("maxwell", dim=dim, n=17, speed=2.0)
    k, t = (3.0, 2.0)[:dim], 500.0
    size = math.hypot(*k)

    def plane(t: float) -> Tensor:
        E = torch.cos(sum(a * x for a, x in zip(k, pde.space.x, strict=True)) - 2 * size * t)
        B = [-k[0] / size * E] if dim == 1 else [k[1] / size * E, -k[0] / size * E]
        return torch.stack([E, *B])[None]

    assert close(end(pde, plane(0.0), t), plane(t), 1e-11)
    x0 = pde.space.leave(pde.space.enter(pde.x0))
    x = end(pde, x0, 100.0, steps=20)
    assert pde.drift(x, x0)["energy"] < 1e-13
    if dim == 2:
        divergence = lambda x: sum(pde.space.d(i) * pde.space.enter(x)[:, 1 + i] for i in range(2))  # noqa: E731
        assert close(divergence(x), divergence(x0), 1e-14)


def test_maxwell_with_losses() -> None:
    """E'' + s E' + c^2 k^2 E = 0, at the critical s = 2 c k too."""
    for s in (0.5, 6.0, 9.0):
        pde = get("maxwell", dim=1, n=9, conductivity=s)
        x, root = pde.space.x[0], torch.tensor(s * s / 4 - 9 + 0j) ** 0.5
        t = 0.7
        shape = torch.cosh(root * t) + (torch.sinh(root * t) / root if root.abs() else t) * (-s / 2)
        x0 = torch.stack([torch.cos(3 * x), 0 * x])[None]
        assert close(end(pde, x0, t)[0, 0], torch.cos(3 * x) * (shape.real * math.exp(-s * t / 2)), 1e-7)
    with pytest.raises(ls.ArgumentError, match="conductivity"):
        get("maxwell", conductivity=-1.0)


def test_klein_gordon_without_its_cubic_part_is_exact() -> None:
    pde = get("klein_gordon", length=2 * PI, n=32, mass=2.0, strength=0.0, dim=2)
    x, y = pde.space.x
    w = math.sqrt(4 + 9 + 1)
    plane = lambda t: torch.stack([torch.cos(3 * x - y - w * t), w * torch.sin(3 * x - y - w * t)])[None]  # noqa: E731
    assert close(end(pde, plane(0.0), 40.0), plane(40.0), 1e-11)


def test_a_breather_comes_back_at_the_order_of_the_method() -> None:
    pde = get("sine_gordon", n=256, length=60.0)
    period = 2 * PI / 0.6
    errors = [float((end(pde, pde.x0, period, "krogstad", n) - pde.x0).abs().max()) for n in (80, 160)]
    assert abs(orders(errors)[0] - 4) < 0.2
    x = end(pde, pde.x0, period, "krogstad", 160)
    assert pde.drift(x, pde.x0)["energy"] < 1e-6
    with pytest.raises(ls.ArgumentError, match="frequency"):
        get("sine_gordon", frequency=1.0)


def test_small_waves_on_shallow_water_are_exact() -> None:
    """Poincare waves, w^2 = f^2 + g H k^2; what is in geostrophic balance stays."""
    pde = get("shallow_water", n=16, gravity=2.0, depth=1.5, coriolis=0.7)
    (x, y), k, small = pde.space.x, 2.0, 1e-12
    w = math.sqrt(0.49 + 3 * k * k)

    def poincare(t: float) -> Tensor:
        phase = k * x - w * t + 0 * y
        return small * torch.stack([
            1.5 * k * torch.cos(phase), w * torch.cos(phase), 0.7 * torch.sin(phase)
        ])[None]  # fmt: skip

    assert close(end(pde, poincare(0.0), 50.0, steps=3), poincare(50.0), 1e-22)
    v = 2 / 0.7
    balanced = small * torch.stack([
        torch.sin(x) * torch.cos(y), v * torch.sin(x) * torch.sin(y), v * torch.cos(x) * torch.cos(y)
    ])[None]  # fmt: skip
    assert close(end(pde, balanced, 50.0, steps=3), balanced, 1e-22)


def test_shallow_water_keeps_mass_and_energy_and_does_not_depend_on_a_second_axis() -> None:
    flat, wide = get("shallow_water", dim=1, n=64), get("shallow_water", dim=2, n=64)
    x0 = torch.stack(
        [0.2 * torch.cos(flat.space.x[0]), 0.1 * torch.sin(flat.space.x[0]), 0 * flat.space.x[0]]
    )
    one = end(flat, x0[None], 1.0, steps=50)
    two = end(wide, x0[None, ..., None].expand(-1, -1, -1, 64), 1.0, steps=50)
    assert close(one[..., None], two, 1e-13)
    assert flat.drift(one, x0[None])["mass"] < 1e-15
    energy = lambda s: ((1 + s[:, 0]) * (s[:, 1] ** 2 + s[:, 2] ** 2) + s[:, 0] ** 2).mean(-1)  # noqa: E731
    assert abs(energy(one) / energy(x0[None]) - 1) < 1e-9


# Flow


def test_flows_along_their_own_curl_decay_exactly() -> None:
    """Arnold, Beltrami, Childress: curl u = u, and u e^(-nu t) in one step; odd numbers of points."""
    pde = get("navier_stokes_3d", n=9, viscosity=torch.tensor([0.1, 0.3], dtype=F64))
    x, y, z = torch.broadcast_tensors(*pde.space.x)
    a, b, c = 1.0, 0.7, 0.4
    u = torch.stack([
        a * torch.sin(z) + c * torch.cos(y),
        b * torch.sin(x) + a * torch.cos(z),
        c * torch.sin(y) + b * torch.cos(x),
    ]).expand(2, 3, 9, 9, 9)  # fmt: skip
    fall = torch.exp(-2.0 * torch.tensor([0.1, 0.3], dtype=F64)).view(2, 1, 1, 1, 1)
    assert close(end(pde, u, 2.0), fall * u, 1e-14)


def test_a_flow_in_a_plane_is_that_of_two_dimensions() -> None:
    """Taylor and Green's in two dimensions, carried by a mean flow: u0(x - V t) e^(-2 nu t)."""
    pde, t = get("navier_stokes_3d", n=8, viscosity=0.1), 0.5
    x, y, _ = torch.broadcast_tensors(*pde.space.x)

    def flow(t: float) -> Tensor:
        X, fall = x - 0.5 * t, math.exp(-0.2 * t)
        u = fall * torch.sin(X) * torch.cos(y) + 0.5
        return torch.stack([u, -fall * torch.cos(X) * torch.sin(y), 0 * x])[None]

    errors = [float((end(pde, flow(0.0), t, steps=n) - flow(t)).abs().max()) for n in (4, 8)]
    assert abs(orders(errors)[0] - 4) < 0.3
    assert errors[-1] < 1e-6


def test_energy_of_the_vortex_falls_by_its_enstrophy_and_it_stays_solenoidal() -> None:
    """d/dt mean |u|^2/2 = -nu mean |curl u|^2, with time differences of order 4."""
    pde = get("navier_stokes_3d", n=12, viscosity=0.05)
    space, h = pde.space, 0.05
    x = ls.solve(pde, pde.x0, t=(0, 1 + 2 * h), dt=h / 2, save_at=[1 + j * h for j in (-2, -1, 0, 1, 2)]).x
    energy = (x * x).sum(2).mean((-1, -2, -3))[:, 0] / 2
    slope = (energy[0] - 8 * energy[1] + 8 * energy[3] - energy[4]) / (12 * h)
    bent = space.leave(space.k2 * space.enter(x[2]))  # of a solenoidal field, |curl u|^2 is u . curl curl u
    assert math.isclose(slope, -0.05 * (x[2] * bent).sum(1).mean(), rel_tol=1e-6)
    c = space.enter(x[-1])[0]
    assert close(sum(space.d(i) * c[i] for i in range(3)), torch.zeros(()), 1e-15)


# Cosine and sine series


def modes(kind: str, n: int) -> Tensor:
    """[m, n]: the functions of a series at its points."""
    x, m = (torch.arange(n, dtype=F64) + 0.5) / n, torch.arange(n, dtype=F64)[:, None]
    m = m + 0.5 * ("-" in kind)
    return torch.cos(PI * m * x) if kind.startswith("neumann") else torch.sin(PI * m * x)


@pytest.mark.parametrize("kind", ["neumann", "dirichlet", "neumann-dirichlet", "dirichlet-neumann"])
@pytest.mark.parametrize("n", [4, 7, 16])
def test_a_series_is_the_sum_of_its_modes(kind: str, n: int) -> None:
    space = Box(2.0, n, kind, dealias=1.0)
    c = torch.randn(3, n, dtype=F64)
    c[:, 0] *= kind != "dirichlet"
    assert close(space.leave(c), c @ modes(kind, n), 1e-13)
    assert close(space.enter(c @ modes(kind, n)), c, 1e-13)
    assert close(space.leave(c.float()).double(), c @ modes(kind, n), 1e-5)
    complexes = Box(2.0, n, kind, dealias=1.0, real=False)
    assert close(complexes.leave(c + 2j * c), (1 + 2j) * (c @ modes(kind, n)), 1e-13)


@pytest.mark.parametrize("real", [True, False])
def test_a_box_without_walls_is_a_fourier_series(real: bool) -> None:
    box, fourier = (kind((1.0, 2.0, 3.0), (6, 9, 7), *walls, real=real) for kind, walls in (
        (Box, (("periodic",) * 3,)), (Fourier, ())
    ))  # fmt: skip
    x = torch.randn(2, 6, 9, 7, dtype=F64 if real else torch.complex128)
    assert close(box.enter(x), fourier.enter(x), 1e-15)
    assert close(box.leave(box.enter(x)), fourier.leave(fourier.enter(x)), 1e-14)
    assert close(box.k2, fourier.k2, 1e-12)


WALLS = (
    ("neumann", "periodic", "dirichlet"), ("dirichlet", "neumann", "periodic"), ("neumann",) * 3,
    ("dirichlet-neumann", "neumann-dirichlet", "periodic"), ("neumann", "dirichlet-neumann", "dirichlet"),
)  # fmt: skip


@pytest.mark.parametrize("walls", WALLS)
def test_heat_between_walls_is_exact(walls: tuple[str, ...]) -> None:
    """Modes decay as e^(-k^2 t), whatever mixture of walls, on odd and even numbers of points."""
    space = Box((1.0, 2.0, 3.0), (8, 9, 7), walls)
    shapes, k2 = [], 0.0
    for kind, x, a in zip(walls, space.x, space.length, strict=True):
        k = {"periodic": 4.0, "dirichlet": 2.0, "neumann": 2.0}.get(kind, 2.5) * PI / a
        shapes.append(torch.sin(k * x) if kind.startswith("dirichlet") else torch.cos(k * x))
        k2 += k * k
    u = (shapes[0] * shapes[1] * shapes[2])[None].requires_grad_()
    found = end(ls.ODE(nothing, L=-space.k2, space=space), u, 0.02)
    assert close(found, math.exp(-0.02 * k2) * u, 1e-14)
    rms = u.square().mean().sqrt()
    assert close(space.norm(space.enter(u)), rms, 1e-14)
    (slope,) = torch.autograd.grad(found, u, u.detach())  # a mode is an eigenvector, of the transpose too
    assert close(slope, math.exp(-0.02 * k2) * u, 1e-14)


@pytest.mark.parametrize("walls", ["neumann", "dirichlet", "neumann,dirichlet"])
def test_standing_waves_between_walls(walls: str) -> None:
    kinds = walls.split(",")
    pde = get("wave", length=2.0, n=12, dim=len(kinds), walls=walls)
    shape, k = 1.0, 3 * PI / 2
    for kind, x in zip(kinds, pde.space.x, strict=True):
        shape = shape * (torch.cos(k * x) if kind == "neumann" else torch.sin(k * x))
    w = k * math.sqrt(len(kinds))
    x0 = torch.stack([shape, 0 * shape])[None]
    x = end(pde, x0, 77.0)
    assert close(x[0], torch.stack([shape * math.cos(77 * w), -w * shape * math.sin(77 * w)]), 1e-11)
    assert pde.drift(x, x0)["energy"] < 1e-13


@pytest.mark.parametrize(("walls", "start"), [("dirichlet-neumann", 0), ("neumann-dirichlet", 16)])
def test_a_mirror_in_the_free_wall_makes_both_walls_fixed(walls: str, start: int) -> None:
    """Allen-Cahn, whose force is odd: half of an even state between fixed walls, at order 4."""
    half, whole = get("allen_cahn", dim=1, n=16, length=1.0, walls=walls, epsilon=0.3), get(
        "allen_cahn", dim=1, n=32, length=2.0, walls="dirichlet", epsilon=0.3
    )  # fmt: skip
    x0 = torch.sin(PI * whole.space.x[0] / 2)[None] - 0.5 * torch.sin(1.5 * PI * whole.space.x[0])
    cut, ends = slice(start, start + 16), []
    for steps in (64, 128, 256):
        ends.append(end(half, x0[:, cut], 2.0, steps=steps))
        assert close(ends[-1], end(whole, x0, 2.0, steps=steps)[:, cut], 1e-14)
    fine = end(half, x0[:, cut], 2.0, steps=2048)
    for order in orders([float((x - fine).abs().max()) for x in ends]):
        assert abs(order - 4) < 0.2


def test_walls_of_two_kinds_turn_into_each_other() -> None:
    space = Box((2.0, 1.0), (9, 8), ("dirichlet-neumann", "periodic"))
    assert space.turned(0).walls == ("neumann-dirichlet", "periodic")
    k, x = PI * 1.5 / 2, space.x[0].expand(9, 8)
    slope = space.turned(0).leave(space.d(0) * space.enter(torch.sin(k * x)))
    assert close(slope, k * torch.cos(k * x), 1e-13)
    with pytest.raises(ls.ArgumentError, match="did you mean dirichlet-neumann"):
        Box(1.0, 8, "dirichlet-neuman")


def test_walls_are_an_option_of_the_command(tmp_path: Path) -> None:
    given = ["--walls", "neumann,dirichlet", "--param", "n=16", "--param", "dim=2", "--until", "1"]
    found = CliRunner().invoke(app, ["solve", "wave", *given, "--out", str(tmp_path / "drum.png")])
    assert found.exit_code == 0, found.output
    assert "neumann,dirichlet" in found.output
    found = CliRunner().invoke(app, ["solve", "wave", "--walls", "neuman"])
    assert found.exit_code == 2
    assert "did you mean neumann" in found.stderr


def mirrored(x: Tensor, sign: float, dim: int) -> Tensor:
    for axis in range(-dim, 0):
        x = torch.cat([x, sign * x.flip(axis)], axis)
    return x


MIRRORED = {
    "allen_cahn": 2, "cahn_hilliard": 1, "swift_hohenberg": 1, "fisher_kpp": 2, "gray_scott": 1,
    "fitzhugh_nagumo_waves": 1, "diffusion": 3, "hyper_diffusion": 1, "klein_gordon": 2,
}  # fmt: skip
ODD = ("allen_cahn", "cahn_hilliard", "klein_gordon")  # whose nonlinear parts are odd


@pytest.mark.parametrize(("name", "dim"), MIRRORED.items())
def test_walls_are_mirrors(name: str, dim: int) -> None:
    """Between walls is half of a periodic box whose other half is the image: even, or odd, to round-off."""
    for walls, sign in (("neumann", 1.0), ("dirichlet", -1.0)):
        if sign < 0 and name not in ODD:
            continue
        n = 9 if dim == 3 else 21
        inner = get(name, n=n, dim=dim, length=5.0, walls=walls)
        outer = get(name, n=2 * n, dim=dim, length=10.0)
        torch.manual_seed(1)
        x0 = inner.space.leave(inner.space.enter(torch.rand_like(inner.x0)))
        t = 3 * inner.dt
        whole = end(outer, mirrored(x0, sign, dim), t, steps=3)
        assert close(mirrored(end(inner, x0, t, steps=3), sign, dim), whole, 1e-12)


def test_an_odd_derivative_turns_sines_into_cosines() -> None:
    """Burgers' equation with u = 0 at the walls: u^2 is a cosine series, its slope a sine series."""
    space = Box(PI, 64, "dirichlet")
    even = space.turned(0)
    x = space.x[0]
    assert close(even.leave(space.d() * space.enter(torch.sin(3 * x))), 3 * torch.cos(3 * x), 1e-13)
    f = lambda t, c: -0.5 * even.d() * even.enter(space.leave(c) ** 2)  # noqa: E731
    x = end(ls.ODE(f, L=-0.1 * space.k2, space=space), torch.sin(x)[None], 1.0, steps=100)
    whole = get("burgers", n=128, viscosity=0.1)
    nodes = whole.space.x[0] + PI / 128  # the mirrored points are half a cell away
    periodic = end(whole, torch.sin(nodes)[None], 1.0, steps=100)
    assert close(mirrored(x, -1.0, 1), periodic, 1e-12)


def test_products_of_cosines_are_exact_in_the_modes_that_are_kept() -> None:
    space = Box(1.0, 15, "neumann")
    top = space.highest[0]
    square = space.enter(torch.cos(PI * top * space.x[0]) ** 2)  # (1 + cos(2 top pi x))/2
    assert close(square, 0.5 * (torch.arange(top + 1) == 0), 1e-15)
    with pytest.raises(ls.ArgumentError, match="walls"):
        Box((1.0, 1.0), (8, 8), ("neumann",))
    with pytest.raises(ls.ArgumentError, match="neumann"):
        Box(1.0, 8, "neuman")
    with pytest.raises(ls.ArgumentError, match="it must end in"):
        space.enter(torch.ones(14, dtype=F64))


# Chebyshev points


def robin() -> float:
    """mu tan mu = 1, by bisection: of cos(mu x), u_x = 0 at 0, and u + u_x = 0 at 1."""
    low, high = 0.0, 1.5
    for _ in range(60):
        mu = (low + high) / 2
        low, high = (mu, high) if mu * math.tan(mu) < 1 else (low, mu)
    return mu


CONDITIONS = {
    "dirichlet": ("dirichlet", "dirichlet", torch.sin, PI),
    "neumann": ("neumann", "neumann", torch.cos, 2 * PI),
    "mixed": ("dirichlet", "neumann", torch.sin, 1.5 * PI),
    "robin": ("neumann", (1.0, 1.0, 0.0), torch.cos, robin()),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_heat_at_chebyshev_points_converges_faster_than_any_power(name: str) -> None:
    left, right, shape, k = CONDITIONS[name]
    errors = []
    for n in (7, 11, 17):
        space = Chebyshev((0.0, 1.0), n, left, right)
        u = shape(k * space.x[0])[None]
        x = end(ls.ODE(nothing, L=ls.Matrix(space.d(0, 2)), space=space), u, 0.05)
        errors.append(float((x - math.exp(-0.05 * k * k) * u).abs().max()))
    assert errors[2] < 1e-10
    assert errors[1] < errors[0] / 50


def test_kassam_and_trefethens_allen_cahn() -> None:
    """eps = 0.01 on [-1, 1], u = -1 and 1 at the walls: the middle hump goes at about t = 45."""
    space = Chebyshev((-1.0, 1.0), 33, (1.0, 0.0, -1.0), (1.0, 0.0, 1.0))
    x = space.x[0]
    x0 = (0.53 * x + 0.47 * torch.sin(-1.5 * PI * x))[None]
    f = lambda t, w: 0.01 * space.lift(2) + w - w**3  # noqa: E731
    problem = ls.ODE(f, L=ls.Matrix(0.01 * space.d(0, 2)), space=space)
    saved = {"t": (0.0, 60.0), "save_at": [30.0, 60.0]}
    fixed = ls.solve(problem, x0, method="krogstad", dt=0.25, **saved).x
    assert close(fixed, ls.solve(problem, x0, method="rodas5p", rtol=1e-6, atol=1e-8, **saved).x, 1e-4)
    assert close(fixed[..., [0, -1]], torch.tensor([-1.0, 1.0], dtype=F64), 1e-13)
    crossings = (fixed[:, 0, 1:] * fixed[:, 0, :-1] < 0).sum(-1)
    assert crossings.tolist() == [3, 1]


def test_a_channel_is_a_block_of_each_mode() -> None:
    """Heat between a cold wall and one of temperature 1 + a wave that decays, in one step of any length."""
    space = Channel(Chebyshev((0.0, 1.0), 18, right=(1.0, 0.0, 1.0)), Fourier(2.0, 9, dealias=1.0))
    x, y = space.x
    L, steady = space.blocks([[0.1 * space.laplace()]]), lambda t, c: 0.1 * space.lift(2).expand_as(c)
    exact = lambda t: y + torch.sin(2 * PI * y) * torch.cos(2 * PI * x) * math.exp(-0.8 * PI**2 * t)  # noqa: E731
    found = end(ls.ODE(steady, L=L, space=space), exact(0.0)[None], 0.5)
    assert close(found[0], exact(0.5), 1e-10)


def test_bad_conditions() -> None:
    for wrong, said in (
        ({"ends": (1.0, 0.0)}, "a < b"),
        ({"left": "dirichle"}, "dirichlet"),
        ({"left": (0.0, 0.0, 1.0)}, "do not determine"),
        ({"right": (1.0, 2.0)}, r"\(p, q, r\)"),
    ):
        with pytest.raises(ls.ArgumentError, match=said):
            Chebyshev(**{"n": 8, **wrong})


# Stiff order


@pytest.mark.parametrize(
    ("method", "order"), [("etdrk4", 2.25), ("krogstad", 3.1), ("hochbruck_ostermann", 3.9)]
)
def test_order_where_the_walls_and_the_force_do_not_agree(method: str, order: float) -> None:
    """Hochbruck and Ostermann 2005, u_t = u_xx + mean(u) + p(t, x), u = x (1 - x) e^t: what mean(u) gives is
    not 0 at the walls. Cox and Matthews' method falls to about 2, Krogstad's to 3, theirs stays at 4.
    """
    space = Chebyshev((0.0, 1.0), 24)
    x = space.x[0]
    weights = torch.linalg.solve(  # of a mean, exact for polynomials: those of Legendre have mean 0 but P_0
        torch.special.legendre_polynomial_p(2 * x - 1, torch.arange(24, dtype=F64)[:, None]),
        (torch.arange(24) == 0).to(F64),
    )[1:-1]
    u = (x * (1 - x))[1:-1]
    f = lambda t, w: w @ weights[:, None] + (u + 2 - 1 / 6) * torch.exp(t)  # noqa: E731
    problem = ls.ODE(f, L=ls.Matrix(space.d(0, 2)), space=space)
    x0 = (x * (1 - x))[None]
    errors = [float((end(problem, x0, 1.0, method, n) - math.e * x0).abs().max()) for n in (16, 32, 64, 128)]
    assert abs(orders([errors[0], errors[-1]])[0] / 3 - order) < 0.15


def test_a_nonlinear_part_that_is_not_odd_costs_a_sine_series_its_accuracy() -> None:
    """Fisher's equation, u = 0 at the walls: the sine series converges as a power."""

    def chebyshev(n: int) -> Tensor:
        space = Chebyshev((0.0, 1.0), n)
        u = torch.sin(PI * space.x[0])
        problem = ls.ODE(lambda t, w: 3 * w * (1 - w), L=ls.Matrix(0.05 * space.d(0, 2)), space=space)
        x = end(problem, u[None], 0.5, "hochbruck_ostermann", 60)[0]
        return x[n // 2]  # the middle

    def sine(n: int) -> Tensor:
        space = Box(1.0, n, "dirichlet")
        f = Pointwise(space, lambda u: -3 * u * u)
        x = end(ls.ODE(f, L=3 - 0.05 * space.k2, space=space), torch.sin(PI * space.x[0])[None], 0.5,
                "hochbruck_ostermann", 60)[0]  # fmt: skip
        return x[n // 2]  # the middle, where n is odd

    exact = chebyshev(41)
    by_points = [abs(float(chebyshev(n) - exact)) for n in (9, 17, 33)]
    by_sines = [abs(float(sine(n) - exact)) for n in (9, 17, 33, 65)]
    assert by_points[2] < 1e-11
    assert all(a < b / 10 for a, b in zip(by_points, by_sines, strict=False))
    assert by_sines[3] > 1e-8
