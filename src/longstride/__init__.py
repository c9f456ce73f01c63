"""Longstride: anything that evolves in time, in as few model evaluations as possible."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import control, fields, gradients, grid, interpolation, metrics, models, process
from .brownian import Brownian
from .core import Stage, Step, advance
from .denoiser import Denoiser
from .errors import ArgumentError, PlanError, SolveError
from .events import Event
from .guidance import Guidance
from .integrate import Solution, State, Stats, solve
from .invert import invert
from .likelihood import log_likelihood
from .matrix import Matrix
from .methods import list_methods
from .models import load
from .output import Fold, Integral
from .parallel import Parallel
from .plan import Plan
from .problem import CDE, ODE, SDE, Newton, SecondOrder
from .regularize import Regularize
from .sampling import plan_sampling, prior, reference, sample
from .shards import read_samples

if TYPE_CHECKING:
    from . import learn, nbody, samplers, spectral, systems
    from .learn import tune
    from .samplers.chains import hmc, langevin
    from .solvers import list_solvers
    from .systems import PDE

__version__ = "0.1.0"

__all__ = [
    "CDE",
    "ODE",
    "PDE",
    "SDE",
    "ArgumentError",
    "Brownian",
    "Denoiser",
    "Event",
    "Fold",
    "Guidance",
    "Integral",
    "Matrix",
    "Newton",
    "Parallel",
    "Plan",
    "PlanError",
    "Regularize",
    "SecondOrder",
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
    "hmc",
    "interpolation",
    "invert",
    "langevin",
    "learn",
    "list_methods",
    "list_solvers",
    "load",
    "log_likelihood",
    "metrics",
    "models",
    "nbody",
    "plan_sampling",
    "prior",
    "process",
    "read_samples",
    "reference",
    "sample",
    "samplers",
    "solve",
    "spectral",
    "systems",
    "tune",
]


def __getattr__(name: str) -> Any:
    """These come when they are asked for: `learn` and `samplers` are half of what there is to import."""
    if name in ("learn", "nbody", "samplers", "spectral", "systems"):
        return import_module(f".{name}", __name__)
    if name == "tune":
        return import_module(".learn", __name__).tune
    if name == "list_solvers":
        return import_module(".solvers", __name__).list_solvers
    if name == "PDE":
        return import_module(".systems", __name__).PDE
    if name in ("hmc", "langevin"):
        return getattr(import_module(".samplers.chains", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
