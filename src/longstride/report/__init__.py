"""Pictures, plots and comparisons, for people."""

from .comparison import Comparison, Result
from .fields import field_picture
from .front import front_rows, write_front
from .moving import animation, check_film
from .orbits import Track, orbit_picture
from .picture import SUFFIXES, picture, picture_times
from .pictures import Strip, picture_grid, samples_image
from .plots import error_plot
from .runs import compare
from .spectra import spectrum_picture
from .trajectory import Steps, between, trajectory_picture

__all__ = [
    "SUFFIXES",
    "Comparison",
    "Result",
    "Steps",
    "Strip",
    "Track",
    "animation",
    "between",
    "check_film",
    "compare",
    "error_plot",
    "field_picture",
    "front_rows",
    "orbit_picture",
    "picture",
    "picture_grid",
    "picture_times",
    "samples_image",
    "spectrum_picture",
    "trajectory_picture",
    "write_front",
]
