"""Times chosen for a model: the minimum is the minimum, and on noises not seen it is worth having."""

from __future__ import annotations

import math
import sys
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

import longstride as ls
from longstride.learn import (
    Trajectories,
    align_your_steps,
    beta_times,
    cheapest_path,
    cma_search,
    coordinate_search,
    endpoint_cost,
    jump_costs,
    kl_bound,
    optimal_times,
    trajectories,
)
from longstride.models import mixture
from longstride.models.exact import Mixture, random_mixture

F64 = torch.float64
ANGLES = torch.arange(8, dtype=F64) * (math.pi / 4)
RING = Mixture(
    torch.ones(8), torch.stack([ANGLES.cos(), ANGLES.sin()], 1), 0.01 * torch.eye(2).expand(8, 2, 2)
)
PROCESSES = {"edm": ls.process.EDM(), "vp": ls.process.VP(), "flow": ls.process.Flow()}


@cache
def known(name: str, dim: int, n: int, seed: int) -> tuple[ls.Denoiser, Trajectories]:
    """An exact mixture (2 dimensions: the ring) and trajectories of n noises."""
    model = mixture(RING if dim == 2 else random_mixture(dim), PROCESSES[name])
    return model, trajectories(model, ls.prior(model, n, seed=seed, dtype=F64), nfe=200)


def held_out(name: str, dim: int, method: str):
    return endpoint_cost(*known(name, dim, 256, seed=99), method)


@pytest.mark.parametrize("discount", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("name", ["edm", "flow"])
def test_dynamic_programming_is_brute_force(name: str, discount: float) -> None:
    model, paths = known(name, 2, 16, seed=0)
    every = slice(0, len(paths.times), 4)
    few = Trajectories(paths.axis, paths.times[every][:11], paths.states[every][:11], paths.end)
    costs = jump_costs(model, few)
    assert len(costs) == 12

    def cost(path: tuple[int, ...]) -> float:
        return sum(discount**k * float(costs[i, j]) for k, (i, j) in enumerate(pairwise(path)))

    best = min(((0, *inner, 11) for inner in combinations(range(1, 11), 3)), key=cost)
    assert tuple(cheapest_path(costs, 4, discount)) == best
    assert optimal_times(model, 4, few, discount=discount) == [few.times[i] for i in best[:-1]]


@pytest.mark.parametrize("name", ["edm", "vp", "flow"])
def test_a_jump_costs_what_ddim_misses(name: str) -> None:
    """The cost from the first time to the end is the squared end-point error of one evaluation."""
    model, paths = known(name, 8, 16, seed=0)
    once = endpoint_cost(model, paths, "ddim")(paths.times[:1])
    assert float(jump_costs(model, paths)[0, -1]) == pytest.approx(once**2, rel=1e-9)


@pytest.mark.parametrize("method", ["ddim", "ipndm_3"])
@pytest.mark.parametrize("dim", [8, 64])
def test_optimal_times_lower_the_error_by_a_fifth(dim: int, method: str) -> None:
    """Against EDM's grid, at 6 evaluations (P093). On the ring it holds for DDIM and not for ipndm_3."""
    model, paths = known("edm", dim, 16, seed=0)
    error = held_out("edm", dim, method)
    assert error(optimal_times(model, 6, paths)) < 0.8 * error(ls.grid.times(model.process, 6, "karras"))


def test_euler_on_a_flow_gains_from_optimal_times() -> None:
    """P107 asks for 0.8 of the uniform grid at 6 evaluations: 0.65 on the ring; 0.84 of the uniform grid that
    goes on to clean data, which is the stronger one."""
    model, paths = known("flow", 2, 16, seed=0)
    error, times = held_out("flow", 2, "ddim"), optimal_times(model, 6, paths)
    uniform, trailing = (ls.grid.times(model.process, 6, grid) for grid in ("uniform", "trailing"))
    assert error(times) < 0.8 * error(uniform)
    assert error(times) < 0.9 * error(trailing)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_bound_on_a_gaussian_is_known(name: str) -> None:
    """E|D - D_i|^2 = v/(1 + v w_i) - v/(1 + v w) an element, so each step has 1/2 (q - 1 - log q)."""
    process = PROCESSES[name]
    data = Mixture(torch.ones(1), torch.zeros(1, 3), 0.25 * torch.eye(3)[None])
    times = ls.grid.times(process, 6, "log_snr")
    w = [(process.alpha(t) / process.sigma(t)) ** 2 for t in times]
    q = [(4 + b) / (4 + a) for a, b in pairwise(w)]
    exact = sum(1.5 * (p - 1 - math.log(p)) for p in q)
    assert kl_bound(mixture(data, process), times, data.sample(20_000), draws=4) == pytest.approx(
        exact, rel=0.02
    )


def test_the_bound_bounds_what_stochastic_ddim_ends_with() -> None:
    """N(0, v) is carried to N(0, u) whose u follows from the weights: no sample is drawn."""
    process, v = PROCESSES["vp"], 0.25
    data = Mixture(torch.ones(1), torch.zeros(1, 1), v * torch.eye(1)[None])
    plan = ls.plan_sampling(process, "ddim", grid=("log_snr", {}), nfe=5, final="sigma_min", eta=1.0)
    u = process.sigma(plan.times[0]) ** 2
    for s, step in zip(plan.times, plan.steps, strict=False):
        (row,) = [stage for stage in step.stages if stage.z]
        alpha, sigma = process.pair(s)
        gain = alpha * v / (alpha**2 * v + sigma**2)  # D = gain x
        u = (row.x[-1] + row.f[-1] * gain) ** 2 * u + row.z[-1] ** 2
    alpha, sigma = process.pair(plan.times[-1])
    ratio = (alpha**2 * v + sigma**2) / u
    true = 0.5 * (ratio - 1 - math.log(ratio))
    assert 0 < true < kl_bound(mixture(data, process), plan.times, data.sample(4000))


@pytest.mark.parametrize("name", PROCESSES)
def test_aligned_steps_halve_the_bound(name: str) -> None:
    """P136: ten steps, data and noise not seen, at most 0.65 of EDM's and of the uniform log-SNR grid."""
    model = mixture(RING, PROCESSES[name])
    aligned = align_your_steps(model, 11, RING.sample(1024, seed=1))
    grids = [ls.grid.times(model.process, 11, grid) for grid in ("karras", "log_snr")]
    bound, *others = (
        kl_bound(model, times, RING.sample(2048, seed=2), seed=5) for times in [aligned, *grids]
    )
    assert bound < 0.65 * min(others)


def test_no_single_time_of_aligned_steps_is_better_elsewhere() -> None:
    """The paper's search, time by time, has nothing to gain on data not seen: 1 % for nodes and draws."""
    model, data = mixture(RING, PROCESSES["edm"]), RING.sample(1024, seed=1)
    t_min = model.process.t_min

    def cost(times: list[float]) -> float:
        return kl_bound(model, [*times, t_min], data, draws=2)

    times = align_your_steps(model, 5, data)
    searched = coordinate_search(model.process, times[:-1], cost)
    held = RING.sample(4096, seed=2)
    assert kl_bound(model, times, held, seed=5) < 1.01 * kl_bound(model, [*searched, t_min], held, seed=5)


@pytest.mark.parametrize("dim", [2, 8])
def test_the_best_beta_grid_beats_uniform_times(dim: int) -> None:
    """P306, ten evaluations of DDIM under VP; in 64 dimensions, and on flows, no Beta grid gains 15 %."""
    model, paths = known("vp", dim, 128, seed=0)
    error = held_out("vp", dim, "ddim")
    times = beta_times(model.process, 10, endpoint_cost(model, paths, "ddim"))
    assert (times[0], times[-1]) == (model.process.t_max, model.process.t_min)
    assert error(times) < 0.85 * error(ls.grid.times(model.process, 10, "uniform"))


@pytest.mark.parametrize("search", [coordinate_search, cma_search])
def test_a_search_finds_the_times_that_cost_nothing(search) -> None:
    """The cost is a distance in lambda to times that are known; whatever is tried is in order."""
    process = PROCESSES["vp"]
    aim = [process.lambda_(t) for t in ls.grid.times(process, 6, ("karras", {"rho": 3.0, "open": True}))]

    def cost(times) -> float:
        ls.grid.check(list(times), process, 6)
        return sum((process.lambda_(t) - u) ** 2 for t, u in zip(times, aim, strict=True))

    start = ls.grid.times(process, 6, "uniform")
    found = search(process, start, cost)
    assert cost(found) < 0.01 * cost(start)
    assert found[0] == start[0]


@pytest.mark.parametrize(("search", "method"), [(coordinate_search, "ddim"), (cma_search, "ipndm_3")])
@pytest.mark.parametrize("name", ["edm", "flow"])
def test_searched_times_beat_the_grids_and_those_they_began_at(name: str, search, method: str) -> None:
    """Moved one by one, those of ipndm_3 get stuck."""
    model, paths = known(name, 2, 128, seed=0)
    cost, error = endpoint_cost(model, paths, method), held_out(name, 2, method)
    start = optimal_times(model, 6, paths)
    times = search(model.process, start, cost)
    families = [
        ls.grid.times(model.process, 6, grid) for grid in ("karras", "log_snr", "uniform", "trailing")
    ]
    assert error(times) < 0.8 * min(error(grid) for grid in [start, *families])


def test_the_same_seed_finds_the_same_times_and_leaves_numpy_alone() -> None:
    model, paths = known("vp", 2, 16, seed=0)
    cost, start = endpoint_cost(model, paths, "ddim"), ls.grid.times(model.process, 5, "log_snr")
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    a, b, c = (cma_search(model.process, start, cost, evaluations=40, seed=s) for s in (3, 3, 4))
    assert a == b != c
    assert np.random.get_state()[1].tolist() == before


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, paths = known("edm", 2, 16, seed=0)
    process, data = model.process, RING.sample(8)
    cost = endpoint_cost(model, paths, "ddim")
    with pytest.raises(ls.ArgumentError, match="nodes at least"):
        optimal_times(model, 60, paths)
    with pytest.raises(ls.ArgumentError, match="steps = 0"):
        optimal_times(model, 0, paths)
    with pytest.raises(ls.ArgumentError, match="discount"):
        cheapest_path(torch.ones(3, 3), 2, -1.0)
    with pytest.raises(ls.ArgumentError, match="not finite"):
        cheapest_path(torch.full((3, 3), torch.nan), 2)
    with pytest.raises(ls.ArgumentError, match="two times"):
        align_your_steps(model, 1, data)
    with pytest.raises(ls.ArgumentError, match="with noise"):
        kl_bound(model, [80.0, 1.0, 0.0], data)
    with pytest.raises(ls.ArgumentError, match="must fall"):
        coordinate_search(process, [1.0, 80.0], cost)
    with pytest.raises(ls.ArgumentError, match="cost inf"):
        coordinate_search(process, [80.0, 1.0], lambda times: math.inf)
    with pytest.raises(ls.ArgumentError, match="coordinate_search"):
        cma_search(process, [80.0, 1.0], cost)
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ls.ArgumentError, match=r"longstride\[tune\]"):
        cma_search(process, [80.0, 10.0, 1.0], cost)
