"""The methods: each file registers its own."""

from . import (  # noqa: F401
    adams,
    dop853,
    dpm_v3,
    er_sde,
    exponential,
    imex,
    momentum,
    pairs,
    pndm,
    reversible,
    runge_kutta,
    stochastic,
    verner,
)
from .base import REGISTRY, Method, get, list_methods

__all__ = ["REGISTRY", "Method", "get", "list_methods"]
