"""Equations that carry, spread and steepen."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..spectral import Fourier, Pointwise, nothing
from .base import Number, system
from .pde import PDE, box, mean, seen, symbol


def _linear(space: Fourier, L: Tensor, dt: float, t: float, walls: str = "periodic") -> PDE:
    """u_t = L u, from a bump in the middle of the box."""

    def exact(t: float, x0: Tensor) -> Tensor:
        c = space.enter(x0)
        return space.leave(torch.exp(L * t).to(c) * c)

    bump = [
        torch.exp(8 * (torch.cos(2 * math.pi * (x / length - 0.5)) - 1))
        for x, length in zip(space.x, space.length, strict=True)
    ]
    return PDE(
        f=nothing,
        L=L,
        space=space,
        x0=math.prod(bump[1:], start=bump[0])[None],  # type: ignore[call-overload]
        t=(0.0, t),
        dt=dt,
        invariants={} if "dirichlet" in walls else {"mass": partial(mean, dim=space.dim)},
        exact=exact,
        view=seen(space),
    )


@system("d'Alembert 1747", above_zero=("length",))
def advection(velocity: Number = 1.0, length: float = 2 * math.pi, n: int = 128, dim: int = 1) -> PDE:
    """u_t + c (u_x + u_y + u_z) = 0: everything moves on, with the speed c along each axis.

    Exact in one step of any length. Good values: any; after t = length/c all is where it was.
    """
    space = box(length, n, dim)
    return _linear(space, -symbol(velocity, space) * _along(space, 1), 0.1, 2 * math.pi)


@system("Fourier 1822", above_zero=("diffusivity", "length"))
def diffusion(
    diffusivity: float = 0.1, length: float = 2 * math.pi, n: int = 128, dim: int = 1, walls: str = "periodic"
) -> PDE:
    """u_t = D (u_xx + u_yy + u_zz), the heat equation: waves of wavenumber k decay as e^(-D k^2 t).

    Exact in one step of any length. Good values: t = (length/2 pi)^2/D flattens all.
    """
    space = box(length, n, dim, walls)
    return _linear(space, -symbol(diffusivity, space) * space.k2, 0.1, 10.0, walls)


@system("Airy 1845", above_zero=("length",))
def dispersion(dispersivity: float = 1.0, length: float = 2 * math.pi, n: int = 128, dim: int = 1) -> PDE:
    """u_t = a (u_xxx + u_yyy + u_zzz): short waves run ahead of long ones, with the speed a k^2.

    Exact in one step of any length. Good values: t = 0.5 takes a bump apart on 2 pi; t = 2 pi/a brings it
    back.
    """
    space = box(length, n, dim)
    return _linear(space, symbol(dispersivity, space) * _along(space, 3), 0.005, 0.5)


@system("Mullins 1957", above_zero=("diffusivity", "length"))
def hyper_diffusion(
    diffusivity: float = 0.01,
    length: float = 2 * math.pi,
    n: int = 128,
    dim: int = 1,
    walls: str = "periodic",
) -> PDE:
    """u_t = -mu Delta^2 u: smooths short waves much more than long ones, and overshoots.

    Exact in one step of any length. Good values: mu = 0.01 on 2 pi, t = 10.
    """
    space = box(length, n, dim, walls)
    return _linear(space, -symbol(diffusivity, space) * space.k2**2, 0.1, 10.0, walls)


@system("Burgers 1948; Hopf 1950; Cole 1951", above_zero=("viscosity", "length"))
def burgers(viscosity: float = 0.1, length: float = 2 * math.pi, n: int = 256, dim: int = 1) -> PDE:
    """u_t + u u_x = nu u_xx: what is high overtakes what is low, and a front forms as thick as nu lets it.

    In more dimensions u is a vector [B, dim, *n], and u_t + 1/2 div(u u) = nu Delta u, which is conservative
    too. (It is u . grad u where u has no divergence or is the same along all axes, not in general.)

    Good values: nu >= 4 length/n times the jump of u, dt = 0.01; the front stands at t = 1 over the steepest
    slope. In one dimension `exact` is the transform of Cole and Hopf, to the digits that e^(-|u|
    length/nu) leaves.
    """
    space = box(length, n, dim)

    def flux(u: Tensor) -> tuple[Tensor, ...]:
        """u u_j along each axis j."""
        return (u * u,) if dim == 1 else tuple(u * u_j for u_j in u.split(1, -dim - 1))

    x = [2 * math.pi / length * x for x in space.x]
    waves = [torch.sin(x[i] + math.pi / 3 * i) * torch.cos(x[i - 1]) for i in range(dim)]
    return PDE(
        f=Pointwise(space, flux, writes=tuple(-space.d(axis) / 2 for axis in range(dim))),
        L=-_beside_fields(symbol(viscosity, space) * space.k2, dim),
        space=space,
        x0=0.5 + torch.sin(x[0])[None] if dim == 1 else torch.stack(torch.broadcast_tensors(*waves))[None],
        t=(0.0, 5.0),
        dt=0.01,
        labels=("u", "v", "w")[:dim],
        invariants={f"mean {name}": partial(_mean_of, i, dim) for i, name in enumerate("uvw"[:dim])},
        exact=_cole_hopf(viscosity, Fourier(length, n, dealias=1)) if dim == 1 else None,
        view=seen(space, shown=(lambda u: u) if dim == 1 else lambda u: u.select(-dim - 1, 0)),
    )


def _cole_hopf(viscosity: Number, space: Fourier) -> Callable[[float, Tensor], Tensor]:
    """u = U - 2 nu phi_x/phi, where phi_t + U phi_x = nu phi_xx and U is the mean of u."""

    def exact(t: float, x0: Tensor) -> Tensor:
        nu, drift = symbol(viscosity, space), x0.mean(-1, keepdim=True)
        integral = torch.where(space.k2 > 0, 1 / space.d(), 0)
        phi = space.enter(torch.exp(-space.leave(integral * space.enter(x0 - drift)) / (2 * nu)))
        phi = torch.exp((-nu * space.k2 - drift * space.d()) * t) * phi
        return drift - 2 * nu * space.leave(space.d() * phi) / space.leave(phi)

    return exact


def _mean_of(i: int, dim: int, u: Tensor) -> Tensor:
    """Of component i of a field, or of the field itself in one dimension."""
    return mean(u if dim == 1 else u.select(-dim - 1, i), dim)


def _along(space: Fourier, order: int) -> Tensor:
    """The derivatives of an order along each axis, added."""
    return sum(
        (space.d(axis, order) for axis in range(space.dim)), torch.zeros(space.shape, dtype=torch.float64)
    )


def _beside_fields(L: Tensor, dim: int) -> Tensor:
    """Of one symbol for all `dim` fields."""
    return L if dim == 1 else L.unsqueeze(-dim - 1)
