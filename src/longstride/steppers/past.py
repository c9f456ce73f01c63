"""What a multistep method remembers: modified divided differences of a sequence, at times of each sample.

Of values v at t_n > t_(n-1) > ... are kept (Krogh; Shampine and Gordon 1975; Hairer, Norsett and Wanner 1993,
III.5)

    Phi_j = (t_n - t_(n-1)) ... (t_n - t_(n-j)) v[t_n, ..., t_(n-j)],

which are backward differences where steps are equal. With back_i = t_n - t_(n-i), a step of h from there and

    Phi*_j = Phi_j prod_(i<j) (h + back_i)/back_(i+1),
    B_j(theta) = prod_(i<j) (theta h + back_i)/(h + back_i),

sum_(j<m) B_j(theta) Phi*_j is the polynomial through the last m values, at t_n + theta h, and B_m(theta) e is
what a new value v_(n+1) = sum_(j<m) Phi*_j + e adds to it. For theta in [0, 1] every factor of B is there as
well, so that no ratio of steps costs digits. The new differences are Phi_j = v_(n+1) - sum_(i<j) Phi*_i. None
of this knows of an order: that is the m up to which a sample sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

TINY = 1e-300  # a sample that has stopped takes steps of length 0


def basis(theta: Tensor, h: Tensor, back: Tensor) -> Tensor:
    """B_0, ..., B_J at theta [P, ...] of steps h, with back [P, ..., J]: [P, ..., J + 1]."""
    h = h.clamp_min(TINY)[..., None]
    factors = (theta[..., None] * h + back) / (h + back)
    return torch.cat([torch.ones_like(factors[..., :1]), factors.cumprod(-1)], -1)


@dataclass(frozen=True)
class Past:
    """rows [W, *shape]: Phi_0, ..., as many as the highest order in the batch asks for.

    back [G, J]: back_0 = 0, ...; points [G]: values that were there, 0 where a past is yet to begin.
    """

    rows: Tensor
    back: Tensor
    points: Tensor

    def wide(self, w: Tensor) -> Tensor:
        """[G, W] beside rows."""
        return w.t().to(self.rows.dtype).reshape(w.shape[1], len(w), *(1,) * (self.rows.ndim - 2))

    def begun(self, start: Tensor, points: int, h: Tensor) -> Past:
        """With samples that have no past given one: Phi_0, ... of `start`, at times of steps h."""
        fresh, rows = self.points == 0, torch.zeros_like(self.rows)
        rows[: len(start)] = start
        count = torch.arange(self.back.shape[1], dtype=h.dtype, device=h.device)
        return Past(
            torch.where(self.wide(fresh[:, None]).bool(), rows, self.rows),
            torch.where(fresh[:, None], h.clamp_min(TINY)[:, None] * count, self.back),
            torch.where(fresh, points, self.points),
        )

    def star(self, h: Tensor) -> Tensor:
        """Phi* of a step of h [G]: [W, *shape]."""
        one, back = torch.ones_like(h)[:, None], self.back[:, : len(self.rows)]
        grown = (h.clamp_min(TINY)[:, None] + back[:, :-1]) / back[:, 1:]
        return self.wide(torch.cat([one, grown.cumprod(1)], 1)) * self.rows

    def pushed(self, value: Tensor, star: Tensor, h: Tensor) -> Past:
        """After a step of h to a new value: one difference more."""
        rows = value - torch.cat([torch.zeros_like(star[:1]), star.cumsum(0)])
        back = torch.cat([torch.zeros_like(h)[:, None], h[:, None] + self.back[:, :-1]], 1)
        return Past(rows, back, self.points + 1)

    def kept(self, ok: Tensor, old: Past, width: int) -> Past:
        """This where ok [G], else what was before; of the differences, the first."""
        if bool(ok.all()):
            return replace(self, rows=self.rows[:width])
        before = old.rows[:width]
        if len(before) < width:
            before = torch.cat([before, before.new_zeros(width - len(before), *before.shape[1:])])
        if not bool(ok.any()):  # what failed must not be in a graph, not even with a weight of 0
            return replace(old, rows=before)
        return Past(
            torch.where(self.wide(ok[:, None]).bool(), self.rows[:width], before),
            torch.where(ok[:, None], self.back, old.back),
            torch.where(ok, self.points, old.points),
        )
