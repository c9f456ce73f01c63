"""Two bodies, exactly: Kepler's problem in universal variables, which know no kind of orbit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import SolveError

ROUNDS = 60  # of the iteration, at most: some six are usual
TERMS = 12  # of the series below |z| = 1: 1/25! is below round-off


def stumpff(z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_k(z) = sum_j (-z)^j/(k + 2 j)!, k = 0..3.

    c_0 = cos r and c_1 = sin(r)/r with r^2 = z, hyperbolic ones of imaginary r, and c_k = 1/k! - z c_(k+2).
    """
    near = z.abs() < 1
    small = torch.where(near, z, 0.0)
    c2, c3 = (
        torch.full_like(z, 1 / math.factorial(2 * TERMS)),
        torch.full_like(z, 1 / math.factorial(2 * TERMS + 1)),
    )
    for j in reversed(range(TERMS - 1)):
        c2, c3 = 1 / math.factorial(2 * j + 2) - small * c2, 1 / math.factorial(2 * j + 3) - small * c3
    far = torch.where(near, 1.0, z)
    r = far.abs().sqrt()
    bound = far > 0
    half = torch.where(bound, (r / 2).sin(), (r / 2).sinh())
    sine = torch.where(bound, r.sin(), r.sinh())
    c2 = torch.where(near, c2, 2 * half.square() / far.abs())
    c3 = torch.where(near, c3, (1 - sine / r) / far)
    return 1 - z * c2, 1 - z * c3, c2, c3


def kepler_step(q: Tensor, v: Tensor, dt: Tensor | float, mu: Tensor | float) -> tuple[Tensor, Tensor]:
    """Place and velocity [..., d] after dt on the orbit q'' = -mu q/|q|^3, whatever conic it is.

    With X such that dX/dt = 1/|q|, beta = 2 mu/r - v^2 (mu over the axis), eta = q.v, zeta = mu - beta r and
    G_k = X^k c_k(beta X^2),

        r X + eta G_2 + zeta G_3 = dt,         |q(X)| = r + eta G_1 + zeta G_2 > 0,

    is Kepler's equation, which rises with X (Stumpff 1962; Wisdom and Hernandez 2015). It is solved by
    Laguerre's iteration, by halving where that leaves what is known to hold the root. Whole periods are taken
    out of dt first. The result is differentiable, once, by the implicit function.

    dt, mu: [...], broadcast.

    Raises:
        SolveError: no convergence, of numbers that are not finite or a fall through the centre.
    """
    dt, mu = (torch.as_tensor(one, dtype=q.dtype, device=q.device).expand(q.shape[:-1]) for one in (dt, mu))
    r, eta = q.norm(dim=-1), (q * v).sum(-1)
    beta = 2 * mu / r - v.square().sum(-1)
    zeta = mu - beta * r
    bound = beta > 0
    safe = torch.where(bound, beta, 1.0)
    period = torch.where(bound, 2 * math.pi * mu / safe**1.5, torch.inf)
    turns = torch.where(bound, torch.round(dt / period), 0.0).detach()
    rest = dt - torch.where(bound, turns * torch.where(bound, period, 0.0), 0.0)
    with torch.no_grad():
        X = _root(rest, r, eta, beta, zeta)
    _, G1, G2, G3 = _universal(beta, X)
    late = r * X + eta * G2 + zeta * G3 - rest
    X = X - late / (r + eta * G1 + zeta * G2).detach()  # which is 0, with its derivative
    _, G1, G2, G3 = _universal(beta, X)
    end = r + eta * G1 + zeta * G2
    f, g = 1 - mu * G2 / r, rest - mu * G3
    df, dg = -mu * G1 / (r * end), 1 - mu * G2 / end
    return f[..., None] * q + g[..., None] * v, df[..., None] * q + dg[..., None] * v


def _universal(beta: Tensor, X: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    c0, c1, c2, c3 = stumpff(beta * X * X)
    return c0, X * c1, X * X * c2, X * X * X * c3


def _root(dt: Tensor, r: Tensor, eta: Tensor, beta: Tensor, zeta: Tensor) -> Tensor:
    """X of each."""
    # Along the mean motion, or where e^(X root(-beta)) outgrows the rest.
    b, sign = (-beta).clamp_min(0.0).sqrt(), torch.sign(dt)
    wide = torch.where(b > 0, b, 1.0)
    far = sign / wide * torch.log1p(2 * dt.abs() * b**3 / (zeta + sign * eta * b))
    X = torch.where(beta > 0, beta * dt / (zeta + beta * r), far)
    low, high = torch.full_like(X, -torch.inf), torch.full_like(X, torch.inf)
    low, high = torch.where(dt >= 0, 0.0, low), torch.where(dt <= 0, 0.0, high)
    X = torch.minimum(torch.maximum(X, low), high)
    for _ in range(ROUNDS):
        G0, G1, G2, G3 = _universal(beta, X)
        late, slope = r * X + eta * G2 + zeta * G3 - dt, r + eta * G1 + zeta * G2
        low, high = torch.where(late < 0, X, low), torch.where(late > 0, X, high)
        bend = (16 * slope * slope - 20 * late * (eta * G0 + zeta * G1)).abs().sqrt()
        after = X - 5 * late / (slope + bend)
        middle = (low + high) / 2
        outside = ~((after >= low) & (after <= high))
        # Where a side is still open, twice as far.
        wide = torch.where(middle.isfinite(), middle, torch.where(X == 0, torch.sign(dt), 2 * X))
        after = torch.where(late == 0, X, torch.where(outside, wide, after))
        moved, X = (after - X).abs(), after
        if not bool((moved > 4 * torch.finfo(X.dtype).eps * X.abs()).any()):
            return X
    if not bool(X.isfinite().all()) or bool((moved > 1e-9 * X.abs()).any()):
        raise SolveError(
            "Kepler's equation was not solved: numbers that are not finite, or a fall to the centre"
        )
    return X
