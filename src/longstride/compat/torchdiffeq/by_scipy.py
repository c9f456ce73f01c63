"""scipy's own solvers under torchdiffeq's name for them, without gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError
from .inputs import Asked, StepError


@torch.no_grad()
def states(call: Asked) -> Tensor:
    """x [T, 1, N] at the times asked for, by `scipy.integrate.solve_ivp`."""
    try:
        from scipy.integrate import solve_ivp
    except ImportError:
        raise ArgumentError("scipy_solver needs scipy: install it, or take dopri5 or tsit5") from None
    options = call.take(solver="LSODA", min_step=None, max_step=np.inf)
    call.watched()
    if options["min_step"] is None:
        del options["min_step"]

    def f(t: float, x: np.ndarray) -> np.ndarray:
        return call.rate(call.time(t), torch.from_numpy(x).to(call.x0)[None])[0].cpu().numpy()

    times, start = call.times, call.x0[0].cpu().numpy()
    tolerances = {"rtol": call.rtol, "atol": call.atol}
    span = (times[0], times[-1])
    found = solve_ivp(f, span, start, t_eval=times, method=options.pop("solver"), **tolerances, **options)
    if not found.success:
        raise StepError(f"scipy: {found.message}")
    return torch.from_numpy(found.y.T.copy()).to(call.x0)[:, None]
