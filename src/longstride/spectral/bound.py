"""A nonlinear part bound to buffers, for states of one shape."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core import Weight
from ..equal_steps.bound import Call, Laid, weighed, weighing
from ..errors import SolveError
from .fourier import Fourier
from .threads import chosen, using
from .transforms import Plain, Transforms

if TYPE_CHECKING:
    from .pointwise import Pointwise, Symbol

Write = Callable[[Tensor], Any]  # of a field that g returned


class BoundPointwise:
    """`Pointwise` on coefficients like these, without gradients: see `longstride.equal_steps.bound`.

    folded: whether the only write is left to the weights of the step, as `scale`.
    """

    def __init__(self, f: Pointwise, like: Tensor, folded: bool) -> None:
        self.f, self.space, self.like = f, f.space, like
        self.kind = Transforms if type(f.space) is Fourier else Plain
        self.transforms: dict[tuple[int, ...], Plain] = {}
        self.mapped: dict[tuple[int, ...], Tensor] = {}  # what a function writes
        self.laid: Laid = {}
        self.cut: dict[int, tuple[Tensor, list[Tensor]]] = {}
        with torch.no_grad():
            found = f.at_points(like)
        self.several = isinstance(found, tuple)
        fields = found if isinstance(found, tuple) else (found,)
        for u in fields:  # buffers would round what is wider, where a step of the core would widen x
            if u.dtype.to_real() != like.dtype.to_real():
                raise SolveError(
                    f"g returned {u.dtype} of coefficients of {like.dtype}: as precise as they are"
                )
        self.written = [tuple(u.shape[: -self.space.dim]) for u in fields]
        (write, *more) = f.damped
        alone = not more and f.source is None and f.linear is None
        self.sole = alone and (folded or write is None) and not callable(write)
        self.scale = f.beside(write, like) if self.sole and isinstance(write, Tensor) else None
        self.source = None if f.source is None else self.buffer().copy_(f.source)

    def buffer(self) -> Tensor:
        return self._of(self.like).coefficients()

    def calm(self) -> AbstractContextManager[None]:
        """As many threads as the transforms are worth."""
        if self.like.device.type != "cpu":
            return nullcontext()
        _, leave = self._of(self.like).leaving()
        return using(chosen((self.space.n, self.like.shape, self.like.dtype), leave))

    def evaluation(self, x: Tensor, out: Tensor | None = None) -> tuple[Tensor, Call]:
        reads, g = [self._read(symbol, x) for symbol in self.f.reads], self.f.g
        if out is None:
            out = self._at(self.written[0]).coefficients() if self.sole else self.buffer()
        begin, writes = self._written(x, out)

        def call() -> None:
            begin()
            found = g(*[read() for read in reads])
            for write, u in zip(writes, found if isinstance(found, tuple) else (found,), strict=True):
                write(u)

        if self.sole and len(reads) == 1 and not self.several:
            (read,), (write,) = reads, writes
            return out, lambda: write(g(read()))
        return out, call

    def _at(self, lead: tuple[int, ...]) -> Plain:
        if lead not in self.transforms:
            self.transforms[lead] = self.kind(self.space, lead, self.like)
        return self.transforms[lead]

    def _of(self, c: Tensor) -> Plain:
        return self._at(tuple(c.shape[: -self.space.dim]))

    def _read(self, symbol: Symbol, x: Tensor) -> Callable[[], Tensor]:
        """The call that gives a field of what is then in x."""
        if callable(symbol):
            transforms, mapped = self._of(symbol(x)), symbol
            places, leave = transforms.leaving()

            def read_mapped() -> Tensor:
                c = mapped(x)
                for part, place in zip(transforms.parts, places, strict=True):
                    place.copy_(part(c))
                return leave()

            return read_mapped
        w = 1.0 if symbol is None else self.f.beside(symbol, x)
        transforms = self._of(x * w)
        places, leave = transforms.leaving(x if symbol is None else None)
        if not places:
            return leave
        cut = zip(self._parts(x), self._parts(w), places, strict=True)
        calls = [weighed(None, v, part, place, self.laid) for v, part, place in cut]

        def read() -> Tensor:
            for call in calls:
                call()
            return leave()

        return read

    def _written(self, x: Tensor, out: Tensor) -> tuple[Call, list[Write]]:
        """The call that begins out, and for each field that is written the one that adds its part."""
        if self.sole:
            return _nothing, [self._at(self.written[0]).into(out)]
        begin, base, linear = _nothing, self.source, self.f.linear
        if linear is not None:
            begin, base = self._linear(linear, x, out), out
        writes = list[Write]()
        for symbol, lead in zip(self.f.damped, self.written, strict=True):
            writes.append(self._write(base, symbol, self._at(lead), out))
            base = out
        return begin, writes

    def _linear(self, symbol: Symbol, x: Tensor, out: Tensor) -> Call:
        """The call for out = source + symbol x."""
        source = self.source
        if callable(symbol):
            apply = symbol
            return lambda: out.copy_(apply(x)) if source is None else torch.add(source, apply(x), out=out)
        w = 1.0 if symbol is None else self.f.beside(symbol, x)
        return weighed(source, x, w, out, self.laid)

    def _write(self, base: Tensor | None, symbol: Symbol, transforms: Plain, out: Tensor) -> Write:
        """The call for out = base + symbol times what the field that it is given becomes."""
        if callable(symbol):
            if transforms.lead not in self.mapped:
                self.mapped[transforms.lead] = transforms.coefficients()
            c, apply = self.mapped[transforms.lead], symbol
            enter = Plain.into(transforms, c)

            def write_mapped(u: Tensor) -> None:
                enter(u)
                out.copy_(apply(c)) if base is None else torch.add(base, apply(c), out=out)

            return write_mapped
        w = 1.0 if symbol is None else self.f.beside(symbol, out)
        bases = [None for _ in transforms.parts] if base is None else self._parts(base)
        cut = zip(bases, self._parts(w), self._parts(out), strict=True)
        calls = [weighing(part, weight, place, self.laid) for part, weight, place in cut]

        def write(u: Tensor) -> None:
            for call, v in zip(calls, transforms.enter(u), strict=True):
                call(v)

        return write

    def _parts(self, v: Weight) -> list[Any]:
        """What v is cut into, the same objects each time."""
        parts = self._of(self.like).parts
        if not isinstance(v, Tensor):
            return [v for _ in parts]
        if id(v) not in self.cut:
            self.cut[id(v)] = v, [part(v) for part in parts]
        return self.cut[id(v)][1]


def _nothing() -> None:
    pass
