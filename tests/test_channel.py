"""Chebyshev points across and a Fourier series along: clamped walls, several fields, flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.metrics import nusselt
from longstride.spectral import Channel, Chebyshev, Fourier, Pointwise
from longstride.systems import get

F64, PI = torch.float64, math.pi
ONSET, ROLLS = 1707.76178, 3.11632  # of convection between rigid walls


def close(a: Tensor, b: Tensor, atol: float) -> bool:
    return bool((a - b).abs().max() < atol)


def growth(pde: ls.PDE, mode: int = 1) -> Tensor:
    """The eigenvalue of L that grows fastest, of one wave along."""
    A = pde.L.A[..., mode]
    values = torch.linalg.eigvals(A)
    return values.gather(-1, values.real.argmax(-1, keepdim=True)).squeeze(-1)


def flat(polynomial: Chebyshev) -> Tensor:
    """[n]: weights of the mean over [a, b], exact for polynomials on the points."""
    a, b = polynomial.ends
    n, x = polynomial.n[0], (2 * polynomial.x[0] - a - b) / (b - a)
    P = torch.special.legendre_polynomial_p(x, torch.arange(n, dtype=F64)[:, None])
    return torch.linalg.solve(P, (torch.arange(n) == 0).to(F64))


# Clamped walls


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_clamped_derivatives_are_exact_for_polynomials(order: int) -> None:
    """(x - a)^2 (b - x)^2 x^3, of degree 7 = n + 1."""
    space = Chebyshev((-1.0, 2.0), 6, "clamped", "clamped")
    p = torch.tensor([4.0, 4.0, -3.0, -2.0, 1.0], dtype=F64)  # (x + 1)^2 (2 - x)^2, lowest first
    p = torch.cat([torch.zeros(3, dtype=F64), p])
    values = lambda p: sum(c * space.x[0] ** i for i, c in enumerate(p))  # noqa: E731
    slope = p
    for _ in range(order):
        slope = slope[1:] * torch.arange(1, len(slope), dtype=F64)
    assert close(space.d(0, order) @ values(p)[1:-1], values(slope)[1:-1], 1e-11)
    anywhere = torch.tensor([-1.0, 0.3, float(space.x[0][2]), 2.0], dtype=F64)
    cubic = lambda x: x**3 - 2 * x  # noqa: E731
    assert close(space.at(anywhere) @ cubic(space.x[0]), cubic(anywhere), 1e-13)


def test_a_clamped_beam_swings_at_its_frequencies() -> None:
    """u_tt = -u_xxxx: cosh(b) cos(b) = 1, w = b^2."""
    space = Chebyshev((0.0, 1.0), 20, "clamped", "clamped")
    w = torch.linalg.eigvals(space.d(0, 4)).real.sort().values.sqrt()
    b = w[:4].sqrt()
    assert close(torch.cos(b) - 1 / torch.cosh(b), torch.zeros(4, dtype=F64), 1e-8)
    with pytest.raises(ls.ArgumentError, match="clamped both"):
        Chebyshev(n=8, left="clamped")


# Several fields


def test_fields_of_a_channel_have_walls_of_their_own() -> None:
    """u = 0 at the walls of one and u_y = 0 at those of the other; the second decays into the first."""
    across = [Chebyshev((0.0, 1.0), 20, wall, wall) for wall in ("dirichlet", "neumann")]
    space = Channel(across, Fourier(2.0, 8))
    x, y = space.x
    L = space.blocks([[space.laplace(0), 0], [0, space.laplace(1) - space.matrix([[3]])]])
    pde = ls.PDE(space=space, L=L, x0=torch.zeros(1, 2, 8, 20, dtype=F64), labels=("u", "v"))
    wave = torch.cos(PI * x)
    start = torch.stack([torch.sin(2 * PI * y) * wave, torch.cos(PI * y) * wave])[None]
    end = ls.solve(pde, start, t=(0, 0.1), method="exp_euler", steps=1).x[-1]
    decay = torch.tensor([5 * PI**2, 2 * PI**2 + 3], dtype=F64).view(2, 1, 1)
    assert close(end, start * torch.exp(-0.1 * decay), 1e-10)
    for wrong in (torch.zeros(1, 8, 20), torch.zeros(1, 3, 8, 20), torch.zeros(2, 8, 20)):
        with pytest.raises(ls.ArgumentError, match=r"\[B, 2, 8, 20\]"):
            space.enter(wrong)
    with pytest.raises(ls.ArgumentError, match="same points"):
        Channel([Chebyshev(n=8), Chebyshev(n=9)], Fourier(1.0, 8))


def test_a_pointwise_of_a_channel_sits_along_it() -> None:
    space = Channel(Chebyshev((0.0, 1.0), 8), Fourier(2.0, 8))
    with pytest.raises(ls.ArgumentError, match=r"space\.along"):
        ls.Pointwise(space, lambda u: u)  # type: ignore[arg-type]


def test_allen_cahn_in_a_channel_at_order_4() -> None:
    """u - u^3, which is 0 where u is; dealiased along, so a product of three keeps to the waves."""
    space = Channel(Chebyshev((0.0, 2.0), 16), Fourier(4.0, 16, dealias=1 / 2))
    x, y = space.x
    f = Pointwise(space.along, lambda u: -(u**3))
    L = space.blocks([[0.1 * space.laplace() + space.matrix([[1]])]])
    x0 = (torch.sin(PI * y / 2) * (1 + torch.cos(PI * x / 2)))[None]
    pde = ls.PDE(space=space, L=L, f=f, x0=x0)
    run = lambda steps: ls.solve(pde, x0, t=(0, 2), method="krogstad", steps=steps).x[-1]  # noqa: E731
    fine = run(256)
    errors = [float((run(steps) - fine).abs().max()) for steps in (16, 32)]
    assert abs(math.log2(errors[0] / errors[1]) - 4) < 0.2


# Convection


def test_convection_begins_at_ra_1707_762() -> None:
    """Pellew and Southwell 1940; no other wave grows earlier."""
    Ra = ONSET + torch.tensor([-1e-4, 1e-4], dtype=F64)
    below, above = growth(get("rayleigh_benard", rayleigh=Ra, length=2 * PI / ROLLS, n=8)).real
    assert below < 0 < above
    for k in (3.0, 3.25):
        assert growth(get("rayleigh_benard", rayleigh=ONSET, length=2 * PI / k, n=8)).real < 0


def test_heat_carried_by_weak_rolls() -> None:
    """Schlueter, Lortz and Busse 1965: (Nu - 1) Ra/(Ra - Ra_c) tends to 1/(0.69942 - 0.00472/Pr +
    0.00832/Pr^2). Of any steady flow: as much heat leaves as enters, and <|grad u|^2> = Ra (Nu - 1).
    """
    Ra = 1.01 * ONSET
    pde = get("rayleigh_benard", rayleigh=Ra, prandtl=1.0, length=2 * PI / ROLLS, n=10, m=13)
    rolls = ls.solve(pde, 1e-3 * pde.random_starts(1, 0), t=(0, 5), method="exp_euler", steps=1).x[-1]
    rolls = rolls * (0.1 / rolls[:, 1].abs().max())
    x = ls.solve(pde, rolls, t=(0, 40), method="krogstad", dt=0.2, grad=False).x[-1]
    carried = float(nusselt(pde.space, x)) - 1
    assert math.isclose(carried * Ra / (Ra - ONSET), 1 / (0.69942 - 0.00472 + 0.00832), rel_tol=2.5e-3)
    above = x.flip(-1) * torch.tensor([1.0, -1.0], dtype=F64).view(2, 1, 1)  # seen from the other wall
    assert math.isclose(float(nusselt(pde.space, above)) - 1, carried, rel_tol=1e-6)
    across, along = pde.space.across[0], pde.space.along
    waves = along.leave(-along.k2 * along.enter(x[:, 0].mT)).mT
    vorticity = x[:, 0] @ across.derivative(2).mT + waves
    assert math.isclose(float(vorticity.square().mean(-2) @ flat(across)), Ra * carried, rel_tol=1e-4)


# Shear flow


def test_the_eigenvalue_of_orr_and_sommerfeld() -> None:
    """Orszag 1971: c = 0.23752649 + 0.00373967 i at Re = 10000; growth is -i c. Re_c = 5772.22 at 1.02056."""
    value = complex(growth(get("channel_flow", m=64, n=8)))
    assert abs(1j * value - (0.23752649 + 0.00373967j)) < 1.5e-8
    Re = torch.tensor([5772.1, 5772.35], dtype=F64)
    below, above = growth(get("channel_flow", reynolds=Re, length=2 * PI / 1.02056, n=8)).real
    assert below < 0 < above
    assert growth(get("channel_flow", reynolds=5000.0, flow="couette", n=8)).real < 0  # Romanov 1973
    with pytest.raises(ls.ArgumentError, match="couette"):
        get("channel_flow", flow="couete")


def test_a_shear_without_waves_only_fades() -> None:
    """u = sin(pi y) carries no flux, is 0 at the walls and decays as e^(-pi^2 t/Re)."""
    pde = get("channel_flow", reynolds=50.0, n=8, m=24)
    psi = (-(torch.cos(PI * pde.space.x[1]) + 1) / PI).expand(1, 8, 24)
    end = ls.solve(pde, psi, t=(0, 5), dt=0.5).x[-1]
    assert close(end, psi * math.exp(-(PI**2) * 5 / 50), 1e-9)


def test_no_energy_comes_of_advection() -> None:
    """<psi u . grad Delta psi> = 0 where no fluid passes the walls."""
    pde = get("channel_flow", n=24, m=36)
    space, weights = pde.space, flat(pde.space.across[0])
    psi = pde.random_starts(2, 0)
    c = space.enter(psi)
    rate = space.leave(pde.f(torch.zeros((), dtype=F64), c))
    bent = space.across[0].d(0, 2)
    laplace = space.leave(torch.einsum("ij,bjk->bik", bent.to(c), c) + space.along.d(0, 2) * c)
    power = (rate * laplace).mean(-2) @ weights  # minus the rate of <|grad psi|^2>/2
    size = (rate.square().mean(-2) @ weights * (laplace.square().mean(-2) @ weights)).sqrt()
    assert (power.abs() / size).max() < 1e-6


def test_bad_channels_and_states() -> None:
    with pytest.raises(ls.ArgumentError, match="of no field"):
        Channel([], Fourier(1.0, 8))
    with pytest.raises(ls.ArgumentError, match="a condition"):
        Chebyshev((0.0, 1.0), 8, 0.0)
    one = Channel(Chebyshev((0.0, 1.0), 8), Fourier(1.0, 8))
    with pytest.raises(ls.ArgumentError, match="1 fields on"):
        ls.metrics.nusselt(one, torch.ones(1, 8, 8, dtype=torch.float64))
