"""Processes, predictions, frames and grids: identities that hold by definition, and the exact limits."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import longstride as ls
from longstride.frame import PREDICTIONS, Frame, conversion
from longstride.grid import GRIDS, RATIO_MAX, times
from test_laws import PROCESSES

F64 = torch.float64
ALL = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())


@ALL
def test_time_is_the_inverse_of_lambda(process: ls.process.Process) -> None:
    span = process.t_max - process.t_min
    for share in (0.999, 0.9, 0.5, 0.1, 1e-3):
        t = process.t_min + share * span
        assert process.time(process.lambda_(t)) == pytest.approx(t, rel=1e-9, abs=1e-9 * span)


@ALL
def test_lambda_falls_with_the_noise_and_the_ends_are_exact(process: ls.process.Process) -> None:
    ts = np.linspace(process.t_end, process.t_max, 200)
    lambdas = [process.lambda_(float(t)) for t in ts]
    assert all(b < a for a, b in pairwise(lambdas))
    assert process.pair(process.t_end) == (1.0, 0.0)


@ALL
def test_a_tensor_of_times_gives_what_the_numbers_give(process: ls.process.Process) -> None:
    ts = torch.linspace(process.t_min, process.t_max, 7, dtype=F64)
    alpha, sigma = process.pair(ts)
    for i, t in enumerate(ts.tolist()):
        assert (float(alpha[i]), float(sigma[i])) == pytest.approx(process.pair(t), rel=1e-14)


def test_a_table_of_betas_is_a_process_of_any_length() -> None:
    betas = tuple(np.linspace(1e-4, 0.02, 1000).tolist())
    table, named = ls.process.VP(discrete=True, betas=betas), ls.process.VP(discrete=True)
    for t in (0.0, 17.3, 998.9, 999.0):
        assert table.pair(t) == pytest.approx(named.pair(t), rel=1e-12)
    short = ls.process.VP(discrete=True, betas=(0.1, 0.4, 1.0))
    assert (short.t_max, short.t_end) == (2.0, -1.0)
    assert short.pair(2.0) == (0.0, 1.0)
    assert short.alpha(1.0) ** 2 == pytest.approx(0.9 * 0.6)
    plan = ls.plan_sampling(table, "ddim", 4)
    plan.demand(ls.process.VP(discrete=True, betas=betas).describe())
    with pytest.raises(ls.PlanError, match="betas"):
        plan.demand(named.describe())
    for wrong in ((0.1,), (0.1, 1.0, 0.2), (0.0, 0.1)):
        with pytest.raises(ls.ArgumentError, match="between 0 and 1"):
            ls.process.VP(discrete=True, betas=wrong)
    with pytest.raises(ls.ArgumentError, match="discrete=True"):
        ls.process.VP("scaled_linear")


def test_a_grid_may_be_a_function() -> None:
    plan = ls.plan_sampling(
        ls.process.Flow(), "heun", 6, lambda process, n: np.linspace(process.t_max, 0.1, n)
    )
    assert plan.times == pytest.approx((1.0, 0.7, 0.4, 0.1, 0.0))
    assert plan.nfe == 6


def test_the_published_schedules() -> None:
    """DDPM's table: alphas_cumprod begins at 1 - 1e-4 and ends at 4.0358e-5 (Ho et al. 2020, L_T)."""
    table = ls.process.VP(discrete=True)
    assert table.alpha(0.0) ** 2 == pytest.approx(1 - 1e-4, rel=1e-12)
    betas = np.linspace(1e-4, 0.02, 1000)
    assert table.alpha(999.0) ** 2 == pytest.approx(np.prod(1 - betas), rel=1e-10)
    # Stable Diffusion's: the roots of the betas are linear (Rombach et al. 2022).
    scaled = ls.process.VP("scaled_linear", discrete=True, beta_min=0.85, beta_max=12.0)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert scaled.alpha(999.0) ** 2 == pytest.approx(np.prod(1 - betas), rel=1e-10)
    # The cosine is alpha itself, up to its value at 0.
    cosine = ls.process.VP(schedule="cosine", t_max=1.0)
    start = math.cos(0.008 / 1.008 * math.pi / 2)
    assert cosine.alpha(0.5) == pytest.approx(math.cos(0.508 / 1.008 * math.pi / 2) / start, rel=1e-14)
    assert cosine.pair(1.0) == (0.0, 1.0)
    # Lin et al. 2024: rescaled betas end at alpha = 0 and keep the first alpha.
    rescaled = ls.process.VP(discrete=True, zero_snr=True)
    assert rescaled.pair(999.0) == (0.0, 1.0)
    assert rescaled.alpha(0.0) == pytest.approx(table.alpha(0.0), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sigma", [0.0, 0.7, 40.0])
@pytest.mark.parametrize("predicts", ["data", "noise", "v", "flow", "score"])
def test_predictions_convert_exactly(predicts: str, alpha: float, sigma: float) -> None:
    """From x = alpha x_0 + sigma eps every prediction gives back x_0, eps, velocity and v, or refuses."""
    if alpha == sigma == 0:
        return
    x0, eps = 0.6, -1.3
    x, root = alpha * x0 + sigma * eps, math.hypot(alpha, sigma)
    true = {
        "data": x0,
        "noise": eps,
        "velocity": eps - x0,
        "flow": eps - x0,
        "v": (alpha * eps - sigma * x0) / root,
        "score": -eps / sigma if sigma else 0.0,
    }
    for target in PREDICTIONS:
        try:
            a, b = conversion(predicts, target, alpha, sigma)
        except ls.ArgumentError:
            lost = predicts in ("noise", "score") and alpha == 0
            assert lost or (sigma == 0 and predicts in ("data", "score"))
            continue
        if predicts == "score" and sigma == 0:
            continue  # the score of a noiseless x is not a number
        assert a * x + b * true[predicts] == pytest.approx(true[target], rel=1e-12, abs=1e-12)


def test_edm_preconditioning_has_unit_variances() -> None:
    """c_in gives the network unit variance and c_out asks it for that (Karras et al. 2022, app. B.6)."""
    process = ls.process.EDM(sigma_data=0.7)
    for sigma in (0.01, 0.7, 30.0):
        c_skip, c_out, c_in, c_noise = process.preconditioning(sigma)
        assert c_in**2 * (0.7**2 + sigma**2) == pytest.approx(1)
        target = (1 - c_skip) ** 2 * 0.7**2 + (c_skip * sigma) ** 2
        assert target / c_out**2 == pytest.approx(1)
        assert c_noise == pytest.approx(math.log(sigma) / 4)


@ALL
@pytest.mark.parametrize("prediction", ["data", "noise", "sigma", "velocity", "v"])
def test_clocks_have_inverses(process: ls.process.Process, prediction: str) -> None:
    frame = Frame(process, prediction)
    for share in (0.9, 0.5, 0.1):
        t = process.t_min + share * (process.t_max - process.t_min)
        assert frame.time(frame.clock(t)) == pytest.approx(t, rel=1e-7)


@ALL
@pytest.mark.parametrize("name", list(GRIDS))
def test_grids_fall_strictly_within_the_process(process: ls.process.Process, name: str) -> None:
    for n in (1, 2, 3, 10, 50):
        grid = times(process, n, name)
        assert len(grid) == n
        assert all(np.float32(b) < np.float32(a) for a, b in pairwise(grid))
        if name != "leading":
            assert grid[0] == process.t_max
        if n > 1 and name != "trailing":
            assert grid[-1] == pytest.approx(process.t_min, rel=1e-9, abs=1e-12)


def test_grids_are_what_their_papers_say() -> None:
    edm, table = ls.process.EDM(), ls.process.VP(discrete=True)
    # Karras et al. 2022, eq. 5.
    i = np.arange(10)
    rho = (80 ** (1 / 7) + i / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert times(edm, 10, "karras") == pytest.approx(list(rho), rel=1e-12)
    ratios = np.diff(np.log(times(edm, 10, "log_snr")))
    assert ratios == pytest.approx(np.full(9, ratios[0]), rel=1e-10)
    # diffusers: linspace(0, 999, n), and arange(1000, 0, -1000/n) - 1, before they are rounded.
    assert times(table, 10, "uniform") == pytest.approx(list(np.linspace(0, 999, 10)[::-1]))
    assert times(table, 10, "trailing") == pytest.approx(list(np.arange(1000, 0, -100) - 1.0))
    # Esser et al. 2024: sigma' = shift sigma/(1 + (shift - 1) sigma), here between the same ends.
    flow = ls.process.Flow()
    ends = [t / (3 - 2 * t) for t in (1.0, 1e-3)]
    u = np.linspace(*ends, 10)
    assert times(flow, 10, ("flow_shift", {"shift": 3.0})) == pytest.approx(list(3 * u / (1 + 2 * u)))


def test_the_beta_grid_has_the_quantiles_of_its_distribution() -> None:
    from scipy.stats import beta

    flow = ls.process.Flow()
    u = beta.ppf(np.linspace(1, 0, 12), 0.6, 0.6)
    assert times(flow, 12, "beta") == pytest.approx(list(1e-3 + u * (1 - 1e-3)), abs=1e-6)


def test_pure_noise_grids_begin_at_t_max_and_go_on_from_a_finite_ratio() -> None:
    flow = ls.process.Flow()
    grid = times(flow, 6, "log_snr")
    assert grid[0] == 1.0
    assert (1 - grid[1]) / grid[1] > 1 / RATIO_MAX


def test_add_noise_and_t_start() -> None:
    process = ls.process.VP()
    x0, noise = torch.full((2, 3), 0.5, dtype=F64), torch.ones(2, 3, dtype=F64)
    t = torch.tensor([0.2, 0.6], dtype=F64)
    x = process.add_noise(x0, t, noise)
    for i in range(2):
        alpha, sigma = process.pair(float(t[i]))
        assert torch.allclose(x[i], alpha * x0[i] + sigma * noise[i])
    table = ls.process.VP(discrete=True)
    whole, point = (table.add_noise(x0, torch.tensor([500, 20], dtype=d), noise) for d in (torch.long, F64))
    assert torch.equal(whole, point)
    plan = ls.plan_sampling(process, "ddim", 5, "log_snr", t_start=0.6)
    assert plan.times[0] == 0.6
    assert plan.nfe == 5
