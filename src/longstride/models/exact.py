"""Models whose denoiser is known in closed form: Gaussian mixtures, and the images themselves.

Both are the posterior mean D(x, t) = E[x_0 | x_t = x] of x_t = alpha x_0 + sigma eps, so no error
of a network stands between a sampler and the truth. They are computed in float64 whatever x is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..process import EDM, Process

CHUNK = 4096  # images compared at once: bounds the memory, not the set
RMS = 0.5  # of the default mixture: EDM's sigma_data
SIGMA_TINY = 1e-100  # stands for 0, where the posterior is the nearest image: its square is not 0 yet


class Distribution(Protocol):
    """Data x_0 in d dimensions with a posterior in closed form."""

    def posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | alpha x_0 + sigma eps = x]; x [B, d], alpha and sigma [B], all float64."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k w_k N(m_k, C_k) in d dimensions.

    Noised, component k is N(alpha m_k, alpha^2 C_k + sigma^2), diagonal in the eigenvectors of C_k
    at all times: with C = Q diag(c) Q^T, y = Q^T (x - alpha m) and v = alpha^2 c + sigma^2,

        log p_k(x) = -1/2 sum(y^2/v + log(2 pi v)),     E_k[x_0 | x] = m + Q (alpha c/v) y,

    and the mixture's mean weighs these by w_k p_k. At alpha = 0 that is the mean of the data, at
    sigma = 0 it is x/alpha.

    weights [K] positive, normalised here; means [K, d]; covs [K, d, d] symmetric positive definite.

    Raises:
        ArgumentError: anything else.
    """

    weights: Tensor
    means: Tensor
    covs: Tensor

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covs"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        shapes = [tuple(v.shape) for v in (self.weights, self.means, self.covs)]
        if k * d == 0 or shapes != [(k,), (k, d), (k, d, d)]:
            raise ArgumentError(f"a mixture needs weights [K], means [K, d] and covs [K, d, d], got {shapes}")
        if not all(v.isfinite().all() for v in (self.weights, self.means, self.covs)):
            raise ArgumentError("the weights, means and covariances of a mixture must be finite")
        if not (self.weights > 0).all():
            raise ArgumentError("the weights of a mixture must be positive")
        if not torch.allclose(self.covs, self.covs.mT):
            raise ArgumentError("the covariances of a mixture must be symmetric")
        if not (self._eigen[0] > 0).all():
            raise ArgumentError("the covariances of a mixture must be positive definite")
        object.__setattr__(self, "weights", self.weights / self.weights.sum())

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [K, d] and eigenvectors [K, d, d] (columns) of the covariances."""
        values, vectors = torch.linalg.eigh(self.covs)
        return values, vectors

    @property
    def mean(self) -> Tensor:
        """E[x_0] [d]."""
        return self.weights @ self.means

    @property
    def cov(self) -> Tensor:
        """Cov[x_0] [d, d]: within the components and between their means."""
        off = self.means - self.mean
        within = torch.einsum("k,kij->ij", self.weights, self.covs)
        return within + torch.einsum("k,ki,kj->ij", self.weights, off, off)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n draws of x_0 [n, d], float64; draw i is the same whatever n."""
        z = np.random.default_rng(seed).standard_normal((n, 1 + self.means.shape[1]))
        u = torch.special.ndtr(torch.from_numpy(z[:, 0]))
        k = torch.searchsorted(self.weights.cumsum(0)[:-1].contiguous(), u)
        values, vectors = self._eigen
        spread = values[k].sqrt() * torch.from_numpy(z[:, 1:])
        return self.means[k] + torch.einsum("bij,bj->bi", vectors[k], spread)

    @cached_property
    def _beside(self) -> Tensor:
        """The eigenvectors of all components beside each other [d, K d]: one product serves them all."""
        return self._eigen[1].permute(1, 0, 2).flatten(1)

    def _coordinates(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """y/v above [B, K, d], and log(w_k p_k) [B, K]."""
        values, vectors = (e.to(x.device) for e in self._eigen)
        alpha, sigma = alpha[:, None, None], sigma[:, None, None]
        means = torch.einsum("kij,ki->kj", vectors, self.means.to(x.device))
        y = (x @ self._beside.to(x.device)).unflatten(1, means.shape) - alpha * means
        v = alpha**2 * values + sigma**2
        scaled = y / v
        log_p = -0.5 * (torch.einsum("bki,bki->bk", y, scaled) + (2 * math.pi * v).log().sum(2))
        return scaled, self.weights.log().to(x.device) + log_p

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x_t = x) [B], for x [B, d], alpha and sigma [B], all float64."""
        return self._coordinates(x, alpha, sigma)[1].logsumexp(1)

    def posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        scaled, log_wp = self._coordinates(x, alpha, sigma)
        p = log_wp.softmax(1)
        pull = p[..., None] * (alpha[:, None, None] * self._eigen[0].to(x.device)) * scaled
        return p @ self.means.to(x.device) + pull.flatten(1) @ self._beside.T.to(x.device)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The uniform distribution over N images, flattened to x [N, d].

    The posterior weighs image i by softmax_i of (alpha <x, x_i> - alpha^2 |x_i|^2/2)/sigma^2, which
    is -|x - alpha x_i|^2/(2 sigma^2) up to a constant. The softmax runs over chunks of images with
    a running maximum, so the logits of the whole set are never held. At alpha = 0 it is uniform; at
    sigma = 0 the posterior mean is the nearest image.
    """

    x: Tensor

    def posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = alpha[:, None], sigma[:, None].clamp(min=SIGMA_TINY)
        top = torch.full_like(alpha, -math.inf)
        total, mean = torch.zeros_like(alpha), torch.zeros_like(x)
        for images in self.x.split(CHUNK):
            images = images.to(x)
            logits = (alpha * (x @ images.T) - alpha**2 * images.square().sum(1) / 2) / sigma**2
            highest = torch.maximum(top, logits.amax(1, keepdim=True))
            keep, weights = torch.exp(top - highest), torch.exp(logits - highest)
            total = total * keep + weights.sum(1, keepdim=True)
            mean = mean * keep + weights @ images
            top = highest
        return mean / total


@dataclass(frozen=True, eq=False)
class PosteriorMean:
    """net(x [B, *shape], t [B]) -> E[x_0 | x_t = x] [B, *shape] in x's dtype."""

    distribution: Distribution
    process: Process

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.process.pair(t.double())
        mean = self.distribution.posterior_mean(x.flatten(1).double(), alpha, sigma)
        return mean.reshape(x.shape).to(x.dtype)


def random_mixture(dim: int = 64, components: int = 8, seed: int = 0) -> Mixture:
    """Components with axes of their own and variances spread over 1 : 1000: hard for samplers.

    Scaled to root mean square 0.5, so that it stands to EDM's noise levels as images do.
    """
    g = torch.Generator().manual_seed(seed)
    k, d, f64 = components, dim, torch.float64
    weights = torch.randn(k, generator=g, dtype=f64).mul(0.5).softmax(0)
    means = torch.randn(k, d, generator=g, dtype=f64)
    vectors, _ = torch.linalg.qr(torch.randn(k, d, d, generator=g, dtype=f64))
    values = 1000 ** -torch.rand(k, d, generator=g, dtype=f64)
    covs = vectors * values[:, None] @ vectors.mT
    square = (weights @ (means.square().sum(1) + values.sum(1))) / d
    scale = RMS / square.sqrt()
    covs = scale**2 * covs
    return Mixture(weights, scale * means, (covs + covs.mT) / 2)


def mixture(
    distribution: Mixture | None = None,
    process: Process | None = None,
    *,
    dim: int = 64,
    components: int = 8,
    seed: int = 0,
) -> Denoiser:
    """The exact denoiser of a Gaussian mixture with full covariances, under any process.

    Args:
        distribution: `Mixture(weights [K], means [K, d], covs [K, d, d])`; by default
            `random_mixture(dim, components, seed)`. It is `model.net.distribution` afterwards.
        process: EDM() by default.

    Returns:
        A denoiser of x [B, d].
    """
    distribution = distribution or random_mixture(dim, components, seed)
    process = process or EDM()
    net = PosteriorMean(distribution, process)
    shape = (distribution.means.shape[1],)
    return Denoiser(net, process, predicts="data", shape=shape, name="mixture")


def ideal(images: Tensor, process: Process | None = None) -> Denoiser:
    """The ideal denoiser of images [N, *shape] (EDM() by default): samples from it are the images.

    Raises:
        ArgumentError: no images, or images that are not finite.
    """
    if images.ndim < 2 or len(images) == 0 or not images.isfinite().all():
        raise ArgumentError(f"the ideal denoiser needs finite images [N, *shape], got {list(images.shape)}")
    process = process or EDM()
    net = PosteriorMean(ImageSet(images.flatten(1)), process)
    return Denoiser(net, process, predicts="data", shape=tuple(images.shape[1:]), name="ideal")
