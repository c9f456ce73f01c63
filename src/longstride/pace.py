"""Equal steps of a method on a problem: the weights are written once, whatever the number of steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .core import Step, Weight
from .errors import ArgumentError
from .matrix import Matrix
from .methods import get
from .methods.base import Method
from .problem import ODE

STEPS = 64  # of a start, at most: no method's history is as long


class Pace:
    """The steps of a method with a step size of h, times counted from the beginning of each step.

    starting: the first steps, while a history grows.  steady: every later one.

    The weights are made of L in float64 on the CPU, then brought to the precision and the device of the
    state. (A step is steady if the next one has the same weights.)
    """

    def __init__(self, problem: ODE, method: Method, h: float, like: Tensor) -> None:
        self.method, self.h = method, h
        operator = problem.operator(method.exponential)
        written: list[Step] = []
        while len(written) < STEPS:
            n = len(written)
            times = [h * (i - n) for i in range(n + 2)]
            written.append(method.step(times, n, operator))
            if n > len(method.start) and _same(written[-2], written[-1]):
                break
        else:
            raise ArgumentError(f"method {method.name}: its weights differ from step to step; give it a plan")
        *starting, steady, _ = [_beside(step, like) for step in written]
        self.starting, self.steady = tuple(starting), steady

    def step(self, n: int) -> Step:
        """Step n, from 0."""
        return self.starting[n] if n < len(self.starting) else self.steady

    def nfe(self, n: int) -> int:
        """Evaluations of n steps."""
        first = self.starting[:n]
        return sum(step.nfe for step in first) + (n - len(first)) * self.steady.nfe


def pace(problem: ODE, name: str, h: float, like: Tensor, **options: Any) -> Pace:
    """Of a registered method, on states like this one."""
    method = get(name, **options)
    if method.diffusion:
        raise ArgumentError(f"method {name!r} samples diffusions: use ls.sample, or another method")
    return Pace(problem, method, h, like)


def _same(one: Step, other: Step) -> bool:
    if (one.keep_x, one.keep_f, len(one.stages)) != (other.keep_x, other.keep_f, len(other.stages)):
        return False
    return all(
        len(a.terms) == len(b.terms)
        and all(v[:2] == w[:2] and _close(v[2], w[2]) for v, w in zip(a.terms, b.terms, strict=True))
        for a, b in zip(one.stages, other.stages, strict=True)
    )


def _close(v: Weight, w: Weight) -> bool:
    a, b = (torch.as_tensor(one.value if isinstance(one, Matrix) else one) for one in (v, w))
    return bool(torch.allclose(a, b, rtol=1e-9, atol=1e-12))


def _beside(step: Step, x: Tensor) -> Step:
    def moved(w: Weight) -> Weight:
        if isinstance(w, Matrix):
            return w.beside(x)
        if not isinstance(w, Tensor):
            return w
        return w.to(x.device, x.dtype if w.is_complex() else x.dtype.to_real())

    return replace(step, stages=tuple(
        replace(g, x=tuple(map(moved, g.x)), f=tuple(map(moved, g.f))) for g in step.stages
    ))  # fmt: skip
