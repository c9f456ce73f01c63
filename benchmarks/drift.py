"""The energy of regular orbits over 10,000 periods, by splittings of orders 2 to 8.

    python benchmarks/drift.py [kepler | "outer Solar System"]

Kepler's problem with e = 0.3, and the outer Solar System for 10,000 periods of Jupiter, 118,700 years. Of the
relative energy error, at some 5,000 moments that fall everywhere along the orbits: the largest in the first
and in the last tenth, and what a straight line through all of them rises in the whole time. Beside them rk4,
which loses energy steadily, over the same periods.

Each run is kept when it is done, in results/drift.json, and writes down where it is: give the command again
after an interruption.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import longstride as ls
from longstride.report.plots import COLOURS
from longstride.report.sheet import plain

RESULTS, F64, PERIODS, MOMENTS = Path(__file__).parent / "results", torch.float64, 10_000, 5_000
JUPITER, E = 4332.6, 0.3
STEPS = {  # in a period
    "kepler": {
        "leapfrog": 120,
        "blanes_moan_rkn_4": 20,
        "blanes_moan_rkn_6": 15,
        "kahan_li_8": 12,
        "rk4": 60,
    },
    "outer Solar System": {"leapfrog": 15, "blanes_moan_rkn_4": 8, "blanes_moan_rkn_6": 6, "kahan_li_8": 6},
}
Problem = tuple[ls.ODE, Tensor, float, Callable[[Tensor], Tensor]]  # with its start, period and energy


def kepler() -> Problem:
    def attraction(t: Tensor, x: Tensor) -> Tensor:
        return -x / x.square().sum(-1, keepdim=True) ** 1.5

    def rate(t: Tensor, x: Tensor) -> Tensor:
        q, v = x.chunk(2, 1)
        return torch.cat([v, attraction(t, q)], 1)

    def energy(x: Tensor) -> Tensor:
        q, v = x.chunk(2, -1)
        return v.square().sum(-1) / 2 - 1 / q.norm(dim=-1)

    x0 = torch.tensor([[1 - E, 0.0, 0.0, math.sqrt((1 + E) / (1 - E))]], dtype=F64)
    return ls.ODE(rate, acceleration=attraction), x0, 2 * math.pi, energy


def planets() -> Problem:
    system = ls.systems.outer_solar_system()
    return system, system.x0, JUPITER, system.invariants["energy"]


PROBLEMS = {"kepler": kepler, "outer Solar System": planets}


def run(name: str, method: str, per: int, folder: Path, periods: int = PERIODS) -> dict[str, Any]:
    problem, x0, period, energy = PROBLEMS[name]()
    steps = round(periods * (per + 0.382))  # which come to other places on every turn
    every = max(1, steps // MOMENTS)
    found = ls.solve(
        problem, x0, t=(0.0, periods * period), steps=steps, method=method, grad=False,
        reduce=ls.Record(lambda t, x: energy(x), every=every), checkpoint=folder, progress=True,
    )  # fmt: skip
    t, values = (part.flatten() for part in found.reduced)
    error, share = values / energy(x0) - 1, t / t[-1]
    line = torch.linalg.lstsq(torch.stack([torch.ones_like(share), share], 1), error[:, None]).solution
    tenth = len(error) // 10
    keep = torch.arange(0, len(error), max(1, len(error) // 1000))
    return {
        "problem": name, "method": method, "steps a period": steps / periods,
        "nfe a period": found.stats.nfe / periods,
        "first tenth": float(error[:tenth].abs().max()), "last tenth": float(error[-tenth:].abs().max()),
        "rise": float(line[1, 0]),
        "t": (share[keep] * periods).tolist(), "error": error[keep].tolist(),
    }  # fmt: skip


def plot(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(row["problem"] for row in rows))
    figure = Figure(figsize=(9.0, 3.8), dpi=110)
    for i, name in enumerate(names):
        axes = plain(figure.add_subplot(1, len(names), i + 1))
        for colour, row in zip(COLOURS, [r for r in rows if r["problem"] == name], strict=False):
            size = [max(abs(e), 1e-16) for e in row["error"]]
            axes.plot(row["t"], size, ".", ms=1.5, color=colour, label=row["method"])
        axes.set_yscale("log")
        axes.set_title(name, size=10, loc="left")
        axes.set_xlabel("periods", size=9)
        axes.legend(fontsize=7, frameon=False, markerscale=5, loc="lower right")
        axes.grid(True, color="#e8e8e8", lw=0.7)
    figure.axes[0].set_ylabel("|E/E0 - 1|", size=9)
    figure.tight_layout()
    figure.savefig(RESULTS / "drift.png")


def page(rows: list[dict[str, Any]]) -> str:
    heads = ["problem", "method", "steps a period", "nfe a period", "first tenth", "last tenth", "rise"]
    cells = [[f"{v:.3g}" if isinstance(v := row[h], float) else str(v) for h in heads] for row in rows]
    table = ["| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *cells)]
    return "\n".join(["# Energy over 10,000 periods", "", *(__doc__ or "").splitlines()[4:], "", *table, ""])


def kept() -> list[dict[str, Any]]:
    store = RESULTS / "drift.json"
    found: list[dict[str, Any]] = json.loads(store.read_text()) if store.exists() else []
    return found


def main() -> None:
    for name in sys.argv[1:] or STEPS:
        for method, per in STEPS[name].items():
            if (name, method) in {(row["problem"], row["method"]) for row in kept()}:
                continue
            row = run(name, method, per, Path(tempfile.gettempdir()) / f"drift-{name}-{method}")
            print({k: v for k, v in row.items() if k not in ("t", "error")}, flush=True)
            rows = sorted([*kept(), row], key=lambda r: [*STEPS].index(r["problem"]))
            (RESULTS / "drift.json").write_text(json.dumps(rows) + "\n")
            (RESULTS / "drift.md").write_text(page(rows))
            plot(rows)


if __name__ == "__main__":
    main()
