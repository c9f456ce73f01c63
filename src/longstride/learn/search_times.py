"""Times searched by what comes out at the end: any method, any cost of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from .. import grid as grids
from ..denoiser import Denoiser
from ..errors import ArgumentError, positive, whole
from ..guidance import Guidance
from ..metrics import endpoint_error
from ..process import Process
from ..sampling import DEFAULT_METHOD, plan_sampling, sample
from .axis import clock
from .trajectories import Trajectories

GAP = 0.02  # least step in lambda: float32 tells its ends apart at any noise level
SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)  # of the way to the neighbour, in turn
SETTLED = 1e-3  # relative gain of a move, below which it is not made: coordinates crawl to a minimum
SHAPES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of Beta: a = b = 1 is uniform, below it both ends get more
Cost = Callable[[Sequence[float]], float]


def endpoint_cost(
    model: Denoiser,
    paths: Trajectories,
    method: str = DEFAULT_METHOD,
    *,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    **options: Any,
) -> Cost:
    """The end-point error of a method as a function of its times, on the noises of `paths`.

    A call costs one run of the plan. Noises that times are chosen on do not measure them: a few hundred
    choose well, others report. A method that draws noise does not end where the trajectories do: for those
    there is `kl_bound`.
    """

    def cost(times: Sequence[float]) -> float:
        plan = plan_sampling(model.process, method, grid=times, **options)
        x = sample(model, x_init=paths.noise, plan=plan, cond=cond, guidance=guidance, batch=len(paths.end))
        return endpoint_error(x, paths.end)

    return cost


def beta_times(process: Process, n: int, cost: Cost, *, shapes: Sequence[float] = SHAPES) -> list[float]:
    """The grid `beta` of n times whose a and b, each one of `shapes`, cost least; len(shapes)^2 calls.

    A denoiser settles low frequencies at the first times and high ones at the last; Beta(a, b) with both
    below 1 has its quantiles crowd at the two ends.

    Reference: Lee et al. 2024, "Beta sampling is all you need: efficient image generation strategy for
    diffusion models using stepwise spectral analysis".
    """
    trials = (grids.times(process, n, ("beta", {"a": a, "b": b})) for a, b in product(shapes, repeat=2))
    return min(trials, key=cost)


def coordinate_search(process: Process, times: Sequence[float], cost: Cost) -> list[float]:
    """Times at which no single one, moved in lambda towards a neighbour, costs 0.1 % less.

    Each time but the first is tried a share of the way to the one before and to the one after (the last, to
    t_min); what costs less is kept. Half the way until a sweep changes nothing, then a quarter, down to 1/32.
    A sweep is 2 (n - 1) calls, and there are some ten. The minimum is a local one: begin at `optimal_times`.

    Args:
        times: falling process times, the first of which stays.
        cost: of falling times, such as `endpoint_cost(...)`.

    Raises:
        ArgumentError: times that cannot be sampled on, or whose cost is not finite.
    """
    best, least = _begun(process, times, cost)
    for share in SHARES:
        moved = True
        while moved:
            moved = False
            for k, side in product(range(1, len(best)), (-1, 1)):
                nodes = [*(clock(process, t) for t in best), process.lambda_(process.t_min)]
                way = nodes[k + side] - nodes[k]
                if abs(way) * (1 - share) < GAP:
                    continue
                trial = [*best]
                trial[k] = process.time(nodes[k] + share * way)
                found = cost(trial)
                if found < least * (1 - SETTLED):
                    best, least, moved = trial, found, True
    return best


def cma_search(
    process: Process,
    times: Sequence[float],
    cost: Cost,
    *,
    evaluations: int = 400,
    spread: float = 0.3,
    seed: int = 0,
) -> list[float]:
    """The cheapest times that CMA-ES meets, all moved at once, which gets on where single moves stick.

    Its coordinates are the logarithms of the increments of lambda (beyond a least one), so that times stay
    in order whatever they are; increments that together would lead beyond t_min are shortened alike.

    Args:
        times: falling process times to begin with, at least three, the first of which stays. Begun at
            `optimal_times` it mostly finds one minimum whatever the seed; begun at a common grid, several.
        cost: of falling times, called about `evaluations` times.
        spread: standard deviation of the first generation, in those logarithms.

    Raises:
        ArgumentError: no library `cma` (the extra `tune`), fewer than three times, times that cannot be
            sampled on, or whose cost is not finite.

    Reference: Hansen and Ostermeier 2001, "Completely derandomized self-adaptation in evolution strategies".
    """
    try:
        import cma
    except ImportError as error:
        raise ArgumentError("cma_search needs the library cma: pip install longstride[tune]") from error
    best, least = _begun(process, times, cost)
    if len(best) < 3:
        raise ArgumentError("CMA-ES needs three times at least: coordinate_search finds a single one")
    low, high, n = clock(process, best[0]), process.lambda_(process.t_min), len(best) - 1
    room = positive("room for the steps", high - low - n * GAP)

    def placed(logs: np.ndarray) -> list[float]:
        increments = np.exp(logs)
        increments = GAP + increments * min(1.0, room / increments.sum())
        return [best[0], *(max(process.time(v), process.t_min) for v in low + increments.cumsum())]

    increments = np.diff([clock(process, t) for t in best])
    rng = np.random.default_rng(seed)
    engine = cma.CMAEvolutionStrategy(
        np.log(np.maximum(increments - GAP, GAP)), positive("spread", spread),
        {"randn": lambda *shape: rng.standard_normal(shape), "seed": math.nan, "verbose": -9,
         "maxfevals": whole("evaluations", evaluations, 1)},
    )  # fmt: skip
    while not engine.stop():
        asked = engine.ask()
        trials = [placed(logs) for logs in asked]
        found = [cost(trial) for trial in trials]
        engine.tell(asked, found)
        if min(found) < least:
            least = min(found)
            best = trials[found.index(least)]
    return best


def _begun(process: Process, times: Sequence[float], cost: Cost) -> tuple[list[float], float]:
    """The times to begin with, and their cost, if a search can begin there."""
    best = grids.check(grids.explicit(times), process, len(times))
    least = cost(best)
    if not math.isfinite(least):
        raise ArgumentError(f"the times to begin with cost {least}: begin where the cost is finite")
    return best, least
