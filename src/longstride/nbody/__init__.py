"""Bodies that attract each other: forces, what they keep, starts, and methods made for them."""

from .encounters import logarithmic
from .gravity import Attraction, Gravity
from .kepler import kepler_step, stumpff
from .starts import KM_S, YEAR, plummer_sphere, three_stars_at

__all__ = [
    "KM_S",
    "YEAR",
    "Attraction",
    "Gravity",
    "kepler_step",
    "logarithmic",
    "plummer_sphere",
    "stumpff",
    "three_stars_at",
]
