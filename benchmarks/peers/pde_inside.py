"""Of our ETDRK4 step, in a fresh process: which share of its time is transforms, and its memory at most."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from longstride_pde_ import equation, fields

import longstride as ls

DT = {"ks": 0.05, "kdv": 1e-3, "ac": 0.05, "gs": 1.0, "ns": 0.01}
spent = [0]


def timed(transform: Any) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        began = time.process_time_ns()
        out = transform(*args, **options)
        spent[0] += time.process_time_ns() - began
        return out

    return call


def share(step: Any, x0: torch.Tensor, steps: int) -> float:
    """The highest of some rounds: the least disturbed."""
    found = []
    for _ in range(8):
        spent[0], began = 0, time.process_time_ns()
        step.repeat(x0, steps, grad=False)
        found.append(spent[0] / (time.process_time_ns() - began))
    return max(found)


def memory(case: str, dtype: str) -> tuple[int, int]:
    """Bytes that live at once during steps, and of these the equation's own: weights, tables and its x0."""
    x0 = fields(case, dtype, 1)
    step = ls.stepper(equation(case), "etdrk4", dt=DT[case])
    step.repeat(x0, 20, grad=False)
    with torch.profiler.profile(profile_memory=True) as profile:
        step = ls.stepper(equation(case), "etdrk4", dt=DT[case])
        step.repeat(x0, 20, grad=False)
        with torch.profiler.record_function("steps"):
            step.repeat(x0, 20, grad=False)
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    began = next(event.start_ns() for event in events if event.name() == "steps")
    live, most = 0, 0
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            if event.start_ns() >= began:
                most = max(most, live)
    (pace,) = step._paces.values()
    held = (v.untyped_storage() for v in tables(step.problem, pace))
    return most, sum({v.data_ptr(): v.nbytes() for v in held}.values())


def tables(problem: ls.ODE, pace: Any) -> list[torch.Tensor]:
    """Weights and symbols, as they were written and as they are used, and the start it comes with."""
    steps, bound = pace.steady.values(), next(iter(pace.bound.values()))
    weights = [w for s in steps for g in s.stages for *_, w in g.terms]
    laid = [
        v
        for pair in (*bound.laid.values(), *getattr(bound.field, "inner", bound.field).laid.values())
        for v in pair
    ]
    f, space = getattr(problem.f, "f", problem.f), problem.space
    symbols = [*f.reads, *f.writes, f.linear, f.source, *f.made.values(), problem.L, space.k2]
    return [v for v in (*weights, *laid, *symbols, problem.x0) if isinstance(v, torch.Tensor)]


def main() -> None:
    case, dtype = sys.argv[1:]
    torch.set_num_threads(1)
    most, weights = memory(case, dtype)
    for name in ("rfft", "irfft", "fft", "ifft"):
        setattr(torch.fft, name, timed(getattr(torch.fft, name)))
    x0 = fields(case, dtype, 1)
    step = ls.stepper(equation(case), "etdrk4", dt=DT[case])
    part = share(step, x0, 400 if x0.ndim == 2 else 20)
    arrays = {"arrays": (most - weights) / x0.nbytes, "with_weights": most / x0.nbytes}
    print(json.dumps({"share": part, **arrays}))


if __name__ == "__main__":
    main()
