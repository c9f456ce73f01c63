"""A nonlinear part bound to buffers, for states of one shape."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..bound import Call, Laid, accumulate, multiply
from .threads import chosen, using
from .transforms import Transforms

if TYPE_CHECKING:
    from .pointwise import Pointwise, Symbol


class BoundPointwise:
    """`Pointwise` on coefficients like these, without gradients: see `longstride.bound`.

    folded: whether the only write is left to the weights of the step, as `scale`.
    """

    def __init__(self, f: Pointwise, like: Tensor, folded: bool) -> None:
        self.f, self.space, self.like = f, f.space, like
        self.transforms: dict[tuple[int, ...], Transforms] = {}
        self.laid: Laid = {}
        self.products: dict[tuple[int, ...], Tensor] = {}
        self.entering: dict[tuple[int, ...], tuple[Tensor, Callable[[Tensor], Any]]] = {}
        with torch.no_grad():
            found = f.at_points(like)
        self.several = isinstance(found, tuple)
        fields = found if isinstance(found, tuple) else (found,)
        self.written = [tuple(u.shape[: -self.space.dim]) for u in fields]
        (write, *more) = f.damped
        self.sole = not more and f.source is None and (folded or write is None) and not callable(write)
        self.scale = f.beside(write, like) if self.sole and isinstance(write, Tensor) else None
        self.source = None if f.source is None else self.buffer().copy_(f.source)

    def buffer(self) -> Tensor:
        return self._of(self.like).coefficients()

    def calm(self) -> AbstractContextManager[None]:
        """As many threads as the transforms are worth."""
        if self.like.device.type != "cpu":
            return nullcontext()
        leave = self._of(self.like).leaving(torch.zeros_like(self.like))
        return using(chosen((self.space.n, self.like.shape, self.like.dtype), leave))

    def evaluation(self, x: Tensor) -> tuple[Tensor, Call]:
        reads, g = [self._read(symbol, x) for symbol in self.f.reads], self.f.g
        out, writes = self._parts()

        def call() -> None:
            found = g(*[read() for read in reads])
            for write, u in zip(writes, found if isinstance(found, tuple) else (found,), strict=True):
                write(u)

        if len(reads) == len(writes) == 1 and not self.several:
            (read,), (write,) = reads, writes
            return out, lambda: write(g(read()))
        return out, call

    def _at(self, lead: tuple[int, ...]) -> Transforms:
        if lead not in self.transforms:
            self.transforms[lead] = Transforms(self.space, lead, self.like)
        return self.transforms[lead]

    def _of(self, c: Tensor) -> Transforms:
        return self._at(tuple(c.shape[: -self.space.dim]))

    def _read(self, symbol: Symbol, x: Tensor) -> Callable[[], Tensor]:
        """The call that gives a field of what is then in x."""
        if symbol is None:
            return self._of(x).leaving(x)
        if not isinstance(symbol, Tensor):
            c = self._of(symbol(x)).coefficients()
            mapped, leave = symbol, self._of(c).leaving(c)

            def read_mapped() -> Tensor:
                c.copy_(mapped(x))
                return leave()

            return read_mapped
        w = self.f.beside(symbol, x)
        transforms = self._of(x * w)
        if transforms.lead not in self.products:
            self.products[transforms.lead] = transforms.coefficients()
        product = self.products[transforms.lead]  # for all reads, since each is used at once
        multiplied, transformed = multiply(x, w, product, self.laid), transforms.leaving(product)

        def read() -> Tensor:
            multiplied()
            return transformed()

        return read

    def _parts(self) -> tuple[Tensor, list[Callable[[Tensor], Any]]]:
        """A buffer for f, and for each field that is written the call that adds its part."""
        if self.sole:
            out, enter = self._at(self.written[0]).entering()
            return out, [enter]
        out, base, calls = self.buffer(), self.source, []
        for symbol, lead in zip(self.f.damped, self.written, strict=True):
            if lead not in self.entering:
                self.entering[lead] = self._at(lead).entering()
            c, enter = self.entering[lead]
            calls.append(_then(enter, self._added(base, symbol, c, out)))
            base = out
        return out, calls

    def _added(self, base: Tensor | None, symbol: Symbol, c: Tensor, out: Tensor) -> Call:
        """The call for out = base + symbol c."""
        if callable(symbol):
            apply = symbol
            return lambda: out.copy_(apply(c)) if base is None else torch.add(base, apply(c), out=out)
        w = 1.0 if symbol is None else self.f.beside(symbol, c)
        return multiply(c, w, out, self.laid) if base is None else accumulate(base, c, w, out, self.laid)


def _then(enter: Callable[[Tensor], Any], add: Call) -> Callable[[Tensor], Any]:
    def both(u: Tensor) -> None:
        enter(u)
        add()

    return both
