"""Microseconds that an adaptive step costs beyond f, on a scalar problem.

    python benchmarks/adaptive.py

x' = -x from 1 over (0, 50) at rtol 1e-9, atol 1e-12, one state in float64, one thread. Processor time, not
wall time: the lowest of the rounds, in which all candidates take turns, less that of as many evaluations of f
alone, over the steps tried. The time of one torch addition in the same rounds says how fast the machine was.
Steps are counted from evaluations: six a step of these pairs, after two.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15
SPAN, RTOL, ATOL = (0.0, 50.0), 1e-9, 1e-12


def f(t: Tensor, x: Tensor) -> Tensor:
    return -x


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, t, x):
        self.calls += 1
        return -x


def ours(method: str, **options: object) -> Callable[[Callable], object]:
    x0 = torch.ones(1, 1, dtype=torch.float64)
    return lambda g: ls.solve(ls.ODE(g), x0, t=SPAN, method=method, rtol=RTOL, atol=ATOL, **options)


def candidates() -> dict[str, Callable[[Callable], object]]:
    found = {
        "longstride tsit5": ours("tsit5"),
        "longstride tsit5, shared_step": ours("tsit5", shared_step=True),
        "longstride tsit5, I": ours("tsit5", controller=ls.control.I()),
        "longstride dopri5": ours("dopri5"),
    }
    if importlib.util.find_spec("torchdiffeq"):
        from torchdiffeq import odeint

        x0, ts = torch.ones(1, dtype=torch.float64), torch.tensor(SPAN, dtype=torch.float64)
        found["torchdiffeq dopri5"] = lambda g: odeint(g, x0, ts, rtol=RTOL, atol=ATOL, method="dopri5")
    if importlib.util.find_spec("scipy"):
        from scipy.integrate import solve_ivp

        found["scipy RK45 (numpy)"] = lambda g: solve_ivp(g, SPAN, np.ones(1), rtol=RTOL, atol=ATOL)
    return found


def spent(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def measure() -> dict[str, object]:
    """Least processor seconds of each candidate, of its f, and of an addition, over rounds taken in turn."""
    runs = candidates()
    calls, best = {}, {}
    x = {name: np.ones(1) if "numpy" in name else torch.ones(1, 1, dtype=torch.float64) for name in runs}
    for name, run in runs.items():
        run(g := Counted())
        calls[name] = g.calls
    one = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            whole = spent(lambda run=run: run(f))
            alone = spent(lambda name=name: [f(0.0, x[name]) for _ in range(calls[name])])
            best[name] = min(best.get(name, (9e9, 0.0)), (whole, alone))
        best["addition"] = min(best.get("addition", 9e9), spent(lambda: [one + one for _ in range(1000)]))
    rows = {}
    for name in runs:
        steps = (calls[name] - 2) / 6
        rows[name] = {"steps": round(steps), "us": (best[name][0] - best[name][1]) / steps * 1e6}
    return {"rows": rows, "addition_us": best["addition"] * 1e3, "load": os.getloadavg()[0]}


def main() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        found = measure()
    (RESULTS / "adaptive.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [f"| {name} | {row['steps']} | {row['us']:.0f} |" for name, row in found["rows"].items()]
    table = "\n".join(["| solver | steps | microseconds a step, beyond f |", "|---|---|---|", *lines])
    note = (
        f"torch {torch.__version__}, one thread of processor time. Adding two such states took "
        f"{found['addition_us']:.2f} microseconds; the load of the machine's two cores was "
        f"{found['load']:.1f} at the end."
    )
    head = (
        "# Overhead of an adaptive step\n\n`python benchmarks/adaptive.py`, see there what is measured.\n\n"
    )
    (RESULTS / "adaptive.md").write_text(f"{head}{table}\n\n{note}\n")
    print(f"{table}\n\n{note}")


if __name__ == "__main__":
    main()
