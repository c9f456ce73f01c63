"""Microseconds of overhead per step on a 1 x 4 x 64 x 64 float32 tensor, one thread, an instant model.

Every candidate runs its whole loop; the time is divided by its evaluations of the model. Candidates take
turns, so that a busy machine slows all of them alike, and medians over the rounds are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from endpoint import RESULTS, command, versions
from peers import k_diffusion_ as k

SHAPE = (1, 4, 64, 64)
N = 20


@dataclass(frozen=True)
class Candidate:
    """A loop, what must be done before it and is not timed, and the evaluations it makes."""

    loop: Callable[[], Any]
    prepare: Callable[[], Any] = lambda: None
    evaluations: int = N


def bare(terms: int, x: Tensor, out: Tensor) -> Candidate:
    """The update alone, as out-of-place torch calls: x = a x + b f, for two terms + c g."""

    def loop() -> None:
        y = x
        for _ in range(N):
            y = torch.mul(y, 0.9)
            for _ in range(terms):
                y = torch.add(y, out, alpha=0.1)

    return Candidate(loop)


def scheduled(make: Callable[[], Any], x: Tensor, out: Tensor) -> Candidate:
    """What a pipeline does around its network: scale_model_input and step."""
    scheduler = make()

    def loop() -> None:
        y = x
        for t in scheduler.timesteps[:N]:
            scheduler.scale_model_input(y, t) if hasattr(scheduler, "scale_model_input") else y
            y = scheduler.step(out, t, y, return_dict=False)[0]

    return Candidate(loop, lambda: scheduler.set_timesteps(N))


def crowson(name: str, x: Tensor, out: Tensor) -> Candidate:
    function, cost = k.SAMPLERS[name]
    sigmas = k.K.get_sigmas_karras(N, 0.002, 80.0)
    return Candidate(lambda: function(lambda y, s: out, x, sigmas, disable=True), evaluations=cost(N))


def longstride(method: str, x: Tensor, out: Tensor) -> Candidate:
    """ls.sample with a plan made before: Denoiser, its [B] times, conversions, checks and all."""
    import longstride as ls

    model = ls.Denoiser(lambda y, t: out, process=ls.process.EDM(), predicts="data", shape=SHAPE[1:])
    plan = ls.plan_sampling(model.process, method, N, "karras")
    return Candidate(lambda: ls.sample(model, x_init=x, plan=plan))


def loop_alone(method: str, x: Tensor, out: Tensor) -> Candidate:
    """The planned loop and `advance` over fields that return at once, without the Denoiser."""
    import longstride as ls
    from longstride.integrate import run

    plan = ls.plan_sampling(ls.process.EDM(), method, N, "karras")
    fields = (lambda t, y: out,) * 3
    return Candidate(lambda: run(fields, plan, x))


def planned(method: str, x: Tensor, out: Tensor, noise: str = "generator") -> Candidate:
    """PlanScheduler in the place of diffusers' own, on a network with a table of betas."""
    from longstride.compat.diffusers import PlanScheduler

    config = diffusers.DDIMScheduler(clip_sample=False).config
    return scheduled(lambda: PlanScheduler.from_config(config, method=method, noise=noise), x, out)


def additions(method: str, x: Tensor, out: Tensor) -> Candidate:
    """What PlanScheduler's steps add up, in a plain loop: the floor under `planned`."""
    from longstride.compat.diffusers import PlanScheduler

    config = diffusers.DDIMScheduler(clip_sample=False).config
    scheduler = PlanScheduler.from_config(config, method=method)
    scheduler.set_timesteps(N)
    rows = [
        (terms[0][2] == 1.0, len(terms)) for call, _ in scheduler._calls for _, terms, _ in call.rows if terms
    ]

    def loop() -> None:
        for unit, length in rows:
            y = torch.add(x, out, alpha=0.1) if unit else torch.mul(x, 0.9)
            for _ in range(length - 1 - unit):
                y.add_(out, alpha=0.1)

    return Candidate(loop)


def drawn(x: Tensor) -> Candidate:
    """A normal for each element, and nothing else: the floor under a step with noise."""
    generator = torch.Generator()

    def loop() -> None:
        for _ in range(N):
            torch.randn(x.shape, generator=generator)

    return Candidate(loop)


def candidates(x: Tensor, out: Tensor, ours: bool) -> dict[str, Candidate]:
    d, dpm = diffusers, diffusers.DPMSolverMultistepScheduler
    makers: dict[str, Callable[[], Any]] = {
        "FlowMatchEuler": d.FlowMatchEulerDiscreteScheduler,
        "FlowMatchHeun": d.FlowMatchHeunDiscreteScheduler,
        "Euler": d.EulerDiscreteScheduler,
        "Heun": d.HeunDiscreteScheduler,
        "DDIM": d.DDIMScheduler,
        "DDPM": d.DDPMScheduler,
        "Euler a": d.EulerAncestralDiscreteScheduler,
        "PNDM (plms)": lambda: d.PNDMScheduler(skip_prk_steps=True),
        "IPNDM": d.IPNDMScheduler,
        "DPM++ 2M": dpm,
        "DPM++ 3M": lambda: dpm(solver_order=3),
        "DEIS 2": d.DEISMultistepScheduler,
        "UniPC 2": d.UniPCMultistepScheduler,
        "UniPC 3": lambda: d.UniPCMultistepScheduler(solver_order=3),
        "LMS 4": d.LMSDiscreteScheduler,
    }
    found = {
        "bare one-term update": bare(1, x, out),
        "bare two-term update": bare(2, x, out),
        "torch.randn": drawn(x),
    }
    found |= {f"diffusers {name}": scheduled(make, x, out) for name, make in makers.items()}
    if ours:  # before what is slow itself, as drawing leaves the caches cold
        for method in ("ddpm", "dpmpp_2m_sde"):
            found[f"longstride {method}, PlanScheduler"] = planned(method, x, out)
        found["longstride ddpm, PlanScheduler, noise of ls.sample"] = planned("ddpm", x, out, "brownian")
    for name in ("euler", "heun", "dpm_2", "dpmpp_2m", "lms order 4", "dpmpp_3m_sde (eta 0)"):
        found[f"k-diffusion {name}"] = crowson(name, x, out)
    if ours:
        methods = [
            "ddim",
            "euler",
            "heun",
            "dpmpp_2m",
            "dpmpp_3m",
            "deis_2",
            "deis_3",
            "unipc_2",
            "unipc_3",
            "ipndm_4",
            "lms_4",
        ]
        found |= {f"longstride {m}, ls.sample": longstride(m, x, out) for m in methods}
        found |= {f"longstride {m}, loop alone": loop_alone(m, x, out) for m in methods}
        found |= {f"longstride {m}, PlanScheduler": planned(m, x, out) for m in methods}
        found |= {f"longstride {m}, PlanScheduler's additions": additions(m, x, out) for m in methods}
    return found


def measure(found: dict[str, Candidate], rounds: int) -> dict[str, list[float]]:
    """Microseconds per evaluation in each round."""
    times: dict[str, list[float]] = {name: [] for name in found}
    with torch.inference_mode():
        for i in range(rounds + 3):
            for name, candidate in found.items():
                candidate.prepare()
                start = time.perf_counter()
                candidate.loop()
                if i >= 3:  # the first rounds warm up
                    times[name].append((time.perf_counter() - start) / candidate.evaluations * 1e6)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--without-ours", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, out = torch.randn(SHAPE, generator=g), torch.randn(SHAPE, generator=g) * 0.1
    times = measure(candidates(x, out, not args.without_ours), args.rounds)
    two = statistics.median(times["bare two-term update"])
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# Overhead per step",
        "",
        f"Made by `{command()}`, seed 0, {args.rounds} interleaved rounds of {N} steps, with {packages}.",
        "",
        "Microseconds per step on a 1 x 4 x 64 x 64 float32 tensor, one thread; the model returns a tensor",
        "that is there already; two-stage methods count each evaluation. diffusers: scale_model_input and",
        "step, and the same two of our PlanScheduler. longstride: `ls.sample` with its Denoiser, and the",
        "planned loop alone. PlanScheduler's additions are what its steps add up, without arguments, checks",
        "and books. set_timesteps is not timed: it makes a plan once, and keeps it while it is asked for",
        "again. DDPM and Euler a draw noise, ours for each sample apart. Read the ratios: absolute times",
        "depend on the machine and on what else it does.",
        "",
        "| what | median | fastest round | median / bare two-term |",
        "|---|---|---|---|",
    ]
    for name, found in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        middle = statistics.median(found)
        lines.append(f"| {name} | {middle:.1f} | {min(found):.1f} | {middle / two:.2f} |")
        print(lines[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    Path(RESULTS / "overhead.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
