"""The transforms of a space on coefficients of one shape, with all that can be made ahead made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .fourier import Fourier

SMALL = 2**14  # bytes below which a copy costs less than the view that would save it


@cache
def keep_freed_memory() -> None:
    """Asks the C library's allocator not to give memory back after each transform.

    glibc returns freed blocks of some hundred kilobytes to the system, and the next transform pays for new
    pages: three times the transform itself. The limit rises with the largest block that was freed, up to 32
    MB (mallopt(3), M_MMAP_THRESHOLD), so one such block is freed. It is never written, so it costs nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class Transforms:
    """`Fourier.enter` and `leave` of coefficients [*lead, *shape], without gradients.

    Axis by axis, each one as long as it must be: forward along the last axis, then along the others
    of what is kept of it; backward the other way round. Zeros above the kept modes are written once.

    A complex transform leaves its own axis contiguous, so coefficients lie with the first axis innermost:
    `coefficients` are buffers like that.
    """

    def __init__(self, space: Fourier, lead: tuple[int, ...], like: Tensor) -> None:
        keep_freed_memory()
        self.space, self.lead, self.dtype, self.device = space, lead, like.dtype, like.device
        self.gaps = [self._gap(axis) for axis in space.axes if not space._half(axis)]
        last = (*lead, *space.n[:-1], space.n[-1] // 2 + 1)
        self.half = torch.zeros(last, dtype=self.dtype, device=self.device) if space.real else None

    def coefficients(self) -> Tensor:
        """An empty buffer of them."""
        shape = (*self.lead, *self.space.shape)
        first = len(shape) - self.space.dim
        order = [*range(first), *range(first + 1, len(shape)), first]
        made = torch.empty([shape[i] for i in order], dtype=self.dtype, device=self.device)
        return made.movedim(-1, first)

    def argument(self) -> Tensor:
        """A buffer of coefficients that `leave` takes without copying it, if there is one."""
        if self.half is None or self.space.dim > 1:
            return self.coefficients()
        return self.half[..., : self.space.shape[-1]]

    def leave(self, c: Tensor) -> Tensor:
        """The field of coefficients, a tensor of its own."""
        space = self.space
        for axis, gap, low, high in self.gaps:
            top = space.highest[axis]
            low.copy_(c.narrow(axis, 0, top + 1))
            high.copy_(c.narrow(axis, top + 1, top))
            c = torch.fft.ifft(gap, dim=axis, norm="forward")
        if self.half is None:
            return c
        if c.data_ptr() != self.half.data_ptr():
            self.half[..., : space.shape[-1]].copy_(c)
        return torch.fft.irfft(self.half, space.n[-1], norm="forward")

    def entering(self) -> tuple[Tensor, Callable[[Tensor], object]]:
        """A buffer of coefficients, and the call that makes it those of a field [*lead, *n]."""
        space = self.space
        if space.real and space.dim == 1:
            whole = torch.empty((*self.lead, space.n[0] // 2 + 1), dtype=self.dtype, device=self.device)
            if whole.numel() * whole.element_size() < SMALL:
                return whole[..., : space.shape[0]], lambda u: torch.fft.rfft(u, norm="forward", out=whole)
            c = self.coefficients()
            return c, lambda u: c.copy_(torch.fft.rfft(u, norm="forward")[..., : space.shape[0]])
        c, top = self.coefficients(), space.highest[0]
        first = -space.dim
        low, high = c.narrow(first, 0, top + 1), c.narrow(first, top + 1, top)

        def enter(u: Tensor) -> None:
            made = space.enter(u, kept=False)
            low.copy_(made.narrow(first, 0, top + 1))
            high.copy_(made.narrow(first, space.n[0] - top, top))

        return c, enter

    def _gap(self, axis: int) -> tuple[int, Tensor, Tensor, Tensor]:
        """Coefficients padded along an axis, zero above the kept ones; the parts that are not."""
        space, at = self.space, len(self.lead) + axis + self.space.dim
        shape = [*self.lead, *space.n[: axis % space.dim + 1], *space.shape[axis % space.dim + 1 :]]
        order = [i for i in range(len(shape)) if i != at] + [at]
        gap = torch.zeros([shape[i] for i in order], dtype=self.dtype, device=self.device).movedim(-1, at)
        top, n = space.highest[axis], space.n[axis]
        return axis, gap, gap.narrow(axis, 0, top + 1), gap.narrow(axis, n - top, top)
