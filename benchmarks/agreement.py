"""Do our samplers compute what the peers' compute? Each pair runs on the same float64 times.

What is compared is the data prediction at every evaluation, which is all that a run can see. Orders are
measured end to end, with the published start, over a fixed range that ends at sigma > 0, on the state that
reaches the last evaluation.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

import longstride as ls
import tasks
from agreement_pairs import Pair, Sampler, pairs
from endpoint import RESULTS, SEED, command, versions
from peers import Task

RANGE = {"edm": (10.0, 0.1), "flow": (0.9, 0.1)}
STEPS = (80, 160, 320)
FLOAT64, FLOAT32 = 1e-9, 1e-5  # differences that are round-off, with tables in either
WHY = {
    "k-diffusion dpmpp_3m_sde (eta 0)": "its second step, with two evaluations known, uses the exact phi_2"
    " where DPM-Solver++, diffusers and we use phi_1/2; from the third step on the rows are the same. Both"
    " halve the second difference, so both are of order 2 and not 3.",
    "k-diffusion dpmpp_2m": "with sigma = t, as flows are run there, it extrapolates in -log t and not in"
    " log((1 - t)/t): another second-order method on a flow, the same one on EDM.",
    "azula REAB 2": "its last line scales by sqrt(alpha_s^2 + sigma_t^2) where sigma_s is meant, which costs"
    " it its order; the next row is the same with sigma_s.",
    "azula REAB 2, repaired": "REAB with sigma_s in its last line. What remains is its trapezoid rule of 256"
    " intervals for the weights, where ours are exact.",
    "diffusers DEIS 3, float32 tables": "it forms the weights in float32 as differences of much larger"
    " antiderivatives; with the table in float64, the row above, the two agree to round-off.",
}


class Traced:
    """A data prediction that keeps time, state and output of every evaluation."""

    def __init__(self, task: Task) -> None:
        self.inner = task
        self.states: list[tuple[float, Tensor, Tensor]] = []
        self.task = replace(task, data=self)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        out = self.inner.data(x, t)
        self.states.append((t, x, out))
        return out


def trace(sampler: Sampler, task: Task, times: Tensor, noise: Tensor) -> list[tuple[float, Tensor, Tensor]]:
    traced = Traced(task)
    with torch.no_grad():
        sampler(traced.task, times, noise)
    return traced.states


def compared_times(kind: str) -> Tensor:
    """Ten times on which the evaluations are compared."""
    if kind == "vp":
        return torch.arange(999, -1, -100, dtype=torch.float64)
    if kind == "flow":
        return 1 - torch.linspace(0, 0.95, 10, dtype=torch.float64)
    return torch.tensor(ls.grid.times(ls.process.EDM(), 10, "karras"), dtype=torch.float64)


def order_times(kind: str, n: int) -> Tensor:
    """n times over the range, uniform in t^(1/7): unequal steps in every clock."""
    high, low = RANGE[kind]
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    return (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7


def truth(task: Task, noise: Tensor) -> Tensor:
    high, low = RANGE[task.kind]
    return tasks.rk4(
        lambda v, x: x - task.data(x, math.exp(v)), high * noise, math.log(high), math.log(low), 1000
    )


def order_of(sampler: Sampler, task: Task, noise: Tensor, exact: Tensor) -> float:
    """Slope of log error against log steps over the two finest pairs of grids above round-off."""
    errors = []
    for n in STEPS:
        _, x, _ = trace(sampler, task, order_times(task.kind, n + 1), noise)[-1]
        errors.append(float((x - exact).square().mean().sqrt()))
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors) if fine > 1e-11 and coarse > 0]
    return sum(slopes[-2:]) / max(len(slopes[-2:]), 1)


def compare(pair: Pair, task: Task, noise: Tensor) -> tuple[float, int | None, int, int]:
    """(largest difference of a data prediction, first evaluation that differs, evaluations of both)."""
    times = compared_times(pair.kind)
    mine, theirs = (trace(run, task, times, noise) for run in (pair.ours, pair.peer))
    gaps = [float((p[2] - q[2]).abs().max()) for p, q in zip(mine, theirs, strict=False)]
    limit = FLOAT32 if "float32" in pair.peer_name else FLOAT64
    first = next((i + 1 for i, gap in enumerate(gaps) if not gap < limit), None)
    return max(gaps), first, len(mine), len(theirs)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    problems = {kind: tasks.task(f"mixture-{kind}") for kind in ("edm", "vp", "flow")}
    noise = tasks.noise(problems["edm"], 8, SEED)
    exact = {kind: truth(problems[kind], noise) for kind in RANGE}
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# Agreement with the peers",
        "",
        f"Made by `{command()}`, seed {SEED}, 8 noises, with {packages}.",
    ]
    spans = ", ".join(f"{high:g} to {low:g} ({kind})" for kind, (high, low) in RANGE.items())
    lines += [
        "",
        "On the mixture. The difference is the largest of any element of the data prediction at any",
        "evaluation on 10 times (EDM: the grid `karras`; flow: uniform from 1; VP: 999, 899 ... 99). Orders",
        f"are end to end with the published start, from t = {spans}, on {STEPS[0]} to {STEPS[-1]} steps of",
        "unequal length; predictor-correctors are judged by the predicted state, the last one evaluated.",
        "diffusers' casts to float32 are undone, but for the rows that say float32 tables, which run it as",
        "it is. Its `lower_order_final` counts the step to clean data as one of its own and is off on both",
        "sides. A multistep method starts with a step of order 1, whose error, h^2 (h^3 where it is",
        "corrected), limits the order end to end; tests/ measures the orders from exact starting values.",
        "",
        "| process | longstride | peer | largest difference | first at evaluation | our order | theirs |",
        "|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    known: dict[tuple[str, str], float] = {}
    for pair in pairs():
        task = problems[pair.kind]
        gap, first, n, m = compare(pair, task, noise)
        key, slopes = (pair.kind, pair.name), ["", ""]
        if pair.kind in RANGE:
            if key not in known:
                known[key] = order_of(pair.ours, task, noise, exact[pair.kind])
            theirs = known[key] if gap < FLOAT64 else order_of(pair.peer, task, noise, exact[pair.kind])
            slopes = [f"{known[key]:.2f}", f"{theirs:.2f}"]
        where = f"{first or '-'}" + ("" if n == m else f" (evaluations: {n} and {m})")
        lines.append("| " + " | ".join((*key, pair.peer_name, f"{gap:.1e}", where, *slopes)) + " |")
        print(lines[-1], flush=True)
        if first:
            reason = WHY.get(pair.peer_name, "not explained yet")
            notes.append(f"- {pair.name} and {pair.peer_name}: {reason}")
    RESULTS.mkdir(exist_ok=True)
    text = [*lines, "", "## Where they differ", "", *notes]
    (RESULTS / "agreement.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
