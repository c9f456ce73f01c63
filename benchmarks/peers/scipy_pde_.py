"""solve_ivp of scipy on the coefficients of the equations in one dimension; asked by benchmarks/pde.py.

Kuramoto-Sivashinsky with BDF and the diagonal of L as the Jacobian's main part, Korteweg-de Vries with DOP853.
"""

from __future__ import annotations

import math

import numpy as np
from pde_common import CASES, Run, serve, start
from scipy.integrate import solve_ivp
from scipy.sparse import diags


def make(case: str, dtype: str, batch: int, tol: float) -> Run | None:
    about = CASES[case]
    if about["dim"] > 1 or batch > 1 or dtype == "float32":
        return None
    n = about["n"]
    k = 2 * math.pi / about["length"] * np.arange(n // 2 + 1)
    L, slope = (k**2 - k**4, -0.5) if case == "ks" else (1j * k**3, -3.0)
    slope = slope * 1j * k * (np.arange(n // 2 + 1) < n / 3)
    c0 = np.fft.rfft(start(case)[0])

    def rate(t, c):
        return L * c + slope * np.fft.rfft(np.fft.irfft(c, n) ** 2)

    how = {"method": "BDF", "jac": diags(L.astype(complex)).tocsc()} if case == "ks" else {"method": "DOP853"}

    def run(steps: int):
        if steps == 2:  # nothing to compile
            return None
        end = solve_ivp(rate, (0.0, about["t"]), c0 + 0j, rtol=tol, atol=tol * np.abs(c0).max() * 1e-3, **how)
        return np.fft.irfft(end.y[:, -1], n)[None]

    return run


if __name__ == "__main__":
    serve(make)
