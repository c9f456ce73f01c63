"""Ready problems: equations as data. Each function builds a `System`, an ODE that `ls.solve` takes."""

from .base import SYSTEMS, Frames, Plane, Series, SpaceTime, System, get, list_systems
from .channels import channel_flow, rayleigh_benard
from .chaos import lorenz63, lorenz96, roessler
from .classic import (
    double_pendulum,
    exponential_decay,
    harmonic_oscillator,
    henon_heiles,
    pendulum,
    rigid_body,
)
from .dispersive import korteweg_de_vries, nonlinear_schroedinger
from .electromagnetism import maxwell
from .fluids import kolmogorov_flow, navier_stokes_2d, taylor_green
from .fluids_3d import navier_stokes_3d
from .gravity import burrau, outer_solar_system, plummer, three_body
from .orbits import arenstorf, figure_eight, kepler, pleiades
from .patterns import (
    allen_cahn,
    cahn_hilliard,
    dispersive_kuramoto_sivashinsky,
    ginzburg_landau,
    kuramoto_sivashinsky,
    kuramoto_sivashinsky_2d,
    swift_hohenberg,
)
from .pde import PDE
from .reaction_diffusion import fisher_kpp, fitzhugh_nagumo_waves, gray_scott
from .reactions import brusselator, brusselator_1d, hires, oregonator, robertson
from .relaxation import fitzhugh_nagumo, lotka_volterra, van_der_pol
from .transport import advection, burgers, diffusion, dispersion, hyper_diffusion
from .waves import klein_gordon, shallow_water, sine_gordon, wave

__all__ = [
    "PDE",
    "SYSTEMS",
    "Frames",
    "Plane",
    "Series",
    "SpaceTime",
    "System",
    "advection",
    "allen_cahn",
    "arenstorf",
    "brusselator",
    "brusselator_1d",
    "burgers",
    "burrau",
    "cahn_hilliard",
    "channel_flow",
    "diffusion",
    "dispersion",
    "dispersive_kuramoto_sivashinsky",
    "double_pendulum",
    "exponential_decay",
    "figure_eight",
    "fisher_kpp",
    "fitzhugh_nagumo",
    "fitzhugh_nagumo_waves",
    "get",
    "ginzburg_landau",
    "gray_scott",
    "harmonic_oscillator",
    "henon_heiles",
    "hires",
    "hyper_diffusion",
    "kepler",
    "klein_gordon",
    "kolmogorov_flow",
    "korteweg_de_vries",
    "kuramoto_sivashinsky",
    "kuramoto_sivashinsky_2d",
    "list_systems",
    "lorenz63",
    "lorenz96",
    "lotka_volterra",
    "maxwell",
    "navier_stokes_2d",
    "navier_stokes_3d",
    "nonlinear_schroedinger",
    "oregonator",
    "outer_solar_system",
    "pendulum",
    "pleiades",
    "plummer",
    "rayleigh_benard",
    "rigid_body",
    "robertson",
    "roessler",
    "shallow_water",
    "sine_gordon",
    "swift_hohenberg",
    "taylor_green",
    "three_body",
    "van_der_pol",
    "wave",
]
