"""Steps around an f that is called as it is: what lies between two of its calls is one pass in C++.

A turn is recorded with the answers of f as inputs. So it falls into pieces, one before each call, which works
out what f is asked, and one behind the last. What several pieces need goes through memory, a vector of
samples at a time. f may be anything that answers; no compiler sees it.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import attrgetter
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node

from ..columns import Apart, product
from ..errors import ArgumentError
from .emit import LANES, MEMORY, VECTOR, Block, Unsuited, prelude
from .library import library, threads
from .steps import CLEAR, LIVE, MOST, decompositions

Rate = Callable[[Tensor, Tensor], Tensor]
Turn = Callable[[Rate, Sequence[Tensor], Sequence[Any]], tuple[list[Tensor], Sequence[Tensor]]]
WIDEST = 64  # bytes of a vector, at most
SHARE = 2**14  # samples for each thread, or more


class Piece(Block):
    """The text of one pass.

    before: the passes behind it.  answers: of f, each read in the pass behind it alone: the memory is f's.
    through: elements that go from pass to pass, through memory.
    """

    def __init__(
        self, apart: Apart, inputs: Sequence[Node], before: Sequence[Piece], answers: Sequence[Node],
        through: list[Node],
    ) -> None:  # fmt: skip
        super().__init__(apart, inputs)
        self.before, self.through, self.own = before, through, set[Node]()
        self.answers = {self.inputs[node] for node in answers}
        if before:
            for one in apart.elements_of(answers[len(before) - 1]):
                self.name(one)

    def given(self, node: Node) -> bool:
        return super().given(node) or any(node in piece.own for piece in self.before)

    def defined(self, node: Node) -> str:
        kind = node.meta["val"].dtype
        maker = next((piece for piece in self.before if node in piece.own), None)
        if maker is None:
            name, place = super().defined(node), self.place(node)
            here = place is None or place[0] in self.answers
            if node in self.wide and here and node.target is not product:
                self.own.add(node)
            return name
        if node not in self.through:
            self.through.append(node)
            maker.stores.append(f"keep(here, {self.through.index(node)}, {maker.names[node]});")
        self.wide.add(node)
        return self.line(self.turn, kind, f"kept<{VECTOR[kind]}>(here, {self.through.index(node)})")

    def loaded(self, node: Node, place: tuple[int, int, int], kind: torch.dtype) -> str:
        which, offset, each = place
        if not each:
            return super().loaded(node, place, kind)
        self.wide.add(node)
        text = f"take<{VECTOR[kind]}, {each}>(p{which} + {offset} + i * {each}, many)"
        return self.line(self.turn, kind, text)

    def give(self, node: Node, which: int, who: str = "", row: int = 0) -> None:
        """A tensor into memory; of some samples, if it is said whose; as a row of its like."""
        value = node.meta["val"]
        shape, kind = tuple(value.shape), value.dtype
        axis = self.apart.along(shape)
        if axis is None:
            raise Unsuited("what all samples share, from turn to turn")
        sizes = [1 if d == axis else n for d, n in enumerate(shape)]
        spots = np.arange(math.prod(sizes)).reshape(sizes)  # the elements of one sample
        each = math.prod(sizes[axis:])
        for one, spot in zip(self.apart.elements_of(node), spots.flat, strict=True):
            before, behind = divmod(row * spots.size + int(spot), each)
            place = f"p{which} + {before * each} * count + {behind} + i * {each}"
            text = self.value(one, kind)
            if who:
                text = f"choose({who}, {text}, take<{VECTOR[kind]}, {each}>({place}, many))"
            self.stores.append(f"give<{each}>({place}, {text}, many);")

    def function(self, number: int, kinds: Sequence[torch.dtype], live: str) -> str:
        """live: who goes on; of a piece that knows it."""
        known = [MEMORY[kind] for kind in kinds]
        return "\n".join((
            f'extern "C" bool piece{number}(int64_t begin, int64_t end, int64_t count, '
            "void **memory, char *kept_) {",
            *(f"{c} *p{k} = ({c} *)memory[{k}];" for k, c in enumerate(known)),
            *self.shared,
            "M some = {};",
            "for (int64_t i = begin; i < end; i += LANES) {",
            "const int many = end - i < LANES ? end - i : LANES;",
            f"char *here = kept_ + i / LANES * {WIDEST * len(self.through)};",
            *self.turn,
            *self.stores,
            f"EACH if (l < many) some[l] |= {live}[l];" if live else "",
            "}",
            "return any(some);",
            "}",
        ))  # fmt: skip


class Recorded(NamedTuple):
    """A turn with the answers of f as its last inputs: what f is asked, t and x, and what the turn gives."""

    graph: Graph
    inputs: list[Node]
    asked: list[Node]
    state: list[Node]
    rest: list[Node]


def _recorded(turn: Turn, at: Sequence[Tensor], fixed: Sequence[Tensor | None]) -> Recorded:
    """turn(rate, at, fixed) -> (the state, what is beside it), of flat lists."""
    from torch.func import functionalize
    from torch.fx.experimental.proxy_tensor import make_fx

    given, calls = [v for v in (*at, *fixed) if v is not None], list[Tensor]()

    def noted(t: Tensor, x: Tensor) -> Tensor:
        calls.append(x)
        return torch.zeros_like(x)

    def whole(*inputs: Tensor) -> list[Tensor]:
        known, answers, asked = iter(inputs), iter(inputs[len(given) :]), list[Tensor]()

        def rate(t: Tensor, x: Tensor) -> Tensor:
            asked.extend((t, x))
            return next(answers)

        old = [next(known) for _ in at]
        state, rest = turn(rate, old, [None if v is None else next(known) for v in fixed])
        return [*asked, *state, *rest]

    with torch.no_grad():
        turn(noted, at, fixed)
        record = make_fx(functionalize(whole), decompositions(), "fake", _allow_non_fake_inputs=True)
        graph = record(*given, *map(torch.zeros_like, calls)).graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    (found,) = next(node.args for node in graph.nodes if node.op == "output")
    begin, end = 2 * len(calls), 2 * len(calls) + len(at)
    return Recorded(graph, inputs, found[:begin], found[begin:end], found[end:])


_HOLDERS: Any = getattr(torch._C, "_storage_Use_Count", None)
_TOUCHED = attrgetter("requires_grad", "_version", "__dict__")


class Room:
    """Memory for what f is asked in a turn, which the next turn may have if f has left it as it was.

    To make it anew takes as long as all that is done in it.
    """

    def __init__(self, calls: int, sizes: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> None:
        self.blocks = [torch.empty((calls, *shape), dtype=kind, device="cpu") for shape, kind in sizes]
        self.pointers = [block.data_ptr() for block in self.blocks]
        self.storages = [block.untyped_storage() for block in self.blocks]
        self.rows = list(zip(*(block.unbind() for block in self.blocks), strict=True))
        self.tensors = [x for row in self.rows for x in row]
        self.usual = self.holders()
        self.untouched: list[Any] = [(False, 0, {})] * len(self.tensors)

    def holders(self) -> list[int]:
        """How many hold the memory, views and arrays too, and each of its tensors."""
        blocks = [_HOLDERS(s._cdata) for s in self.storages] if _HOLDERS else []
        return [*map(sys.getrefcount, self.tensors), *blocks]

    def wanted(self) -> bool:
        """Whether f has kept a part of it, or has made something else of one; also where nobody can tell."""
        if _HOLDERS is None or torch.is_inference_mode_enabled() or self.holders() != self.usual:
            return True
        return list(map(_TOUCHED, self.tensors)) != self.untouched


class Around:
    """A turn in pieces, for any number of samples; recorded with CLEAR of them."""

    def __init__(self, turn: Turn, at: Sequence[Tensor], fixed: Sequence[Tensor | None]) -> None:
        graph, inputs, asked, state, rest = _recorded(turn, at, fixed)
        apart = Apart(graph, CLEAR, inputs[0].meta["val"].fake_mode, MOST)
        apart.columns()
        times, states = asked[::2], asked[1::2]
        self.calls, self.inputs = len(times), len(inputs)
        answers = inputs[len(inputs) - self.calls :]
        self.made = [(tuple(v.shape), v.dtype) for v in (n.meta["val"] for n in (times[0], states[0], *rest))]
        pieces, through = list[Piece](), list[Node]()
        for k in range(self.calls + 1):
            pieces.append(Piece(apart, inputs, tuple(pieces), answers, through))
            if k < self.calls:
                pieces[k].give(times[k], len(inputs), row=k)
                pieces[k].give(states[k], len(inputs) + 1, row=k)
        last = pieces[-1]
        before, live = (last.name(apart.elements_of(nodes[LIVE])[0]) for nodes in (inputs, state))
        for k, node in enumerate(state):
            last.give(node, k)
        for k, node in enumerate(rest, len(inputs) + 2):
            last.give(node, k, before)
        kinds = [node.meta["val"].dtype for node in inputs] + [kind for _, kind in self.made]
        functions = [p.function(k, kinds, live if p is last else "") for k, p in enumerate(pieces)]
        made = library("\n".join((prelude(), *functions)))
        self.pieces = [getattr(made, f"piece{k}") for k in range(len(pieces))]
        for piece in self.pieces:
            piece.restype = ctypes.c_bool
        self.through = WIDEST * len(through)

    def __call__(
        self, rate: Rate, at: Sequence[Tensor], fixed: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The state when nobody is live any more, and what is beside it."""
        state = [v.clone(memory_format=torch.contiguous_format) for v in at]
        known, n = [*state, *(v.contiguous() for v in fixed)], len(at[LIVE])
        sizes = [(tuple(n if m == CLEAR else m for m in shape), kind) for shape, kind in self.made]
        rest = [torch.zeros(shape, dtype=kind, device="cpu") for shape, kind in sizes[2:]]
        through = torch.empty(-(-n // LANES) * self.through, dtype=torch.uint8, device="cpu")
        memory = (ctypes.c_void_p * (self.inputs + len(sizes)))()
        memory[: len(known)] = [v.data_ptr() for v in known]
        memory[self.inputs + 2 :] = [v.data_ptr() for v in rest]
        passes = [self._pass(piece, n, memory, through) for piece in self.pieces]
        room, going = None, True
        while going:
            if room is None or room.wanted():
                room = Room(self.calls, sizes[:2])
                memory[self.inputs], memory[self.inputs + 1] = room.pointers
            answers = []
            for k, ((t, x), before) in enumerate(zip(room.rows, passes, strict=False), len(known)):
                before()
                answers.append(rate(t, x).resolve_neg().contiguous())
                memory[k] = answers[-1].data_ptr()
            going = passes[-1]()
            del t, x, answers
        return state, rest

    def _pass(self, piece: Any, n: int, memory: Any, through: Tensor) -> Callable[[], bool]:
        """All samples through a piece: whether one is live still."""
        workers = max(min(torch.get_num_threads(), n // SHARE), 1)
        ends = [n * k // workers // LANES * LANES for k in range(workers)] + [n]
        given = ctypes.c_int64(n), memory, ctypes.c_void_p(through.data_ptr())
        parts = [(*map(ctypes.c_int64, span), *given) for span in pairwise(ends)]
        if workers == 1:
            return partial(piece, *parts[0])
        pool = threads(workers)  # ctypes lets go of the interpreter
        return lambda: True in [job.result() for job in [pool.submit(piece, *part) for part in parts]]


Made = dict[Hashable, Around]
_RECORDING = RLock()  # torch records one thing at a time


def around(made: Made, key: Hashable, turn: Callable[..., Any], rate: Rate, at: Any, *fixed: Any) -> Any:
    """As `steps.turned`, of turn(rate, at, *fixed), all of which is recorded but f, for which rate stands.

    What the turn gives beside the state is a sequence of tensors.

    made: what was recorded before, by key and the shapes of what a turn is given. Numbers and tensors that
    the turn takes from elsewhere are recorded as they are.

    Raises:
        Unsuited: the turn is not elementwise over samples.  ArgumentError: no C++ compiler.
    """
    state, beside = leaves(at), leaves(fixed)
    batch = len(state[LIVE])
    if any(v.shape[:1] != (batch,) for v in state):
        raise Unsuited("a state that is not of each sample")
    asked = key, *((v.shape[1:], v.dtype) for v in state), *(_kind(v, batch) for v in beside)

    def flat(rate: Rate, state: Sequence[Tensor], beside: Sequence[Any]) -> tuple[list[Tensor], Any]:
        found, rest = turn(rate, like(at, iter(state)), *like(fixed, iter(beside)))
        return leaves(found), rest

    with _RECORDING:
        if asked not in made:
            # What is of one alone is of all; of one tensor in two places there are two.
            wide = [v.new_zeros(CLEAR, *v.shape[1:]) for v in state]
            try:
                made[asked] = Around(flat, wide, [_example(v, batch) for v in beside])
            except (ArgumentError, Unsuited):
                raise
            except Exception as error:  # of what has no elements
                raise Unsuited(f"{type(error).__name__}: {error}") from error
    state, rest = made[asked](rate, state, [v for v in beside if v is not None])
    return like(at, iter(state)), rest


def leaves(tree: Any) -> list[Any]:
    """Of tuples of tuples. (Those of torch take some times as long, which counts in a run of few steps.)"""
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, tuple) else [tree]


def like(tree: Any, new: Iterator[Any]) -> Any:
    """A tree with other leaves."""
    if not isinstance(tree, tuple):
        return next(new)
    parts = [like(part, new) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def _each(v: Tensor, batch: int) -> bool:
    """Whether every sample has its own of what does not change."""
    return batch > 1 and v.shape[:1] == (batch,)


def _example(v: Tensor | None, batch: int) -> Tensor | None:
    if v is None:
        return None
    return v.new_zeros(CLEAR, *v.shape[1:]) if _each(v, batch) else v.clone()


def _kind(v: Tensor | None, batch: int) -> Hashable:
    if v is None:
        return None
    each = _each(v, batch)
    return each, v.shape[1:] if each else v.shape, v.dtype
