"""What operations do to elements that they only move: views, slices, shifts, what is written in.

Each function takes x, the elements of an operation's first argument, and gives those of its result, or None
where samples would be mixed. `Apart` is the graph that is taken apart (`columns.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .operations import aten

if TYPE_CHECKING:
    from .columns import Apart

Elements = np.ndarray  # of nodes [B] or [] and numbers, shaped as the tensor with the batch 1 long


def viewed(apart: Apart, x: Elements, node: Any) -> Elements | None:
    """A view that leaves the batch as it is."""
    old, new = node.args[0].meta["val"].shape, node.meta["val"].shape
    a, b = apart.along(old), apart.along(new)
    if (a is None) != (b is None) or (a is not None and np.prod(old[:a]) != np.prod(new[:b])):
        return None
    return x.reshape([1 if i == b else n for i, n in enumerate(new)])


def expanded(apart: Apart, x: Elements, node: Any) -> Elements:
    new = node.meta["val"].shape
    return np.broadcast_to(x, [1 if i == apart.along(new) else n for i, n in enumerate(new)])


def selected(apart: Apart, x: Elements, node: Any) -> Elements | None:
    _, dim, i = node.args
    shape = node.args[0].meta["val"].shape
    return None if apart.along(shape) == dim % len(shape) else np.take(x, [i], dim).squeeze(dim)


def sliced(apart: Apart, x: Elements, node: Any) -> Elements | None:
    given: list[Any] = list(node.args[1:])
    dim, begin, end, step = given + [0, None, None, 1][len(given) :]
    shape = node.args[0].meta["val"].shape
    if apart.along(shape) == dim % len(shape):
        return None
    where = [slice(None)] * x.ndim
    where[dim] = slice(begin, end, step)
    return x[tuple(where)]


def padded(apart: Apart, x: Elements, node: Any) -> Elements | None:
    """By a number, of as many elements as a list says, from the last dimension on."""
    widths, number = node.args[1], (*node.args, 0)[2]
    sides = [(0, 0)] * (x.ndim - len(widths) // 2) + list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    axis = apart.along(node.args[0].meta["val"].shape)
    if min(widths) < 0 or (axis is not None and sides[axis] != (0, 0)):
        return None
    number = float(number) if node.meta["val"].dtype.is_floating_point else number
    return np.pad(x, sides, constant_values=np.array(number, dtype=object))


def scattered(apart: Apart, x: Elements, node: Any) -> Elements | None:
    """x with something written into a slice, or at a place along a dimension."""
    given: list[Any] = list(node.args[2:])
    dim, *where = given + [0, None, None, 1][len(given) :]
    source, axis = apart.read(node.args[1]), apart.along(node.meta["val"].shape)
    if source is None or axis == dim % x.ndim:
        return None
    at: list[Any] = [slice(None)] * x.ndim
    at[dim] = where[0] if node.target is aten.select_scatter.default else slice(*where)
    out = x.copy()
    out[tuple(at)] = source
    return out


def copied(apart: Apart, x: Elements, node: Any) -> Elements | None:
    """What is written over x."""
    source = apart.read(node.args[1])
    return (
        None if source is None else apart.converted(np.broadcast_to(source, x.shape), node.meta["val"].dtype)
    )


def indexed(apart: Apart, x: Elements, node: Any) -> Elements | None:
    """Elements at places that are known, along one dimension."""
    asked = [(d, i) for d, i in enumerate(node.args[1]) if i is not None]
    if len(asked) != 1 or not apart.numbers(asked[0][1]):
        return None
    dim, which = asked[0][0], apart.known[asked[0][1]]
    if which.ndim != 1 or apart.along(node.args[0].meta["val"].shape) == dim:
        return None
    return np.take(x, which.astype(int), dim)


def rolled(apart: Apart, x: Elements, node: Any) -> Elements | None:
    shifts, dims = node.args[1], (*node.args, [])[2]
    axis = apart.along(node.args[0].meta["val"].shape)
    if not dims or axis in [d % x.ndim for d in dims]:
        return None
    return np.roll(x, shifts, dims)


def flipped(apart: Apart, x: Elements, node: Any) -> Elements | None:
    dims = tuple(d % x.ndim for d in node.args[1])
    return None if apart.along(node.args[0].meta["val"].shape) in dims else np.flip(x, dims)


def permuted(apart: Apart, x: Elements, node: Any) -> Elements:
    return x.transpose(node.args[1])


SHAPES: dict[Any, Callable[[Apart, Elements, Any], Elements | None]] = {
    aten.view.default: viewed, aten.reshape.default: viewed, aten.clone.default: viewed,
    aten._unsafe_view.default: viewed, aten.unsqueeze.default: viewed,
    aten.squeeze.default: viewed, aten.squeeze.dim: viewed, aten.squeeze.dims: viewed,
    aten.expand.default: expanded, aten.select.int: selected, aten.slice.Tensor: sliced,
    aten.lift_fresh_copy.default: viewed, aten.slice_scatter.default: scattered,
    aten.copy.default: copied, aten.select_scatter.default: scattered,
    aten.index.Tensor: indexed,
    aten.constant_pad_nd.default: padded, aten.roll.default: rolled,
    aten.permute.default: permuted, torch.ops.prims.rev.default: flipped, aten.alias.default: viewed,
    aten.detach.default: viewed,
}  # fmt: skip
