"""Samplers with a loop of their own, and processes that do not go from Gaussian noise to data."""

from .bridge import Bridge, plan_bridge
from .dmcmc import level_classifier, sample_dmcmc
from .interpolant import plan_interpolant, sample_interpolant
from .langevin import sample_langevin
from .phase_space import PhaseSpace, plan_phase_space, sample_phase_space
from .restart import plan_restart

__all__ = [
    "Bridge",
    "PhaseSpace",
    "level_classifier",
    "plan_bridge",
    "plan_interpolant",
    "plan_phase_space",
    "plan_restart",
    "sample_dmcmc",
    "sample_interpolant",
    "sample_langevin",
    "sample_phase_space",
]
