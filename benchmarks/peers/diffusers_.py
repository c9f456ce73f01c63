"""diffusers: schedulers, objects with a hidden step index that turn a model output into the next sample.

Tables are put in float64 after construction. The model is evaluated at the scheduler's own sigma, also where
its `timesteps` are rounded to integers: better than what a pipeline gets, so in the peer's favour. Schedulers
for variance-preserving tables serve EDM and flows as well, with a table between those sigmas.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import diffusers
import torch
from torch import Tensor

from . import Run, Task
from .diffusers_specs import SPACINGS, Spec, dpm_solvers, flows, multistep, sigma_space

diffusers.utils.logging.set_verbosity_error()
warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")


def use_table(scheduler: Any, table: Tensor) -> None:
    """Replaces the float32 tables by sigma/alpha = table, in float64."""
    scheduler.alphas_cumprod = 1 / (1 + table**2)
    scheduler.alpha_t = scheduler.alphas_cumprod.sqrt()
    scheduler.sigma_t = scheduler.alpha_t * table
    scheduler.lambda_t = -table.log()


def ratio_of(frame: str, sigma: float) -> float:
    if frame != "flow":
        return sigma
    return sigma / (1 - sigma) if sigma < 1 else float("inf")


def alpha_of(frame: str, sigma: float) -> float:
    return {"vp": (1 + sigma * sigma) ** -0.5, "ve": 1.0, "flow": 1 - sigma}[frame]


def predict(task: Task, frame: str, x: Tensor, sigma: float) -> Tensor:
    if frame == "flow" and task.kind == "flow":
        return task.data(x, sigma)
    return task.denoise(x / alpha_of(frame, sigma), ratio_of(frame, sigma))


def convert(output: str, frame: str, x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    if output == "data":
        return x0
    alpha = alpha_of(frame, sigma)
    eps = (x - alpha * x0) / (sigma * alpha if frame == "vp" else sigma)
    if output == "noise":
        return eps
    if output == "velocity":
        return eps - x0
    skip = 0.25 / (sigma**2 + 0.25)  # raw: EDM's preconditioning with sigma_data = 0.5, undone
    return (x0 - skip * x) / (sigma * 0.5 / (sigma**2 + 0.25) ** 0.5)


def sigma_at(scheduler: Any, i: int) -> float:
    """The sigma of the i-th evaluation; KDPM2 evaluates every second one at a midpoint."""
    if hasattr(scheduler, "sigmas_interpol") and i % 2:
        return float(scheduler.sigmas_interpol[i])
    return float(scheduler.sigmas[i])


def steps_for(cost: Callable[[int], int], budget: int) -> int:
    return max((n for n in range(1, budget + 1) if cost(n) <= budget), default=0)


def spend(spec: Spec, task: Task, denoise: bool, noise: Tensor, nfe: int) -> Tensor | None:
    # A scheduler that repeats its last sigma takes a step of length zero: its last evaluation can go instead.
    repeats = spec.last.startswith("repeat")
    n = steps_for(spec.cost, nfe if repeats else nfe - denoise)
    if n < 2:
        return None
    scheduler = spec.make()
    if hasattr(scheduler, "alphas_cumprod"):
        use_table(scheduler, task.table)
    scheduler.set_timesteps(n)
    scheduler.sigmas = scheduler.sigmas.double()
    if hasattr(scheduler, "sigmas_interpol"):
        scheduler.sigmas_interpol = scheduler.sigmas_interpol.double()
    times = scheduler.timesteps[:-1] if denoise and repeats else scheduler.timesteps
    x, end = drive(scheduler, times, spec, task, noise), float(scheduler.sigmas[-1])
    return predict(task, spec.frame, x, end) if denoise else x / alpha_of(spec.frame, end)


def drive(scheduler: Any, times: Tensor, spec: Spec, task: Task, noise: Tensor) -> Tensor:
    """x in the scheduler's frame after a step at each of the times."""
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True
    frame, first = spec.frame, sigma_at(scheduler, 0)
    x = noise * (first * alpha_of(frame, first) if frame == "vp" else first)
    for i, t in enumerate(times):
        sigma = sigma_at(scheduler, i)
        out = convert(spec.output, frame, x, predict(task, frame, x, sigma), sigma)
        x = scheduler.step(out, t, x, return_dict=False, **spec.step)[0]
    return x


def spend_indexed(
    make: Callable[[], Any],
    cost: Callable[[int], int],
    output: str,
    task: Task,
    noise: Tensor,
    nfe: int,
) -> Tensor | None:
    """DDIM and PNDM, which know only integer times and the table."""
    n = steps_for(cost, nfe)
    if n < 2:
        return None
    scheduler = make()
    use_table(scheduler, task.table)
    scheduler.final_alpha_cumprod = (
        torch.tensor(1.0) if scheduler.config.set_alpha_to_one else scheduler.alphas_cumprod[0]
    )
    scheduler.set_timesteps(n)
    x = noise * float(scheduler.sigma_t[scheduler.timesteps[0]])
    for t in scheduler.timesteps:
        sigma = float(task.table[t])
        out = convert(output, "vp", x, predict(task, "vp", x, sigma), sigma)
        x = scheduler.step(out, t, x, return_dict=False)[0]
    return x


def spend_ipndm(ratios: Callable[[int], Tensor], task: Task, noise: Tensor, nfe: int) -> Tensor:
    """IPNDM takes its grid as `trained_betas`, the sigmas of a variance-preserving process; output v."""
    ratio = ratios(nfe)
    beta = torch.cat([ratio / (1 + ratio**2).sqrt(), torch.zeros(1, dtype=torch.float64)])
    scheduler = diffusers.IPNDMScheduler(nfe, trained_betas=beta.tolist())
    scheduler.set_timesteps(nfe)
    scheduler.betas, scheduler.alphas = beta, (1 - beta**2).sqrt()
    scheduler.set_begin_index(0)
    x = noise * float(beta[0])
    for r, t in zip(ratio.tolist(), scheduler.timesteps, strict=True):
        alpha = (1 + r * r) ** -0.5
        x0 = task.denoise(x / alpha, r)
        v = alpha * (x - alpha * x0) / (r * alpha) - r * alpha * x0
        x = scheduler.step(v, t, x, return_dict=False)[0]
    return x


def ipndm_grids(task: Task) -> dict[str, Callable[[int], Tensor]]:
    low, high = task.ratio_min, task.ratio_max

    def karras(n: int) -> Tensor:
        ramp = torch.linspace(0, 1, n, dtype=torch.float64)
        return (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7

    def own(n: int) -> Tensor:
        """Its default sin^2 table, held to the largest sigma of the task."""
        beta = torch.sin(torch.linspace(1, 0, n + 1, dtype=torch.float64)[:-1] * torch.pi / 2) ** 2
        return (beta / (1 - beta**2).clamp(min=1e-30).sqrt()).clamp(max=high)

    def uniform(n: int) -> Tensor:
        return task.table[torch.linspace(999, 0, n).round().long()]

    found = {"own": own, "karras": karras}
    return found | ({"uniform index": uniform} if task.kind == "vp" else {})


def runs(task: Task) -> Iterator[Run]:
    for source in (dpm_solvers, multistep, sigma_space) + ((flows,) if task.kind == "flow" else ()):
        for spec in source(task):
            for denoise in {"zero": (False,), "repeat, nan": (True,)}.get(spec.last, (False, True)):
                name = spec.name + (", then denoised" if denoise else "")
                yield Run("diffusers", name, spec.grid, partial(spend, spec, task, denoise), spec.note)
    for grid, ratios in ipndm_grids(task).items():
        yield Run("diffusers", "IPNDM", grid, partial(spend_ipndm, ratios, task))
    if task.kind != "vp":
        return
    indexed: list[tuple[str, type, dict, Callable[[int], int], str]] = [
        ("DDIM", diffusers.DDIMScheduler, {"clip_sample": False, "prediction_type": "sample"},
         lambda n: n, "data"),
        ("PNDM prk", diffusers.PNDMScheduler, {"set_alpha_to_one": True}, lambda n: n + 9, "noise"),
        ("PNDM plms", diffusers.PNDMScheduler, {"set_alpha_to_one": True, "skip_prk_steps": True},
         lambda n: n + 1, "noise"),
    ]  # fmt: skip
    for (name, make, args, cost, output), spacing in product(indexed, SPACINGS):
        build = partial(make, **args, timestep_spacing=spacing)
        yield Run("diffusers", name, spacing, partial(spend_indexed, build, cost, output, task))
