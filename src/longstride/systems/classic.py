"""Decay, oscillators, pendulums, the free top."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Number, Plane, System, stacked, state, system, wide


@system("Dahlquist 1963", above_zero=("rate",))
def exponential_decay(rate: Number = 1.0) -> System:
    """x' = -rate x, so x = e^(-rate t) x0.

    Good values: 1; at 1000 and more over the default span explicit methods are bound by stability.
    """
    return System(
        lambda t, x: -wide(rate) * x,
        x0=state(1.0),
        t=(0.0, 5.0),
        labels=("x",),
        exact=lambda t, x0: torch.exp(-wide(rate) * torch.as_tensor(t)) * x0,
    )


@system("Hairer, Lubich and Wanner 2006", above_zero=("omega",))
def harmonic_oscillator(omega: Number = 1.0) -> System:
    """q' = p, p' = -omega^2 q: an ellipse of energy (p^2 + omega^2 q^2)/2."""

    def rate(t: Tensor, x: Tensor) -> Tensor:
        q, p = x.unbind(-1)
        return stacked(p, -(omega**2) * q)

    def exact(t: float, x0: Tensor) -> Tensor:
        q, p = x0.unbind(-1)
        angle = torch.as_tensor(omega * t, dtype=x0.dtype, device=x0.device)
        c, s = torch.cos(angle), torch.sin(angle)
        return stacked(c * q + s * p / omega, c * p - omega * s * q)

    def energy(x: Tensor) -> Tensor:
        return (x[..., 1] ** 2 + omega**2 * x[..., 0] ** 2) / 2

    return System(
        rate,
        x0=state(1.0, 0.0),
        t=(0.0, 20.0),
        labels=("q", "p"),
        invariants={"energy": energy},
        exact=exact,
    )


@system("Hairer, Lubich and Wanner 2006", above_zero=("omega",))
def pendulum(omega: Number = 1.0) -> System:
    """theta'' = -omega^2 sin theta, as (theta, theta').

    From rest at angle a the period is 4 K(sin(a/2))/omega, with K the complete elliptic integral.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        angle, speed = x.unbind(-1)
        return stacked(speed, -(omega**2) * torch.sin(angle))

    return System(
        rate,
        x0=state(2.0, 0.0),
        t=(0.0, 20.0),
        labels=("theta", "theta'"),
        invariants={"energy": lambda x: x[..., 1] ** 2 / 2 - omega**2 * torch.cos(x[..., 0])},
        view=Plane(lambda x: x[..., None, :], ("theta", "theta'")),
    )


@system("Shinbrot et al. 1992", above_zero=("m1", "m2", "l1", "l2"))
def double_pendulum(
    m1: Number = 1.0, m2: Number = 1.0, l1: Number = 1.0, l2: Number = 1.0, g: Number = 9.81
) -> System:
    """Two bobs on rods without mass, angles from the vertical: (theta_1, theta_2, theta_1', theta_2').

    Good values: the default start, high and at rest, is chaotic; angles below 0.1 are two normal modes.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        a, b, u, v = x.unbind(-1)
        sin, cos = torch.sin(a - b), torch.cos(a - b)
        share = 2 * m1 + m2 - m2 * torch.cos(2 * (a - b))
        pull = g * (2 * m1 + m2) * torch.sin(a) + m2 * g * torch.sin(a - 2 * b)
        du = -(pull + 2 * sin * m2 * (v**2 * l2 + u**2 * l1 * cos)) / (l1 * share)
        dv = 2 * sin * ((m1 + m2) * (u**2 * l1 + g * torch.cos(a)) + v**2 * l2 * m2 * cos) / (l2 * share)
        return stacked(u, v, du, dv)

    def energy(x: Tensor) -> Tensor:
        a, b, u, v = x.unbind(-1)
        swing = (m1 + m2) * (l1 * u) ** 2 + m2 * (l2 * v) ** 2
        moving = swing / 2 + m2 * l1 * l2 * u * v * torch.cos(a - b)
        return moving - (m1 + m2) * g * l1 * torch.cos(a) - m2 * g * l2 * torch.cos(b)

    def bobs(x: Tensor) -> Tensor:
        a, b = x[..., 0], x[..., 1]
        first = stacked(l1 * torch.sin(a), -l1 * torch.cos(a))
        return torch.stack([first, first + stacked(l2 * torch.sin(b), -l2 * torch.cos(b))], -2)

    return System(
        rate,
        x0=state(3 * math.pi / 4, math.pi / 2, 0.0, 0.0),
        t=(0.0, 20.0),
        labels=("theta_1", "theta_2", "theta_1'", "theta_2'"),
        invariants={"energy": energy},
        rtol=1e-9,
        methods=("vern7", "dopri8"),
        view=Plane(bobs, ("x", "y"), equal=True),
    )


@system("Henon and Heiles 1964")
def henon_heiles(coupling: Number = 1.0) -> System:
    """A star in a galaxy: H = (p^2 + x^2 + y^2)/2 + coupling (x^2 y - y^3/3), as (x, y, p_x, p_y).

    Good values: with coupling 1 orbits below the energy 1/12 are mostly regular, at 1/8, the default's,
    half of them chaotic, and above 1/6 they may escape. With coupling 0 it is two harmonic oscillators.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        q, r, u, v = x.unbind(-1)
        return stacked(u, v, -q - 2 * coupling * q * r, -r - coupling * (q**2 - r**2))

    def energy(x: Tensor) -> Tensor:
        q, r = x[..., 0], x[..., 1]
        return x.square().sum(-1) / 2 + coupling * (q**2 * r - r**3 / 3)

    return System(
        rate,
        x0=state(0.0, 0.1, math.sqrt(0.24 + 0.002 / 3), 0.0),
        t=(0.0, 200.0),
        labels=("x", "y", "p_x", "p_y"),
        invariants={"energy": energy},
        rtol=1e-9,
        methods=("vern7", "dopri8"),
        view=Plane(lambda x: x[..., None, :2], ("x", "y"), equal=True),
    )


@system("Euler 1765", above_zero=("I1", "I2", "I3"))
def rigid_body(I1: Number = 0.5, I2: Number = 2.0, I3: Number = 3.0) -> System:
    """A free top: I1 w1' = (I2 - I3) w2 w3 and so in turn, w its angular velocity along its own axes.

    Kept: the energy and the size of the angular momentum. Solutions are Jacobi's elliptic functions; turning
    about the axis between the largest and the smallest moment is unstable.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v, w = x.unbind(-1)
        return stacked((I2 - I3) / I1 * v * w, (I3 - I1) / I2 * w * u, (I1 - I2) / I3 * u * v)

    def energy(x: Tensor) -> Tensor:
        u, v, w = x.unbind(-1)
        return (I1 * u**2 + I2 * v**2 + I3 * w**2) / 2

    def momentum(x: Tensor) -> Tensor:
        u, v, w = x.unbind(-1)
        return ((I1 * u) ** 2 + (I2 * v) ** 2 + (I3 * w) ** 2).sqrt()

    return System(
        rate,
        x0=state(1.0, 0.0, 0.9),
        t=(0.0, 20.0),
        labels=("w1", "w2", "w3"),
        invariants={"energy": energy, "angular momentum": momentum},
    )
