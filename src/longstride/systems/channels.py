"""Flow between two walls, in two dimensions, as its stream function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import unknown
from ..spectral import Channel, Chebyshev, Fourier, Matrices, Pointwise, band
from .base import Frames, Number, system, wide
from .pde import PDE

# U and U'' on [-1, 1]
SHEARS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "poiseuille": (lambda y: 1 - y * y, -2.0),
    "couette": (lambda y: y, 0.0),
}


def _view(space: Channel, colour: str, shown: Callable[[Tensor], Tensor]) -> Frames:
    """shown takes a state to one field [..., n, m], which is drawn at equidistant points across."""
    a, b = space.across[0].ends
    rows = space.across[0].at(torch.linspace(a, b, 2 * space.n[1], dtype=torch.float64))
    return Frames(lambda x: shown(x) @ rows.mT.to(x), colour, (space.length[0], space.length[1]))


def _random(
    space: Channel, std: float, state: Callable[[Tensor], Tensor]
) -> Callable[[int | Sequence[int], int], Tensor]:
    """sin^2(pi y) and sin(pi y) sin(2 pi y) across, y from wall to wall, times waves along."""
    fields, (a, b) = band(space.along, components=(2,), std=std), space.across[0].ends
    y = math.pi * (space.across[0].x[0] - a) / (b - a)
    shapes = torch.stack([torch.sin(y) ** 2, torch.sin(y) * torch.sin(2 * y)])

    def waves_across(samples: int | Sequence[int], seed: int) -> Tensor:
        return state(torch.einsum("bjn,jm->bnm", fields(samples, seed), shapes))

    return waves_across


def _stirred(fields: Tensor) -> Tensor:
    """-u . grad a, u = (psi_y, -psi_x), of psi_x, psi_y and a_x, a_y of each a, [..., 2 + 2 A, m - 2, n]."""
    psi_x, psi_y, *slopes = fields.unbind(-3)
    return torch.stack(
        [psi_x * a_y - psi_y * a_x for a_x, a_y in zip(slopes[::2], slopes[1::2], strict=True)], -3
    )


def _number(value: Number) -> Number:
    """A parameter beside the matrices of modes along: [B] becomes [B, 1, 1, 1]."""
    return wide(value.to("cpu", torch.float64) if isinstance(value, Tensor) else value, 3)


def _bent(space: Channel) -> tuple[Tensor, Tensor, Tensor]:
    """Of a stream function, Delta, d_y Delta and Delta^2: its walls are clamped, its Laplacian's are not."""
    x2, y = space.d(0, 2), space.d(1)
    return space.laplace(), space.d(1, 3) + x2 @ y, space.d(1, 4) + 2 * x2 @ space.d(1, 2) + x2 @ x2


@system("Rayleigh 1916; Pellew and Southwell 1940", above_zero=("rayleigh", "prandtl", "length"))
def rayleigh_benard(
    rayleigh: float = 5000.0, prandtl: float = 0.71, length: float = 4.0314, n: int = 64, m: int = 24
) -> PDE:
    """Convection between a warm wall, y = 0, and a cold one, y = 1. The state is the stream function and by
    how much the temperature differs from 1 - y, (psi, theta), [B, 2, n, m]; u = psi_y, v = -psi_x, and

        Delta psi_t + u . grad Delta psi = Pr Delta^2 psi - Pr Ra theta_x
        theta_t + u . grad theta = Delta theta - psi_x

    with psi = psi_y = theta = 0 at the walls: nothing is carried along on the whole. The unit of time is that
    of thermal diffusion across. All that is linear is in L, a matrix of each mode, buoyancy too.

    Nothing moves below Ra = 1707.762, where rolls of wavenumber 3.116 begin to grow; the default length is
    two of 2 pi/3.117. Heat passes Nu times as fast as by conduction, `metrics.nusselt`: 2.110 at the default
    parameters (2.116 with the fewer modes of Clever and Busse 1974).

    Good values: dt = 0.002 at Ra = 5000, less as Ra^(-2/3); layers at the walls want m as Ra^(1/3).
    """
    walls = ("clamped", "dirichlet")
    space = Channel([Chebyshev((0.0, 1.0), m, wall, wall) for wall in walls], Fourier(length, n))
    laplace, laplace_y, bilaplace = _bent(space)
    inverse, k = torch.linalg.inv(laplace), space.along.d(0)[:, None, None]
    x, y, theta_y = space.d(0), space.d(1), space.d(1, field=1)
    stream: list[list[Tensor | float]] = [[x, 0], [y, 0], [k * laplace, 0], [laplace_y, 0]]
    Ra, Pr = (_number(value) for value in (rayleigh, prandtl))

    def still(theta: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(theta), theta], -3)

    along, across = space.x
    bump = 0.01 * torch.sin(math.pi * across) * torch.cos(4 * math.pi / length * along)
    return PDE(
        f=Pointwise(
            space.along,
            _stirred,
            reads=(Matrices(space, [*stream, [0, x], [0, theta_y]]),),
            writes=(Matrices(space, [[inverse, 0], [0, 1]]).write,),
        ),
        L=space.blocks([[Pr * (inverse @ bilaplace), -Pr * Ra * k * inverse], [-x, space.laplace(1)]]),
        space=space,
        x0=still(bump[None]),
        t=(0.0, 1.0),
        dt=0.002,
        starts=_random(space, 0.1, still),
        labels=("psi", "theta"),
        view=_view(space, "temperature", lambda state: 1 - across.to(state) + state.select(-3, 1)),
    )


@system("Orr 1907; Sommerfeld 1908; Orszag 1971", above_zero=("reynolds", "length"))
def channel_flow(
    reynolds: float = 10000.0, flow: str = "poiseuille", length: float = 2 * math.pi, n: int = 64, m: int = 48
) -> PDE:
    """What disturbs a flow U(y) along x between walls at y = -1 and 1, as its stream function psi [B, n, m]:

        Delta psi_t + (U + u) . grad Delta psi = U'' psi_x + Delta^2 psi/Re,    psi = psi_y = 0 at the walls

    with u = psi_y, v = -psi_x, Re from U's largest value and half the width. All that is linear is in L, a
    matrix of each mode. The flux is that of U, whatever the disturbance is.

    flow: "poiseuille", U = 1 - y^2, driven by a pressure; "couette", U = y, by the walls.

    Small disturbances grow in Poiseuille's flow above Re = 5772.22, where the wavenumber 1.02056 does
    first; at the default parameters as e^(0.00373967 t). In Couette's flow none does.

    Good values: dt = 0.05, m = 48 at Re = 10000; m as Re^(1/2).
    """
    if flow not in SHEARS:
        raise unknown("flow", flow, SHEARS)
    space = Channel(Chebyshev((-1.0, 1.0), m, "clamped", "clamped"), Fourier(length, n))
    U, bent = SHEARS[flow]
    laplace, laplace_y, bilaplace = _bent(space)
    inverse, k = torch.linalg.inv(laplace), space.along.d(0)[:, None, None]
    along, across = space.x

    def vorticity(psi: Tensor) -> Tensor:
        """Of the disturbance."""
        second = space.across[0].derivative(2).to(psi)
        c = space.along.enter(psi.movedim(-1, -2))
        return -(psi @ second.mT + space.along.leave(space.along.d(0, 2).to(psi) * c).movedim(-2, -1))

    carried = k * (inverse @ (bent * torch.eye(m - 2, dtype=torch.float64) - U(across[1:-1, None]) * laplace))
    return PDE(
        f=Pointwise(
            space.along,
            _stirred,
            reads=(Matrices(space, [[space.d(0)], [space.d(1)], [k * laplace], [laplace_y]]),),
            writes=(Matrices(space, [[inverse]]).write,),
        ),
        L=space.blocks([[carried + inverse @ bilaplace / _number(reynolds)]]),
        space=space,
        x0=(0.05 * (1 - across**2) ** 2 * torch.cos(2 * math.pi / length * along))[None],
        t=(0.0, 50.0),
        dt=0.05,
        starts=_random(space, 0.02, lambda psi: psi),
        labels=("psi",),
        view=_view(space, "vorticity", vorticity),
    )
