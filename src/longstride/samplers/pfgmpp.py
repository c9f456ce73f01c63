"""PFGM++: electric fields in D more dimensions, which differ from diffusion by the noise (Xu et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError, positive
from ..noise import Noise, seed_of


def pfgmpp_noise(normal: Tensor, D: float, seed: int | torch.Generator = 0, first: int = 0) -> Tensor:
    """The noise of PFGM++ [B, *shape] from a normal one, of samples first .. first + B - 1.

    N-dimensional data, seen from D more dimensions at the distance r = sigma sqrt(D), have the kernel
    p(x | y) ~ (|x - y|^2 + r^2)^(-(N + D)/2). That is Student's t with D degrees of freedom, and so
    x = y + sigma z sqrt(D/chi^2_D): a normal one whose scale each sample draws for itself. Its radius is the
    paper's, r sqrt(b/(1 - b)) with b ~ Beta(N/2, D/2), and D -> infinity is diffusion. The field lines
    dx/dr = (x - E[y | x])/r are, in sigma, the ODE of `process.EDM`: methods, grids and plans are the same.

    The prior is pfgmpp_noise(prior(model, n), D), and training takes
    process.add_noise(x0, t, pfgmpp_noise(noise, D, seed)). The network is told t = sigma.

    normal: of any scale; the result has its scale, dtype and device.  D: the paper's, any positive number.

    Raises:
        ArgumentError: D not positive, or no samples.
    """
    D = positive("D", D)
    if not normal.is_floating_point() or normal.ndim < 2:
        raise ArgumentError(f"normal is {list(normal.shape)} of {normal.dtype}: give floats [B, *shape]")
    chi_squared = 2 * Noise(seed_of(seed), range(first, first + len(normal)), ()).gamma(D / 2)
    scale = (D / chi_squared).sqrt().to(normal)
    return normal * scale.reshape(-1, *(1,) * (normal.ndim - 1))
