"""Measured order of convergence: the slope of the error of a method on problems with known solutions."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core import Field, advance
from ..frame import PREDICTIONS, Frame, conversion
from ..integrate import run
from ..methods import REGISTRY, Method, get
from ..noise import Noise
from ..operator import Linear, Operator
from ..plan import Plan
from ..process import Process
from ..sampling import plan_sampling

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


def without_noise(name: str) -> dict[str, object]:
    """Options that make a method deterministic and let it keep its full order to the end."""
    plain = {"lower_order_final": False, "eta": 0.0, "tau": 0.0, "s_churn": 0.0, "phi": "ode"}
    return {k: v for k, v in plain.items() if k in REGISTRY[name].options}


class Impulses(Noise):
    """Each normal of a run is a unit vector of its own, [1, size], after the first `used`."""

    def __init__(self, size: int, used: int):
        super().__init__(0, range(1), (size,))
        self.used = used

    def increment(self, a: float, b: float) -> Tensor:
        impulse = torch.zeros(1, *self.shape, dtype=torch.float64)
        impulse[0, self.used] = 1.0
        self.used += 1
        return impulse


def gaussian_moments(
    plan: Plan, process: Process, mean: float, variance: float
) -> tuple[float, float, float, float]:
    """Mean and variance a plan ends with on data N(mean, variance), then what they should be: no sampling.

    The data prediction is mean + alpha v/(alpha^2 v + sigma^2) (x - alpha mean), so a state is a sum of 1,
    the normal it began with and those of the steps; it is run as its coefficients [1, 2 + normals].
    """
    size = 2 + sum(len(step.brownian) - 1 for step in plan.steps if step.brownian)
    one, start = torch.eye(2, size, dtype=torch.float64)[:, None]

    def law(t: float) -> tuple[float, float]:
        alpha, sigma = process.pair(t)
        return alpha * mean, alpha**2 * variance + sigma**2

    def field(prediction: str) -> Field:
        def evaluate(t: float, x: Tensor) -> Tensor:
            (alpha, sigma), (m, v) = process.pair(t), law(t)
            a, b = conversion("data", prediction, alpha, sigma)
            return a * x + b * (mean * one + alpha * variance / v * (x - m * one))

        return evaluate

    m, v = law(plan.times[0])
    found, _ = run([field(p) for p in PREDICTIONS], plan, m * one + v**0.5 * start, Impulses(size, 2))
    row = found[-1][0]
    return float(row[0]), float(row[1:].square().sum()), *law(plan.times[-1])


def weak_order(name: str, process: Process, n: int = 64, **options: Any) -> float:
    """log2 of the fall of the error in mean and variance on N(0.7, 0.25) when n steps become 2 n."""

    def error(steps: int) -> float:
        method = get(name, **options)
        nfe = steps * method.sizes[0] + method.evaluates_end
        plan = plan_sampling(process, name, nfe, "karras", final="sigma_min", **options)
        m, v, true_m, true_v = gaussian_moments(plan, process, 0.7, 0.25)
        return abs(m - true_m) + abs(v - true_v)

    return math.log2(error(n) / error(2 * n))


def measured_order(method: Method, trial: Trial, n: int = 64, exact_start: bool = True) -> float:
    """log2 of the error's fall when the steps are halved, n against 2n."""
    coarse, fine = (error(method, trial, k, exact_start) for k in (n, 2 * n))
    return math.log2(coarse / fine)
