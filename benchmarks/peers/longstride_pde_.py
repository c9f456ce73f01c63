"""ETDRK4 of longstride, asked by benchmarks/pde.py as the peers are."""

from __future__ import annotations

import torch
from pde_common import CASES, Run, serve, start
from torch import Tensor

import longstride as ls
from longstride.spectral import Fourier, Pointwise


def equation(case: str) -> ls.ODE:
    about = CASES[case]
    size = about["length"], (about["n"],) * about["dim"]
    if case == "ks":
        return ls.systems.kuramoto_sivashinsky(about["length"], about["n"])
    if case == "kdv":
        return ls.systems.korteweg_de_vries(about["length"], about["n"])
    if case == "ac":
        space = Fourier(*size, dealias=1 / 2)
        return ls.ODE(Pointwise(space, lambda u: -u * u * u), L=1 - about["nu"] * space.k2, space=space)
    if case == "gs":
        return gray_scott(Fourier(*size, dealias=1 / 2), about["feed"], about["kill"], *about["nu"])
    space = Fourier(*size)
    inverse = torch.where(space.k2 > 0, 1 / space.k2, 0)
    along, across = space.k
    advection = Pointwise(  # Basdevant 1983
        space,
        lambda u, v: (u * v, (u * u).addcmul_(v, v, value=-1)),
        reads=(space.d(1) * inverse, -space.d(0) * inverse),
        writes=(along**2 - across**2, -along * across),
    )
    return ls.ODE(advection, L=-about["nu"] * space.k2, space=space)


def gray_scott(space: Fourier, feed: float, kill: float, one: float, other: float) -> ls.ODE:
    def eaten(x: Tensor) -> Tensor:
        u, v = x.split(1, -3)
        return u * v * v

    fed = (space.k2 == 0) * feed
    f = Pointwise(
        space,
        eaten,
        writes=(torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1),),
        source=torch.stack([fed, torch.zeros_like(fed)]),
    )
    return ls.ODE(f, L=torch.stack([-one * space.k2 - feed, -other * space.k2 - feed - kill]), space=space)


def fields(case: str, dtype: str, batch: int) -> Tensor:
    """[B, C, *n], without C where an equation has one field."""
    x0 = torch.from_numpy(start(case)).to(getattr(torch, dtype))
    x0 = x0 if case == "gs" else x0[0]
    return x0.expand(batch, *x0.shape)


def make(case: str, dtype: str, batch: int, dt: float) -> Run:
    step, x0 = ls.stepper(equation(case), "etdrk4", dt=dt), fields(case, dtype, batch)

    def run(n: int):
        return step.repeat(x0, n, grad=False).numpy()

    run(20)  # binds
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(make)
