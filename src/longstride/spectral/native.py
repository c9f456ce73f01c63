"""The steps of a nonlinear part on a periodic axis as one function in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core import Step, Weight
from ..equal_steps.bound import Placed, folds
from ..matrix import Matrix
from ..native.emit import LANES, MEMORY, Unsuited, prelude
from ..native.library import compiler, library, threads
from .bound import BoundPointwise
from .dfti import Descriptor, functions
from .fourier import Fourier
from .points import points
from .rows import Buffer, Loop, Row, Tables

if TYPE_CHECKING:
    from .pointwise import Pointwise

LINE = 64  # bytes of a cache's line: where buffers begin
TURNS = 10**7  # steps of a point in a call, about 0.1 s: then an interrupt is heard
MOVES = """
template <class V, class R> static inline V load(const R *p) { V v; memcpy(&v, p, sizeof v); return v; }
template <class V, class R> static inline void store(R *p, V v) { memcpy(p, &v, sizeof v); }
typedef long (*Transform)(void *, void *, ...);
"""
Piece = Row | str  # a line of C


class Emitted:
    """A `Pointwise` whose evaluations are pieces of a step in C: a `PlacedField` of one sample."""

    def __init__(self, f: Pointwise, like: Tensor, folded: bool) -> None:
        self.f, self.like = f, like
        self.bound = BoundPointwise(f, like, folded)
        self.scale = self.bound.scale
        self.n = f.space.n[0]
        self.single = like.dtype == torch.complex64
        self.size, self.tables = 0, Tables(like.dtype.to_real())  # of all buffers, in reals
        self.numbers = list[tuple[Tensor, Tensor]]()  # that g has from elsewhere, and as they were
        self.fields = dict[tuple[str, int, tuple[int, ...]], Buffer]()
        self.descriptors = dict[tuple[int, bool], tuple[int, Descriptor]]()

    def buffer(self) -> Buffer:
        return self._coefficients(tuple(self.like.shape[1:-1]))

    def evaluation(self, x: Buffer, out: Buffer | None = None) -> tuple[Buffer, list[Piece]]:
        f, bound = self.f, self.bound
        read = [self._read(j, symbol, x) for j, symbol in enumerate(f.reads)]
        made = [self._field("v", j, lead[1:]) for j, lead in enumerate(bound.written)]
        if out is None:
            out = self._coefficients(made[0].lead) if bound.sole else self.buffer()
        pieces = [piece for _, some in read for piece in some]
        pieces.append(self._points([u for u, _ in read], made))
        if bound.sole:
            return out, [*pieces, self._transform(made[0], out, forward=True)]
        base: Buffer | Tensor | None = None if f.source is None else f.beside(f.source, self.like)
        rows = list[Row]()
        if f.linear is not None:
            rows.append(Row(out, x, self._weight(f.linear), base))
            base = out
        for j, (v, symbol) in enumerate(zip(made, f.damped, strict=True)):
            c = self._held("c", j, v.lead)
            pieces.append(self._transform(v, c, forward=True))
            rows.append(Row(out, c, self._weight(symbol), base))
            base = out
        return out, [*pieces, *rows]

    def _read(self, j: int, symbol: Any, x: Buffer) -> tuple[Buffer, list[Piece]]:
        """A field of what is in x, and how it becomes that."""
        if symbol is None:
            place, rows = x, list[Piece]()
        else:
            w = self._weight(symbol)
            lead = torch.broadcast_shapes(w.shape[:-1], (1, *x.lead))[1:]
            place = self._held("r", j, tuple(lead))
            rows = [Row(place, x, w)]
        u = self._field("u", j, place.lead)
        return u, [*rows, self._transform(place, u, forward=False)]

    def _weight(self, symbol: Any) -> Any:
        if callable(symbol):
            raise Unsuited("a symbol that is a function")
        return 1.0 if symbol is None else self.f.beside(symbol, self.like)

    def _transform(self, source: Buffer, to: Buffer, forward: bool) -> str:
        key = source.rows, forward
        if key not in self.descriptors:
            points, coefficients = (source, to)[:: 1 if forward else -1]
            made = Descriptor(self.n, source.rows, self.single, forward, points.along, coefficients.along)
            self.descriptors[key] = len(self.descriptors), made
        name = "forward" if forward else "backward"
        return f"{name}(h[{self.descriptors[key][0]}], W + {source.offset}, W + {to.offset});"

    def _points(self, read: Sequence[Buffer], made: Sequence[Buffer]) -> str:
        if any(lead[0] > 1 for lead in self.bound.written):
            raise Unsuited("samples with numbers of their own")
        shapes = [(*u.lead, u.along) for u in read]
        begins, ends = ([v.offset for v in some] for some in (read, made))
        text, found = points(self.f.g, shapes, begins, ends, self.tables.dtype)
        self.numbers += [(v, v.detach().clone()) for v in found]
        return text

    # Buffers

    def _coefficients(self, lead: tuple[int, ...]) -> Buffer:
        return self._new(lead, self.n // 2 + 1, True)

    def _held(self, kind: str, j: int, lead: tuple[int, ...]) -> Buffer:
        key = kind, j, lead
        if key not in self.fields:
            self.fields[key] = self._coefficients(lead)
        return self.fields[key]

    def _field(self, kind: str, j: int, lead: tuple[int, ...]) -> Buffer:
        key = kind, j, lead
        if key not in self.fields:
            self.fields[key] = self._new(lead, -(-self.n // LANES) * LANES, False)
        return self.fields[key]

    def _new(self, lead: tuple[int, ...], along: int, complex: bool) -> Buffer:
        made = Buffer(lead, along, complex, self.size)
        each = LINE // (4 if self.single else 8)
        self.size += -(-made.rows * along * (1 + complex) // each) * each
        return made


class Native(Placed[Buffer, list[Piece]]):
    """Several steps as one function in C, sample by sample: what a sample needs stays in the nearest cache.

    Rows that come between two transforms are one loop, what f does at each point another, and transforms are
    called where they lie in MKL.

    f: what the step is applied to.  xs, fs: states and evaluations like those that it begins with.

    Raises:
        Unsuited: there is no compiler or no MKL; f is not of real fields on one periodic axis, mixes them by
            a function, or is more at a point than arithmetic; samples have weights of their own.
    """

    def __init__(self, step: Step, f: Pointwise, xs: Sequence[Tensor], fs: Sequence[Tensor]) -> None:
        calls = functions()
        if compiler() is None or calls is None or xs[-1].device.type != "cpu":
            raise Unsuited("no compiler, or no MKL")
        if type(f.space) is not Fourier or f.space.dim > 1 or not f.space.real:
            raise Unsuited("more than one periodic axis, or complex fields")
        self.f, self.transforms = f, calls
        self._make(step, xs, fs)

    def _make(self, step: Step, xs: Sequence[Tensor], fs: Sequence[Tensor]) -> None:
        self.emitted = Emitted(self.f, xs[-1][:1], folds(step))
        super().__init__(step, self.emitted, len(xs), len(fs))
        self.run = library(self._source()).run
        self.run.restype = None
        self.table = self.emitted.tables.all()
        addresses = [made.address for _, made in self.emitted.descriptors.values()]
        self.handles = (ctypes.c_void_p * len(addresses))(*addresses)

    def weighed(self, base: Buffer | None, v: Buffer, w: Weight, out: Buffer) -> list[Piece]:
        if isinstance(w, Matrix):
            raise Unsuited("a matrix as a weight")
        return [Row(out, v, w, base)]

    def go(self, xs: Sequence[Tensor], fs: Sequence[Tensor], steps: int) -> tuple[list[Tensor], list[Tensor]]:
        """So many steps from these; returns what the last one keeps. Threads share the samples."""
        if not all(torch.equal(now, then) for now, then in self.emitted.numbers):
            self._make(self.step, xs, fs)  # a parameter has been trained
        known = [v.clone(memory_format=torch.contiguous_format) for v in (*xs, *fs)]
        samples = max(len(known[0]), 1)
        workers = min(torch.get_num_threads(), samples)
        cuts = [samples * i // workers for i in range(workers + 1)]
        shares = [[v[begin:end] for v in known] for begin, end in pairwise(cuts)]
        most = max(TURNS // (samples * self.emitted.n), 1)
        for first in range(0, steps, most):
            turns = min(most, steps - first)
            if workers == 1:
                self._turn(known, turns)
                continue
            list(threads(workers).map(self._turn, shares, repeat(turns)))
        return known[: len(xs)], known[len(xs) :]

    def _turn(self, known: Sequence[Tensor], steps: int) -> None:
        """So many steps of all samples in these tensors, in place."""
        W = torch.zeros(self.emitted.size + LINE, dtype=self.table.dtype)
        pointers = (ctypes.c_void_p * len(known))(*(v.data_ptr() for v in known))
        self.run(
            ctypes.c_int64(len(known[0])), ctypes.c_int64(steps), pointers, self.handles,
            ctypes.c_void_p(self.table.data_ptr()), ctypes.c_void_p(W.data_ptr() + -W.data_ptr() % LINE),
            *map(ctypes.c_void_p, self.transforms),
        )  # fmt: skip

    def _source(self) -> str:
        """The function: of each sample, what it begins with, its steps, what it ends with."""
        e = self.emitted
        kind, text = MEMORY[e.like.dtype.to_real()], list[str]()
        kept, rows = e.like.shape[-1], Loop(e.tables, kind)
        for piece in [piece for some in self.calls for piece in some]:
            if isinstance(piece, Row):
                rows.row(piece)
            else:
                text += [*rows.text(kept), piece]
                rows = Loop(e.tables, kind)
        text += rows.text(kept)
        begins, ends = [list[str](), list[str]()]
        for j, buffer in enumerate(b for some in self.inputs for b in some):
            for i in range(buffer.rows):
                inner = f"W + {buffer.offset + 2 * i * buffer.along}"
                outer = f"known[{j}] + 2 * (b * {buffer.rows} + {i}) * {kept}"
                size = f"{2 * kept} * sizeof({kind})"
                begins.append(f"memcpy({inner}, {outer}, {size});")
                ends.append(f"memcpy({outer}, {inner}, {size});")
        return "\n".join((
            prelude(),
            MOVES,
            f'extern "C" void run(int64_t samples, int64_t steps, {kind} **known, void **h,',
            f"const {kind} *__restrict T, {kind} *__restrict W, Transform forward, Transform backward) {{",
            "for (int64_t b = 0; b < samples; b++) {", *begins,
            "for (int64_t step = 0; step < steps; step++) {", *text, "}", *ends, "}", "}",
        ))  # fmt: skip
