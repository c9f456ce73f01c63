"""Bodies that attract each other: forces, what they keep, starts, and methods made for them."""

from .decisions import three_stars_task
from .encounters import logarithmic
from .gravity import Attraction, Gravity
from .kepler import kepler_step, stumpff
from .rollouts import Rollout, rollout
from .rules import Policy
from .starts import KM_S, YEAR, plummer_sphere, three_stars_at
from .training import Training, train

__all__ = [
    "KM_S",
    "YEAR",
    "Attraction",
    "Gravity",
    "Policy",
    "Rollout",
    "Training",
    "kepler_step",
    "logarithmic",
    "plummer_sphere",
    "rollout",
    "stumpff",
    "three_stars_at",
    "three_stars_task",
    "train",
]
