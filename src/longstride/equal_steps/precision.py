"""A state in float64 whose nonlinear part is worked out in float32."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..problem import ODE
from .bound import BoundField, Call

HALVES = {torch.float64: torch.float32, torch.complex128: torch.complex64}


def half(x: Tensor) -> Tensor:
    """In half the digits, if it has twice those of float32."""
    return x.to(HALVES.get(x.dtype, x.dtype))


def mixed(problem: ODE) -> ODE:
    """The same problem, f evaluated in half the digits of a state of float64 or complex128.

    Rounding a state costs eps |x| in every step, whose number grows as 1/h; rounding f costs h eps |f|, whose
    sum does not. So the second is affordable: transforms and products in float32, the linear part, the
    weights and the sums in float64. f is then known to about 1e-7 of its size, and so is x.
    """
    return replace(problem, f=(Bindable if getattr(problem.f, "bind", None) else Halved)(problem.f))


@dataclass(frozen=True)
class Halved:
    """f of a state in half its digits, given out in all of them."""

    f: Any

    def __call__(self, t: Tensor, x: Any) -> Any:
        found = self.f(half(t) if t.ndim else t, tree_map(half, x))
        return tree_map(lambda rate, like: rate.to(like.dtype), found, x)


class Bindable(Halved):
    """The same of an f that can be bound to buffers."""

    def bind(self, x: Tensor, folded: bool) -> BoundHalved:
        return BoundHalved(self.f.bind, x, folded)


class BoundHalved:
    """See `longstride.equal_steps.bound`: a conversion before, and one behind."""

    def __init__(self, bind: Callable[[Tensor, bool], BoundField], like: Tensor, folded: bool) -> None:
        self.inner, self.dtype = bind(half(like), folded), like.dtype
        self.argument = self.inner.buffer()  # for all evaluations, each read at once
        self.f: Tensor | None = None
        scale = self.inner.scale
        self.scale = None if scale is None else scale.to(like.dtype if scale.is_complex() else torch.float64)

    def buffer(self) -> Tensor:
        return self.inner.buffer().to(self.dtype)

    def calm(self) -> AbstractContextManager[None]:
        return self.inner.calm()

    def evaluation(self, x: Tensor, out: Tensor | None = None) -> tuple[Tensor, Call]:
        argument = self.argument
        f, evaluate = self.inner.evaluation(argument, self.f)
        self.f = f
        out = f.to(self.dtype, copy=True) if out is None else out

        def call() -> None:
            argument.copy_(x)
            evaluate()
            out.copy_(f)

        return out, call
