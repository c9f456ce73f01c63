"""A step bound to buffers: what `core.advance` does, with everything decided and allocated ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from ..core import Step, Weight
from ..matrix import Matrix

Call = Callable[[], Any]
Bind = Callable[
    [Tensor, bool], "BoundField"
]  # for states like this one, told whether a step takes over a scale

Laid = dict[tuple[int, tuple[int, ...], bool], tuple[Tensor, Tensor]]  # weights, and as they are laid out
CACHE = 3 * 2**16  # bytes of a state with which all that a step works on stays in a core's cache of 1 or 2 MB

Place = TypeVar("Place")  # where a value lies
Does = TypeVar("Does", covariant=True)  # what makes it


class PlacedField(Protocol[Place, Does]):
    """A field of the state alone, ready for states of one shape.

    scale: what its evaluations are still to be multiplied by; the weights of a step take it over.
    """

    scale: Tensor | None

    def buffer(self) -> Place:
        """For a state, laid out as suits the field."""

    def evaluation(self, x: Place, out: Place | None = None) -> tuple[Place, Does]:
        """A buffer, and what makes it f of what is then in x; out: one that it gave before."""


class BoundField(PlacedField[Tensor, Call], Protocol):
    """One whose values are tensors and made by calls."""

    def calm(self) -> AbstractContextManager[None]:
        """Around steps: what the machine allows."""


class Line(NamedTuple):
    """The value `out` is w v or base + w v or, without a weight, f(v). Values are numbered."""

    out: int
    v: int
    w: Weight | None = None
    base: int | None = None


class Placed(Generic[Place, Does]):
    """The rows of a step line by line, and where the value of each line lies.

    A product with which several rows begin, such as e^(hL/2) x, is made once. A row is summed as far as it
    can be before the evaluation that it waits for, so that older evaluations are done with, and a value
    stands where one that is not needed any more stood: ETDRK4 works in three states and three evaluations.

    step: one that `fits`.  xs, fs: how many states and evaluations it begins with.
    """

    def __init__(self, step: Step, field: PlacedField[Place, Does], xs: int, fs: int) -> None:
        self.step, self.field = step, field
        self.inputs = [field.buffer() for _ in range(xs)], [field.buffer() for _ in range(fs)]
        lines, kept = self._lines()
        self.calls = self._placed(lines, kept)

    def weighed(self, base: Place | None, v: Place, w: Weight, out: Place) -> Does:
        """What makes out = base + w v, or w v; out may be either of them."""
        raise NotImplementedError

    def _lines(self) -> tuple[list[Line], list[int]]:
        """The step line by line, and the values that it keeps; it begins with values 0, 1, ..."""
        rows, lines = self._rows(), list[Line]()
        first = Counter((kind, i, id(w)) for (kind, i, w), *_ in rows)
        products: dict[tuple[int, int, int], int] = {}
        begins = [len(known) for known in self.inputs]
        known = [*range(begins[0])], [*range(begins[0], sum(begins))]

        def line(*made: Any) -> int:
            lines.append(Line(sum(begins) + len(lines), *made))
            return lines[-1].out

        def summed(total: int | None, terms: Sequence[tuple[int, int, Weight]]) -> int | None:
            for kind, i, w in terms:
                v, key = known[kind][i], (kind, i, id(w))
                if total is not None:
                    total = line(v, w, total)
                elif _is_one(w):
                    total = v
                elif first[key] > 1:
                    total = products[key] = products[key] if key in products else line(v, w)
                else:
                    total = line(v, w)
            return total

        total = None  # of what is known of the row
        for stage, row, after in zip(self.step.stages, rows, [*rows[1:], []], strict=True):
            x = summed(total, row)
            assert x is not None
            known[0].append(x)
            total, late = None, (1, len(known[1]))
            if stage.at is not None:
                total = summed(None, [term for term in after if term[:2] != late])
                after[:] = [term for term in after if term[:2] == late]
                known[1].append(line(x))
        keeps = zip(known, (self.step.keep_x, self.step.keep_f), strict=True)
        return lines, [values[k] for values, keep in keeps for k in keep]

    def _placed(self, lines: Sequence[Line], kept: Sequence[int]) -> list[Does]:
        """The calls, each value in a buffer that no later line reads another from."""
        last = {v: n for n, line in enumerate(lines) for v in (line.v, line.base) if v is not None}
        last |= dict.fromkeys(kept, len(lines))
        xs, fs = self.inputs
        at, calls = dict(enumerate((*xs, *fs))), list[Does]()
        evaluated, free_x, free_f = set[int](), list[Place](), list[Place]()
        held = set(at) - ({0} if len(xs) == 1 else set())  # of several, what is kept is copied there in turn

        def release(n: int, values: Sequence[int | None]) -> None:
            for v in dict.fromkeys(values):
                if v is not None and last[v] == n and v not in held:
                    (free_f if v in evaluated else free_x).append(at[v])

        for n, (out, v, w, base) in enumerate(lines):
            if w is None:
                at[out], call = self.field.evaluation(at[v], free_f.pop() if free_f else None)
                evaluated.add(out)
                release(n, (v,))
            else:
                release(n, (v, base))  # in place, if it can be
                at[out] = free_x.pop() if free_x else self.field.buffer()
                call = self.weighed(None if base is None else at[base], at[v], w, at[out])
            calls.append(call)
        moves = [(to, at[v]) for to, v in zip((*xs, *fs), kept, strict=True)]
        return calls + [self.weighed(None, come, 1.0, to) for to, come in moves if to is not come]

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


class Bound(Placed[Tensor, Call]):
    """The rows of a step as calls, one for each term, into buffers that every step uses again.

    A row w_1 v_1 + w_2 v_2 + ... is one product and a fused addition for each further term. Real weights of
    complex states multiply pairs of real numbers. So many samples as the cache holds take all steps before
    the next ones do. No gradients.

    xs, fs: states and evaluations like those that it begins with.  bind: makes a `BoundField`.
    """

    field: BoundField

    def __init__(self, step: Step, bind: Bind, xs: Sequence[Tensor], fs: Sequence[Tensor]) -> None:
        self.size, self.laid = _together(step, bind, xs[-1]), Laid()
        super().__init__(step, bind(xs[-1][: self.size], folds(step)), len(xs), len(fs))

    def weighed(self, base: Tensor | None, v: Tensor, w: Weight, out: Tensor) -> Call:
        return weighed(base, v, w, out, self.laid)

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


def folds(step: Step) -> bool:
    """Whether weights can take over a scale of evaluations: none is kept, and they are no matrices."""
    weights = [w for stage in step.stages for kind, _, w in stage.terms if kind == 1]
    return not step.keep_f and not any(isinstance(w, Matrix) for w in weights)


def fits(step: Step) -> bool:
    """Whether there is no noise, and what is kept can be copied in turn."""
    kept = (step.keep_x, step.keep_f)
    rising = all(a < b for row in kept for a, b in pairwise(row))
    same = all((min(row, default=0) < 0) == (max(row, default=0) < 0) for row in kept)
    return step.brownian is None and rising and same


def weighed(base: Tensor | None, v: Tensor, w: Weight, out: Tensor, laid: Laid) -> Call:
    """The call for out = base + w v, or w v; out may be either of them."""
    if base is None and _is_one(w):
        return partial(out.copy_, v)
    if isinstance(w, Matrix):
        return lambda: out.copy_(v * w) if base is None else torch.add(base, v * w, out=out)
    if base is None:
        v, out, w = _paired(laid, v, out, w)
        return partial(torch.mul, v, w, out=out)
    if not isinstance(w, Tensor):
        return partial(torch.add, base, v, alpha=w, out=out)
    base, v, out, w = _paired(laid, base, v, out, w)
    return partial(torch.addcmul, base, v, w, out=out)


def weighing(base: Tensor | None, w: Weight, out: Tensor, laid: Laid) -> Callable[[Tensor], Any]:
    """The same for a tensor or number w and whichever v it is called with."""
    if isinstance(w, float):
        return lambda v: torch.mul(v, w, out=out) if base is None else torch.add(base, v, alpha=w, out=out)
    look = torch.view_as_real if out.is_complex() and not w.is_complex() else _as_it_is
    out, weight = _paired(laid, out, w)
    if base is None:
        return lambda v: torch.mul(look(v), weight, out=out)
    begun = look(base)
    return lambda v: torch.addcmul(begun, look(v), weight, out=out)


def _as_it_is(v: Tensor) -> Tensor:
    return v


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
        out = states[-1]
    order = tuple(sorted(range(-w.ndim - pairs, 0), key=lambda axis: -out.stride(axis)))
    key = (id(w), order, pairs)
    if key not in laid:
        varies = w.ndim > 0 and w.shape[order[-2] + 1] > 1 if pairs else False
        wide = w[..., None].expand(*w.shape, 1 + varies) if pairs else w
        back = [order.index(axis) - wide.ndim for axis in range(-wide.ndim, 0)]
        laid[key] = w, wide.permute(order).contiguous().permute(back)
    return [*states, laid[key][1]]
