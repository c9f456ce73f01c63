"""smalldiffusion: one function `samples`, x - (sigma - sigma') (gam eps + (1 - gam) eps_previous)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from . import Run, Task, bare_module, float64

# data.py and __init__.py load pictures with torchvision; the sampler does not.
SD = bare_module("smalldiffusion", "diffusion", ("torchvision", "torchvision.transforms"))

GAMMAS = (1.0, 1.25, 1.5, 1.75, 2.0)
ENDS = {"": "as it ends", ", last sigma 0": "zero", ", then denoised": "denoise"}


class Model:
    """What `samples` asks of a model; rand_input is only multiplied by 0 when mu = 0."""

    def __init__(self, eps: Callable[[Tensor, float], Tensor]) -> None:
        self.eps = eps

    def eval(self) -> None:
        pass

    def rand_input(self, batch: int) -> Tensor:
        return torch.zeros(())

    def predict_eps_cfg(self, x: Tensor, sigma: Tensor, cond: None, scale: float) -> Tensor:
        return self.eps(x, float(sigma))


def schedules(task: Task) -> dict[str, Callable[[], object]]:
    low, high = task.ratio_min, task.ratio_max
    found: dict[str, Callable[[], object]] = {
        "log-linear": partial(SD.ScheduleLogLinear, 1000, low, high),
    }
    if task.kind == "vp":
        found["DDPM"] = partial(SD.ScheduleDDPM, 1000)
    return found


def spend(
    schedule: Callable[[], object],
    denoise: Callable[[Tensor, float], Tensor],
    gam: float,
    end: str,
    noise: Tensor,
    nfe: int,
) -> Tensor | None:
    def eps(x: Tensor, sigma: float) -> Tensor:
        return (x - denoise(x, sigma)) / sigma

    n = nfe - (end == "denoise")
    if n < 2:
        return None
    with float64():
        sigmas = schedule().sample_sigmas(n)  # type: ignore[attr-defined]
    if end == "zero":
        sigmas[-1] = 0.0
    steps = SD.samples(
        Model(eps), sigmas, gam=gam, xt=sigmas[0] * noise, accelerator=SimpleNamespace(device="cpu")
    )
    x = deque(steps, maxlen=1)[0]
    return denoise(x, float(sigmas[-1])) if end == "denoise" else x


def runs(task: Task) -> Iterator[Run]:
    note = "schedule in float64 (its default dtype is torch's)"
    for grid, schedule in schedules(task).items():
        for gam in GAMMAS:
            for suffix, end in ENDS.items():
                call = partial(spend, schedule, task.denoise, gam, end)
                yield Run("smalldiffusion", f"gam={gam}", grid + suffix, call, note)
    if task.kind == "flow":
        # Its own flow: sigma is t, and what it calls eps is the velocity, (x - x0_hat)/t.
        for gam in GAMMAS:
            call = partial(spend, SD.ScheduleFlow, task.data, gam, "as it ends")
            yield Run("smalldiffusion", f"gam={gam}", "flow (uniform t)", call, note)
