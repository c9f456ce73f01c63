"""The equations of benchmarks/pde.py as numbers, and how a solver in any environment is asked for runs.

A line in is JSON: case, dtype, batch, setting (dt, or a tolerance), steps, out (where the end is
to be saved). A line out: the seconds of the steps, processor time on one thread, the wall's on several
(OMP_NUM_THREADS); nothing where a solver has no such run.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable

import numpy as np

CASES = {
    "ks": {"length": 64 * math.pi, "n": 512, "dim": 1, "t": 10.0, "dt": (0.1, 0.05, 0.025, 0.0125)},
    "kdv": {"length": 40.0, "n": 512, "dim": 1, "t": 0.5, "dt": (4e-3, 2e-3, 1e-3, 5e-4)},
    "ac": {"length": 2 * math.pi, "n": 256, "dim": 2, "t": 2.0, "dt": (0.2, 0.1, 0.05), "nu": 5e-3}
    | {"kept": 1 / 2},
    "gs": {"length": 2.0, "n": 256, "dim": 2, "t": 32.0, "dt": (4.0, 2.0, 1.0), "nu": (2e-5, 1e-5)}
    | {"feed": 0.04, "kill": 0.06, "kept": 1 / 2},
    "ns": {"length": 2 * math.pi, "n": 256, "dim": 2, "t": 0.4, "dt": (0.04, 0.02, 0.01), "nu": 1e-3},
}
CASES["disturbed"] = CASES["ns"] | {"noise": 1e-15}  # of the largest value, at each point of the start
Run = Callable[[int], np.ndarray]  # of a number of steps: the end
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
clock = time.process_time if THREADS == 1 else time.perf_counter


def start(case: str) -> np.ndarray:
    """[C, *n], float64."""
    length, n = CASES[case]["length"], CASES[case]["n"]
    x = np.arange(n) * length / n
    q = 2 * math.pi / length
    if case == "ks":
        return (np.cos(q * x) * (1 + np.sin(q * x)))[None]
    if case == "kdv":
        return (2 / np.cosh(x - length / 4) ** 2 + 0.5 / np.cosh(0.5 * (x - length / 2)) ** 2)[None]
    y, x = x[None], x[:, None]
    if case == "ac":
        return (0.3 * np.cos(2 * x) * np.sin(3 * y) + 0.2 * np.sin(x + y))[None]
    if case == "gs":
        spot = np.exp(-((x - 1) ** 2 + (y - 1.1) ** 2) / 0.02)
        return np.stack([1 - spot / 2, spot / 4])
    rng, w = np.random.default_rng(0), np.zeros((n, n))
    for i in range(-4, 5):
        for j in range(-4, 5):
            w += rng.normal() * np.cos(i * x + j * y + rng.uniform(0, 2 * math.pi))
    w = ((w - w.mean()) / 4)[None]
    return w + CASES[case].get("noise", 0.0) * np.abs(w).max() * rng.normal(size=w.shape)


def kept(case: str, u: np.ndarray) -> np.ndarray:
    """u of the modes that every solver's products are made of and exact in, 2/3 or half of each axis."""
    about = CASES[case]
    axes, top = tuple(range(-about["dim"], 0)), about.get("kept", 2 / 3) * about["n"] / 2
    c, low = np.fft.fftn(u, axes=axes), np.abs(np.fft.fftfreq(about["n"], 1 / about["n"])) < top
    for axis in axes:
        c = c * low.reshape(-1, *(1,) * (-1 - axis))
    return np.fft.ifftn(c, axes=axes).real


def serve(make: Callable[[str, str, int, float], Run | None]) -> None:
    """Answers; make(case, dtype, batch, setting) gives a run, or None for what a solver does not have."""
    known: dict[tuple, Run | None] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = tuple(asked[name] for name in ("case", "dtype", "batch", "setting"))
        if key not in known:
            known.clear()  # one at a time: memory
            known[key] = run = make(*key)
            if run is not None:
                run(2)  # compiles
        run = known[key]
        if run is None:
            print("{}", flush=True)
            continue
        began = clock()
        end = run(asked["steps"])
        seconds = clock() - began
        if asked["out"]:
            np.save(asked["out"], np.asarray(end, dtype=np.float64))
        print(json.dumps({"seconds": seconds}), flush=True)
