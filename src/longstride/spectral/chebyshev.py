"""Polynomials between two walls, at Chebyshev's points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, unknown, whole

CONDITIONS = {"dirichlet": (1.0, 0.0, 0.0), "neumann": (0.0, 1.0, 0.0), "clamped": (1.0, 0.0, 0.0)}
Condition = str | tuple[float, float, float]


class Chebyshev:
    """u on [a, b] as the polynomial through its values at n Gauss-Lobatto points, x_j = (a + b)/2 - (b - a)/2
    cos(pi j/(n - 1)), whose two ends follow from the conditions at the walls.

    left, right: "dirichlet", u = 0; "neumann", u_x = 0; (p, q, r): p u + q u_x = r; or, at both walls,
    "clamped", u = u_x = 0, for equations of the fourth order.

    What a run carries is w [..., n - 2], the values inside. With P the map to all points and u_0 what the
    conditions alone add, u = P w + u_0; a derivative of u inside is d(0, order) w + lift(order):

        ODE(lambda t, w: eps * space.lift(2) + g(w), L=ls.Matrix(eps * space.d(0, 2)), space=space)

    is u_t = eps u_xx + g(u). Smooth solutions converge faster than any power of 1/n, whatever g is. The
    eigenvalues of d(0, 2) grow as 0.05 n^4 (2/(b - a))^2, and its matrix is full: exponential methods want it
    made once, so equal steps.

    Clamped, u is (x - a)(b - x) times the polynomial that is 0 at the walls and has its values inside
    (Weideman and Reddy 2000): two degrees more.

    Raises:
        ArgumentError: b <= a, fewer than 4 points, an unknown condition, or conditions that do not determine
            the ends; one wall clamped and the other not.
    """

    def __init__(
        self,
        ends: Sequence[float] = (-1.0, 1.0),
        n: int = 32,
        left: Condition = "dirichlet",
        right: Condition = "dirichlet",
    ) -> None:
        if len(ends) != 2 or not finite("a", ends[0]) < finite("b", ends[1]):
            raise ArgumentError(f"ends = {ends!r}: (a, b) with a < b")
        self.ends, self.n = (float(ends[0]), float(ends[1])), (whole("n", n, 4),)
        self.length, self.dim, self.shape = (self.ends[1] - self.ends[0],), 1, (n - 2,)
        self.clamped = left == right == "clamped"
        if "clamped" in (left, right) and not self.clamped:
            raise ArgumentError(f"left = {left!r}, right = {right!r}: walls are clamped both or not at all")
        (p0, q0, r0), (p1, q1, r1) = (_condition(said) for said in (left, right))
        D = self.derivative(1)
        rows = torch.stack([q0 * D[0], q1 * D[-1]])
        rows[0, 0] += p0
        rows[1, -1] += p1
        outer, right_side = rows[:, [0, -1]], torch.tensor([r0, r1], dtype=torch.float64)
        if float(torch.linalg.cond(outer)) > 1e12:
            raise ArgumentError(f"left = {left!r}, right = {right!r} do not determine u at the walls")
        self.inner = -torch.linalg.solve(outer, rows[:, 1:-1])  # the ends are inner w + given
        self.given = torch.linalg.solve(outer, right_side)

    @cached_property
    def angle(self) -> Tensor:
        return torch.arange(self.n[0], dtype=torch.float64) * (math.pi / (self.n[0] - 1))

    @property
    def axes(self) -> range:
        """Of a field, from behind."""
        return range(-1, 0)

    @cached_property
    def x(self) -> tuple[Tensor]:
        """The points [n], float64, from the left wall to the right."""
        a, b = self.ends
        return ((a + b) / 2 - (b - a) / 2 * torch.cos(self.angle),)

    def derivative(self, order: int) -> Tensor:
        """[n, n]: values at the points to those of the derivative.

        D_m of the orders m = 1, 2, ... follow from each other, (D_m)_ij = m/(x_i - x_j) (c_i/c_j (D_(m-1))_ii
        - (D_(m-1))_ij), and their rows sum to 0 (Welfert 1997). Differences of points are products of sines,
        without cancellation.
        """
        n, theta = self.n[0], self.angle
        apart = 2 * torch.sin((theta[:, None] + theta) / 2) * torch.sin((theta[:, None] - theta) / 2)
        apart = apart * (self.length[0] / 2) + torch.eye(n, dtype=torch.float64)
        c = (-1.0) ** torch.arange(n, dtype=torch.float64)
        c[0], c[-1] = 2 * c[0], 2 * c[-1]
        D = torch.eye(n, dtype=torch.float64)
        for m in range(1, order + 1):
            D = m / apart * (c[:, None] / c * D.diagonal()[:, None] - D)
            D = D - torch.diag_embed(D.diagonal())
            D = D - torch.diag_embed(D.sum(1))
        return D

    def d(self, axis: int = 0, order: int = 1) -> Tensor:
        """[n - 2, n - 2]: of w, the derivative inside, where the conditions have no right-hand side."""
        D = self.derivative(order)[1:-1]
        if not self.clamped:
            return D[:, 1:-1] + D[:, [0, -1]] @ self.inner
        a, b = self.ends  # (q s)^(m) = q^(m) s + m q^(m - 1) s' + m (m - 1)/2 q^(m - 2) s''
        x = self.x[0][1:-1, None]
        s, found = (x - a) * (b - x), D[:, 1:-1] * (x - a) * (b - x)
        if order > 0:
            found = found + order * (a + b - 2 * x) * self.derivative(order - 1)[1:-1, 1:-1]
        if order > 1:
            found = found - order * (order - 1) * self.derivative(order - 2)[1:-1, 1:-1]
        return found / s.mT

    def lift(self, order: int = 0) -> Tensor:
        """[n - 2]: what the right-hand sides of the conditions add to it."""
        return self.derivative(order)[1:-1][:, [0, -1]] @ self.given

    def at(self, points: Tensor) -> Tensor:
        """[P, n]: values at the points of the grid to those of the polynomial anywhere (barycentric; Berrut
        and Trefethen 2004).
        """
        apart = points.to(torch.float64)[:, None] - self.x[0]
        weights = (-1.0) ** torch.arange(self.n[0], dtype=torch.float64)
        weights[0], weights[-1] = weights[0] / 2, weights[-1] / 2
        terms = weights / torch.where(apart == 0, 1.0, apart)
        hit = (apart == 0).any(1, keepdim=True)
        return torch.where(hit, (apart == 0).double(), terms / terms.sum(1, keepdim=True))

    def enter(self, x: Tensor) -> Tensor:
        """The values inside [..., n - 2] of a field [..., n]; what it is at the walls is not looked at."""
        if x.shape[-1:] != self.n:
            raise ArgumentError(f"a field {tuple(x.shape)} on {self.n[0]} points: it must end in {self.n[0]}")
        return x[..., 1:-1]

    def leave(self, w: Tensor) -> Tensor:
        """The field [..., n] of values inside."""
        walls = w @ self.inner.mT.to(w) + self.given.to(w)
        return torch.cat([walls[..., :1], w, walls[..., 1:]], -1)


def _condition(said: Condition) -> tuple[float, float, float]:
    if isinstance(said, str):
        if said not in CONDITIONS:
            raise unknown("condition at a wall", said, CONDITIONS)
        return CONDITIONS[said]
    if not isinstance(said, Sequence) or len(said) != 3:
        raise ArgumentError(f"a condition {said!r}: (p, q, r), for p u + q u_x = r")
    p, q, r = (finite("condition", value) for value in said)
    return p, q, r
