"""The methods: each file registers its own."""

from . import adams, dpm_v3, exponential, momentum, pndm, reversible, runge_kutta, stochastic  # noqa: F401
from .base import REGISTRY, Method, get, list_methods

__all__ = ["REGISTRY", "Method", "get", "list_methods"]
