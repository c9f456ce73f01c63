"""Substances that react and diffuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..spectral import Fourier, Pointwise, Symbols, band
from .base import system, wide
from .pde import PDE, box, seen, several, symbol


@system("Fisher 1937; Kolmogorov, Petrovsky and Piskunov 1937", above_zero=("diffusivity", "length"))
def fisher_kpp(
    diffusivity: float = 1.0,
    r: float = 1.0,
    length: float = 100.0,
    n: int = 256,
    dim: int = 1,
    walls: str = "periodic",
) -> PDE:
    """u_t = D Delta u + r u (1 - u): a population that grows to 1 and spreads with the speed 2 sqrt(r D).

    Good values: two points or more to sqrt(D/r), dt = 0.1. Ahead of a front round-off below 0 grows as e^(r
    t): let it fill the box by t = 30/r.
    """
    space = box(length, n, dim, walls)
    return PDE(
        f=Pointwise(space, lambda u: -wide(r, dim) * u * u),
        L=symbol(r, space) - symbol(diffusivity, space) * space.k2,
        space=space,
        x0=torch.exp(-_distance2(space) / 4)[None],
        t=(0.0, 20.0),
        dt=0.1,
        starts=band(space, between=(0.0, 1.0)),
        view=seen(space),
    )


@system("Gray and Scott 1984; Pearson 1993", above_zero=("diffusivity_u", "diffusivity_v", "length"))
def gray_scott(
    feed: float = 0.04,
    kill: float = 0.06,
    diffusivity_u: float = 2e-5,
    diffusivity_v: float = 1e-5,
    length: float = 1.25,
    n: int = 128,
    dim: int = 2,
    walls: str = "periodic",
) -> PDE:
    """u_t = D_u Delta u - u v^2 + F (1 - u), v_t = D_v Delta v + u v^2 - (F + k) v: v eats u, which is fed.

    Good values: a hundred points to a unit of length, dt = 2; F = 0.04, k = 0.06 makes worms, F = 0.03, k =
    0.062 spots that divide, F = 0.025, k = 0.05 waves without end.
    """
    space = box(length, n, dim, walls, dealias=1 / 2)
    fed, lost = symbol(feed, space), symbol(feed + kill, space)
    none = torch.zeros([1] * dim, dtype=torch.float64)

    def eaten(x: Tensor) -> Tensor:
        u, v = x.split(1, -dim - 1)
        return (u * v).mul_(v)

    reaction = Pointwise(
        space,
        eaten,
        writes=(several(none - 1, none + 1, space=space),),
        linear=several(none - fed, none - lost, space=space),
        source=several(fed * _one(space), none, space=space),
    )
    return PDE(
        f=reaction,
        L=several(
            -symbol(diffusivity_u, space) * space.k2, -symbol(diffusivity_v, space) * space.k2, space=space
        ),
        space=space,
        x0=mixed(_spots(space)[None]),
        t=(0.0, 4000.0),
        dt=2.0,
        starts=band(space, through=patches),
        labels=("u", "v"),
        view=seen(space, "v", lambda x: x.select(-dim - 1, 1)),
    )


@system("FitzHugh 1961; Nagumo, Arimoto and Yoshizawa 1962", above_zero=("diffusivity", "tau", "length"))
def fitzhugh_nagumo_waves(
    diffusivity: float = 1.0,
    a: float = 0.7,
    b: float = 0.5,
    tau: float = 12.5,
    current: float = 0.0,
    length: float = 120.0,
    n: int = 128,
    dim: int = 2,
    walls: str = "periodic",
) -> PDE:
    """v_t = D Delta v + v - v^3/3 - w + I, tau w_t = v + a - b w: nerve cells (`fitzhugh_nagumo`) that excite
    their neighbours.

    Good values: one point or more to sqrt(D), dt = 0.2. The end of a broken wave curls into a spiral at
    b = 0.5; at b = 0.8 it only grows.
    """
    space = box(length, n, dim, walls, dealias=1 / 2)
    slow, none = symbol(tau, space), torch.zeros([1] * dim, dtype=torch.float64)
    reaction = Pointwise(
        space,
        lambda v: v**3,
        reads=(Symbols(space, [[1, 0]]),),
        writes=(several(none - 1 / 3, none, space=space),),
        linear=Symbols(space, [[0, -1], [1 / (none + slow), 0]]),
        source=several(
            symbol(current, space) * _one(space), symbol(a, space) / slow * _one(space), space=space
        ),
    )
    recovery = -symbol(b, space) / slow + torch.zeros(space.shape, dtype=torch.float64)
    return PDE(
        f=reaction,
        L=several(1 - symbol(diffusivity, space) * space.k2, recovery, space=space),
        space=space,
        x0=_broken_wave(space)[None],
        t=(0.0, 200.0),
        dt=0.2,
        labels=("v", "w"),
        view=seen(space, "v", lambda x: x.select(-dim - 1, 0)),
    )


def mixed(spots: Tensor) -> Tensor:
    """u and v of 1/2 where spots are 1, of 1 and 0 where they are 0."""
    return torch.stack([1 - spots / 2, spots / 2], 1)


def patches(g: Tensor) -> Tensor:
    """`mixed`, with spots where a field of std 1 is above 1."""
    return mixed(torch.sigmoid(10 * (g - 1)))


def _distance2(space: Fourier, at: Sequence[float] = (0.5, 0.5, 0.5)) -> Tensor:
    """From a place, in parts of the box, squared."""
    total = torch.zeros(space.n, dtype=torch.float64)
    for x, length, part in zip(space.x, space.length, at, strict=False):
        total = total + (x - part * length) ** 2
    return total


def _spots(space: Fourier) -> Tensor:
    """A few smooth spots of height 1 near the middle, not quite symmetric."""
    total = torch.zeros(space.n, dtype=torch.float64)
    for i in range(5):
        at = [0.5 + 0.12 * math.cos(2.4 * i + axis) * math.sqrt(i) for axis in range(space.dim)]
        total += torch.exp(-_distance2(space, at) / (0.06 * space.length[0]) ** 2)
    return 1 - torch.exp(-total)


def _broken_wave(space: Fourier) -> Tensor:
    """A piece of a wave that runs along the first axis: excited ahead, tired behind, at rest elsewhere."""

    def within(axis: int, first: float, last: float) -> Tensor:
        x = space.x[axis] / space.length[axis]
        return (torch.tanh((x - first) / 0.015) - torch.tanh((x - last) / 0.015)) / 2

    piece = within(1, 0.25, 0.75) if space.dim > 1 else torch.ones((), dtype=torch.float64)
    rest = torch.tensor([-1.0328, -0.6656], dtype=torch.float64)  # of the default parameters
    v = rest[0] + 3.0 * within(0, 0.47, 0.53) * piece
    w = rest[1] + 1.3 * within(0, 0.28, 0.47) * piece
    return torch.stack([v.expand(space.n), w.expand(space.n)])


def _one(space: Fourier) -> Tensor:
    """The coefficients of 1."""
    return space.enter(torch.ones(space.n, dtype=torch.float64))
