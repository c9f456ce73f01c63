"""What an independent classifier says of samples: distance of features, agreement of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import ArgumentError

if TYPE_CHECKING:
    from ..models.classifier import Classifier

BATCH = 500  # images through the classifier at once


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean [F] and covariance [F, F] of the features of n images, float64."""

    mean: Tensor
    cov: Tensor
    n: int


def statistics(classifier: Classifier, images: Tensor) -> Statistics:
    """Statistics of `classifier.embedding` over images [n, C, H, W] in [-1, 1], n > 1."""
    if len(images) < 2:
        raise ArgumentError(f"a covariance needs at least 2 images, got {len(images)}")
    with torch.no_grad():
        features = torch.cat([classifier.embedding(x).double() for x in images.split(BATCH)])
    return Statistics(features.mean(0), features.T.cov(), len(images))


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Wasserstein-2 distance of Gaussians, the "FID" formula; means [F], covs [F, F].

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr sqrt(R C2 R) with R = sqrt(C1): R C2 R has the eigenvalues of
    C1 C2 and is symmetric, so eigh serves and nothing complex appears.

    Reference: Heusel et al. 2017; Dowson and Landau 1982.
    """
    mean1, cov1, mean2, cov2 = (v.double() for v in (mean1, cov1, mean2, cov2))
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    return ((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross).item()


def frechet(x: Tensor, y: Tensor) -> float:
    """`frechet_distance` of two sets of features, [n, F] and [m, F]: an objective for `ls.tune`."""
    x, y = x.flatten(1).double(), y.flatten(1).double()
    return frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())


def class_agreement(classifier: Classifier, x: Tensor, y: Tensor) -> float:
    """Fraction of x [n, C, H, W] in [-1, 1] that the classifier puts in the class y [n]."""
    with torch.no_grad():
        guess = torch.cat([classifier(images).argmax(1) for images in x.split(BATCH)])
    return (guess == y).double().mean().item()
