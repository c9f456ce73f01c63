"""Wrappers: a Denoiser in, one that asks its network otherwise out. Any method and guidance works on them."""

from .calibration import calibrated
from .conditioning import retimed, shared_times

__all__ = ["calibrated", "retimed", "shared_times"]
