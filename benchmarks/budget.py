"""What a hard budget of evaluations reaches, and what it says of its error.

    python benchmarks/budget.py

Tolerances of 1e-10 with on_budget="reach". "best" is the error of the best tolerance in hindsight: runs at
10^(-1/2), 10^(-1), ... 10^(-11) with the same budget, of those that came to the end. The exact solution is
that of vern9 at 1e-12. Errors are root mean squares over the state, of one sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
F64 = torch.float64
BUDGETS = (120, 240, 480, 960)


def circle(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[:, 1], -x[:, 0]], 1)


def relaxation(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[:, 1], 5 * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1)


def transient(t: Tensor, x: Tensor) -> Tensor:
    return -200 * (x - torch.cos(t)[:, None]) - torch.sin(t)[:, None]


PROBLEMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], list[float], float]] = {
    "circle, t = 10": (circle, [1.0, 0.0], 10.0),
    "x' = -50 x^3, t = 10": (lambda t, x: -50 * x**3, [1.0], 10.0),
    "Van der Pol, mu = 5, t = 10": (relaxation, [1.0, 0.0], 10.0),
    "x' = -200 (x - cos t) - sin t, t = 1": (transient, [3.0], 1.0),
}


def measure(name: str, method: str, budget: int) -> dict[str, float | str | int]:
    f, start, end = PROBLEMS[name]
    problem, x0 = ls.ODE(f), torch.tensor([start], dtype=F64)
    exact = ls.solve(problem, x0, t=(0, end), method="vern9", rtol=1e-12, atol=1e-13).x_end

    def run(tol: float, **options: str) -> ls.Solution:
        return ls.solve(problem, x0, t=(0, end), method=method, rtol=tol, atol=tol, nfe=budget, **options)

    def error(sol: ls.Solution) -> float:
        return float((sol.x[-1] - exact).square().mean().sqrt())

    found = run(1e-10, on_budget="reach")
    best = min((e for k in range(1, 23) if not math.isnan(e := error(run(10 ** (-k / 2))))), default=math.nan)
    return {"status": found.status[0], "nfe": found.stats.nfe, "estimate": float(found.error[0]),
            "error": error(found), "best": best}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    rows = {
        f"{name} | {method} | {budget}": measure(name, method, budget)
        for name in PROBLEMS
        for method in ("bosh3", "tsit5", "dopri8")
        for budget in BUDGETS
    }
    (RESULTS / "budget.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = [
        f"| {key} | {row['nfe']} | {row['status']} | {row['estimate']:.1e} | {row['error']:.1e} "
        f"| {row['best']:.1e} |"
        for key, row in rows.items()
    ]
    head = "| problem | method | nfe= | spent | status | estimate | error | best |"
    table = "\n".join([head, "|---" * 8 + "|", *lines])
    title = "# What a budget reaches\n\n`python benchmarks/budget.py`, see there what is measured."
    (RESULTS / "budget.md").write_text(f"{title}\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
