"""How long should the next step of three stars be: constants, a criterion and policies, on held-out starts.

    python benchmarks/step_control.py [PART ...]

The starts are those of P001, `nbody.three_stars_at`: three stars of one solar mass, 30 years (300 decisions
of 0.1) by Hermite's method. Error: |E/E_0 - 1| at the end. Cost: evaluations of the force. Parts:

- constant, aarseth: 30 constant parameters of the collision time from 1e-4 to 1e-1, and Aarseth's criterion
  at 18 values of eta, on 100 held-out starts (seed 1000) and on 100 training starts (seed 7), to choose by.
  By `rollouts.c`, which takes the steps of `rollout`. A system that its error has thrown into a close pair
  stops after some fifty times the usual number of steps.
- learned: the policy that the library ships, by `rollout` at 10 paces, on the held-out starts.
- networks: what `step_decisions.py` has trained with stable-baselines3: 300 decisions, an end at an error of
  0.1; and the ten parameters of the paper, each taken for all decisions.
- radau: `gauss_radau_15`.
- choice: at a number of evaluations, the constant with the least 90th percentile on TRAINING starts among
  those that cost no more there. Its held-out error, beside those of the other rules at as many held-out
  evaluations as it took, read between two of their values (log by log).

What is done is kept in results/step_control.json row by row: an interrupted run goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import longstride as ls
from longstride.nbody import YEAR, rollout, rollouts, three_stars_at, three_stars_task
from longstride.nbody.decisions import PARAMETERS, TENTH
from longstride.nbody.rules import aarseth, collision, learned
from rollouts import F64, STARS, rolled, share

RESULTS = Path(__file__).parent / "results"
PATH, END = RESULTS / "step_control.json", 30 * YEAR
SEEDS = {"held-out": 1000, "training": 7}  # of 100 starts each
VALUES = {
    "constant": np.geomspace(1e-4, 1e-1, 30).tolist(),
    "aarseth": np.geomspace(1e-6, 3e-2, 18).tolist(),
    "learned": np.geomspace(3e-3, 5e-2, 10).tolist(),
}
BUDGETS = (2500, 5000, 10_000, 20_000, 50_000, 100_000)
ERRORS, COSTS = ("median", "p90", "worst"), ("evaluations", "ev median", "ev p90", "ev worst")
Rows = list[dict[str, Any]]


def starts(kind: str) -> Tensor:
    return STARS.start(*three_stars_at(100, SEEDS[kind]))


def row(x0: Tensor, x: Tensor, cost: Tensor) -> dict[str, float]:
    at = torch.tensor([0.5, 0.9, 1.0], dtype=F64)
    error = (STARS.energy(x) / STARS.energy(x0) - 1).abs().nan_to_num(10.0)
    values = [*error.quantile(at).tolist(), float(cost.double().mean()), *cost.double().quantile(at).tolist()]
    return dict(zip((*ERRORS, *COSTS), values, strict=True))


def by_c(rule: Any, value: float, x0: Tensor) -> tuple[Tensor, Tensor]:
    most = 3000 / value if rule is collision else 10_000 / value**0.5
    found = rolled(STARS, x0, END, rule, torch.tensor([value], dtype=F64), int(most))
    return found.x, found.steps


def by_policy(values: list[float], x0: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All paces at once: whose steps are many then do not wait for each other."""
    rollouts.LANES = 128
    policy, n = ls.control.load("three_stars"), len(x0)
    numbers = torch.cat([policy.at(v).column() for v in values], 1).repeat_interleave(n, 1)
    many = x0.repeat(len(values), 1, 1, 1)
    found = rollout(STARS, many, END, learned, numbers, 3_000_000, compile=True)
    return zip(found.x.split(n), found.steps.split(n), strict=True)


def by_network(name: str, x0: Tensor) -> tuple[Tensor, Tensor]:
    network = ls.control.load(RESULTS / f"three_stars_{name}")
    choice = {"values": ()} if network.head != "largest" else {}
    between = {"between": network.actions} if network.head != "largest" else {}
    task = three_stars_task(run=share(TENTH), decisions=300, **(choice | between))
    env = task.play(network, x0)
    return env.seen.x, env.spent


def by_one(k: int, x0: Tensor) -> tuple[Tensor, Tensor]:
    env = three_stars_task(run=share(TENTH), decisions=300).play(lambda seen: torch.full((len(seen),), k), x0)
    return env.seen.x, env.spent


def done(found: dict[str, Any], rule: str, value: Any, kind: str, run: Callable[[Tensor], Any]) -> bool:
    """A row, unless it is there."""
    key, rows = {"rule": rule, "value": value, "starts": kind}, found.setdefault("rows", [])
    if any(key.items() <= r.items() for r in rows):
        return False
    x0, began = starts(kind), time.perf_counter()
    rows.append({**key, **row(x0, *run(x0))})
    print(f"{rule} {value} {kind}: {time.perf_counter() - began:.0f} s", flush=True)
    return True


def constant(found: dict[str, Any]) -> Iterator[bool]:
    for value in reversed(VALUES["constant"]):
        for kind in SEEDS:
            yield done(found, "constant", value, kind, lambda x0, v=value: by_c(collision, v, x0))


def criterion(found: dict[str, Any]) -> Iterator[bool]:
    for value in reversed(VALUES["aarseth"]):
        yield done(found, "aarseth", value, "held-out", lambda x0, v=value: by_c(aarseth, v, x0))


def policy(found: dict[str, Any]) -> Iterator[bool]:
    known = {r["value"] for r in found.setdefault("rows", []) if r["rule"] == "learned"}
    values = [v for v in VALUES["learned"] if v not in known]
    runs = by_policy(values, starts("held-out")) if values else ()
    for value, run in zip(values, runs, strict=True):
        yield done(found, "learned", value, "held-out", lambda x0, run=run: run)


def networks(found: dict[str, Any]) -> Iterator[bool]:
    for k in reversed(range(len(PARAMETERS))):
        yield done(found, "one action", PARAMETERS[k], "held-out", lambda x0, k=k: by_one(k, x0))
    found["rows"] = [r for r in found["rows"] if r["rule"] != "network"]  # they may have been trained again
    for path in sorted(RESULTS.glob("three_stars_*.safetensors")):
        name = path.stem.removeprefix("three_stars_")
        yield done(found, "network", name, "held-out", lambda x0, name=name: by_network(name, x0))


def radau(found: dict[str, Any]) -> Iterator[bool]:
    def run(x0: Tensor) -> tuple[Tensor, Any]:
        sol = ls.solve(STARS.problem(), x0, t=(0.0, END), method="gauss_radau_15", rtol=1e-9, grad=False)
        return sol.x_end, sol.stats.nfe_each

    yield done(found, "gauss_radau_15", 1e-9, "held-out", run)


def of(rows: Rows, rule: str, kind: str = "held-out") -> Rows:
    return sorted(
        (r for r in rows if (r["rule"], r["starts"]) == (rule, kind)), key=lambda r: r["evaluations"]
    )


def at_cost(rows: Rows, key: str, cost: float) -> float | None:
    """Interpolated between two values of a rule, log by log; None outside them."""
    if not rows or not rows[0]["evaluations"] <= cost <= rows[-1]["evaluations"]:
        return None
    x, y = np.log10([[r["evaluations"], r[key]] for r in rows]).T
    return float(10 ** np.interp(np.log10(cost), x, y))


def choice(found: dict[str, Any]) -> Iterator[bool]:
    rows, known, found["choice"] = found["rows"], of(found["rows"], "constant", "training"), []
    for budget in BUDGETS:
        best = min((r for r in known if r["evaluations"] <= budget), key=lambda r: r["p90"], default=None)
        if best is None:
            continue
        held = next(r for r in of(rows, "constant") if r["value"] == best["value"])
        for key in ERRORS:
            cost = held["evaluations"]
            others = {rule: at_cost(of(rows, rule), key, cost) for rule in ("aarseth", "learned")}
            ratio = others["learned"] and held[key] / others["learned"]
            found["choice"].append(
                {"budget": budget, "constant": best["value"], "evaluations": cost, "of": key,
                 "best constant": held[key], **others, "constant/learned": ratio}
            )  # fmt: skip
    yield True


def page(found: dict[str, Any]) -> str:
    lines = ["# Step control for three stars", "", *(__doc__ or "").split("\n")[4:]]
    groups = {f"{rule}, {kind}": of(found["rows"], rule, kind) for rule, kind in dict.fromkeys(
        (r["rule"], r["starts"]) for r in found["rows"])}  # fmt: skip
    for name, rows in {"choice": found.get("choice", []), **groups}.items():
        if not rows:
            continue
        lines += ["", f"## {name}", "", "| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
        for each in rows:
            said = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in each.values())
            lines.append("| " + " | ".join(said) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: Rows, path: Path) -> None:
    """Error against cost of each rule: median, and 90th percentile beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    marks = {
        "constant": "o-",
        "aarseth": "^-",
        "learned": "s-",
        "one action": "x",
        "network": "*",
        "gauss_radau_15": "D",
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, key, title in zip(axes, ("median", "p90"), ("median", "90th percentile"), strict=True):
        for rule, mark in marks.items():
            known = [(r["evaluations"], r[key]) for r in of(rows, rule)]
            if known:
                axis.loglog(*zip(*known, strict=True), mark, ms=9 if mark == "*" else 4, lw=1, label=rule)
        axis.set(title=title, xlabel="force evaluations, mean of a system", ylim=(1e-14, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("|E/E_0 - 1| after 30 years")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=100)


PARTS = {"constant": constant, "aarseth": criterion, "learned": policy, "networks": networks, "radau": radau,
         "choice": choice}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    found = json.loads(PATH.read_text()) if PATH.exists() else {}
    for part in sys.argv[1:] or PARTS:
        for new in PARTS[part](found):
            if new:
                PATH.write_text(json.dumps(found, indent=1) + "\n")
    PATH.with_suffix(".md").write_text(page(found))
    picture(found["rows"], PATH.with_suffix(".png"))


if __name__ == "__main__":
    main()
