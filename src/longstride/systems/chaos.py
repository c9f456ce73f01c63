"""Lorenz 63 and 96, Roessler."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import whole
from .base import Number, Plane, SpaceTime, System, stacked, state, system, wide


@system("Lorenz 1963")
def lorenz63(sigma: Number = 10.0, rho: Number = 28.0, beta: Number = 8 / 3) -> System:
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z: convection, cut down to three modes.

    Good values: the defaults, chaotic, with the largest Lyapunov exponent 0.906; rho = 14 comes to rest at
    (+-c, +-c, rho - 1), c^2 = beta (rho - 1); rho = 100.5 comes to a periodic orbit. Volumes shrink as
    e^(-(sigma + 1 + beta) t).
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v, w = x.unbind(-1)
        return stacked(sigma * (v - u), u * (rho - w) - v, u * v - beta * w)

    return System(
        rate,
        x0=state(1.0, 1.0, 1.0),
        t=(0.0, 40.0),
        labels=("x", "y", "z"),
        view=Plane(lambda x: x[..., None, ::2], ("x", "z")),
    )


@system("Lorenz 1996")
def lorenz96(n: int = 40, F: Number = 8.0) -> System:
    """x_i' = (x_(i+1) - x_(i-2)) x_(i-1) - x_i + F on a ring of n: a caricature of the weather at a latitude.

    The quadratic part keeps sum x_i^2: half of it changes by -sum x_i^2 + F sum x_i alone.

    Good values: F = 8 and n = 40, chaotic, with errors doubling in 0.4 (2 days); F < 8/9 comes to rest at F.
    """
    whole("n", n, 4)

    def rate(t: Tensor, x: Tensor) -> Tensor:
        back = torch.roll(x, 1, -1)
        return (torch.roll(x, -1, -1) - torch.roll(x, 2, -1)) * back - x + wide(F)

    start = state(F).repeat(1, n)
    start[..., n // 2] += 0.01
    return System(
        rate,
        x0=start,
        t=(0.0, 30.0),
        labels=tuple(f"x_{i}" for i in range(1, n + 1)),
        view=SpaceTime(lambda x: x, "i", "x_i", 1, n),
    )


@system("Roessler 1976")
def roessler(a: Number = 0.2, b: Number = 0.2, c: Number = 5.7) -> System:
    """x' = -y - z, y' = x + a y, z' = b + z (x - c): one band, stretched and folded.

    Good values: the defaults, chaotic; c = 2.5 is a cycle, 3.5 one of twice the period, 4 of four times.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v, w = x.unbind(-1)
        return stacked(-v - w, u + a * v, b + w * (u - c))

    return System(
        rate,
        x0=state(1.0, 1.0, 0.0),
        t=(0.0, 200.0),
        labels=("x", "y", "z"),
        view=Plane(lambda x: x[..., None, :2], ("x", "y")),
    )
