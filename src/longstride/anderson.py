"""Fixed points x = g(x), accelerated, sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import SolveError, positive, whole

RANK = 1e-12  # directions below this share of the largest are round-off


def anderson(
    g: Callable[[Tensor], Tensor],
    x0: Tensor,
    *,
    memory: int = 5,
    tolerance: float = 1e-10,
    iterations: int = 100,
) -> tuple[Tensor, Tensor, int]:
    """The fixed point of g near x0 [n, ...], by Anderson acceleration.

    With f_k = g(x_k) - x_k, and dF, dG the last `memory` differences of f and of g(x),

        x_(k+1) = g(x_k) - dG c,     c = argmin |f_k - dF c|

    which on a linear g is GMRES in another form, and converges where x = g(x) alone may not. memory=0 is
    that plain iteration. Each sample has its own c, and stays where it is once |f| <= tolerance |g(x)|, so
    that it does not depend on its batch.

    Args:
        g: [n, ...] -> [n, ...], sample by sample.
        iterations: updates at most. g is evaluated once more than there are updates.

    Returns:
        x [n, ...], of all iterates the one with the smallest residual; that residual |g(x) - x|/|g(x)| [n];
        and how many updates were made.

    Raises:
        ArgumentError: a number out of its range.  SolveError: g is not finite.

    Reference: Walker and Ni 2011, Anderson acceleration for fixed-point iterations.
    """
    memory, iterations = whole("memory", memory, 0), whole("iterations", iterations, 0)
    tolerance = positive("tolerance", tolerance)
    n, x = len(x0), x0.flatten(1)
    best, least = x, torch.full((n,), torch.inf, dtype=x.dtype, device=x.device)
    fs, gs = list[Tensor](), list[Tensor]()
    done = 0
    while True:
        new = g(x.reshape(x0.shape)).flatten(1)
        if not torch.isfinite(new).all():
            raise SolveError(f"the fixed-point iteration met NaN or infinity after {done} updates")
        f = new - x
        residual = f.norm(dim=1) / new.norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
        better = residual < least
        best, least = torch.where(better[:, None], x, best), torch.where(better, residual, least)
        going = least > tolerance
        if done == iterations or not going.any():
            return best.reshape(x0.shape), least, done
        fs, gs = [*fs, f][-memory - 1 :], [*gs, new][-memory - 1 :]
        x, done = torch.where(going[:, None], _accelerated(fs, gs), best), done + 1


def _accelerated(fs: list[Tensor], gs: list[Tensor]) -> Tensor:
    """g(x) less what the last differences can explain of f; fs and gs [n, d] each, the newest last."""
    if len(fs) == 1:
        return gs[-1]
    dF, dG = (torch.stack(rows, 2).diff(dim=2) for rows in (fs, gs))
    length = dF.norm(dim=1, keepdim=True).clamp(min=torch.finfo(dF.dtype).tiny)
    c = torch.linalg.pinv(dF / length, rtol=RANK) @ fs[-1][:, :, None]
    return gs[-1] - (dG / length @ c).squeeze(2)
