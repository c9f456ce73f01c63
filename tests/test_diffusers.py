"""PlanScheduler in stock pipelines: what diffusers computes too, and what its users complain of."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.compat.configuration import CLASSES
from longstride.compat.diffusers import PlanScheduler
from longstride.core import Stage, Step
from longstride.frame import DATA
from longstride.methods import REGISTRY

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
F64 = torch.float64
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)


def config(name: str, **settings: Any) -> dict[str, Any]:
    return getattr(diffusers, name)(**settings).config


def smooth(x: Tensor, t: Tensor) -> Tensor:
    """Stands for a network: smooth in x and t, and of no particular meaning."""
    return 0.8 * torch.tanh(1.3 * x) + 0.1 * torch.cos(t.to(x) / 300)


def drive(
    scheduler: Any, net: Callable[[Tensor, Tensor], Tensor], x: Tensor, first: int = 0, **step: Any
) -> Tensor:
    """What a pipeline does around its network."""
    for t in scheduler.timesteps[first:]:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t), t, x, return_dict=False, **step)[0]
    return x


# What diffusers computes too, on times that it does not round.

TEN, NINE = {"num_inference_steps": 10}, {"num_inference_steps": 9}
SIGMAS = np.linspace(1, 1 / 9, 9)
SAME: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("DDIMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}, "ddim", TEN),
    ("DDIMScheduler", {"steps_offset": 1, "clip_sample": False, **LATENT}, "ddim", TEN),
    ("DDIMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
                       "timestep_spacing": "trailing", "clip_sample": False}, "ddim", TEN),
    ("DDIMScheduler", {"prediction_type": "sample", "clip_sample": False, "num_train_timesteps": 100,
                       "trained_betas": np.geomspace(1e-3, 0.1, 100).tolist()}, "ddim", TEN),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing", **LATENT}, "dpmpp_2m", TEN),
    ("DPMSolverMultistepScheduler", {"solver_type": "heun"}, "exp_adams_2", NINE),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, "lower_order_final": False}, "dpmpp_3m", NINE),
    ("UniPCMultistepScheduler", {}, "unipc_2", NINE),
    ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2", **LATENT}, "unipc_3", NINE),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1, **LATENT}, "euler", TEN),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "use_karras_sigmas": True}, "euler", TEN),
    ("HeunDiscreteScheduler", {"timestep_spacing": "trailing"}, "heun", TEN),
    ("KDPM2DiscreteScheduler", {"timestep_spacing": "trailing"}, "dpm_2", TEN),
    ("DDIMParallelScheduler", {"timestep_spacing": "trailing", "clip_sample": False}, "ddim", TEN),
    ("EDMEulerScheduler", {}, "euler", NINE),
    ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}, "dpmpp_2m", NINE),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler", {"sigmas": SIGMAS}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, "euler",
     {"sigmas": SIGMAS, "mu": 0.9}),
    ("FlowMatchEulerDiscreteScheduler", {"shift_terminal": 0.1, "use_dynamic_shifting": True,
                                         "time_shift_type": "linear"}, "euler",
     {"sigmas": SIGMAS, "mu": 2.0}),
    ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "unipc_2",
     {"sigmas": np.array([0.9, 0.7, 0.5, 0.3, 0.1])}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "method", "times"), SAME)
def test_agrees_with_diffusers(name: str, settings: dict, method: str, times: dict) -> None:
    theirs = getattr(diffusers, name)(**settings)
    ours = PlanScheduler.from_config(theirs.config, trained_with=name, method=method)
    theirs.set_timesteps(**times)
    if not hasattr(theirs, "scale_model_input"):
        theirs.scale_model_input = lambda x, t: x
    ours.set_timesteps(**times | ({"num_inference_steps": 19} if method in ("heun", "dpm_2") else {}))
    assert torch.allclose(ours.timesteps, theirs.timesteps.float(), rtol=1e-4, atol=1e-3)
    # These keep x/alpha.
    scale = (theirs.sigmas[0] ** 2 + 1) ** 0.5 if name.startswith(("Euler", "Heun", "KDPM2")) else 1.0
    x = X.float() * ours.init_noise_sigma
    assert torch.allclose(drive(ours, smooth, x), drive(theirs, smooth, x * scale), atol=3e-5)


@pytest.mark.parametrize(
    ("name", "method", "tolerance"),
    # LMS's weights are integrals to 1e-4.
    [("DEISMultistepScheduler", "deis_2", 1e-5), ("LMSDiscreteScheduler", "lms_4", 3e-4)],
)
def test_agrees_until_their_end_which_is_another(name: str, method: str, tolerance: float) -> None:
    theirs = getattr(diffusers, name)(timestep_spacing="trailing")
    ours = PlanScheduler.from_config(theirs.config, trained_with=name, method=method)
    states: list[list[Tensor]] = [[], []]
    for scheduler, seen in zip((ours, theirs), states, strict=True):
        scheduler.set_timesteps(10)
        scale = (theirs.sigmas[0] ** 2 + 1) ** 0.5 if scheduler is theirs and method == "lms_4" else 1.0
        drive(scheduler, lambda x, t, seen=seen: seen.append(x) or smooth(x, t), X.float() * scale)
    assert torch.allclose(states[0][-1], states[1][-1], atol=tolerance)


def test_agrees_with_singlestep_dpm_solver() -> None:
    """Its inner evaluations are at grid points, ours in the middle of lambda: one on a geometric grid.

    Its times are rounded on that grid, so the network is one that does not look at them.
    """
    theirs = diffusers.DPMSolverSinglestepScheduler(use_exponential_sigmas=True)
    ours = PlanScheduler.from_config(theirs.config, method="dpmpp_2s")
    ends = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(9)
        ends.append(drive(scheduler, lambda x, t: 0.8 * torch.tanh(1.3 * x), X))
    assert torch.allclose(*ends, atol=1e-4)


def test_agrees_with_heun_on_a_flow() -> None:
    theirs = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(10)
    grid = [*theirs.sigmas[:1].tolist(), *theirs.sigmas[1:-1:2].tolist()]
    ours = _set(PlanScheduler.from_config(theirs.config, method="heun", grid=grid), 19)
    theirs.scale_model_input = lambda x, t: x
    assert torch.allclose(drive(ours, smooth, X.float()), drive(theirs, smooth, X.float()), atol=1e-5)


@pytest.mark.parametrize("largest", [1.0, 1.5])
def test_dynamic_thresholds_are_those_of_diffusers(largest: float) -> None:
    """At 201 elements a sample the quantile 0.995 is an element, and there is nothing to interpolate."""
    theirs = diffusers.DDIMScheduler(thresholding=True, sample_max_value=largest, timestep_spacing="trailing")
    x = torch.randn(2, 3, 67, 1, generator=torch.Generator().manual_seed(0))
    ends = []
    for scheduler in (PlanScheduler.from_config(theirs.config, method="ddim"), theirs):
        scheduler.set_timesteps(10)
        ends.append(drive(scheduler, smooth, x, use_clipped_model_output=True))
    assert torch.allclose(*ends, atol=3e-5)
    plain = _set(
        PlanScheduler.from_config(theirs.config, method="ddim", thresholding=False, clip_sample=False), 10
    )
    assert not torch.allclose(ends[0], drive(plain, smooth, x), atol=0.1)


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_the_variance_beside_a_prediction_is_left_aside(variance: str) -> None:
    theirs = diffusers.DPMSolverMultistepScheduler(variance_type=variance, timestep_spacing="trailing")
    ours = PlanScheduler.from_config(theirs.config, method="dpmpp_2m")
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ends = []
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(10)
        ends.append(drive(scheduler, lambda y, t: torch.cat([smooth(y, t), 9 * y], 1), x))
    assert torch.allclose(*ends, atol=3e-5)


def test_euler_a_has_the_mean_and_the_variance_of_diffusers() -> None:
    theirs = diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    ours = PlanScheduler.from_config(theirs.config, method="euler_ancestral")
    x, g = torch.randn(1, 1, 256, 256), torch.Generator().manual_seed(0)
    out = 0.3 * torch.randn_like(x)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    s, t = (float(sigma) for sigma in theirs.sigmas[:2])
    wide = theirs.step(out, theirs.timesteps[0], x * (1 + s * s) ** 0.5, generator=g).prev_sample
    change = ours.step(out, ours.timesteps[0], x, generator=g).prev_sample * (1 + t * t) ** 0.5 - wide
    up = (t**2 * (s**2 - t**2) / s**2) ** 0.5
    assert abs(float(change.mean())) < 5 * up * (2 / x.numel()) ** 0.5
    assert float(change.std()) == pytest.approx(2**0.5 * up, rel=0.02)


def test_ddpm_has_the_mean_and_the_variance_of_diffusers() -> None:
    theirs = diffusers.DDPMScheduler(clip_sample=True, timestep_spacing="trailing")
    ours = PlanScheduler.from_config(theirs.config, method="ddpm")
    x = torch.randn(1, 1, 256, 256)
    out, g = 0.3 * torch.randn_like(x), torch.Generator().manual_seed(0)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(20)
    t = theirs.timesteps[0]
    change = ours.step(out, t, x, generator=g).prev_sample - theirs.step(out, t, x, generator=g).prev_sample
    sigma = float(theirs._get_variance(t)) ** 0.5
    assert abs(float(change.mean())) < 5 * sigma * (2 / x.numel()) ** 0.5
    assert float(change.std()) == pytest.approx(2**0.5 * sigma, rel=0.02)


# What users complain of. Each name is the complaint's, turned round.

CHANGED_FIRST = {"accelerated_ddpm", "edict"}  # a pipeline evaluates before anything changes x
WHOLE = sorted(set(REGISTRY) - CHANGED_FIRST)
FLOW = config("FlowMatchEulerDiscreteScheduler", shift=3.0)
VP = config("DDIMScheduler", clip_sample=False, timestep_spacing="trailing")
EDM = config("EDMEulerScheduler")


@pytest.mark.parametrize("source", [VP, FLOW, EDM], ids=["vp", "flow", "edm"])
@pytest.mark.parametrize("method", WHOLE)
def test_every_method_is_ls_sample_and_steps_are_evaluations(method: str, source: dict) -> None:
    scheduler = PlanScheduler.from_config(source, method=method, noise="brownian")
    scheduler.set_timesteps(7)
    assert len(scheduler.timesteps) == scheduler.num_inference_steps == 7
    c = scheduler._configuration
    net = ls.Denoiser(
        lambda x, t: smooth(x, t[0]),
        c.process,
        predicts=c.predicts,
        time=lambda t: t if c.kind == "edm" else t * c.network_time(1),
    )
    plan = scheduler._given
    want = ls.sample(net, x_init=X * scheduler.init_noise_sigma, plan=plan, seed=4)
    got = drive(scheduler, smooth, X * scheduler.init_noise_sigma, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("n", [3, 7, 50, 999])
def test_timesteps_are_neither_rounded_nor_doubled(name: str, n: int) -> None:
    scheduler = PlanScheduler.from_config(
        config(name, **({"steps_offset": 1} if name == "PNDMScheduler" else {}))
    )
    assert len(scheduler.timesteps) == len(scheduler) == 1000  # available before set_timesteps
    scheduler.set_timesteps(n)
    assert (scheduler.timesteps.diff() < 0).all()
    assert (scheduler.sigmas.diff() < 0).all()
    if n == 7:
        assert not torch.equal(scheduler.timesteps, scheduler.timesteps.round())
    assert scheduler.sigmas[-1] == 0  # the run ends at clean data


@pytest.mark.parametrize("source", [VP, FLOW, EDM], ids=["vp", "flow", "edm"])
@pytest.mark.parametrize("method", sorted({*WHOLE} - {"edm_churn"}))
def test_no_noise_is_left_wherever_a_run_begins(method: str, source: dict) -> None:
    """A network that knows the clean data brings every start to them, also one in the middle of a step."""
    data = X.flip(0)
    scheduler = PlanScheduler.from_config(source, method=method)
    for first in range(7):
        scheduler.set_timesteps(7)
        c = scheduler._configuration

        def net(x: Tensor, t: Tensor, c: Any = c) -> Tensor:
            time = float(c.process_time(t))
            state = x / c.process.preconditioning(time)[2] if c.kind == "edm" else x
            a, b = c.coefficients("data", time)
            return (data - a * state) / b

        scheduler.set_begin_index(first)
        x = scheduler.add_noise(data, X, scheduler.timesteps[first : first + 1].repeat(2))
        end = drive(scheduler, net, x, first, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(end, data, atol=1e-4), (first, scheduler.timesteps)


@pytest.mark.parametrize("method", sorted({*CHANGED_FIRST, "edm_churn"}))
def test_a_method_that_cannot_begin_there_is_refused_and_never_botched(method: str) -> None:
    scheduler = PlanScheduler.from_config(VP, method=method)
    with pytest.raises(ls.ArgumentError, match="take another method"):  # noqa: PT012
        scheduler.set_timesteps(7)
        scheduler.set_begin_index(3)
        scheduler.step(X, scheduler.timesteps[3], X, generator=torch.Generator().manual_seed(0))


def test_a_start_in_the_middle_is_a_shorter_run() -> None:
    """img2img with evaluations 4 to 9 of 10 is ls.sample on the last six times, with no history."""
    scheduler = PlanScheduler.from_config(VP, method="unipc_2")
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(4)
    assert (scheduler.begin_index, scheduler.step_index) == (4, None)
    model = ls.Denoiser(lambda x, t: smooth(x, t[0]), scheduler._configuration.process, predicts="noise")
    want = ls.sample(model, x_init=X, method="unipc_2", nfe=6, grid=scheduler.timesteps[4:].tolist())
    assert torch.allclose(drive(scheduler, smooth, X, 4), want, atol=1e-6)
    assert scheduler.step_index == 10
    scheduler.set_timesteps(10)  # without set_begin_index the first time says where it is
    assert torch.allclose(drive(scheduler, smooth, X, 4), want, atol=1e-6)


@pytest.mark.parametrize("method", ["plms", "f_pndm"])
def test_pndm_in_mid_run_is_what_it_is_without_its_start(method: str) -> None:
    ours = _set(PlanScheduler.from_config(VP, method=method), 20)
    ours.set_begin_index(15)
    plain = PlanScheduler.from_config(VP, method="ipndm_4")
    plain.set_timesteps(timesteps=ours.timesteps[15:])
    assert torch.allclose(drive(ours, smooth, X, 15), drive(plain, smooth, X), atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "dpmpp_2m", "deis_3", "unipc_3", "bdia"])
def test_what_a_pipeline_does_to_x_between_calls_counts(method: str) -> None:
    """Inpainting pipelines put known pixels into x after each call: the step goes on from there."""
    scheduler = PlanScheduler.from_config(VP, method=method)
    ends = []
    for change in (0.0, 1.0):
        scheduler.set_timesteps(5)
        x = X
        for t in scheduler.timesteps:
            x = scheduler.step(torch.zeros_like(X), t, x, return_dict=False)[0] + change * (
                t == scheduler.timesteps[-2]
            )
        ends.append(x)
    # With no noise predicted, the last step divides by alpha and nothing else.
    alpha = scheduler._configuration.process.alpha(scheduler._given.times[-2])
    assert torch.allclose(ends[1] - ends[0], torch.full_like(X, 1 / alpha))


def test_samples_have_times_of_their_own_in_one_batch() -> None:
    scheduler = PlanScheduler.from_config(VP)
    noise, t = torch.randn_like(X), torch.tensor([17, 803])
    both = scheduler.add_noise(X, noise, t)
    theirs = diffusers.DDIMScheduler().add_noise(X, noise, t)
    assert torch.allclose(both, theirs, atol=1e-5)
    for i in (0, 1):
        assert torch.equal(both[i : i + 1], scheduler.add_noise(X[i : i + 1], noise[i : i + 1], t[i : i + 1]))
    flow = PlanScheduler.from_config(FLOW)
    mixed = flow.scale_noise(X, torch.tensor([250.0, 0.0]), noise)
    assert torch.allclose(mixed, torch.stack([0.75 * X[0] + 0.25 * noise[0], X[1]]))


@pytest.mark.parametrize("noise", ["generator", "brownian"])
@pytest.mark.parametrize("method", ["ddpm", "dpmpp_2m_sde"])
def test_noise_does_not_depend_on_the_batch(method: str, noise: str) -> None:
    def run(x: Tensor, seeds: list[int]) -> Tensor:
        scheduler = PlanScheduler.from_config(VP, method=method, noise=noise)
        scheduler.set_timesteps(6)
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return drive(scheduler, smooth, x, generator=generators if len(seeds) == len(x) else generators[0])

    assert torch.equal(run(X, [1, 2])[1:], run(X[1:], [2]))
    assert torch.equal(run(X, [1])[:1], run(X[:1], [1]))
    assert not torch.equal(run(X, [1]), run(X, [3]))


def test_noise_of_a_run_is_new_in_every_step_and_not_what_the_run_began_from() -> None:
    """Two unit normals of n elements have a correlation of variance 1/n."""
    begun = torch.randn(3, 4, 64, 64, generator=torch.Generator().manual_seed(5), dtype=F64)
    scheduler = PlanScheduler.from_config(VP, method="ddpm")
    scheduler.set_timesteps(4)
    generator, drawn = torch.Generator().manual_seed(5), [*begun]
    for interval in ((4.0, 2.0), (2.0, 1.0)):
        drawn += [*scheduler._normal(interval, begun, generator)]
    all_of_them = torch.stack(drawn).flatten(1)
    gram = all_of_them @ all_of_them.T / all_of_them.shape[1]
    assert (gram - torch.eye(len(gram), dtype=F64)).abs().max() < 5 * 2**0.5 * all_of_them.shape[1] ** -0.5


def test_half_precision_keeps_a_float32_state() -> None:
    """300 steps with one constant output: what is lost is the last rounding, and not one in each step."""
    out = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    ends = []
    for dtype in (torch.bfloat16, F64):
        scheduler = PlanScheduler.from_config(FLOW, method="euler")
        scheduler.set_timesteps(300)
        x = X.bfloat16().to(dtype)
        ends.append(drive(scheduler, lambda y, t: out.bfloat16().to(y), x))
    assert ends[0].dtype == torch.bfloat16
    assert torch.allclose(ends[0].double(), ends[1], rtol=2**-8, atol=1e-3)


def test_edm_takes_the_time_0() -> None:
    """log(sigma)/4 is 0 at sigma = 1; c_in and c_skip are those of sigma = 1."""
    scheduler = PlanScheduler.from_config(EDM, method="euler")
    scheduler.set_timesteps(timesteps=[0.25, 0.0, -0.25])
    x = scheduler.step(torch.zeros_like(X), 0.25, X).prev_sample
    assert torch.allclose(scheduler.scale_model_input(x, 0.0), x / 1.25**0.5)


def test_a_flow_has_every_method_and_the_better_one_is_better() -> None:
    """Data at +-1: the exact velocity, 16 evaluations, against the converged end."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        s = float(t) / 1000
        variance = (1 - s) ** 2 * 0.05 + s * s
        mean = torch.tanh((1 - s) * x / variance)
        return (x - (mean + (1 - s) * 0.05 / variance * (x - (1 - s) * mean))) / s

    def end(method: str, n: int) -> Tensor:
        scheduler = PlanScheduler.from_config(config("FlowMatchEulerDiscreteScheduler"), method=method)
        scheduler.set_timesteps(n)
        return drive(scheduler, velocity, X)

    truth = end("dpmpp_2m", 2000)
    errors = {m: float((end(m, 16) - truth).square().mean().sqrt()) for m in ("euler", "dpmpp_2m", "unipc_2")}
    assert errors["dpmpp_2m"] < errors["euler"] / 2
    assert errors["unipc_2"] < errors["euler"] / 2


@pytest.mark.parametrize(
    ("method", "terms"),
    # The next state from x, what the network returned and what is kept; before it, what is to be kept.
    [("ddim", [2]), ("heun", [3, 2]), ("dpmpp_2m", [2, 3]), ("dpmpp_3m", [2, 4]), ("deis_3", [4]),
     ("unipc_1", [2, 3]), ("unipc_2", [2, 4]), ("unipc_3", [2, 5]), ("sa_solver_2", [2, 5])],
)  # fmt: skip
def test_a_call_adds_no_more_than_its_states_and_evaluations(method: str, terms: list[int]) -> None:
    """A corrected state costs nothing: it and the prediction after it are one row."""
    calls = _set(PlanScheduler.from_config(VP, method=method), 15)._calls
    inner = calls[7:9] if method == "heun" else calls[7:8]
    found = [len(row) for call, _ in inner for _, row, interval in call.rows if interval is None]
    assert found == terms


def test_the_plan_that_was_asked_for_last_is_kept_until_anything_changes() -> None:
    scheduler = _set(PlanScheduler.from_config(VP, method="unipc_2"), 6)
    plan, times = scheduler._given, scheduler.timesteps
    first = drive(scheduler, smooth, X)
    assert _set(scheduler, 6)._given is plan
    assert torch.equal(drive(scheduler, smooth, X), first)
    scheduler.set_timesteps(timesteps=times[1:])
    assert torch.equal(scheduler.timesteps, times[1:])
    assert torch.equal(drive(_set(scheduler, 6), smooth, X), first)
    scheduler.register_to_config(timestep_spacing="linspace")
    assert not torch.equal(_set(scheduler, 6).timesteps, times)


# Configurations: kept, and refused.


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    ours = PlanScheduler.from_config(
        VP, method="exp_adams_2", options={"prediction": "noise"}, grid=("karras", {"rho": 5.0})
    )
    ours.save_pretrained(tmp_path)
    again = PlanScheduler.from_pretrained(tmp_path)
    for scheduler in (ours, again, copy.deepcopy(ours)):
        scheduler.set_timesteps(6)
        assert torch.equal(drive(scheduler, smooth, X), drive(_set(ours, 6), smooth, X))
    back = diffusers.DPMSolverMultistepScheduler.from_config(
        PlanScheduler.from_config(config("DDIMScheduler", **LATENT)).config
    )
    assert back.config.beta_schedule == "scaled_linear"
    assert diffusers.DDIMScheduler in ours.compatibles


def _set(scheduler: PlanScheduler, n: int) -> PlanScheduler:
    scheduler.set_timesteps(n)
    return scheduler


def test_a_plan_runs_as_it_is(tmp_path: Path) -> None:
    process = ls.process.VP(discrete=True)
    plan = ls.plan_sampling(process, "dpmpp_2s", 6, "log_snr")
    PlanScheduler.from_config(VP, plan=plan).save_pretrained(tmp_path)
    scheduler = _set(PlanScheduler.from_pretrained(tmp_path), 6)
    want = ls.sample(
        ls.Denoiser(lambda x, t: smooth(x, t[0]), process, predicts="noise"), x_init=X, plan=plan
    )
    assert torch.allclose(drive(scheduler, smooth, X), want, atol=1e-5)
    with pytest.raises(ls.ArgumentError, match="num_inference_steps=6"):
        scheduler.set_timesteps(8)
    other = PlanScheduler.from_config(scheduler.config, method="ddim")
    assert other.config.plan is None
    with pytest.raises(ls.ArgumentError, match="another process"):
        PlanScheduler.from_config(FLOW, plan=plan)
    with pytest.raises(ls.ArgumentError, match="leave those out"):
        PlanScheduler.from_config(VP, plan=plan, method="ddim")


def test_a_plan_that_shows_the_start_in_another_size_begins_with_that() -> None:
    """As tuned ones of EDM's kind do: x at sigma = 80 is shown as one at 20, and goes on as it was."""
    process = PlanScheduler.from_config(EDM)._configuration.process
    first = Step((Stage((0.25,), at=20.0, field=DATA), Stage((0.1,), (0.9,))), keep_f=(0,))
    last = Step((Stage((1.0,), at=8.0, field=DATA), Stage((), (-0.1, 1.1))))
    plan = ls.Plan((80.0, 8.0, process.t_end), (first, last), process.describe())
    scheduler = _set(PlanScheduler.from_config(EDM, plan=plan), 2)
    assert scheduler.init_noise_sigma == 20.0
    net = ls.Denoiser(lambda x, t: smooth(x, t[0]), process, predicts="raw")
    want = ls.sample(net, x_init=80 * X, plan=plan)
    assert torch.allclose(drive(scheduler, smooth, 20 * X), want, rtol=1e-5, atol=1e-5)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("DPMSolverMultistepScheduler", {"variance_type": "other"}, "variance"),
    ("DDPMScheduler", {"beta_schedule": "sigmoid"}, "trained_betas"),
    ("DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50}, "trained_betas"),
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "interpolation_type"),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type"),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "stochastic_sampling"),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}, "use_flow_sigmas"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True,
                                     "use_karras_sigmas": True}, "leave one"),
    ("DDPMScheduler", {"trained_betas": [0.1, 0.2]}, "2 entries"),
    ("LCMScheduler", {}, "distilled"),
    ("DDIMInverseScheduler", {}, "from noise to data"),
    ("IPNDMScheduler", {}, "times"),
    ("VQDiffusionScheduler", {"num_vec_classes": 5}, "VQDiffusionScheduler"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "missing"), REFUSED)
def test_what_is_not_understood_is_refused_by_name(name: str, settings: dict, missing: str) -> None:
    with pytest.raises(ls.ArgumentError, match=missing):
        PlanScheduler.from_config({**config(name, **settings), "_class_name": name})


def test_wrong_use_is_refused() -> None:
    scheduler = PlanScheduler.from_config(VP)
    dynamic = config("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True)
    zero_snr = config(
        "EulerDiscreteScheduler", rescale_betas_zero_snr=True
    )  # of a network that predicts noise
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: PlanScheduler.from_config(VP, method="dpmp_2m"), "did you mean"),
        (lambda: PlanScheduler.from_config(VP, solver="x"), "no setting 'solver'"),
        (lambda: PlanScheduler.from_config("folder"), "pipe.scheduler.config"),
        (lambda: scheduler.set_timesteps(), "give one"),
        (lambda: scheduler.set_timesteps(timesteps=[9, 5], sigmas=[2.0, 1.0]), "one of"),
        (lambda: scheduler.set_timesteps(3, timesteps=[9, 5]), "give one"),
        (lambda: scheduler.set_timesteps(4, mu=1.0), "no flow"),
        (lambda: _set(scheduler, 4).step(X, 3.5, X), "not among the timesteps"),
        (lambda: _set(scheduler, 4).step(X, 999.0, X, eta=0.5), "eta"),
        (lambda: _set(scheduler, 4).step(X.repeat(1, 2, 1, 1), 999.0, X), "its prediction alone"),
        (lambda: _set(scheduler, 4).set_begin_index(4), "begin index"),
        (lambda: [drive(s, smooth, X) for s in [_set(scheduler, 4)] for _ in "12"], "set_timesteps"),
        (lambda: _set(PlanScheduler.from_config(dynamic), 4), "mu="),
        (lambda: _set(PlanScheduler.from_config(zero_snr), 4), "alpha = 0"),
    ]  # fmt: skip
    for call, words in refused:
        with pytest.raises(ls.ArgumentError, match=words):
            call()


def test_longstride_imports_no_extra_and_no_compiler() -> None:
    """Each takes longer than torch itself."""
    heavy = {"diffusers", "transformers", "torch._dynamo"}
    code = f"import sys, longstride; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_pipelines_find_what_they_look_for() -> None:
    names = inspect.signature(PlanScheduler.set_timesteps).parameters
    assert {"num_inference_steps", "device", "timesteps", "sigmas", "mu"} <= set(names)
    assert "generator" in inspect.signature(PlanScheduler.step).parameters
