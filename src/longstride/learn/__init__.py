"""What returns a Plan made for one model: it asks the model, on seeded noises, and writes weights."""

from .iia import iia
from .model_statistics import dpm_solver_v3, model_statistics

__all__ = ["dpm_solver_v3", "iia", "model_statistics"]
