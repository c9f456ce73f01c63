"""Longstride: anything that evolves in time, in as few model evaluations as possible."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import control, fields, grid, interpolation, metrics, models, process
from .adaptive.events import Event
from .adaptive.output import Fold, Integral, Record
from .adaptive.regularize import Regularize
from .blocks import Blocks
from .core import Stage, Step, advance
from .denoiser import Denoiser
from .errors import ArgumentError, PlanError, SolveError
from .gradients import ways as gradients
from .guidance import Guidance
from .integrate import solve
from .invert import invert
from .krylov import Krylov
from .likelihood import log_likelihood
from .matrix import Matrix
from .methods import list_methods
from .models import load
from .parallel import Parallel
from .plan import Plan
from .problem import CDE, ODE, SDE, Newton, SecondOrder
from .sampling import plan_sampling, prior, reference, sample
from .sde.brownian import Brownian
from .shards import read_samples
from .solution import Solution, State, Stats

if TYPE_CHECKING:
    from . import data, environments, learn, nbody, samplers, spectral, systems
    from .equal_steps.onestep import stepper
    from .equal_steps.precision import mixed
    from .learn.tune import tune
    from .samplers.chains import hmc, langevin
    from .spectral import Fourier, Pointwise
    from .steppers.solvers import list_solvers
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


PACKAGES = ("data", "environments", "learn", "nbody", "samplers", "spectral", "systems")
LATER = {
    "PDE": "systems", "Fourier": "spectral", "Pointwise": "spectral", "hmc": "samplers.chains",
    "langevin": "samplers.chains", "list_solvers": "steppers.solvers", "mixed": "equal_steps.precision",
    "stepper": "equal_steps.onestep", "tune": "learn",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """These come when they are asked for: `learn` and `samplers` are half of what there is to import."""
    if name in PACKAGES:
        return import_module(f".{name}", __name__)
    if name in LATER:
        return getattr(import_module(f".{LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
