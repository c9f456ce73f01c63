"""ETDRK4 steps beside exponax, a loop by hand, scipy and torch-cfd: microseconds, errors, memory.

    python benchmarks/pde.py [rounds [CASE ...]]

Kuramoto and Sivashinsky's equation and Korteweg and de Vries' on 512 points, Allen-Cahn, Gray-Scott and
Navier-Stokes in two dimensions on 256^2; `peers/pde_common.py` has all their numbers. Each solver is a
process of its own on one core (PDE_CORE, 0) with one thread, asked for runs over a pipe: exponax in
EXPONAX_PYTHON, scipy and torch-cfd in PEERS_PYTHON, py-pde in PYPDE_PYTHON, left out where these are not set.
"compiled" is ours with compile=True, on the axis where that makes steps native.
Times are processor times of runs of some 20 ms; solvers take turns. The machine is shared, so
the least of all runs stands for a machine of one's own and the median for this one; both ratios are given.
Errors are the largest differences at the end, over the largest value, from a reference on the same grid: our
run with an eighth of the smallest step. They are of the modes that are read in products; others are made by
some solvers (exponax) and not by others.
Results are kept after each case, and a new start adds rounds.

PDE_THREADS=2 (with PDE_CORE=0,1) times steps on two threads by the wall's clock, a table of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE / "peers"))
from pde_common import CASES, kept  # noqa: E402  (a file that peers import too, without the package)

TIMED = [  # case, batch, dtype, dt, steps
    ("ks", 1, "float64", 0.05, 400),
    ("ks", 1, "float32", 0.05, 400),
    ("ks", 256, "float64", 0.05, 8),
    ("kdv", 1, "float64", 1e-3, 400),
    *((case, 1, kind, dt, 8) for case, dt in (("ac", 0.05), ("gs", 1.0), ("ns", 0.01))
      for kind in ("float64", "float32")),
]  # fmt: skip
NAMES = {"ks": "Kuramoto-Sivashinsky 512", "kdv": "Korteweg-de Vries 512", "ac": "Allen-Cahn 256^2",
         "gs": "Gray-Scott 256^2", "ns": "Navier-Stokes 256^2, Re 1000",
         "disturbed": "Navier-Stokes, start disturbed by 1e-15"}  # fmt: skip
RUNS = 5  # in a turn
TOLERANCES = {"scipy": (1e-4, 1e-6, 1e-8), "py-pde": (1e-3,)}  # whose error is of differences in space
STEPPERS = ("longstride", "compiled", "exponax", "bare torch")  # of which steps are timed
THREADS = os.environ.get("PDE_THREADS", "1")
MICROSECONDS = "microseconds" if THREADS == "1" else f"microseconds on {THREADS} threads"
FLAGS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), THREADS)
if THREADS == "1":
    FLAGS["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Solver:
    """A process that is asked for runs."""

    def __init__(self, python: str, script: str, *arguments: str) -> None:
        core = os.environ.get("PDE_CORE", "0")
        self.process = subprocess.Popen(
            ["taskset", "-c", core, python, str(HERE / "peers" / script), *arguments], text=True,
            env={**os.environ, **FLAGS}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, case: str, setting: float, steps: int, batch: int = 1, dtype: str = "float64", out: str = ""
    ):
        asked = {"case": case, "dtype": dtype, "batch": batch, "setting": setting, "steps": steps, "out": out}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline()).get("seconds")


def solvers() -> dict[str, Solver]:
    found: dict[str, tuple[str, ...]] = {
        "longstride": (sys.executable, "longstride_pde_.py"),
        "compiled": (sys.executable, "longstride_pde_.py", "compile"),
        "bare torch": (sys.executable, "bare_pde_.py"),
    }
    if python := os.environ.get("EXPONAX_PYTHON"):
        found["exponax"] = python, "exponax_.py"
    if python := os.environ.get("PEERS_PYTHON"):
        found |= {"scipy": (python, "scipy_pde_.py"), "torch-cfd": (python, "torch_cfd_.py")}
    if python := os.environ.get("PYPDE_PYTHON"):
        found["py-pde"] = python, "py_pde_.py"
    return {name: Solver(*how) for name, how in found.items()}


def time_steps(found: dict[str, Any], known: dict[str, Solver], rounds: int, wanted: list[str]) -> None:
    """RUNS in each turn, microseconds a step."""
    for case, batch, dtype, dt, steps in TIMED:
        if case not in wanted:
            continue
        rows = found.setdefault(MICROSECONDS, {}).setdefault(f"{case}|{batch}|{dtype}", {})
        names = [name for name in STEPPERS if name in known]
        for _, name, _ in product(range(rounds), names, range(RUNS)):
            if seconds := known[name].run(case, dt, steps, batch, dtype):
                rows.setdefault(name, []).append(round(seconds / steps * 1e6, 2))


def measure_errors(found: dict[str, Any], known: dict[str, Solver], case: str, folder: str) -> None:
    """What each solver errs by at the end of a case, with each of its steps or tolerances."""
    about, rows = CASES[case], found.setdefault("errors", {}).setdefault(case, {})
    asked = {name: TOLERANCES.get(name, about["dt"]) for name in known if name != "compiled"}
    if all(str(setting) in rows.get(name, {}) for name, settings in asked.items() for setting in settings):
        return
    out, end, small = f"{folder}/end.npy", about["t"], about["dt"][-1] / 8
    known["longstride"].run(case, small, round(end / small), out=out)
    exact = kept(case, np.load(out))
    for name, settings in asked.items():
        for setting in settings:
            if str(setting) in rows.get(name, {}):
                continue
            seconds = known[name].run(case, setting, round(end / setting), out=out)
            if seconds is None:
                break
            last = kept(case, np.load(out).reshape(exact.shape))
            error = float(np.abs(last - exact).max() / np.abs(exact).max())
            rows.setdefault(name, {})[str(setting)] = {"error": error, "seconds": seconds}


def of_ours(found: dict[str, Any], wanted: set[str]) -> None:
    """The share of transforms in our steps, and their memory: in a fresh process each."""
    for case in wanted:
        for dtype in ("float64", "float32"):
            said = subprocess.run(
                ["taskset", "-c", os.environ.get("PDE_CORE", "0"), sys.executable,
                 str(HERE / "peers" / "pde_inside.py"), case, dtype],
                env={**os.environ, **FLAGS}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found.setdefault("inside", {})[f"{case}|{dtype}"] = json.loads(said.stdout)


def ratios(rows: dict[str, list[float]], of: Callable[[list[float]], float]) -> str:
    ours = [rows[name] for name in ("longstride", "compiled") if name in rows]
    return ", ".join(f"{of(row) / of(rows['exponax']):.2f}" for row in ours) if "exponax" in rows else "-"


def timings(found: dict[str, Any], unit: str) -> list[str]:
    lines = [
        f"| equation | batch | | {' | '.join(STEPPERS)} | ratio of the least | of the medians |",
        "|---" * 9 + "|",
    ]
    for key, rows in found.items():
        case, batch, dtype = key.split("|")
        cells = [f"{min(rows[n]):.{int(min(rows[n]) < 10)}f}" if n in rows else "-" for n in STEPPERS]
        cells += [ratios(rows, min), ratios(rows, statistics.median)]
        lines.append(f"| {NAMES[case]} | {batch} | {dtype} | " + " | ".join(cells) + " |")
    said = "the least of all runs; the ratios are of ours to exponax's, and of compiled to exponax's."
    return [*lines, "", f"{unit.capitalize()} a step, {said}", ""]


def page(found: dict[str, Any]) -> str:
    lines = ["# ETDRK4 steps", "", "`python benchmarks/pde.py`, see there what is measured.", ""]
    for table in [name for name in found if name.startswith("microseconds")]:
        lines += timings(found[table], table)
    lines += ["| equation | | transforms | arrays at once | with weights |", "|---" * 5 + "|"]
    for key, row in found.get("inside", {}).items():
        case, dtype = key.split("|")
        arrays = f"{row['arrays']:.1f} | {row['with_weights']:.1f}"
        lines.append(f"| {NAMES[case]} | {dtype} | {row['share']:.0%} | {arrays} |")
    lines += [
        "",
        "The share of a step's time that is spent in transforms; its memory, in fields of the state.",
        "",
    ]
    for case, rows in found.get("errors", {}).items():
        lines += [f"## {NAMES[case]}, t = {CASES[case]['t']:g}", ""]
        lines += ["| solver | error, seconds at each step or tolerance |", "|---|---|"]
        for name, points in rows.items():
            cells = [f"{s}: {p['error']:.1e}, {p['seconds']:.2g} s" for s, p in points.items()]
            lines.append(f"| {name} | " + "; ".join(cells) + " |")
        lines.append("")
    lines.append(f"The load of the machine's two cores was {os.getloadavg()[0]:.1f} at the end.")
    return "\n".join([*lines, "", "![](pde.png)", ""])


def picture(found: dict[str, Any]) -> None:
    if not found.get("errors"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    errors = found.get("errors", {})
    lines = -(-len(errors) // 3)
    figure, panels = plt.subplots(lines, 3, figsize=(10.2, 3.1 * lines + 0.3), squeeze=False)
    for axes in panels.flat[len(errors) :]:
        axes.set_axis_off()
    names = list(dict.fromkeys(name for rows in errors.values() for name in rows))
    for axes, (case, rows) in zip(panels.flat, errors.items(), strict=False):
        for name, points in rows.items():
            line = sorted((p["error"], p["seconds"]) for p in points.values() if p["error"] == p["error"])
            style = {"lw": 2.2, "marker": "o"} if name == "longstride" else {"lw": 1.2, "marker": "."}
            if line:
                axes.loglog(*zip(*line, strict=True), color=f"C{names.index(name)}", label=name, **style)
        axes.set_xlabel("error at the end")
        axes.set_title(NAMES[case].removesuffix(", Re 1000"), size=10)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("seconds")
    handles = {h.get_label(): h for axes in panels.flat for h in axes.get_lines()}
    figure.legend(handles.values(), handles, loc="lower center", ncols=len(handles), fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(RESULTS / "pde.png", dpi=90)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    wanted, results = sys.argv[2:] or list(CASES), RESULTS / "pde.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    known = solvers()
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            time_steps(found, known, rounds, [case])
            if THREADS == "1":
                measure_errors(found, known, case, folder)
                of_ours(found, {case} & {timed for timed, *_ in TIMED})
            results.write_text(json.dumps(found, indent=1) + "\n")
            (RESULTS / "pde.md").write_text(page(found))
            picture(found)
    print(page(found))


if __name__ == "__main__":
    main()
