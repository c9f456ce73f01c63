"""Phi-functions, and the linear frames that methods integrate in.

A method integrates du/dtau = L u + F in a clock tau of its own; the user has x and t. An `Operator` is
the change of variables between them, x = S(t) u and tau = clock(t), together with L. Methods write
weights in u; `Operator.row` turns a row into weights of x, which stay finite where S does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .core import Weight
from .matrix import Matrix

NEAR, TERMS = 3.0, 26  # below |z| = 3, this many terms of Taylor's series are round-off


def exp(z: Weight) -> Weight:
    """e^z for a number, a tensor or a matrix."""
    if isinstance(z, Matrix):
        return z.phi(0)
    return torch.exp(z) if isinstance(z, Tensor) else math.exp(z)


def phi(k: int, z: Weight) -> Weight:
    """phi_k(z) = int_0^1 e^((1-s) z) s^(k-1)/(k-1)! ds, phi_0 = exp; z a number, a tensor or a matrix."""
    return phis(z, k)[k]


def phis(z: Weight, most: int) -> list[Weight]:
    """phi_0(z), ..., phi_most(z), to a few units of round-off for real, imaginary and complex z.

    Far from 0 the recurrence phi_k = (phi_(k-1) - 1/(k-1)!)/z goes up; near 0, where it cancels, it goes down
    from Taylor's series of the last, phi_(k-1) = z phi_k + 1/(k-1)!.
    """
    if isinstance(z, Matrix):
        return [z.phi(k) for k in range(most + 1)]
    if not isinstance(z, Tensor):
        return _down(z, most) if abs(z) < NEAR else _up(z, most)
    near = z.abs() < NEAR
    inside, outside = _down(torch.where(near, z, 0), most), _up(torch.where(near, NEAR, z), most)
    pairs = zip(inside[1:], outside[1:], strict=True)
    return [torch.exp(z), *(torch.where(near, a, b) for a, b in pairs)]


def _down(z: Weight, most: int) -> list[Weight]:
    last: Weight = z * 0 + 1 / math.factorial(most + TERMS)
    for j in reversed(range(TERMS)):
        last = last * z + 1 / math.factorial(most + j)
    found = [last]
    for k in reversed(range(1, most)):
        found.append(z * found[-1] + 1 / math.factorial(k))
    return [exp(z), *reversed(found)][: most + 1]


def _up(z: Weight, most: int) -> list[Weight]:
    found = [exp(z)]
    for k in range(most):
        found.append((found[-1] - 1 / math.factorial(k)) / z)
    return found


class Phis:
    """phi_k(c z): made once for each c, whoever asks for them."""

    def __init__(self, z: Weight) -> None:
        self.z = z
        self.made: dict[float, list[Weight]] = {}

    def __call__(self, k: int, c: float) -> Weight:
        if len(self.made.get(c, ())) <= k:
            self.made[c] = phis(c * self.z, max(k, 3)) if k else [exp(c * self.z)]
        return self.made[c][k]


class Operator(Protocol):
    """What a method needs to know of a problem to write its weights."""

    @property
    def L(self) -> Weight: ...

    @property
    def field(self) -> int:
        """Which field F is."""

    def clock(self, t: float) -> float:
        """tau(t); infinite where the frame is singular."""

    def time(self, tau: float) -> float:
        """t(tau), the inverse of clock."""

    def variable(self, name: str, t: float) -> float:
        """The variable in which a multistep method may interpolate: "t", "lambda" or "sigma"."""

    def row(self, t: float, x: Sequence[tuple[float, Weight]], f: Sequence[Weight]) -> tuple:
        """Weights (x, f) of the user's x at time t, from weights of u: x is (time, weight) of each state."""

    def noise(self, s: float, t: float) -> tuple[float, tuple[float, float] | None]:
        """Weight of a unit normal in the step s -> t, and the Brownian interval it stands for."""

    def noisy(self, eta: float) -> Operator:
        """The same with another amount of noise."""


@dataclass(frozen=True)
class Linear:
    """du/dt = L u + F(t, u) as it stands: the clock is the time and the frame is the user's.

    L: a number, a tensor that multiplies the state (a diagonal operator), or a matrix; 0 for a plain ODE.
    """

    L: Any = 0.0
    field: int = 0

    def clock(self, t: float) -> float:
        return t

    def time(self, tau: float) -> float:
        return tau

    def variable(self, name: str, t: float) -> float:
        return t

    def row(self, t: float, x: Sequence[tuple[float, Weight]], f: Sequence[Weight]) -> tuple:
        return tuple(w for _, w in x), tuple(f)

    def noise(self, s: float, t: float) -> tuple[float, None]:
        return 0.0, None

    def noisy(self, eta: float) -> Linear:
        return self
