"""What single methods claim beyond the laws: the formulas of their papers, and their special cases."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.frame import Frame
from longstride.methods import get
from longstride.metrics.order import diffusion_trial, error, measured_order, ode_trial
from longstride.models import mixture

F64 = torch.float64
VP = ls.process.VP()
GRID = [1.0, 0.84, 0.7, 0.52, 0.4, 0.3, 0.2, 0.13, 0.06, 0.02]
MODEL = mixture(dim=3, components=3, process=VP)
SHORT = ls.process.VP(t_min=0.3, t_max=0.6)


def end(method: str, grid: list[float] = GRID, **options: object) -> Tensor:
    """x [6, 3] at the last time of the grid, from the same noise whatever the method."""
    x = ls.prior(MODEL, 6, dtype=F64)
    return ls.sample(MODEL, x_init=x, method=method, grid=grid, final="sigma_min", **options)


def noise_at(x: Tensor, t: float) -> Tensor:
    alpha, sigma = VP.pair(t)
    return (x - alpha * MODEL.fields()[0](t, x)) / sigma


def transfer(x: Tensor, e: Tensor, s: float, t: float) -> Tensor:
    """DDIM as PNDM writes it (Liu et al. 2022), in alpha_bar."""
    a_s, a_t = VP.alpha(s) ** 2, VP.alpha(t) ** 2
    falling = (1 - a_t) * a_s
    return (
        math.sqrt(a_t / a_s) * x
        - (a_t - a_s) / (math.sqrt(a_s) * (math.sqrt((1 - a_s) * a_t) + math.sqrt(falling))) * e
    )


def pseudo_runge_kutta(x: Tensor, s: float, t: float) -> tuple[Tensor, Tensor]:
    middle = (s + t) / 2
    e1 = noise_at(x, s)
    e2 = noise_at(transfer(x, e1, s, middle), middle)
    e3 = noise_at(transfer(x, e2, s, middle), middle)
    e4 = noise_at(transfer(x, e3, s, t), t)
    return transfer(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, s, t), e1


def pseudo_heun(x: Tensor, s: float, t: float) -> tuple[Tensor, Tensor]:
    e1 = noise_at(x, s)
    e2 = noise_at(transfer(x, e1, s, t), t)
    return transfer(x, (e1 + e2) / 2, s, t), e1


@pytest.mark.parametrize(
    ("name", "start", "steps", "order"),
    [("f_pndm", pseudo_runge_kutta, 3, 4), ("s_pndm", pseudo_heun, 1, 2), ("plms", pseudo_heun, 1, 4)],
)
def test_pseudo_numerical_methods_are_their_papers_transfers(name, start, steps, order) -> None:
    means = {2: (3, -1), 3: (23, -16, 5), 4: (55, -59, 37, -9)}
    x, known = ls.prior(MODEL, 6, dtype=F64), []
    for n, (s, t) in enumerate(pairwise(GRID)):
        if n < steps:
            x, e = start(x, s, t)
            known = [e, *known]
            continue
        known = [noise_at(x, s), *known][:order]
        weights = means[len(known)]
        mean = sum(w * e for w, e in zip(weights, known, strict=True)) / sum(weights)
        x = transfer(x, mean, s, t)
    assert torch.allclose(end(name), x, rtol=1e-9, atol=1e-9)


def test_a_start_is_paid_whole_or_not_at_all() -> None:
    found = {n: [k for step in ls.plan_sampling(VP, "f_pndm", n).steps if (k := step.nfe)] for n in (13, 16)}
    assert found == {13: [1] * 13, 16: [4, 4, 4, 1, 1, 1, 1]}
    assert torch.equal(end("ipndm_4", GRID), ls.sample(
        MODEL, x_init=ls.prior(MODEL, 6, dtype=F64), method="f_pndm", grid=GRID, nfe=9, final="sigma_min"
    ))  # fmt: skip


def test_pndm_at_25_evaluations_is_better_than_ddim_at_100() -> None:
    model = mixture(dim=2, components=3, process=VP)
    noise = ls.prior(model, 64, dtype=F64)
    truth = ls.reference(model, noise)
    pndm, ddim = (
        ls.metrics.endpoint_error(
            ls.sample(model, x_init=noise, method=name, nfe=nfe, grid="quadratic"), truth
        )
        for name, nfe in (("f_pndm", 25), ("ddim", 100))
    )
    assert pndm < ddim


@pytest.mark.parametrize("name", ["hb_ab_1", "hb_ab_2", "hb_ab_3", "hb_ab_4"])
def test_heavy_ball_without_momentum_is_adams(name: str) -> None:
    assert torch.allclose(end(name, beta=1.0), end(f"ab_{name[-1]}"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_generalised_heavy_ball_of_a_whole_order_is_adams(k: int) -> None:
    assert torch.allclose(end("ghvb", order=float(k)), end(f"ab_{k}"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_generalised_heavy_ball_tends_to_one_order_less(k: int) -> None:
    x = end("ghvb", order=k - 1 + 1e-9)
    assert not torch.allclose(x, end(f"ab_{k}"), rtol=1e-3)
    trial = ode_trial(0.0)
    late = measured_order(get("ghvb", order=k - 1 + 1e-9), trial, 128)
    assert abs(late - (k - 1)) < 0.2


@pytest.mark.parametrize(("order", "true"), [(0.8, 1), (1.5, 2), (2.8, 3), (3.8, 4)])
def test_the_true_order_of_generalised_heavy_ball(order: float, true: int) -> None:
    method = get("ghvb", order=order)
    assert method.order == true
    trial = diffusion_trial(SHORT, "sigma")
    assert abs(measured_order(method, trial, 200) - true) < 0.2


def running_mean(order: int, beta: float, generalised: bool) -> Tensor:
    """The paper's recursion on x' = cos(3t) x in equal steps, with v kept and coefficients of equal steps."""
    gamma = (1, 1 / 2, 5 / 12, 3 / 8)
    h, x, v, past = 0.05, torch.ones(1, dtype=F64), None, []
    for n in range(40):
        f = math.cos(3 * n * h) * x
        v = f if v is None else (1 - beta) * v + beta * f
        past = [v, *past][:order]
        m = len(past)
        lag = (1 - beta) / beta if generalised else 0.0
        nabla = [gamma[j] + (lag * gamma[j - 1] if j else 0) for j in range(m)]
        c = [sum(nabla[j] * (-1) ** i * math.comb(j, i) for j in range(i, m)) for i in range(m)]
        x = x + h * sum(a * b for a, b in zip(c, past, strict=True))
    return x


@pytest.mark.parametrize("beta", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("generalised", [False, True])
def test_momentum_on_equal_steps_is_the_papers_recursion(beta: float, generalised: bool) -> None:
    problem = ls.ODE(lambda t, x: math.cos(3 * t) * x)
    options = {"order": 1 + beta} if generalised else {"beta": beta}
    name = "ghvb" if generalised else "hb_ab_2"
    x0 = torch.ones(1, 1, dtype=F64)
    ours = ls.solve(problem, x0, t=(0.0, 2.0), method=name, steps=40, **options).x[-1, 0]
    assert torch.allclose(ours, running_mean(2, beta, generalised), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 0.8, 1.0])
def test_momentum_widens_the_stable_interval_to_two_minus_beta_over_beta(beta: float) -> None:
    """Growth of x' = -z x, step 1: bounded up to the limit and not beyond, from the roots of the rows."""

    def largest_root(z: float) -> float:
        step = get("hb_ab_2", beta=beta).step([0.0, 1.0, 2.0, 3.0], 2, ls.ODE(lambda t, x: x).operator(False))
        (older, newer), (f_old, f_new) = step.stages[1].x[:2], step.stages[1].f[:2]
        return float(np.abs(np.roots([1, -(newer - z * f_new), -(older - z * f_old)])).max())

    limit = (2 - beta) / beta
    assert largest_root(0.99 * limit) < 1 < largest_root(1.01 * limit)


def test_accelerated_ddim_is_its_papers_formula() -> None:
    """In alpha_bar, with the arcsines of the integral; X_t and the two last noise predictions."""
    x, previous = ls.prior(MODEL, 6, dtype=F64), None
    for n, (s, t) in enumerate(pairwise(GRID)):
        a, b = VP.alpha(s) ** 2, VP.alpha(t) ** 2
        e = noise_at(x, s)
        x = math.sqrt(b / a) * x + (math.sqrt(1 - b) - math.sqrt(1 - a) * math.sqrt(b / a)) * e
        if previous is not None:
            area = a * math.sqrt((1 - b) / b) + math.asin(math.sqrt(b))
            area -= a * math.sqrt((1 - a) / a) + math.asin(math.sqrt(a))
            x = x + math.sqrt(b) / (a - VP.alpha(GRID[n - 1]) ** 2) * area * (previous - e)
        previous = e
    assert torch.allclose(end("accelerated_ddim"), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("accelerated_ddim", 2)])
def test_acceleration_brings_an_order(name: str, order: int) -> None:
    """End to end, T = 80 and 320 even steps of t."""
    model = mixture(dim=2, components=3, process=ls.process.VP(t_min=0.05))
    noise = ls.prior(model, 16, dtype=F64)
    truth = ls.reference(model, noise)
    few, many = (
        ls.metrics.endpoint_error(ls.sample(model, x_init=noise, method=name, nfe=n, grid="uniform"), truth)
        for n in (80, 320)
    )
    assert abs(math.log(few / many, 4) - order) < 0.2


@pytest.mark.parametrize(
    "name",
    ["deis_1", "deis_tab_2", "deis_rhoab_3", "dpm_2m", "dpm_3m", "hb_ab_2", "ghvb", "accelerated_ddim"],
)
def test_a_step_without_history_is_ddim(name: str) -> None:
    assert torch.allclose(end(name, GRID[:2]), end("ddim", GRID[:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_rho_adams_is_adams_in_sigma_over_alpha(k: int) -> None:
    assert torch.allclose(end(f"deis_rhoab_{k}"), end(f"lms_{k}", prediction="sigma"), rtol=1e-9, atol=1e-9)
    assert torch.equal(end(f"deis_tab_{k}"), end(f"deis_{k}", interpolate="t"))


def test_t_adams_integrates_lagrange_polynomials_of_t_against_rho() -> None:
    """Zhang and Chen 2023: C_j = int l_j(t) d(rho), here by a fine trapezoid."""
    s, t, r = GRID[3], GRID[4], GRID[2]
    rho = lambda u: math.exp(-VP.lambda_(u))  # noqa: E731
    times = np.linspace(s, t, 20001)
    clocks = np.array([rho(u) for u in times])
    weights = [np.trapezoid((times - b) / (a - b), clocks) * VP.alpha(t) for a, b in ((r, s), (s, r))]
    row = get("deis_tab_2").step([r, s, t], 1, Frame(VP, "noise")).stages[-1].f
    assert np.allclose(row, weights, rtol=1e-6)


@pytest.mark.parametrize(("ours", "classical"), [("rho_heun", "heun"), ("rho_rk4", "rk4")])
def test_rho_runge_kutta_is_classical_in_sigma_over_alpha(ours: str, classical: str) -> None:
    flow = mixture(dim=2, process=ls.process.Flow())
    noise = ls.prior(flow, 4, dtype=F64)
    x, y = (
        ls.sample(flow, x_init=noise, method=name, nfe=9, **options)
        for name, options in ((ours, {}), (classical, {"prediction": "sigma"}))
    )
    assert torch.equal(x, y)


def test_multistep_dpm_solver_is_the_published_formula() -> None:
    """x_t = a_t/a_s x - s_t (e^h - 1)(D0 + D1/2), D1 = (h/h_old)(e_s - e_r) (Lu et al. 2022)."""
    x, previous = ls.prior(MODEL, 6, dtype=F64), None
    for n, (s, t) in enumerate(pairwise(GRID)):
        e, h = noise_at(x, s), VP.lambda_(t) - VP.lambda_(s)
        slope = 0.0 if previous is None else (e - previous) * h / (VP.lambda_(s) - VP.lambda_(GRID[n - 1]))
        x = VP.alpha(t) / VP.alpha(s) * x - VP.sigma(t) * math.expm1(h) * (e + slope / 2)
        previous = e
    assert torch.allclose(end("dpm_2m"), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_unipc_of_three_nodes_and_more_does_not_see_b_of_h(k: int) -> None:
    """B(h) cancels where no coefficient is hard-coded; its start and its end have two nodes."""
    operator = Frame(SHORT, "data")
    times = diffusion_trial(SHORT, "data").times(12)
    rules = [get(f"unipc_{k}", variant=v, lower_order_final=False) for v in ("bh1", "bh2")]
    assert rules[0].step(times, 7, operator) == rules[1].step(times, 7, operator)
    assert rules[0].step(times, 1, operator) != rules[1].step(times, 1, operator)


def test_higher_unipc_is_more_accurate_where_the_steps_are_small() -> None:
    trial = diffusion_trial(SHORT, "data")
    found = [error(get(f"unipc_{k}", lower_order_final=False), trial, 24) for k in range(1, 7)]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("hb_ab_2", {"beta": 0.0}, "beta"),
        ("ghvb", {"order": 4.5}, "at most 4"),
        ("f_pndm", {"prediction": "data"}, "prediction"),
    ],
)
def test_a_bad_option_says_what_is_allowed(name: str, options: dict, word: str) -> None:
    with pytest.raises(ls.ArgumentError, match=word):
        get(name, **options)
