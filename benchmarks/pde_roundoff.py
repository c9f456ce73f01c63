"""Round-off of vorticity's nonlinear part in three forms, and what an unstable step makes of it.

    python benchmarks/pde_roundoff.py

Ten ETDRK4 steps of 0.04 of benchmarks/pde.py's Navier-Stokes case, in 64 and in 80 bits (x86's long double,
which scipy's transforms have). A minute; `results/pde_roundoff.md` is what came of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft as sf

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from pde_common import CASES, start

RESULTS = Path(__file__).parent / "results" / "pde_roundoff.md"
N, NU, LONG = CASES["ns"]["n"], CASES["ns"]["nu"], np.longdouble
X, Y = np.fft.fftfreq(N, 1 / N)[:, None].astype(LONG), np.arange(N // 2 + 1, dtype=LONG)[None]
K2 = X**2 + Y**2
KEPT = (abs(X) < N / 3) & (Y < N / 3)
K = np.sqrt(K2.astype(float))
Form = Callable[[np.ndarray], np.ndarray]


def forms(real: type) -> dict[str, Form]:
    x, y, k2 = (k.astype(real) for k in (X, Y, K2))
    inverse = np.where(k2 > 0, 1 / np.where(k2 > 0, k2, 1), 0)
    i = 1j * np.ones((), real)

    def back(c: np.ndarray) -> np.ndarray:
        return sf.irfft2(KEPT * c, s=(N, N))

    def flow(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return back(i * y * inverse * c), back(-i * x * inverse * c)

    def basdevant(c: np.ndarray) -> np.ndarray:
        u, v = flow(c)
        return KEPT * ((x * x - y * y) * sf.rfft2(u * v) - x * y * sf.rfft2(u * u - v * v))

    def divergence(c: np.ndarray) -> np.ndarray:
        (u, v), w = flow(c), back(c)
        return -1 * KEPT * (i * x * sf.rfft2(u * w) + i * y * sf.rfft2(v * w))

    def advective(c: np.ndarray) -> np.ndarray:
        u, v = flow(c)
        return -1 * KEPT * sf.rfft2(u * back(i * x * c) + v * back(i * y * c))

    return {"Basdevant": basdevant, "div (u w)": divergence, "u . grad w": advective}


def phis(z: np.ndarray) -> list[np.ndarray]:
    """phi_0 .. phi_3 in 80 bits: their series where |z| < 1, else from each other."""
    small, large = np.where(abs(z) < 1, z, 0), np.where(abs(z) < 1, 1, z)
    found, last = [np.exp(z)], np.exp(large)
    for k in range(1, 4):
        last = (last - 1 / LONG(math.factorial(k - 1))) / large
        series = sum(small**j / LONG(math.factorial(j + k)) for j in range(25))
        found.append(np.where(abs(z) < 1, series, last))
    return found


def steps(f: Form, h: float, count: int, real: type) -> list[np.ndarray]:
    z = -LONG(NU) * LONG(h) * K2
    (E, p1, p2, p3), (E2, q1, *_) = phis(z), phis(z / 2)
    made = E, E2, h / 2 * q1, h * (p1 - 3 * p2 + 4 * p3), h * (2 * p2 - 4 * p3), h * (4 * p3 - p2)
    E, E2, Q, f1, f2, f3 = (w.astype(real) for w in made)
    c, found = KEPT * sf.rfft2(start("ns")[0].astype(real)), []
    for _ in range(count):
        n0 = f(c)
        na = f(a := E2 * c + Q * n0)
        nb = f(E2 * c + Q * na)
        c = E * c + f1 * n0 + f2 * (na + nb) + f3 * f(E2 * a + Q * (2 * nb - n0))
        found.append(c)
    return found


def main() -> None:
    high = (K >= 80) & (K < 100)
    exact = steps(forms(np.float64)["u . grad w"], 0.005, 80, np.float64)[-1]
    w = start("ns")[0].astype(LONG)
    f = forms(LONG)["u . grad w"](KEPT * sf.rfft2(w))

    def error(c: np.ndarray) -> float:
        return float(abs(sf.irfft2((c - exact).astype(complex))).max() / abs(sf.irfft2(exact)).max())

    lines = [
        "# Round-off of vorticity's nonlinear part",
        "",
        "`python benchmarks/pde_roundoff.py`, see there.",
        "",
        "| form | round-off of f at k of 80 to 100 | error in 80 bits | in 64 | apart after each step |",
        "|---" * 5 + "|",
    ]
    for name in forms(LONG):
        long, double = (steps(forms(real)[name], 0.04, 10, real) for real in (LONG, np.float64))
        noise = abs(forms(np.float64)[name]((KEPT * sf.rfft2(w)).astype(complex)) - f) / N**2
        apart = [float(abs(a - b).max() / abs(b).max()) for a, b in zip(double, long, strict=True)]
        errors = f"{error(long[-1]):.1e} | {error(double[-1]):.1e}"
        lines.append(
            f"| {name} | {float(noise[high].max()):.0e} | {errors} | {', '.join(f'{a:.0e}' for a in apart)} |"
        )
        print(lines[-1], flush=True)
    end = (
        "Errors are of the field, over its largest value; how far the two are apart is of coefficients, "
        "over the largest."
    )
    RESULTS.write_text("\n".join([*lines, "", end, ""]))


if __name__ == "__main__":
    main()
