"""Equations of waves that disperse: solitons."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..spectral import Pointwise
from .base import Number, SpaceTime, system, wide
from .pde import PDE, box, gradient, mean, seen


@system("Korteweg and de Vries 1895; Zabusky and Kruskal 1965", above_zero=("length",))
def korteweg_de_vries(length: float = 40.0, n: int = 256) -> PDE:
    """u_t + 6 u u_x + u_xxx = 0, periodic. A soliton of speed c is c/2 sech^2(sqrt(c)/2 (x - c t)).

    Good values: dt = 0.002 at 256 points on 40; a fast soliton overtakes a slow one and both come out as
    they were.
    """
    space = box(length, n)
    x = space.x[0]

    def soliton(c: float, at: float) -> Tensor:
        return c / 2 / torch.cosh(math.sqrt(c) / 2 * (x - at)) ** 2

    def energy(u: Tensor) -> Tensor:
        return mean(gradient(space, u)[0] ** 2 / 2 - u**3)

    return PDE(
        f=Pointwise(space, lambda u: u * u, writes=(-3 * space.d(),)),
        L=-space.d(order=3),
        space=space,
        x0=(soliton(4.0, length / 4) + soliton(1.0, length / 2))[None],
        t=(0.0, 10.0),
        dt=0.002,
        invariants={"mass": mean, "momentum": lambda u: mean(u * u), "energy": energy},
        view=SpaceTime(lambda u: u, "x", "u", 0.0, length),
    )


@system("Zakharov and Shabat 1972; Agrawal 2019", above_zero=("length",))
def nonlinear_schroedinger(kappa: Number = 1.0, length: float = 40.0, n: int = 256, dim: int = 1) -> PDE:
    """i u_t + 1/2 Delta u + kappa |u|^2 u = 0, u complex; kappa > 0 focuses, kappa < 0 defocuses.

    Bright solitons a sech(a (x - v t)) e^(i v x + i (a^2 - v^2) t/2) at kappa = 1, trains of dark ones at
    kappa = -1: a sqrt(m) sn(a x | m) e^(-i a^2 (1 + m) t/2).

    Good values: dt = 0.005 at 256 points on 40: two solitons meet and go through each other. In two
    dimensions take kappa < 0: what focuses collapses where its power is above 11.7/kappa.
    """
    space = box(length, n, dim, real=False, dealias=1 / 2)

    def soliton(v: float, at: float) -> Tensor:
        r2 = sum(((x - place) ** 2 for x, place in zip(space.x, [at, *[length / 2] * dim], strict=False)))
        return torch.exp(1j * v * space.x[0]) / torch.cosh(torch.sqrt(r2))  # type: ignore[arg-type]

    def energy(u: Tensor) -> Tensor:
        slope, power = gradient(space, u).abs().square().sum(0), u.abs() ** 4
        return mean(slope / 2, dim) - kappa / 2 * mean(power, dim)

    def momentum(u: Tensor) -> Tensor:
        return mean((u.conj() * gradient(space, u)[0]).imag, dim)

    k = 2 * math.pi / length  # velocities that are periodic on the box
    return PDE(
        f=Pointwise(space, lambda u: 1j * wide(kappa, dim) * u.abs().square() * u),
        L=-0.5j * space.k2,
        space=space,
        x0=(soliton(6 * k, length / 4) + soliton(-6 * k, 3 * length / 4))[None],
        t=(0.0, 20.0),
        dt=0.005,
        invariants={"power": lambda u: mean(u.abs() ** 2, dim), "momentum": momentum, "energy": energy},
        view=seen(space, "|u|", torch.abs),
    )
