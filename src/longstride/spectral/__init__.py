"""Spectral spaces, and what equations on them are made of."""

from .box import Box
from .channel import Channel
from .chebyshev import Chebyshev
from .fourier import Fourier
from .pointwise import Pointwise, nothing
from .symbols import Symbols

__all__ = ["Box", "Channel", "Chebyshev", "Fourier", "Pointwise", "Symbols", "nothing"]
