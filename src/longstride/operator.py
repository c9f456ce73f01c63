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

TAYLOR_TERMS = 20  # of phi below |z| = 1: 1/20! is below round-off


def exp(z: Weight) -> Weight:
    """e^z for a number, a tensor or a matrix."""
    if isinstance(z, Matrix):
        return z.phi(0)
    return torch.exp(z) if isinstance(z, Tensor) else math.exp(z)


def phi(k: int, z: Weight) -> Weight:
    """phi_k(z) = int_0^1 e^((1-s) z) s^(k-1)/(k-1)! ds, phi_0 = exp; z a number, a tensor or a matrix.

    The recurrence phi_k = (phi_(k-1) - 1/(k-1)!)/z cancels near z = 0, where the Taylor series takes over.
    """
    if isinstance(z, Matrix):
        return z.phi(k)
    if isinstance(z, Tensor):
        near = z.abs() < 1
        return torch.where(near, _series(k, torch.where(near, z, 0)), _recur(k, torch.where(near, 1, z)))
    return _series(k, z) if abs(z) < 1 else _recur(k, z)


def _series(k: int, z: Weight) -> Weight:
    total: Weight = z * 0 + 1 / math.factorial(k + TAYLOR_TERMS)
    for j in reversed(range(TAYLOR_TERMS)):
        total = total * z + 1 / math.factorial(k + j)
    return total


def _recur(k: int, z: Weight) -> Weight:
    value = exp(z)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / z
    return value


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
