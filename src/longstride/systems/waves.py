"""Equations of the second order in time, as pairs (u, u_t), and of waves on shallow water."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..blocks import Blocks
from ..errors import ArgumentError
from ..spectral import Fourier, Pointwise, Symbols, band
from .base import Number, system, wide
from .pde import PDE, box, mean, seen, symbol


def hump(space: Fourier, width: float) -> Tensor:
    """exp(-r^2/(2 width^2)) about the middle, [*n], with r = L/pi |sin(pi (x - L/2)/L)|: smooth where the box
    is periodic, and even at walls.
    """
    r2 = [(a / math.pi * torch.cos(math.pi / a * x)) ** 2 for x, a in zip(space.x, space.length, strict=True)]
    return torch.exp(-sum(r2[1:], r2[0]) / (2 * width**2))


def energy(
    space: Fourier, speed: Number, potential: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The mean of u_t^2/2 - c^2 u Laplace u/2 + potential(u): walls as here take no part in it."""

    def of(x: Tensor) -> Tensor:
        u, v = x.unbind(-1 - space.dim)
        c = space.enter(u)
        bent = wide(speed, space.dim) ** 2 * space.leave(space.k2.to(c.device, c.dtype.to_real()) * c)
        return mean((v * v + u * bent) / 2 + potential(u), space.dim)

    return of


@system("d'Alembert 1747", above_zero=("length", "speed"))
def wave(
    speed: float = 1.0, length: float = 2 * math.pi, n: int = 128, dim: int = 1, walls: str = "periodic"
) -> PDE:
    """u_tt = c^2 Delta u in 1 to 3 dimensions; the state is (u, u_t).

    walls: "periodic", "neumann" (a free end) or "dirichlet" (a fixed end), or one for each axis:
    "periodic,neumann".

    Exact at any dt: one step goes as far as one likes. Starts from a hump at rest.
    """
    space = box(length, n, dim, walls, dealias=1.0)
    w2 = symbol(speed, space) ** 2 * space.k2

    def exact(t: float, x0: Tensor) -> Tensor:
        u, v = space.enter(x0).unbind(-1 - dim)
        w = w2.sqrt()
        cos, sin = torch.cos(w * t), torch.where(w > 0, torch.sin(w * t) / torch.where(w > 0, w, 1), t)
        return space.leave(torch.stack([cos * u + sin * v, cos * v - w2 * sin * u], -1 - dim))

    u = hump(space, length / 24)
    return PDE(
        L=Blocks.of([[0.0, 1.0], [-w2, 0.0]], dim),
        space=space,
        x0=torch.stack([u, 0 * u])[None],
        t=(0.0, length),
        dt=length / 64,
        labels=("u", "u_t"),
        invariants={"energy": energy(space, speed, torch.zeros_like)},
        exact=exact,
        view=seen(space, "u", lambda x: x.select(-1 - dim, 0)),
    )


def second_order(
    space: Fourier, mass: Number, force: Callable[[Tensor], Tensor], potential: Callable[[Tensor], Tensor],
    x0: Tensor, t: float,
) -> PDE:  # fmt: skip
    """u_tt = Delta u - m^2 u + force(u), potential the whole one: what is linear is in the block."""
    return PDE(
        f=Pointwise(space, force, reads=(Symbols(space, [[1, 0]]),), writes=(Symbols(space, [[0], [1]]),)),
        L=Blocks.of([[0.0, 1.0], [-space.k2 - symbol(mass, space) ** 2, 0.0]], space.dim),
        space=space,
        x0=x0,
        t=(0.0, t),
        dt=0.1,
        labels=("u", "u_t"),
        invariants={"energy": energy(space, 1.0, potential)},
        view=seen(space, "u", lambda x: x.select(-1 - space.dim, 0)),
    )


@system("Klein 1926; Gordon 1926", above_zero=("length",))
def klein_gordon(
    mass: float = 1.0, strength: float = 1.0, length: float = 40.0, n: int = 256, dim: int = 1,
    walls: str = "periodic",
) -> PDE:  # fmt: skip
    """u_tt = Delta u - m^2 u - g u^3 in 1 to 3 dimensions; the state is (u, u_t), walls as of `wave`.

    Good values: dt = 0.1; 5 points to a unit of length. At g = 0 a step of any length is exact. Starts from
    a hump of height 1 at rest.
    """
    space = box(length, n, dim, walls, dealias=1 / 2)
    u = hump(space, 1.5)

    def potential(u: Tensor) -> Tensor:
        return wide(mass, dim) ** 2 * u * u / 2 + wide(strength, dim) * u**4 / 4

    force = lambda u: -wide(strength, dim + 1) * u**3  # noqa: E731
    return second_order(space, mass, force, potential, torch.stack([u, 0 * u])[None], 40.0)


@system("Frenkel and Kontorova 1939; Ablowitz et al. 1973", above_zero=("length",))
def sine_gordon(frequency: float = 0.6, length: float = 40.0, n: int = 256) -> PDE:
    """u_tt = u_xx - sin u, periodic; the state is (u, u_t), and -u is in the block.

    Starts from a breather of frequency w, 0 < w < 1, which swings in place: u = 4 atan(q/w sin(w t)/cosh(q (x
    - L/2))), q^2 = 1 - w^2. Good values: dt = 0.1; a length at which e^(-q L/2) is small enough.
    """
    space = box(length, n)
    q2 = 1 - torch.as_tensor(symbol(frequency, space), dtype=torch.float64) ** 2
    if not bool(((q2 > 0) & (q2 < 1)).all()):
        raise ArgumentError(f"frequency = {frequency}: a breather's is between 0 and 1")
    v = 4 * q2.sqrt() / torch.cosh(q2.sqrt() * (space.x[0] - length / 2))
    x0 = torch.stack([0 * v, v], -2).view(-1, 2, n)
    return second_order(space, 1.0, lambda u: u - torch.sin(u), lambda u: 1 - torch.cos(u), x0, 60.0)


@system("de Saint-Venant 1871; Vallis 2017, ch. 3", above_zero=("length", "depth", "gravity"))
def shallow_water(
    depth: float = 1.0, gravity: float = 1.0, coriolis: float = 1.0, viscosity: float = 0.0,
    length: float = 2 * math.pi, n: int = 128, dim: int = 2,
) -> PDE:  # fmt: skip
    """h_t + div((H + h) u) = 0, u_t + (u.grad) u + f z x u = -g grad h + nu Delta u, periodic.

    The state is (h, u, v), h the surface above the mean depth H. In one dimension nothing depends on y; v is
    there because of the rotation. Gravity waves and the rotation are in the block, and exact. The rest is in
    the form that keeps mass to round-off: -div(h u), and in place of the advection (v, -u) times the
    vorticity minus grad |u|^2/2.

    Good values: dt = 0.02 at 128 points while |u| is below 0.3; steep fronts want a viscosity of about
    2/n^2. Starts from a hump of 0.1 at rest, which sends out gravity waves and leaves a vortex behind.
    """
    if dim > 2:
        raise ArgumentError(f"dim = {dim}: 1 or 2")
    space, at = box(length, n, dim), -1 - dim
    H, g, f, nu = (symbol(value, space) for value in (depth, gravity, coriolis, viscosity))
    x, y = space.d(0), space.d(1) if dim == 2 else 0.0
    damped = -nu * space.k2

    def products(fields: Tensor) -> Tensor:
        h, u, v, vorticity = fields.unbind(at)
        return torch.stack([h * u, h * v, vorticity * u, vorticity * v, (u * u + v * v) / 2], at)

    raised = 0.1 * hump(space, length / 24)
    return PDE(
        f=Pointwise(
            space,
            products,
            reads=(Symbols(space, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -y, x]]),),
            writes=(Symbols(space, [[-x, -y, 0, 0, 0], [0, 0, 0, 1, -x], [0, 0, -1, 0, -y]]),),
        ),
        L=Blocks.of([[0.0, -H * x, -H * y], [-g * x, damped, f], [-g * y, -f, damped]], dim),
        space=space,
        x0=torch.stack([raised, 0 * raised, 0 * raised])[None],
        t=(0.0, 20.0),
        dt=0.02,
        starts=band(space, components=(3,), std=0.02),
        labels=("h", "u", "v"),
        invariants={"mass": lambda state: mean(state.select(at, 0), dim)},
        view=seen(space, "h", lambda state: state.select(at, 0)),
    )
