"""Plans of 100 steps on `fashion` swept in parallel: rounds, evaluations, seconds, and what they differ by.

    python benchmarks/parallel.py

Goes on where it stopped; results/parallel.json keeps what is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import longstride as ls
from longstride.files import write_text
from longstride.metrics import endpoint_error

RESULTS = Path(__file__).parent / "results"
METHODS = ("ddim", "dpmpp_2m", "ddpm")
NFE, N, SEED = 100, 4, 1
SWEEPS = (
    *(ls.Parallel(20, tolerance) for tolerance in (1e-3, 1e-4, 1e-5)),
    *(ls.Parallel(window) for window in (10, 40)),
    ls.Parallel(100, adaptive=True),
    *(ls.Parallel(20, anderson=rounds) for rounds in (0, 1)),
)
HEAD = (
    "window", "tolerance", "Anderson", "rounds", "evaluations", "seconds", "to sequential", "to reference",
)  # fmt: skip


def sampled(plan: ls.Plan, n: int, how: ls.Parallel | None = None) -> tuple[Tensor, dict]:
    """n samples of the classes 0, 1, ..., and what they cost."""
    stats = ls.Stats()
    cond = {"y": torch.arange(n) % 10}
    x = ls.sample(ls.load("fashion"), n, plan=plan, cond=cond, seed=SEED, parallel=how, stats=stats)
    return x, {"rounds": stats.rounds, "evaluations": stats.nfe, "seconds": round(stats.seconds, 1)}


@cache
def plan_of(method: str, nfe: int = NFE) -> ls.Plan:
    return ls.plan_sampling(ls.load("fashion").process, method, nfe)


@cache
def sequential(method: str, n: int) -> tuple[Tensor, dict]:
    return sampled(plan_of(method), n)


@cache
def reference(method: str, n: int) -> Tensor:
    """The ODE's end point; for an SDE, its own on the same Brownian path in 8 times as many steps."""
    if plan_of(method).stochastic:
        return sampled(plan_of(method, 8 * NFE), n)[0]
    model = ls.load("fashion")
    return ls.reference(model, ls.prior(model, n, SEED), cond={"y": torch.arange(n) % 10})


def measure(method: str, n: int, how: ls.Parallel | None) -> dict:
    x, cost = sequential(method, n) if how is None else sampled(plan_of(method), n, how)
    apart = {"to sequential": endpoint_error(x, sequential(method, n)[0])}
    return cost | apart | {"to reference": endpoint_error(x, reference(method, n))}


def two(method: str) -> dict:
    """The default sweep on two gloo processes, and what the first of them found."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, __file__, method], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_of_two(method: str) -> None:
    torch.distributed.init_process_group("gloo")
    found = measure(method, N, ls.Parallel(20, group=torch.distributed.group.WORLD))
    if torch.distributed.get_rank() == 0:
        print(json.dumps(found))
    torch.distributed.destroy_process_group()


def written(how: ls.Parallel | None) -> list[str]:
    if how is None:
        return ["sequential", "", ""]
    return [
        f"{how.window} at most" if how.adaptive else str(how.window),
        f"{how.tolerance:g}",
        str(how.anderson),
    ]


def table(rows: list[tuple[list[str], dict]]) -> list[str]:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for first, found in rows:
        ends = [f"{found[key]:.1e}" for key in HEAD[-2:]]
        lines.append("| " + " | ".join([*first, *(str(found[key]) for key in HEAD[3:6]), *ends]) + " |")
    return lines


def main() -> None:
    file = RESULTS / "parallel.json"
    known = json.loads(file.read_text()) if file.exists() else {}

    def found(key: str, make, *arguments) -> dict:
        if key not in known:
            known[key] = make(*arguments)
            write_text(file, json.dumps(known, indent=1) + "\n")
            print(key, known[key], flush=True)
        return known[key]

    lines = [
        "# Plans of 100 steps swept in parallel",
        "",
        f"Made by `python benchmarks/parallel.py`: `fashion`, {N} samples, seed {SEED}. A round is one batch "
        "of evaluations; the sequential run has 100. Evaluations are of each sample. The last two columns "
        "are root mean squares over elements and samples at the end: to the sequential run, and to the "
        "converged reference (for `ddpm` the same Brownian path in 800 steps), where the row `sequential` is "
        "the method's own error.",
        "",
        "Seconds are of one thread on a shared machine whose two cores were busy with other work, so they "
        "scatter by a factor of two; a CPU, on which a batch costs what its samples cost, gains nothing from "
        "fewer rounds. The two processes shared one core.",
    ]
    for method in METHODS:
        rows = []
        for n, sweeps in ((N, (None, *SWEEPS)), (1, (None, ls.Parallel(20)))):
            for how in sweeps:
                key = f"{method} {n} {how and {k: v for k, v in asdict(how).items() if k != 'group'}}"
                name = written(how)
                name[0] += "" if n == N else ", one sample"
                rows.append((name, found(key, measure, method, n, how)))
        name = written(ls.Parallel(20))
        rows.append(([f"{name[0]}, two processes", *name[1:]], found(f"{method} two", two, method)))
        lines += ["", f"## `{method}`", "", *table(rows)]
        write_text(RESULTS / "parallel.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main() if len(sys.argv) == 1 else one_of_two(sys.argv[1])
