"""What a solver costs at an error: its work-precision curve, read between its points."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def at_error(points: Iterable[tuple[float | None, float]], wanted: float) -> float | None:
    """Cost at an error, of points (error, cost), log-log between the two beside it; None beyond the ends.

    A point that errs less and costs less than another serves in its place.
    """
    known = sorted((error, cost) for error, cost in points if error)
    if not known or not known[0][0] <= wanted <= known[-1][0]:
        return None
    errors, costs = np.log(np.array(known)).T
    return float(np.exp(np.interp(np.log(wanted), errors, np.minimum.accumulate(costs))))
