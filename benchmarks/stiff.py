"""Stiff problems: time at equal measured error, of Longstride's implicit methods, scipy's and CVODE.

    python benchmarks/stiff.py [seconds]

Van der Pol mu = 1000 (0 to 2000), Robertson (0 to 1e11), Brusselator in one dimension, N = 128 (256 states, 0
to 10): one solve, one thread, processor time, the lowest of rounds in which all solvers take turns. The error
is the root mean square of (x - reference)/(1e-6 scale + |reference|) at the end; the reference is Radau's of
scipy at rtol 1e-12. Times at an error are interpolated on log-log work-precision curves. Then 1000 parameters
at once, mu or k2, beside a loop over scipy measured on some of them. diffrax, Kvaerno5 with its PI
controller, stands in a table of its own with some of the others, all measured in turn (DIFFRAX_PYTHON names
its interpreter, which is asked over a pipe; its compilation is not counted).

`rodas5p compiled` is compile=True, for states of up to eight elements; its first run, which compiles, stands
in a table of its own.

What is measured is kept in benchmarks/results/stiff.json, and a second call adds what is missing; it stops
taking new measurements after as many seconds as it is told.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp

import longstride as ls
from work_precision import at_error

RESULTS = Path(__file__).parent / "results"
TOLERANCES = (1e-3, 1e-4, 1e-6, 1e-8, 1e-9, 1e-10)
ASKED = (1e-3, 1e-6, 1e-9)
COMPILED = "rodas5p compiled"
FINER = (1e-11, 1e-12)  # of what is compiled, that it reaches Radau's error at 1e-9
BESIDE = ("longstride rodas5p", f"longstride {COMPILED}", "longstride radau5", "scipy Radau")  # diffrax
OURS = ("rodas5p", COMPILED, "radau5", "kvaerno5")
SCIPY = ("Radau", "BDF", "LSODA")
LOOP = "scipy Radau"
ROUNDS = 3
EXPLICIT = 5000  # steps
N = 128
WARM: set[str] = set()  # what has been compiled
BATCH, SAMPLE = 1000, 5  # parameters, and those of them that the loop over scipy is measured on


@dataclass(frozen=True)
class Problem:
    """f(p) of torch, g(p) of numpy, for a parameter p; scale: of what is small (atol = rtol scale)."""

    f: Callable
    g: Callable
    x0: np.ndarray
    end: float
    default: float
    parameters: np.ndarray
    scale: float = 1.0
    bands: tuple[int, int] | None = None


def van_der_pol(mu):
    def f(t, x):
        a, b = x.unbind(1)
        return torch.stack([b, mu * (1 - a * a) * b - a], 1)

    return f


def van_der_pol_numpy(mu):
    return lambda t, x: [x[1], mu * (1 - x[0] * x[0]) * x[1] - x[0]]


def robertson(k2):
    def f(t, x):
        a, b, c = x.unbind(1)
        slow, fast, back = 0.04 * a, k2 * b * b, 1e4 * b * c
        return torch.stack([back - slow, slow - back - fast, fast], 1)

    return f


def robertson_numpy(k2):
    def g(t, x):
        a, b, c = x
        slow, fast, back = 0.04 * a, k2 * b * b, 1e4 * b * c
        return [back - slow, slow - back - fast, fast]

    return g


def brusselator(alpha):
    """u, v in turn on N points between walls where u = 1, v = 3 (Hairer and Wanner 1996, BRUSS)."""
    wide = (N + 1) ** 2

    def f(t, x):
        a = alpha * wide if isinstance(alpha, float) else alpha[:, None] * wide
        pad = torch.nn.functional.pad(x.unflatten(1, (N, 2)), (0, 0, 1, 1))
        pad[:, 0, 0] = pad[:, -1, 0] = 1.0
        pad[:, 0, 1] = pad[:, -1, 1] = 3.0
        u, v = pad[:, 1:-1].unbind(2)
        bent = (pad[:, 2:] - 2 * pad[:, 1:-1] + pad[:, :-2]).unbind(2)
        uuv = u * u * v
        return torch.stack([1 + uuv - 4 * u + a * bent[0], 3 * u - uuv + a * bent[1]], 2).flatten(1)

    return f


def brusselator_numpy(alpha):
    a = alpha * (N + 1) ** 2

    def g(t, x):
        pad = np.empty((N + 2, 2))
        pad[1:-1], pad[0], pad[-1] = x.reshape(N, 2), (1.0, 3.0), (1.0, 3.0)
        u, v = pad[1:-1].T
        bent = pad[2:] - 2 * pad[1:-1] + pad[:-2]
        uuv = u * u * v
        return np.stack([1 + uuv - 4 * u + a * bent[:, 0], 3 * u - uuv + a * bent[:, 1]], 1).ravel()

    return g


_AT = np.arange(1, N + 1) / (N + 1)
_BRUSSELATOR = np.stack([1 + np.sin(2 * np.pi * _AT), np.full(N, 3.0)], 1).ravel()

PROBLEMS = {
    "van der pol": Problem(
        van_der_pol, van_der_pol_numpy, np.array([2.0, 0.0]), 2000.0, 1000.0,
        np.logspace(2.8, 3.2, BATCH),
    ),
    "robertson": Problem(
        robertson, robertson_numpy, np.array([1.0, 0.0, 0.0]), 1e11, 3e7, np.logspace(6, 8, BATCH), 1e-6
    ),
    "brusselator": Problem(
        brusselator, brusselator_numpy, _BRUSSELATOR, 10.0, 0.02, np.logspace(-2.5, -1.5, BATCH), bands=(2, 2)
    ),
}  # fmt: skip


def error(x: np.ndarray, reference: np.ndarray, problem: Problem) -> float:
    small = 1e-6 * problem.scale + np.abs(reference)
    return float(np.sqrt(np.mean(np.square((x - reference) / small))))


def ours(method: str, problem: Problem, tol: float, parameters: torch.Tensor | float | None = None):
    """x at the end [B, D], and what it cost."""
    method, compiled = method.split()[0], method == COMPILED
    many = isinstance(parameters, torch.Tensor)
    f = problem.f(parameters if many else problem.default)
    x0 = torch.tensor(problem.x0)[None].expand(len(parameters) if many else 1, -1).clone()
    with torch.no_grad():
        run = ls.solve(
            ls.ODE(f), x0, t=(0.0, problem.end), method=method, rtol=tol, atol=tol * problem.scale,
            max_steps=100_000, compile=compiled,
        )  # fmt: skip
    return run.x[-1].numpy(), all(s == "reached" for s in run.status), run.stats


def scipys(method: str, problem: Problem, tol: float, parameter: float | None = None):
    g = problem.g(problem.default if parameter is None else parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = solve_ivp(
            g, (0.0, problem.end), problem.x0, method=method, rtol=tol, atol=tol * problem.scale,
            t_eval=[problem.end],
        )  # fmt: skip
    return run.y[:, -1] if run.y.size else problem.x0 * np.nan, run.success


def cvode(problem: Problem, tol: float, method: str = "BDF"):
    from sksundae.cvode import CVODE

    g = problem.g(problem.default)

    def rhs(t, x, out):
        out[:] = g(t, x)

    run = CVODE(
        rhs, method=method, rtol=tol, atol=tol * problem.scale, max_num_steps=1_000_000
    ).solve(np.array([0.0, problem.end]), problem.x0)  # fmt: skip
    return np.asarray(run.y)[-1], bool(run.success)


def candidates() -> dict[str, Callable[[Problem, float], tuple]]:
    found: dict[str, Callable] = {}
    for m in OURS:

        def one(p: Problem, tol: float, m: str = m) -> tuple:
            x, good, _ = ours(m, p, tol)
            return x[0], good

        found[f"longstride {m}"] = one
    found |= {f"scipy {m}": lambda p, tol, m=m: scipys(m, p, tol) for m in SCIPY}
    if importlib.util.find_spec("sksundae"):
        found["CVODE BDF"] = cvode
    return found


def diffrax() -> dict[str, Callable[[Problem, float], tuple]]:
    """Kvaerno5 of diffrax, whose answers bring their own seconds; nothing where it is not there."""
    if "DIFFRAX_PYTHON" not in os.environ:
        return {}
    script = Path(__file__).parent / "peers" / "diffrax_stiff.py"
    flags = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
    process = subprocess.Popen(
        [os.environ["DIFFRAX_PYTHON"], str(script)], text=True, env={**os.environ, **flags},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    names = {id(problem): name for name, problem in PROBLEMS.items()}

    def run(problem: Problem, tol: float) -> tuple:
        asked = {"problem": names[id(problem)], "tol": tol, "scale": problem.scale, "end": problem.end}
        print(json.dumps({**asked, "x0": list(problem.x0)}), file=process.stdin, flush=True)
        said = json.loads(process.stdout.readline())
        return np.array(said["x"]), said["good"], said["seconds"]

    return {"diffrax Kvaerno5": run}


def references(data: dict) -> dict[str, np.ndarray]:
    kept = data.setdefault("references", {})
    for name, problem in PROBLEMS.items():
        if name not in kept:
            kept[name] = list(scipys("Radau", problem, 1e-12)[0])
            save(data)
    return {name: np.array(x) for name, x in kept.items()}


def single(
    data: dict, until: float, rounds: int, runs: dict, tolerances: tuple = TOLERANCES, where: str = "single"
) -> None:
    """Rounds over problems, tolerances and solvers, each keeping its lowest time."""
    truth, rows = references(data), data.setdefault(where, {})
    for n in range(rounds):
        for name, problem in PROBLEMS.items():
            for tol in sorted({*tolerances, *FINER}, reverse=True):
                for solver, run in runs.items():
                    narrow = COMPILED in solver
                    if (narrow and problem.bands) or (tol not in tolerances and not narrow):
                        continue
                    if narrow and time.time() < until:
                        warm(data, name)
                    key = f"{name}|{solver}|{tol:.0e}"
                    row = rows.get(key, {"seconds": 9e9, "rounds": 0})
                    if row["rounds"] > n or time.time() > until:
                        continue
                    begun = time.process_time()
                    x, good, *told = run(problem, tol)
                    spent = told[0] if told else time.process_time() - begun
                    rows[key] = {
                        "seconds": min(spent, row["seconds"]),
                        "rounds": row["rounds"] + 1,
                        "error": error(x, truth[name], problem) if good else None,
                    }
                    save(data)


def warm(data: dict, name: str, many: bool = False) -> None:
    """Compiles, once in a process: processor time of a first run, over a thousandth of the problem's span."""
    key, problem = f"{name}|{BATCH if many else 1}", PROBLEMS[name]
    if key in WARM:
        return
    WARM.add(key)
    begun = sum(os.times()[:4])
    ours(
        COMPILED,
        replace(problem, end=problem.end / 1000),
        1e-3,
        torch.tensor(problem.parameters) if many else None,
    )
    data.setdefault("compile", {})[key] = sum(os.times()[:4]) - begun
    save(data)


def batches(data: dict, until: float) -> None:
    """BATCH parameters at once, beside scipy's Radau on some of them."""
    rows = data.setdefault("batch", {})
    some = np.linspace(0, BATCH - 1, SAMPLE).astype(int)
    for name, problem in PROBLEMS.items():
        if problem.bands:
            continue  # 1000 matrices of 256 x 256 are 0.5 GB a copy
        chosen = problem.parameters[some]
        if f"{name}|truth" not in rows:
            rows[f"{name}|truth"] = [list(scipys("Radau", problem, 1e-9, p)[0]) for p in chosen]
        truth = np.array(rows[f"{name}|truth"])
        for solver in (LOOP, "rodas5p", COMPILED, "radau5"):
            for tol in (1e-5, 1e-6, 1e-7):
                if solver == COMPILED and time.time() < until:
                    warm(data, name, many=True)
                key = f"{name}|{solver}|{tol:.0e}"
                row = rows.get(key, {"seconds": 9e9, "rounds": 0})
                if row["rounds"] >= 2 or time.time() > until:
                    continue
                begun = time.process_time()
                if solver == LOOP:
                    x = np.array([scipys("Radau", problem, tol, p)[0] for p in chosen])
                    spent, good = (time.process_time() - begun) * BATCH / SAMPLE, True
                else:
                    x, good, _ = ours(solver, problem, tol, torch.tensor(problem.parameters))
                    spent, x = time.process_time() - begun, x[some]
                rows[key] = {
                    "seconds": min(spent, row["seconds"]),
                    "rounds": row["rounds"] + 1,
                    "error": error(x, truth, problem) if good else None,
                }
                save(data)


def explicit(data: dict, until: float) -> None:
    """What methods that are not implicit come to within 5,000 steps at rtol 1e-6."""
    rows = data.setdefault("explicit", {})
    for name, problem in PROBLEMS.items():
        if time.time() > until or name in rows:
            continue
        x0, end = torch.tensor(problem.x0)[None], problem.end
        tol = {"rtol": 1e-6, "atol": 1e-6 * problem.scale}
        run = ls.solve(ls.ODE(problem.f(problem.default)), x0, t=(0.0, end), max_steps=EXPLICIT, **tol)
        rows[name] = {"longstride tsit5": f"{run.status[0]} at t = {float(run.t_end[0]):.3g} of {end:.3g}"}
        if importlib.util.find_spec("torchdiffeq"):
            from torchdiffeq import odeint

            f = problem.f(problem.default)
            try:
                span, options = torch.tensor([0.0, end]), {"max_num_steps": EXPLICIT}
                odeint(f, x0, span, method="dopri5", options=options, **tol)
                rows[name]["torchdiffeq dopri5"] = "reached"
            except AssertionError as failed:
                rows[name]["torchdiffeq dopri5"] = str(failed)
        if importlib.util.find_spec("torchode"):
            import torchode

            f = problem.f(problem.default)
            term = torchode.ODETerm(f)
            control = torchode.IntegralController(term=term, **tol)
            solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), control, max_steps=EXPLICIT)
            span = torch.tensor([[0.0, end]], dtype=torch.float64)
            status = solver.solve(torchode.InitialValueProblem(y0=x0, t_eval=span)).status
            rows[name]["torchode tsit5"] = torchode.status_codes.Status(int(status[0])).name
        save(data)


def curve(rows: dict, name: str, solver: str) -> list[tuple]:
    """(error, seconds) of a solver on a problem."""
    start = f"{name}|{solver}|"
    return [(row["error"], row["seconds"]) for key, row in rows.items() if key.startswith(start)]


def save(data: dict) -> None:
    (RESULTS / "stiff.json").write_text(json.dumps(data, indent=1) + "\n")


def table(rows: dict, solvers: list[str]) -> list[str]:
    """A table of seconds and errors."""
    lines = ["| problem | solver | " + " | ".join(f"{tol:.0e}" for tol in ASKED) + " |", "|---" * 5 + "|"]
    for name in PROBLEMS:
        for solver in solvers:
            found = [rows.get(f"{name}|{solver}|{tol:.0e}") for tol in ASKED]
            shown = [
                "-" if row is None else "failed" if row["error"] is None
                else f"{row['seconds']:.3g} s, {row['error']:.1e}"
                for row in found
            ]  # fmt: skip
            lines.append(f"| {name} | {solver} | " + " | ".join(shown) + " |")
    return lines


def page(data: dict) -> str:
    rows, lines = data["single"], ["# Stiff problems\n", __doc__.split("\n\n")[2].strip() + "\n"]
    solvers = [s for s in candidates() if any(f"|{s}|" in key for key in rows)]
    lines += ["\n## One solve\n", "Seconds and error at rtol.\n", *table(rows, solvers)]
    if beside := data.get("diffrax"):
        lines += [
            "\n## One solve, beside diffrax\n",
            "Seconds and error at rtol; all of this table in turn.\n",
        ]
        lines += table(beside, [*BESIDE, "diffrax Kvaerno5"])
    lines += ["\n## Time over that of scipy's Radau, at Radau's error\n"]
    lines += ["| problem | Radau's rtol | its error | " + " | ".join(solvers) + " |"]
    lines += ["|---" * (len(solvers) + 3) + "|"]
    for name in PROBLEMS:
        for tol in ASKED:
            row = rows.get(f"{name}|scipy Radau|{tol:.0e}")
            if not row or not row["error"]:
                continue
            found = [at_error(curve(rows, name, s), row["error"]) for s in solvers]
            cells = ["-" if s is None else f"{s / row['seconds']:.2f}" for s in found]
            lines.append(f"| {name} | {tol:.0e} | {row['error']:.1e} | " + " | ".join(cells) + " |")
    lines += [f"\n## {BATCH} parameters\n", f"scipy in a loop, measured on {SAMPLE} of them.\n"]
    lines += ["| problem | solver | rtol | seconds | error | scipy's loop at this error, over it |"]
    lines += ["|---|---|---|---|---|---|"]
    batch = {k: row for k, row in data.get("batch", {}).items() if "truth" not in k}
    for key, row in batch.items():
        name, solver, tol = key.split("|")
        loop = at_error(curve(batch, name, LOOP), row["error"] or 0.0)
        times = "-" if loop is None or solver == LOOP else f"{loop / row['seconds']:.0f}"
        shown = "failed" if row["error"] is None else f"{row['error']:.1e}"
        lines.append(f"| {name} | {solver} | {tol} | {row['seconds']:.3g} | {shown} | {times} |")
    lines += [
        "\n## Compiling\n",
        "Processor seconds of a first run with compile=True, the compiler's own counted.",
    ]
    lines += ["\n| problem | samples | seconds |", "|---|---|---|"]
    lines += [
        f"| {key.replace('|', ' | ')} | {seconds:.1f} |" for key, seconds in data.get("compile", {}).items()
    ]
    lines += [
        "\n## Explicit methods, 5,000 steps at rtol 1e-6\n",
        "| problem | solver | came to |",
        "|---|---|---|",
    ]
    for name, found in data.get("explicit", {}).items():
        lines += [f"| {name} | {solver} | {what} |" for solver, what in found.items()]
    lines.append(
        f"\ntorch {torch.__version__}, one thread; load of the machine's two cores {os.getloadavg()[0]:.1f}."
    )
    return "\n".join(lines) + "\n"


def picture(data: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(PROBLEMS), figsize=(13, 4.2), sharey=False)
    for axis, name in zip(axes, PROBLEMS, strict=True):
        for n, solver in enumerate(candidates()):
            points = sorted(
                (row["error"], row["seconds"])
                for key, row in data["single"].items()
                if key.startswith(f"{name}|{solver}|") and row["error"]
            )
            if points:
                style = "o-" if "long" in solver else "s:"
                axis.loglog(*zip(*points, strict=True), style, color=f"C{n}", ms=3, lw=1.2, label=solver)
        axis.set(title=name, xlabel="error", ylabel="seconds" if name == "van der pol" else "")
        axis.invert_xaxis()
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncol=7, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(RESULTS / "stiff.png", dpi=90)


def main() -> None:
    torch.set_num_threads(1)
    until = time.time() + (float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0)
    path = RESULTS / "stiff.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    explicit(data, until)
    batches(data, until)
    single(data, until, ROUNDS, candidates())
    if peer := diffrax():
        runs = {name: run for name, run in candidates().items() if name in BESIDE} | peer
        single(data, until, ROUNDS, runs, ASKED, "diffrax")
    text = page(data)
    (RESULTS / "stiff.md").write_text(text)
    picture(data)
    print(text)


if __name__ == "__main__":
    main()
