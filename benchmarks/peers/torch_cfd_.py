"""Navier-Stokes of torch-cfd, Carpenter-Kennedy RK4 with Crank-Nicolson; asked by benchmarks/pde.py."""

from __future__ import annotations

import torch
from pde_common import CASES, Run, serve, start
from torch_cfd.grids import Grid
from torch_cfd.spectral import NavierStokes2DSpectral, RK4CrankNicolsonStepper


def make(case: str, dtype: str, batch: int, dt: float) -> Run | None:
    if case != "ns" or batch > 1:
        return None
    about, kind = CASES[case], getattr(torch, dtype)
    torch.set_default_dtype(kind)
    grid = Grid((about["n"],) * 2, domain=((0.0, about["length"]),) * 2)
    equation = NavierStokes2DSpectral(about["nu"], grid, step_fn=RK4CrankNicolsonStepper()).to(kind)
    c0 = torch.fft.rfft2(torch.from_numpy(start(case)).to(kind))

    @torch.no_grad()
    def run(n: int):
        c = c0
        for _ in range(n):
            c, _ = equation(c, dt)
        return torch.fft.irfft2(c).numpy()

    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(make)
