"""Measured order of convergence: the slope of the error of a method on problems with known solutions."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import Field, advance
from ..frame import PREDICTIONS, Frame, conversion
from ..methods import Method
from ..operator import Linear, Operator
from ..process import Process

START = 3  # steps at least whose result is replaced by the exact one; more while the history grows


@dataclass(frozen=True)
class Trial:
    """A problem and its solution. field belongs to the operator; exact(t) is x(t)."""

    operator: Operator
    field: Field
    exact: Callable[[float], Tensor]
    start: float
    end: float

    def times(self, n: int) -> list[float]:
        """n uneven steps, so that methods for even ones show their true order; uneven in the clock."""
        a, b = self.operator.clock(self.start), self.operator.clock(self.end)
        u = [i / n for i in range(n + 1)]
        taus = [a + (b - a) * (v + 0.3 * v * (1 - v)) for v in u]
        return [self.start, *(self.operator.time(tau) for tau in taus[1:-1]), self.end]


def ode_trial(L: Tensor | float) -> Trial:
    """x' = L x + f with a solution chosen beforehand: f = g' - L g + x^2 - g^2 is solved by g.

    g_j = cos(2t + j/2) + t/3 for j = 0..11, turned by e^(it) when L is complex; L [12] or a number. So many
    phases that no single one's cancelling errors show.
    """
    turn = 1j if isinstance(L, Tensor) and L.is_complex() else 0.0
    j = torch.arange(12, dtype=torch.float64) / 2

    def g(t: float) -> Tensor:
        return (torch.cos(2 * t + j) + t / 3) * cmath.exp(turn * t) if turn else torch.cos(2 * t + j) + t / 3

    def slope(t: float) -> Tensor:
        rise = 1 / 3 - 2 * torch.sin(2 * t + j)
        return rise * cmath.exp(turn * t) + turn * g(t) if turn else rise

    def field(t: float, x: Tensor) -> Tensor:
        return slope(t) - L * g(t) + (x**2 - g(t) ** 2)

    return Trial(Linear(L), field, lambda t: g(t)[None], 0.0, 1.5)


def diffusion_trial(process: Process, prediction: str) -> Trial:
    """Two Gaussians on a line, sampled from t_max to t_min by the probability-flow ODE.

    The flow moves every point along its quantile, so x(t) solves sum_k w_k Phi((x - alpha m_k)/s_k) = q
    with s_k^2 = alpha^2 v_k + sigma^2: exact by bisection, and nonlinear in x.
    """
    w, m, v = (torch.tensor(a, dtype=torch.float64) for a in ((0.4, 0.6), (-1.0, 0.8), (0.3, 0.5)))
    quantiles = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)[:, None]
    frame = Frame(process, prediction)

    def spread(t: float) -> tuple[float, float, Tensor]:
        alpha, sigma = process.pair(t)
        return alpha, sigma, (alpha**2 * v + sigma**2).sqrt()

    def exact(t: float) -> Tensor:
        alpha, sigma, s = spread(t)
        low = torch.full_like(quantiles, -20.0 * (alpha + sigma))
        high = -low
        for _ in range(100):
            middle = (low + high) / 2
            below = (w * torch.special.ndtr((middle - alpha * m) / s)).sum(1, keepdim=True) < quantiles
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low

    def field(t: float, x: Tensor) -> Tensor:
        alpha, sigma, s = spread(t)
        log_p = w.log() - s.log() - ((x - alpha * m) / s) ** 2 / 2
        mean = m + alpha * v / s**2 * (x - alpha * m)
        data = (log_p.softmax(1) * mean).sum(1, keepdim=True)
        a, b = conversion("data", PREDICTIONS[frame.field], alpha, sigma)
        return a * x + b * data

    return Trial(frame, field, exact, process.t_max, process.t_min)


def error(method: Method, trial: Trial, n: int, exact_start: bool = True) -> float:
    """Root mean square error at the end of n steps.

    exact_start puts the exact solution in place of the first steps' results.
    """
    fields = [trial.field] * len(PREDICTIONS)  # whichever the stage asks for, it is the operator's
    times = trial.times(n)
    xs, fs = [trial.exact(times[0])], list[Tensor]()
    x_at, f_at = [times[0]], list[float]()  # when the states and evaluations that are kept were
    for k in range(n):
        step, held = method.step(times, k, trial.operator), len(fs)
        xs, fs = advance(fields, step, xs, fs)
        x_at += [times[k + 1] if stage.at is None else stage.at for stage in step.stages]
        f_at += [stage.at for stage in step.stages if stage.at is not None]
        x_at, f_at = [x_at[i] for i in step.keep_x], [f_at[i] for i in step.keep_f]
        if exact_start and (k < START or len(fs) > held):
            xs = [trial.exact(t) for t in x_at]
            fs = [trial.field(t, trial.exact(t)) for t in f_at]
    return float((xs[-1] - trial.exact(times[-1])).abs().square().mean().sqrt())


def measured_order(method: Method, trial: Trial, n: int = 64, exact_start: bool = True) -> float:
    """log2 of the error's fall when the steps are halved, n against 2n."""
    coarse, fine = (error(method, trial, k, exact_start) for k in (n, 2 * n))
    return math.log2(coarse / fine)
