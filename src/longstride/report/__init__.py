"""Pictures, plots and comparisons, for people."""

from .comparison import Comparison, Result
from .fields import field_picture
from .front import front_rows, write_front
from .moving import animation
from .picture import SUFFIXES, picture, picture_times
from .pictures import Strip, picture_grid, samples_image
from .plots import error_plot
from .runs import compare
from .spectra import spectrum_picture
from .trajectory import Steps, trajectory_picture

__all__ = [
    "SUFFIXES",
    "Comparison",
    "Result",
    "Steps",
    "Strip",
    "animation",
    "compare",
    "error_plot",
    "field_picture",
    "front_rows",
    "picture",
    "picture_grid",
    "picture_times",
    "samples_image",
    "spectrum_picture",
    "trajectory_picture",
    "write_front",
]
