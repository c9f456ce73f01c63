"""Samplers with a loop of their own, and processes that do not go from Gaussian noise to data."""

from .bridge import Bridge, plan_bridge
from .feynman_kac import ParticleStats, sample_feynman_kac
from .interpolant import plan_interpolant, sample_interpolant
from .langevin import sample_langevin
from .masked import Remasking, sample_first_hitting, sample_masked
from .pfgmpp import pfgmpp_noise
from .restart import plan_restart

__all__ = [
    "Bridge",
    "ParticleStats",
    "Remasking",
    "pfgmpp_noise",
    "plan_bridge",
    "plan_interpolant",
    "plan_restart",
    "sample_feynman_kac",
    "sample_first_hitting",
    "sample_interpolant",
    "sample_langevin",
    "sample_masked",
]
