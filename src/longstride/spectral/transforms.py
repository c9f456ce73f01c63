"""The transforms of a space on coefficients of one shape, with all that can be made ahead made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

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


class Plain:
    """`space.enter` and `leave` of coefficients [*lead, *shape] as they are, without gradients.

    parts: what coefficients are cut into on their way, or a symbol beside them: here they stay whole.
    """

    parts: list[Callable[[Tensor], Tensor]]

    def __init__(self, space: Fourier, lead: tuple[int, ...], like: Tensor) -> None:
        keep_freed_memory()
        self.space, self.lead, self.dtype, self.device = space, lead, like.dtype, like.device
        self.parts = [lambda c: c]

    def coefficients(self) -> Tensor:
        """A buffer of them."""
        return self._zeros((*self.lead, *self.space.shape))

    @cached_property
    def spare(self) -> Tensor:
        """One that is read at once."""
        return self.coefficients()

    def leaving(self, c: Tensor | None = None) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Where the parts of coefficients are to be put, and the call that then gives their field, a tensor
        of its own; nowhere, if those in c can be taken as they lie.
        """
        at = self.spare if c is None else c
        return [at] if c is None else [], partial(self.space.leave, at)

    def enter(self, u: Tensor) -> list[Tensor]:
        """The parts of the coefficients of a field [*lead, *n]."""
        return [self.space.enter(u)]

    def into(self, c: Tensor) -> Callable[[Tensor], object]:
        """The call that makes c, a buffer of coefficients, those of a field."""
        places = [part(c) for part in self.parts]

        def copy(u: Tensor) -> None:
            for place, found in zip(places, self.enter(u), strict=True):
                place.copy_(found)

        return copy

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


class Transforms(Plain):
    """The same of a periodic box, with all that can be made ahead made.

    Axis by axis: forward along the last axis, then along the others of what is kept of it; backward the
    other way round. Zeros above the kept modes are written once. The parts of coefficients are those below
    and above them.

    A complex transform leaves its own axis contiguous, so coefficients lie with the first axis innermost. In
    one dimension they lie in the padded row that the transform takes, which saves a copy.
    """

    def __init__(self, space: Fourier, lead: tuple[int, ...], like: Tensor) -> None:
        super().__init__(space, lead, like)
        self.rows = space.real and space.dim == 1
        self.padded: dict[int, Tensor] = {}
        if self.rows:
            return
        first, top = -space.dim, space.highest[0]
        self.parts = [partial(_cut, first, 0, top + 1), partial(_cut, first, top + 1, top)]
        self.gaps = [self._gap(axis) for axis in space.axes if not space.series[axis].half]
        self.half = self._zeros((*lead, *space.n[:-1], space.n[-1] // 2 + 1)) if space.real else None

    def coefficients(self) -> Tensor:
        if not self.rows:
            return self._inner((*self.lead, *self.space.shape), -self.space.dim)
        whole = self._zeros((*self.lead, self.space.n[0] // 2 + 1))
        self.padded[whole.data_ptr()] = whole
        return whole[..., : self.space.shape[0]]

    def leaving(self, c: Tensor | None = None) -> tuple[list[Tensor], Callable[[], Tensor]]:
        if not self.rows:
            return self.gaps[0].places, self._leave
        at = self.spare if c is None else c
        whole = self.padded[at.data_ptr()]
        return [at] if c is None else [], partial(torch.fft.irfft, whole, self.space.n[0], norm="forward")

    def _leave(self) -> Tensor:
        space = self.space
        c = self.gaps[0].leave()
        for gap in self.gaps[1:]:
            top = space.highest[gap.axis]
            low, high = gap.places
            low.copy_(c.narrow(gap.axis, 0, top + 1))
            high.copy_(c.narrow(gap.axis, top + 1, top))
            c = gap.leave()
        if self.half is None:
            return c
        self.half[..., : space.shape[-1]].copy_(c)
        return torch.fft.irfft(self.half, space.n[-1], norm="forward")

    def enter(self, u: Tensor) -> list[Tensor]:
        space = self.space
        if space.real:
            u = torch.fft.rfft(u, norm="forward")[..., : space.shape[-1]]
            if self.rows:
                return [u]
        for axis in space.axes[-2 if space.real else -1 : 0 : -1]:
            u = space.series[axis].enter(u, axis)
        first, top = -space.dim, space.highest[0]
        u = torch.fft.fft(u, dim=first, norm="forward")
        return [u.narrow(first, 0, top + 1), u.narrow(first, space.n[0] - top, top)]

    def into(self, c: Tensor) -> Callable[[Tensor], object]:
        whole = self.padded.get(c.data_ptr())
        if whole is None or whole.nbytes >= SMALL:
            return super().into(c)
        return partial(torch.fft.rfft, norm="forward", out=whole)

    def _gap(self, axis: int) -> Gap:
        """Rows of 256 complex numbers are 4096 bytes apart, which a cache keeps in one place: to walk across
        them costs five times as much as across rows that are one element longer.
        """
        space, past = self.space, axis % self.space.dim + 1
        shape = (*self.lead, *space.n[:past], *space.shape[past:])
        top, n, padded = space.highest[axis], space.n[axis], self._inner(shape, axis)
        places = [_cut(axis, 0, top + 1, padded), _cut(axis, n - top, top, padded)]
        between = self._inner(shape, axis, 1).narrow(axis, 0, n) if axis < -1 else None
        return Gap(axis, padded, places, between)

    def _inner(self, shape: tuple[int, ...], axis: int, more: int = 0) -> Tensor:
        """Zeros with an axis innermost, and so many elements longer."""
        at = len(shape) + axis
        return self._zeros((*shape[:at], *shape[at + 1 :], shape[at] + more)).movedim(-1, at)


class Gap(NamedTuple):
    """Coefficients padded along an axis, zero above the kept ones; the places of these; where the transform
    waits to be turned round for the next axis.
    """

    axis: int
    padded: Tensor
    places: list[Tensor]
    between: Tensor | None

    def leave(self) -> Tensor:
        c = torch.fft.ifft(self.padded, dim=self.axis, norm="forward")
        return c if self.between is None else self.between.copy_(c)


def _cut(axis: int, start: int, length: int, v: Tensor) -> Tensor:
    """Part of v along an axis, where v has that axis."""
    return v if v.ndim < -axis or v.shape[axis] == 1 else v.narrow(axis, start, length)
