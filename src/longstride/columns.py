"""Graphs of states with few elements a sample, rewritten as graphs of their elements, each a column [B].

What a step does to a state [B, N, d] mixes its elements: differences of bodies, sums over a row, products
with small matrices. A compiler makes a loop for each such shape, and between two loops the state goes through
memory. Of columns everything is elementwise: all of several steps is one loop along the batch, whose vectors
are full whatever N and d are, with what lies between in registers. (Compilers of other languages call it
scalar replacement.)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map_only

from .operations import (
    APIECE,
    ARITHMETIC,
    CONSTANTS,
    LOGICAL,
    REDUCTIONS,
    TRUTHS,
    aten,
    prims,
    simpler,
    worked_in,
)  # fmt: skip
from .shapes import SHAPES, Elements, expanded, permuted, viewed

WIDE = 32  # elements of a sample's state, beyond which a compiler finds vectors within a row
MOST = 64  # elements of a sample's tensor, up to which it is taken apart

VIEWS = (viewed, expanded, permuted)  # which leave elements beside each other
PLAIN = {*ARITHMETIC, *LOGICAL, *(op for op, moved in SHAPES.items() if moved in VIEWS)}
MIXING = {
    *REDUCTIONS, *SHAPES, aten.cat.default, aten.stack.default, aten.unbind.int, aten.split.Tensor,
    aten.split_with_sizes.default,
} - PLAIN  # fmt: skip


def product(rows: Sequence[Tensor], b: Tensor) -> Tensor:
    """[K] columns of length B times b [K, N]: [B, N]."""
    return torch.stack(list(rows), 1) @ b


class Apart:
    """One graph, taken apart: `known` has the elements of what has been gone through."""

    def __init__(self, graph: Graph, batch: int, mode: Any, most: int = MOST) -> None:
        self.graph, self.batch, self.mode, self.known = graph, batch, mode, dict[Node, Any]()
        self.most = min(most, batch - 1)  # so that no sample has what looks like the batch
        self.joined, self.ready = dict[Node, Node](), dict[Any, Node]()
        self.shared = False  # whether what all samples share is taken apart as well

    def run(self) -> None:
        """Takes apart what mixes elements, and what is elementwise around it."""
        whole = self.unmixed()
        for node in list(self.graph.nodes):
            if node.op in ("placeholder", "get_attr"):
                continue
            with self.graph.inserting_before(node):
                apart = node.op == "call_function" and node not in whole
                found = self.elements(node) if apart else None
                if found is None:
                    node.args = torch.fx.map_arg(node.args, self.whole)
                    node.kwargs = torch.fx.map_arg(node.kwargs, self.whole)
                else:
                    self.known[node] = found
        self.graph.eliminate_dead_code()

    def columns(self) -> None:
        """Takes a graph apart whole: its results are known element by element.

        Raises:
            NotImplementedError: one is not.
        """
        self.shared = True
        for node in list(self.graph.nodes):
            if node.op == "get_attr":
                self.known[node] = self.listed(getattr(self.graph.owning_module, str(node.target)))
            elif node.op == "call_function":
                with self.graph.inserting_before(node):
                    found = self.elements(node)
                if found is None and self.along(getattr(node.meta.get("val"), "shape", ())) is None:
                    continue  # such as a matrix of many elements, which all samples share
                if found is None:
                    given = [tuple(a.meta["val"].shape) for a in node.all_input_nodes]
                    raise NotImplementedError(f"{node.target} of {given} is not of elements")
                self.known[node] = found

    def unmixed(self) -> set[Node]:
        """What is elementwise among operations on whole tensors alone, as activations between two layers.

        To take that apart would be to read a matrix by columns and to put it together again.
        """
        plain = {node for node in self.graph.nodes if node.target in PLAIN and self.several(node)}
        left = set[Node]()
        while plain:
            group, edge = set[Node](), [plain.pop()]
            mixed = False
            while edge:
                node = edge.pop()
                group.add(node)
                beside = {*node.all_input_nodes, *node.users}
                mixed |= any(other.target in MIXING for other in beside)
                edge += beside & plain
                plain -= beside
            if not mixed:
                left |= group
        return left

    def several(self, node: Node) -> bool:
        """Whether a sample has more than one element of it."""
        value = node.meta.get("val")
        return (
            isinstance(value, Tensor) and self.along(value.shape) is not None and value.numel() > self.batch
        )

    # What a tensor is made of

    def along(self, shape: Sequence[int]) -> int | None:
        """Which dimension is the batch, if there is one, and one alone."""
        found = [i for i, n in enumerate(shape) if n == self.batch]
        return found[0] if len(found) == 1 else None

    def small(self, value: Any) -> bool:
        """Whether a tensor is of few elements a sample."""
        if not isinstance(value, Tensor) or not all(isinstance(n, int) for n in value.shape):
            return False
        each = value.numel() // (1 if self.along(value.shape) is None else self.batch)
        return 0 < each <= self.most

    def read(self, node: Any) -> Elements | None:
        """The elements of a tensor, selected where it is a whole so far; None where there are too many."""
        if node not in self.known:
            value = node.meta.get("val")
            if not self.small(value):
                return None
            shape, axis = tuple(value.shape), self.along(value.shape)
            out = np.empty([1 if i == axis else n for i, n in enumerate(shape)], dtype=object)
            for at in np.ndindex(out.shape):
                one = node
                for i in reversed(range(len(shape))):
                    if i != axis:
                        one = self.made(aten.select.int, (one, i, at[i]))
                out[at] = one
            self.known[node] = out
        found = self.known[node]
        return found if isinstance(found, np.ndarray) else None

    def elements_of(self, node: Any) -> list[Any]:
        """The elements of a tensor that has some, in order."""
        found = self.read(node)
        assert found is not None
        return list(found.flat)

    def whole(self, node: Any) -> Node:
        """A tensor put together again, for what is not of elements."""
        if not isinstance(self.known.get(node), np.ndarray) or node.op in ("placeholder", "get_attr"):
            return node
        if self.numbers(node):
            return node  # it hangs on nothing that was taken apart
        if node not in self.joined:
            value = node.meta["val"]
            shape, axis = tuple(value.shape), self.along(value.shape)
            long = [] if axis is None else [self.batch]
            columns = [self.wide(one, long, value.dtype) for one in self.known[node].flat]
            if len(columns) == 1 and list(shape) == long:
                self.joined[node] = columns[0]
                return columns[0]
            rest = [n for i, n in enumerate(shape) if i != axis]
            rows = [self.made(aten.unsqueeze.default, (one, 0)) for one in columns]
            one = self.made(aten.reshape.default, (self.made(aten.cat.default, (rows, 0)), [*rest, *long]))
            if axis is not None:
                order = [*range(axis), len(rest), *range(axis, len(rest))]
                one = self.made(aten.permute.default, (one, order))
            self.joined[node] = one
        return self.joined[node]

    def wide(self, one: Any, long: list[int], dtype: torch.dtype) -> Node:
        if not isinstance(one, Node):
            return self.made(aten.full.default, (long, one), {"dtype": dtype})
        return one if list(one.meta["val"].shape) == long else self.made(aten.expand.default, (one, long))

    def made(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Node:
        """A node with what it will be like; one for all that ask the same."""
        key = op, repr(args), repr(kwargs)
        if key not in self.ready:
            node = self.ready[key] = self.graph.call_function(op, args, kwargs or {})
            given = tree_map_only(Node, lambda one: one.meta["val"], (args, kwargs or {}))
            with self.mode:
                node.meta["val"] = op(*given[0], **given[1])
        return self.ready[key]

    # What operations do to elements

    def elements(self, node: Any) -> Any:
        """Of an operation's result; None where it is not one of elements."""
        if node.target is operator.getitem:
            found = self.known.get(node.args[0])
            return found[node.args[1]] if isinstance(found, list) else None
        value = node.meta.get("val")
        if node.target in (aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default):
            return self.pieces(node)
        if not self.small(value) or any(arg.meta.get("val") is None for arg in node.all_input_nodes):
            return None
        if not node.all_input_nodes:
            return self.constant(node, value)
        apart = self.shared or self.along(value.shape) is not None
        if not apart and not all(map(self.numbers, node.all_input_nodes)):
            return None  # what all samples share is read where a sample meets it
        if node.target in ARITHMETIC or node.target in LOGICAL:
            return self.elementwise(node, value)
        if node.target in REDUCTIONS:
            return self.reduced(node)
        if node.target in SHAPES:
            x = self.read(node.args[0])
            return None if x is None else SHAPES[node.target](self, x, node)
        if node.target in (aten.cat.default, aten.stack.default):
            return self.together(node)
        if node.target is aten.mm.default and self.shared:
            return self.multiplied(node)
        return None

    def numbers(self, node: Any) -> bool:
        """Whether all elements are known."""
        found = self.known.get(node)
        return isinstance(found, np.ndarray) and not any(isinstance(one, Node) for one in found.flat)

    def constant(self, node: Any, value: Tensor) -> Elements | None:
        """Numbers, of which a graph is sure."""
        if node.target not in CONSTANTS:
            return None
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        axis = self.along(value.shape)
        if axis is not None and node.target is not aten.full.default:
            return None  # of the others a batch is not all alike
        with unset_fake_temporarily():
            found = node.target(*node.args, **{**node.kwargs, "device": "cpu"})
            return self.listed(found if axis is None else found.narrow(axis, 0, 1))

    def listed(self, numbers: Tensor) -> Elements:
        """The elements of a tensor that is known."""
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():
            return np.array(numbers.tolist(), dtype=object).reshape(numbers.shape)

    def elementwise(self, node: Any, value: Tensor) -> Elements | None:
        given = [self.read(a) if isinstance(a, Node) else a for a in node.args]
        if any(g is None for g in given) or any(isinstance(v, Node) for v in node.kwargs.values()):
            return None
        kind = worked_in(node, value)
        op = TRUTHS.get(node.target, node.target) if kind is torch.bool else node.target
        if kind is None or (kind is torch.bool and op in ARITHMETIC):
            return None
        if op not in APIECE:
            first = int(op is aten.where.self)  # of which the condition stays one
            for i, a in enumerate(node.args[first:], first):
                if isinstance(a, Node) and a.meta["val"].dtype is not kind:
                    given[i] = self.converted(self.known[a], kind)
        wide = [i for i, g in enumerate(given) if isinstance(g, np.ndarray)]
        tables: list[Any] = [given[i] for i in wide]
        arrays = np.broadcast_arrays(*tables)
        out = np.empty(arrays[0].shape, dtype=object)
        for at in np.ndindex(out.shape):
            args = list(given)
            for i, array in zip(wide, arrays, strict=True):
                args[i] = array[at]
            out[at] = self.applied(op, args, node.kwargs, kind, wide)
        return out

    def converted(self, x: Elements, kind: torch.dtype) -> Elements:
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        out = np.empty(x.shape, dtype=object)
        for at in np.ndindex(x.shape):
            one = x[at]
            if not isinstance(one, Node):
                exact = torch.float64 if isinstance(one, float) else None
                with unset_fake_temporarily():
                    out[at] = torch.tensor(one, dtype=exact).to(kind).item()
            elif one.meta["val"].dtype is kind:
                out[at] = one
            else:
                out[at] = self.made(prims.convert_element_type.default, (one, kind))
        return out

    def applied(self, op: Any, args: list[Any], kwargs: Any, kind: torch.dtype, wide: Sequence[int]) -> Any:
        """An operation on elements, at once where all are numbers."""
        if op is aten.where.self and not isinstance(args[0], Node):
            return args[1] if args[0] else args[2]
        if not any(isinstance(a, Node) for a in args):
            from torch._subclasses.fake_tensor import unset_fake_temporarily

            with unset_fake_temporarily():
                own = [
                    torch.tensor(a, dtype=torch.bool if isinstance(a, bool) else kind) if i in wide else a
                    for i, a in enumerate(args)
                ]
                return op(*own, **{k: v for k, v in kwargs.items() if k != "device"}).item()
        if not kwargs and (simple := simpler(op, args, wide)) is not None:
            return simple
        for i in wide:
            if not isinstance(args[i], Node):
                dtype = torch.bool if isinstance(args[i], bool) else kind
                args[i] = self.made(aten.full.default, ([], args[i]), {"dtype": dtype})
        return self.made(op, tuple(args), dict(kwargs))

    def reduced(self, node: Any) -> Elements | None:
        source, dims = node.args[0], node.args[1]
        x = self.read(source)
        dims = [dims] if isinstance(dims, int) else list(dims or [])
        shape, kind = source.meta["val"].shape, node.meta["val"].dtype
        op = REDUCTIONS[node.target]
        op = TRUTHS.get(op, op) if kind is torch.bool else op
        axes = sorted(d % len(shape) for d in dims)
        axis, keep = self.along(shape), bool(*node.args[2:3]) or bool(node.kwargs.get("keepdim", False))
        if x is None or not axes or axis in axes:
            return None
        moved = np.moveaxis(self.converted(x, kind), axes, range(len(axes)))
        moved = moved.reshape(-1, *moved.shape[len(axes) :])
        out = self.folded(op, moved, kind)
        return np.expand_dims(out, axes) if keep else out

    def folded(self, op: Any, parts: Elements, kind: torch.dtype) -> Elements:
        """What an operation on two makes of all along the first dimension, one after the other."""
        out = np.empty(parts.shape[1:], dtype=object)

        def both(a: Any, b: Any) -> Any:
            return self.applied(op, [a, b], {}, kind, (0, 1))

        for at in np.ndindex(out.shape):
            out[at] = reduce(both, [parts[(k, *at)] for k in range(len(parts))])
        return out

    def multiplied(self, node: Any) -> Elements | None:
        """Rows, one of each sample, times a matrix; of a large one the sums stay a loop, `product`."""
        (a, b), kind = node.args, node.meta["val"].dtype
        x, (inner, width) = self.read(a), b.meta["val"].shape
        if x is None or self.along(a.meta["val"].shape) != 0 or self.along((inner, width)) is not None:
            return None
        weights = self.read(b) if inner * width <= self.most else None
        if weights is None:
            rows = [self.wide(one, [self.batch], kind) for one in x.flat]
            whole = self.made(product, (rows, b))
            return np.array([[self.made(aten.select.int, (whole, 1, k)) for k in range(width)]], dtype=object)
        terms = np.empty((inner, 1, width), dtype=object)
        for i, j in np.ndindex(inner, width):
            terms[i, 0, j] = self.applied(aten.mul.Tensor, [x.flat[i], weights[i, j]], {}, kind, (0, 1))
        return self.folded(aten.add.Tensor, terms, kind)

    def together(self, node: Any) -> Elements | None:
        parts, dim = (*node.args, 0)[:2]
        shape = node.meta["val"].shape
        axis, found = dim % len(shape), [self.read(part) for part in parts]
        if any(g is None for g in found) or self.along(shape) == axis:
            return None
        given = [self.converted(g, node.meta["val"].dtype) for g in found if g is not None]
        if node.target is aten.stack.default:
            return np.stack(given, axis)
        return np.concatenate(given, axis)

    def pieces(self, node: Any) -> list[Elements] | None:
        source = node.args[0]
        dim = (*node.args, 0)[1] if node.target is aten.unbind.int else (*node.args, 0)[2]
        x = self.read(source)
        shape = source.meta["val"].shape
        axis = dim % len(shape)
        if x is None or self.along(shape) == axis:
            return None
        if node.target is aten.unbind.int:
            return [np.take(x, [i], axis).squeeze(axis) for i in range(shape[axis])]
        size = node.args[1]
        ends = np.cumsum(size)[:-1] if isinstance(size, (list, tuple)) else range(size, shape[axis], size)
        return np.split(x, list(ends), axis)


class Columns:
    """The pass over a graph: the batch is the first dimension of its largest input."""

    def __call__(self, graph: Graph) -> None:
        given = [node.meta.get("val") for node in graph.nodes if node.op == "placeholder"]
        tensors = [v for v in given if isinstance(v, Tensor) and v.ndim and isinstance(v.shape[0], int)]
        if not tensors:
            return
        largest = max(tensors, key=Tensor.numel)
        if largest.shape[0] > 1 and largest.numel() <= WIDE * largest.shape[0]:
            Apart(graph, largest.shape[0], largest.fake_mode).run()  # type: ignore[attr-defined]


@cache
def columnwise(cuda: bool) -> dict[str, Any]:
    """Of the compiler, which is imported when it is first used: that takes longer than torch itself."""
    graphs = {"triton.cudagraphs": cuda}
    try:
        from torch._inductor.custom_graph_pass import CustomGraphPass
    except ImportError:  # before torch 2.6 a pass is any function
        return {"post_grad_custom_pre_pass": Columns(), **graphs}
    # Of what compiled code is kept by: another number where what the pass does is another.
    uuid = {"uuid": lambda self: b"longstride.columns 5"}
    return {"post_grad_custom_pre_pass": type("Columns", (Columns, CustomGraphPass), uuid)(), **graphs}
