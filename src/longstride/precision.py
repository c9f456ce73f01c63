"""A state in float64 whose nonlinear part is worked out in float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .problem import ODE

HALF = {torch.float64: torch.float32, torch.complex128: torch.complex64}


def mixed(problem: ODE) -> ODE:
    """The same problem, f evaluated in half the digits of a state of float64 or complex128.

    Rounding a state costs eps |x| in every step, whose number grows as 1/h; rounding f costs h eps |f|, whose
    sum does not. So the second is affordable: transforms and products in float32, the linear part, the
    weights and the sums in float64. f is then known to about 1e-7 of its size, and so is x.
    """
    f = problem.f

    def half(x: Tensor) -> Tensor:
        return x.to(HALF.get(x.dtype, x.dtype))

    def evaluated(t: Tensor, x: Any) -> Any:
        found = f(half(t) if t.ndim else t, tree_map(half, x))
        return tree_map(lambda rate, like: rate.to(like.dtype), found, x)

    return replace(problem, f=evaluated)
