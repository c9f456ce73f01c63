"""Bodies as `nbody.Gravity` has them: three stars, the Pythagorean three, planets, clusters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..nbody import YEAR, Attraction, Gravity, plummer_sphere, three_stars_at
from .base import Plane, System, system

F64 = torch.float64
HIGH = ("gauss_radau_15", "vern9", "dopri8")

# Hairer, Lubich and Wanner 2006, table I.2.2, from Ahnert's calendar for 1994: masses over the Sun's, au, au
# a day, on 5 September 1994, 0 h. The Sun's mass has those of the inner planets in it.
G_DAYS = 2.95912208286e-4
PLANETS = {
    "Sun": (1.00000597682, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    "Jupiter": (
        0.000954786104043, (-3.5023653, -3.8169847, -1.5507963), (0.00565429, -0.00412490, -0.00190589)
    ),
    "Saturn": (
        0.000285583733151, (9.0755314, -3.0458353, -1.6483708), (0.00168318, 0.00483525, 0.00192462)
    ),
    "Uranus": (
        0.0000437273164546, (8.3101420, -16.2901086, -7.2521278), (0.00354178, 0.00137102, 0.00055029)
    ),
    "Neptune": (
        0.0000517759138449, (11.4707666, -25.7294829, -10.8169456), (0.00288930, 0.00114527, 0.00039677)
    ),
    "Pluto": (1 / 1.3e8, (-15.5387357, -25.2225594, -3.1902382), (0.00276725, -0.00170702, -0.00136504)),
}  # fmt: skip


@system("Saz Ulibarrena and Portegies Zwart 2025")
def three_body(seed: int = 1) -> System:
    """Three bodies of one solar mass in a plane, from random places: au, solar masses, G = 1.

    A year is `nbody.YEAR`, nearly 2 pi; the span is 30 of them. Chaotic, with close encounters; mostly one
    body leaves in the end. `nbody.three_stars_at` gives any number of such starts.
    """
    gravity = Gravity(torch.ones(3, dtype=F64))
    return of_bodies(gravity, *three_stars_at(1, seed), 30 * YEAR)


@system("Burrau 1913; Szebehely and Peters 1967")
def burrau() -> System:
    """Masses 3, 4, 5 at rest in the corners of a triangle, each opposite the side of its length.

    After many close encounters, one of 4e-4 at t = 15.83, body 3 is thrown out and 4 and 5 stay a pair.
    """
    q = torch.tensor([[1.0, 3.0], [-2.0, -1.0], [1.0, -1.0]], dtype=F64)
    return of_bodies(Gravity(torch.tensor([3.0, 4.0, 5.0], dtype=F64)), q, torch.zeros_like(q), 70.0)


@system("Hairer, Lubich and Wanner 2006, I.2.4; Ahnert 1994")
def outer_solar_system() -> System:
    """The Sun and five outer planets, in au, days and solar masses, from 5 September 1994.

    Regular: splittings with steps of 100 days follow them for any time, `wisdom_holman` with 300.
    """
    mass, q, v = (torch.tensor(part, dtype=F64) for part in zip(*PLANETS.values(), strict=True))
    return of_bodies(Gravity(mass, G=G_DAYS), q, v, 200_000.0, ("wisdom_holman",))


@system("Plummer 1911; Aarseth, Henon and Wielen 1974")
def plummer(n: int = 32, seed: int = 1) -> System:
    """A cluster of n equal bodies in virial equilibrium: G = 1, mass 1, energy near -1/4, softening 1/n.

    A crossing takes 2 sqrt 2. Thousands of bodies are well.
    """
    gravity = Gravity(torch.full((n,), 1 / n, dtype=F64), softening=1 / n)
    return of_bodies(gravity, *plummer_sphere(n, seed), 2 * math.sqrt(2))


def of_bodies(gravity: Gravity, q: Tensor, v: Tensor, end: float, more: tuple[str, ...] = ()) -> System:
    """The system of these bodies, in the frame of their centre: a start, what is kept, a view.

    q, v: [N, d] or [1, N, d].  end: of the span.  more: methods that suit it, after the usual ones.
    """
    x0, axes = gravity.start(q, v), "xyz"[: q.shape[-1]]

    def turning(i: int) -> Any:
        return lambda x: gravity.angular_momentum(x)[..., i]

    def moving(i: int) -> Any:
        return lambda x: gravity.momentum(x)[..., i]

    turns = {"z": 0} if len(axes) == 2 else {axis: i for i, axis in enumerate(axes)}
    return System(
        gravity.rate,
        acceleration=Attraction(gravity),
        check=gravity.check,
        x0=x0,
        t=(0.0, end),
        labels=tuple(
            f"{axis}_{i + 1}{prime}" for prime in ("", "'") for i in range(x0.shape[2]) for axis in axes
        ),
        invariants={
            "energy": gravity.energy,
            **{f"angular momentum {axis}": turning(i) for axis, i in turns.items()},
            **{f"momentum {axis}": moving(i) for i, axis in enumerate(axes)},
        },
        rtol=1e-9,
        methods=HIGH + more,
        view=Plane(lambda x: x[..., 0, :, :2], ("x", "y"), equal=True),
    )
