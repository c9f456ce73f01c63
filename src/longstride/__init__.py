"""Longstride: anything that evolves in time, in as few model evaluations as possible."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import control, fields, gradients, grid, metrics, models, process
from .core import Stage, Step, advance
from .denoiser import Denoiser
from .errors import ArgumentError, PlanError, SolveError
from .events import Event
from .guidance import Guidance
from .integrate import Solution, State, Stats, solve
from .invert import invert
from .likelihood import log_likelihood
from .methods import list_methods
from .models import load
from .parallel import Parallel
from .plan import Plan
from .problem import ODE
from .regularize import Regularize
from .sampling import plan_sampling, prior, reference, sample
from .shards import read_samples

if TYPE_CHECKING:
    from . import learn, samplers
    from .learn import tune

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
    "Regularize",
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


def __getattr__(name: str) -> Any:
    """`learn` and `samplers` come when they are asked for: they are half of what there is to import."""
    if name in ("learn", "samplers"):
        return import_module(f".{name}", __name__)
    if name == "tune":
        return import_module(".learn", __name__).tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
