"""azula: Sampler classes over a schedule t in [0, 1] -> (alpha, sigma); the schedule is the grid.

Its samplers depend on a schedule only through sigma/alpha, so each of its schedules serves every task, with
its two ends set to the task's: alpha_min gives the largest sigma/alpha, sigma_min the smallest. Samplers that
never take log(sigma) may end at sigma = 0; the others stop at sigma_min, or there are denoised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from azula import noise as schedules
from azula import sample as samplers
from azula.denoise import Denoiser, DiracPosterior
from torch import Tensor

from . import Run, Task


class TaskDenoiser(Denoiser):
    """The task in the frame of an azula schedule: x_t = alpha_t x0 + sigma_t noise."""

    def __init__(self, task: Task, schedule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.task, self.schedule = task, schedule  # type: ignore[assignment]

    def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
        alpha, sigma = (float(v) for v in self.schedule(t))
        if alpha == 0:  # a flow at t = 1, where x/alpha is infinite
            return DiracPosterior(self.task.data(x_t / sigma, 1.0))
        return DiracPosterior(self.task.denoise(x_t / alpha, sigma / alpha))


class TableSchedule(schedules.Schedule):
    """The task's own times, uniform: what a user of a trained VP network writes."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        flat = [self.task.ratio(999 * float(v)) for v in t.reshape(-1)]
        ratio = torch.tensor(flat, dtype=t.dtype).reshape(t.shape)
        alpha = 1 / (1 + ratio**2).sqrt()
        return alpha, alpha * ratio


# name -> (class, evaluations per step, whether it takes log(sigma) or divides by the last sigma)
SAMPLERS = {
    "DDIM": (samplers.DDIMSampler, 1, False),
    "Euler": (samplers.EulerSampler, 1, False),
    "Heun": (samplers.HeunSampler, 2, True),
    "Ito eta=0": (partial(samplers.ItoSampler, eta=0.0), 1, False),
    **{f"zAB order {k}": (partial(samplers.zABSampler, order=k), 1, False) for k in (1, 2, 3, 4)},
    **{f"vAB order {k}": (partial(samplers.vABSampler, order=k), 1, False) for k in (1, 2, 3, 4)},
    **{f"zEAB order {k}": (partial(samplers.zEABSampler, order=k), 1, True) for k in (1, 2, 3)},
    **{f"xEAB order {k}": (partial(samplers.xEABSampler, order=k), 1, True) for k in (1, 2, 3)},
    **{f"REAB order {k}": (partial(samplers.REABSampler, order=k), 1, True) for k in (1, 2, 3)},
}
AT_ALPHA_0 = ("DDIM", "vAB")  # the samplers that never divide by alpha


def grids(task: Task, zero: bool, infinite: bool) -> dict[str, object]:
    """azula's schedules between the task's ends; zero: down to sigma = 0; infinite: up to alpha = 0."""
    low, high = task.ratio_min, task.ratio_max
    ends = {"alpha_min": 0.0 if infinite else 1 / high, "sigma_min": 0.0 if zero else low}
    found: dict[str, object] = {"Rectified": schedules.RectifiedSchedule(**ends)}
    for gamma in (0.3, 0.1, 0.03, 0.01):
        found[f"Decay gamma={gamma}"] = schedules.DecaySchedule(**ends, gamma=gamma)
    if not infinite:
        # Here sigma^2 = 1 - alpha^2 + sigma_min^2, not 1, at the noisy end.
        ends["alpha_min"] = ((1 + ends["sigma_min"] ** 2) / (1 + high**2)) ** 0.5
        found["VP"] = schedules.VPSchedule(**ends)
        found["Cosine"] = schedules.CosineSchedule(**ends)
    if not zero and not infinite:
        found["VE"] = schedules.VESchedule(sigma_min=low, sigma_max=high)
        if task.kind == "vp":
            found["table"] = TableSchedule(task)
    return found


def spend(
    task: Task,
    make: Callable[..., samplers.Sampler],
    cost: int,
    schedule: Callable[[Tensor], tuple[Tensor, Tensor]],
    denoise: bool,
    noise: Tensor,
    nfe: int,
) -> Tensor | None:
    steps = (nfe - denoise) // cost
    if steps < 2:
        return None
    denoiser = TaskDenoiser(task, schedule)
    sampler = make(denoiser, steps=steps, silent=True, dtype=torch.float64)
    t = sampler.timesteps
    x = sampler(schedule(t[0])[1] * noise)
    return denoiser(x, t[-1]).mean if denoise else x / schedule(t[-1])[0]


def runs(task: Task) -> Iterator[Run]:
    for name, (make, cost, logs) in SAMPLERS.items():
        for infinite in (False, True) if task.kind == "flow" and name.startswith(AT_ALPHA_0) else (False,):
            for zero in (False,) if logs else (False, True):
                for grid, schedule in grids(task, zero, infinite).items():
                    for denoise in (False,) if zero else (False, True):
                        end = ", to sigma 0" if zero else ", then denoised" if denoise else ""
                        start = ", from alpha 0" if infinite else ""
                        call = partial(spend, task, make, cost, schedule, denoise)
                        yield Run("azula", name, f"{grid}{start}{end}", call)
