"""py-pde on the equations in fields, by finite differences of second order; asked by benchmarks/pde.py.

Runge-Kutta-Fehlberg's steps by a tolerance, as `PDE.solve` has them. numba compiles its functions in a run
of a thousandth of a unit of time, which is not timed; points are half a cell off, which no periodic equation
sees.
"""

from __future__ import annotations

import numpy as np
from pde_common import CASES, Run, serve, start

import pde


def rates(case: str) -> dict[str, str] | None:
    about = CASES[case]
    if case == "ks":
        return {"u": "-laplace(laplace(u) + u) - 0.5 * d_dx(u**2)"}
    if case == "ac":
        return {"u": f"{about['nu']} * laplace(u) + u - u**3"}
    if case == "gs":
        one, other, feed, kill = *about["nu"], about["feed"], about["kill"]
        return {
            "u": f"{one} * laplace(u) - u * v**2 + {feed} * (1 - u)",
            "v": f"{other} * laplace(v) + u * v**2 - {feed + kill} * v",
        }
    return None


def make(case: str, dtype: str, batch: int, tol: float) -> Run | None:
    about, rhs = CASES[case], rates(case)
    if rhs is None or batch > 1 or dtype == "float32":
        return None
    grid = pde.CartesianGrid([[0, about["length"]]] * about["dim"], about["n"], periodic=True)
    fields = [pde.ScalarField(grid, u) for u in start(case)]
    equation = pde.PDE(rhs)
    state = fields[0] if len(fields) == 1 else pde.FieldCollection(fields)

    def run(steps: int):
        how = {"solver": "runge-kutta", "adaptive": True, "tolerance": tol, "dt": 1e-4, "tracker": None}
        end = equation.solve(state, t_range=1e-3 if steps == 2 else about["t"], **how)
        return np.asarray(end.data).reshape(start(case).shape)

    return run


if __name__ == "__main__":
    serve(make)
