"""A loop written by hand: ETDRK4 as in Kassam and Trefethen 2005, eager torch, all modes kept, a mask for
the nonlinear part; asked by benchmarks/pde.py as the peers are.
"""

from __future__ import annotations

import math

import torch
from pde_common import CASES, THREADS, Run, serve, start
from torch import Tensor

POINTS = 32  # of a contour of radius 1 around h L


def coefficients(L: Tensor, h: float) -> tuple[Tensor, ...]:
    """E, E2, Q, f1, f2, f3, by means over a whole circle, since L may be complex."""
    angle = 2 * math.pi * (torch.arange(1, POINTS + 1, dtype=torch.float64) - 0.5) / POINTS
    z = (h * L)[..., None] + torch.polar(torch.ones_like(angle), angle)
    e, z3 = z.exp(), z**3
    means = (
        ((z / 2).exp() - 1) / z,
        (-4 - z + e * (4 - 3 * z + z * z)) / z3,
        (2 + z + e * (z - 2)) / z3,
        (-4 - 3 * z - z * z + e * (4 - z)) / z3,
    )
    made = ((h * L).exp(), (h * L / 2).exp(), *(h * m.mean(-1) for m in means))
    return made if L.is_complex() else tuple(c.real for c in made)


def parts(case: str, dtype: torch.dtype):
    """L, and the nonlinear part of the transform."""
    about = CASES[case]
    n, dim, nu = about["n"], about["dim"], about.get("nu")
    axes = tuple(range(-dim, 0))
    one = 2 * math.pi / about["length"] * n
    waves = [torch.fft.fftfreq(n, dtype=torch.float64) * one] * (dim - 1)
    waves.append(torch.fft.rfftfreq(n, dtype=torch.float64) * one)
    k = [w.view(-1, *(1,) * (dim - 1 - i)) for i, w in enumerate(waves)]
    k2 = sum(w * w for w in k)
    share = 1 / 2 if case in ("ac", "gs") else 2 / 3
    mask = math.prod((w.abs() < share * one / 2).to(dtype) for w in k)

    def back(c: Tensor) -> Tensor:
        return torch.fft.irfftn(c, s=(n,) * dim, dim=axes)

    def forth(u: Tensor) -> Tensor:
        return torch.fft.rfftn(u, dim=axes)

    kind = torch.complex64 if dtype == torch.float32 else torch.complex128
    if case in ("ks", "kdv"):
        L, slope = (k2 - k2**2, -0.5) if case == "ks" else (1j * k[0] ** 3, -3.0)
        g = (slope * 1j * k[0] * mask).to(kind)
        return L, forth, back, lambda c: g * forth(back(c) ** 2)
    if case == "ac":
        return 1 - nu * k2, forth, back, lambda c: forth(-(back(mask * c) ** 3)) * mask
    if case == "gs":
        feed, kill = about["feed"], about["kill"]

        def reaction(c: Tensor) -> Tensor:
            u, v = back(mask * c).unbind(-3)
            eaten = u * v * v
            return mask * forth(torch.stack([feed - eaten, eaten], -3))

        return torch.stack([-nu[0] * k2 - feed, -nu[1] * k2 - feed - kill]), forth, back, reaction
    inverse = torch.where(k2 > 0, 1 / k2, 0)
    x, y = ((1j * w).to(kind) for w in k)
    up, down = ((1j * w * inverse).to(kind) for w in (k[1], -k[0]))

    def advection(c: Tensor) -> Tensor:
        c = mask * c
        return -mask * forth(back(up * c) * back(x * c) + back(down * c) * back(y * c))

    return -nu * k2, forth, back, advection


def make(case: str, dtype: str, batch: int, dt: float) -> Run:
    kind = getattr(torch, dtype)
    L, forth, back, N = parts(case, kind)
    complex_kind = torch.complex64 if kind == torch.float32 else torch.complex128
    E, E2, Q, f1, f2, f3 = (c.to(complex_kind if c.is_complex() else kind) for c in coefficients(L, dt))
    x0 = torch.from_numpy(start(case)).to(kind)
    x0 = x0.expand(batch, *x0.shape)

    @torch.no_grad()
    def run(n: int):
        v = forth(x0)
        for _ in range(n):
            Nv = N(v)
            a = E2 * v + Q * Nv
            Na = N(a)
            b = E2 * v + Q * Na
            Nb = N(b)
            c = E2 * a + Q * (2 * Nb - Nv)
            v = E * v + f1 * Nv + 2 * f2 * (Na + Nb) + f3 * N(c)
        end = back(v).numpy()
        return end[0] if batch == 1 else end

    return run


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    serve(make)
