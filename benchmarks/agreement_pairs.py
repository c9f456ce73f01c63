"""The pairs that agreement.py compares: a sampler of ours and a peer's on the times it is given.

Times fall and are the task's own: sigma for EDM, t for a flow, the table's index for VP. A sampler evaluates
at each of them and, where it must take a step after the last, goes where nothing is evaluated.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import azula.sample
import diffusers
import torch
from azula import noise as azula_noise
from torch import Tensor

import longstride as ls
from ours import denoiser
from peers import Task
from peers import azula_ as a
from peers import diffusers_ as d
from peers import k_diffusion_ as k
from peers import smalldiffusion_ as s

Sampler = Callable[[Task, Tensor, Tensor], object]  # (task, times [n], noise)


@dataclass(frozen=True)
class Pair:
    name: str
    ours: Sampler
    peer_name: str
    peer: Sampler
    kind: str = "edm"


def ours(method: str, **options: Any) -> Sampler:
    def run(task: Task, times: Tensor, noise: Tensor) -> object:
        model = denoiser(task)
        plan = ls.plan_sampling(model.process, method, None, times.tolist(), **options)
        return ls.sample(model, x_init=noise * model.process.sigma(float(times[0])), plan=plan)

    return run


def crowson(function: Callable[..., Tensor]) -> Sampler:
    """For a flow sigma is t: k-diffusion's ODE is then the flow's own."""

    def run(task: Task, times: Tensor, noise: Tensor) -> object:
        sigmas = torch.cat([times, times.new_zeros(1)])
        return function(lambda x, sig: task.data(x, float(sig[0])), sigmas[0] * noise, sigmas, disable=True)

    return run


def below(times: Tensor) -> Tensor:
    """The times and one more, for samplers that must not see sigma = 0; nothing is evaluated there."""
    return torch.cat([times, times[-1:] ** 2 / times[-2]])


class GridSchedule(azula_noise.Schedule):
    """azula's own times 1 .. 0 mapped to the given ones, of an EDM process or a flow."""

    def __init__(self, times: Tensor, flow: bool) -> None:
        self.times, self.flow = times, flow

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        times = self.times[((1 - t) * (len(self.times) - 1)).round().long()]
        return 1 - times if self.flow else torch.ones_like(times), times


def azula_run(make: Callable[..., azula.sample.Sampler]) -> Sampler:
    def run(task: Task, times: Tensor, noise: Tensor) -> object:
        net = a.TaskDenoiser(task, GridSchedule(below(times), task.kind == "flow"))
        sampler = make(net, steps=len(times), silent=True, dtype=torch.float64)
        return sampler(times[0] * noise)

    return run


def scheduler(
    make: Callable[..., Any], frame: str = "vp", output: str = "data", twice: bool = False, **step: Any
) -> Sampler:
    """A diffusers scheduler on given times in float64; its casts to float32 are undone.

    twice: it keeps every sigma but the first two times, for its two stages.
    """

    def run(task: Task, times: Tensor, noise: Tensor) -> object:
        found = make()
        if hasattr(found, "alphas_cumprod"):
            d.use_table(found, task.table)
        found.set_timesteps(len(times))
        sigmas = task.table[times.long()] if task.kind == "vp" else times
        found.sigmas = below(sigmas)
        if twice:
            ends = sigmas[:1], sigmas[1:].repeat_interleave(2), torch.zeros(1).double()
            found.sigmas = torch.cat(ends)
        spec = d.Spec("", make, "", frame, output, step=step)
        with mock.patch.object(torch, "float32", torch.float64):
            return d.drive(found, found.timesteps, spec, task, noise)

    return run


def stock(make: Callable[..., Any], frame: str = "vp") -> Sampler:
    """A diffusers scheduler with the tables it makes itself, in float32."""

    def run(task: Task, times: Tensor, noise: Tensor) -> object:
        found = make()
        found.set_timesteps(len(times))
        return d.drive(found, found.timesteps, d.Spec("", make, "", frame, "data"), task, noise)

    return run


def ddim(task: Task, times: Tensor, noise: Tensor) -> object:
    return d.spend_indexed(DDIM, lambda n: n, "data", task, noise, len(times))


def stock_ddim(task: Task, times: Tensor, noise: Tensor) -> object:
    """With its own table, whose sigma it has no name for."""

    def keep(found: Any, table: Tensor) -> None:
        found.sigma_t = (1 - found.alphas_cumprod).sqrt()

    with mock.patch.object(d, "use_table", keep):
        return ddim(task, times, noise)


def repaired_reab() -> type:
    """azula's REAB with sigma_s where it has sigma_t: sqrt(alpha_s^2 + sigma_s^2) in its last line."""
    source = textwrap.dedent(inspect.getsource(azula.sample.REABSampler))
    wrong, right = "sqrt(alpha_s**2 + sigma_t**2)", "sqrt(alpha_s**2 + sigma_s**2)"
    if source.count(wrong) != 1:
        raise ValueError("azula's REABSampler has changed: look at its scaling again")
    scope = dict(vars(azula.sample))
    exec(source.replace(wrong, right), scope)
    return scope["REABSampler"]


def ipndm(task: Task, times: Tensor, noise: Tensor) -> object:
    return d.spend_ipndm(lambda n: times, task, noise, len(times))


def small(gam: float) -> Sampler:
    def run(task: Task, times: Tensor, noise: Tensor) -> object:
        schedule = mock.Mock(sample_sigmas=lambda n: below(times))
        return s.spend(lambda: schedule, task.denoise, gam, "as it ends", noise, len(times))

    return run


DATA = {"prediction_type": "sample", "lower_order_final": False}
multi = partial(diffusers.DPMSolverMultistepScheduler, **DATA, final_sigmas_type="sigma_min")
unipc = partial(diffusers.UniPCMultistepScheduler, **DATA, final_sigmas_type="sigma_min")
deis = partial(diffusers.DEISMultistepScheduler, **DATA)
sample = {"prediction_type": "sample"}
trailing = {"timestep_spacing": "trailing"}
DDIM = partial(diffusers.DDIMScheduler, clip_sample=False, **sample, **trailing)


def pairs() -> list[Pair]:
    full = {"lower_order_final": False}
    adams_v = ours("exp_adams_2", prediction="v", interpolate="lambda")
    reab, repaired = (partial(c, order=2) for c in (azula.sample.REABSampler, repaired_reab()))
    found = [
        Pair("ddim", ours("ddim"), "k-diffusion euler", crowson(k.K.sample_euler)),
        Pair("ddim", ours("ddim"), "azula DDIM", azula_run(azula.sample.DDIMSampler)),
        Pair("ddim", ours("ddim"), "smalldiffusion gam=1", small(1.0)),
        Pair(
            "euler",
            ours("euler"),
            "diffusers Euler",
            scheduler(partial(diffusers.EulerDiscreteScheduler, **sample), "ve"),
        ),
        Pair("heun", ours("heun"), "k-diffusion heun", crowson(k.K.sample_heun)),
        Pair(
            "heun",
            ours("heun"),
            "diffusers Heun",
            scheduler(partial(diffusers.HeunDiscreteScheduler, **sample), "ve", twice=True),
        ),
        Pair("dpm_2", ours("dpm_2"), "k-diffusion dpm_2", crowson(k.K.sample_dpm_2)),
        Pair(
            "dpmpp_2s",
            ours("dpmpp_2s"),
            "k-diffusion dpmpp_2s (eta 0)",
            crowson(k.SAMPLERS["dpmpp_2s (ancestral, eta 0)"][0]),
        ),
        Pair("dpmpp_2m", ours("dpmpp_2m"), "k-diffusion dpmpp_2m", crowson(k.K.sample_dpmpp_2m)),
        Pair("dpmpp_2m", ours("dpmpp_2m"), "diffusers DPM++ 2M midpoint", scheduler(multi)),
        Pair(
            "exp_adams_2",
            ours("exp_adams_2"),
            "diffusers DPM++ 2M heun",
            scheduler(partial(multi, solver_type="heun")),
        ),
        Pair(
            "exp_adams_2",
            ours("exp_adams_2"),
            "k-diffusion dpmpp_2m_sde heun (eta 0)",
            crowson(k.SAMPLERS["dpmpp_2m_sde heun (eta 0)"][0]),
        ),
        Pair("dpmpp_3m", ours("dpmpp_3m"), "diffusers DPM++ 3M", scheduler(partial(multi, solver_order=3))),
        Pair(
            "dpmpp_3m",
            ours("dpmpp_3m"),
            "k-diffusion dpmpp_3m_sde (eta 0)",
            crowson(k.SAMPLERS["dpmpp_3m_sde (eta 0)"][0]),
        ),
        Pair("ipndm_4", ours("ipndm_4"), "diffusers IPNDM", ipndm),
        Pair("exp_adams_2 v", adams_v, "azula REAB 2", azula_run(reab)),
        Pair("exp_adams_2 v", adams_v, "azula REAB 2, repaired", azula_run(repaired)),
        Pair("gradient_estimation", ours("gradient_estimation"), "smalldiffusion gam=2", small(2.0)),
    ]  # fmt: skip
    for order in (1, 2, 3):
        make = scheduler(partial(deis, solver_order=order))
        found.append(Pair(f"deis_{order}", ours(f"deis_{order}"), f"diffusers DEIS {order}", make))
    for order in (1, 2, 3, 4):
        lms = partial(k.K.sample_lms, order=order)
        found.append(Pair(f"lms_{order}", ours(f"lms_{order}"), f"k-diffusion lms {order}", crowson(lms)))
        make = scheduler(partial(diffusers.LMSDiscreteScheduler, **sample), "ve", order=order)
        found.append(Pair(f"lms_{order}", ours(f"lms_{order}"), f"diffusers LMS {order}", make))
        for name, cls, mine, options in (
            ("zAB", azula.sample.zABSampler, "lms", {}),
            ("zEAB", azula.sample.zEABSampler, "deis", {}),
            ("xEAB", azula.sample.xEABSampler, "exp_adams", {"prediction": "data"}),
        ):
            if order > 1:
                label, run = f"{mine}_{order}", ours(f"{mine}_{order}", **options)
                found.append(Pair(label, run, f"azula {name} {order}", azula_run(partial(cls, order=order))))
        for kind in ("bh1", "bh2"):
            for prediction in ("data", "noise"):
                options = {"variant": kind, "prediction": prediction} | full
                args = {"solver_order": order, "solver_type": kind, "predict_x0": prediction == "data"}
                label, mine = f"unipc_{order} {kind} {prediction}", ours(f"unipc_{order}", **options)
                theirs = scheduler(partial(unipc, **args))
                found.append(Pair(label, mine, f"diffusers UniPC {order} {kind} {prediction}", theirs))
    return found + flow_pairs() + table_pairs()


def flow_pairs() -> list[Pair]:
    """On a flow in its own t."""
    euler, heun = diffusers.FlowMatchEulerDiscreteScheduler, diffusers.FlowMatchHeunDiscreteScheduler
    found = [
        Pair(
            "euler", ours("euler"), "diffusers FlowMatchEuler", scheduler(euler, "flow", "velocity"), "flow"
        ),
        Pair(
            "heun",
            ours("heun"),
            "diffusers FlowMatchHeun",
            scheduler(heun, "flow", "velocity", twice=True),
            "flow",
        ),
        Pair("euler", ours("euler"), "k-diffusion euler", crowson(k.K.sample_euler), "flow"),
        Pair("heun", ours("heun"), "k-diffusion heun", crowson(k.K.sample_heun), "flow"),
        Pair("dpmpp_2m", ours("dpmpp_2m"), "k-diffusion dpmpp_2m", crowson(k.K.sample_dpmpp_2m), "flow"),
    ]
    for order in (2, 3, 4):
        mine = ours(f"lms_{order}")
        lms = crowson(partial(k.K.sample_lms, order=order))
        found.append(Pair(f"lms_{order}", mine, f"k-diffusion lms {order}", lms, "flow"))
        vab = azula_run(partial(azula.sample.vABSampler, order=order))
        found.append(Pair(f"lms_{order}", mine, f"azula vAB {order}", vab, "flow"))
    return found


def table_pairs() -> list[Pair]:
    """On the table of VP, at its trailing times: in float64, and with the tables diffusers makes itself."""
    heun = {"solver_type": "heun"}
    found = [
        Pair("ddim", ours("ddim"), "diffusers DDIM", ddim, "vp"),
        Pair("ddim", ours("ddim"), "diffusers DDIM, float32 tables", stock_ddim, "vp"),
    ]
    solvers: list[tuple[str, dict[str, Any], str, Callable[..., Any], str]] = [
        ("dpmpp_2m", {}, "DPM++ 2M midpoint", multi, "vp"),
        ("exp_adams_2", {}, "DPM++ 2M heun", partial(multi, **heun), "vp"),
        ("dpmpp_3m", {}, "DPM++ 3M", partial(multi, solver_order=3), "vp"),
        ("euler", {}, "Euler", partial(diffusers.EulerDiscreteScheduler, **sample), "ve"),
        ("heun", {}, "Heun", partial(diffusers.HeunDiscreteScheduler, **sample), "ve"),
    ]
    for order in (1, 2, 3):
        solvers.append((f"deis_{order}", {}, f"DEIS {order}", partial(deis, solver_order=order), "vp"))
    for order in (1, 2, 3, 4):
        options = {"variant": "bh2", "lower_order_final": False}
        make = partial(unipc, solver_order=order, solver_type="bh2")
        solvers.append((f"unipc_{order}", options, f"UniPC {order} bh2", make, "vp"))
    for name, options, peer, make, frame in solvers:
        make, mine = partial(make, **trailing, beta_start=1e-4, beta_end=0.02), ours(name, **options)
        exact = scheduler(make, frame, twice=peer == "Heun")
        found.append(Pair(name, mine, f"diffusers {peer}", exact, "vp"))
        found.append(Pair(name, mine, f"diffusers {peer}, float32 tables", stock(make, frame), "vp"))
    return found
