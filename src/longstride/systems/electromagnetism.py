"""Maxwell's equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..blocks import Blocks
from ..errors import ArgumentError
from ..spectral import band
from .base import system
from .pde import PDE, box, mean, seen, symbol
from .waves import hump


@system("Maxwell 1865", above_zero=("length", "speed"))
def maxwell(
    speed: float = 1.0, conductivity: float = 0.0, length: float = 2 * math.pi, n: int = 128, dim: int = 2
) -> PDE:
    """E_t = c^2 curl B - s E, B_t = -curl E, periodic. In one dimension the state is (E_z, c B_y), in two
    (E_z, c B_x, c B_y), the TM mode:

        E_t = c (dx B_y - dy B_x) - s E,  B_x,t = -c dy E,  B_y,t = c dx E

    with c B written B. The TE mode is the same of (c B_z, -E_x, -E_y), where s = 0.

    Exact at any dt, with losses as well: L is a block of each mode, and there is no f. Energy and the
    divergence of B are kept to round-off. Starts from a hump of E.
    """
    if dim > 2 or float(torch.as_tensor(conductivity).min()) < 0:
        raise ArgumentError(f"dim = {dim}, conductivity = {conductivity}: 1 or 2; 0 or more")
    space = box(length, n, dim, dealias=1.0)
    c, loss = symbol(speed, space), -symbol(conductivity, space)
    x = c * space.d(0)
    if dim == 1:
        L = Blocks.of([[loss, x], [x, 0.0]], dim)
    else:
        y = c * space.d(1)
        L = Blocks.of([[loss, -y, x], [-y, 0.0, 0.0], [x, 0.0, 0.0]], dim)
    E = hump(space, length / 24)

    def electric(E: Tensor) -> Tensor:
        """No magnetic field at the start."""
        return torch.stack([E] + [torch.zeros_like(E)] * dim, 1)

    lossless = not bool(torch.as_tensor(conductivity).any())
    return PDE(
        L=L,
        space=space,
        x0=torch.stack([E] + [torch.zeros_like(E)] * dim)[None],
        t=(0.0, length),
        dt=length / 64,
        starts=band(space, through=electric),
        labels=("E_z", "c B_y") if dim == 1 else ("E_z", "c B_x", "c B_y"),
        invariants={"energy": lambda x: mean((x * x).sum(-1 - dim), dim) / 2} if lossless else {},
        view=seen(space, "E_z", lambda x: x.select(-1 - dim, 0)),
    )
