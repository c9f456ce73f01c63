"""Flows in two dimensions, as their vorticity."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..spectral import Fourier, Pointwise, RandomField, band
from .base import Number, system
from .pde import PDE, box, mean, seen, symbol, waves


def _flow(
    space: Fourier,
    viscosity: Number,
    drag: Number,
    x0: Tensor,
    t: float,
    dt: float,
    starts: RandomField,
    *,
    source: Tensor | None = None,
    exact: Callable[[float, Tensor], Tensor] | None = None,
) -> PDE:
    """w_t + u . grad w = nu Delta w - mu w + curl F, w the vorticity v_x - u_y of a flow (u, v) without
    divergence.

    The advection is curl div (u u) = (d_xx - d_yy)(u v) + d_xy (v^2 - u^2) (Basdevant 1983), two transforms
    each way in place of three and one more; u = psi_y, v = -psi_x and Delta psi = -w.
    """
    inverse = torch.where(space.k2 > 0, 1 / space.k2, 0)
    along, across = space.k
    advection = Pointwise(
        space,
        lambda u, v: (u * v, u * u - v * v),
        reads=(space.d(1) * inverse, -space.d(0) * inverse),
        writes=(along**2 - across**2, -along * across),
        source=source,
    )

    def enstrophy(w: Tensor) -> Tensor:
        return mean(w * w, 2) / 2

    def energy(w: Tensor) -> Tensor:
        """The mean of |u|^2/2, which is that of psi w/2."""
        c = space.enter(w)
        return mean(space.leave(inverse.to(c.dtype) * c) * w, 2) / 2

    kept: dict[str, Callable[[Tensor], Tensor]] = {}
    if not _any(drag):
        kept["mean"] = partial(mean, dim=2)
    if source is None and not _any(drag) and not _any(viscosity):
        kept |= {"energy": energy, "enstrophy": enstrophy}
    return PDE(
        f=advection,
        L=-symbol(viscosity, space) * space.k2 - symbol(drag, space),
        space=space,
        x0=x0,
        t=(0.0, t),
        dt=dt,
        starts=starts,
        labels=("vorticity",),
        invariants=kept,
        exact=exact,
        view=seen(space, "vorticity"),
    )


def _any(value: Number) -> bool:
    return bool(torch.as_tensor(value).any())


@system("Basdevant 1983; McWilliams 1984", above_zero=("length",))
def navier_stokes_2d(
    viscosity: float = 1e-3, drag: float = 0.0, length: float = 2 * math.pi, n: int = 128
) -> PDE:
    """w_t + u . grad w = nu Delta w - mu w: vortices of one sign merge, ever fewer remain.

    With nu = mu = 0 the truncated equations keep energy and enstrophy.

    Good values: n = 128 at nu = 1e-3 and velocities of 1 on 2 pi; dt = 0.5 length/(n u).
    """
    space = box(length, n, 2)
    return _flow(space, viscosity, drag, 4 * waves(space, 6), 20.0, 0.01, band(space, std=4.0))


@system("Taylor and Green 1937", above_zero=("viscosity", "length"))
def taylor_green(viscosity: float = 1e-2, length: float = 2 * math.pi, n: int = 64) -> PDE:
    """`navier_stokes_2d` from w = 2 cos(k x) cos(k y), k = 2 pi/length: rows of vortices that only fade, as
    e^(-2 nu k^2 t), since a function of psi does not advect itself.

    `exact` is for that start and its multiples. Good values: any.
    """
    space, k = box(length, n, 2), 2 * math.pi / length
    x, y = space.x
    x0 = (2 * torch.cos(k * x) * torch.cos(k * y))[None]

    def exact(t: float, x0: Tensor) -> Tensor:
        return x0 * torch.exp(torch.as_tensor(-2 * k * k * t * symbol(viscosity, space), dtype=torch.float64))

    return _flow(space, viscosity, 0.0, x0, 50.0, 0.05, band(space, 2**0.5, 2**0.5, std=0.2), exact=exact)


@system("Arnold and Meshalkin 1960; Kochkov and others 2021", above_zero=("length",))
def kolmogorov_flow(
    viscosity: float = 2e-3,
    drag: float = 0.1,
    force: float = 1.0,
    waves_of_force: int = 4,
    length: float = 2 * math.pi,
    n: int = 128,
) -> PDE:
    """`navier_stokes_2d` with the force A sin(k y) along x, k = 2 pi m/length: a shear flow that becomes
    turbulent.

    The flow A sin(k y)/(nu k^2 + mu) along x rests, if nothing disturbs it.

    Good values: m = 4, mu = 0.1, nu = 2e-3 at n = 128; nu = 1e-3 at n = 256; dt =
    0.01.
    """
    space = box(length, n, 2)
    k = 2 * math.pi * waves_of_force / length
    curl = space.enter((-k * torch.cos(k * space.x[1])).expand(space.n))  # -d_y of the force
    return _flow(
        space, viscosity, drag, waves(space), 50.0, 0.01, band(space), source=symbol(force, space) * curl
    )
