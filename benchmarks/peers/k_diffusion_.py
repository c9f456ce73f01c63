"""k-diffusion: functions that integrate dx/dsigma = (x - D(x, sigma))/sigma over a list of sigmas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from . import Run, Task, bare_module, float64

# torchsde draws the noise of the SDE samplers, torchvision converts pictures: neither is called here.
ABSENT = ("torchsde", "torchvision", "torchvision.transforms")
K = bare_module("k_diffusion", "sampling", ABSENT)

FLOW_MIN = 1e-3  # the last of the 1000 training times of a flow
# sampler -> (function of (model, x, sigmas), evaluations it spends on n positive sigmas and a last 0)
Sampler = tuple[Callable[..., Tensor], Callable[[int], int]]


def one(n: int) -> int:
    return n


def two(n: int) -> int:
    return 2 * n - 1


SAMPLERS: dict[str, Sampler] = {
    "euler": (K.sample_euler, one),
    "heun": (K.sample_heun, two),
    "dpm_2": (K.sample_dpm_2, two),
    "dpmpp_2m": (K.sample_dpmpp_2m, one),
    "dpmpp_2s (ancestral, eta 0)": (partial(K.sample_dpmpp_2s_ancestral, eta=0.0), two),
    "dpmpp_sde (eta 0)": (partial(K.sample_dpmpp_sde, eta=0.0, noise_sampler=lambda s, t: 0.0), two),
    "dpmpp_3m_sde (eta 0)": (partial(K.sample_dpmpp_3m_sde, eta=0.0, noise_sampler=0), one),
    **{
        f"dpmpp_2m_sde {kind} (eta 0)": (
            partial(K.sample_dpmpp_2m_sde, eta=0.0, noise_sampler=0, solver_type=kind),
            one,
        )
        for kind in ("midpoint", "heun")
    },
    **{f"lms order {k}": (partial(K.sample_lms, order=k), one) for k in (1, 2, 3, 4)},
}


def grids(low: float, high: float, vp: bool) -> dict[str, Callable[[int], Tensor]]:
    """n sigmas from high to low and a last 0, as the library makes them."""
    found: dict[str, Callable[[int], Tensor]] = {
        f"karras rho={rho}": partial(K.get_sigmas_karras, sigma_min=low, sigma_max=high, rho=rho)
        for rho in (3, 5, 7, 10)
    }
    found["exponential"] = partial(K.get_sigmas_exponential, sigma_min=low, sigma_max=high)
    for rho in (0.7, 1.5, 2.0):
        name = f"polyexponential rho={rho}"
        found[name] = partial(K.get_sigmas_polyexponential, sigma_min=low, sigma_max=high, rho=rho)
    if vp:
        found["vp"] = K.get_sigmas_vp
    return found


def discrete(task: Task, n: int) -> Tensor:
    """The times that external.DiscreteSchedule.get_sigmas gives: uniform in the index."""
    return K.append_zero(torch.tensor([task.ratio(t) for t in torch.linspace(999, 0, n).tolist()]))


def shifted(n: int, shift: float) -> Tensor:
    """Flow times uniform from 1 to 0, then shifted: a caller's own, the library has no grid for flows."""
    t = torch.linspace(1, 0, n + 1)
    return shift * t / (1 + (shift - 1) * t)


def spend(
    sampler: Sampler,
    grid: Callable[[int], Tensor],
    denoise: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    nfe: int,
) -> Tensor | None:
    function, cost = sampler
    n = max((n for n in range(1, nfe + 1) if cost(n) <= nfe), default=0)
    if n < 2:
        return None
    with float64():
        sigmas = grid(n)
        if not bool((sigmas.diff() < 0).all()):
            return None
        return function(lambda x, s: denoise(x, float(s[0])), sigmas[0] * noise, sigmas, disable=True)


def fast(
    denoise: Callable[[Tensor, float], Tensor],
    low: float,
    high: float,
    last: bool,
    noise: Tensor,
    nfe: int,
) -> Tensor | None:
    """DPM-Solver-fast has its own grid and stops at sigma_min; `last`: one evaluation is kept to denoise."""
    with float64():
        model = lambda x, s: denoise(x, float(s[0]))  # noqa: E731
        x = K.sample_dpm_fast(model, high * noise, low, high, nfe - last, disable=True)
    return denoise(x, low) if last else x


def runs(task: Task) -> Iterator[Run]:
    def family(
        frame: str,
        denoise: Callable[[Tensor, float], Tensor],
        low: float,
        high: float,
        found: dict[str, Callable[[int], Tensor]],
    ) -> Iterator[Run]:
        for name, sampler in SAMPLERS.items():
            for grid, make in found.items():
                call = partial(spend, sampler, make, denoise)
                yield Run("k_diffusion", name, f"{grid}{frame}", call)
        for last in (False, True):
            name = "dpm_fast" + (", then denoised" if last else "")
            yield Run("k_diffusion", name, f"own{frame}", partial(fast, denoise, low, high, last))

    low, high = task.ratio_min, task.ratio_max
    found = grids(low, high, task.kind == "vp")
    if task.kind == "vp":
        found["discrete"] = partial(discrete, task)
    yield from family(" in x/alpha" if task.kind == "flow" else "", task.denoise, low, high, found)
    if task.kind == "flow":
        # (x - x0_hat)/t is the velocity itself, so a flow runs as it is, with sigma = t.
        found = grids(FLOW_MIN, 1.0, False)
        for shift in (1, 2, 3, 5):
            found[f"uniform shift={shift}"] = partial(shifted, shift=shift)
        yield from family(" in t", task.data, FLOW_MIN, 1.0, found)
