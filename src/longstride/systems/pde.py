"""A partial differential equation as data: a space, a linear symbol, and what happens point by point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..problem import Space, broadcasts
from ..spectral import Box, Fourier, band, nothing
from ..spectral.random import most_waves
from .base import Frames, Number, SpaceTime, System, wide


@dataclass(frozen=True, kw_only=True)
class PDE(System):
    """u_t = L u + f(t, u) on a `space`: L is the linear symbol, f the rest, both of coefficients.

    `ls.solve(pde, pde.x0, t=pde.t, method="etdrk4", dt=pde.dt)`; states are fields [B, *n], or [B, C, *n] of
    C fields. An equation of one's own needs a space, L and f; f is a `Pointwise`, or any function of (t, c).

    L: float64 or complex128, one number for each coefficient, broadcasting with a state's, or `ls.Blocks`
    where it mixes fields.  x0: without one, `waves` of the longest lengths.
    starts: random starts [B, ...] like x0 of (samples or their indices, seed), for `random_starts`.

    Raises:
        ArgumentError: no space, or an L that does not fit its coefficients.
    """

    space: Space | None
    f: Callable[[Tensor, Any], Any] = nothing
    x0: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    t: tuple[float, float] = (0.0, 1.0)
    dt: float = 0.01
    labels: tuple[str, ...] = ("u",)
    methods: tuple[str, ...] = ("etdrk4",)
    starts: Callable[[int | Sequence[int], int], Tensor] | None = None

    @property
    def random_starts(self) -> Callable[[int | Sequence[int], int], Tensor]:
        """`starts`, or truncated Fourier series of five waves.

        Raises:
            ArgumentError: neither, on another space.
        """
        if self.starts is not None:
            return self.starts
        if not isinstance(self.space, Fourier):
            raise ArgumentError(f"no random fields on {type(self.space).__name__}: give the equation starts=")
        return band(self.space, components=tuple(self.x0.shape[1 : -self.space.dim]))

    def __post_init__(self) -> None:
        if self.space is None:
            raise ArgumentError(
                "a PDE needs space=, such as ls.Fourier(length, n); without one it is an ls.ODE"
            )
        if not isinstance(self.space, Fourier):
            return
        shape, dim = self.space.shape, self.space.dim
        if isinstance(self.L, Tensor) and self.L.shape[-dim:] != shape:
            raise ArgumentError(
                f"L {tuple(self.L.shape)} on coefficients {tuple(shape)}: make it of space.k2, space.d(axis)"
            )
        if not self.x0.numel():
            object.__setattr__(self, "x0", waves(self.space))
        if self.view == System.view:
            object.__setattr__(self, "view", self._usual_view(self.space))

    def _usual_view(self, space: Fourier) -> SpaceTime | Frames:
        """One field below the other, as `labels` has them; of a complex field the modulus."""
        if self.x0.ndim == space.dim + 2:
            fields = self.x0.shape[1]
            names = self.labels if len(self.labels) == fields else tuple(f"u_{i + 1}" for i in range(fields))
            return seen(space, names, lambda u: u.unbind(-space.dim - 1))
        return seen(space) if space.real else seen(space, "|u|", torch.abs)

    def demand(self, x: Tensor) -> None:
        """
        Raises:
            ArgumentError: x has other fields than x0, or not as many fields and samples as L.
        """
        dim = getattr(self.space, "dim", 0)
        lead, fields = x.shape[: x.ndim - dim], self.x0.shape[1 : self.x0.ndim - dim]
        if fields and lead[1:] != fields:
            raise ArgumentError(
                f"x0 {tuple(x.shape)}: {self.name or 'this equation'} has the fields "
                f"{', '.join(self.labels)}, give {['B', *fields, *x.shape[len(lead) :]]}".replace("'", "")
            )
        if isinstance(self.L, Tensor) and isinstance(self.space, Fourier):
            c = (*lead, *self.space.shape)
            if not broadcasts(self.L.shape, c):
                raise ArgumentError(
                    f"L {tuple(self.L.shape)} on coefficients {c} of x0: give x0 as many fields, or samples"
                )
        super().demand(x)


def box(length: float, n: int, dim: int = 1, walls: str = "periodic", **options: Any) -> Fourier:
    """The same length and number of points along 1 to 3 axes.

    walls: "periodic", or what a `Box` has: "neumann", "dirichlet", or one for each axis, "periodic,neumann".

    Raises:
        ArgumentError: more axes, or what `Fourier` and `Box` refuse.
    """
    if dim > 3:
        raise ArgumentError(f"dim = {dim}: 1, 2 or 3")
    if walls == "periodic":
        return Fourier(length, [n] * dim, **options)
    return Box(length, [n] * dim, walls, **options)


def symbol(value: Number, space: Fourier) -> Number:
    """A parameter beside the symbols of a space, as precise as they are: [B] becomes [B, 1, ...]."""
    return wide(value.to("cpu", torch.float64) if isinstance(value, Tensor) else value, space.dim)


def several(*symbols: Tensor, space: Fourier) -> Tensor:
    """Symbols of several fields as one, [..., C, *space.shape]."""
    return torch.stack(torch.broadcast_tensors(*symbols), -space.dim - 1)


def waves(space: Fourier, highest: int = 4) -> Tensor:
    """A random field [1, *n] of the waves that go 1 to `highest` times into the box, rms about 1, mean 0."""
    most = min(highest, most_waves(space))
    return band(space, min(1, most), most)(1)


def seen(
    space: Fourier, colour: str | tuple[str, ...] = "u", shown: Callable[[Tensor], Any] = lambda u: u
) -> SpaceTime | Frames:
    """How fields on a space are drawn; shown takes a state to a field [..., *n], or to a tuple of such.

    In one dimension space against time, in two an image for each time, in three that of the first plane.
    """
    if space.dim == 1:
        return SpaceTime(shown, "x", colour, 0.0, space.length[0])

    def plane(u: Tensor) -> Any:
        found = shown(u)
        return tuple(v[..., 0] for v in found) if isinstance(found, tuple) else found[..., 0]

    return Frames(shown if space.dim == 2 else plane, colour, (space.length[0], space.length[1]))


def gradient(space: Fourier, u: Tensor) -> Tensor:
    """The derivatives of a field [..., *n] along all axes, [dim, ..., *n]."""
    c = space.enter(u)
    return torch.stack([space.turned(axis).leave(space.d(axis).to(c) * c) for axis in range(space.dim)])


def mean(u: Tensor, dim: int = 1) -> Tensor:
    """Over the points of a field [..., *n]."""
    return u.mean(tuple(range(-dim, 0)))
