"""Many steps of a batch of small states without a look from the host: torch records a step, C takes them.

`turned(step, at, *fixed)` is the step taken by each sample until it is no longer live. What a sample that is
not live holds must stay as it is. torch.compile records the step and knows when it must be recorded again;
what it calls a backend is here: aten operations, taken apart into columns, written as C++.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..columns import Apart
from ..compiler import compiled, owner, recorded
from ..shapes import SHAPES, aten, viewed
from .emit import LANES, Block, Unsuited
from .library import compiler, library, threads

TURNS = 10_000  # of a call: then an interrupt is heard


@torch.library.custom_op("longstride::slot", mutates_args=())
def slot(x: Tensor, before: Tensor | None, number: int) -> Tensor:
    """x itself. In a recorded turn: what it gives in this place, and what stood there before it."""
    return x.clone()


@slot.register_fake
def _(x: Tensor, before: Tensor | None, number: int) -> Tensor:
    return torch.empty_like(x)


SLOT = torch.ops.longstride.slot.default
SHAPES[SLOT] = viewed
MOST = 288  # elements of a sample's tensor taken apart: nine coefficients of 32, along a step
CLEAR = MOST + 1  # samples: a size that nothing else has
LIVE = 0  # the slot [B] of those who still turn


class Loop:
    """A recorded turn as a function of its inputs, called as torch calls what it has compiled."""

    def __init__(self, graph: Any) -> None:
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        values = [node.meta["val"] for node in inputs]
        if any(not isinstance(v, Tensor) or v.device.type != "cpu" for v in values):
            raise Unsuited("other than tensors of this machine")
        slots = {node.args[2]: node for node in graph.nodes if node.target is SLOT}
        self.batch = slots[LIVE].meta["val"].shape[0]
        apart = Apart(graph, self.batch, values[0].fake_mode, MOST)
        apart.columns()
        block, held = Block(apart, inputs), dict[int, list[str]]()
        for k, node in slots.items():
            if node.args[1] is not None:
                held[k] = [block.carry(one) for one in apart.elements_of(node.args[1])]
        live = block.name(apart.elements_of(slots[LIVE].args[1])[0])
        (results,) = next(node.args for node in graph.nodes if node.op == "output")
        self.made = [(tuple(node.meta["val"].shape), node.meta["val"].dtype) for node in results]
        for n, ((shape, kind), node) in enumerate(zip(self.made, results, strict=True)):
            k, found = node.args[2], apart.elements_of(node)
            if k in held:
                for name, one in zip(held[k], found, strict=True):
                    block.become(name, one, kind)
            else:
                held[k] = [block.see(one, kind, live) for one in found]
            block.store(held[k], n, shape, kind)
        self.run = library(block.source([kind for _, kind in self.made], held[LIVE][0])).run
        self.run.restype = None

    def __call__(self, *given: Tensor) -> list[Tensor]:
        made = [torch.empty(shape, dtype=kind) for shape, kind in self.made]
        begin = ctypes.c_int64(0)
        pointers = [(ctypes.c_void_p * len(of))(*(x.data_ptr() for x in of)) for of in (given, made)]
        arguments = ctypes.c_int64(self.batch), ctypes.c_int64(TURNS), ctypes.byref(begin), *pointers
        workers = min(torch.get_num_threads(), -(-self.batch // LANES))
        if workers == 1:
            self.run(*arguments)
        else:  # each takes the next samples: ctypes lets go of the interpreter
            for done in [threads(workers).submit(self.run, *arguments) for _ in range(workers)]:
                done.result()
        return made


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    return (a[..., None] * b[:, None]).sum(2)


def _addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * c + alpha * (a @ b)


def _baddbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * c + alpha * _bmm(a, b)


def _mean(x: Tensor, dims: Sequence[int], keepdim: bool = False, **more: Any) -> Tensor:
    return x.sum(list(dims), keepdim, **more) / math.prod(x.shape[d] for d in dims)


def _empty(size: Sequence[int], **more: Any) -> Tensor:
    """What f will write into."""
    return torch.zeros(size, dtype=more.get("dtype"))


SIMPLER: dict[Any, Callable[..., Tensor]] = {
    aten.mean.dim: _mean, aten.empty.memory_format: _empty, aten.bmm.default: _bmm,
    aten.addmm.default: _addmm, aten.baddbmm.default: _baddbmm,
}  # fmt: skip


def _recorded(turn: Callable[..., Any], at: Any, fixed: Sequence[Any]) -> Any:
    """A turn, with marks on what it gives."""
    before = tree_flatten(at)[0]
    flat, spec = tree_flatten(turn(at, *fixed))
    olds = [*before, *[None] * (len(flat) - len(before))]
    marked = [slot(x, old, k) for k, (x, old) in enumerate(zip(flat, olds, strict=True))]
    return tree_unflatten(marked, spec)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Operations in terms of those that have elements."""
    from torch._decomp import get_decompositions
    from torch._inductor.decomposition import select_decomp_table

    plain = get_decompositions([aten.addcmul, aten.addcdiv, aten.lerp])
    table = {**select_decomp_table(), **plain, **SIMPLER}
    # These stay: of a stack torch would make a batch twice as long, of a turn a table of places.
    for op in (aten.stack.default, aten.roll.default, aten.mm.default):
        table.pop(op, None)
    return table


def _backend(recorded: GraphModule, given: Sequence[Tensor]) -> Any:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func

    def looped(graph: GraphModule, given: Sequence[Any]) -> Any:
        return make_boxed_func(Loop(graph.graph))

    make = aot_autograd(fw_compiler=looped, inference_compiler=looped, decompositions=decompositions())
    return make(recorded, given)


_FAILED: WeakKeyDictionary[Any, set[Any]] = WeakKeyDictionary()  # what was no loop over samples
_COUNTS: WeakKeyDictionary[Any, dict[Any, bool]] = WeakKeyDictionary()


def _kind(v: Any) -> Any:
    """What tells failures apart: with jump_times= there is a tensor more, with a method its graph."""
    return (v.shape, v.dtype) if isinstance(v, Tensor) else type(v)


def _large(x: Tensor) -> bool:
    """Whether a sample has more elements than are taken apart: then none are copied as idle ones either."""
    return math.prod(x.shape[1:]) > MOST


def counts(f: Any, rate: Callable[[Tensor, Tensor], Tensor], t: Tensor, x: Tensor) -> bool:
    """Whether a rate is another beside idle samples, as where f divides by `len(x)`: asked once, by trying.

    Also where it cannot be told.  t: [] or [B].  x: [B, ...].
    """
    known, key = _COUNTS.setdefault(owner(f), {}), (x.shape, x.dtype)
    if len(x) >= CLEAR or _large(x):
        return False
    if key not in known:
        idle = CLEAR - len(x)

        def wide(v: Tensor) -> Tensor:
            return torch.cat((v, v[-1:].expand(idle, *v.shape[1:]))) if v.ndim else v

        try:
            with torch.no_grad():
                alone, beside = rate(t, x), rate(wide(t), wide(x))[: len(x)]
            round_off = 1e4 * torch.finfo(x.dtype).eps  # of sums, whose order hangs on the size
            slack = round_off * float(alone.abs().nan_to_num(posinf=0).max())
            known[key] = not torch.allclose(alone, beside, round_off, slack, equal_nan=True)
        except Exception:  # of f: such as tensors of its own, B long
            known[key] = True
    return known[key]


def turned(f: Any, turn: Callable[..., Any], at: Any, *fixed: Any, idle: bool = True) -> Any:
    """What `turn(at, *fixed)` gives when no sample is live any more, or after TURNS of them.

    Of what is beside the state: what it was in each sample's last turn. Whoever may need more than TURNS asks
    again, with what this gave.

    at: a tree of tensors [B, ...], the first of which [B] says who is live, as does that of the turn's first
    result. A number [] that all samples share is one of the turns, of which all then take as many.
    fixed: of tensors [] torch would record the numbers at first, and then record once more: [1] are better.
    f: what recordings are kept for.  idle: whether samples that do not turn may stand beside others.

    Raises:
        Unsuited: the turn is not a loop over samples, or cannot be compiled here.
    """
    flat, spec = tree_flatten(at)
    # One tensor in two places would be one input, and what is carried in them goes different ways.
    last = {id(x): n for n, x in enumerate(flat)}
    flat = [x if last[id(x)] == n else x.clone() for n, x in enumerate(flat)]
    at = tree_unflatten(flat, spec)
    if any(map(_large, flat)):
        raise Unsuited(f"samples of more than {MOST} elements")
    batch, failed = len(flat[LIVE]), _FAILED.setdefault(owner(f), set())
    # First with idle samples, so that no size of a sample is taken for that of the batch. A turn that knows
    # of tensors B long itself, or of B, cannot have those.
    for samples in dict.fromkeys((max(batch, CLEAR) if idle else batch, batch)):
        asked = samples, turn, *map(_kind, tree_flatten((at, fixed))[0])
        if compiler() is None or flat[LIVE].device.type != "cpu" or asked in failed:
            continue
        try:
            return _looped(f, samples, turn, at, fixed)
        # Torch wraps what it meets in many ways; who goes on without a loop tells what is wrong.
        except Exception as error:
            logging.getLogger("longstride").info("no loop over samples: %s", error)
            failed.add(asked)
    raise Unsuited


def _looped(f: Any, samples: int, turn: Callable[..., Any], at: Any, fixed: Any) -> Any:
    loop = compiled(_recorded, f, backend=_backend)
    batch = len(tree_flatten(at)[0][LIVE])
    with recorded():
        if samples == batch:
            return loop(turn, at, fixed)

        def wide(v: Any) -> Any:
            if not isinstance(v, Tensor) or v.shape[:1] != (batch,):
                return v
            return torch.cat((v, v[-1:].expand(samples - batch, *v.shape[1:])))

        at = tree_map(wide, at)
        tree_flatten(at)[0][LIVE][batch:] = False
        if batch > 1:  # what is of one alone is of all
            fixed = tree_map(wide, fixed)
        found = loop(turn, at, fixed)
        return tree_map(lambda v: v.narrow(v.shape.index(samples), 0, batch) if v.ndim else v, found)


def repeated(
    f: Any,
    take: Callable[..., Any],
    course: tuple[float, float, int, int],
    steps: int,
    xs: Sequence[Tensor],
    fs: Sequence[Tensor],
    *fixed: Any,
    idle: bool = True,
) -> tuple[list[Tensor], list[Tensor]]:
    """xs, fs after as many equal steps, each `take(t, xs, fs, *fixed)` with t [] in their precision.

    course: (a, b, N, n), the first is step n of N from a to b. So t is the same wherever a run is cut.

    Raises:
        Unsuited: the step is not a loop over samples.
    """
    a, b, N, n = course
    known, clock = (tuple(xs), tuple(fs)), xs[-1].dtype.to_real()
    for first in range(0, steps, TURNS):
        live, count = torch.ones(len(xs[-1]), dtype=torch.bool), torch.zeros((), dtype=torch.int64)
        begun = torch.tensor([[a, b - a, N, n + first]], dtype=torch.float64)
        most, like = torch.tensor([min(TURNS, steps - first)]), torch.empty(1, dtype=clock)
        known = turned(f, _repeated, (live, count, *known), take, begun, most, like, fixed, idle=idle)[0][2:]
    return list(known[0]), list(known[1])


def _repeated(
    at: Any, take: Callable[..., Any], course: Tensor, steps: Tensor, like: Tensor, fixed: Any
) -> Any:
    live, count, xs, fs = at
    a, span, N, n = course[0].unbind()
    xs, fs = take((a + span * (n + count) / N).to(like.dtype), xs, fs, *fixed)
    count = count + 1
    return (live & (count < steps), count, tuple(xs), tuple(fs)), ()
