"""Steps of Bulirsch and Stoer's method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..methods.extrapolation import columns, gragg
from .trial import Explicit, Rate


class Extrapolated(Explicit):
    """An explicit pair whose order is chosen by the tolerance: one for the run.

    Its steps are so long that a polynomial of degree 8 along one errs by far more than its ends do.
    """

    lands = True

    def __init__(
        self, reference: str, rate: Rate, x0: Tensor, sign: float, shared: bool, graph: bool, rtol: Tensor,
        *bound: Any,
    ) -> None:  # fmt: skip
        super().__init__(gragg(columns(float(rtol.min()))), rate, x0, sign, shared, graph, rtol, *bound)
