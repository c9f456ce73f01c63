"""Energy, enstrophy and dissipation of incompressible flows in 2 and 3 dimensions.

Each is a function of a space and a field, means over the box: `partial(kinetic_energy, pde.space)` is a
function of states, such as what is watched during a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core import beside
from ..errors import ArgumentError

if TYPE_CHECKING:
    from ..spectral import Channel, Fourier


def vorticity(space: Fourier, u: Tensor) -> Tensor:
    """curl u of a velocity u [..., 2, *n] or [..., 3, *n]: [..., *n] in 2D, [..., 3, *n] in 3D."""
    c = space.enter(_components(space, u))

    def d(axis: int, component: int) -> Tensor:
        return _times(space.d(axis), c.select(-space.dim - 1, component))

    if space.dim == 2:
        return space.leave(d(0, 1) - d(1, 0))
    curl = [d(i, j) - d(j, i) for i, j in ((1, 2), (2, 0), (0, 1))]
    return space.leave(torch.stack(curl, -space.dim - 1))


def velocity(space: Fourier, w: Tensor) -> Tensor:
    """The velocity [..., 2, *n] without a mean of a vorticity w [..., *n] in 2D: u = (d psi/dy, -d psi/dx),
    where the Laplacian of the stream function psi is -w.
    """
    if space.dim != 2:
        raise ArgumentError(f"a vorticity in {space.dim} dimensions: a stream function is for 2")
    k2 = space.k2.clone()
    k2[0, 0] = 1.0  # psi is determined but for a constant
    psi = _times(1 / k2, space.enter(w))
    return space.leave(torch.stack([_times(space.d(1), psi), _times(-space.d(0), psi)], -3))


def kinetic_energy(space: Fourier, u: Tensor) -> Tensor:
    """<|u|^2>/2 of a velocity [..., dim, *n]: [...]."""
    return _components(space, u).square().flatten(-space.dim - 1).sum(-1) / (2 * _points(space))


def enstrophy(space: Fourier, w: Tensor) -> Tensor:
    """<|w|^2>/2 of a vorticity [..., *n] in 2D, [..., 3, *n] in 3D: [...]."""
    if space.dim == 2:
        return w.square().flatten(-2).sum(-1) / (2 * _points(space))
    return kinetic_energy(space, w)


def dissipation(space: Fourier, w: Tensor, viscosity: float) -> Tensor:
    """The rate at which viscosity takes energy from a flow with vorticity w: [...].

    nu <|grad u|^2> = nu <|w|^2> if div u = 0 in a periodic box: twice nu times `enstrophy`.
    """
    return 2 * viscosity * enstrophy(space, w)


def nusselt(space: Channel, x: Tensor) -> Tensor:
    """By how much more heat enters at the lower wall than conduction would carry, of states (psi, theta) of
    `systems.rayleigh_benard`, [..., 2, *n, m]: 1 - <theta_y>, [...].

    Raises:
        ArgumentError: states of other fields, or on other points.
    """
    if len(space.across) != 2 or tuple(x.shape[-space.dim - 1 :]) != (2, *space.n):
        fields = len(space.across)
        raise ArgumentError(
            f"a state {list(x.shape)} of {fields} fields on {space.n}: (psi, theta), [..., 2, *n, m]"
        )
    slope = beside(space.across[1].derivative(1)[0], x)
    return 1 - (x.select(-1 - space.dim, 1) @ slope).flatten(1 - space.dim).mean(-1)


def _components(space: Fourier, u: Tensor) -> Tensor:
    if space.dim not in (2, 3) or u.ndim <= space.dim or u.shape[-space.dim - 1] != space.dim:
        raise ArgumentError(
            f"a velocity {list(u.shape)} in {space.dim} dimensions: [..., {space.dim}, *n], n of 2 or 3 axes"
        )
    return u


def _points(space: Fourier) -> int:
    return torch.Size(space.n).numel()


def _times(symbol: Tensor, c: Tensor) -> Tensor:
    return beside(symbol, c) * c
