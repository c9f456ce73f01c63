"""What time the network is told: another than that of the state it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..denoiser import Denoiser
from ..errors import ArgumentError, finite, whole


def retimed(model: Denoiser, told: Callable[[float], float]) -> Denoiser:
    """The model whose network is told told(t) where a plan evaluates at t.

    Only the condition changes: what the network is given and returns is scaled by alpha and sigma at t.
    On a model that is retimed already, told(t) is what that one is asked at.
    """
    inner = model.told
    return replace(model, told=told if inner is None else lambda t: inner(told(t)))


def shared_times(model: Denoiser, cutoff: float, parts: int = 5) -> Denoiser:
    """The model whose network is told one time within each of `parts` equal parts of [t_min, cutoff).

    Of x_t = alpha x_0 + sigma eps with sigma ~ sqrt(t), the noise prediction's derivative in t is infinite at
    t = 0, as d log sigma/dt is: nearby times need not have nearby predictions, and the network's errors there
    do not cancel. With one condition for a part, its prediction there depends on x alone. Times below t_min
    belong to the first part. The shared time is the middle of the part (the paper's, its lower end, is t = 0
    in the first one, which no network knows); the paper also trains the network so.

    Raises:
        ArgumentError: a cutoff that is not between t_min and t_max, or no part.

    Reference: Yang et al. 2024, "Eliminating Lipschitz singularities in diffusion models", E-TSDM.
    """
    low, high, parts = model.process.t_min, model.process.t_max, whole("parts", parts, 1)
    if not low < finite("cutoff", cutoff) <= high:
        raise ArgumentError(
            f"cutoff = {cutoff}: it is a time above t_min = {low:.6g}, up to t_max = {high:.6g}"
        )
    width = (cutoff - low) / parts

    def shared(t: float) -> float:
        if t >= cutoff:
            return t
        part = min(max(int((t - low) / width), 0), parts - 1)
        return low + (part + 0.5) * width

    return retimed(model, shared)
