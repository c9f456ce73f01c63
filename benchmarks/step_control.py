"""How long should the next step of three stars be: rules, and a policy that was learned, on held-out starts.

    python benchmarks/step_control.py [PART ...]

The starts are those of P001, `nbody.three_stars_at`: three stars of one solar mass, 30 years (300 decisions
of 0.1). Error: |E/E_0 - 1| at the end. Cost: evaluations of the force, of a system in the mean. Parts:

- train: the nine numbers of a policy, by CMA-ES on starts of seed 7, 128 others in each generation, at 5,000
  evaluations: the mean of log10 of six quantiles of the error. Writes the policy that the library ships.
- table: Hermite's method at steps by 30 constant parameters of the collision time, by Aarseth's criterion at
  14 values of eta, and by the policy at 10 paces; Gauss-Radau 15. 100 starts of seed 1000, which training
  never saw.

Results of each part are kept as soon as it is done, in results/step_control.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import longstride as ls
from longstride.nbody import YEAR, Gravity, Policy, Rollout, rollout, three_stars_at
from longstride.nbody.rules import Rule, aarseth, collision, learned

RESULTS, F64 = Path(__file__).parent / "results", torch.float64
SHIPPED = Path(ls.nbody.__file__).parent / "policies" / "three_stars"
END, MOST = 30 * YEAR, 300_000
QUANTILES = torch.tensor([0.5, 0.7, 0.8, 0.85, 0.9, 0.95], dtype=F64)
STARS = Gravity(torch.ones(3, dtype=F64))
RULES: dict[str, tuple[Rule, list[float]]] = {
    "constant": (collision, np.geomspace(2e-3, 1e-1, 30).tolist()),
    "aarseth": (aarseth, np.geomspace(1e-4, 3e-2, 14).tolist()),
    "learned": (learned, np.geomspace(3e-3, 5e-2, 10).tolist()),
}


def starts(n: int, seed: int) -> Tensor:
    return STARS.start(*three_stars_at(n, seed))


def runs(x0: Tensor, rule: Rule, numbers: Tensor, most: int = MOST) -> Rollout:
    """Of every start with every column of numbers [P, C]; results [C, B]."""
    columns, batch = numbers.shape[1], len(x0)
    many = numbers.repeat_interleave(batch, 1)
    found = rollout(STARS, x0.repeat(columns, 1, 1, 1), END, rule, many, most, compile=True)
    return Rollout(
        found.x, found.steps.view(columns, batch), found.error.view(columns, batch).nan_to_num(10.0)
    )


def scores(found: Rollout, target: Tensor) -> Tensor:
    """Of every column: the mean log10 of quantiles of the error, corrected for a cost that misses target."""
    errors = found.error.clamp(1e-15, 10.0).quantile(QUANTILES, dim=1).log10().mean(0)
    return errors + 4.6 * (found.steps.double().mean(1) / target).log10()


def train(generations: int = 19, people: int = 10, batch: int = 128, cost: float = 5000.0) -> dict[str, Any]:
    import cma

    began, every = time.perf_counter(), starts(2048, 7)
    # By hand: a weight on the depth alone, and a step that looks ahead; 0 elsewhere.
    begin, target = np.array([0, 0, 0.5, 0, 0.35, 0, 0, 0, 0]), torch.tensor(cost, dtype=F64)
    search = cma.CMAEvolutionStrategy(begin, 0.1, {"popsize": people, "seed": 1, "verbose": -9})
    pace, course = torch.tensor(0.016, dtype=F64), []
    for generation in range(generations):
        asked = search.ask()
        x0 = every[torch.arange(generation * batch, (generation + 1) * batch) % len(every)]
        nets = torch.from_numpy(np.stack([*asked, search.mean])).T
        # The pace at which each costs as much: by a run of long steps, whose number is in proportion.
        coarse = runs(x0, learned, torch.cat([(3 * pace).expand(1, people + 1), nets]), 20_000)
        paces = 3 * pace * coarse.steps.double().mean(1) / target
        found = scores(runs(x0, learned, torch.cat([paces[None], nets]), 40_000), target)
        search.tell(asked, found[:-1].tolist())
        course.append(float(found[-1]))
        pace = paces[-1]
        print(
            generation, f"{course[-1]:.3f}", f"{search.sigma:.3f}", search.mean.round(3).tolist(), flush=True
        )
        about = (
            f"benchmarks/step_control.py train: Hermite's method, three equal stars, {generation + 1} "
            f"generations of {people} by CMA-ES at {cost:.0f} evaluations"
        )
        SHIPPED.parent.mkdir(exist_ok=True)
        Policy(torch.from_numpy(search.mean.copy()), round(float(pace), 5), about).save(SHIPPED)
    return {"seconds": time.perf_counter() - began, "generations": generations, "course": course}


def told(rule: str) -> Tensor:
    """numbers [P, C] of all values of a rule."""
    values = torch.tensor(RULES[rule][1], dtype=F64)[None]
    if rule != "learned":
        return values
    return torch.cat([values, ls.control.load(SHIPPED).numbers[:, None].expand(-1, values.shape[1])])


def row(name: str, value: float, cost: Tensor, error: Tensor) -> dict[str, Any]:
    error = error.nan_to_num(10.0)
    median, high = error.quantile(torch.tensor([0.5, 0.9], dtype=F64)).tolist()
    return {
        "rule": name, "value": value, "evaluations": float(cost.double().mean()), "median": median,
        "p90": high, "worst": float(error.max()),
    }  # fmt: skip


def front(n: int, seed: int) -> list[dict[str, Any]]:
    """A row of each value of each rule."""
    x0, rows = starts(n, seed), []
    for name, (rule, values) in RULES.items():
        found = runs(x0, rule, told(name))
        rows += [row(name, *each) for each in zip(values, found.steps, found.error, strict=True)]
        print(rows[-1], flush=True)
    return rows


def at_cost(rows: list[dict[str, Any]], name: str, key: str, cost: float) -> float | None:
    """Of a rule, interpolated between two of its values, log by log; None outside them."""
    known = sorted((r["evaluations"], r[key]) for r in rows if r["rule"] == name)
    x, y = np.log10(np.array(known)).T
    at = np.log10(cost)
    return float(10 ** np.interp(at, x, y)) if x[0] <= at <= x[-1] else None


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"evaluations": cost, "of": key, **{name: at_cost(rows, name, key, cost) for name in RULES}}
        for key in ("median", "p90", "worst")
        for cost in (2500, 5000, 10_000, 20_000)
    ]


def radau() -> dict[str, Any]:
    x0 = starts(100, 1000)
    found = ls.solve(STARS.problem(), x0, t=(0.0, END), method="gauss_radau_15", rtol=1e-9, grad=False)
    assert found.stats.nfe_each is not None
    return row(
        "gauss_radau_15", 1e-9, found.stats.nfe_each, (STARS.energy(found.x_end) / STARS.energy(x0) - 1).abs()
    )


def table() -> dict[str, Any]:
    rows = front(100, 1000)
    return {"rows": [*rows, radau()], "at_cost": compared(rows)}


def page(found: dict[str, Any]) -> str:
    lines = ["# Step control for three stars", "", *(__doc__ or "").split("\n")[4:]]
    for part, value in found.items():
        tables = value if isinstance(value, dict) else {"": value}
        for name, rows in tables.items():
            lines += ["", f"## {part} {name}".rstrip(), ""]
            if not isinstance(rows, list) or not isinstance(rows[0], dict):
                lines.append(str(rows if not isinstance(rows, list) else [round(v, 3) for v in rows]))
                continue
            lines += ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
            for each in rows:
                said = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in each.values())
                lines.append("| " + " | ".join(said) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against cost of each rule: median, and 90th percentile above it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, key, title in zip(axes, ("median", "p90"), ("median", "90th percentile"), strict=True):
        for name, mark in (*zip(RULES, "o^s", strict=True), ("gauss_radau_15", "D")):
            known = [(r["evaluations"], r[key]) for r in rows if r["rule"] == name]
            axis.loglog(*zip(*known, strict=True), marker=mark, ms=4, lw=1, label=name)
        axis.set(title=title, xlabel="force evaluations, mean of a system", xlim=(600, 6e4), ylim=(1e-14, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("|E/E_0 - 1| after 30 years")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=100)


def main() -> None:
    torch.set_num_threads(1)
    path = RESULTS / "step_control.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for part in sys.argv[1:] or ["train", "table"]:
        found[part] = globals()[part]()
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(found))
        if part == "table":
            picture(found[part]["rows"], path.with_suffix(".png"))


if __name__ == "__main__":
    main()
