"""Restart sampling: noise put back on, and the way down gone again, several times (Xu et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..core import Stage, Step
from ..errors import ArgumentError
from ..grid import Grid
from ..methods import get
from ..plan import Plan
from ..process import Process
from ..sampling import plan_sampling

RHO = 7.0  # of the times inside a restart, as Karras et al. 2022 place them


def plan_restart(
    process: Process,
    nfe: int,
    restarts: Sequence[tuple[float, float, int, int]],
    method: str = "heun",
    grid: Grid | None = None,
    *,
    final: str = "data",
    **options: Any,
) -> Plan:
    """The ODE with restarts (t_min, t_max, K, steps): at t_min, K times up to t_max by noise and down again.

    Up is x + sqrt(sigma_max^2 - sigma_min^2) xi in x/alpha, which leads from the distribution at t_min to
    that at t_max exactly; what error there was, the way down contracts, once more each time, and adds its
    own. Down takes `steps` steps of the method. t_min is moved to the nearest time of the main run, which
    gets the evaluations that the restarts leave of `nfe`. Ranges may overlap or lie within each other: they
    are taken from noise to data, and inside a restart no other begins. The order is that of the method.

    Raises:
        ArgumentError: a range outside the process, too few evaluations, or a method with a history or noise
            of its own, which a jump would spoil.
    """
    for low, high, repeats, count in restarts:
        if not (process.t_end < low < high <= process.t_max and process.alpha(high) > 0):
            raise ArgumentError(
                f"restart from {low} to {high}: give t_min < t_max inside the times of the process, at which "
                "alpha > 0"
            )
        if repeats < 0 or count < 1:
            raise ArgumentError(f"a restart of K = {repeats} in {count} steps: K >= 0, and at least one step")
    size = get(method, **options).sizes[0]
    left = nfe - sum(repeats * count * size for _, _, repeats, count in restarts)
    if left < 1 + size:
        raise ArgumentError(
            f"the restarts take {nfe - left} evaluations of {nfe}: give at least {nfe - left + 1 + size}, or "
            "fewer repetitions or steps"
        )
    main = plan_sampling(process, method, left, grid, final=final, **options)
    if main.stochastic or any(step.keep_x != (-1,) or step.keep_f for step in main.steps):
        raise ArgumentError(f"{method} has a history or noise of its own: restart heun, dpmpp_2s or rk4")
    due: dict[float, list[tuple[float, int, int]]] = {}
    for low, high, repeats, count in sorted(restarts, reverse=True):
        t = min(main.times[1:-1], key=lambda t: abs(process.lambda_(t) - process.lambda_(low)))
        if t >= high:
            raise ArgumentError(f"the main run has no time below {high} to restart at: give it a larger nfe")
        due.setdefault(t, []).append((high, repeats, count))
    times, steps, variance = [main.times[0]], list[Step](), 0.0
    for t, step in zip(main.times[1:], main.steps, strict=True):
        times.append(t)
        steps.append(step)
        for high, repeats, count in due.get(t, ()):
            way = plan_sampling(
                process, method, grid=_way_down(process, high, t, count), final="sigma_min", **options
            )
            for _ in range(repeats):
                jump, variance = _jump(process, t, high, variance)
                times += way.times
                steps += [jump, *way.steps]
    given = {"method": method, "restarts": [list(r) for r in restarts], **options}
    return Plan(tuple(times), tuple(steps), process.describe(), "restart", given)


def _way_down(process: Process, high: float, low: float, steps: int) -> list[float]:
    """Times from high to low, uniform in (sigma/alpha)^(1/7)."""
    a, b = (math.exp(-process.lambda_(t) / RHO) for t in (high, low))
    inside = (process.time(-RHO * math.log(a + (b - a) * i / steps)) for i in range(1, steps))
    return [high, *inside, low]


def _jump(process: Process, low: float, high: float, used: float) -> tuple[Step, float]:
    """Noise alone, from low up to high. Brownian time is the variance put in so far, in x/alpha."""
    start, stop = (math.exp(-2 * process.lambda_(t)) for t in (low, high))
    alpha_l, alpha_h = process.alpha(low), process.alpha(high)
    begin = used or start
    end = begin + stop - start
    z = alpha_h * math.sqrt(stop - start)
    return Step((Stage((alpha_h / alpha_l,), z=(z,)),), brownian=(begin, end)), end
