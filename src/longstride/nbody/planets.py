"""Wisdom and Holman's map: planets on Kepler orbits, which kick each other in between."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError
from ..methods.symplectic import WISDOM_HOLMAN
from ..problem import ODE
from ..stretches import Stretches
from ..turns import Run
from .gravity import Attraction
from .kepler import kepler_step


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
        # r_i = r'_i + R_(i-1), and the centre of those before i is R_(N-1) - sum_(j>=i) m_j r'_j/eta_j.
        behind = torch.ones_like(one).triu() * share.diagonal(dim1=-2, dim2=-1)[..., None, :]
        self.inverse = torch.cat([(one - behind)[..., 1:], torch.ones_like(share[..., :1])], -1)

    def enter(self, x: Tensor) -> Tensor:
        """[..., N, d]: planets first, the centre last."""
        return self.matrix @ x

    def leave(self, x: Tensor) -> Tensor:
        return self.inverse @ x


class WisdomHolman(Run):
    """Half a drift, a kick, half a drift; neighbouring halves are one, until somebody asks for x.

    In Jacobi's coordinates the energy is that of N - 1 Kepler orbits, planet i about G (m_0 + .. + m_i), of a
    centre that moves straight on, and of what else there is, which is smaller by the masses of planets over
    that of the star. Each part is solved exactly in turn, the last as a kick. So the error is of order
    (m/m_0) h^2, and does not drift (Wisdom and Holman 1991; Rein and Tamayo 2015).
    """

    def __init__(self, problem: ODE, name: str, x0: Tensor, times: Stretches) -> None:
        super().__init__(problem, name, x0, times)
        a = problem.acceleration
        if not isinstance(a, Attraction):
            raise ArgumentError(
                f"method {WISDOM_HOLMAN!r} is for planets: give it the problem of an nbody.Gravity"
            )
        gravity = a.gravity
        masses = gravity.masses.to(x0)
        if bool((masses[..., 0] <= 0).any()) or bool((masses[..., :1] < masses).any()) or gravity.softening:
            raise ArgumentError("the first body must be the heaviest, without softening: it is the star")
        self.gravity, self.jacobi, self.mass = gravity, Jacobi(masses), masses
        self.shares = torch.ones(masses.shape[-1:] * 2, dtype=x0.dtype, device=x0.device)
        self.shares[0, 1] = self.shares[1, 0] = 0.0
        self.mu = gravity.G * self.jacobi.eta[..., 1:]
        self.owed = 0.0  # of a drift: its second half, until somebody looks
        self.q, self.v = (self.jacobi.enter(part) for part in x0.unbind(1))

    @property
    def x(self) -> Tensor:
        q, v = self.drifted(self.owed)
        return torch.stack([self.jacobi.leave(q), self.jacobi.leave(v)], 1)

    def step(self) -> None:
        h = self.h
        self.q, self.v = self.drifted(self.owed + h / 2)
        self.v = self.v + h * self.kick(self.q)
        self.owed, self.nfe = h / 2, self.nfe + 1

    def drifted(self, t: float) -> tuple[Tensor, Tensor]:
        if t == 0:
            return self.q, self.v
        try:
            q, v = kepler_step(self.q[..., :-1, :], self.v[..., :-1, :], t, self.mu)
        except SolveError as error:
            raise SolveError(f"method {WISDOM_HOLMAN}, t = {self.times[self.n]:.6g}: {error}") from error
        centre = self.q[..., -1:, :] + t * self.v[..., -1:, :]
        return torch.cat([q, centre], -2), torch.cat([v, self.v[..., -1:, :]], -2)

    def kick(self, q: Tensor) -> Tensor:
        """What Kepler's parts leave of the accelerations, in Jacobi's coordinates.

        Of star and first planet nothing is left, so neither is written.
        """
        whole = self.jacobi.enter(self.gravity.acceleration(self.jacobi.leave(q), self.shares))
        r = q[..., 1:-1, :]
        back = self.mu[..., 1:, None] * r / r.square().sum(-1, keepdim=True) ** 1.5
        none = torch.zeros_like(q[..., :1, :])
        return whole + torch.cat([none, back, none], -2)
