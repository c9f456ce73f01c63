"""Wrappers: a Denoiser in, one that asks its network otherwise out. Any method and guidance works on them."""

from .cached import cached, cached_features
from .calibration import calibrated
from .conditioning import retimed, shared_times

__all__ = ["cached", "cached_features", "calibrated", "retimed", "shared_times"]
