"""Data sets of trajectories: made from random starts, kept in Zarr, read for training. Extra `data`."""

from .generate import Made, generate
from .trajectories import Trajectories

__all__ = ["Made", "Trajectories", "generate"]
