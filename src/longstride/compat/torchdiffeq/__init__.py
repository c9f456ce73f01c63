"""torchdiffeq's `odeint`, `odeint_adjoint` and `odeint_event`, run by Longstride: change the import alone.

    from longstride.compat.torchdiffeq import odeint

One step is shared by the whole state, func gets a scalar t, the error is measured by the root mean square, or
by the largest of those of a tuple's parts. docs/solving-torchdiffeq.md lists every option and each intended
difference.
"""

from __future__ import annotations

from .adjoint import odeint_adjoint
from .forward import odeint, odeint_event

__all__ = ["odeint", "odeint_adjoint", "odeint_event"]
