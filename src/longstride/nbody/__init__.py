"""Bodies that attract each other: forces, what they keep, starts, and methods made for them."""

from .gravity import Attraction, Gravity

__all__ = ["Attraction", "Gravity"]
