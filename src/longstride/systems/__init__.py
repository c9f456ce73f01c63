"""Ready problems: equations as data. Each function builds a `System`, an ODE that `ls.solve` takes."""

from .base import SYSTEMS, Plane, Series, SpaceTime, System, get, list_systems
from .chaos import lorenz63, lorenz96, roessler
from .classic import (
    double_pendulum,
    exponential_decay,
    harmonic_oscillator,
    henon_heiles,
    pendulum,
    rigid_body,
)
from .dispersive import korteweg_de_vries
from .gravity import burrau, outer_solar_system, plummer, three_stars
from .orbits import arenstorf, kepler, pleiades, three_body
from .patterns import kuramoto_sivashinsky
from .pde import PDE
from .reactions import brusselator, brusselator_1d, hires, oregonator, robertson
from .relaxation import fitzhugh_nagumo, lotka_volterra, van_der_pol

__all__ = [
    "PDE",
    "SYSTEMS",
    "Plane",
    "Series",
    "SpaceTime",
    "System",
    "arenstorf",
    "brusselator",
    "brusselator_1d",
    "burrau",
    "double_pendulum",
    "exponential_decay",
    "fitzhugh_nagumo",
    "get",
    "harmonic_oscillator",
    "henon_heiles",
    "hires",
    "kepler",
    "korteweg_de_vries",
    "kuramoto_sivashinsky",
    "list_systems",
    "lorenz63",
    "lorenz96",
    "lotka_volterra",
    "oregonator",
    "outer_solar_system",
    "pendulum",
    "pleiades",
    "plummer",
    "rigid_body",
    "robertson",
    "roessler",
    "three_body",
    "three_stars",
    "van_der_pol",
]
