"""The laws of the design, for every method of the registry."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods import REGISTRY, Method, get
from longstride.metrics.order import (
    Trial,
    diffusion_trial,
    measured_order,
    ode_trial,
    weak_order,
    without_noise,
)
from longstride.models import mixture
from longstride.noise import Noise

F64 = torch.float64
NAMES = sorted(REGISTRY)
# Asymptotic, and above round-off: of an order, or of one method.
STEPS: dict[int | str, int] = {1: 512, 2: 512, 3: 200, 4: 128, 5: 64, 6: 112, 7: 112}
STEPS |= {"vern7": 16, "dopri8": 16, "vern9": 12}
DIFFUSION_STEPS = STEPS | {6: 80, 7: 80, "vern7": 32}
NARROW_STEPS = DIFFUSION_STEPS | {"vern7": 20, "dopri8": 64, "vern9": 64}
HIGH_ORDER_VP = ls.process.VP(t_min=0.2, t_max=0.8)  # on VP below, round-off comes first
EDM = ls.process.EDM(sigma_min=0.5, sigma_max=4.0)
VP = ls.process.VP(t_min=0.3, t_max=0.6)
GAUSSIAN_TRIALS = [ls.process.EDM(sigma_min=0.05, sigma_max=10.0), ls.process.VP(t_min=0.05, t_max=0.9)]
PROCESSES = {
    "edm": ls.process.EDM(),
    "ve": ls.process.VE(),
    "vp": ls.process.VP(),
    "sub-VP": ls.process.SubVP(),
    "cosine": ls.process.VP(schedule="cosine"),
    "discrete": ls.process.VP(discrete=True),
    "discrete cosine": ls.process.VP(schedule="cosine", discrete=True),
    "zero snr": ls.process.VP(discrete=True, zero_snr=True),
    "flow": ls.process.Flow(),
    "pair": ls.process.AlphaSigma(lambda t: 1 - t**2, lambda t: t.sin(), t_max=1.0, name="test"),
}


def plain(name: str) -> Method:
    """The method at its full order: deterministic, and not lowered towards the end."""
    return get(name, **without_noise(name))


DETERMINISTIC = [n for n in NAMES if without_noise(n) or not get(n).diffusion]  # or can be made so


@cache
def trials(kind: str) -> Trial:
    if kind == "plain":
        return ode_trial(0.0)
    if kind == "real L":
        return ode_trial(torch.linspace(-4, -0.3, 12, dtype=F64))
    return ode_trial(1j * torch.linspace(-5, 3, 12, dtype=F64))


@pytest.mark.parametrize("name", [n for n in NAMES if not plain(n).diffusion])
@pytest.mark.parametrize("kind", ["plain", "real L", "imaginary L"])
def test_order_on_odes(name: str, kind: str) -> None:
    method = plain(name)
    if kind != "plain" and not method.splits:
        pytest.skip("a classical method sees L x as part of its field")
    slope = measured_order(method, trials(kind), STEPS.get(name) or STEPS[method.order])
    assert slope > method.order - 0.2
    if method.order < 5 and name != "rev_adams_3":
        # The leading error of the tuned order-5 tableaus is so small that the next ones hide it here, and
        # so does what rev_adams_3 sheds through its zeros near the circle, an order higher, until steps are
        # far shorter. The diffusion trials measure both.
        assert slope < method.order + 0.2


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("process", [EDM, VP], ids=["EDM", "VP"])
def test_order_on_a_diffusion(name: str, process: ls.process.Process) -> None:
    method = plain(name)
    steps = DIFFUSION_STEPS
    if process is VP and method.order > 5:
        process, steps = HIGH_ORDER_VP, NARROW_STEPS
    trial = diffusion_trial(process, method.prediction or "sigma")
    slope = measured_order(method, trial, steps.get(name) or steps[method.order])
    assert slope > method.order - 0.2
    if name != "vern9":  # it comes from above, and round-off ends it before it has settled
        assert slope < method.order + 0.2


@pytest.mark.parametrize("prediction", ["velocity", "v", "sigma"])
@pytest.mark.parametrize("name", ["euler", "heun", "rk4", "ab_3", "abm_2", "exp_adams_3"])
def test_order_in_the_linear_frames_of_a_flow(name: str, prediction: str) -> None:
    process = ls.process.AlphaSigma(lambda t: 1 - t, lambda t: t, t_max=0.8, t_min=0.3)
    method = get(name, prediction=prediction)
    slope = measured_order(method, diffusion_trial(process, prediction), STEPS[method.order])
    assert abs(slope - method.order) < 0.2


@pytest.mark.parametrize("interpolate", ["lambda", "sigma", "t"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_order_whatever_exponential_adams_interpolates_in(interpolate: str, prediction: str) -> None:
    method = get("exp_adams_3", interpolate=interpolate, prediction=prediction)
    assert abs(measured_order(method, diffusion_trial(VP, prediction), 200) - 3) < 0.2


@pytest.mark.parametrize("name", [n for n in NAMES if get(n).exponential and not get(n).diffusion])
def test_the_linear_part_is_exact(name: str) -> None:
    # Going back, as the rows of a step that replaces a state do, multiplies round-off: not for a stiff L.
    L = torch.tensor([-2.0 if get(name).kind == "reversible" else -50.0, -1.0, 0.3], dtype=F64)
    problem = ls.ODE(lambda t, x: torch.zeros_like(x), L=L)
    x0 = torch.ones(2, 3, dtype=F64)
    solution = ls.solve(problem, x0, t=(0.0, 1.0), method=name, steps=7)
    assert torch.allclose(solution.x[-1], x0 * L.exp(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", ["ab_4", "abm_3", "rk4", "dopri5", "exp_adams_4", "unipc_3", "krogstad"])
def test_polynomials_are_integrated_exactly(name: str, degree: int) -> None:
    """x' = t^(degree) has the solution t^(degree+1)/(degree+1), within every method of that order.

    Multistep methods start with low order, so they are given enough of the solution first.
    """
    exact = lambda t: torch.full((1, 1), t ** (degree + 1) / (degree + 1), dtype=F64)  # noqa: E731
    trial = Trial(
        ls.ODE(lambda t, x: x).operator(False), lambda t, x: torch.full_like(x, t**degree), exact, 0.0, 1.0
    )
    from longstride.metrics.order import error

    assert error(plain(name), trial, 8) < 1e-14


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_constant_data_prediction_is_reached_exactly(name: str, process: ls.process.Process) -> None:
    """If the network always says c, every deterministic sampler ends at c, and stays on alpha c + sigma e."""
    c = torch.tensor([0.3, -0.7], dtype=F64)
    model = ls.Denoiser(lambda x, t: c.expand_as(x), process, shape=(2,))
    options = without_noise(name)
    if name == "edict":  # it evaluates a state of another time, where the noise is not what the line says
        options["prediction"] = "data"
    e = ls.prior(model, 3, dtype=F64) / process.prior_std
    alpha, sigma = process.pair(process.t_max)
    start = alpha * c + sigma * e
    for nfe in (1, 2, 5, 9):
        on_line: list[float] = []

        def look(step: int, t: float, x: Tensor, on_line: list[float] = on_line) -> None:
            a, s = process.pair(t)
            on_line.append(float((x - a * c - s * e).abs().max() / max(1.0, s)))

        x = ls.sample(model, x_init=start, method=name, nfe=nfe, callback=look, **options)
        # Round-off times the largest weights, which are of the noise-to-signal ratio and its powers.
        assert torch.allclose(x, c.expand_as(x), atol=1e-9)
        wide = alpha > 0 and max(sigma / alpha, 1 / process.sigma(process.t_min)) > 1e3
        assert max(on_line) < (1e-4 if wide else 1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_nfe_is_a_budget_and_counts_what_the_network_sees(name: str) -> None:
    for process in (PROCESSES["edm"], PROCESSES["flow"], PROCESSES["zero snr"]):
        exact = mixture(dim=2, components=2, process=process)
        calls = 0

        def net(x: Tensor, t: Tensor, exact: ls.Denoiser = exact) -> Tensor:
            nonlocal calls
            calls += 1
            return exact.net(x, t)

        model = ls.Denoiser(net, process, shape=(2,))
        for nfe, final in product(range(1, 12), ("data", "sigma_min")):
            calls, stats = 0, ls.Stats()
            plan = ls.plan_sampling(process, name, nfe, final=final)
            ls.sample(model, 2, plan=plan, stats=stats)
            assert calls == plan.nfe == stats.nfe == nfe
            assert list(plan.times) == sorted(set(plan.times), reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    model = mixture(dim=3, components=3)
    many = ls.sample(model, 7, method=name, nfe=6, seed=3, dtype=F64)
    for batch in (1, 2, 7):
        again = ls.sample(model, 7, method=name, nfe=6, seed=3, dtype=F64, batch=batch)
        assert torch.allclose(again, many, rtol=1e-12, atol=1e-12)
    few = ls.sample(model, 2, method=name, nfe=6, seed=3, dtype=F64)
    assert torch.allclose(few, many[:2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_plan_gives_the_same_numbers(name: str, tmp_path) -> None:
    process = ls.process.VP()
    model = mixture(dim=3, process=process)
    plan = ls.plan_sampling(process, name, 7, "log_snr")
    plan.save(tmp_path / "plan.json")
    loaded = ls.Plan.load(tmp_path / "plan.json")
    assert loaded.steps == plan.steps
    assert torch.equal(ls.sample(model, 4, plan=loaded), ls.sample(model, 4, plan=plan))


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name: str) -> None:
    process = ls.process.EDM(sigma_min=0.02, sigma_max=10.0)
    model = mixture(process=process, dim=4, components=1)  # no border between components to fall across
    x = ls.prior(model, 8, dtype=F64)
    double = ls.sample(model, x_init=x, method=name, nfe=9, grid="log_snr")
    single = ls.sample(model, x_init=x.float(), method=name, nfe=9, grid="log_snr")
    assert single.dtype == torch.float32
    # Round-off of x at sigma = 10 is 6e-7. Tsitouras' stages multiply it by up to 13 * 8 and more of their
    # own in a step as long as the last one, from sigma 10 to 0.2.
    assert torch.allclose(single.double(), double, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    model = mixture(dim=2, components=2)
    x = ls.prior(model, 1, dtype=F64).requires_grad_()

    def end(x: Tensor) -> Tensor:
        return ls.sample(model, x_init=x, method=name, nfe=5, grid="log_snr", seed=1, grad=True)

    assert torch.autograd.gradcheck(end, (x,), eps=1e-5, atol=1e-7, rtol=1e-4)
    assert not ls.sample(model, x_init=x, method=name, nfe=5).requires_grad


def noisy(name: str, amount: float) -> dict[str, object]:
    """The options of a stochastic method with so much noise, 1 being as much as the forward process has."""
    knobs = {"eta": amount, "tau": amount, "s_churn": 20 * amount, "phi": "sde" if amount == 1 else "er_sde"}
    return {k: v for k, v in knobs.items() if k in REGISTRY[name].options}


DRAWING = [n for n in NAMES if ls.plan_sampling(EDM, n, 4, **noisy(n, 1.0)).stochastic]


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("amount", [0.5, 1.0])
@pytest.mark.parametrize("process", GAUSSIAN_TRIALS, ids=lambda p: type(p).__name__)
def test_stochastic_methods_keep_their_weak_order(
    name: str, amount: float, process: ls.process.Process
) -> None:
    """On Gaussian data the denoiser is linear, so mean and variance follow exactly from a plan's weights."""
    options = noisy(name, amount)
    slope, order = weak_order(name, process, 256, **options), get(name, **options).order
    # With a little noise a long multistep method is still on its way from its order without noise to 2.
    assert order - 0.2 < slope < order + (0.5 if order == 2 else 0.2)


@pytest.mark.parametrize("name", DRAWING)
def test_more_steps_refine_the_path_of_a_sample(name: str) -> None:
    """The noise belongs to Brownian time and not to steps: with half the steps a sample is nearly itself."""
    process, options = GAUSSIAN_TRIALS[0], noisy(name, 1.0)
    model, size = mixture(dim=256, components=1, process=process), get(name, **options).sizes[0]
    x = ls.prior(model, 1, dtype=F64)
    a, b, c = (
        ls.sample(model, x_init=x, method=name, nfe=size * n + 1, seed=3, **options) for n in (25, 50, 100)
    )
    # 2 in the limit, the noise being additive; 1 if it were drawn step by step.
    assert (a - b).norm() / (b - c).norm() > 1.4


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_no_two_normals_of_a_run_share_brownian_time(name: str, process: ls.process.Process) -> None:
    plan = ls.plan_sampling(process, name, 12, **noisy(name, 1.0))
    marks = [m for step in plan.steps if step.brownian for m in step.brownian]
    assert plan.stochastic
    assert marks in (sorted(marks), sorted(marks, reverse=True))


@pytest.mark.parametrize(
    ("name", "options", "same", "same_options"),
    [
        ("ddim", {"eta": 0.0}, "exp_euler", {}),
        ("dpmpp_2s_ancestral", {"eta": 0.0}, "dpmpp_2s", {}),
        ("dpmpp_sde", {"eta": 0.0}, "dpmpp_2s", {}),
        ("edm_churn", {"s_churn": 0.0}, "heun", {"prediction": "sigma"}),
        ("sa_solver_3", {"tau": 0.0, "corrector": False}, "exp_adams_3", {}),
        ("er_sde_2", {"phi": "ode"}, "exp_adams_2", {"interpolate": "sigma"}),
        ("sa_solver_3", {"tau_range": (1e3, 1e4), "corrector": False}, "exp_adams_3", {}),
        ("sa_solver_2", {"tau": 0.7, "corrector": False}, "exp_adams_2", {"eta": 0.7}),
        ("er_sde_1", {"phi": "sde"}, "ddpm", {}),
        ("exp_adams_1", {"eta": 1.0}, "ddpm", {}),
        ("euler_ancestral", {}, "ddpm", {}),
    ],
)
@pytest.mark.parametrize("process", [ls.process.EDM(), ls.process.VP()], ids=["EDM", "VP"])
def test_methods_meet_where_theory_says_they_are_one(
    name: str, options: dict, same: str, same_options: dict, process: ls.process.Process
) -> None:
    """Without noise they are deterministic methods, and the SDE's are one with the same noise at order 1."""
    model = mixture(dim=3, process=process)
    x = ls.prior(model, 4, dtype=F64)
    a = ls.sample(model, x_init=x, method=name, nfe=9, seed=2, **options)
    b = ls.sample(model, x_init=x, method=same, nfe=9, seed=2, **same_options)
    assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_brownian_increments_of_a_split_step_add_up() -> None:
    noise = Noise(5, range(3), (4,))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        low, middle, high = sorted((20 * torch.randn(3, generator=generator, dtype=F64)).exp2().tolist())
        whole = noise.increment(low, high) * math.sqrt(high - low)
        parts = noise.increment(low, middle) * math.sqrt(middle - low)
        parts = parts + noise.increment(middle, high) * math.sqrt(high - middle)
        assert torch.allclose(whole, parts, rtol=1e-10, atol=1e-10 * math.sqrt(high))
        assert torch.equal(noise.increment(high, low), -noise.increment(low, high))


def test_brownian_increments_are_unit_normal_and_independent() -> None:
    noise = Noise(0, range(8), (2000,))
    a, b, c = (noise.increment(*q) for q in ((0.3, 0.9), (0.9, 1.1), (1.1, 7.0)))
    n = a.numel()
    for x in (a, b, c):
        assert abs(float(x.mean())) < 4 / math.sqrt(n)
        assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / n)
    for x, y in ((a, b), (b, c), (a, c)):
        assert abs(float((x * y).mean())) < 4 / math.sqrt(n)


@pytest.mark.parametrize("step", [0.1, 1e-3, 1e-4])
def test_short_brownian_increments_are_as_good_as_long_ones(step: float) -> None:
    """Neighbours within one octave: unit variance, no correlation, whatever dyadic point lies between."""
    times = [1.3337 * (1 + step) ** k for k in range(5)]
    z = [Noise(1, range(8), (2000,)).increment(*q).ravel() for q in pairwise(times)]
    n = len(z[0])
    for x in z:
        assert abs(float(x.var()) - 1) < 4.5 * math.sqrt(2 / n)
    for x, y in pairwise(z):
        assert abs(float((x * y).mean())) < 4.5 / math.sqrt(n)


def test_the_noise_of_a_sample_is_its_own_bit_for_bit() -> None:
    whole = Noise(7, range(6), (5,))
    part = Noise(7, [4, 1], (5,))
    assert torch.equal(part.prior(), whole.prior()[[4, 1]])
    assert torch.equal(part.increment(0.2, 3.0), whole.increment(0.2, 3.0)[[4, 1]])
    assert not torch.equal(Noise(8, range(6), (5,)).prior(), whole.prior())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_keeps_a_float32_state(dtype: torch.dtype) -> None:
    seen = []

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones((), dtype=dtype))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            seen.append((x.dtype, t.dtype))
            return self.w * x / (1 + t[:, None] ** 2)

    model = ls.Denoiser(Net(), ls.process.EDM(sigma_max=10.0), shape=(3,))
    x = ls.sample(model, 2, nfe=4)
    assert x.dtype == torch.float32
    assert set(seen) == {(dtype, dtype)}
