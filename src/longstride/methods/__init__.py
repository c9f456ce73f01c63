"""The methods: each file registers its own."""

from . import adams, er_sde, exponential, reversible, runge_kutta, stochastic  # noqa: F401
from .base import REGISTRY, Method, get, list_methods

__all__ = ["REGISTRY", "Method", "get", "list_methods"]
