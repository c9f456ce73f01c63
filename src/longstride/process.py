"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, from noise at t_max to data at t_end.

Everything follows from the pair (alpha, sigma). lambda = log(alpha/sigma) is half the log-SNR: -inf where
alpha = 0 (zero terminal SNR, a flow at t = 1) and +inf where sigma = 0. Times are the process's own and
run from noise to data, that is downward.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ArgumentError, finite, positive

Time = float | Tensor
COSINE_S = 0.008  # s of the cosine schedule


@lru_cache(maxsize=65536)
def _float_pair(process: Process, t: float) -> tuple[float, float]:
    x = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(x)
    return float(alpha), float(sigma)


def rising(low_name: str, least: float, low: float, high_name: str, high: float, most: float) -> None:
    """Check least < low < high <= most.

    Raises:
        ArgumentError: naming the one that is out of place.
    """
    low, high = finite(low_name, low), finite(high_name, high)
    if not least < low < high <= most:
        raise ArgumentError(
            f"{low_name} = {low} and {high_name} = {high}: they must follow "
            f"{least} < {low_name} < {high_name}" + (f" <= {most}" if most < math.inf else "")
        )


@dataclass(frozen=True)
class Process:
    """Base of the processes: a subclass gives `alpha_sigma` and its three times.

    t_max: pure noise, or nearly.  t_min: the last time with noise that a network was trained for.
    t_end: clean data.
    """

    @property
    def t_max(self) -> float:
        raise NotImplementedError

    @property
    def t_min(self) -> float:
        raise NotImplementedError

    @property
    def t_end(self) -> float:
        return 0.0

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t) and sigma(t) for a tensor of times, in its dtype."""
        raise NotImplementedError

    def pair(self, t: Time) -> tuple[Any, Any]:
        """(alpha, sigma) at t: floats for a float, computed in float64 and remembered."""
        return self.alpha_sigma(t) if isinstance(t, Tensor) else _float_pair(self, float(t))

    def alpha(self, t: Time) -> Any:
        return self.pair(t)[0]

    def sigma(self, t: Time) -> Any:
        return self.pair(t)[1]

    def lambda_(self, t: float) -> float:
        """Half the log-SNR, log(alpha/sigma); infinite at the ends where one of them vanishes."""
        alpha, sigma = self.pair(t)
        if sigma == 0:
            return math.inf
        return -math.inf if alpha == 0 else math.log(alpha) - math.log(sigma)

    def time(self, lambda_: float) -> float:
        """t with this lambda_; by bisection, which any monotone schedule allows."""
        if lambda_ <= self.lambda_(self.t_max):
            return self.t_max
        noisy, clean = self.t_max, self.t_end
        for _ in range(200):
            middle = (noisy + clean) / 2
            if middle in (noisy, clean):
                break
            if self.lambda_(middle) < lambda_:
                noisy = middle
            else:
                clean = middle
        return noisy

    def add_noise(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """x_t from clean x0 [B, *shape] and unit normal noise of its shape; t a number or [B]."""
        # Integer times are indices of a table; alpha and sigma are not integers.
        t = t.to(x0.dtype) if isinstance(t, Tensor) and not t.is_floating_point() else t
        alpha, sigma = self.pair(t)
        if isinstance(t, Tensor):
            shape = (-1,) + (1,) * (x0.ndim - 1)
            alpha, sigma = alpha.reshape(shape), sigma.reshape(shape)
        return alpha * x0 + sigma * noise

    @property
    def prior_std(self) -> float:
        """Standard deviation of x at t_max: sigma there, the data's share being unknown."""
        return self.pair(self.t_max)[1]

    def preconditioning(self, t: Time) -> tuple[Any, Any, Any, Any]:
        """(c_skip, c_out, c_in, c_noise) of a "raw" network at t; only EDM defines them."""
        raise ArgumentError(
            f'predicts="raw" needs the preconditioning of process.EDM, not of {type(self).__name__}'
        )

    def describe(self) -> dict[str, Any]:
        """What a plan remembers of the process it was made for: JSON, compared when it is used."""
        return {"process": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: alpha = 1, t = sigma (Song et al. 2021)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        rising("sigma_min", 0.0, self.sigma_min, "sigma_max", self.sigma_max, math.inf)

    @property
    def t_max(self) -> float:
        return self.sigma_max

    @property
    def t_min(self) -> float:
        return self.sigma_min

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    def time(self, lambda_: float) -> float:
        return math.exp(-lambda_) if lambda_ > -math.inf else self.t_max


@dataclass(frozen=True)
class EDM(VE):
    """Elucidated diffusion models: alpha = 1, t = sigma, with the preconditioning of a raw network.

    D(x) = c_skip x + c_out F(c_in x; c_noise), where sigma_data is the root mean square of the data
    (Karras et al. 2022, table 1).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("sigma_data", self.sigma_data)

    def preconditioning(self, t: Time) -> tuple[Any, Any, Any, Any]:
        total = t * t + self.sigma_data**2
        root = total**0.5
        c_noise = (t.log() if isinstance(t, Tensor) else math.log(t)) / 4
        return self.sigma_data**2 / total, t * self.sigma_data / root, 1 / root, c_noise


@dataclass(frozen=True)
class Flow(Process):
    """Flow matching, rectified flow: alpha = 1 - t, sigma = t; velocity = noise - data.

    t = 1 is pure noise, where alpha = 0 exactly; `t_min` is the last time that grids in log-SNR place.
    """

    t_min: float = 1e-3  # type: ignore[misc]

    def __post_init__(self) -> None:
        rising("t_min", 0.0, self.t_min, "t_max", self.t_max, 1.0)

    @property
    def t_max(self) -> float:
        return 1.0

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def time(self, lambda_: float) -> float:
        return 1 / (1 + math.exp(min(lambda_, 700.0))) if lambda_ < math.inf else 0.0


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving: alpha^2 + sigma^2 = 1.

    schedule "linear": betas from beta_min to beta_max (Ho et al. 2020, Song et al. 2021); "cosine":
    alpha = cos(pi/2 (t + s)/(1 + s)) over its value at 0, s = 0.008 (Nichol and Dhariwal 2021);
    "scaled_linear", discrete only: the roots of the betas are linear (Rombach et al. 2022).

    Continuous, t is in [0, 1]; the cosine stops at 0.9946 where its SNR is still positive, and t_max = 1 is
    its zero terminal SNR. Discrete, t is the float index 0..999 of the table of 1000 betas, beta_min/1000
    to beta_max/1000 (the cosine's clipped at 0.999), and log(alpha/sigma) is linear in t between the
    entries; data are reached below index 0, at t_end = -1. `zero_snr` rescales the discrete table so that
    the last alpha is 0 (Lin et al. 2024, algorithm 1); then the last cell is linear in alpha/sigma.
    `betas` is a table of its own instead, of any length: t is its float index.
    """

    schedule: str = "linear"
    discrete: bool = False
    zero_snr: bool = False
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = None  # type: ignore[assignment]
    t_max: float = None  # type: ignore[assignment]
    betas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.schedule not in ("linear", "scaled_linear", "cosine"):
            raise ArgumentError(f"unknown schedule {self.schedule!r} of VP: linear, scaled_linear or cosine")
        if (self.zero_snr or self.betas or self.schedule == "scaled_linear") and not self.discrete:
            raise ArgumentError(
                "zero_snr, betas and scaled_linear are of a table: give discrete=True as well"
            )
        if self.betas and (len(self.betas) < 2 or min(self.betas) <= 0 or max(self.betas[:-1]) >= 1):
            raise ArgumentError("betas are two or more numbers between 0 and 1, of which the last may be 1")
        rising("beta_min", 0.0, self.beta_min, "beta_max", self.beta_max, 1000.0)
        last = 1.0 if self.schedule == "linear" else 0.9946
        lowest, highest = (0.0, len(self._ratio) - 1.0) if self.discrete else (1e-3, last)
        object.__setattr__(self, "t_min", lowest if self.t_min is None else self.t_min)
        object.__setattr__(self, "t_max", highest if self.t_max is None else self.t_max)
        rising("t_min", self.t_end, self.t_min, "t_max", self.t_max, highest if self.discrete else 1.0)

    @property
    def t_end(self) -> float:
        return -1.0 if self.discrete else 0.0

    def describe(self) -> dict[str, Any]:
        """A table of betas as its digest, which is enough to tell two of them apart."""
        found = super().describe()
        betas = found.pop("betas")
        return {**found, "betas": hashlib.sha256(repr(betas).encode()).hexdigest()} if betas else found

    @cached_property
    def _ratio(self) -> np.ndarray:
        """alpha/sigma of the discrete table."""
        low, high = self.beta_min / 1000, self.beta_max / 1000
        if self.betas:
            betas = np.array(self.betas)
        elif self.schedule == "linear":
            betas = np.linspace(low, high, 1000)
        elif self.schedule == "scaled_linear":
            betas = np.linspace(low**0.5, high**0.5, 1000) ** 2
        else:
            edges = np.cos((np.linspace(0, 1, 1001) + COSINE_S) / (1 + COSINE_S) * np.pi / 2) ** 2
            betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
        alpha = np.sqrt(np.cumprod(1 - betas))
        if self.zero_snr:
            alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        return alpha / np.sqrt(1 - alpha**2)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if not self.discrete:
            return self._linear(t) if self.schedule == "linear" else self._cosine(t)
        ratio = torch.as_tensor(self._ratio, device=t.device)
        u = t.double().clamp(0, len(ratio) - 1)
        i = u.floor().clamp(max=len(ratio) - 2).long()
        low, high, w = ratio[i], ratio[i + 1], u - i
        smooth = torch.exp(torch.lerp(low.log(), high.clamp(min=1e-300).log(), w))
        r = torch.where(high > 0, smooth, torch.lerp(low, high, w))
        alpha, sigma = r / (1 + r * r).sqrt(), 1 / (1 + r * r).sqrt()
        # Below the first entry there is only the way to clean data, t_end = -1.
        clean = (-t.double()).clamp(0, 1)
        sigma = sigma * (1 - clean)
        alpha = torch.where(clean > 0, (1 - sigma * sigma).sqrt(), alpha)
        return alpha.to(t.dtype), sigma.to(t.dtype)

    def _linear(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min
        return log_alpha.exp(), torch.sqrt(-torch.expm1(2 * log_alpha))

    def _cosine(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """cos a/cos a_0, and sqrt(cos^2 a_0 - cos^2 a)/cos a_0 as a product that is exactly 0 at t = 0."""
        start, turn = math.pi / 2 * COSINE_S / (1 + COSINE_S), math.pi / 2 / (1 + COSINE_S) * t
        alpha = torch.where(t >= 1, 0.0, (start + turn).cos() / math.cos(start))
        square = turn.sin() * (2 * start + turn).sin() / math.cos(start) ** 2
        return alpha, torch.where(t >= 1, 1.0, square.sqrt())

    def time(self, lambda_: float) -> float:
        if math.isinf(lambda_):
            return self.t_end if lambda_ > 0 else self.t_max
        if self.discrete:
            ratio = self._ratio[::-1]
            table = np.log(ratio, where=ratio > 0, out=np.full(len(ratio), -1e3))
            inside = table[0] <= lambda_ <= table[-1]
            last_cell = ratio[0] == 0 and lambda_ < table[1]
            if last_cell or not inside:
                return super().time(lambda_)
            return len(ratio) - 1 - float(np.interp(lambda_, table, np.arange(len(ratio))))
        minus_log_alpha = 0.5 * float(np.logaddexp(0.0, -2 * lambda_))
        if self.schedule == "linear":
            half, slope = self.beta_min / 2, self.beta_max - self.beta_min
            return 2 * minus_log_alpha / (half + math.sqrt(half**2 + slope * minus_log_alpha))
        cosine = math.exp(-minus_log_alpha) * math.cos(math.pi / 2 * COSINE_S / (1 + COSINE_S))
        return math.acos(cosine) / (math.pi / 2) * (1 + COSINE_S) - COSINE_S


@dataclass(frozen=True)
class AlphaSigma(Process):
    """Any pair of schedules: alpha falls from t_end to t_max, sigma grows, both of one tensor of times.

    name: what plans call it; two processes of one name are taken for the same.
    """

    alpha_of: Callable[[Tensor], Tensor]
    sigma_of: Callable[[Tensor], Tensor]
    t_max: float = 1.0  # type: ignore[misc]
    t_min: float = 1e-3  # type: ignore[misc]
    name: str = "custom"

    def __post_init__(self) -> None:
        rising("t_min", self.t_end, self.t_min, "t_max", self.t_max, math.inf)
        try:
            ts = torch.linspace(self.t_end, self.t_max, 65, dtype=torch.float64)
            alpha, sigma = self.alpha_sigma(ts)
            good = alpha.shape == sigma.shape == ts.shape
        except Exception as error:
            raise ArgumentError(f"alpha and sigma must take a tensor of times: {error}") from error
        if not (good and (alpha >= 0).all() and (sigma >= 0).all()):
            raise ArgumentError("alpha and sigma must give one number, not negative, for each time")
        if not (alpha[:-1] * sigma[1:] > alpha[1:] * sigma[:-1]).all():
            raise ArgumentError("alpha/sigma must fall from clean data to noise, that is as t grows")

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha_of(t), self.sigma_of(t)

    def describe(self) -> dict[str, Any]:
        marks = [self.t_max + (self.t_min - self.t_max) * i / 4 for i in range(5)]
        return {
            "process": "AlphaSigma",
            "name": self.name,
            "marks": [[t, *self.pair(t)] for t in marks],
        }


@dataclass(frozen=True)
class SubVP(Process):
    """Sub-variance preserving: the alpha of VP's linear schedule, and its sigma squared, which is below it.

    So sigma = 1 - alpha^2 (Song et al. 2021, eq. 29); t is in [0, 1].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_max: float = 1.0  # type: ignore[misc]
    t_min: float = 1e-3  # type: ignore[misc]

    def __post_init__(self) -> None:
        rising("t_min", 0.0, self.t_min, "t_max", self.t_max, 1.0)

    @cached_property
    def _vp(self) -> VP:
        return VP(beta_min=self.beta_min, beta_max=self.beta_max)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self._vp.alpha_sigma(t)
        return alpha, sigma**2

    def time(self, lambda_: float) -> float:
        """alpha/(1 - alpha^2) = e^lambda gives log alpha = -asinh(e^(-lambda)/2), and so VP's lambda."""
        return self._vp.time((lambda_ - math.asinh(math.exp(min(-lambda_, 700.0)) / 2)) / 2)
