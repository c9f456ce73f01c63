"""Equations of waves that disperse: solitons."""

from __future__ import annotations

import math

import torch

from ..spectral import Fourier, Pointwise
from .base import SpaceTime, system
from .pde import PDE


@system("Korteweg and de Vries 1895; Zabusky and Kruskal 1965", above_zero=("length",))
def korteweg_de_vries(length: float = 40.0, n: int = 256) -> PDE:
    """u_t + 6 u u_x + u_xxx = 0, periodic. A soliton of speed c is c/2 sech^2(sqrt(c)/2 (x - c t)).

    Good values: dt = 0.002 at 256 points on 40; a fast soliton overtakes a slow one and both come out as
    they were.
    """
    space = Fourier(length, n)
    x = space.x[0]

    def soliton(c: float, at: float) -> torch.Tensor:
        return c / 2 / torch.cosh(math.sqrt(c) / 2 * (x - at)) ** 2

    return PDE(
        f=Pointwise(space, lambda u: u * u, writes=(-3 * space.d(),)),
        L=-space.d(order=3),
        space=space,
        x0=(soliton(4.0, length / 4) + soliton(1.0, length / 2))[None],
        t=(0.0, 10.0),
        dt=0.002,
        invariants={"mass": lambda u: u.mean(-1), "momentum": lambda u: (u * u).mean(-1)},
        view=SpaceTime(lambda u: u, "x", "u", 0.0, length),
    )
