"""The Frechet distance from data, as what a plan is polished for."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..metrics import frechet_distance
from .free import Features

TINY = 1e-8  # of the largest variance: directions in which the data do not vary count as this


class Frechet:
    """The squared Wasserstein-2 distance of two Gaussians: that of the features of samples, and that of data.

    W^2 is what the optimal map y -> m + A (y - m_0) from the data's Gaussian to the samples' moves it by:

        W^2 = |m - m_0|^2 + |(A - 1) C_0^(1/2)|^2,    A = C_0^(-1/2) (C_0^(1/2) C C_0^(1/2))^(1/2) C_0^(-1/2)

    So it is a sum of F + F^2 squares, nearly linear in m and in the map, and least squares make it small
    (`polish_set`). As an objective of `ls.tune` it is the distance from the data, whatever the solutions are.

    Args:
        data: samples [m, *shape] that nothing is reported on.
        features: of samples, [n, ...]; the samples themselves unless given.

    Reference: Dowson and Landau 1982; Takatsu 2011, "Wasserstein geometry of Gaussian measures".
    """

    def __init__(self, data: Tensor, features: Features = lambda x: x):
        if len(data) < 2:
            raise ArgumentError(f"a covariance needs at least 2 samples, got {len(data)}")
        self.features = features
        f = self._features(data)
        self.mean, self.cov = f.mean(0), f.T.cov()
        values, vectors = torch.linalg.eigh(self.cov)
        scales = values.clamp(min=TINY * float(values[-1])).sqrt()
        self.root, self.inverse = (vectors * s @ vectors.T for s in (scales, 1 / scales))

    def _features(self, x: Tensor) -> Tensor:
        return self.features(x).flatten(1).double()

    def __call__(self, x: Tensor, truth: Tensor | None = None) -> float:
        """The distance of samples [n, *shape] from the data."""
        f = self._features(x)
        return frechet_distance(f.mean(0), f.T.cov(), self.mean, self.cov)

    def means(self, x: Tensor) -> Tensor:
        """[F + F^2]: of features, and of products of two."""
        f = self._features(x)
        return torch.cat([f.mean(0), (f.T @ f / len(f)).flatten()])

    def residuals(self, means: Tensor) -> Tensor:
        """[F + F^2] of these: their squares add up to the distance."""
        m, second = means.split([len(self.mean), len(self.cov) ** 2])
        cov = second.view_as(self.cov) - m[:, None] * m
        values, vectors = torch.linalg.eigh(self.root @ cov @ self.root)
        middle = vectors * values.clamp(min=0).sqrt() @ vectors.T
        return torch.cat([m - self.mean, (self.inverse @ middle - self.root).flatten()])
