"""Bodies that attract each other: Kepler, Arenstorf, the figure eight, the Pleiades."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from .base import Number, Plane, System, stacked, state, system

HIGH = ("vern9", "dopri8")
ITERATIONS = 30  # of Newton's on Kepler's equation; it converges from pi for every e < 1, in a few


@system("Hairer, Lubich and Wanner 2006")
def kepler(e: Number = 0.6) -> System:
    """Two bodies: q'' = -q/|q|^3, as (x, y, x', y'). The start is the pericentre of an ellipse of axis 1.

    Its period is 2 pi. Kept: energy, angular momentum, and the vector of Runge and Lenz, which points to the
    pericentre and is as long as the eccentricity.

    Good values: e in [0, 1); from 0.9 on the steps differ a hundredfold along the orbit.
    """
    if bool((torch.as_tensor(e) < 0).any()) or bool((torch.as_tensor(e) >= 1).any()):
        raise ArgumentError(f"e = {e}: it is in [0, 1)")

    def attraction(t: Tensor, q: Tensor) -> Tensor:
        return -q / q.square().sum(-1, keepdim=True) ** 1.5

    def rate(t: Tensor, x: Tensor) -> Tensor:
        return torch.cat([x[..., 2:], attraction(t, x[..., :2])], -1)

    def energy(x: Tensor) -> Tensor:
        return x[..., 2:].square().sum(-1) / 2 - 1 / x[..., :2].norm(dim=-1)

    fast = ((1 + e) / (1 - e)) ** 0.5
    return System(
        rate,
        acceleration=attraction,
        x0=state(1 - e, 0.0, 0.0, fast),
        t=(0.0, 20 * math.pi),
        labels=("x", "y", "x'", "y'"),
        invariants={
            "energy": energy,
            "angular momentum": _turning,
            "Runge-Lenz x": lambda x: _lenz(x)[..., 0],
            "Runge-Lenz y": lambda x: _lenz(x)[..., 1],
        },
        exact=_ellipse,
        rtol=1e-9,
        methods=HIGH,
        view=Plane(lambda x: x[..., None, :2], ("x", "y"), equal=True),
    )


def _turning(x: Tensor) -> Tensor:
    return x[..., 0] * x[..., 3] - x[..., 1] * x[..., 2]


def _lenz(x: Tensor) -> Tensor:
    q, (u, v), turning = x[..., :2], x[..., 2:].unbind(-1), _turning(x)
    return stacked(v * turning, -u * turning) - q / q.norm(dim=-1, keepdim=True)


def _ellipse(t: float, x0: Tensor) -> Tensor:
    """The bound orbit from x0 at time t, by Kepler's equation M = E - e sin E.

    With a = -1/(2 energy), q = a (cos E - e) P + a sqrt(1 - e^2) sin E Q, where P points to the pericentre.

    Raises:
        ArgumentError: an orbit that is not bound.
    """
    q, p = x0[..., :2], x0[..., 2:]
    r = q.norm(dim=-1)
    if bool((p.square().sum(-1) >= 2 / r).any()):
        raise ArgumentError("the exact solution is of bound orbits: start with |x'|^2 < 2/|x|")
    a = 1 / (2 / r - p.square().sum(-1))
    lenz, sense = _lenz(x0), torch.sign(_turning(x0))
    e = lenz.norm(dim=-1)
    round_ = e[..., None] < 1e-14  # a circle: any point is its pericentre
    P = torch.where(round_, q / r[..., None], lenz / e.clamp_min(1e-300)[..., None])
    Q = sense[..., None] * stacked(-P[..., 1], P[..., 0])
    flat = (1 - e**2).sqrt()
    E = torch.atan2((q * Q).sum(-1) / (a * flat), (q * P).sum(-1) / a + e)
    M = E - e * torch.sin(E) + t / a**1.5
    turns = torch.floor(M / (2 * math.pi)) * 2 * math.pi
    M, E = M - turns, torch.full_like(M, math.pi)
    for _ in range(ITERATIONS):
        E = E - (E - e * torch.sin(E) - M) / (1 - e * torch.cos(E))
    c, s = torch.cos(E), torch.sin(E)
    speed = a.rsqrt() / (1 - e * c)
    place = a[..., None] * ((c - e)[..., None] * P + (flat * s)[..., None] * Q)
    return torch.cat([place, speed[..., None] * (-s[..., None] * P + (flat * c)[..., None] * Q)], -1)


@system("Arenstorf 1963; Hairer et al. 1993, II.0")
def arenstorf(mu: Number = 0.012277471) -> System:
    """A satellite in the turning frame of earth (1 - mu, at -mu) and moon (mu, at 1 - mu): (x, y, x', y').

    The default start belongs to a closed orbit of four loops, of period 17.0652..., the default span. It
    passes the moon closely, and multiplies errors by some thousand in a turn. Kept: Jacobi's constant.
    """

    def apart(x: Tensor) -> tuple[Tensor, Tensor]:
        q, r = x[..., 0], x[..., 1]
        return torch.hypot(q + mu, r), torch.hypot(q - 1 + mu, r)

    def rate(t: Tensor, x: Tensor) -> Tensor:
        q, r, u, v = x.unbind(-1)
        earth, moon = apart(x)
        pull, draw = (1 - mu) / earth**3, mu / moon**3
        return stacked(
            u,
            v,
            q + 2 * v - pull * (q + mu) - draw * (q - 1 + mu),
            r - 2 * u - (pull + draw) * r,
        )

    def jacobi(x: Tensor) -> Tensor:
        earth, moon = apart(x)
        potential = x[..., :2].square().sum(-1) + 2 * (1 - mu) / earth + 2 * mu / moon
        return potential - x[..., 2:].square().sum(-1)

    return System(
        rate,
        x0=state(0.994, 0.0, 0.0, -2.00158510637908252240537862224),
        t=(0.0, 17.0652165601579625588917206249),
        labels=("x", "y", "x'", "y'"),
        invariants={"Jacobi constant": jacobi},
        rtol=1e-9,
        methods=HIGH,
        view=Plane(lambda x: x[..., None, :2], ("x", "y"), equal=True),
    )


@system("Chenciner and Montgomery 2000; numbers of Simo")
def figure_eight() -> System:
    """Three equal masses that follow each other along one figure eight, of period 6.32591398.

    The default span is one period. The state is all x, all y, all x', all y', as in `pleiades`. The orbit
    is stable: nearby starts stay near.
    """
    x, y, u, v = 0.97000436, -0.24308753, 0.93240737, 0.86473146
    start = (x, -x, 0.0, y, -y, 0.0, u / 2, u / 2, -u, v / 2, v / 2, -v)
    return _bodies((1.0, 1.0, 1.0), start, 6.32591398)


@system("Hairer et al. 1993, II.10; Bari test set")
def pleiades() -> System:
    """Seven stars in a plane, of masses 1 to 7: x_i'' = sum_j m_j (x_j - x_i)/r_ij^3.

    The state is all x, all y, all x', all y'. Several stars pass each other closely.
    """
    x, y = (3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0), (3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0)
    u, v = (0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5), (0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0)
    return _bodies(tuple(range(1, 8)), (*x, *y, *u, *v), 3.0)


def _bodies(masses: Sequence[float], start: Sequence[float], end: float) -> System:
    """Newton's law in the plane for a state of all x, all y, all x', all y'."""
    n = len(masses)

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places and speeds [..., 2, n], masses."""
        q, p = x.unflatten(-1, (2, 2, n)).unbind(-3)
        return q, p, torch.tensor(masses, dtype=x.dtype, device=x.device)

    def attraction(t: Tensor, q: Tensor) -> Tensor:
        q, m = q.unflatten(-1, (2, n)), torch.tensor(masses, dtype=q.dtype, device=q.device)
        between = q[..., None, :] - q[..., :, None]  # [..., 2, n, n]: from i to j
        far = between.square().sum(-3, keepdim=True) + torch.eye(n, dtype=q.dtype, device=q.device)
        return (between / far**1.5 @ m).flatten(-2)

    def rate(t: Tensor, x: Tensor) -> Tensor:
        q, v = x.chunk(2, -1)
        return torch.cat([v, attraction(t, q)], -1)

    def energy(x: Tensor) -> Tensor:
        q, p, m = parts(x)
        i, j = torch.triu_indices(n, n, 1, device=x.device)
        bound = (m[i] * m[j] / (q[..., i] - q[..., j]).norm(dim=-2)).sum(-1)
        return (m * p.square().sum(-2)).sum(-1) / 2 - bound

    def turning(x: Tensor) -> Tensor:
        q, p, m = parts(x)
        return (m * (q[..., 0, :] * p[..., 1, :] - q[..., 1, :] * p[..., 0, :])).sum(-1)

    def momentum(axis: int) -> Callable[[Tensor], Tensor]:
        return lambda x: (parts(x)[2] * parts(x)[1][..., axis, :]).sum(-1)

    kept: dict[str, Any] = {"energy": energy, "angular momentum": turning}
    return System(
        rate,
        acceleration=attraction,
        x0=state(*start),
        t=(0.0, end),
        labels=tuple(f"{name[0]}_{i + 1}{name[1:]}" for name in ("x", "y", "x'", "y'") for i in range(n)),
        invariants={**kept, "momentum x": momentum(0), "momentum y": momentum(1)},
        rtol=1e-9,
        methods=HIGH,
        view=Plane(lambda x: parts(x)[0].transpose(-1, -2), ("x", "y"), equal=True),
    )
