"""Exponential, integrating-factor and IMEX methods on stiff PDEs: evaluations and time at an error.

Kuramoto-Sivashinsky (128 points, 0 to 20; real symbol), Korteweg-de Vries (128 points, 0 to 1; imaginary) and
Allen-Cahn in 2D (64 x 64, 0 to 4; real), all float64. Equal steps, and pairs that choose theirs. The error is
the norm of x - reference over that of the reference, at the end; the reference is krogstad43 at rtol 1e-11.
One thread, processor time, the lowest of two rounds. Numbers at an error are interpolated on log-log
work-precision curves.

    python benchmarks/etd.py [seconds]
"""

from __future__ import annotations

import json
import math
import sys
import time
from functools import cache
from pathlib import Path

import torch

import longstride as ls
from longstride.methods import REGISTRY, get
from longstride.spectral import Fourier, Pointwise
from work_precision import at_error

OUT = Path(__file__).parent / "results"
BUDGETS = (125, 250, 500, 1000, 2000, 4000)  # evaluations, in equal steps
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
WANTED = (1e-2, 1e-4, 1e-6, 1e-8)
METHODS = (
    "etdrk2", "etdrk3", "etdrk4", "krogstad", "hochbruck_ostermann", "ifrk4", "etd_2", "etd_3", "etd_4",
    "exp_adams_4", "cnab_2", "sbdf_2", "sbdf_3", "ars_443", "ark_3", "ark_4", "rk4",
    "krogstad43", "hochbruck_ostermann43", "tsit5",
)  # fmt: skip


def allen_cahn() -> tuple[ls.ODE, torch.Tensor, float]:
    space = Fourier(2 * math.pi, (64, 64), dealias=0.5)
    x, y = space.x
    start = (torch.sin(x) * torch.cos(2 * y) + 0.4 * torch.cos(3 * x + y))[None]
    return ls.ODE(Pointwise(space, lambda u: u - u**3), L=-0.02 * space.k2, space=space), 0.5 * start, 4.0


@cache
def problem(name: str) -> tuple[ls.ODE, torch.Tensor, float]:
    if name == "allen-cahn 2d":
        return allen_cahn()
    if name == "korteweg-de vries":
        system = ls.systems.korteweg_de_vries(n=128)
        return system, system.x0, 1.0
    system = ls.systems.kuramoto_sivashinsky(n=128)
    return system, system.x0, 20.0


PROBLEMS = ("kuramoto-sivashinsky", "korteweg-de vries", "allen-cahn 2d")


def settings(method: str) -> tuple[float, ...]:
    if method in REGISTRY and method != "tsit5":
        return tuple(max(budget // get(method).sizes[0], 4) for budget in BUDGETS)
    return TOLERANCES


def solved(name: str, method: str, setting: float) -> ls.Solution | None:
    ode, start, end = problem(name)
    options = {"steps": int(setting)} if setting >= 1 else {"rtol": setting, "atol": 0.1 * setting}
    try:
        with torch.no_grad():
            return ls.solve(ode, start, t=(0.0, end), method=method, **options)
    except ls.SolveError:  # unstable at so few steps
        return None


@cache
def reference(name: str) -> torch.Tensor:
    found = solved(name, "krogstad43", 1e-11)
    assert found is not None
    return found.x[-1]


def measure(data: dict, until: float) -> None:
    for rounds in range(2):
        for name in PROBLEMS:
            for method in METHODS:
                for setting in settings(method):
                    point = data["points"].setdefault(f"{name}; {method}; {setting:g}", {"seconds": []})
                    if len(point["seconds"]) > rounds or time.monotonic() > until:
                        continue
                    began = time.process_time()
                    found = solved(name, method, setting)
                    point["seconds"].append(time.process_time() - began)
                    if found is not None:
                        exact = reference(name)
                        point["error"] = float((found.x[-1] - exact).norm() / exact.norm())
                        point["nfe"] = found.stats.nfe
                    save(data)


def save(data: dict) -> None:
    (OUT / "etd.json").write_text(json.dumps(data, indent=1) + "\n")
    lines = [f"# Stiff PDEs\n\n{(__doc__ or '').split('    python')[0].strip()}"]
    for name in PROBLEMS:
        wanted = " | ".join(f"{w:g}" for w in WANTED)
        lines += ["", f"## {name}", "", "Evaluations, and milliseconds, at an error of", ""]
        lines += [f"| method | {wanted} |", "|---|" + "---|" * len(WANTED)]
        for method in METHODS:
            points = [data["points"].get(f"{name}; {method}; {s:g}", {}) for s in settings(method)]
            points = [p for p in points if p.get("error") and p["error"] < 1]
            cells = []
            for w in WANTED:
                nfe = at_error(((p["error"], p["nfe"]) for p in points), w)
                spent = at_error(((p["error"], min(p["seconds"])) for p in points), w)
                cells.append("" if nfe is None or spent is None else f"{nfe:.0f}, {1e3 * spent:.0f}")
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    (OUT / "etd.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    until = time.monotonic() + (float(sys.argv[1]) if len(sys.argv) > 1 else math.inf)
    path = OUT / "etd.json"
    data = json.loads(path.read_text()) if path.exists() else {"points": {}}
    measure(data, until)
    save(data)


if __name__ == "__main__":
    main()
