"""Long runs: what a step costs around its arithmetic, what is remembered, what precision and compiling give.

    python benchmarks/rollout.py

One core. Sides that are compared take turns, three times or more, and the least time of each counts; memory
is the growth of the process's peak while the row runs, each row in a process of its own. Rows that
`results/rollout.json` has are not measured again: remove it to begin anew.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
F64 = torch.float64
Rows = dict[str, dict[str, Any]]


def kuramoto() -> ls.PDE:
    return ls.systems.kuramoto_sivashinsky(length=64 * math.pi, n=512)


def allen_cahn(n: int) -> ls.PDE:
    return ls.systems.get("allen_cahn", n=n, dim=2)


def least(sides: dict[str, Callable[[], Any]], rounds: int = 3) -> dict[str, float]:
    """Seconds of each side, in turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


@torch.no_grad()
def around() -> Rows:
    """What looks, diagnostics, checkpoints and saving add to a step."""
    pde, n = kuramoto(), 1000
    options: dict[str, Any] = {"t": (0, 50), "method": "etdrk4", "dt": 0.05}
    energy = ls.Record(lambda t, u: u.square().mean(-1), every=20)
    with tempfile.TemporaryDirectory() as folder:
        books = iter(range(1000))

        def run(**more: Any) -> Callable[[], Any]:
            return lambda: ls.solve(pde, pde.x0, **options, **more)

        def written() -> None:
            ls.solve(pde, pde.x0, **options, checkpoint=f"{folder}/{next(books)}", checkpoint_every=1.0)

        found = least({
            "the end alone": run(), "save_every=20": run(save_every=20),
            "a Record every 20": run(reduce=energy),
            "save_every=1": run(save_every=1), "checkpoint every second": written,
            "callback": run(callback=lambda n, t, x: None),
        })  # fmt: skip
    base = found["the end alone"]
    return {f"KS 512, {name}": {"us per step": round(1e6 * s / n), "of the first": round(s / base, 2)}
            for name, s in found.items()}  # fmt: skip


@torch.no_grad()
def precision() -> Rows:
    """Errors by rounding alone: against float64 with the same steps."""
    rows: Rows = {}
    for name, pde, end, dts in (
        ("KS 512, t = 20", kuramoto(), 20.0, (0.05, 0.0125)),
        ("Allen-Cahn 128^2, t = 2", allen_cahn(128), 2.0, (0.05, 0.0125)),
    ):
        for dt in dts:
            ends: dict[str, Tensor] = {}

            def run(side: str, problem: ls.ODE, x: Tensor) -> None:
                ends[side] = ls.solve(problem, x, t=(0, end), method="etdrk4", dt=dt).x_end  # noqa: B023

            x, sides = pde.x0, {}
            for side, problem, u in (
                ("float64", pde, x.double()), ("mixed", ls.mixed(pde), x.double()),
                ("float32", pde, x.float()),
            ):  # fmt: skip
                sides[side] = lambda s=side, p=problem, u=u: run(s, p, u)
            found = least(sides)
            exact = ends["float64"]
            for side, seconds in found.items():
                error = float((ends[side].double() - exact).norm() / exact.norm())
                rows[f"{name}, dt = {dt}, {side}"] = {
                    "us per step": round(1e6 * seconds / round(end / dt)),
                    "relative difference": f"{error:.1e}",
                }  # fmt: skip
    return rows


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def gray_scott(t: Tensor, x: Tensor) -> Tensor:
    """Differences in space: nothing but real arithmetic."""
    u, v = x.unbind(1)
    around = sum(x.roll(s, axis) for s in (1, -1) for axis in (-1, -2)) - 4 * x
    reaction = u * v * v
    return torch.stack([0.16 * around[:, 0] - reaction + 0.035 * (1 - u),
                        0.08 * around[:, 1] + reaction - 0.1 * v], 1)  # fmt: skip


@torch.no_grad()
def compiling() -> Rows:
    """A step by step loop, bound to buffers, and compiled."""
    rows: Rows = {}
    pde = kuramoto()
    for name, problem, x, method, dt, n in (
        ("Lorenz x 1000, rk4", ls.ODE(lorenz), torch.randn(1000, 3, dtype=F64), "rk4", 0.01, 200),
        (
            "Gray-Scott by differences 128^2, rk4",
            ls.ODE(gray_scott),
            torch.rand(1, 2, 128, 128),
            "rk4",
            0.5,
            50,
        ),
        ("KS 512, etdrk4", pde, pde.x0, "etdrk4", 0.05, 200),
    ):
        plain, compiled = (ls.stepper(problem, method, dt=dt, compile=c) for c in (False, True))
        began = time.perf_counter()
        compiled(x)
        seconds = time.perf_counter() - began

        def unbound(u: Tensor = x, step: Any = plain, n: int = n) -> None:
            for _ in range(n):
                u = step(u)

        sides = {"eager": lambda s=plain, u=x, n=n: s.repeat(u, n), "step(u) in a loop": unbound,
                 "compiled": lambda s=compiled, u=x, n=n: s.repeat(u, n)}  # fmt: skip
        found = least(sides, 5)
        rows |= {
            f"{name}, {side}": {"us per step": round(1e6 * s / n), "of eager": round(s / found["eager"], 2)}
            for side, s in found.items()
        }
        rows[f"{name}, compiled"]["seconds to compile"] = round(seconds)
    return rows


def grown(work: Callable[[], Any]) -> tuple[float, float]:
    """MiB by which the peak of memory grows, and seconds."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, seconds


def memory(steps: int, way: bool | str | None) -> dict[str, Any]:
    """Of a rollout of 16 trajectories of KS 512, with its gradient if there is a way."""
    pde = kuramoto()
    step, u = ls.stepper(pde, dt=0.05), pde.x0.repeat(16, 1).requires_grad_()

    def work() -> None:
        if way is None:
            with torch.no_grad():
                step.repeat(u, steps)
        else:
            step.repeat(u, steps, grad=way).square().sum().backward()

    step.repeat(u, 10, grad=True).square().sum().backward()
    peak, seconds = grown(work)
    return {"MiB": round(peak, 1), "us per step": round(1e6 * seconds / steps)}


def plans() -> Rows:
    """Weights of 2000 equal steps for the ways that take plans."""
    pde = kuramoto()
    inner, u = pde.entered(), pde.space.enter(pde.x0)
    times = [0.05 * n for n in range(2001)]
    began = time.perf_counter()
    ls.integrate.plan_problem(inner, times, "etdrk4", u)
    shared = time.perf_counter() - began
    rule, operator = ls.integrate.chosen("etdrk4"), inner.operator(True)
    began = time.perf_counter()
    for n in range(20):
        rule.step(times, n, operator)
    each = (time.perf_counter() - began) * 100
    return {
        "2000 steps of KS 512 as a plan": {
            "seconds": round(shared, 2),
            "each step's written anew": round(each, 1),
        }
    }


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """In a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(work, args)


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*complex operators.*")
    path = RESULTS / "rollout.json"
    known: dict[str, Rows] = json.loads(path.read_text()) if path.exists() else {}

    def section(name: str, make: Callable[[], Rows]) -> None:
        if name not in known:
            known[name] = make()
            path.write_text(json.dumps(known, indent=1) + "\n")
            print(name, json.dumps(known[name], indent=1), flush=True)

    def remembered() -> Rows:
        named: dict[str, bool | str | None] = {
            "no gradient": None,
            "grad=True": True,
            "checkpoint": "checkpoint",
        }
        return {
            f"KS 512 x 16, {n} steps, {name}": apart(memory, n, way)
            for name, way in named.items()
            for n in ((100, 10_000) if way is None else (50, 200, 800))
        }

    sections = {"Around a step": around, "Precision": precision, "Memory": remembered, "Weights": plans,
                "Compiled": compiling}  # fmt: skip
    for name, make in sections.items():
        section(name, make)
    lines = ["# Long runs", "", "`python benchmarks/rollout.py`, see there what is measured."]
    for title in sections:
        rows = known[title]
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        lines += [
            "",
            f"## {title}",
            "",
            f"| run | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        lines += [
            f"| {key} | {' | '.join(str(row.get(c, '')) for c in columns)} |" for key, row in rows.items()
        ]
    (RESULTS / "rollout.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
