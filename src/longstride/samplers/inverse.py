"""Inverse problems: samples x that were measured as y = A x + noise, with a model as the prior.

A sampler follows the data prediction E[x | x_t]. Here it is replaced by one of E[x | x_t, y], and the rest
of a sampler stays as it is: any plan, any order. Both ways take Cov[x | x_t] to be known. With C for it,

    E[x | x_t, y] = D + C A^T (A C A^T + noise^2)^-1 (y - A D),     D = E[x | x_t]

were all Gaussian. Where data are N(0, spread^2), C = v = (spread sigma)^2/((spread alpha)^2 + sigma^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..denoiser import Denoiser
from ..errors import ArgumentError, finite, positive, whole
from ..frame import DATA
from ..guidance import Guidance

SAME = 1e-6  # of two inner products, relative to what they may be
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measurement:
    """A linear map of samples [B, *shape] to what is measured of them, [B, ...], and its transpose.

    Raises:
        ArgumentError: it is not a map, or one of no transpose.
    """

    A: Map
    transpose: Map

    def __post_init__(self) -> None:
        if not (callable(self.A) and callable(self.transpose)):
            raise ArgumentError("a measurement is two functions of a tensor: A and its transpose")

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is measured of one sample; A^T is held against A with random numbers.

        Raises:
            ArgumentError: <A x, y> is not <x, A^T y>.
        """
        g = torch.Generator().manual_seed(0)
        x = torch.randn(1, *shape, generator=g, dtype=torch.float64)
        out = self.A(x)
        y = torch.randn(out.shape, generator=g, dtype=torch.float64)
        left, right = float((out * y).sum()), float((x * self.transpose(y)).sum())
        if abs(left - right) > SAME * float(out.norm() * y.norm()):
            raise ArgumentError(f"<A x, y> = {left:.6g} but <x, A^T y> = {right:.6g}: give A's own transpose")
        return tuple(out.shape[1:])


def inpainting(mask: Tensor) -> Measurement:
    """Elements where mask [*shape] is 1 are seen, the others are 0."""

    def seen(x: Tensor) -> Tensor:
        return x * mask.to(x)

    return Measurement(seen, seen)


def blur(width: float) -> Measurement:
    """Gaussian blur of images [B, C, H, W] by `width` pixels, 0 outside; it is its own transpose."""
    radius = math.ceil(3 * positive("width", width))
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-0.5 * (at / width) ** 2)
    line = line / line.sum()

    def blurred(x: Tensor) -> Tensor:
        weight = line.to(x).expand(x.shape[1], 1, 1, -1)
        x = F.conv2d(x, weight, padding=(0, radius), groups=x.shape[1])
        return F.conv2d(x, weight.mT, padding=(radius, 0), groups=x.shape[1])

    return Measurement(blurred, blurred)


def super_resolution(factor: int) -> Measurement:
    """Means over squares of factor x factor pixels of images [B, C, H, W]."""
    factor = whole("factor", factor, 2)

    def spread(y: Tensor) -> Tensor:
        return y.repeat_interleave(factor, 2).repeat_interleave(factor, 3) / factor**2

    return Measurement(lambda x: F.avg_pool2d(x, factor), spread)


def conjugate_gradient(apply: Map, b: Tensor, x: Tensor, steps: int) -> Tensor:
    """x after so many steps towards apply(x) = b [B, ...], apply symmetric and positive, sample by sample."""

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1).reshape(-1, *[1] * (u.ndim - 1))

    r = b - apply(x)
    p, square = r, dot(r, r)
    for _ in range(steps):
        q = apply(p)
        bend = dot(p, q)
        length = torch.where(bend > 0, square / bend, 0)  # where nothing is left, stay
        x, r = x + length * p, r - length * q
        new = dot(r, r)
        p, square = r + torch.where(square > 0, new / square, 0) * p, new
    return x


def dps(
    model: Denoiser,
    measurement: Measurement,
    noise: float,
    *,
    spread: float = 0.5,
    scale: float = 1.0,
    steps: int = 10,
    guidance: float | Guidance = 1.0,
) -> Denoiser:
    """The model, guided by the likelihood of what was measured: `sample(..., cond={"measured": y})`.

    D' = D + scale (sigma^2/alpha) grad log N(y; A D(x), v A A^T + noise^2): the gradient goes through the
    network, and its Jacobian is the covariance in C A^T (Chung et al. 2023, DPS). The one in the inverse is
    v, as in Song et al. 2023, PiGDM, so that no step size of guidance needs to be tuned and long steps are
    stable. Exact where data are N(0, spread^2).

    Args:
        noise: standard deviation of what is measured.  spread: that of the data.
        steps: of conjugate gradients with A A^T; they ask no network.
        guidance: as for `sample`; the model's other conditions go into cond= beside "measured".

    Raises:
        ArgumentError: a number out of its range, or a transpose that is not A's.
    """
    noise, spread, scale = positive("noise", noise), positive("spread", spread), finite("scale", scale)
    steps = whole("steps", steps, 1)
    A, transpose, process = measurement.A, measurement.transpose, model.process

    def corrected(t: float, x: Tensor, predict: Map, y: Tensor) -> Tensor:
        alpha, sigma = process.pair(t)
        if alpha == 0:  # the prediction depends on x through nothing but its noise
            return predict(x)
        v = _variance(alpha, sigma, spread)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            data = predict(x)
            expected = A(data)
            error = y - expected.detach()
            weighed = conjugate_gradient(
                lambda z: v * A(transpose(z)) + noise**2 * z, error, torch.zeros_like(error), steps
            )
            (pull,) = torch.autograd.grad(expected, x, weighed)
        return data.detach() + (scale * sigma**2 / alpha) * pull

    return _given(model, measurement, guidance, corrected, "dps")


def dds(
    model: Denoiser,
    measurement: Measurement,
    noise: float,
    *,
    spread: float = 0.5,
    gamma: float | None = None,
    steps: int = 5,
    guidance: float | Guidance = 1.0,
) -> Denoiser:
    """The model with its prediction moved towards what was measured: `sample(..., cond={"measured": y})`.

    D' is what `steps` conjugate gradients make of the D they start from, towards the least of

        |x - D|^2/2 + gamma |y - A x|^2/2,      that is (1 + gamma A^T A) x = D + gamma A^T y

    and no gradient goes through the network (Chung, Lee, Ye 2024, decomposed diffusion sampling). The paper
    has one gamma; by default it is v/noise^2, with which D' is exact for data N(0, spread^2). The paper's
    DDIM goes on with the noise that the network saw; a plan goes on with the noise that D' leaves.

    Args, Raises: as for `dps`; gamma: how much the measurement counts beside the prediction.
    """
    noise, spread, steps = positive("noise", noise), positive("spread", spread), whole("steps", steps, 1)
    gamma = None if gamma is None else positive("gamma", gamma)
    A, transpose, process = measurement.A, measurement.transpose, model.process

    def corrected(t: float, x: Tensor, predict: Map, y: Tensor) -> Tensor:
        c = _variance(*process.pair(t), spread) / noise**2 if gamma is None else gamma
        data = predict(x)
        return conjugate_gradient(lambda z: z + c * transpose(A(z)), data + c * transpose(y), data, steps)

    return _given(model, measurement, guidance, corrected, "dds")


def _variance(alpha: float, sigma: float, spread: float) -> float:
    return (spread * sigma) ** 2 / ((spread * alpha) ** 2 + sigma**2)


def _given(
    model: Denoiser,
    measurement: Measurement,
    guidance: float | Guidance,
    corrected: Callable[[float, Tensor, Map, Tensor], Tensor],
    name: str,
) -> Denoiser:
    """A Denoiser of data predictions that knows, beside the conditions of the model, what was measured."""
    if not model.shape:
        raise ArgumentError("the model has no shape: Denoiser(..., shape=(3, 32, 32))")
    shape = measurement.measured(model.shape)

    def net(x: Tensor, t: Tensor, measured: Any = None, **cond: Any) -> Tensor:
        if not isinstance(measured, Tensor) or tuple(measured.shape) != (len(x), *shape):
            have = list(measured.shape) if isinstance(measured, Tensor) else type(measured).__name__
            raise ArgumentError(f'cond={{"measured": y}} is {have}: it is what A gives, [n, *{list(shape)}]')
        at, field = float(t[0]), model.fields(cond, guidance)[DATA]
        return corrected(at, x, lambda x: field(at, x), measured.to(x))

    return Denoiser(net, model.process, shape=model.shape, data_range=model.data_range, name=name)
