"""Equations that make patterns of their own: fronts and cells, stripes, defects."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..spectral import Pointwise, band
from ..spectral.random import most_waves
from .base import Number, system, wide
from .pde import PDE, box, mean, seen, symbol, waves


@system("Kuramoto 1978; Sivashinsky 1977; Kassam and Trefethen 2005", above_zero=("length",))
def kuramoto_sivashinsky(length: float = 32 * math.pi, n: int = 128) -> PDE:
    """u_t = -u_xx - u_xxxx - u u_x, periodic: long waves grow, short ones decay, u u_x carries one to the
    other.

    Good values: four points or more to a unit of length, dt = 0.25 (n = 512 on 64 pi: 0.05 is accurate to
    1e-5 at t = 10); lengths below 18 come to rest, above 22 it is chaotic. Starts from cos(q x) (1 + sin(q
    x)), q the wavenumber of Kassam and Trefethen, 2 pi/length.
    """
    return _ks(0.0, 0.25, length, n)


@system("Kawahara 1983; Chang, Demekhin and Kopelevich 1993", above_zero=("length",))
def dispersive_kuramoto_sivashinsky(
    dispersivity: float = 1.0, length: float = 32 * math.pi, n: int = 128
) -> PDE:
    """u_t = -u_xx - a u_xxx - u_xxxx - u u_x, also KS-KdV: dispersion orders the chaos into pulses.

    The symbol k^2 - k^4 + i a k^3 has both a real and an imaginary part.

    Good values: as for `kuramoto_sivashinsky`, dt = 0.1; a = 0.1 is chaotic, a = 1 makes rows of pulses.
    """
    return _ks(dispersivity, 0.1, length, n)


def _ks(dispersivity: Number, dt: float, length: float, n: int) -> PDE:
    space = box(length, n)
    x = 2 * math.pi / length * space.x[0]
    L: Tensor = space.k2 - space.k2**2
    dispersive = isinstance(dispersivity, Tensor) or dispersivity != 0
    return PDE(
        f=Pointwise(space, lambda u: u * u, writes=(-space.d() / 2,)),
        L=L - symbol(dispersivity, space) * space.d(order=3) if dispersive else L,
        space=space,
        x0=(torch.cos(x) * (1 + torch.sin(x)))[None],
        t=(0.0, 150.0),
        dt=dt,
        invariants={"mean": mean},
        view=seen(space),
    )


@system("Sivashinsky 1977; Kalogirou, Keaveny and Papageorgiou 2015", above_zero=("length",))
def kuramoto_sivashinsky_2d(length: float = 20 * math.pi, n: int = 96) -> PDE:
    """u_t = -Delta u - Delta^2 u - 1/2 |grad u|^2 without its mean: the height of a flame front, less its
    average.

    Good values: as `kuramoto_sivashinsky`, 1.5 points or more to a unit of length, dt = 0.1.
    """
    space = box(length, n, 2)
    others = -0.5 * (space.k2 > 0).to(torch.float64)
    return PDE(
        f=Pointwise(space, lambda p, q: p * p + q * q, (space.d(0), space.d(1)), (others,)),
        L=space.k2 - space.k2**2,
        space=space,
        x0=waves(space),
        t=(0.0, 100.0),
        dt=0.1,
        invariants={"mean": lambda u: mean(u, 2)},
        view=seen(space),
    )


@system("Aranson and Kramer 2002; Chate and Manneville 1996", above_zero=("length",))
def ginzburg_landau(
    b: float = 0.0, c: float = -1.0, length: float = 100.0, n: int = 128, dim: int = 2
) -> PDE:
    """u_t = u + (1 + i b) Delta u - (1 + i c) |u|^2 u, u complex: oscillators that are coupled by diffusion.

    Plane waves sqrt(1 - q^2) e^(i q x - i w t), w = c + (b - c) q^2. Where 1 + b c < 0 all are unstable.

    Good values: one point or more to a unit of length, dt = 0.1. In two dimensions b = 0, c = -1 makes
    spirals that freeze, b = 2, c = -1 turbulence of defects.
    """
    space = box(length, n, dim, real=False, dealias=1 / 2)
    return PDE(
        f=Pointwise(space, lambda u: -(1 + 1j * wide(c, dim)) * u.abs().square() * u),
        L=1 - (1 + 1j * symbol(b, space)) * space.k2,
        space=space,
        x0=waves(space, 8),
        t=(0.0, 200.0),
        dt=0.1,
        view=seen(space, "Re u", lambda u: u.real),
    )


@system("Swift and Hohenberg 1977; Cross and Hohenberg 1993", above_zero=("length",))
def swift_hohenberg(
    r: float = 0.3,
    g: float = 0.0,
    length: float = 20 * math.pi,
    n: int = 128,
    dim: int = 2,
    walls: str = "periodic",
) -> PDE:
    """u_t = r u - (1 + Delta)^2 u + g u^2 - u^3: waves of length 2 pi grow where r > 0, into rolls; with g,
    hexagons.

    Good values: six points or more to each roll, dt = 0.2. r = 0.3, g = 0 makes rolls with defects; r = 0.1,
    g = 1 hexagons.
    """
    space = box(length, n, dim, walls, dealias=1 / 2)
    return PDE(
        f=Pointwise(space, lambda u: u * u * (wide(g, dim) - u)),
        L=symbol(r, space) - (1 - space.k2) ** 2,
        space=space,
        x0=0.1 * waves(space, 12),
        t=(0.0, 200.0),
        dt=0.2,
        starts=band(space, 1, min(12, most_waves(space)), std=0.1),
        view=seen(space),
    )


@system("Allen and Cahn 1979", above_zero=("epsilon", "length"))
def allen_cahn(
    epsilon: float = 0.05, length: float = 2 * math.pi, n: int = 128, dim: int = 2, walls: str = "periodic"
) -> PDE:
    """u_t = eps^2 Delta u + u - u^3: regions of -1 and 1, whose borders move by their curvature.

    A border is tanh(x/(sqrt(2) eps)); one of curvature K moves with the speed eps^2 K, so that a disc of
    radius R is gone after R^2/(2 eps^2).

    Good values: eps = length/n or more, twice that to be accurate; dt = 0.1.
    """
    space = box(length, n, dim, walls, dealias=1 / 2)
    return PDE(
        f=Pointwise(space, lambda u: u**3, writes=(torch.tensor(-1.0, dtype=torch.float64),)),
        L=1 - symbol(epsilon, space) ** 2 * space.k2,
        space=space,
        x0=0.1 * waves(space, 6),
        t=(0.0, 50.0),
        dt=0.1,
        view=seen(space),
    )


@system("Cahn and Hilliard 1958", above_zero=("epsilon", "length"))
def cahn_hilliard(
    epsilon: float = 0.1, length: float = 2 * math.pi, n: int = 128, dim: int = 2, walls: str = "periodic"
) -> PDE:
    """u_t = Delta(u^3 - u - eps^2 Delta u): two phases part, and how much there is of each is kept.

    The energy, the mean of (u^2 - 1)^2/4 + eps^2 |grad u|^2/2, only falls. Waves of k = 1/(sqrt(2) eps) grow
    fastest, as e^(t/(4 eps^2)).

    Good values: eps = 2 length/n or more, dt = eps^2/4 while the phases part.
    """
    space = box(length, n, dim, walls, dealias=1 / 2)
    return PDE(
        f=Pointwise(space, lambda u: u**3, writes=(-space.k2,)),
        L=space.k2 * (1 - symbol(epsilon, space) ** 2 * space.k2),
        space=space,
        x0=0.1 * waves(space, 12),
        t=(0.0, 3.0),
        dt=2.5e-3,
        starts=band(space, 1, min(12, most_waves(space)), std=0.1),
        invariants={} if "dirichlet" in walls else {"mass": lambda u: mean(u, dim)},
        view=seen(space),
    )
