"""Predictions, how they follow from each other, and the linear frames that sampling is integrated in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .core import Stage, Step, Weight
from .errors import ArgumentError
from .process import Process

PREDICTIONS = ("data", "noise", "velocity", "v")  # fields of a Denoiser, as plans number them
DATA = PREDICTIONS.index("data")  # what fits and the weights of whole runs are written in
FRAMES = ("data", "noise", "sigma", "velocity", "v")


def conversion(predicts: str, target: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """(a, b) with target = a x + b output, for what a network predicts; exact, floats or tensors.

    x = alpha x_0 + sigma eps; flow velocity = eps - x_0; score = -eps/sigma; and
    v = (alpha eps - sigma x_0)/sqrt(alpha^2 + sigma^2), whose root is 1 for a VP process.

    Raises:
        ArgumentError: the target does not follow there: data from noise or score where alpha = 0, noise
            from data or score where sigma = 0.
    """
    zero_alpha, zero_sigma = ((isinstance(w, float) and w == 0) for w in (alpha, sigma))
    predicts = "velocity" if predicts == "flow" else predicts
    if predicts == target:
        return 0.0, 1.0
    if target in ("velocity", "v"):
        # The tangent of alpha x_0 + sigma eps along (-1, 1), or along (-sigma, alpha) of unit length.
        r = (alpha**2 + sigma**2) ** 0.5
        p, q = (1.0, 1.0) if target == "velocity" else (alpha / r, sigma / r)
        (a, b), (c, d) = (conversion(predicts, t, alpha, sigma) for t in ("noise", "data"))
        return p * a - q * c, p * b - q * d
    if predicts == "v":
        total, r = alpha**2 + sigma**2, (alpha**2 + sigma**2) ** 0.5
        return (alpha / total, -sigma / r) if target == "data" else (sigma / total, alpha / r)
    if predicts == "velocity":
        total = alpha + sigma
        return (1 / total, -sigma / total) if target == "data" else (1 / total, alpha / total)
    if zero_sigma and target == "noise" and predicts in ("data", "score"):
        raise ArgumentError("the noise cannot be told from clean data: sigma is 0 there")
    if predicts == "data":
        return 1 / sigma, -alpha / sigma
    if predicts == "score" and target == "noise":
        return 0.0, -sigma
    if zero_alpha:
        raise ArgumentError(
            f"a network that predicts the {predicts} says nothing of the data where alpha = 0: begin the "
            "process at a t_max with alpha > 0, or use a network that predicts data, v or flow"
        )
    if predicts == "score":
        return 1 / alpha, sigma**2 / alpha
    return 1 / alpha, -sigma / alpha


@dataclass(frozen=True)
class Frame:
    """A change of variables x = S(t) u in which sampling is du/dtau = L u + F, F a prediction.

    prediction, S, tau, L, F (sign included):
      "data"      alpha          lambda         -(1 + eta^2)   (1 + eta^2) x0_hat
      "noise"     sigma          lambda         +1             -(1 + eta^2) eps_hat
      "sigma"     alpha          sigma/alpha     0             eps_hat
      "velocity"  alpha + sigma  sigma/(alpha + sigma)  0      eps_hat - x0_hat
      "v"         sqrt(alpha^2 + sigma^2)  atan(sigma/alpha)  0  v_hat

    The last two are finite at both ends. The first two are the same ordinary differential equation; with
    eta > 0 they are the reverse SDE with that much noise, its stochastic part solved exactly:
    sigma_t sqrt(1 - e^(-2 eta^2 h)) for data, sigma_t eta sqrt(e^(2h) - 1) for noise prediction, in x
    (Gonzalez et al. 2023; Xue et al. 2023). `noise` names the Brownian interval behind it, chosen so that
    the pieces of a split step add up to the whole, and a step back undoes the motion of the step forth.
    """

    process: Process
    prediction: str
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.prediction not in FRAMES:
            raise ArgumentError(f"prediction = {self.prediction!r}: it is one of {', '.join(FRAMES)}")
        if self.eta < 0:
            raise ArgumentError(f"eta = {self.eta}: the noise of a sampler is 0 (none) or more")

    @property
    def field(self) -> int:
        """Position of the prediction among `Denoiser.fields`."""
        return PREDICTIONS.index("noise" if self.prediction == "sigma" else self.prediction)

    @property
    def L(self) -> float:
        return {"data": -(1 + self.eta**2), "noise": 1.0}.get(self.prediction, 0.0)

    @property
    def factor(self) -> float:
        """F over the prediction."""
        return {"data": 1 + self.eta**2, "noise": -(1 + self.eta**2)}.get(self.prediction, 1.0)

    def scale(self, t: float) -> float:
        """S(t)."""
        alpha, sigma = self.process.pair(t)
        if self.prediction == "v":
            return math.hypot(alpha, sigma)
        return {"noise": sigma, "velocity": alpha + sigma}.get(self.prediction, alpha)

    def clock(self, t: float) -> float:
        alpha, sigma = self.process.pair(t)
        if self.prediction == "velocity":
            return sigma / (alpha + sigma)
        if self.prediction == "v":
            return math.atan2(sigma, alpha)
        lam = self.process.lambda_(t)
        return lam if self.prediction in ("data", "noise") else math.exp(-lam)

    def time(self, tau: float) -> float:
        if self.prediction == "velocity":
            ratio = tau / (1 - tau) if tau < 1 else math.inf
        elif self.prediction == "v":
            ratio = math.tan(tau)
        else:
            ratio = tau if self.prediction == "sigma" else math.exp(-tau)
        return self.process.time(-math.log(ratio) if ratio > 0 else math.inf)

    def variable(self, name: str, t: float) -> float:
        if name == "t":
            return t
        lam = self.process.lambda_(t)
        return lam if name == "lambda" else math.exp(-lam)

    def row(self, t: float, x: Sequence[tuple[float, Weight]], f: Sequence[Weight]) -> tuple:
        scale = self.scale(t)
        return (
            tuple(w * (scale / self.scale(s)) if w != 0 else 0.0 for s, w in x),
            tuple(w * scale * self.factor for w in f),
        )

    def noise(self, s: float, t: float) -> tuple[float, tuple[float, float] | None]:
        if self.eta == 0:
            return 0.0, None
        lambda_s, lambda_t, e2 = self.process.lambda_(s), self.process.lambda_(t), self.eta**2
        h = lambda_t - lambda_s
        if self.prediction == "data":
            weight = math.sqrt(abs(math.expm1(-2 * e2 * h)))
            interval = math.exp(2 * e2 * lambda_s), math.exp(2 * e2 * lambda_t)
        else:
            weight = self.eta * math.sqrt(abs(math.expm1(2 * h)))
            interval = math.exp(-2 * lambda_s), math.exp(-2 * lambda_t)
        return self.process.sigma(t) * weight, interval

    def noisy(self, eta: float) -> Frame:
        return replace(self, eta=eta)


def ddim_row(process: Process, s: float, t: float) -> tuple[float, float]:
    """Weights of x_s and x0_hat in x_t when the prediction is held still: exact where alpha or sigma is 0."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.pair(s), process.pair(t)
    return sigma_t / sigma_s, alpha_t - alpha_s * sigma_t / sigma_s


def ddim_step(process: Process, s: float, t: float) -> Step:
    """One step of DDIM, from the data prediction at s."""
    x, f = ddim_row(process, s, t)
    return Step((Stage((1.0,), at=s, field=DATA), Stage((x,), (f,))))
