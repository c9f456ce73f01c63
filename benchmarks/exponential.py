"""Exponential methods beside rodas5p and scipy's Radau.

Brusselator on 128 points (256 states, 0 to 10), and Kuramoto and Sivashinsky's equation u_t = -u u_z - u_zz -
u_zzzz, periodic, length 32 pi, 128 points (0 to 50), with its linear part as a dense matrix on the grid. The
planned methods take equal steps. The error is the norm of x - reference over that of the reference, at the
end; the reference is scipy's Radau at rtol 1e-11. One thread, processor time, the lowest of up to two
rounds. Times at an error are interpolated on log-log work-precision curves.

L by products: u_t = div(k grad u) + 5 u (1 - u) on 64 x 64 points between walls where u = 0, k between 0.1
and 0.3, to t = 1, |L| = 1e4; a matrix of 4,096 x 4,096 that nobody writes down. The reference is tsit5 at
rtol 1e-10. One run each; products of GMRES with df/dx are not counted.

    python benchmarks/exponential.py [seconds]
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp

import longstride as ls
from work_precision import at_error

OUT = Path(__file__).parent / "results"
F64 = torch.float64
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
STEPS = (125, 250, 500, 1000, 2000)
WANTED = (1e-3, 1e-5, 1e-7)
N = 128
LARGE = 64  # points along a side


def brusselator() -> tuple[ls.ODE, torch.Tensor, float, ls.ODE]:
    """The whole field; and f with the diffusion as a matrix L."""
    system = ls.systems.brusselator_1d(N)
    second = (torch.diag(torch.ones(N - 1, dtype=F64), 1) * 2 - 2 * torch.eye(N, dtype=F64)).clone()
    second = (second + second.T) / 2
    L = 0.02 * (N + 1) ** 2 * torch.kron(second, torch.eye(2, dtype=F64))
    wall = torch.zeros(N, 2, dtype=F64)
    wall[0] = wall[-1] = 0.02 * (N + 1) ** 2 * torch.tensor([1.0, 3.0], dtype=F64)

    def rest(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        u, v = x.unbind(-1)
        made = u * u * v
        return torch.stack([1 + made - 4 * u, 3 * u - made], -1) + wall

    return system, system.x0, 10.0, ls.ODE(rest, L=ls.Matrix(L))


def kuramoto() -> tuple[ls.ODE, torch.Tensor, float, ls.ODE]:
    length = 32 * math.pi
    k = 2 * math.pi * torch.fft.fftfreq(N, length / N).to(F64)
    z = torch.arange(N, dtype=F64) * length / N
    turn = torch.fft.fft(torch.eye(N, dtype=F64), dim=0)
    L = torch.fft.ifft((k**2 - k**4)[:, None] * turn, dim=0).real
    D = torch.fft.ifft(1j * torch.where(k == k.min(), 0.0, k)[:, None] * turn, dim=0).real

    def rest(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return -0.5 * (x * x) @ D.T

    x0 = (torch.cos(z / 16) * (1 + torch.sin(z / 16)))[None]
    return ls.ODE(lambda t, x: rest(t, x) + x @ L.T), x0, 50.0, ls.ODE(rest, L=ls.Matrix(L))


PROBLEMS: dict[str, Callable] = {"brusselator": brusselator, "kuramoto-sivashinsky": kuramoto}
SOLVERS: dict[str, tuple[str, tuple]] = {
    "rodas5p": ("adaptive", TOLERANCES),
    "radau5": ("adaptive", TOLERANCES),
    "exprb32": ("adaptive", TOLERANCES[:4]),
    "pexprb43": ("adaptive", TOLERANCES),
    "pexprb43 krylov": ("adaptive", TOLERANCES),
    "etdrk4 matrix": ("planned", STEPS),
    "krogstad matrix": ("planned", STEPS),
    "exp_adams_4 matrix": ("planned", STEPS),
    "scipy Radau": ("scipy", TOLERANCES),
}


def numpy_field(problem: ls.ODE, shape: torch.Size) -> Callable:
    """The same field for scipy, which calls it some hundred times for a Jacobian: at little overhead."""

    def g(t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return problem.rate(torch.tensor(t, dtype=F64), torch.from_numpy(y).view(shape)).numpy().ravel()

    return g


def solved(solver: str, kind: str, made: tuple, setting: float) -> np.ndarray:
    problem, x0, end, split = made
    if kind == "scipy":
        run = solve_ivp(
            numpy_field(problem, x0.shape), (0.0, end), x0.numpy().ravel(), method="Radau",
            rtol=setting, atol=setting, t_eval=[end],
        )  # fmt: skip
        return run.y[:, -1]
    name, *how = solver.split()
    with torch.no_grad():
        if kind == "planned":
            try:
                run = ls.solve(split, x0, t=(0.0, end), method=name, steps=int(setting))
            except ls.SolveError:  # unstable at so few steps
                return x0.numpy().ravel() * math.nan
            return run.x[-1].numpy().ravel()
        free = ls.ODE(problem.f) if how else problem
        run = ls.solve(
            free, x0, t=(0.0, end), method=name, linear="krylov" if how else None, rtol=setting, atol=setting
        )
        return run.x[-1].numpy().ravel()


def measure(data: dict, until: float) -> None:
    for name, make in PROBLEMS.items():
        if name not in data["references"]:
            data["references"][name] = solved("scipy Radau", "scipy", make(), 1e-11).tolist()
            save(data)
    for n in range(2):
        for name, make in PROBLEMS.items():
            truth = np.array(data["references"][name])
            for solver, (kind, settings) in SOLVERS.items():
                for setting in settings:
                    key = f"{name}|{solver}|{setting:g}"
                    row = data["rows"].get(key, {"seconds": math.inf, "rounds": 0})
                    if row["rounds"] > n or time.time() > until:
                        continue
                    made = make()  # with nothing made before
                    begun = time.process_time()
                    x = solved(solver, kind, made, setting)
                    spent = time.process_time() - begun
                    off = float(np.linalg.norm(x - truth) / np.linalg.norm(truth))
                    data["rows"][key] = {
                        "seconds": min(spent, row["seconds"]),
                        "rounds": row["rounds"] + 1,
                        "error": off if math.isfinite(off) else None,
                    }
                    save(data)


def conductor(count: list[int]) -> tuple[Callable, Callable, torch.Tensor]:
    """v -> L v, which counts itself; f; the start."""
    n = LARGE
    at, between = (
        torch.arange(1, n + 1, dtype=F64) / (n + 1),
        (torch.arange(n + 1, dtype=F64) + 0.5) / (n + 1),
    )
    k = 0.2 * (1 + 0.5 * torch.sin(2 * math.pi * between)) * (n + 1) ** 2

    def times(v: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        p = torch.nn.functional.pad(v, (1, 1, 1, 1))
        down, along = (p[:, 1:] - p[:, :-1])[..., 1:-1] * k[:, None], (p[..., 1:] - p[..., :-1])[:, 1:-1] * k
        return down[:, 1:] - down[:, :-1] + along[..., 1:] - along[..., :-1]

    start = (torch.sin(math.pi * at)[:, None] * torch.sin(math.pi * at))[None] ** 2
    return times, lambda t, u: 5 * u * (1 - u), start


def large(data: dict, until: float) -> None:
    """Solvers of the large problem: seconds, error, products with L or evaluations of the whole."""
    rows, count = data.setdefault("large", {}), [0]
    times, f, x0 = conductor(count)
    whole = ls.ODE(lambda t, u: f(t, u) + times(u))
    runs: dict[str, Callable] = {}
    for method, steps in (("krogstad", (10, 20, 40)), ("exp_adams_2", (40, 160))):
        for n in steps:
            for tol in (1e-6, 1e-10):
                apart = ls.ODE(f, L=ls.Krylov(times, tolerance=tol))
                runs[f"`{method}`, {n} steps, products to {tol:g}"] = lambda p=apart, m=method, n=n: ls.solve(
                    p, x0, t=(0, 1), method=m, steps=n
                )
    for tol in (1e-4, 1e-6):
        for method, how in (("kvaerno5", {"linear": "gmres"}), ("tsit5", {})):
            runs[f"`{method}`{', GMRES' if how else ''}, rtol {tol:g}"] = (
                lambda m=method, h=how, tol=tol: ls.solve(
                    whole, x0, t=(0, 1), method=m, rtol=tol, atol=tol / 100, max_steps=100_000, **h)
            )  # fmt: skip
    missing = {name: run for name, run in runs.items() if name not in rows}
    with torch.no_grad():
        if missing:
            truth = ls.solve(whole, x0, t=(0, 1), rtol=1e-10, atol=1e-12, max_steps=100_000).x[-1]
        for name, run in missing.items():
            if time.time() > until:
                continue
            count[0], begun = 0, time.process_time()
            end = run().x[-1]
            spent = time.process_time() - begun
            rows[name] = {
                "seconds": spent,
                "products": count[0],
                "error": float((end - truth).norm() / truth.norm()),
            }
            save(data)


def curve(rows: dict, name: str, solver: str) -> list[tuple]:
    """(error, seconds) of a solver on a problem."""
    start = f"{name}|{solver}|"
    return [(row["error"], row["seconds"]) for key, row in rows.items() if key.startswith(start)]


def save(data: dict) -> None:
    (OUT / "exponential.json").write_text(json.dumps(data, indent=1) + "\n")


def page(data: dict) -> str:
    lines = ["# Exponential methods\n", __doc__.split("\n\n")[1].replace("\n", " ") + "\n"]
    for name in PROBLEMS:
        lines += [f"\n## {name}\n", "| solver | " + " | ".join(f"s at error {w:g}" for w in WANTED)
                  + " | seconds, error of each setting |", "|---" * (len(WANTED) + 2) + "|"]  # fmt: skip
        for solver, (_, settings) in SOLVERS.items():
            cells = [at_error(curve(data["rows"], name, solver), w) for w in WANTED]
            runs = []
            for setting in settings:
                row = data["rows"].get(f"{name}|{solver}|{setting:g}")
                if row:
                    off = "failed" if row["error"] is None else f"{row['error']:.1e}"
                    runs.append(f"{setting:g}: {row['seconds']:.2g}, {off}")
            shown = ["-" if s is None else f"{s:.2g}" for s in cells]
            lines.append(f"| {solver} | " + " | ".join([*shown, "; ".join(runs)]) + " |")
    lines += ["\n## L by products\n", __doc__.split("\n\n")[2].replace("\n", " ") + "\n"]
    lines += ["| solver | products with L | seconds | error |", "|---|---|---|---|"]
    for name, row in data["large"].items():
        lines.append(f"| {name} | {row['products']} | {row['seconds']:.2g} | {row['error']:.1e} |")
    lines.append(f"\ntorch {torch.__version__}, one thread, on a machine that other work shared.")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    until = time.time() + (float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0)
    path = OUT / "exponential.json"
    data = json.loads(path.read_text()) if path.exists() else {"references": {}, "rows": {}}
    large(data, until)
    measure(data, until)
    text = page(data)
    (OUT / "exponential.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
