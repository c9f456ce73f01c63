"""Chemistry: Robertson, HIRES, the Oregonator, the Brusselator, in a vessel and on a line."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import whole
from .base import STIFF, Number, Plane, Series, SpaceTime, System, stacked, state, system, wide


@system("Robertson 1966; Hairer and Wanner 1996, IV.10", above_zero=("k1", "k2", "k3"))
def robertson(k1: Number = 0.04, k2: Number = 3e7, k3: Number = 1e4) -> System:
    """A -> B at k1, 2 B -> B + C at k2, B + C -> A + C at k3: A, B and C, whose sum stays.

    Rates nine orders of magnitude apart, over eleven of time. B stays near 1e-5 and falls to 1e-13: its
    absolute tolerance decides, and codes that let it become negative are lost.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        a, b, c = x.unbind(-1)
        out, back, over = k1 * a, k3 * b * c, k2 * b * b
        return stacked(back - out, out - back - over, over)

    return System(
        rate,
        x0=state(1.0, 0.0, 0.0),
        t=(0.0, 1e11),
        labels=("A", "B", "C"),
        invariants={"mass": lambda x: x.sum(-1)},
        methods=STIFF,
        atol=1e-14,
        view=Series(log_from=1e-6),
    )


@system("Schaefer 1975; Hairer and Wanner 1996, IV.10")
def hires() -> System:
    """High irradiance response of a plant to light: eight reactants, the last two of which keep their sum."""

    def rate(t: Tensor, x: Tensor) -> Tensor:
        a, b, c, d, e, f, g, h = x.unbind(-1)
        bound = 280 * f * h - 1.81 * g
        return stacked(
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -280 * f * h + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            bound,
            -bound,
        )

    return System(
        rate,
        x0=state(1.0, *[0.0] * 6, 0.0057),
        t=(0.0, 321.8122),
        labels=tuple(f"y{i}" for i in range(1, 9)),
        invariants={"y7 + y8": lambda x: x[..., 6] + x[..., 7]},
        methods=STIFF,
        view=Series(shown=(0, 1, 5, 6), log_from=1e-3),
    )


@system("Field and Noyes 1974; Hairer and Wanner 1996, IV.10", above_zero=("s", "q", "w"))
def oregonator(s: Number = 77.27, q: Number = 8.375e-6, w: Number = 0.161) -> System:
    """x' = s (y + x (1 - q x - y)), y' = (z - (1 + x) y)/s, z' = w (x - z): Belousov and Zhabotinskii.

    Good values: the defaults; a cycle of period 303 in which x goes from 1 to 1e5 and back.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v, z = x.unbind(-1)
        return stacked(s * (v + u * (1 - q * u - v)), (z - (1 + u) * v) / s, w * (u - z))

    return System(
        rate,
        x0=state(1.0, 2.0, 3.0),
        t=(0.0, 360.0),
        labels=("x", "y", "z"),
        methods=STIFF,
        view=Series(log_values=True),
    )


@system("Prigogine and Lefever 1968", above_zero=("a", "b"))
def brusselator(a: Number = 1.0, b: Number = 3.0) -> System:
    """u' = a + u^2 v - (b + 1) u, v' = b u - u^2 v: rests at (a, b/a), and circles it for b > 1 + a^2."""

    return System(
        lambda t, x: stacked(*_brusselator(x[..., 0], x[..., 1], a, b)),
        x0=state(1.5, 3.0),
        t=(0.0, 30.0),
        labels=("u", "v"),
        view=Plane(lambda x: x[..., None, :], ("u", "v")),
    )


@system("Hairer and Wanner 1996, IV.10", above_zero=("a", "b", "alpha"))
def brusselator_1d(n: int = 128, a: Number = 1.0, b: Number = 3.0, alpha: Number = 0.02) -> System:
    """The Brusselator, diffusing along [0, 1], on n inner points: u_t = a + u^2 v - (b + 1) u + alpha u_xx.

    The state is [B, n, 2], u and v at each point, so that the Jacobian has bands of width 2. At both ends
    u = a and v = b/a, where it rests. From u = a + sin(2 pi x) and v = b/a. Eigenvalues reach
    -4 alpha (n + 1)^2, -1331 by default.
    """
    whole("n", n, 2)

    def spread(w: Tensor, end: Number) -> Tensor:
        edge = torch.as_tensor(end, dtype=w.dtype, device=w.device).expand(*w.shape[:-1], 1)
        padded = torch.cat([edge, w, edge], -1)
        return (n + 1) ** 2 * wide(alpha) * (padded[..., 2:] - 2 * w + padded[..., :-2])

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        du, dv = _brusselator(u, v, wide(a), wide(b))
        return stacked(du + spread(u, wide(a)), dv + spread(v, wide(b / a)))

    x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    start = state(a, b / a)[:, None].repeat(1, n, 1)
    start[..., 0] += torch.sin(2 * math.pi * x).to(start)
    return System(
        rate,
        jacobian=(2, 2),
        x0=start,
        t=(0.0, 10.0),
        labels=tuple(f"{name}_{i}" for i in range(1, n + 1) for name in "uv"),
        methods=STIFF,
        view=SpaceTime(lambda x: x[..., 0], "x", "u", 1 / (n + 1), n / (n + 1)),
    )


def _brusselator(u: Tensor, v: Tensor, a: Number, b: Number) -> tuple[Tensor, Tensor]:
    made = u * u * v
    return a + made - (b + 1) * u, b * u - made
