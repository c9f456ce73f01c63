"""Where bodies begin: random ones, the same for a seed whatever how many are asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..noise import Noise

# Where an au, a solar mass and G are 1: a velocity of 1 in km/s, 29.785, and a year, nearly 2 pi.
AU, SUN = 149597870.7, 1.32712440018e11  # km; G times its mass, km^3/s^2
KM_S = math.sqrt(SUN / AU)
YEAR = 365.25 * 86400 * KM_S / AU


def three_stars_at(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Places and velocities [n, 3, 2] of three bodies of one solar mass in a plane, in au and G = 1.

    Body 1 in the origin with (0, 10) km/s, body 2 uniform in [5, 20] x [0, 10] au with (-10, 0) km/s, body 3
    uniform in [-10, 0] x [5, 20] au at rest: the starts of P001. `YEAR` is one.
    """
    u = Noise(seed, range(n), (2, 2)).uniform(0)
    second = torch.stack([5 + 15 * u[:, 0, 0], 10 * u[:, 0, 1]], 1)
    third = torch.stack([-10 * u[:, 1, 0], 5 + 15 * u[:, 1, 1]], 1)
    q = torch.stack([torch.zeros_like(second), second, third], 1)
    v = torch.tensor([[0.0, 10.0], [-10.0, 0.0], [0.0, 0.0]], dtype=u.dtype) / KM_S
    return q, v.expand_as(q).clone()


def plummer_sphere(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Places and velocities [n, 3] of n bodies of mass 1/n, drawn from Plummer's model in Henon's units.

    G = 1, total mass 1, energy -1/4, in virial equilibrium: the scale is 3 pi/16. The mass within r is
    r^3/(r^2 + a^2)^(3/2); the density of g, the speed over that of escape, is g^2 (1 - g^2)^(7/2), drawn by
    rejection (Aarseth, Henon and Wielen 1974). Beyond 10 a nobody is put.
    """
    a, draws = 3 * math.pi / 16, Noise(seed, range(n), (69,)).uniform(0)
    inside = draws[:, 0] * (10**2 / (10**2 + 1)) ** 1.5
    r = a / (inside ** (-2 / 3) - 1).sqrt()
    g, y = draws[:, 5:37], draws[:, 37:69] * 0.1
    taken = (y < g.square() * (1 - g.square()) ** 3.5).to(torch.int8)
    speed = g.gather(1, taken.argmax(1, keepdim=True))[:, 0]
    escape = math.sqrt(2) * (r.square() + a * a) ** -0.25
    return r[:, None] * _directions(draws[:, 1:3]), (speed * escape)[:, None] * _directions(draws[:, 3:5])


def _directions(u: Tensor) -> Tensor:
    """Uniform on the sphere [n, 3], of uniforms [n, 2]."""
    z, angle = 2 * u[:, 0] - 1, 2 * math.pi * u[:, 1]
    flat = (1 - z * z).clamp_min(0).sqrt()
    return torch.stack([flat * angle.cos(), flat * angle.sin(), z], 1)
