"""Maxwell's equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..blocks import Blocks
from ..errors import ArgumentError
from ..spectral import nothing
from .base import system
from .pde import PDE
from .waves import grid, hump, shown


@system("Maxwell 1865", above_zero=("length", "speed"))
def maxwell(
    length: float = 2 * math.pi, n: int = 128, dim: int = 2, speed: float = 1.0, conductivity: float = 0.0
) -> PDE:
    """E_t = c^2 curl B - s E, B_t = -curl E, periodic. In one dimension the state is (E_z, c B_y), in two
    (E_z, c B_x, c B_y), the TM mode:

        E_t = c (dx B_y - dy B_x) - s E,  B_x,t = -c dy E,  B_y,t = c dx E

    with c B written B. The TE mode is the same of (c B_z, -E_x, -E_y), where s = 0.

    Exact at any dt, with losses as well: L is a block of each mode, f nothing. Energy and the divergence of B
    are kept to round-off. Starts from a hump of E.
    """
    if conductivity < 0:
        raise ArgumentError(f"conductivity = {conductivity}: 0 or more")
    space = grid(length, n, dim, 2, 1.0)
    x, loss = speed * space.d(0), -conductivity
    if dim == 1:
        L = Blocks.of([[loss, x], [x, 0.0]])
    else:
        y = speed * space.d(1)
        L = Blocks.of([[loss, -y, x], [-y, 0.0, 0.0], [x, 0.0, 0.0]])
    E = hump(space, length / 24)

    def energy(state: Tensor) -> Tensor:
        return (state * state).sum(-1 - dim).mean(tuple(space.axes)) / 2

    return PDE(
        f=nothing,
        L=L,
        space=space,
        x0=torch.stack([E] + [torch.zeros_like(E)] * dim)[None],
        t=(0.0, length / float(speed)),
        dt=length / float(speed) / 64,
        labels=("E_z", "c B_y") if dim == 1 else ("E_z", "c B_x", "c B_y"),
        invariants={} if conductivity else {"energy": energy},
        view=shown(space, "E_z"),
    )
