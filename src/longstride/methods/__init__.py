"""The methods: each file registers its own."""

from . import (  # noqa: F401
    adams,
    dpm_v3,
    er_sde,
    exponential,
    momentum,
    pndm,
    reversible,
    runge_kutta,
    stochastic,
)
from .base import REGISTRY, Method, get, list_methods

__all__ = ["REGISTRY", "Method", "get", "list_methods"]
