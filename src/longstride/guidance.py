"""What is made of two predictions at one state: guidance, and what keeps it in bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .core import Weight
from .errors import ArgumentError, finite
from .process import Process

if TYPE_CHECKING:
    from .denoiser import Denoiser


@dataclass(frozen=True)
class Guidance:
    """How the prediction D of a condition and a worse one D' become the one that a sampler follows.

    With w the weight at a time t whose noise-to-signal ratio is r = sigma/alpha, and D [B, *shape],

        G = D' + w D - w D'                         where low < r <= high, else G = D     (1, 2)
        G <- (rescale std(D)/std(G) + 1 - rescale) G           std over a sample          (3)
        x_0 <- clip(x_0, -s, s)/s,  s = max(1, the quantile `threshold` of |x_0|)         (4)

    and x_0, the data prediction of G, is in units in which the data's range is [-1, 1]. (1) to (3) are of
    what the network returns; as predictions are affine in each other, (1) and (2) do not depend on which.
    D' is the null condition's, or that of a second network `against`, which gets the same condition: a
    smaller or less trained one shows where the first is still wrong (5).

    Args:
        weight: 1 is plain conditional. A function of t gives each time its own. A tensor without dimensions
            is a weight to be differentiated by.
        interval: (low, high) in sigma/alpha; the weight is 1 outside. (r, r) is nowhere.
        rescale: from 0 (not) to 1 (each sample's spread is the condition's own).
        threshold: share of the elements of a sample that s covers, such as 0.995; None for no threshold.
        against: what takes the place of the null condition.

    An evaluation is one NFE. It asks a network twice where the weight is not 1, else once.

    Raises:
        ArgumentError: a value out of its range.

    References: Ho and Salimans 2022 (1); Kynkaanniemi et al. 2024 (2); Lin et al. 2024 (3); Saharia et al.
    2022 (4); Karras et al. 2024, "Guiding a diffusion model with a bad version of itself" (5).
    """

    weight: Weight | Callable[[float], Weight] = 1.0
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    threshold: float | None = None
    against: Denoiser | None = None

    def __post_init__(self) -> None:
        if not callable(self.weight):
            _number("guidance", self.weight)
        if self.interval is not None:
            try:
                low, high = self.interval
                fits = 0 <= low <= high
            except (TypeError, ValueError):
                fits = False
            if not fits:
                raise ArgumentError(
                    f"interval = {self.interval!r}: it is (low, high) in sigma/alpha, such as (0.3, 3.0)"
                )
        if not 0 <= finite("rescale", self.rescale) <= 1:
            raise ArgumentError(f"rescale = {self.rescale}: it is from 0 to 1, such as 0.7")
        if self.threshold is not None and not 0 < finite("threshold", self.threshold) <= 1:
            raise ArgumentError(f"threshold = {self.threshold}: it is a quantile, such as 0.995, or None")
        if self.against is not None and not hasattr(self.against, "predicts"):
            raise ArgumentError(f"against = {type(self.against).__name__}: it is a Denoiser, as the model is")

    @classmethod
    def of(cls, guidance: Weight | Guidance) -> Guidance:
        """A number is a weight at all times."""
        return guidance if isinstance(guidance, Guidance) else cls(guidance)

    def __str__(self) -> str:
        """In words, for reports."""
        weight = "weight(t)" if callable(self.weight) else f"{_plain(self.weight):g}"
        against = "" if self.against is None else f", against {self.against.name}"
        interval = "" if self.interval is None else ", between {:g} and {:g}".format(*self.interval)
        rescale = f", rescale {self.rescale:g}" if self.rescale else ""
        return (
            weight
            + against
            + interval
            + rescale
            + (f", threshold {self.threshold}" if self.threshold else "")
        )

    @property
    def plain(self) -> bool:
        """Whether no second prediction is ever asked for."""
        return _one(self.weight)

    def at(self, process: Process, t: float) -> Weight | None:
        """The weight at t; None where it is 1 and one prediction is enough."""
        if self.interval is not None:
            low, high = self.interval
            if not low < math.exp(-process.lambda_(t)) <= high:
                return None
        weight = _number(f"guidance at t = {t:.6g}", self.weight(t) if callable(self.weight) else self.weight)
        return None if _one(weight) else weight

    def combined(self, out: Tensor, other: Tensor, weight: float | Tensor) -> Tensor:
        """(1) and (3): G from D = out and D' = other."""
        guided = other + weight * (out - other)
        if not self.rescale:
            return guided
        ratio = out.flatten(1).std(1, correction=0) / guided.flatten(1).std(1, correction=0)
        share = self.rescale * ratio + 1 - self.rescale
        return guided * share.reshape(-1, *[1] * (guided.ndim - 1))

    def limited(self, data: Tensor, data_range: tuple[float, float] | None) -> Tensor:
        """(4), in the data's own units."""
        assert self.threshold is not None  # or nobody asks
        assert data_range is not None  # `Denoiser.conditioned` has refused it
        low, high = data_range
        centre, half = (high + low) / 2, (high - low) / 2
        y = limited((data - centre) / half, self.threshold)
        return y.mul(half).add(centre)


def _number(what: str, weight: Any) -> Weight:
    """A finite number, or a tensor that is one."""
    if not isinstance(weight, Tensor):
        return finite(what, weight)
    if weight.ndim or not weight.is_floating_point():
        raise ArgumentError(f"{what} is a tensor {list(weight.shape)} of {weight.dtype}: give one float, []")
    finite(what, _plain(weight))
    return weight


def _plain(weight: Weight) -> float:
    return weight.item() if isinstance(weight, Tensor) else weight


def _one(weight: Any) -> bool:
    """Whether it is the number 1; a tensor may be one and still be differentiated by."""
    return isinstance(weight, Real) and weight == 1


def limited(y: Tensor, threshold: float, largest: float = math.inf) -> Tensor:
    """Dynamic thresholding of data [B, ...] whose range is [-1, 1]: clip(y, -s, s)/s, sample by sample.

    s is the quantile `threshold` of |y|, the smallest element that covers its share, kept in 1 to `largest`.
    """
    flat = y.flatten(1)
    k = max(1, math.ceil(threshold * flat.shape[1]))
    s = flat.abs().kthvalue(k, dim=1, keepdim=True).values.clamp(1, largest)
    return torch.minimum(torch.maximum(flat, -s), s).div(s).reshape(y.shape)
