"""Multistep methods and switching: evaluations and time at equal measured error, beside scipy and CVODE.

    python benchmarks/multistep.py [seconds]

Pleiades (7 bodies, 28 states, 0 to 3), Van der Pol mu = 1000 (0 to 2000), Robertson (0 to 1e11): one solve,
one thread, processor time, the lowest of rounds in which all solvers take turns. Problems, the error and
CVODE's call are those of benchmarks/stiff.py; the reference of Pleiades is dopri8 at rtol 1e-13. Calls are
counted by f, those for difference quotients of a Jacobian included. Numbers at an error are interpolated on
log-log work-precision curves. Then 1000 parameters at once, mu or k2, beside a loop over scipy, measured on
some of them.

What is measured is kept in benchmarks/results/multistep.json, and a second call adds rounds to it; it stops
taking new measurements after as many seconds as it is told.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import stiff
from work_precision import at_error

RESULTS = Path(__file__).parent / "results"
TOLERANCES = (1e-3, 1e-5, 1e-7, 1e-9)
ASKED = (1e-3, 1e-4, 1e-5, 1e-6)
ROUNDS = 2
SMOOTH = ("adams", "tsit5", "dopri8")
STIFF = ("bdf", "adams_bdf", "auto", "rodas5p")
BATCH, SAMPLE = 1000, 8
MANY = ("longstride bdf", "longstride adams_bdf", "longstride auto", "scipy BDF", "scipy LSODA")

_MASS = np.arange(1.0, 8.0)
_AT = np.array([[3, 3, -1, -3, 2, -2, 2], [3, -3, 2, 0, 0, -4, 4]], dtype=float)
_SPEED = np.array([[0, 0, 0, 0, 0, 1.75, -1.5], [0, 0, 0, -1.25, 1, 0, 0]])


def pleiades(_):
    """x'' = sum_j m_j (x_j - x_i)/r_ij^3 (Hairer, Norsett and Wanner 1993, II.10)."""
    mass = torch.tensor(_MASS)

    def f(t, x):
        at, speed = x.view(-1, 2, 2, 7).unbind(1)
        apart = at[..., None, :] - at[..., :, None]
        near = (apart * apart).sum(1, keepdim=True) + torch.eye(7)
        return torch.stack([speed, (mass * apart / near**1.5).sum(-1)], 1).flatten(1)

    return f


def pleiades_numpy(_):
    def g(t, x):
        at, speed = x.reshape(2, 2, 7)
        apart = at[:, None, :] - at[:, :, None]
        near = (apart * apart).sum(0) + np.eye(7)
        return np.concatenate([speed.ravel(), (_MASS * apart / near**1.5).sum(-1).ravel()])

    return g


START = np.concatenate([_AT.ravel(), _SPEED.ravel()])
PROBLEMS = {
    "pleiades": stiff.Problem(pleiades, pleiades_numpy, START, 3.0, 0.0, np.zeros(0)),
    "van der pol": replace(stiff.PROBLEMS["van der pol"], scale=1e-3),
    "robertson": stiff.PROBLEMS["robertson"],
}


class Counted:
    def __init__(self, f: Callable) -> None:
        self.f, self.calls = f, 0

    def __call__(self, *given):
        self.calls += 1
        return self.f(*given)


def candidates(name: str) -> dict[str, Callable[[stiff.Problem, float], tuple]]:
    """Of a problem that counts: x at the end, and whether it came there."""

    def ours(m: str) -> Callable:
        return lambda p, tol: (lambda x, good, _: (x[0], good))(*stiff.ours(m, p, tol))

    smooth = name == "pleiades"
    found = {f"longstride {m}": ours(m) for m in (SMOOTH if smooth else STIFF)}
    names = ("LSODA", "DOP853") if smooth else ("BDF", "LSODA")
    found |= {f"scipy {m}": lambda p, tol, m=m: stiff.scipys(m, p, tol) for m in names}
    if importlib.util.find_spec("sksundae"):
        kind = "Adams" if smooth else "BDF"
        found[f"CVODE {kind}"] = lambda p, tol: stiff.cvode(p, tol, kind)
    return found


def counting(problem: stiff.Problem) -> tuple[stiff.Problem, list[Counted]]:
    made: list[Counted] = []

    def counted(of: Callable) -> Callable:
        def make(parameter):
            made.append(Counted(of(parameter)))
            return made[-1]

        return make

    return replace(problem, f=counted(problem.f), g=counted(problem.g)), made


def references(data: dict) -> dict[str, np.ndarray]:
    kept = data.setdefault("references", {})
    for name, problem in PROBLEMS.items():
        if name not in kept:
            smooth = name == "pleiades"
            x = (
                stiff.ours("dopri8", problem, 1e-13)[0][0]
                if smooth
                else stiff.scipys("Radau", problem, 1e-12)[0]
            )
            kept[name] = list(x)
            save(data)
    return {name: np.array(x) for name, x in kept.items()}


def single(data: dict, until: float) -> None:
    """Rounds over problems, tolerances and solvers, each keeping its lowest time."""
    truth, rows = references(data), data.setdefault("single", {})
    for _ in range(ROUNDS):
        for name, problem in PROBLEMS.items():
            for tol in TOLERANCES:
                for solver, run in candidates(name).items():
                    key = f"{name}|{solver}|{tol:.0e}"
                    row = rows.get(key, {"seconds": 9e9, "rounds": 0})
                    if row["rounds"] >= ROUNDS or time.time() > until:
                        continue
                    counted, made = counting(problem)
                    begun = time.process_time()
                    x, good = run(counted, tol)
                    spent = time.process_time() - begun
                    rows[key] = {
                        "seconds": min(spent, row["seconds"]),
                        "rounds": row["rounds"] + 1,
                        "nfe": sum(c.calls for c in made),
                        "error": stiff.error(x, truth[name], problem) if good else None,
                    }
                save(data)


def batches(data: dict, until: float) -> None:
    """BATCH parameters at once, beside scipy's BDF and LSODA on some of them."""
    rows = data.setdefault("batch", {})
    some = np.linspace(0, BATCH - 1, SAMPLE).astype(int)
    for name in ("robertson", "van der pol"):
        problem = PROBLEMS[name]
        chosen = problem.parameters[some]
        if f"{name}|truth" not in rows:
            if time.time() > until:
                return
            rows[f"{name}|truth"] = [list(stiff.scipys("Radau", problem, 1e-9, p)[0]) for p in chosen]
            save(data)
        truth = np.array(rows[f"{name}|truth"])
        for solver in MANY:
            key = f"{name}|{solver}|1e-06"
            if time.time() > until or key in rows:
                continue
            begun, method = time.process_time(), solver.split()[1]
            if "scipy" in solver:
                x = np.array([stiff.scipys(method, problem, 1e-6, p)[0] for p in chosen])
                spent = (time.process_time() - begun) * BATCH / SAMPLE
            else:
                x, _, _ = stiff.ours(method, problem, 1e-6, torch.tensor(problem.parameters))
                x, spent = x[some], time.process_time() - begun
            rows[key] = {"seconds": spent, "error": stiff.error(x, truth, problem)}
            save(data)


def curve(rows: dict, name: str, solver: str, what: str) -> list[tuple]:
    """(error, seconds or evaluations) of a solver on a problem."""
    keys = [f"{name}|{solver}|{tol:.0e}" for tol in TOLERANCES]
    return [(rows[key]["error"], rows[key][what]) for key in keys if key in rows]


def save(data: dict) -> None:
    (RESULTS / "multistep.json").write_text(json.dumps(data, indent=1) + "\n")


def page(data: dict) -> str:
    rows, lines = (
        data["single"],
        ["# Multistep methods and switching\n", __doc__.split("\n\n")[2].strip() + "\n"],
    )
    for name in PROBLEMS:
        lines += [f"\n## {name}\n", "Evaluations, seconds at an error.\n"]
        lines += [
            "| solver | " + " | ".join(f"{e:.0e}" for e in ASKED) + " |",
            "|---" * (len(ASKED) + 1) + "|",
        ]
        for solver in candidates(name):
            cells = []
            for wanted in ASKED:
                nfe, spent = (
                    at_error(curve(rows, name, solver, what), wanted) for what in ("nfe", "seconds")
                )
                cells.append("-" if nfe is None or spent is None else f"{nfe:.0f}, {spent:.3g} s")
            lines.append(f"| {solver} | " + " | ".join(cells) + " |")
    batch = data.get("batch", {})
    lines += [f"\n## {BATCH} parameters at rtol 1e-6\n", f"scipy in a loop, measured on {SAMPLE} of them.\n"]
    lines += ["| problem | solver | seconds | error |", "|---|---|---|---|"]
    for key, row in batch.items():
        name, solver, *_ = key.split("|")
        if solver != "truth":
            lines.append(f"| {name} | {solver} | {row['seconds']:.3g} | {row['error']:.1e} |")
    load = os.getloadavg()[0]
    lines.append(f"\ntorch {torch.__version__}, one thread; load of the machine's two cores {load:.1f}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    until = time.time() + (float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0)
    path = RESULTS / "multistep.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    batches(data, until)
    single(data, until)
    text = page(data)
    (RESULTS / "multistep.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
