"""Where the steps go: descending process times, chosen before the run.

A family maps n to n times from process.t_max to process.t_min or near it; what follows t_min (clean data,
or nothing) is the plan's business. Grids in sigma mean the noise-to-signal ratio sigma/alpha, which is
EDM's sigma. Where that is infinite (alpha = 0) they start at t_max all the same and place the rest from
`RATIO_MAX` on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .errors import ArgumentError, finite, like, positive, unknown, whole
from .process import Process

RATIO_MAX = 1e3  # where log-SNR grids begin when the noise is pure: alpha = 0.001

Ramp = np.ndarray  # n fractions, from 0 (noise) up to 1 (data) or, where the end is open, to 1 - 1/n


def _ratio_range(process: Process) -> tuple[float, float]:
    high, low = (math.exp(-process.lambda_(t)) for t in (process.t_max, process.t_min))
    return high if math.isfinite(high) else RATIO_MAX, low


def _from_ratio(process: Process, ramp: Ramp, ratio: np.ndarray) -> np.ndarray:
    """Times with these noise-to-signal ratios; the ends of the ramp are exact, whatever log does."""
    times = [process.time(-math.log(q)) for q in ratio]
    return np.where(ramp == 0, process.t_max, np.where(ramp == 1, process.t_min, times))


def karras(process: Process, ramp: Ramp, rho: float = 7.0) -> np.ndarray:
    """Uniform in sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    high, low = (r ** (1 / rho) for r in _ratio_range(process))
    return _from_ratio(process, ramp, (high + ramp * (low - high)) ** rho)


def log_snr(process: Process, ramp: Ramp) -> np.ndarray:
    """Uniform in lambda = log(alpha/sigma) (Lu et al. 2022)."""
    return exponential(process, ramp, rho=1.0)


def exponential(process: Process, ramp: Ramp, rho: float = 1.0) -> np.ndarray:
    """log sigma falls as the power rho of a uniform ramp; rho = 1 is uniform in log-SNR."""
    high, low = (math.log(r) for r in _ratio_range(process))
    return _from_ratio(process, ramp, np.exp(low + (1 - ramp) ** rho * (high - low)))


def uniform(process: Process, ramp: Ramp) -> np.ndarray:
    """Uniform in t, both ends included: diffusers' "linspace"."""
    return process.t_max + ramp * (process.t_min - process.t_max)


def trailing(process: Process, ramp: Ramp) -> np.ndarray:
    """Uniform in t from t_max, stopping one step short of clean data (Lin et al. 2024)."""
    n = len(ramp)
    return process.t_max + np.arange(n) / n * (process.t_end - process.t_max)


def leading(process: Process, ramp: Ramp, last: bool = True) -> np.ndarray:
    """Uniform in t down to t_min, starting one step short of t_max: the way of the first DDIM codes.

    With last=False t_min is left out, as by diffusers' multistep schedulers. The noise it starts from is
    below that of the prior; kept because models are compared on it.
    """
    n = len(ramp)
    k, steps = (np.arange(n), n) if last else (np.arange(1, n + 1), n + 1)
    # A step is a share of all times, the way to clean data included, as long as it stays below t_max.
    step = min((process.t_max - process.t_end) / steps, (process.t_max - process.t_min) / max(k[-1], 1))
    return process.t_min + k[::-1] * step


def quadratic(process: Process, ramp: Ramp, power: float = 2.0) -> np.ndarray:
    """Uniform in (t - t_min)^(1/power): more steps near data (Song et al. 2021, DDIM)."""
    return process.t_min + (1 - ramp) ** power * (process.t_max - process.t_min)


def _tau_range(process: Process) -> tuple[float, float]:
    pairs = (process.pair(t) for t in (process.t_max, process.t_min))
    high, low = (sigma / (alpha + sigma) for alpha, sigma in pairs)
    return high, low


def decay(process: Process, ramp: Ramp, gamma: float = 0.1) -> np.ndarray:
    """tau = sigma/(alpha + sigma) falls as 1 - gamma^u: more steps near data the smaller gamma < 1 is."""
    high, low = _tau_range(process)
    share = 1 - ramp if gamma == 1 else (1 - gamma ** (1 - ramp)) / (1 - gamma)
    u = low + share * (high - low)
    return _from_ratio(process, ramp, u / np.maximum(1 - u, 1e-300))


def flow_shift(process: Process, ramp: Ramp, shift: float = 3.0) -> np.ndarray:
    """Uniform in tau = sigma/(alpha + sigma), then shift tau/(1 + (shift - 1) tau) (Esser et al. 2024)."""
    high, low = _tau_range(process)
    # The ends are where they were: shift the ramp and not the range.
    high, low = (x / (shift - (shift - 1) * x) for x in (high, low))
    u = high + ramp * (low - high)
    u = shift * u / (1 + (shift - 1) * u)
    return _from_ratio(process, ramp, u / np.maximum(1 - u, 1e-300))


def beta(process: Process, ramp: Ramp, a: float = 0.6, b: float = 0.6) -> np.ndarray:
    """t at the quantiles of a Beta(a, b) distribution (Lee et al. 2024)."""
    # With u = sin^2(theta) the density 2 sin^(2a-1) cos^(2b-1) is tame, so a plain sum inverts it.
    theta = np.linspace(0, math.pi / 2, 200_001)
    middle = (theta[1:] + theta[:-1]) / 2
    mass = np.sin(middle) ** (2 * a - 1) * np.cos(middle) ** (2 * b - 1)
    cdf = np.concatenate([[0.0], np.cumsum(mass)])
    u = np.sin(np.interp(1 - ramp, cdf / cdf[-1], theta)) ** 2
    return process.t_min + u * (process.t_max - process.t_min)


GRIDS: dict[str, Callable[..., np.ndarray]] = {
    f.__name__: f
    for f in (karras, log_snr, exponential, uniform, trailing, leading, quadratic, flow_shift, decay, beta)
}

Family = Callable[[Any, int], Sequence[float]]  # of a process and n
Grid = str | tuple[str, dict[str, Any]] | Sequence[float] | Family


def default_grid(process: Process) -> str:
    """The family used when none is named: uniform where alpha may vanish, Karras' otherwise."""
    return "uniform" if process.alpha(process.t_max) == 0 else "karras"


def times(process: Process, n: int, grid: Grid, t_start: float | None = None) -> list[float]:
    """n descending times of a grid: a family, ("family", {argument: value}), or the times themselves.

    A family that has no name is a function of the process and n.

    The argument open=True, of every family but leading and trailing, leaves out t_min: the n times are
    the first of n + 1, and the step to clean data is as long as its neighbours. At few steps that is often
    better.

    t_start begins later than pure noise: the family is laid between t_start and t_min.

    Raises:
        ArgumentError: unknown family or argument, times that do not fall or that float32 cannot tell
            apart, or times outside the process.
    """
    n, span = whole("n", n, 1), process
    if t_start is not None:
        span = _Started(process, finite("t_start", t_start))  # type: ignore[assignment]
    if callable(grid):
        return check(explicit(grid(span, n)), process, n)
    family = named(grid)
    if family is None:
        return check(explicit(grid), process, n)
    name, arguments = family
    defaults = {p.name: p.default for p in list(inspect.signature(GRIDS[name]).parameters.values())[2:]}
    defaults |= {} if name in ("trailing", "leading") else {"open": False}
    for key, value in arguments.items():
        if key not in defaults:
            takes = ", ".join(defaults) or "no arguments"
            raise ArgumentError(f"grid {name!r} has no argument {key!r}: it takes {takes}")
        what = f"{key} of grid {name!r}"
        flag = isinstance(defaults[key], bool)
        arguments[key] = like(what, value, defaults[key]) if flag else positive(what, value)
    ramp = np.arange(n) / (n if arguments.pop("open", False) else max(n - 1, 1))
    return check([float(t) for t in GRIDS[name](span, ramp, **arguments)], process, n)


def named(grid: Grid) -> tuple[str, dict[str, Any]] | None:
    """(family, arguments) of a grid that is not given by its times.

    Raises:
        ArgumentError: an unknown family, or something that is neither.
    """
    name, arguments = grid if isinstance(grid, tuple) and len(grid) == 2 else (grid, {})
    if not isinstance(name, str):
        return None
    if name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    if not isinstance(arguments, Mapping):
        raise ArgumentError(f"grid = {grid!r}: the arguments of a family are a mapping, such as {{'rho': 7}}")
    return name, dict(arguments)


def explicit(grid: Any) -> list[float]:
    """The times themselves as floats."""
    try:
        return [float(t) for t in grid]
    except (TypeError, ValueError):
        raise ArgumentError(
            f"grid = {grid!r}: it is a family by name, ('family', {{argument: value}}), or falling times"
        ) from None


class _Started:
    """A process that begins at t_start."""

    def __init__(self, process: Process, t_start: float):
        if not process.t_min < t_start <= process.t_max:
            raise ArgumentError(
                f"t_start = {t_start} is not in ({process.t_min}, {process.t_max}], the times of the process"
            )
        self.process, self.t_max = process, t_start

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)


def check(ts: list[float], process: Process, n: int) -> list[float]:
    """The times, if they can be sampled on."""
    if len(ts) != n:
        raise ArgumentError(f"the grid has {len(ts)} times where {n} are needed: one for each step")
    for t in ts:
        if not (math.isfinite(t) and process.t_end <= t <= process.t_max):
            raise ArgumentError(
                f"time {t} of the grid is outside {process.t_end} (data) to {process.t_max} (noise)"
            )
    for a, b in pairwise(ts):
        if not b < a:
            raise ArgumentError(f"grid times must fall from noise to data, but {b} follows {a}")
        if np.float32(a) == np.float32(b):
            raise ArgumentError(f"grid times {a} and {b} are one in float32: take fewer steps")
    return ts
