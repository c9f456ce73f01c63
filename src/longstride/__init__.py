"""Longstride: anything that evolves in time, in as few model evaluations as possible."""

from . import control, fields, gradients, grid, learn, metrics, models, process, samplers
from .core import Stage, Step, advance
from .denoiser import Denoiser
from .errors import ArgumentError, PlanError, SolveError
from .events import Event
from .guidance import Guidance
from .integrate import Solution, State, Stats, solve
from .invert import invert
from .learn import tune
from .likelihood import log_likelihood
from .methods import list_methods
from .models import load
from .parallel import Parallel
from .plan import Plan
from .problem import ODE
from .sampling import plan_sampling, prior, reference, sample
from .shards import read_samples

__version__ = "0.1.0"

__all__ = [
    "ODE",
    "ArgumentError",
    "Denoiser",
    "Event",
    "Guidance",
    "Parallel",
    "Plan",
    "PlanError",
    "Solution",
    "SolveError",
    "Stage",
    "State",
    "Stats",
    "Step",
    "advance",
    "control",
    "fields",
    "gradients",
    "grid",
    "invert",
    "learn",
    "list_methods",
    "load",
    "log_likelihood",
    "metrics",
    "models",
    "plan_sampling",
    "prior",
    "process",
    "read_samples",
    "reference",
    "sample",
    "samplers",
    "solve",
    "tune",
]
