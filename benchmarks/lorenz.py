"""Work and precision on 1,000 Lorenz systems: time at equal measured error, one thread, all in turn.

    python benchmarks/lorenz.py [rounds [NAME ...]]

Float64, t from 0 to 5, starts N((1, 1, 1), 1); the end's relative error (root mean square) against dopri8
at 1e-12. Each candidate at tolerances 1e-3, 1e-6 and 1e-9; rounds take candidates in turn and the
median counts. Times at the error that longstride's per-sample tsit5 has at a tolerance are interpolated
log-log on each candidate's three points. Times are processor times of the process, for diffrax of its
own, which is asked over a pipe (DIFFRAX_PYTHON names its interpreter, else it is left out). The first run of
each is not counted: it compiles. Results are kept after each round, and a new start adds rounds to them.
Names restrict a start to some candidates.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
TOLERANCES = (1e-3, 1e-6, 1e-9)
F64 = torch.float64
Run = Callable[[float], tuple[Tensor, float, int]]  # of a tolerance: the end, seconds, steps


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def timed(run: Callable[[float], tuple[Tensor, int]]) -> Run:
    def one(tol: float) -> tuple[Tensor, float, int]:
        began = time.process_time()
        x, steps = run(tol)
        return x, time.process_time() - began, steps

    return one


def ours(x0: Tensor, **options: object) -> Run:
    def run(tol: float) -> tuple[Tensor, int]:
        out = ls.solve(ls.ODE(lorenz), x0, t=(0, 5), rtol=tol, atol=tol, grad=False, **options)
        return out.x[-1], out.stats.steps

    return timed(run)


def torchode(x0: Tensor, compiled: bool = False, pi: bool = False) -> Run:
    """pi: with the gains of `ls.control.PI`, in the place of its integral controller."""
    import torchode as to

    term = to.ODETerm(lorenz)
    ends = torch.tensor([[0.0, 5.0]], dtype=F64).expand(len(x0), 2).contiguous()

    def solver(tol: float) -> Callable:
        integral = to.IntegralController(tol, tol, term=term)
        control = to.PIDController(tol, tol, 0.2, 0.65, 0.0, term=term) if pi else integral
        made = to.AutoDiffAdjoint(to.Tsit5(term=term), control)
        return torch.compile(made.solve) if compiled else made.solve

    solvers = {tol: solver(tol) for tol in TOLERANCES}

    def run(tol: float) -> tuple[Tensor, int]:
        with torch.no_grad():
            out = solvers[tol](to.InitialValueProblem(y0=x0, t_eval=ends))
        return out.ys[:, -1], int(out.stats["n_steps"].max())

    return timed(run)


def torchdiffeq(x0: Tensor) -> Run:
    from torchdiffeq import odeint

    def run(tol: float) -> tuple[Tensor, int]:
        ts = torch.tensor([0.0, 5.0], dtype=F64)
        with torch.no_grad():
            return odeint(lorenz, x0, ts, rtol=tol, atol=tol, method="dopri5")[-1], 0

    return timed(run)


def scipy(x0: Tensor) -> Run:
    from scipy.integrate import solve_ivp

    def f(t: float, y: np.ndarray) -> np.ndarray:
        a, b, c = y.reshape(-1, 3).T
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1).ravel()

    def run(tol: float) -> tuple[Tensor, int]:
        out = solve_ivp(f, (0, 5), x0.numpy().ravel(), rtol=max(tol, 1e-13), atol=tol, t_eval=[5.0])
        return torch.from_numpy(out.y[:, -1]).view(-1, 3), out.nfev // 6

    return timed(run)


def cvode(x0: Tensor, method: str) -> Run:
    """A loop over the systems: CVODE has one step for all that it is given."""
    from sksundae.cvode import CVODE

    def f(t: float, y: np.ndarray, out: np.ndarray) -> None:
        a, b, c = y
        out[0], out[1], out[2] = 10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c

    def run(tol: float) -> tuple[Tensor, int]:
        solver = CVODE(f, method=method, rtol=tol, atol=tol, max_num_steps=100_000)
        span = np.array([0.0, 5.0])
        return torch.from_numpy(np.stack([solver.solve(span, y).y[-1] for y in x0.numpy()])), 0

    return timed(run)


def diffrax(x0: Tensor, kind: str, folder: str) -> Run:
    start, end = f"{folder}/start.npy", f"{folder}/{kind}.npy"
    np.save(start, x0.numpy())
    script = Path(__file__).parent / "peers" / "diffrax_.py"
    flags = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
    process = subprocess.Popen(
        [os.environ["DIFFRAX_PYTHON"], str(script), start, end], text=True, env={**os.environ, **flags},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

    def run(tol: float) -> tuple[Tensor, float, int]:
        print(kind, tol, file=process.stdin, flush=True)
        said = json.loads(process.stdout.readline())
        return torch.from_numpy(np.load(end)), said["seconds"], said["steps"]

    return run


def candidates(x0: Tensor, folder: str) -> dict[str, Run]:
    found = {
        "longstride": ours(x0),
        "longstride, f eager": ours(x0, compile="solver"),
        "longstride, compiled": ours(x0, compile=True),
        "longstride vern7": ours(x0, method="vern7"),
        "longstride vern7, f eager": ours(x0, method="vern7", compile="solver"),
        "longstride vern7, compiled": ours(x0, method="vern7", compile=True),
        "longstride, shared step": ours(x0, shared_step=True),
        "longstride, shared step, compiled": ours(x0, shared_step=True, compile=True),
    }
    if importlib.util.find_spec("torchode"):
        found["torchode"] = torchode(x0)
        found["torchode, PI"] = torchode(x0, pi=True)
        found["torchode, compiled"] = torchode(x0, compiled=True)
    if importlib.util.find_spec("torchdiffeq"):
        found["torchdiffeq dopri5, shared step"] = torchdiffeq(x0)
    if importlib.util.find_spec("scipy"):
        found["scipy RK45, shared step"] = scipy(x0)
    if importlib.util.find_spec("sksundae"):
        found["CVODE Adams, in a loop"] = cvode(x0, "Adams")
    if "DIFFRAX_PYTHON" in os.environ:
        found["diffrax, vmap"] = diffrax(x0, "vmap", folder)
        found["diffrax, shared step"] = diffrax(x0, "shared", folder)
    return found


def at_error(points: dict[str, dict], wanted: float) -> float:
    """Milliseconds at an error, log-log between (or beyond) the two points that are next to it."""
    known = sorted((math.log(p["error"]), math.log(statistics.median(p["ms"]))) for p in points.values())
    errors, times = (np.array(v) for v in zip(*known, strict=True))
    i = min(max(int(np.searchsorted(errors, math.log(wanted))), 1), len(errors) - 1)
    slope = (times[i] - times[i - 1]) / (errors[i] - errors[i - 1])
    return math.exp(times[i] + slope * (math.log(wanted) - errors[i]))


def table(found: dict[str, dict[str, dict]]) -> str:
    wanted = {tol: found["longstride"][str(tol)]["error"] for tol in TOLERANCES}
    lines = ["| solver | " + " | ".join(f"ms at error {e:.1e}" for e in wanted.values()) + " | steps |"]
    lines.append("|---" * (len(wanted) + 2) + "|")
    for name, points in found.items():
        times = " | ".join(f"{at_error(points, e):.1f}" for e in wanted.values())
        steps = ", ".join(str(p["steps"] or "-") for p in points.values())
        lines.append(f"| {name} | {times} | {steps} |")
    return "\n".join(lines)


def picture(found: dict[str, dict[str, dict]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5))
    for k, (name, points) in enumerate(sorted(found.items())):
        ours = {"marker": "s" if "vern7" in name else "o", "lw": 2.2}
        style = ours if "longstride" in name else {"marker": ".", "ls": "--", "lw": 1.2}
        style["color"] = plt.get_cmap("tab20")(2 * k % 20 + k // 10)
        errors = [p["error"] for p in points.values()]
        axes.loglog(errors, [statistics.median(p["ms"]) for p in points.values()], label=name, **style)
    axes.set(
        xlabel="relative error at t = 5", ylabel="milliseconds", title="1,000 Lorenz systems, one thread"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.tight_layout()
    figure.savefig(RESULTS / "lorenz.png", dpi=110)


def write(found: dict[str, dict[str, dict]]) -> None:
    RESULTS.joinpath("lorenz.json").write_text(json.dumps(found, indent=1) + "\n")
    rounds = min(len(p["ms"]) for points in found.values() for p in points.values())
    head = "# 1,000 Lorenz systems\n\n`python benchmarks/lorenz.py`, see there what is measured.\n\n"
    note = (
        f"Medians of {rounds} rounds or more; torch {torch.__version__}; steps at 1e-3, 1e-6, 1e-9, of the "
        f"sample that took most. The load of the machine's two cores was {os.getloadavg()[0]:.1f} at the end."
    )
    RESULTS.joinpath("lorenz.md").write_text(f"{head}{table(found)}\n\n{note}\n\n![](lorenz.png)\n")
    picture(found)


def main() -> None:
    torch.set_num_threads(1)
    x0 = 1 + torch.randn(1000, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    exact = ls.solve(ls.ODE(lorenz), x0, t=(0, 5), method="dopri8", rtol=1e-12, atol=1e-12, grad=False).x[-1]
    kept = RESULTS / "lorenz.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        runs, wanted = candidates(x0, folder), sys.argv[2:]
        runs = {name: run for name, run in runs.items() if name in (wanted or runs)}
        for name, run in runs.items():
            began = time.perf_counter()
            run(TOLERANCES[0])
            print(f"{name}: first run {time.perf_counter() - began:.1f} s", flush=True)
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 9):
            for tol in TOLERANCES:
                for name, run in runs.items():
                    x, seconds, steps = run(tol)
                    point = found.setdefault(name, {}).setdefault(str(tol), {"ms": []})
                    point["ms"].append(seconds * 1e3)
                    point["error"], point["steps"] = float((x - exact).norm() / exact.norm()), steps
            write(found)
    print(table(found))


if __name__ == "__main__":
    main()
