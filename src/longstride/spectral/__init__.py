"""Spectral spaces, and what equations on them are made of."""

from .fourier import Fourier
from .pointwise import Pointwise, nothing
from .random import RandomField, band, matern, power_law

__all__ = ["Fourier", "Pointwise", "RandomField", "band", "matern", "nothing", "power_law"]
