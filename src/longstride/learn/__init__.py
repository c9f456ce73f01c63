"""What is made for one model by asking it on seeded noises: a Plan, times, or what time to tell it."""

from .align_your_steps import align_your_steps, kl_bound
from .autodiffusion import autodiffusion
from .d_ode import d_ode
from .dc_solver import dc_solver
from .descent import descend
from .drawn import drawn
from .frechet import Frechet
from .free import Free, fit
from .iia import iia
from .model_statistics import dpm_solver_v3, model_statistics
from .optimal_times import cheapest_path, jump_costs, optimal_times
from .polish import polish, polish_set
from .recipes import RECIPES
from .schedule import Choice, Schedule
from .search_times import beta_times, cma_search, coordinate_search, endpoint_cost
from .solver_schedule import solver_schedule
from .time_shift import time_shift
from .timestep_aligner import timestep_aligner
from .trajectories import Trajectories, trajectories
from .tune import tune

__all__ = [
    "RECIPES",
    "Choice",
    "Frechet",
    "Free",
    "Schedule",
    "Trajectories",
    "align_your_steps",
    "autodiffusion",
    "beta_times",
    "cheapest_path",
    "cma_search",
    "coordinate_search",
    "d_ode",
    "dc_solver",
    "descend",
    "dpm_solver_v3",
    "drawn",
    "endpoint_cost",
    "fit",
    "iia",
    "jump_costs",
    "kl_bound",
    "model_statistics",
    "optimal_times",
    "polish",
    "polish_set",
    "solver_schedule",
    "time_shift",
    "timestep_aligner",
    "trajectories",
    "tune",
]
