"""States that are trees of tensors, tuples, lists and dicts in any nest, carried as one tensor [B, D].

A run knows nothing of them. The leaves are laid side by side before it, f and all else that is called with a
state see the tree, and what comes back is cut up again. `torch.utils._pytree` says what a tree is: torch.func
and torch.compile use it, so whoever registered a container for these has registered it here, and optree would
be one more dependency for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from .errors import ArgumentError, SolveError
from .matrix import Matrix
from .view import View


def is_state(x: Any) -> bool:
    """Whether it is a tensor of floating or complex numbers with a batch."""
    return isinstance(x, Tensor) and x.ndim > 0 and (x.is_floating_point() or x.is_complex())


def check_state(x0: Tensor) -> None:
    """Refuses a start that is none."""
    if not is_state(x0):
        raise ArgumentError("x0 must be a tensor of floating or complex numbers, [B, ...]")


class Tree(View):
    """How the leaves [B, ...] of a state lie in [B, D].

    The tensor has the type that all leaves promote to: real ones beside complex ones are complex with
    imaginary part 0, and each comes back in its own type.

    Raises:
        ArgumentError: no leaf, a leaf that is no tensor of floating or complex numbers, or another batch.
    """

    def __init__(self, x0: Any):
        leaves, self.spec = tree_flatten(x0)
        for leaf in leaves:
            if not is_state(leaf):
                what = (leaf.dtype, tuple(leaf.shape)) if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ArgumentError(f"x0 must be tensors of floating or complex numbers, [B, ...]: {what}")
        if not leaves or len({(len(leaf), leaf.device) for leaf in leaves}) > 1:
            raise ArgumentError(
                f"the {len(leaves)} tensors of x0 must share their batch and device: "
                + ", ".join(f"{tuple(leaf.shape)}" for leaf in leaves)
            )
        self.shapes = [leaf.shape[1:] for leaf in leaves]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.dtypes = [leaf.dtype for leaf in leaves]
        self.dtype: torch.dtype = reduce(torch.promote_types, self.dtypes)
        self.batch, self.device = leaves[0].shape[:1], leaves[0].device

    @property
    def layout(self) -> str:
        """Which leaf lies where."""
        return f"{self.spec} {self.shapes} {self.dtypes}"

    def flat(self, tree: Any) -> Tensor:
        """[n, D] of leaves [n, ...].

        Raises:
            SolveError: another tree, or leaves of other shapes or types.
        """
        try:
            leaves = self.spec.flatten_up_to(tree)
            parts = [leaf.reshape(-1, size) for leaf, size in zip(leaves, self.sizes, strict=True)]
        except (ValueError, RuntimeError, AttributeError) as error:
            raise SolveError(f"a tree unlike that of x0: {error}") from error
        for leaf, shape, dtype in zip(leaves, self.shapes, self.dtypes, strict=True):
            if leaf.shape[1:] != shape or leaf.dtype != dtype:
                raise SolveError(
                    f"a leaf is {leaf.dtype}, {tuple(leaf.shape)}, where that of x0 is {dtype}, "
                    f"[B, *{tuple(shape)}]"
                )
        return torch.cat([part.to(self.dtype) for part in parts], 1)

    def nest(self, x: Tensor) -> Any:
        """The tree of x [..., D], with leaves [..., *shape]."""
        leaves = [
            (part.real if part.is_complex() and not dtype.is_complex else part)
            .to(dtype)
            .unflatten(-1, shape or (1,))
            for part, shape, dtype in zip(x.split(self.sizes, -1), self.shapes, self.dtypes, strict=True)
        ]
        whole = zip(leaves, self.shapes, strict=True)
        return self.spec.unflatten([leaf if shape else leaf[..., 0] for leaf, shape in whole])

    def half(self) -> Tree:
        """Of the first of a pair alone."""
        return Tree(
            self.nest(torch.empty(*self.batch, sum(self.sizes), dtype=self.dtype, device=self.device))[0]
        )

    def weight(self, value: Any, dtype: torch.dtype) -> Any:
        """A number or tensor for all leaves as it is, or a tree of such, each broadcast along its leaf."""
        if isinstance(value, Matrix):
            return value.within(self)
        if isinstance(value, Tensor | int | float | complex):
            return value
        try:
            given = self.spec.flatten_up_to(value)
            wide = [
                torch.as_tensor(v, dtype=dtype, device=self.device).expand(*self.batch, *shape)
                for v, shape in zip(given, self.shapes, strict=True)
            ]
        except (ValueError, RuntimeError, TypeError) as error:
            raise ArgumentError(f"a number, or a tree as x0 is: {error}") from error
        return torch.cat([v.reshape(*self.batch, size) for v, size in zip(wide, self.sizes, strict=True)], 1)

    def rate(self, f: Callable[[Tensor, Any], Any]) -> Callable[[Tensor, Tensor], Tensor]:
        """f(t, tree) -> tree, on tensors."""
        return lambda t, x: self.flat(f(t, self.nest(x)))

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tolerances are as wide as a state."""
        out = super().options(options)
        for name in {"rtol", "atol"} & out.keys():
            out[name] = self.weight(out[name], self.dtype.to_real())
        return out
