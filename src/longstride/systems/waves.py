"""Equations of the second order in time, as pairs (u, u_t), and of waves on shallow water."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..blocks import Blocks
from ..errors import ArgumentError
from ..spectral import Fourier, Pointwise, Symbols, box, nothing
from .base import Frames, SpaceTime, system
from .pde import PDE

View = SpaceTime | Frames


def grid(length: float, n: int, dim: int, most: int, dealias: float, walls: str = "periodic") -> Fourier:
    """A box of dim equal sides."""
    if dim > most:
        raise ArgumentError(f"dim = {dim}: 1 to {most}")
    return box([length] * dim, [n] * dim, walls, dealias=dealias)


def hump(space: Fourier, width: float) -> Tensor:
    """exp(-r^2/(2 width^2)) about the middle, [*n], with r = L/pi |sin(pi (x - L/2)/L)|: smooth where the box
    is periodic, and even at walls.
    """
    r2 = [(a / math.pi * torch.cos(math.pi / a * x)) ** 2 for x, a in zip(space.x, space.length, strict=True)]
    return torch.exp(-sum(r2[1:], r2[0]) / (2 * width**2))


def shown(space: Fourier, label: str) -> View:
    """The first field, on a line, or on the first two axes where a third is at its beginning."""
    if space.dim == 1:
        return SpaceTime(lambda x: x.select(-2, 0), "x", label, 0.0, space.length[0])
    lengths = (space.length[0], space.length[1])
    if space.dim == 2:
        return Frames(lambda x: x.select(-3, 0), label, lengths)
    return Frames(lambda x: x.select(-4, 0)[..., 0], label, lengths)


def energy(space: Fourier, speed: float, potential: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The mean of u_t^2/2 - c^2 u Laplace u/2 + potential(u): walls as here take no part in it."""

    def of(x: Tensor) -> Tensor:
        u, v = x.unbind(-1 - space.dim)
        c = space.enter(u)
        bent = space.leave(speed**2 * space.k2.to(c.device, c.dtype.to_real()) * c)
        return ((v * v + u * bent) / 2 + potential(u)).mean(tuple(space.axes))

    return of


@system("d'Alembert 1747", above_zero=("length", "speed"))
def wave(
    length: float = 2 * math.pi, n: int = 128, dim: int = 1, speed: float = 1.0, walls: str = "periodic"
) -> PDE:
    """u_tt = c^2 Laplace u in 1 to 3 dimensions; the state is (u, u_t).

    walls: "periodic", "neumann" (a free end) or "dirichlet" (a fixed end), or one for each axis:
    "periodic,neumann".

    Exact at any dt: one step goes as far as one likes. Starts from a hump at rest.
    """
    space = grid(length, n, dim, 3, 1.0, walls)
    w2 = speed**2 * space.k2

    def exact(t: float, x0: Tensor) -> Tensor:
        u, v = space.enter(x0).unbind(-1 - dim)
        w = w2.sqrt()
        cos, sin = torch.cos(w * t), torch.where(w > 0, torch.sin(w * t) / torch.where(w > 0, w, 1), t)
        return space.leave(torch.stack([cos * u + sin * v, cos * v - w2 * sin * u], -1 - dim))

    u = hump(space, length / 24)
    return PDE(
        f=nothing,
        L=Blocks.of([[0.0, 1.0], [-w2, 0.0]]),
        space=space,
        x0=torch.stack([u, 0 * u])[None],
        t=(0.0, length / float(speed)),
        dt=length / float(speed) / 64,
        labels=("u", "u_t"),
        invariants={"energy": energy(space, speed, torch.zeros_like)},
        exact=exact,
        view=shown(space, "u"),
    )


def second_order(
    space: Fourier, mass: float, force: Callable[[Tensor], Tensor], potential: Callable[[Tensor], Tensor],
    u: Tensor, v: Tensor, t: float, dt: float,
) -> PDE:  # fmt: skip
    """u_tt = Laplace u - m^2 u + force(u), potential the whole one: what is linear is in the block."""
    return PDE(
        f=Pointwise(space, force, reads=(Symbols(space, [[1, 0]]),), writes=(Symbols(space, [[0], [1]]),)),
        L=Blocks.of([[0.0, 1.0], [-space.k2 - mass**2, 0.0]]),
        space=space,
        x0=torch.stack([u, v])[None],
        t=(0.0, t),
        dt=dt,
        labels=("u", "u_t"),
        invariants={"energy": energy(space, 1.0, potential)},
        view=shown(space, "u"),
    )


@system("Klein 1926; Gordon 1926", above_zero=("length",))
def klein_gordon(
    length: float = 40.0,
    n: int = 256,
    dim: int = 1,
    mass: float = 1.0,
    strength: float = 1.0,
    walls: str = "periodic",
) -> PDE:
    """u_tt = Laplace u - m^2 u - g u^3 in 1 to 3 dimensions; the state is (u, u_t), walls as of `wave`.

    Good values: dt = 0.1; 5 points to a unit of length. At g = 0 a step of any length is exact. Starts from
    a hump of height 1 at rest.
    """
    space = grid(length, n, dim, 3, 1 / 2, walls)
    u = hump(space, 1.5)
    potential = lambda u: mass**2 * u * u / 2 + strength * u**4 / 4  # noqa: E731
    return second_order(space, mass, lambda u: -strength * u**3, potential, u, 0 * u, 40.0, 0.1)


@system("Frenkel and Kontorova 1939; Ablowitz et al. 1973", above_zero=("length",))
def sine_gordon(length: float = 40.0, n: int = 256, frequency: float = 0.6) -> PDE:
    """u_tt = u_xx - sin u, periodic; the state is (u, u_t), and -u is in the block.

    A breather of frequency w, 0 < w < 1, swings in place: 4 atan(q/w sin(w t)/cosh(q (x - L/2))), q^2 = 1 -
    w^2. Good values: dt = 0.1; a length at which e^(-q L/2) is small enough.
    """
    space = Fourier(length, n)
    if not 0 < frequency < 1:
        raise ArgumentError(f"frequency = {frequency}: a breather's is between 0 and 1")
    q = math.sqrt(1 - frequency**2)
    shape = q / frequency / torch.cosh(q * (space.x[0] - length / 2))
    breather = lambda t: 4 * torch.atan(shape * math.sin(frequency * t))  # noqa: E731
    return second_order(
        space, 1.0, lambda u: u - torch.sin(u), lambda u: 1 - torch.cos(u),
        breather(0.0), 4 * frequency * shape, 60.0, 0.1,
    )  # fmt: skip


@system("de Saint-Venant 1871; Vallis 2017, ch. 3", above_zero=("length", "depth", "gravity"))
def shallow_water(
    length: float = 2 * math.pi, n: int = 128, dim: int = 2, depth: float = 1.0, gravity: float = 1.0,
    coriolis: float = 1.0, viscosity: float = 0.0,
) -> PDE:  # fmt: skip
    """h_t + div((H + h) u) = 0, u_t + (u.grad) u + f z x u = -g grad h + nu Laplace u, periodic.

    The state is (h, u, v), h the surface above the mean depth H. In one dimension nothing depends on y; v is
    there because of the rotation. Gravity waves and the rotation are in the block, and exact. The rest is in
    the form that keeps mass to round-off: -div(h u), and in place of the advection (v, -u) times the
    vorticity minus grad |u|^2/2.

    Good values: dt = 0.02 at 128 points while |u| is below 0.3; steep fronts want a viscosity of about
    2/n^2. Starts from a hump of 0.1 at rest, which sends out gravity waves and leaves a vortex behind.
    """
    space = grid(length, n, dim, 2, 2 / 3)
    x, y = space.d(0), space.d(1) if dim == 2 else 0.0
    damped, at = -viscosity * space.k2, -1 - dim

    def products(fields: Tensor) -> Tensor:
        h, u, v, vorticity = fields.unbind(at)
        return torch.stack([h * u, h * v, vorticity * u, vorticity * v, (u * u + v * v) / 2], at)

    def mean(values: Tensor) -> Tensor:
        return values.mean(tuple(space.axes))

    def energy(state: Tensor) -> Tensor:
        h, u, v = state.unbind(at)
        return mean((depth + h) * (u * u + v * v) + gravity * h * h) / 2

    invariants = {"mass": lambda state: mean(state.select(at, 0))}
    raised = 0.1 * hump(space, length / 24)
    return PDE(
        f=Pointwise(
            space, products,
            reads=(Symbols(space, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -y, x]]),),
            writes=(Symbols(space, [[-x, -y, 0, 0, 0], [0, 0, 0, 1, -x], [0, 0, -1, 0, -y]]),),
        ),
        L=Blocks.of([
            [0.0, -depth * x, -depth * y],
            [-gravity * x, damped, coriolis],
            [-gravity * y, -coriolis, damped],
        ]),
        space=space,
        x0=torch.stack([raised, 0 * raised, 0 * raised])[None],
        t=(0.0, 20.0),
        dt=0.02,
        labels=("h", "u", "v"),
        invariants={**invariants, "energy": energy} if viscosity == 0 else invariants,
        view=shown(space, "h"),
    )  # fmt: skip
