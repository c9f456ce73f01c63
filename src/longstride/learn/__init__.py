"""What is made for one model by asking it on seeded noises: a Plan, or the time its network is told."""

from .autodiffusion import autodiffusion
from .iia import iia
from .model_statistics import dpm_solver_v3, model_statistics
from .schedule import Choice, Schedule
from .solver_schedule import solver_schedule
from .time_shift import time_shift
from .tune import tune

__all__ = [
    "Choice",
    "Schedule",
    "autodiffusion",
    "dpm_solver_v3",
    "iia",
    "model_statistics",
    "solver_schedule",
    "time_shift",
    "tune",
]
