"""How good samples and trajectories are: errors, distances, spectra, exponents."""

from .endpoint import endpoint_error, interval, resampled, squared_errors
from .features import Statistics, class_agreement, frechet, frechet_distance, statistics
from .flow import dissipation, enstrophy, kinetic_energy, nusselt, velocity, vorticity
from .horizon import correlation, high_correlation_time, relative_error
from .lyapunov import Lyapunov, lyapunov
from .spectrum import energy_spectrum, spectrum_error

__all__ = [
    "Lyapunov",
    "Statistics",
    "class_agreement",
    "correlation",
    "dissipation",
    "endpoint_error",
    "energy_spectrum",
    "enstrophy",
    "frechet",
    "frechet_distance",
    "high_correlation_time",
    "interval",
    "kinetic_energy",
    "lyapunov",
    "nusselt",
    "relative_error",
    "resampled",
    "spectrum_error",
    "squared_errors",
    "statistics",
    "velocity",
    "vorticity",
]
