"""A step bound to buffers: what `core.advance` does, with everything decided and allocated ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from .core import Step, Weight
from .matrix import Matrix

Call = Callable[[], Any]
Bind = Callable[
    [Tensor, bool], "BoundField"
]  # for states like this one, told whether a step takes over a scale

CACHE = 3 * 2**16  # bytes of a state with which all that a step works on stays in a core's cache of 1 or 2 MB


class BoundField(Protocol):
    """A field of the state alone, ready for states of one shape.

    scale: what its evaluations are still to be multiplied by; the weights of a step take it over.
    """

    scale: Tensor | None

    def buffer(self) -> Tensor:
        """For a state, laid out as suits the field."""

    def calm(self) -> AbstractContextManager[None]:
        """Around steps: what the machine allows."""

    def evaluation(self, x: Tensor) -> tuple[Tensor, Call]:
        """A buffer, and the call that makes it f of what is then in x."""


class Bound:
    """The rows of a step as calls, one for each term, into buffers that every step uses again.

    A row w_1 v_1 + w_2 v_2 + ... is one product and a fused addition for each further term, where the result
    is to stand. A product with which several rows begin, such as e^(hL/2) x, is made once. Real weights of
    complex states multiply pairs of real numbers. So many samples as the cache holds take all steps before
    the next ones do. No gradients.

    step: one that `fits`.  xs, fs: states and evaluations like those that it begins with.
    bind: makes a `BoundField`.
    """

    def __init__(self, step: Step, bind: Bind, xs: Sequence[Tensor], fs: Sequence[Tensor]) -> None:
        self.size = _together(step, bind, xs[-1])
        weights = [w for stage in step.stages for kind, _, w in stage.terms if kind == 1]
        folded = not step.keep_f and not any(isinstance(w, Matrix) for w in weights)
        self.step, self.field, self.calls = step, bind(xs[-1][: self.size], folded), list[Call]()
        self.xs, self.fs = [self.field.buffer() for _ in xs], [self.field.buffer() for _ in fs]
        self.inputs, self.argument = (self.xs[:], self.fs[:]), self.field.buffer()
        self.laid: Laid = {}
        self.products: dict[tuple[int, int, int], Tensor] = {}
        self.rows = self._rows()
        first = Counter((kind, i, id(w)) for (kind, i, w), *_ in self.rows)
        self.common = {key for key, times in first.items() if times > 1}
        for n in range(len(self.rows)):
            self._bind(n)
        for known, kept in zip((self.xs, self.fs), (step.keep_x, step.keep_f), strict=True):
            moves = [(known[i], known[k]) for i, k in enumerate(kept)]
            self.calls += [partial(to.copy_, come) for to, come in moves if to is not come]

    def go(self, xs: Sequence[Tensor], fs: Sequence[Tensor], steps: int) -> tuple[list[Tensor], list[Tensor]]:
        """So many steps from these; returns what the last one keeps."""
        kept, samples = [[torch.empty_like(v) for v in known] for known in (xs, fs)], len(xs[-1])
        with torch.no_grad(), self.field.calm():
            for first in range(0, samples, self.size):
                some = partial(torch.narrow, dim=0, start=min(first, samples - self.size), length=self.size)
                for buffers, given in zip(self.inputs, (xs, fs), strict=True):
                    for buffer, v in zip(buffers, given, strict=True):
                        buffer.copy_(some(v))
                calls = self.calls
                for _ in range(steps):
                    for call in calls:
                        call()
                for buffers, ends in zip(self.inputs, kept, strict=True):
                    for buffer, v in zip(buffers, ends, strict=True):
                        some(v).copy_(buffer)
        return kept[0], kept[1]

    def _rows(self) -> list[list[tuple[int, int, Weight]]]:
        """The terms of each row, evaluations with their scale; weights that are equal are the same object."""
        distinct: list[Tensor] = []
        scaled: dict[int, Tensor] = {}
        scale = self.field.scale

        def one(kind: int, w: Weight) -> Weight:
            if isinstance(w, Tensor):
                same = (v for v in distinct if v.dtype == w.dtype and torch.equal(v, w))
                found = next(same, None)
                if found is None:
                    distinct.append(found := w)
                w = found
            if kind == 0 or scale is None:
                return w
            return scaled.setdefault(id(w), w * scale) if isinstance(w, Tensor) else w * scale

        return [[(kind, i, one(kind, w)) for kind, i, w in stage.terms] for stage in self.step.stages]

    def _bind(self, n: int) -> None:
        """Row n: its sum, and what is evaluated there."""
        stage, known = self.step.stages[n], (self.xs, self.fs)
        (kind, i, w), *rest = self.rows[n]
        base, calls = known[kind][i], self.calls
        if rest or not _is_one(w):
            x = self._target(n)
            if (kind, i, id(w)) in self.common:
                base = self._product(kind, i, w)
            elif not _is_one(w):
                calls.append(multiply(base, w, x, self.laid))
                base = x
            for kind, i, w in rest:
                calls.append(accumulate(base, known[kind][i], w, x, self.laid))
                base = x
        self.xs.append(base)
        if stage.at is not None:
            f, call = self.field.evaluation(base)
            calls.append(call)
            self.fs.append(f)

    def _product(self, kind: int, i: int, w: Weight) -> Tensor:
        key = (kind, i, id(w))
        if key not in self.products and not _is_one(w):
            self.products[key] = made = self.field.buffer()
            self.calls.append(multiply((self.xs, self.fs)[kind][i], w, made, self.laid))
        return self.products.get(key, (self.xs, self.fs)[kind][i])

    def _target(self, n: int) -> Tensor:
        """Where row n is to stand: in place of the state it begins with, if nobody else needs that."""
        here, begins, step = len(self.xs), len(self.inputs[0]), self.step
        later = [term[:2] for row in self.rows[n + 1 :] for term in row]
        count = begins + len(step.stages)
        kept = {k % count for k in step.keep_x}
        if step.stages[n].at is not None:
            return self.field.buffer() if (0, here) in later or here in kept else self.argument
        read = [term[:2] for term in self.rows[n][1:]] + later
        free = step.keep_x in ((-1,), (here,)) and here == count - 1 and (0, 0) not in read
        return self.xs[0] if free else self.field.buffer()


def _together(step: Step, bind: Bind, x: Tensor) -> int:
    """How many samples take their steps together: all, where one has weights or parameters of its own."""
    parts = min(-(-x.nbytes // CACHE), len(x)) if x.device.type == "cpu" else 1
    size = -(-len(x) // max(parts, 1))
    if size == len(x):
        return size
    weights = [w for stage in step.stages for *_, w in stage.terms]
    matrices = any(isinstance(w, Matrix) for w in weights)
    own = any(isinstance(w, Tensor) and w.ndim == x.ndim and len(w) > 1 for w in weights)
    return len(x) if matrices or own or not _alike(bind, x, size) else size


def _alike(bind: Bind, x: Tensor, size: int) -> bool:
    """Whether f of the first samples is the same alone and among all."""

    def f(x: Tensor) -> Tensor:
        field = bind(x, False)
        value, call = field.evaluation(field.buffer().copy_(x))
        call()
        return value

    with torch.no_grad():
        among = f(x)
        try:
            alone = f(x[:size])
        except RuntimeError:  # a parameter of all samples does not broadcast with some
            return False
    return alone.shape == among[:size].shape and torch.allclose(alone, among[:size])


def fits(step: Step) -> bool:
    """Whether there is no noise, and what is kept can be copied in turn."""
    kept = (step.keep_x, step.keep_f)
    rising = all(a < b for row in kept for a, b in pairwise(row))
    same = all((min(row, default=0) < 0) == (max(row, default=0) < 0) for row in kept)
    return step.brownian is None and rising and same


Laid = dict[tuple[int, tuple[int, ...], bool], tuple[Tensor, Tensor]]  # weights, and as they are laid out


def multiply(v: Tensor, w: Weight, out: Tensor, laid: Laid) -> Call:
    """The call for out = w v."""
    if isinstance(w, Matrix):
        return lambda: out.copy_(v * w)
    v, out, w = _paired(laid, v, out, w)
    return partial(torch.mul, v, w, out=out)


def accumulate(base: Tensor, v: Tensor, w: Weight, out: Tensor, laid: Laid) -> Call:
    """The call for out = base + w v; out may be base."""
    if isinstance(w, Matrix):
        return lambda: torch.add(base, v * w, out=out)
    if not isinstance(w, Tensor):
        return partial(torch.add, base, v, alpha=w, out=out)
    base, v, out, w = _paired(laid, base, v, out, w)
    return partial(torch.addcmul, base, v, w, out=out)


def _is_one(w: Weight) -> bool:
    return isinstance(w, float) and w == 1.0


def _paired(laid: Laid, *tensors: Any) -> list[Any]:
    """Tensors and a weight that may be multiplied element by element with nothing converted on the way.

    A weight lies as what it multiplies, so that all are walked through in one loop.
    """
    *states, w = tensors
    if not isinstance(w, Tensor):
        return [*states, w]
    out, pairs = states[-1], states[-1].is_complex() and not w.is_complex()
    if pairs:
        states = [torch.view_as_real(v) for v in states]
        out, width = states[-1], 2 if w.numel() > 1 else 1
    order = tuple(sorted(range(-w.ndim - pairs, 0), key=lambda axis: -out.stride(axis)))
    key = (id(w), order, pairs)
    if key not in laid:
        wide = w[..., None].expand(*w.shape, width) if pairs else w
        back = [order.index(axis) - wide.ndim for axis in range(-wide.ndim, 0)]
        laid[key] = w, wide.permute(order).contiguous().permute(back)
    return [*states, laid[key][1]]
