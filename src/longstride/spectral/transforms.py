"""The transforms of a space on coefficients of one shape, with all that can be made ahead made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
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

    Axis by axis: forward along the last axis, then along the others of what is kept of it; backward the
    other way round. Zeros above the kept modes are written once.

    A complex transform leaves its own axis contiguous, so coefficients lie with the first axis innermost. In
    one dimension they lie in the padded row that the transform takes, which saves a copy.
    """

    def __init__(self, space: Fourier, lead: tuple[int, ...], like: Tensor) -> None:
        keep_freed_memory()
        self.space, self.lead, self.dtype, self.device = space, lead, like.dtype, like.device
        self.gaps = [self._gap(axis) for axis in space.axes if not space.series[axis].half]
        self.half = self._zeros((*lead, *space.n[:-1], space.n[-1] // 2 + 1)) if space.real else None
        self.padded: dict[int, Tensor] = {}

    def coefficients(self) -> Tensor:
        """A buffer of them."""
        if self.space.real and self.space.dim == 1:
            whole = self._zeros((*self.lead, self.space.n[0] // 2 + 1))
            self.padded[whole.data_ptr()] = whole
            return whole[..., : self.space.shape[0]]
        shape = (*self.lead, *self.space.shape)
        return self._inner(shape, -self.space.dim)

    def leaving(self, c: Tensor) -> Callable[[], Tensor]:
        """The call that gives the field of what is then in c, a tensor of its own."""
        if (whole := self.padded.get(c.data_ptr())) is not None:
            return partial(torch.fft.irfft, whole, self.space.n[0], norm="forward")
        return partial(self._leave, c)

    def _leave(self, c: Tensor) -> Tensor:
        space = self.space
        for axis, gap, low, high, between in self.gaps:
            top = space.highest[axis]
            low.copy_(c.narrow(axis, 0, top + 1))
            high.copy_(c.narrow(axis, top + 1, top))
            c = torch.fft.ifft(gap, dim=axis, norm="forward")
            c = c if between is None else between.copy_(c)
        if self.half is None:
            return c
        self.half[..., : space.shape[-1]].copy_(c)
        return torch.fft.irfft(self.half, space.n[-1], norm="forward")

    def entering(self) -> tuple[Tensor, Callable[[Tensor], object]]:
        """A buffer of coefficients, and the call that makes it those of a field [*lead, *n]."""
        space = self.space
        if space.real and space.dim == 1:
            whole = self._zeros((*self.lead, space.n[0] // 2 + 1))
            if whole.numel() * whole.element_size() < SMALL:
                return whole[..., : space.shape[0]], partial(torch.fft.rfft, norm="forward", out=whole)
            c = self.coefficients()
            return c, lambda u: c.copy_(torch.fft.rfft(u, norm="forward")[..., : space.shape[0]])
        c, top = self.coefficients(), space.highest[0]
        first = -space.dim
        low, high = c.narrow(first, 0, top + 1), c.narrow(first, top + 1, top)

        def enter(u: Tensor) -> None:
            made = u
            if space.real:
                made = torch.fft.rfft(made, norm="forward")[..., : space.shape[-1]]
            for axis in space.axes[-2 if space.real else -1 : 0 : -1]:
                made = space.series[axis].enter(made, axis)
            made = torch.fft.fft(made, dim=first, norm="forward")
            low.copy_(made.narrow(first, 0, top + 1))
            high.copy_(made.narrow(first, space.n[0] - top, top))

        return c, enter

    def _gap(self, axis: int) -> tuple[int, Tensor, Tensor, Tensor, Tensor | None]:
        """Coefficients padded along an axis, zero above the kept ones; the parts that are not; where the
        transform waits to be turned round for the next axis.

        Rows of 256 complex numbers are 4096 bytes apart, which a cache keeps in one place: to walk across
        them costs five times as much as across rows that are one element longer.
        """
        space, past = self.space, axis % self.space.dim + 1
        shape = (*self.lead, *space.n[:past], *space.shape[past:])
        top, n, gap = space.highest[axis], space.n[axis], self._inner(shape, axis)
        between = self._inner(shape, axis, 1).narrow(axis, 0, n) if axis < -1 else None
        return axis, gap, gap.narrow(axis, 0, top + 1), gap.narrow(axis, n - top, top), between

    def _inner(self, shape: tuple[int, ...], axis: int, more: int = 0) -> Tensor:
        """Zeros with an axis innermost, and so many elements longer."""
        at = len(shape) + axis
        return self._zeros((*shape[:at], *shape[at + 1 :], shape[at] + more)).movedim(-1, at)

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)
