"""Longstride: anything that evolves in time, in as few model evaluations as possible."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import control, fields, gradients, grid, interpolation, metrics, models, process
from .blocks import Blocks
from .brownian import Brownian
from .core import Stage, Step, advance
from .denoiser import Denoiser
from .errors import ArgumentError, PlanError, SolveError
from .events import Event
from .guidance import Guidance
from .integrate import solve
from .invert import invert
from .krylov import Krylov
from .likelihood import log_likelihood
from .matrix import Matrix
from .methods import list_methods
from .models import load
from .output import Fold, Integral, Record
from .parallel import Parallel
from .plan import Plan
from .problem import CDE, ODE, SDE, Newton, SecondOrder
from .regularize import Regularize
from .sampling import plan_sampling, prior, reference, sample
from .shards import read_samples
from .solution import Solution, State, Stats

if TYPE_CHECKING:
    from . import data, environments, learn, nbody, samplers, spectral, systems
    from .learn.tune import tune
    from .onestep import stepper
    from .precision import mixed
    from .samplers.chains import hmc, langevin
    from .solvers import list_solvers
    from .spectral import Fourier, Pointwise
    from .systems import PDE

__version__ = "0.1.0"

__all__ = [
    "CDE",
    "ODE",
    "PDE",
    "SDE",
    "ArgumentError",
    "Blocks",
    "Brownian",
    "Denoiser",
    "Event",
    "Fold",
    "Fourier",
    "Guidance",
    "Integral",
    "Krylov",
    "Matrix",
    "Newton",
    "Parallel",
    "Plan",
    "PlanError",
    "Pointwise",
    "Record",
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
    "data",
    "environments",
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
    "mixed",
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
    "stepper",
    "systems",
    "tune",
]


def __getattr__(name: str) -> Any:
    """These come when they are asked for: `learn` and `samplers` are half of what there is to import."""
    if name in ("data", "environments", "learn", "nbody", "samplers", "spectral", "systems"):
        return import_module(f".{name}", __name__)
    if name == "tune":
        return import_module(".learn", __name__).tune
    if name == "mixed":
        return import_module(".precision", __name__).mixed
    if name == "stepper":
        return import_module(".onestep", __name__).stepper
    if name == "list_solvers":
        return import_module(".solvers", __name__).list_solvers
    if name == "PDE":
        return import_module(".systems", __name__).PDE
    if name in ("Fourier", "Pointwise"):
        return getattr(import_module(".spectral", __name__), name)
    if name in ("hmc", "langevin"):
        return getattr(import_module(".samplers.chains", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
