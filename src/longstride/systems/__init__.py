"""Ready problems: equations as data. Each function builds a `System`, an ODE that `ls.solve` takes."""

from .base import SYSTEMS, Frames, Plane, Series, SpaceTime, System, get, list_systems
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
from .electromagnetism import maxwell
from .fluids_3d import navier_stokes_3d
from .orbits import arenstorf, kepler, pleiades, three_body
from .patterns import kuramoto_sivashinsky
from .pde import PDE
from .reactions import brusselator, brusselator_1d, hires, oregonator, robertson
from .relaxation import fitzhugh_nagumo, lotka_volterra, van_der_pol
from .waves import klein_gordon, shallow_water, sine_gordon, wave

__all__ = [
    "PDE",
    "SYSTEMS",
    "Frames",
    "Plane",
    "Series",
    "SpaceTime",
    "System",
    "arenstorf",
    "brusselator",
    "brusselator_1d",
    "double_pendulum",
    "exponential_decay",
    "fitzhugh_nagumo",
    "get",
    "harmonic_oscillator",
    "henon_heiles",
    "hires",
    "kepler",
    "klein_gordon",
    "korteweg_de_vries",
    "kuramoto_sivashinsky",
    "list_systems",
    "lorenz63",
    "lorenz96",
    "lotka_volterra",
    "maxwell",
    "navier_stokes_3d",
    "oregonator",
    "pendulum",
    "pleiades",
    "rigid_body",
    "robertson",
    "roessler",
    "shallow_water",
    "sine_gordon",
    "three_body",
    "van_der_pol",
    "wave",
]
