"""Pictures, plots and comparisons, for people."""

from .comparison import Comparison, Result
from .front import front_rows, write_front
from .pictures import Strip, picture_grid, samples_image
from .plots import error_plot
from .runs import compare
from .trajectory import Steps, trajectory_picture

__all__ = [
    "Comparison",
    "Result",
    "Steps",
    "Strip",
    "compare",
    "error_plot",
    "front_rows",
    "picture_grid",
    "samples_image",
    "trajectory_picture",
    "write_front",
]
