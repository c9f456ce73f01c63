"""Wisdom and Holman's map: planets on Kepler orbits, which kick each other in between."""

from __future__ import annotations

import torch
from torch import Tensor

from ..equal_steps.rollout import Stand, Steps
from ..equal_steps.stretches import Stretches
from ..errors import ArgumentError, SolveError, failed
from ..methods.symplectic import WISDOM_HOLMAN
from ..problem import ODE
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


class WisdomHolman(Steps):
    """Half a drift, a kick, half a drift; neighbouring halves are one, until somebody asks for x.

    A stand is places and velocities in Jacobi's coordinates, after the kick.

    In Jacobi's coordinates the energy is that of N - 1 Kepler orbits, planet i about G (m_0 + .. + m_i), of a
    centre that moves straight on, and of what else there is, which is smaller by the masses of planets over
    that of the star. Each part is solved exactly in turn, the last as a kick. So the error is of order
    (m/m_0) h^2, and does not drift (Wisdom and Holman 1991; Rein and Tamayo 2015).
    """

    def __init__(self, problem: ODE, times: Stretches) -> None:
        super().__init__(WISDOM_HOLMAN, times)
        self.problem, a = problem, problem.acceleration
        if not isinstance(a, Attraction):
            raise ArgumentError(
                f"method {WISDOM_HOLMAN!r} is for planets: give it the problem of an nbody.Gravity"
            )
        gravity, masses = a.gravity, a.gravity.masses
        if bool((masses[..., 0] <= 0).any()) or bool((masses[..., :1] < masses).any()) or gravity.softening:
            raise ArgumentError("the first body must be the heaviest, without softening: it is the star")
        self.gravity = gravity

    def begin(self, x0: Tensor) -> Stand:
        masses = self.gravity.masses.to(x0)
        self.jacobi = Jacobi(masses)
        self.shares = torch.ones(masses.shape[-1:] * 2, dtype=x0.dtype, device=x0.device)
        self.shares[0, 1] = self.shares[1, 0] = 0.0
        self.mu = self.gravity.G * self.jacobi.eta[..., 1:]
        return Stand(0, 0, tuple(self.jacobi.enter(part) for part in x0.unbind(1)))

    def state(self, stand: Stand) -> Tensor:
        q, v = self.drifted(stand, self.owed(stand.n))
        return torch.stack([self.jacobi.leave(q), self.jacobi.leave(v)], 1)

    def step(self, stand: Stand) -> Stand:
        h = self.times.sizes[self.times.stretch(stand.n)]
        q, v = self.drifted(stand, self.owed(stand.n) + h / 2)
        try:
            v = v + h * self.kick(q)
        except Exception as error:
            raise failed(self.where(stand.n), error) from error
        return Stand(stand.n + 1, stand.nfe + 1, (q, v))

    def along(self, times: Stretches) -> WisdomHolman:
        return WisdomHolman(self.problem, times)

    def owed(self, n: int) -> float:
        """Of a drift before step n: the second half of the last one."""
        return self.times.sizes[self.times.stretch(n - 1)] / 2 if n else 0.0

    def drifted(self, stand: Stand, t: float) -> tuple[Tensor, Tensor]:
        q, v = stand.xs
        if t == 0:
            return q, v
        try:
            moved, turned = kepler_step(q[..., :-1, :], v[..., :-1, :], t, self.mu)
        except SolveError as error:
            raise failed(self.where(max(stand.n - 1, 0)), error) from error
        centre = q[..., -1:, :] + t * v[..., -1:, :]
        return torch.cat([moved, centre], -2), torch.cat([turned, v[..., -1:, :]], -2)

    def kick(self, q: Tensor) -> Tensor:
        """What Kepler's parts leave of the accelerations, in Jacobi's coordinates.

        Of star and first planet nothing is left, so neither is written.
        """
        whole = self.jacobi.enter(self.gravity.acceleration(self.jacobi.leave(q), self.shares))
        r = q[..., 1:-1, :]
        back = self.mu[..., 1:, None] * r / r.square().sum(-1, keepdim=True) ** 1.5
        none = torch.zeros_like(q[..., :1, :])
        return whole + torch.cat([none, back, none], -2)
