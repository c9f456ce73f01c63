"""Newton's law of gravity for any number of bodies, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, positive
from ..problem import ODE

PAIRS = 1 << 20  # held at once, of all samples


@dataclass(frozen=True)
class Gravity:
    """a_i = G sum_j m_j (q_j - q_i)/(|q_j - q_i|^2 + softening^2)^(3/2).

    masses: [N], or [B, N] for each sample, not negative; of mass 0 is a test particle.  q and v: [..., N, d],
    d = 2 or 3, and [..., B, N, d] where the masses are each sample's own. A state is both, [B, 2, N, d], as
    `start` makes it.
    softening: Plummer's, a length.

    Raises:
        ArgumentError: masses that are negative, not finite or not [N] or [B, N]; a bad G or softening.
    """

    masses: Tensor
    G: float = 1.0
    softening: float = 0.0

    def __post_init__(self) -> None:
        m = self.masses
        if not isinstance(m, Tensor) or not m.is_floating_point() or m.ndim not in (1, 2) or not m.numel():
            raise ArgumentError("masses must be a tensor of float32 or float64, [N] or [B, N]")
        if not bool((m >= 0).all()) or not bool(m.isfinite().all()):
            raise ArgumentError("masses must be finite and not negative")
        positive("G", self.G)
        if finite("softening", self.softening) < 0:
            raise ArgumentError(f"softening = {self.softening}: it must not be negative")

    def start(self, q: Tensor, v: Tensor, centred: bool = True) -> Tensor:
        """The state [B, 2, N, d] of places and velocities [B, N, d] or [N, d], in the frame of their centre.

        Raises:
            ArgumentError: shapes that do not go with the masses, numbers that are not finite, or two bodies
                in one place.
        """
        n = self.masses.shape[-1]
        if not all(isinstance(part, Tensor) and part.is_floating_point() for part in (q, v)):
            raise ArgumentError("places and velocities must be tensors of float32 or float64")
        if q.shape != v.shape or q.ndim not in (2, 3) or q.shape[-2] != n or q.shape[-1] not in (2, 3):
            raise ArgumentError(
                f"places {tuple(q.shape)}, velocities {tuple(v.shape)}: give [B, {n}, 2] or [B, {n}, 3] each"
            )
        q, v = (part if part.ndim == 3 else part[None] for part in (q, v))
        if self.masses.ndim == 2 and len(q) not in (1, len(self.masses)):
            raise ArgumentError(f"masses of {len(self.masses)} systems do not go with {len(q)} starts")
        if self.masses.ndim == 2:
            q, v = (part.expand(len(self.masses), *part.shape[1:]) for part in (q, v))
        if centred:
            q, v = q - self.centre(q), v - self.centre(v)
        x0 = torch.stack([q, v], 1)
        self.check(x0)
        return x0

    def check(self, x0: Tensor) -> None:
        """Refuse what no run can begin with.

        Raises:
            ArgumentError: no state of these bodies, numbers that are not finite, or two bodies in one place.
        """
        n, each = self.masses.shape[-1], self.masses.ndim == 2
        whole = isinstance(x0, Tensor) and x0.is_floating_point() and x0.ndim == 4
        fits = whole and x0.shape[1:3] == (2, n) and x0.shape[3] in (2, 3)
        if not fits or (each and len(x0) != len(self.masses)):
            what = f"a tensor {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
            size = f"[{len(self.masses) if each else 'B'}, 2, {n}, 2 or 3]"
            raise ArgumentError(
                f"x0 is {what}: states of these bodies are {size}, as Gravity.start makes them"
            )
        if not bool(x0.isfinite().all()):
            raise ArgumentError("places and velocities must be finite")
        if self.softening == 0 and any(bool((r2 == 0).any()) for _, r2, _ in self._between(x0[:, 0])):
            raise ArgumentError("two bodies are in one place: move them apart, or give a softening")

    def problem(self) -> ODE:
        """x' = (v, a), with a alone for the methods that take it."""
        return ODE(self.rate, acceleration=Attraction(self), check=self.check)

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        """dx/dt of states [..., 2, N, d]."""
        q, v = x.unbind(-3)
        return torch.stack([v, self.acceleration(q)], -3)

    def acceleration(self, q: Tensor, shares: Tensor | None = None) -> Tensor:
        """[..., N, d].  shares [N, N]: of each pull on i by j, if not 1."""
        parts = []
        for rows, r2, (s,) in self._between(q):
            pull = self._pull(r2)
            parts.append(((pull if shares is None else pull * shares[rows, :, None]) * s).sum(-2))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)

    def jerk(self, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """a and da/dt along the motion, [..., N, d] each.

        Of s and w, places and velocities from i to j, with rho^2 = s^2 + softening^2,
        da_i/dt = G sum_j m_j (w - 3 (s.w)/rho^2 s)/rho^3.
        """
        found = []
        for _, r2, (s, w) in self._between(q, v):
            pull, closing = self._pull(r2), 3 * (s * w).sum(-1, keepdim=True) / r2[..., None]
            found.append(((pull * s).sum(-2), (pull * (w - closing * s)).sum(-2)))
        a, j = (torch.cat(parts, -2) for parts in zip(*found, strict=True))
        return a, j

    def energy(self, x: Tensor) -> Tensor:
        """Kinetic and potential energy [...] of states [..., 2, N, d]."""
        q, v = x.unbind(-3)
        return self.kinetic(v) + self.potential(q)

    def kinetic(self, v: Tensor) -> Tensor:
        """sum m v^2/2: [...] of [..., N, d]."""
        return (self.masses.to(v) * v.square().sum(-1)).sum(-1) / 2

    def potential(self, q: Tensor) -> Tensor:
        """-G sum_(i<j) m_i m_j/rho_ij: [...] of [..., N, d]."""
        m, total = self.masses.to(q), torch.zeros((), dtype=q.dtype, device=q.device)
        for rows, r2, _ in self._between(q):
            each = m[..., rows, None] * m[..., None, :] * r2.rsqrt()
            total = total + each.triu(rows.start + 1).sum((-1, -2))
        return -self.G * total

    def momentum(self, x: Tensor) -> Tensor:
        """sum m v: [..., d]."""
        return (self.masses.to(x)[..., None] * x[..., 1, :, :]).sum(-2)

    def angular_momentum(self, x: Tensor) -> Tensor:
        """sum m q x v: [..., 3], or [..., 1] in the plane."""
        q, v = x.unbind(-3)
        if x.shape[-1] == 2:
            turning = (q[..., 0] * v[..., 1] - q[..., 1] * v[..., 0])[..., None]
        else:
            turning = torch.linalg.cross(q, v)
        return (self.masses.to(x)[..., None] * turning).sum(-2)

    def centre(self, q: Tensor) -> Tensor:
        """The mean [..., 1, d] of anything [..., N, d], weighted by the masses; plain where all are 0."""
        m = self.masses.to(q)
        m = torch.where(m.sum(-1, keepdim=True) > 0, m, 1.0)
        return ((m / m.sum(-1, keepdim=True))[..., None] * q).sum(-2, keepdim=True)

    def collision_time(self, q: Tensor, v: Tensor) -> Tensor:
        """The least over pairs of r/|w| and of sqrt(r^3/(G (m_i + m_j))), the time to fall: [...].

        The paper's step is its parameter times this (Hut and Makino's criterion, as in AMUSE's Hermite).
        """
        m = self.masses.to(q)
        found: list[Tensor] = []  # list[Tensor]() does not become a graph
        for rows, r2, (_, w) in self._between(q, v):
            both = self.G * (m[..., rows, None] + m[..., None, :])
            own = torch.eye(q.shape[-2], dtype=torch.bool, device=q.device)[rows]
            fourth = torch.minimum(r2.square() / w.square().sum(-1).square(), r2**3 / both.square())
            found.append(fourth.masked_fill(own, torch.inf).amin((-1, -2)))
        return torch.stack(found).amin(0) ** 0.25

    def _pull(self, r2: Tensor) -> Tensor:
        """G m_j/rho^3 beside differences [..., rows, N, d]."""
        return (self.G * self.masses.to(r2)[..., None, :] * (r2 * r2.sqrt()).reciprocal())[..., None]

    def _between(self, *parts: Tensor) -> Iterator[tuple[slice, Tensor, tuple[Tensor, ...]]]:
        """Some bodies, rho^2 [..., rows, N] from them to all, and differences [..., rows, N, d] of each part.

        The first part is places. As many rows as `PAIRS` allow. A body with itself has rho = 1, of which
        nothing comes.
        """
        q = parts[0]
        n, size = q.shape[-2], max(1, PAIRS // max(1, q[..., 0].numel()))
        every = torch.arange(n, device=q.device)
        for first in range(0, n, size):
            rows = slice(first, min(first + size, n))
            between = tuple(p[..., None, :, :] - p[..., rows, None, :] for p in parts)
            own = every == every[rows, None]
            yield rows, (between[0].square().sum(-1) + self.softening**2).masked_fill(own, 1.0), between


@dataclass(frozen=True)
class Attraction:
    """a(t, x) of half states [..., 1, N, d], and what Hermite's methods ask besides."""

    gravity: Gravity

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self.gravity.acceleration(x.squeeze(-3)).unsqueeze(-3)

    def jerk(self, t: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """a and its rate of change along the motion."""
        a, j = self.gravity.jerk(x.squeeze(-3), v.squeeze(-3))
        return a.unsqueeze(-3), j.unsqueeze(-3)

    def collision_time(self, x: Tensor, v: Tensor) -> Tensor:
        """[B]."""
        return self.gravity.collision_time(x.squeeze(-3), v.squeeze(-3))
