"""Spectral spaces, and what equations on them are made of."""

from .box import Box
from .channel import Channel, Matrices
from .chebyshev import Chebyshev
from .fourier import Fourier
from .held import Held
from .pointwise import Pointwise, nothing
from .random import RandomField, band, matern, power_law
from .symbols import Symbols

__all__ = [
    "Box",
    "Channel",
    "Chebyshev",
    "Fourier",
    "Held",
    "Matrices",
    "Pointwise",
    "RandomField",
    "Symbols",
    "band",
    "matern",
    "nothing",
    "power_law",
]
