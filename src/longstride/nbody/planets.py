"""Wisdom and Holman's map: planets on Kepler orbits, which kick each other in between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError
from ..methods.base import Method
from ..problem import ODE
from ..rollout import Rollout
from .gravity import Attraction, Gravity
from .kepler import kepler_step

NAME = "wisdom_holman"
REFERENCE = "Wisdom and Holman 1991; Rein and Tamayo 2015"


@dataclass(frozen=True)
class Stride:
    """What a `Rollout` asks of its pace, of a step that is no table."""

    h: float
    method: Method

    def nfe(self, n: int) -> int:
        return n


class Jacobi:
    """Coordinates of each body from the centre of mass of those before it; the first is of the centre of all.

    With eta_i = m_0 + .. + m_i, r'_i = r_i - sum_(j<i) m_j r_j/eta_(i-1): a matrix, for places, velocities
    and accelerations alike. masses [..., N], the first above 0.
    """

    def __init__(self, masses: Tensor) -> None:
        n = masses.shape[-1]
        self.eta = masses.cumsum(-1)
        share = masses[..., None, :] / self.eta[..., :, None]  # of j in the centre of the first i + 1
        one = torch.eye(n, dtype=masses.dtype, device=masses.device)
        before = share.tril()
        self.matrix = torch.cat([one[1:] - before[..., :-1, :], before[..., -1:, :]], -2)
        # r_i = r'_i + R_(i-1), where R_(i-1), the centre of those before, is R_i - m_i r'_i/eta_i.
        own = (masses / self.eta)[..., None, 1:]
        back = torch.where(one[:, 1:].bool(), 1 - own, -own)
        later = torch.ones(n, n - 1, dtype=torch.bool, device=masses.device).triu(0)
        back = torch.where(later | one[:, 1:].bool(), back, torch.zeros_like(back))
        self.inverse = torch.cat([back, torch.ones_like(back[..., :1])], -1)

    def enter(self, x: Tensor) -> Tensor:
        """[..., N, d]: planets first, the centre last."""
        return self.matrix @ x

    def leave(self, x: Tensor) -> Tensor:
        return self.inverse @ x


class WisdomHolman(Rollout):
    """Half a drift, a kick, half a drift; neighbouring halves are one, until somebody asks for x.

    In Jacobi's coordinates the energy is that of N - 1 Kepler orbits, planet i about G (m_0 + .. + m_i), of a
    centre that moves straight on, and of what else there is, which is smaller by the masses of planets over
    that of the star. Each part is solved exactly in turn, the last as a kick. So the error is of order
    (m/m_0) h^2, and does not drift.
    """

    def __init__(self, problem: ODE, pace: Stride, x0: Tensor, start: float) -> None:
        self.pace, self.start, self.n = pace, start, 0  # type: ignore[assignment]
        a = problem.acceleration
        if not isinstance(a, Attraction):
            raise ArgumentError(f"method {NAME!r} is for planets: give it the problem of an nbody.Gravity")
        gravity = a.gravity
        masses = gravity.masses.to(x0)
        if bool((masses[..., 0] <= 0).any()) or bool((masses[..., :1] < masses).any()) or gravity.softening:
            raise ArgumentError("the first body must be the heaviest, without softening: it is the star")
        self.gravity, self.jacobi, self.mass = gravity, Jacobi(masses), masses
        self.mu = gravity.G * self.jacobi.eta[..., 1:]
        self.owed = 0.0  # of a drift: its second half, while nobody looks
        self.q, self.v = (self.jacobi.enter(part) for part in x0.unbind(1))

    @property
    def x(self) -> Tensor:
        q, v = self.drifted(self.owed)
        return torch.stack([self.jacobi.leave(q), self.jacobi.leave(v)], 1)

    def step(self) -> None:
        h = self.pace.h
        self.q, self.v = self.drifted(self.owed + h / 2)
        self.v = self.v + h * self.kick(self.q)
        self.owed = h / 2

    def drifted(self, t: float) -> tuple[Tensor, Tensor]:
        if t == 0:
            return self.q, self.v
        try:
            q, v = kepler_step(self.q[..., :-1, :], self.v[..., :-1, :], t, self.mu)
        except SolveError as error:
            raise SolveError(f"method {NAME}, t = {self.t:.6g}: {error}") from error
        centre = self.q[..., -1:, :] + t * self.v[..., -1:, :]
        return torch.cat([q, centre], -2), torch.cat([v, self.v[..., -1:, :]], -2)

    def kick(self, q: Tensor) -> Tensor:
        """What Kepler's parts leave of the accelerations, in Jacobi's coordinates.

        Between the star and the first planet nothing is left: neither is written.
        """
        return self.jacobi.enter(self.gravity.acceleration(self.jacobi.leave(q), apart=True)) + self.kepler(q)

    def kepler(self, q: Tensor) -> Tensor:
        """mu_i r'_i/|r'_i|^3 of all planets but the first."""
        r = q[..., 1:-1, :]
        pull = self.mu[..., 1:, None] * r / r.square().sum(-1, keepdim=True) ** 1.5
        none = torch.zeros_like(q[..., :1, :])
        return torch.cat([none, pull, none], -2)


def stride(h: float) -> Stride:
    """Of one step."""

    def write(*_: object) -> object:
        raise SolveError("a Kepler orbit is no sum of weights")

    return Stride(h, Method(write, 2, exponential=False, name=NAME, reference=REFERENCE))  # type: ignore[arg-type]
