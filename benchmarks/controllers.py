"""Evaluations of I, PI and PID control at equal error: why PI is the default of explicit pairs.

    python benchmarks/controllers.py

Five problems of 200 samples each, three pairs, tolerances from 1e-2 to 1e-8 in half decades. Of each run the
root mean square error of the ends, relative, against dopri8 at 1e-13, and evaluations: of the sample that
took most, which is what a batch waits for, and on average. A parabola is laid through their logarithms over
that of the error, and compared with that of I at nine errors. No times are measured.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
CONTROLLERS = {"I": ls.control.I(), "PI": ls.control.PI(), "PID": ls.control.PID()}
PAIRS = ("tsit5", "dopri5", "vern7")
TOLERANCES = [10 ** (-k / 2) for k in range(4, 17)]
SAMPLES = 200
F64 = torch.float64


def problems() -> dict[str, tuple[ls.ODE, Tensor, float]]:
    """The problem, the starts, and the end."""
    generator, systems = torch.Generator().manual_seed(0), ls.systems

    def normal(d: int) -> Tensor:
        return torch.randn(SAMPLES, d, dtype=F64, generator=generator)

    e = 0.3 + 0.4 * torch.rand(SAMPLES, 1, dtype=F64, generator=generator)
    at_perihelion = torch.cat([1 - e, 0 * e, 0 * e, ((1 + e) / (1 - e)).sqrt()], 1)
    return {
        "Lorenz": (systems.lorenz63(), 1 + normal(3), 5.0),
        "Van der Pol, mu = 5": (systems.van_der_pol(5.0), 2 * normal(2), 20.0),
        "Lotka-Volterra": (
            systems.lotka_volterra(), 1 + torch.rand(SAMPLES, 2, dtype=F64, generator=generator), 10.0,
        ),
        "Kepler, e from 0.3 to 0.7": (systems.kepler(), at_perihelion, 12.0),
        "FitzHugh-Nagumo": (systems.fitzhugh_nagumo(), normal(2), 50.0),
    }  # fmt: skip


def measured(problem: ls.ODE, x0: Tensor, end: float, pair: str, exact: Tensor) -> dict[str, np.ndarray]:
    """[runs, 3] of each controller: logarithms of the error, of most evaluations, of those on average."""
    found = {}
    for name, controller in CONTROLLERS.items():
        rows = []
        for tol in TOLERANCES:
            run = ls.solve(
                problem, x0, t=(0, end), method=pair, rtol=tol, atol=tol, controller=controller, grad=False,
                compile=True,
            )  # fmt: skip
            error = float((run.x[-1] - exact).norm() / exact.norm())
            rows.append((error, run.stats.nfe, float(run.stats.nfe_each.double().mean())))
        rows = np.array(rows)
        found[name] = np.log(rows[np.isfinite(rows[:, 0])])
    return found


def over_first(found: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Evaluations over those of the first controller, at most and on average."""
    first = next(iter(found.values()))
    low, *_, high = sorted(first[:, 0])[1:-1]
    errors = np.linspace(low, high, 9)
    fits = {
        name: [np.polyval(np.polyfit(rows[:, 0], rows[:, k], 2), errors) for k in (1, 2)]
        for name, rows in found.items()
    }
    base = next(iter(fits.values()))
    return {
        name: tuple(float(np.exp((fit - b).mean())) for fit, b in zip(both, base, strict=True))
        for name, both in fits.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    others = [name for name in CONTROLLERS if name != "I"]
    lines = ["| problem | pair | " + " | ".join(f"{name}, most | {name}, mean" for name in others) + " |"]
    lines.append("|---" * (2 + 2 * len(others)) + "|")
    all_of_them = []
    for name, (problem, x0, end) in problems().items():
        exact = ls.solve(
            problem, x0, t=(0, end), method="dopri8", rtol=1e-13, atol=1e-13, grad=False, compile=True
        ).x[-1]
        for pair in PAIRS:
            ratios = over_first(measured(problem, x0, end, pair, exact))
            numbers = [value for other in others for value in ratios[other]]
            all_of_them.append(numbers)
            lines.append(f"| {name} | {pair} | " + " | ".join(f"{v:.3f}" for v in numbers) + " |")
            print(lines[-1], flush=True)
    means = np.exp(np.log(np.array(all_of_them)).mean(0))
    lines.append("| geometric mean | | " + " | ".join(f"**{v:.3f}**" for v in means) + " |")
    head = ["# Evaluations over those of I control, at equal error", "",
            "Made by `python benchmarks/controllers.py`, see there.", ""]  # fmt: skip
    (RESULTS / "controllers.md").write_text("\n".join([*head, *lines, ""]))
    print(lines[-1])


if __name__ == "__main__":
    main()
