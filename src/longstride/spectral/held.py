"""What coefficients of a real field have that the field does not show, held down."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..equal_steps.bound import BoundField, Call
from .fourier import Fourier


class Held:
    """f(t, c) - growth/2 * `unseen(c)`.

    Of a real field, where m = 0 on the axis that is halved, the coefficients of m and -m on the other
    periodic axes are both kept, and are conjugates but for round-off. The field does not show by how much
    they are not. So nothing but L acts on that, and where waves grow as e^(growth t) it does too: it would
    be all that is left after t = 40/growth, whatever the step.
    """

    def __init__(self, space: Fourier, f: Callable[[Tensor, Tensor], Tensor], growth: float) -> None:
        self.f, self.growth = f, growth
        *others, self.halved = space.periodic
        self.mirrors = [(axis + 1, -torch.arange(space.shape[axis]) % space.shape[axis]) for axis in others]

    @staticmethod
    def needed(space: Fourier) -> bool:
        """Whether there is anything that a field does not show."""
        return space.real and len(space.periodic) > 1

    def unseen(self, c: Tensor) -> Tensor:
        """Twice what no field shows: c(m) less the conjugate of c(-m), where m = 0 on the halved axis."""
        mirrored = plane = c.select(self.halved, 0)
        for axis, index in self.mirrors:  # m = 0, 1, 2, -2, -1
            mirrored = mirrored.index_select(axis, index.to(c.device))
        return plane - mirrored.conj()

    def __call__(self, t: Tensor, c: Tensor) -> Tensor:
        rate = self.f(t, c).clone()
        rate.select(self.halved, 0).sub_(self.unseen(c), alpha=self.growth / 2)
        return rate

    @property
    def bind(self) -> Callable[[Tensor, bool], BoundField] | None:
        """As that of f, if it has one: see `longstride.equal_steps.bound`."""
        bind = getattr(self.f, "bind", None)
        return None if bind is None else lambda c, folded: BoundHeld(self, bind(c, False))


class BoundHeld:
    """`Held` on coefficients like those that f is bound to."""

    scale: Tensor | None = None

    def __init__(self, held: Held, inner: BoundField) -> None:
        self.held, self.inner = held, inner
        self.buffer, self.calm = inner.buffer, inner.calm

    def evaluation(self, x: Tensor, out: Tensor | None = None) -> tuple[Tensor, Call]:
        out, call = self.inner.evaluation(x, out)
        at, size = self.held.halved, self.held.growth / 2
        mirrors = [(axis, index.to(x.device)) for axis, index in self.held.mirrors]
        seen = x.select(at, 0)
        plane, rate = torch.view_as_real(seen), torch.view_as_real(out.select(at, 0))
        conjugate = plane.new_tensor([size, -size])

        def both() -> None:
            call()
            mirrored = seen
            for axis, index in mirrors:
                mirrored = mirrored.index_select(axis, index)
            rate.sub_(plane, alpha=size).addcmul_(torch.view_as_real(mirrored), conjugate)

        return out, both
