"""ETDRK4 of longstride, asked by benchmarks/pde.py as the peers are; "compile": native, where it can be."""

from __future__ import annotations

import math
import sys

import torch
from pde_common import CASES, THREADS, Run, serve, start
from torch import Tensor

import longstride as ls


def equation(case: str) -> ls.PDE:
    about, systems = CASES[case], ls.systems
    size = {"length": about["length"], "n": about["n"]}
    if case == "ks":
        return systems.kuramoto_sivashinsky(**size)
    if case == "kdv":
        return systems.korteweg_de_vries(**size)
    if case == "ac":
        return systems.allen_cahn(math.sqrt(about["nu"]), **size)
    if case == "gs":
        return systems.gray_scott(about["feed"], about["kill"], *about["nu"], **size)
    return systems.navier_stokes_2d(about["nu"], **size)


def fields(case: str, dtype: str, batch: int) -> Tensor:
    """[B, C, *n], without C where an equation has one field."""
    x0 = torch.from_numpy(start(case)).to(getattr(torch, dtype))
    x0 = x0 if case == "gs" else x0[0]
    return x0.expand(batch, *x0.shape)


def make(case: str, dtype: str, batch: int, dt: float) -> Run | None:
    compile = "compile" in sys.argv
    if compile and CASES[case]["dim"] > 1:
        return None
    step, x0 = ls.stepper(equation(case), "etdrk4", dt=dt, compile=compile), fields(case, dtype, batch)

    def run(n: int):
        return step.repeat(x0, n, grad=False).numpy()

    run(20)  # binds
    return run


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    serve(make)
