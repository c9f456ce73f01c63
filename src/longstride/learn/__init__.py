"""What is made for one model by asking it on seeded noises: a Plan, or the time its network is told."""

from .iia import iia
from .model_statistics import dpm_solver_v3, model_statistics
from .time_shift import time_shift
from .tune import tune

__all__ = ["dpm_solver_v3", "iia", "model_statistics", "time_shift", "tune"]
