"""Incompressible flow in three dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..spectral import Pointwise, Symbols, band
from ..spectral.symbols import Entry, curl, solenoidal
from .base import system
from .pde import PDE, box, seen, symbol

UNIT: list[list[Entry]] = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@system("Navier 1822; Stokes 1845; Taylor and Green 1937", above_zero=("length", "viscosity"))
def navier_stokes_3d(viscosity: float = 0.01, length: float = 2 * math.pi, n: int = 32) -> PDE:
    """u_t = P(u x curl u) + nu Delta u, div u = 0, periodic; the state is the velocity, [B, 3, n, n, n],
    free of divergence at the start.

    The rotational form of the advection: u.grad u is curl u x u + grad |u|^2/2, and the pressure takes the
    gradient away, P in Fourier space. So 9 transforms make an evaluation, and without viscosity energy is
    kept.

    Good values: n = 64 and dt = 0.02 at viscosity 0.01; n k_max^-1 must reach the dissipation length, (nu^3 /
    dissipation)^(1/4). Starts from the vortex of Taylor and Green, (sin x cos y cos z, -cos x sin y cos z,
    0), which breaks into smaller ones by t = 9.
    """
    space = box(length, n, 3)
    q = 2 * math.pi / length
    x, y, z = (q * points for points in space.x)
    u = torch.sin(x) * torch.cos(y) * torch.cos(z)
    v = -torch.cos(x) * torch.sin(y) * torch.cos(z)

    def force(fields: Tensor) -> Tensor:
        velocity, vorticity = fields.split(3, -4)
        return torch.linalg.cross(velocity, vorticity, dim=-4)

    def vorticity(state: Tensor) -> Tensor:
        c = space.enter(state)[..., :2, :, :, :]
        return space.leave(Symbols(space, [[-space.d(1), space.d(0)]])(c)).squeeze(-4)

    def incompressible(u: Tensor) -> Tensor:
        return space.leave(Symbols(space, solenoidal(space))(space.enter(u)))

    return PDE(
        f=Pointwise(
            space,
            force,
            reads=(Symbols(space, UNIT + curl(space)),),
            writes=(Symbols(space, solenoidal(space)),),
        ),
        L=-(symbol(viscosity, space) * space.k2).unsqueeze(-4),
        space=space,
        x0=torch.stack([u, v, torch.zeros_like(u)])[None],
        t=(0.0, 10.0),
        dt=0.05,
        starts=band(space, components=(3,), std=0.5, through=incompressible),
        labels=("u", "v", "w"),
        view=seen(space, "vorticity", vorticity),
    )
