"""Paths through data: functions of time with a derivative, for controlled differential equations.

data [B, n, C] at times [n] that all samples share. `linear` and `rectilinear` are known from the data so far
and have derivatives that jump at the times, where an adaptive run ends its steps. `hermite` has a continuous
derivative and needs no later data than the interval it is asked in; `natural_cubic` is the smoothest, and
needs all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import ArgumentError


@dataclass(frozen=True)
class Path:
    """X(t) [B, C] = sum_m coefficients[m] (t - t_i)^m from t_i to t_(i+1); the pieces at the ends go on.

    times [n].  coefficients [M, B, n - 1, C].  jump_times: where X' jumps.
    """

    times: Tensor
    coefficients: Tensor
    jump_times: tuple[float, ...] = ()

    @property
    def span(self) -> tuple[float, float]:
        """From where to where there are data."""
        return float(self.times[0]), float(self.times[-1])

    def __call__(self, t: float | Tensor) -> Tensor:
        """X [B, C] at a time, or at those of the samples, [B]."""
        return self._at(t, self.coefficients)

    def derivative(self, t: float | Tensor) -> Tensor:
        """X' [B, C]; where it jumps, that of what comes after."""
        powers = torch.arange(1, len(self.coefficients), device=self.times.device)
        return self._at(t, powers.view(-1, 1, 1, 1) * self.coefficients[1:])

    def _at(self, t: float | Tensor, coefficients: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=coefficients.dtype.to_real(), device=self.times.device)
        times = self.times.to(t.dtype)
        piece = (torch.searchsorted(times, t.detach(), right=True) - 1).clamp(0, len(times) - 2)
        batch = torch.arange(coefficients.shape[1], device=piece.device)
        known = coefficients[:, batch, piece.expand(len(batch))]
        apart = (t - times[piece]).expand(len(batch))[:, None]
        out = known[-1]
        for row in known[:-1].flip(0):
            out = row + apart * out
        return out


def linear(times: Sequence[float] | Tensor, data: Tensor) -> Path:
    """Straight lines."""
    t, x, h = _checked(times, data)
    return Path(t, torch.stack([x[:, :-1], x.diff(dim=1) / h]), tuple(t[1:-1].tolist()))


def rectilinear(times: Sequence[float] | Tensor, data: Tensor) -> Path:
    """Time goes on while the data stay, then the data change while time stands: X = (t, x) in 1 + C channels.

    The path's own clock runs from 0 to 2n - 2, its knots being (t_0, x_0), (t_1, x_0), (t_1, x_1), ...
    What it is at 2i depends on nothing later than t_i, values included.
    """
    t, x, _ = _checked(times, data)
    clock = t.to(x.dtype)[None, :, None].expand(len(x), -1, 1).repeat_interleave(2, 1)[:, 1:]
    knots = torch.cat([clock, x.repeat_interleave(2, 1)[:, :-1]], 2)
    return linear(torch.arange(knots.shape[1], dtype=t.dtype, device=t.device), knots)


def hermite(times: Sequence[float] | Tensor, data: Tensor) -> Path:
    """Cubics with the slope at t_i of the line that came before it, at t_0 of the one behind.

    (Morrill, Kidger, Yang and Lyons 2021.)
    """
    t, x, h = _checked(times, data)
    after = x.diff(dim=1) / h
    before = torch.cat([after[:, :1], after[:, :-1]], 1)
    bend = (after - before) / h  # p = x + before s + 2 bend s^2 - bend/h s^3 has p' = after and p = x_1 at h
    return Path(t, torch.stack([x[:, :-1], before, 2 * bend, -bend / h]))


def natural_cubic(times: Sequence[float] | Tensor, data: Tensor) -> Path:
    """The twice differentiable cubic spline with no curvature at its ends.

    With d_i = (x_(i+1) - x_i)/h_i its second derivatives M, 0 at both ends, solve

        h_(i-1) M_(i-1) + 2 (h_(i-1) + h_i) M_i + h_i M_(i+1) = 6 (d_i - d_(i-1))
    """
    t, x, h = _checked(times, data)
    d, w = x.diff(dim=1) / h, h[:, 0]
    M = torch.zeros_like(x)
    if len(t) > 2:
        A = torch.diag(2 * (w[:-1] + w[1:])) + torch.diag(w[1:-1], 1) + torch.diag(w[1:-1], -1)
        M = torch.cat([M[:, :1], torch.linalg.solve(A.to(x.dtype), 6 * d.diff(dim=1)), M[:, :1]], 1)
    left, right = M[:, :-1], M[:, 1:]
    return Path(
        t, torch.stack([x[:, :-1], d - h * (2 * left + right) / 6, left / 2, (right - left) / (6 * h)])
    )


def _checked(times: Sequence[float] | Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """times [n], data, and the intervals [n - 1, 1] in the type of the data."""
    if not isinstance(data, Tensor) or data.ndim != 3 or not (data.is_floating_point() or data.is_complex()):
        raise ArgumentError("data: a tensor of floating or complex numbers, [B, n, C]")
    t = torch.as_tensor(times, dtype=torch.float64, device=data.device).detach()
    if t.shape != data.shape[1:2] or len(t) < 2 or not bool((t.diff() > 0).all()):
        raise ArgumentError(
            f"times of data {tuple(data.shape)}: {data.shape[1]} of them, two at least, rising"
        )
    if not bool(data.isfinite().all()):
        raise ArgumentError("data are NaN or infinite somewhere: fill in what is missing")
    return t, data, t.diff().to(data.dtype.to_real())[:, None]
