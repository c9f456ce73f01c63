"""Samplers with a loop of their own, and processes that do not go from Gaussian noise to data."""

from .bridge import Bridge, plan_bridge
from .dmcmc import level_classifier, sample_dmcmc
from .feynman_kac import ParticleStats, sample_feynman_kac
from .interpolant import plan_interpolant, sample_interpolant
from .inverse import Measurement, blur, dds, dps, inpainting, super_resolution
from .langevin import sample_langevin
from .masked import Remasking, sample_first_hitting, sample_masked
from .pfgmpp import pfgmpp_noise
from .phase_space import PhaseSpace, plan_phase_space, sample_phase_space
from .restart import plan_restart
from .svdd import sample_svdd

__all__ = [
    "Bridge",
    "Measurement",
    "ParticleStats",
    "PhaseSpace",
    "Remasking",
    "blur",
    "dds",
    "dps",
    "inpainting",
    "level_classifier",
    "pfgmpp_noise",
    "plan_bridge",
    "plan_interpolant",
    "plan_phase_space",
    "plan_restart",
    "sample_dmcmc",
    "sample_feynman_kac",
    "sample_first_hitting",
    "sample_interpolant",
    "sample_langevin",
    "sample_masked",
    "sample_phase_space",
    "sample_svdd",
    "super_resolution",
]
