"""A neural ODE: seconds forward, and forward with the gradient, against torchdiffeq and torchode.

    python benchmarks/neural_ode.py [--rounds 5]

f is a network 64-256-64 with tanh between, its weights 2.5 times torch's default so that the solution
bends; 512 normal states from t = 0 to 1, float32, one thread. The loss is a fixed random linear function of
the end. Every solver runs at tolerances rtol = atol of a quarter decade's spacing. Its error is that of the
gradient by the state and by all parameters, each relative, the largest of them; for forward runs that of
the end. The truth is float64, dopri8 at 1e-12. Seconds are of processor time; all solvers take turns in
each round, and the median over the rounds counts. Seconds at an error come from the work-precision curve:
for each solver the cheapest runs that are as good (the lower envelope), interpolated in the logarithms of
both. Tolerances begin at 1e-2, where the best of all are still within the largest error that is compared.
Rows "f compiled" are the same solvers given the network as torch.compile makes it; what compiles is not
counted. "Tuned" are plans that `ls.tune` has made for this network once, from other states: of 6 to 20
evaluations, in place of tolerances; they are in results/plans, where they are made anew if missing, in half
a minute to two and a half each, which is not counted either. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import chain, pairwise, zip_longest
from pathlib import Path

import torch
import torchode
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

import longstride as ls

RESULTS = Path(__file__).parent / "results"
TOLERANCES = [10 ** (-k / 4) for k in range(8, 27)]
TARGETS = (1e-3, 1e-4, 1e-5)
BATCH, DIM, WIDTH, GAIN = 512, 64, 256, 2.5
Solve = Callable[[nn.Module, Tensor, float], Tensor]


class Net(nn.Module):
    """f(t, x), with its evaluations counted."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(DIM, WIDTH), nn.Tanh(), nn.Linear(WIDTH, DIM))
        self.calls = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x)


def ours(method: str, **options: object) -> Solve:
    return lambda f, x, tol: ls.solve(ls.ODE(f), x, t=(0, 1), method=method, rtol=tol, atol=tol, **options).x[
        -1
    ]


def diffeq(method: str, call: Callable = odeint) -> Solve:
    def solve(f: nn.Module, x: Tensor, tol: float) -> Tensor:
        return call(f, x, torch.tensor([0.0, 1.0], dtype=x.dtype), rtol=tol, atol=tol, method=method)[-1]

    return solve


def ode(name: str) -> Solve:
    def solve(f: nn.Module, x: Tensor, tol: float) -> Tensor:
        term = torchode.ODETerm(f)
        step = getattr(torchode, name)(term=term)
        adjoint = torchode.AutoDiffAdjoint(step, torchode.IntegralController(atol=tol, rtol=tol, term=term))
        start, end = torch.zeros(len(x), dtype=x.dtype), torch.ones(len(x), dtype=x.dtype)
        return adjoint.solve(torchode.InitialValueProblem(y0=x, t_start=start, t_end=end)).ys[:, -1]

    return solve


SOLVERS: dict[str, Solve] = {
    "longstride tsit5, shared step": ours("tsit5", shared_step=True),
    "longstride vern7, shared step": ours("vern7", shared_step=True),
    "longstride tsit5, per sample": ours("tsit5"),
    "longstride tsit5, shared, adjoint": ours("tsit5", shared_step=True, grad="adjoint"),
    "torchdiffeq dopri5": diffeq("dopri5"),
    "torchdiffeq dopri5, adjoint": diffeq("dopri5", odeint_adjoint),
    "torchode tsit5": ode("Tsit5"),
    "torchode dopri5": ode("Dopri5"),
}
TUNED, BUDGETS = "longstride, tuned for this network", (6, 8, 10, 12, 16, 20)
COMPILED = ", f compiled"
for _name in (
    "longstride tsit5, shared step",
    "torchdiffeq dopri5",
    "torchode tsit5",
    "torchode dopri5",
):
    SOLVERS[_name + COMPILED] = SOLVERS[_name]


def settings(name: str) -> Sequence[float]:
    """What a solver's runs differ in."""
    return BUDGETS if name == TUNED else TOLERANCES


class Problem:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Net().double()
        with torch.no_grad():
            for p in self.net.parameters():
                p.mul_(GAIN)
        self.x0 = torch.randn(BATCH, DIM, dtype=torch.float64)
        self.weights = torch.randn(BATCH, DIM, dtype=torch.float64) / BATCH
        exact = ours("dopri8", shared_step=True)
        self.truth = self.gradient(exact, 1e-12, self.net)
        self.single = copy.deepcopy(self.net).float()
        self.graph = copy.copy(self.single)  # of the same parameters
        self.graph._modules = {"layers": torch.compile(self.single.layers, fullgraph=True, dynamic=False)}
        with torch.no_grad():
            self.graph(None, self.x0.float())
        self.gradient(SOLVERS["torchode tsit5"], 1e-2, self.graph)
        plans = {nfe: self.plan(nfe) for nfe in BUDGETS}
        SOLVERS[TUNED] = lambda f, x, nfe: ls.solve(ls.ODE(f), x, plan=plans[int(nfe)]).x[-1]

    def plan(self, nfe: int) -> ls.Plan:
        """From states of the same distribution that are not those of the benchmark."""
        path = RESULTS / "plans" / f"neural-ode-{nfe}.json"
        if not path.exists():
            g = torch.Generator().manual_seed(5)
            starts = torch.randn(4608, DIM, generator=g, dtype=torch.float64)
            problem = ls.ODE(lambda t, x: self.net(t, x))
            with torch.no_grad():
                plan = ls.tune(problem, nfe, x0=starts, t=(0.0, 1.0), select=256, report=256, hops=2)
            plan.save(path)
        return ls.Plan.load(path)

    def gradient(self, solve: Solve, tol: float, net: Net) -> list[Tensor]:
        """The end, and the gradients by state and parameters."""
        x = self.x0.clone().to(next(net.parameters()).dtype).requires_grad_()
        end = solve(net, x, tol)
        found = torch.autograd.grad((end * self.weights.to(end)).sum(), [x, *net.parameters()])
        return [v.detach().double() for v in (end, *found)]

    def error(self, found: list[Tensor]) -> float:
        return max(
            float((a - b).norm() / b.norm()) for a, b in zip(found, self.truth[-len(found) :], strict=True)
        )


def measure(problem: Problem, rows: dict, n: int) -> None:
    """Round n, in which all take turns: evaluations, errors and seconds, forward and with the gradient."""
    x = problem.x0.float()
    turns = zip_longest(*([(name, tol) for tol in settings(name)] for name in SOLVERS))
    for name, tol in filter(None, chain.from_iterable(turns)):
        solve, net = SOLVERS[name], problem.graph if name.endswith(COMPILED) else problem.single
        row = rows.setdefault(f"{name}|{tol}", {"forward": [], "both": []})
        if len(row["both"]) > n:
            continue
        net.calls, began = 0, time.process_time()
        with torch.no_grad():
            end = solve(net, x, tol)
        row["forward"].append(time.process_time() - began)
        row["nfe"], row["end_error"] = net.calls, end_error(end, problem)
        began = time.process_time()
        found = problem.gradient(solve, tol, net)
        row["both"].append(time.process_time() - began)
        row["error"] = problem.error(found[1:])


def end_error(end: Tensor, problem: Problem) -> float:
    return float((end.double() - problem.truth[0]).norm() / problem.truth[0].norm())


def at(points: list[tuple[float, float]], target: float) -> float | None:
    """Seconds at an error, on the lower envelope of (error, seconds)."""
    best: list[tuple[float, float]] = []
    for error, seconds in sorted(points):  # from the most exact on: what is worse must be cheaper
        if not best or seconds < best[-1][1]:
            best.append((error, seconds))
    for (e, s), (e2, s2) in pairwise(best):
        if e <= target <= e2:
            share = math.log(target / e) / math.log(e2 / e)
            return math.exp((1 - share) * math.log(s) + share * math.log(s2))
    return best[-1][1] if best and best[-1][0] <= target else None


def table(rows: dict, error: str, seconds: str) -> str:
    head = [f"{t:g}" for t in TARGETS]
    lines = [f"| solver | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    for name in SOLVERS:
        points = [
            (row[error], statistics.median(row[seconds]))
            for key, row in rows.items()
            if key.startswith(f"{name}|")
        ]
        found = [at(points, target) for target in TARGETS]
        lines.append(f"| {name} | {' | '.join('' if s is None else f'{1e3 * s:.0f}' for s in found)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "neural_ode.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    problem = Problem()
    for n in range(arguments.rounds):
        measure(problem, rows, n)
        path.write_text(json.dumps(rows, indent=1) + "\n")
    text = (
        "# A neural ODE\n\n`python benchmarks/neural_ode.py`, see there what is measured. Milliseconds of "
        f"processor time at equal error, medians of {arguments.rounds} rounds; torch {torch.__version__}, "
        "one thread.\n\n## Forward and gradient, at the error of the gradient\n\n"
        f"{table(rows, 'error', 'both')}\n\n## Forward, at the error of the end\n\n"
        f"{table(rows, 'end_error', 'forward')}\n"
    )
    (RESULTS / "neural_ode.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
