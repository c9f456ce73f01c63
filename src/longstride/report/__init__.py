"""Pictures, plots and comparisons, for people."""

from .comparison import Comparison, Result
from .pictures import Strip, picture_grid, samples_image
from .plots import error_plot
from .runs import compare

__all__ = [
    "Comparison",
    "Result",
    "Strip",
    "compare",
    "error_plot",
    "picture_grid",
    "samples_image",
]
