"""What is made for one model by asking it on seeded noises: a Plan, or the time its network is told."""

from .d_ode import d_ode
from .dc_solver import dc_solver
from .iia import iia
from .model_statistics import dpm_solver_v3, model_statistics
from .time_shift import time_shift
from .timestep_aligner import timestep_aligner
from .tune import tune

__all__ = [
    "d_ode",
    "dc_solver",
    "dpm_solver_v3",
    "iia",
    "model_statistics",
    "time_shift",
    "timestep_aligner",
    "tune",
]
