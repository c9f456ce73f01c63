"""Equations that make patterns of their own."""

from __future__ import annotations

import math

import torch

from ..spectral import Fourier, Pointwise
from .base import SpaceTime, system
from .pde import PDE


@system("Kuramoto 1978; Sivashinsky 1977; Kassam and Trefethen 2005", above_zero=("length",))
def kuramoto_sivashinsky(length: float = 32 * math.pi, n: int = 128) -> PDE:
    """u_t = -u_xx - u_xxxx - u u_x, periodic: long waves grow, short ones decay, u u_x carries one to the
    other.

    Good values: four points or more to a unit of length, dt = 0.25 (n = 512 on 64 pi: 0.05 is accurate to
    1e-5 at t = 10); lengths below 18 come to rest, above 22 it is chaotic. Starts from cos(q x) (1 + sin(q
    x)), q the wavenumber of Kassam and Trefethen, 2 pi/length.
    """
    space = Fourier(length, n)
    q = 2 * math.pi / length
    x = q * space.x[0]
    return PDE(
        f=Pointwise(space, lambda u: u * u, writes=(-space.d() / 2,)),
        L=space.k2 - space.k2**2,
        space=space,
        x0=(torch.cos(x) * (1 + torch.sin(x)))[None],
        t=(0.0, 150.0),
        dt=0.25,
        invariants={"mean": lambda u: u.mean(-1)},
        view=SpaceTime(lambda u: u, "x", "u", 0.0, length),
    )
