"""Spectral spaces, and what equations on them are made of."""

from .fourier import Fourier
from .pointwise import Pointwise, nothing
from .symbols import Symbols

__all__ = ["Fourier", "Pointwise", "Symbols", "nothing"]
