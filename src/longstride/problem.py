"""Problems: what is integrated, in the words of its user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .core import Field, Weight
from .errors import SolveError
from .operator import Linear


@dataclass(frozen=True)
class ODE:
    """dx/dt = L x + f(t, x), x [B, ...].

    f(t, x) gets t as a scalar tensor, real, where x is and as precise; in adaptive runs one for each
    sample, [B], unless the step is shared.

    L: a number or a tensor that multiplies x (a diagonal operator), real or complex; exponential methods
    solve it exactly, the others see L x + f as one field.

    jacobian: what implicit methods may know of df/dx of a sample, x flattened to D elements: a function of
    (t, x) that returns it whole, [B, D, D]; "diagonal"; or the widths (lower, upper) of its bands. Where it
    is not given, all D columns are differentiated.
    """

    f: Callable[[Tensor, Tensor], Tensor]
    L: Weight = 0.0
    jacobian: Callable[[Tensor, Tensor], Tensor] | str | tuple[int, int] | None = None

    def operator(self, exponential: bool) -> Linear:
        """What a method integrates around: L, or nothing."""
        return Linear(self.L if exponential else 0.0)

    def fields(self, exponential: bool) -> tuple[Field]:
        """The field that belongs to `operator`."""

        def rate(t: float, x: Tensor) -> Tensor:
            out = self.f(torch.tensor(t, dtype=x.dtype.to_real(), device=x.device), x)
            if not isinstance(out, Tensor) or out.shape != x.shape:
                what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
                raise SolveError(
                    f"f returned {what} for x of shape {tuple(x.shape)}: return dx/dt, one for one"
                )
            return out

        if exponential or (not isinstance(self.L, Tensor) and self.L == 0):
            return (rate,)
        return (lambda t, x: rate(t, x) + self.L * x,)

    @property
    def rate(self) -> Callable[[Tensor, Tensor], Tensor]:
        """dx/dt whole, of tensors, as an adaptive run asks for it."""
        if not isinstance(self.L, Tensor) and self.L == 0:
            return self.f
        return lambda t, x: self.f(t, x) + self.L * x
