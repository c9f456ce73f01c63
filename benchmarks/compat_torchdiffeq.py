"""The same calls through torchdiffeq and through longstride.compat.torchdiffeq.

    python benchmarks/compat_torchdiffeq.py [--again]

Problems of torchdiffeq's own tests (a constant, a sine, a linear system, from t = 1 to 8 at 10 times), its
bouncing ball, the training of its demo with odeint and odeint_adjoint, a wide network, and calls of one short
interval. Each is run through both imports in turn: error against the exact solution, evaluations of f, least
processor time of ROUNDS. What is in results/torchdiffeq.json is not run again unless asked for.

The file is not called torchdiffeq.py: the benchmarks' folder comes first where scripts beside it import.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchdiffeq as theirs
from torch import Tensor, nn

from longstride.compat import torchdiffeq as ours

RESULTS = Path(__file__).parent / "results"
ROUNDS, ITERATIONS = 5, 40
F64 = torch.float64
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
GRID = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
LOOSE = {"bosh3": 1e-6, "fehlberg2": 1e-5, "adaptive_heun": 1e-5}


@dataclass
class Problem:
    f: Callable[[Tensor, Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]

    def start(self, t: Tensor) -> Tensor:
        return self.exact(t)[0]


def constant() -> Problem:
    line = lambda t: (0.2 * t + 3.0)[..., None]  # noqa: E731
    return Problem(lambda t, y: 0.2 + (y - line(t)) ** 5, line)


def sine() -> Problem:
    def exact(t: Tensor) -> Tensor:
        first = (
            -0.5 * t**4 * torch.cos(2 * t) + 0.5 * t**3 * torch.sin(2 * t) + 0.25 * t**2 * torch.cos(2 * t)
        )
        return (first - t**3 + 2 * t**4 + (math.pi - 0.25) * t**2)[..., None]

    return Problem(lambda t, y: 2 * y / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3, exact)


def linear(dim: int = 10) -> Problem:
    U = 0.1 * torch.randn(dim, dim, generator=torch.Generator().manual_seed(0), dtype=F64)
    A = U - U.T
    return Problem(
        lambda t, y: A @ y, lambda t: torch.stack([torch.matrix_exp(A * (s - 1)).sum(1) for s in t])
    )


PROBLEMS = {"constant": constant, "sine": sine, "linear": linear}


class Counted:
    def __init__(self, f: Callable[[Tensor, Any], Any]) -> None:
        self.f, self.calls = f, 0

    def __call__(self, t: Tensor, y: Any) -> Any:
        self.calls += 1
        return self.f(t, y)


def in_turn(run: Callable[[Any], Any], rounds: int = ROUNDS) -> list[float]:
    """Least processor milliseconds of a run through theirs and through ours."""
    best = [math.inf, math.inf]
    for _ in range(rounds):
        for i, module in enumerate((theirs, ours)):
            begun = time.process_time()
            run(module)
            best[i] = min(best[i], (time.process_time() - begun) * 1e3)
    return best


def solved(name: str, method: str, backward: bool = False) -> dict[str, Any]:
    """One problem by one method; backward: from the last time to the first."""
    problem, t = PROBLEMS[name](), torch.linspace(1.0, 8.0, 10, dtype=F64)
    t = t.flip(0) if backward else t
    true = problem.exact(t.sort().values)
    true = true.flip(0) if backward else true
    tol = LOOSE.get(method, 1e-9)
    given: dict[str, Any] = {"method": method, "rtol": tol, "atol": tol}
    if method in GRID:
        given["options"] = {"step_size": 0.01, **({"max_order": 5} if "adams" in method else {})}
    row: dict[str, Any] = {}
    for label, module in (("theirs", theirs), ("ours", ours)):
        f = Counted(problem.f)
        found = module.odeint(f, true[0], t, **given)
        row[label] = {"error": float((found - true).abs().max()), "nfe": f.calls}
    row["theirs"]["ms"], row["ours"]["ms"] = in_turn(lambda m: m.odeint(problem.f, true[0], t, **given))
    return row


def ball() -> dict[str, Any]:
    """Their bouncing ball: ten bounces, each an event whose time is differentiable."""

    def bounces(module: Any) -> tuple[Tensor, int]:
        t, y = torch.tensor(0.0, dtype=F64), (torch.tensor(10.0, dtype=F64), torch.tensor(0.0, dtype=F64))
        f = Counted(lambda t, y: (y[1], torch.full_like(y[1], -9.81)))
        for _ in range(10):
            t, (height, speed) = module.odeint_event(
                f, y, t, event_fn=lambda t, y: y[0], rtol=1e-9, atol=1e-9
            )
            y = (height[-1].clamp_min(0) + 1e-7, -0.9 * speed[-1])
        return t, f.calls

    first = math.sqrt(20 / 9.81)
    exact = first * (1 + 2 * sum(0.9**k for k in range(1, 10)))
    row: dict[str, Any] = {}
    for label, module in (("theirs", theirs), ("ours", ours)):
        t, calls = bounces(module)
        row[label] = {"error": abs(float(t) - exact), "nfe": calls}
    row["theirs"]["ms"], row["ours"]["ms"] = in_turn(bounces)
    return row


class Net(nn.Module):
    """The demo's: y^3 through 50 tanh units; calls are counted."""

    def __init__(self, width: int = 50, dim: int = 2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, width), nn.Tanh(), nn.Linear(width, dim))
        self.calls = 0
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.net(y**3)


def training(call: str, method: str) -> dict[str, Any]:
    """The demo: a spiral of 1000 points, batches of 20 pieces of 10; ITERATIONS steps of RMSprop."""
    A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    t = torch.linspace(0.0, 25.0, 1000)
    with torch.no_grad():
        y = theirs.odeint(lambda t, y: y**3 @ A, torch.tensor([[2.0, 0.0]]), t)
    runs: dict[str, Any] = {}
    for label, module in (("theirs", theirs), ("ours", ours)):
        torch.manual_seed(0)
        net, losses = Net(), []
        optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3)
        begun = time.process_time()
        for _ in range(ITERATIONS):
            at = torch.randint(0, 990, (20,))
            target = torch.stack([y[at + i] for i in range(10)])
            optimizer.zero_grad()
            found = getattr(module, call)(net, y[at], t[:10], method=method)
            loss = (found - target).abs().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        spent = (time.process_time() - begun) / ITERATIONS * 1e3
        runs[label] = {"losses": losses, "nfe": net.calls / ITERATIONS, "ms": spent}
    pairs = zip(runs["theirs"].pop("losses"), runs["ours"].pop("losses"), strict=True)
    runs["apart"] = max(abs(a - b) / abs(a) for a, b in pairs)
    return runs


def wide(call: str) -> dict[str, Any]:
    """Forward and backward of a network 64-256-64 on 512 states; error of the gradient, relative."""
    torch.manual_seed(0)
    net, t = Net(256, 64), torch.tensor([0.0, 1.0])
    y0 = torch.randn(512, 64)

    def run(module: Any, y0: Tensor = y0, tol: float = 1e-5) -> Tensor:
        net.zero_grad()
        found = getattr(module, call)(net, y0, t.to(y0), rtol=tol, atol=tol / 10)
        found[-1].square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    true = run(theirs, y0.to(net.double().net[0].weight), 1e-10)
    net.float()
    row: dict[str, Any] = {}
    for label, module in (("theirs", theirs), ("ours", ours)):
        net.calls = 0
        row[label] = {"error": float((run(module) - true).norm() / true.norm()), "nfe": net.calls}
    row["theirs"]["ms"], row["ours"]["ms"] = in_turn(run, 3)
    return row


def short() -> dict[str, Any]:
    """x' = -x over [0, 0.1]: what a call costs that takes a step or two."""
    y0, t = torch.ones(1, dtype=F64), torch.tensor([0.0, 0.1], dtype=F64)
    row: dict[str, Any] = {}
    for label, module in (("theirs", theirs), ("ours", ours)):
        f = Counted(lambda t, y: -y)
        found = module.odeint(f, y0, t, rtol=1e-6)
        row[label] = {"error": abs(float(found[-1]) - math.exp(-0.1)), "nfe": f.calls}
    row["theirs"]["ms"], row["ours"]["ms"] = in_turn(
        lambda m: m.odeint(lambda t, y: -y, y0, t, rtol=1e-6), 30
    )
    return row


def dense() -> dict[str, Any]:
    """The linear problem at 1000 times."""
    problem, t = linear(), torch.linspace(1.0, 8.0, 1000, dtype=F64)
    y0, row = problem.start(t[:1]), {}
    for label, module in (("theirs", theirs), ("ours", ours)):
        f = Counted(problem.f)
        found = module.odeint(f, y0, t, rtol=1e-9, atol=1e-9)
        row[label] = {"error": float((found - problem.exact(t)).abs().max()), "nfe": f.calls}
    row["theirs"]["ms"], row["ours"]["ms"] = in_turn(
        lambda m: m.odeint(problem.f, y0, t, rtol=1e-9, atol=1e-9)
    )
    return row


def tasks() -> dict[str, Callable[[], dict[str, Any]]]:
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in PROBLEMS:
        for method in (*ADAPTIVE, *GRID):
            found[f"{name}, {method}"] = lambda name=name, method=method: solved(name, method)
    found["sine, dopri5, backward"] = lambda: solved("sine", "dopri5", True)
    found["linear, dopri5, 1000 times"] = dense
    found["a call of one short interval"] = short
    found["bouncing ball, 10 events"] = ball
    for call in ("odeint", "odeint_adjoint"):
        for method in ("dopri5", "rk4"):
            found[f"training the demo, {call}, {method}"] = lambda c=call, m=method: training(c, m)
        found[f"64-256-64 on 512 states, forward and backward, {call}"] = lambda c=call: wide(c)
    return found


def table(rows: dict[str, Any]) -> str:
    lines = [
        "| | error, theirs | ours | NFE, theirs | ours | ms, theirs | ours | times faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        one, two = row["theirs"], row["ours"]
        errors = [f"{side['error']:.1e}" if "error" in side else "" for side in (one, two)]
        if "apart" in row:
            errors = ["losses", f"{row['apart']:.0e} apart"]
        counts = [f"{side['nfe']:.0f}" for side in (one, two)]
        spent = [f"{side['ms']:.2f}" for side in (one, two)]
        lines.append(
            "| " + " | ".join([name, *errors, *counts, *spent, f"{one['ms'] / two['ms']:.2f}"]) + " |"
        )
    return "\n".join(lines)


HEAD = """# torchdiffeq's calls, theirs and ours

`python benchmarks/compat_torchdiffeq.py`, see there what is measured. torchdiffeq {version}, torch {torch},
one thread of processor time; the load of the machine's two cores was {load:.1f} at the end. Tolerances 1e-9,
and 1e-6 for bosh3, 1e-5 for fehlberg2 and adaptive_heun; on grids a step of 0.01. Errors are absolute, of
gradients relative; losses are apart by the largest relative difference in the whole curve.

"""


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = RESULTS / "torchdiffeq.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() and "--again" not in sys.argv else {}
    for name, task in tasks().items():
        if name not in rows:
            rows[name] = task()
            path.write_text(json.dumps({"rows": rows, "load": os.getloadavg()[0]}, indent=1) + "\n")
            print(name, flush=True)
    rows = {name: rows[name] for name in tasks()}
    head = HEAD.format(version=theirs.__version__, torch=torch.__version__, load=os.getloadavg()[0])
    (RESULTS / "torchdiffeq.md").write_text(f"{head}{table(rows)}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
