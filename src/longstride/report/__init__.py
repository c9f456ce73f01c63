"""Pictures, plots and comparisons, for people."""

from .comparison import Comparison, Result
from .front import front_rows, write_front
from .pictures import Strip, picture_grid, samples_image
from .plots import error_plot
from .runs import compare

__all__ = [
    "Comparison",
    "Result",
    "Strip",
    "compare",
    "error_plot",
    "front_rows",
    "picture_grid",
    "samples_image",
    "write_front",
]
