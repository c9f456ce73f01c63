"""What a nonlinear part does at each point, as a loop in C along the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from ..columns import Apart
from ..native.emit import VECTOR, Block, Unsuited
from ..native.steps import decompositions


class Points(Block):
    """Elements at LANES points from i on, of fields that lie in W, each from a place of `begins` on."""

    def __init__(self, apart: Apart, inputs: Sequence[Node], begins: Sequence[int]) -> None:
        super().__init__(apart, inputs)
        self.begins = begins

    def loaded(self, node: Node, place: tuple[int, int, int], kind: torch.dtype) -> str:
        which, offset, _ = place
        self.wide.add(node)
        return self.line(self.turn, kind, f"load<{VECTOR[kind]}>(W + {self.begins[which] + offset} + i)")


def points(
    g: Callable[..., Any],
    shapes: Sequence[tuple[int, ...]],
    begins: Sequence[int],
    ends: Sequence[int],
    dtype: torch.dtype,
) -> tuple[str, list[Tensor]]:
    """The loop that makes g of fields [*lead, n], which lie from `begins` on, and puts it from `ends` on.

    And the tensors that g has from elsewhere: the loop knows their numbers of now.

    n: a multiple of LANES, with points behind the last ones where these are fewer.

    Raises:
        Unsuited: what happens at one point hangs on others, or on numbers of its own.
    """
    n = shapes[0][-1]
    graph, mode = _recorded(g, shapes, dtype)
    apart = Apart(graph, n, mode)
    try:
        apart.columns()
    except NotImplementedError as error:
        raise Unsuited(str(error)) from error
    nodes = list(graph.nodes)
    block = Points(apart, [node for node in nodes if node.op == "placeholder"], begins)
    results: Any = next(node.args[0] for node in nodes if node.op == "output")
    results = results if isinstance(results, (tuple, list)) else (results,)
    for node, end in zip(results, ends, strict=True):
        value, found = node.meta["val"], apart.read(node)
        if (
            found is None
            or value.dtype != dtype
            or (value.shape[0], apart.along(value.shape)) != (1, value.ndim - 1)
        ):
            raise Unsuited("a result that is no field")
        for row, one in enumerate(found.flat):
            block.kept.append(f"store(W + {end + row * n} + i, {block.value(one, dtype)});")
    loop = f"for (int64_t i = 0; i < {n}; i += LANES) {{"
    text = "\n".join(("{", *block.shared, loop, *block.turn, *block.kept, "}", "}"))
    return text, [getattr(graph.owning_module, str(node.target)) for node in nodes if node.op == "get_attr"]


def _recorded(
    g: Callable[..., Any], shapes: Sequence[tuple[int, ...]], dtype: torch.dtype
) -> tuple[Graph, Any]:
    """g of fields [1, *lead, n] as operations of torch, numbers that it found elsewhere as constants."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        fields = [torch.empty(1, *shape, dtype=dtype) for shape in shapes]
    try:
        made = make_fx(torch.func.functionalize(g), decompositions(), tracing_mode="fake")(*fields)
    except Exception as error:  # g asks for numbers, or is torch's only in part: torch says so in many ways
        raise Unsuited(f"g cannot be recorded: {error}") from error
    for node in made.graph.nodes:
        if node.op == "get_attr" and shapes[0][-1] in getattr(made, node.target).shape:
            raise Unsuited("a number of each point")
    return made.graph, mode
