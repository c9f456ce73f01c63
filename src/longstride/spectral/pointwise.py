"""What a nonlinear part is made of: fields read, something done at each point, the result written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core import Step, beside
from ..errors import ArgumentError
from .bound import BoundPointwise
from .fourier import Fourier

if TYPE_CHECKING:
    from .native import Native

Symbol = Tensor | Callable[[Tensor], Tensor] | None  # multiplies coefficients, or maps them; None leaves them


@dataclass(frozen=True)
class Pointwise:
    """f(t, c) = sum_j writes_j T[g(T^-1[reads_1 c], ...)_j] + linear c + source, T the transform of `space`.

    What every semilinear equation's nonlinear part is made of: fields are read, as they are or
    differentiated, something is done at each point, and the result is written, as it is or differentiated. u
    u_x is Pointwise(space, lambda u: u * u / 2, writes=(space.d(),)).

    g: of as many fields [..., *n] as are read; returns one, or a tuple of as many as are written.
    reads, writes: a symbol, float64 or complex128, that multiplies coefficients; a function of coefficients,
    for what mixes several fields; None for neither.
    linear: a symbol or function too: what is linear and yet not left to L. Where it is in balance with g, as
    the feed of a reaction is, steps of one size are several times as accurate, and g and its transforms need
    not have it.
    source: coefficients that are added, such as those of a force.
    """

    space: Fourier
    g: Callable[..., Any]
    reads: tuple[Symbol, ...] = (None,)
    writes: tuple[Symbol, ...] = (None,)
    source: Tensor | None = None
    linear: Symbol = None
    made: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """
        Raises:
            ArgumentError: a space that has no transform of its own.
        """
        if not isinstance(self.space, Fourier):
            along = ", of a channel its space.along" if hasattr(self.space, "along") else ""
            raise ArgumentError(
                f"a Pointwise sits on a Fourier or a Box{along}: not on a {type(self.space).__name__}"
            )

    def __call__(self, t: Tensor, c: Tensor) -> Tensor:
        found = self.at_points(c)
        fields = found if isinstance(found, tuple) else (found,)
        terms = [self._by(symbol, self.space.enter(u)) for symbol, u in zip(self.damped, fields, strict=True)]
        if self.linear is not None:
            terms.append(self._by(self.linear, c))
        if self.source is not None:
            terms.append(self.beside(self.source, c))
        return sum(terms[1:], start=terms[0])

    @property
    def bind(self) -> Callable[[Tensor, bool], BoundPointwise]:
        """The same for coefficients like these, into buffers: see `longstride.equal_steps.bound`."""
        return partial(BoundPointwise, self)

    def native(self, step: Step, xs: Sequence[Tensor], fs: Sequence[Tensor]) -> Native | None:
        """Steps like this one as a function in C, from states and evaluations like these; None where that
        cannot be: see `longstride.spectral.native`.
        """
        from ..native.emit import Unsuited  # for torch's compiler is imported with it
        from .native import Native

        try:
            return Native(step, self, xs, fs)
        except Unsuited:
            return None

    def at_points(self, c: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What g returns."""
        return self.g(*(self.space.leave(self._by(symbol, c)) for symbol in self.reads))

    @cached_property
    def damped(self) -> tuple[Symbol, ...]:
        """`writes` with the filter of the space, if it has one."""
        by = self.space.filter
        return self.writes if by is None else tuple(_damped(symbol, by) for symbol in self.writes)

    def beside(self, symbol: Tensor, c: Tensor) -> Tensor:
        """As precise as c and where c is; made once."""
        key = (id(symbol), c.dtype, c.device)
        if key not in self.made:  # a symbol lives as long as self does, and so does its id
            self.made[key] = beside(symbol, c)
        return self.made[key]

    def _by(self, symbol: Symbol, c: Tensor) -> Tensor:
        if symbol is None:
            return c
        return c * self.beside(symbol, c) if isinstance(symbol, Tensor) else symbol(c)


def _damped(symbol: Symbol, by: Tensor) -> Symbol:
    if symbol is None or isinstance(symbol, Tensor):
        return by if symbol is None else symbol * by
    return lambda c: symbol(c) * by.to(c.device, c.dtype.to_real())


def nothing(t: Tensor, c: Tensor) -> Tensor:
    """f of a linear equation."""
    return torch.zeros_like(c)
