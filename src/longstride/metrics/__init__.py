"""How good samples are: error against a reference, Frechet distance, class agreement."""

from .endpoint import endpoint_error, interval, resampled, squared_errors
from .features import Statistics, class_agreement, frechet, frechet_distance, statistics

__all__ = [
    "Statistics",
    "class_agreement",
    "endpoint_error",
    "frechet",
    "frechet_distance",
    "interval",
    "resampled",
    "squared_errors",
    "statistics",
]
