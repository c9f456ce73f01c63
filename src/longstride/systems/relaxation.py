"""Slow build-up and sudden release, hunters and hunted: Van der Pol, FitzHugh-Nagumo, Lotka-Volterra."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import STIFF, Number, Plane, Series, System, stacked, state, system


@system("Van der Pol 1926; Hairer and Wanner 1996, IV.10", above_zero=("mu",))
def van_der_pol(mu: Number = 1000.0) -> System:
    """x'' = mu (1 - x^2) x' - x, as (x, x'): a cycle between about -2 and 2.

    Its period is near (3 - 2 ln 2) mu for a large mu; the jumps take 1/mu. The eigenvalue between jumps is
    near -3 mu: stiff from mu = 100 on. In s = t/mu, with z = mu x', it is the test set's problem of
    epsilon = 1/mu^2, from s = 0 to 2.

    Good values: 1 (a round cycle), 10, 1000 (the classic stiff one).
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        return stacked(v, mu * (1 - u * u) * v - u)

    longest = float(torch.as_tensor(mu).max())
    return System(
        rate,
        x0=state(2.0, 0.0),
        t=(0.0, max(20.0, 2 * longest)),
        labels=("x", "x'"),
        methods=STIFF,
        view=Series(shown=(0,)),
    )


@system("FitzHugh 1961; Nagumo, Arimoto and Yoshizawa 1962", above_zero=("tau",))
def fitzhugh_nagumo(current: Number = 0.5, a: Number = 0.7, b: Number = 0.8, tau: Number = 12.5) -> System:
    """A nerve cell: v' = v - v^3/3 - w + current, w' = (v + a - b w)/tau.

    Good values: it fires again and again for currents from 0.33 to 1.42, and rests outside of that.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        v, w = x.unbind(-1)
        return stacked(v - v**3 / 3 - w + current, (v + a - b * w) / tau)

    return System(
        rate,
        x0=state(-1.0, 1.0),
        t=(0.0, 150.0),
        labels=("v", "w"),
    )


@system("Lotka 1925; Volterra 1926", above_zero=("alpha", "beta", "gamma", "delta"))
def lotka_volterra(
    alpha: Number = 1.5, beta: Number = 1.0, gamma: Number = 3.0, delta: Number = 1.0
) -> System:
    """Prey x' = (alpha - beta y) x and hunters y' = (delta x - gamma) y.

    Closed curves about (gamma/delta, alpha/beta); each keeps delta x - gamma ln x + beta y - alpha ln y.
    """

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        return stacked((alpha - beta * v) * u, (delta * u - gamma) * v)

    def kept(x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        return delta * u - gamma * torch.log(u) + beta * v - alpha * torch.log(v)

    return System(
        rate,
        x0=state(1.0, 1.0),
        t=(0.0, 20.0),
        labels=("x", "y"),
        invariants={"V": kept},
        view=Plane(lambda x: x[..., None, :], ("x, prey", "y, hunters")),
    )
