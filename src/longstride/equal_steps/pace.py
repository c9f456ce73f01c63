"""Weights of steps: written once for all steps that have the same, whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import Tensor

from ..core import Step, Weight, beside
from ..methods.base import Method
from ..operator import Linear
from ..plan import Plan
from ..problem import ODE
from .stretches import Stretches

HISTORY = 8  # steps before and behind that a step's weights may hang on: no method looks further


class Pace:
    """The steps of a method on a problem, times counted from the beginning of each step.

    A step's weights follow from the sizes of the steps around it: its own for a one-step method, HISTORY to
    either side for a multistep one, whose weights at a turn are those of unequal steps. What they follow from
    is what they are remembered by.

    like: weights are made of L in float64 on the CPU, then brought to the precision and the device of a state
    like this one; left as they are without it.  depth: how many steps to either side, where it is known.
    """

    def __init__(
        self, problem: ODE, method: Method, like: Tensor | None = None, depth: int | None = None
    ) -> None:
        self.method, self.like = method, like
        self.operator = problem.operator(method.splits)
        self.depth = depth if depth is not None else 0 if one_step(method) else HISTORY
        self.steady: dict[float, Step] = {}
        self.written: dict[tuple[int, tuple[float, ...]], Step] = {}
        self.graphs: dict[int, Callable[..., Any]] = {}  # of these steps, by id, where they are compiled
        self.bound: dict[Any, Any] = {}  # and with the shape of a state, where they are bound to buffers

    def step(self, times: Stretches, n: int) -> Step:
        """Step n, from 0."""
        i, depth = times.stretch(n), self.depth
        if times.ends[i] <= n - depth and n + depth < times.ends[i + 1]:
            h = times.sizes[i]
            if h not in self.steady:
                self.steady[h] = self._write(depth, (h,) * (2 * depth + 1))
            return self.steady[h]
        first, last = max(n - depth, 0), min(n + depth, times.steps - 1)
        sizes = tuple(times.sizes[times.stretch(m)] for m in range(first, last + 1))
        if (n - first, sizes) not in self.written:
            self.written[n - first, sizes] = self._write(n - first, sizes)
        return self.written[n - first, sizes]

    def alike(self, times: Stretches, n: int) -> int:
        """The step up to which all from n on have the weights of step n."""
        i, depth = times.stretch(n), self.depth
        steady = times.ends[i] <= n - depth and n + depth < times.ends[i + 1]
        return times.ends[i + 1] - depth if steady else n + 1

    def plan(self, times: Stretches) -> Plan:
        """All steps along times; those that are the same share their weights."""
        steps = tuple(mapped(self.step(times, n), lambda w: w, times[n]) for n in range(times.steps))
        return Plan(tuple(times), steps, {}, self.method.name, self.method.options)

    def _write(self, n: int, sizes: tuple[float, ...]) -> Step:
        ends = list(accumulate(sizes, initial=0.0))
        step = self.method.step([t - ends[n] for t in ends], n, self.operator)
        like = self.like
        return step if like is None else mapped(step, lambda w: beside(w, like))


def one_step(method: Method) -> bool:
    """Whether a step needs nothing of those before."""
    steps = [method.step([0.0, 1.0, 2.0, 3.0], n, Linear()) for n in range(2)]
    return all(len(step.keep_x) == 1 and not step.keep_f for step in steps)


def mapped(step: Step, change: Callable[[Weight], Weight], t: float = 0.0) -> Step:
    """A step with change(w) for each weight, t later."""
    stages = [
        replace(
            g, x=tuple(map(change, g.x)), f=tuple(map(change, g.f)), at=None if g.at is None else t + g.at
        )
        for g in step.stages
    ]
    return replace(step, stages=tuple(stages))
