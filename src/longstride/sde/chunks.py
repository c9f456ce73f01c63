"""Equal steps of an SDE, with the noise they draw, as a native loop or several in one compiled graph.

A step is a few sums around f and g. Where no gradient is asked for and f and g are of few elements a sample,
all steps up to the next that is saved are one loop over the samples in C++, noise and all. Else the sums are
fused with what f and g end with, and torch is called once for several steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..compiler import called, compiled
from ..errors import ArgumentError
from ..methods.sde import Scheme, State
from ..native.emit import Unsuited
from ..native.steps import TURNS, counts, turned
from .brownian import STEPS_H, STEPS_W, Independent, of_steps
from .course import Bound, Even, beside, scaled

Taken = tuple[int, State, list[Tensor]]  # the number of the next step, the state, what is given out
EVALUATIONS = 8  # of f and g in a graph, about: more would be long to compile


def _chunk(
    scheme: Scheme,
    eq: Bound,
    shape: tuple[int, ...],
    backward: bool,
    times: Tensor,
    lengths: Tensor,
    low: Tensor,
    keys: Sequence[Tensor],
    state: State,
) -> tuple[State, list[Tensor], list[Tensor]]:
    """Steps between times [n + 1], of lengths [n], float64, n even; the state after, and x after each.

    Their noise is that of steps 2 low to 2 low + n of the keys. Its normals are given out so that they are in
    memory: else each step's code would hold all that makes them.
    """
    n, x = len(lengths), state[0]
    units = [of_steps(key, low, n // 2, shape) for key in keys]
    W, H = scaled(units[0], units[1] if scheme.area else None, lengths, backward)
    h, W = lengths.to(x), W.to(x)
    z = scheme.noise(eq.ito, beside(h, W), W, None if H is None else H.to(x))
    found = []
    for k in range(n):
        state = scheme.step(eq, times[k], times[k + 1], h[k], state, tuple(v[k] for v in z))
        found.append(state[0])
    return state, found, units


def _pair(
    at: Any, scheme: Scheme, eq: Bound, noise: tuple[int, ...], backward: bool, course: Tensor, pairs: Tensor
) -> Any:
    """Two steps, as `turned` wants them.  course [1, 6]: a, b - a, N, k, sign, low: step k of N equal ones
    from a to b comes first, and its noise is that of `low`; the next two have that of low + sign.
    """
    live, count, keys, state = at
    a, span, N, k, sign, low = course[0].unbind()
    times = a + span * (k + 2 * count + torch.arange(3)) / N
    state, *_ = _chunk(
        scheme, eq, (len(live), *noise), backward, times.to(state[0]), (span / N).expand(2),
        low.long() + sign.long() * count, keys, state,
    )  # fmt: skip
    count = count + 1
    return (live & (count < pairs), count, keys, state), ()


class Chunked(Even):
    """`Even`, with the run in loops or chunks; what they leave over, and what goes back, in single steps.

    One counter serves two steps, and so both have an even number of them and begin at an even one.

    Raises:
        ArgumentError: noise along a path; a method that wants areas of pairs of motions.
    """

    def __init__(self, name: str, scheme: Scheme, eq: Bound, x: Tensor, *course: Any) -> None:
        super().__init__(name, scheme, eq, x, *course)
        if not isinstance(self.source, Independent):
            raise ArgumentError("compile=True draws the noise of its steps: leave out brownian= or that")
        if scheme.pairs:
            raise ArgumentError(f"compile=True draws no areas of pairs, which {name} wants: leave it out")
        self.native = not (eq.differentiable and torch.is_grad_enabled())
        self.chunk = 2 * max(1, EVALUATIONS // 2 // sum(scheme.evaluations))
        self.keys = [self.source.key(use) for use in (STEPS_W, STEPS_H)[: 1 + scheme.area]]
        clock = torch.tensor(self.times, dtype=torch.float64, device=x.device)
        self.told, self.lengths = clock.to(x.dtype), clock.diff()
        self.numbers = torch.arange(self.steps, device=x.device)
        self.graph = compiled(_chunk, eq.f, name)

    def run(self, x0: Tensor) -> Iterator[Tensor]:
        if torch.is_grad_enabled() and not x0.requires_grad:
            x0 = x0.detach().requires_grad_()  # so that the first chunk is the graph of all others
        state: State = (x0,)
        n, given = 0, list[Tensor]()
        apart = max(b - a for a, b in pairwise((-1, *sorted(self.save))))
        self.native &= apart >= self.chunk  # else a graph that gives out every step is faster
        while n < self.steps:
            even = (self.steps - n if self.backward else n) % 2 == 0
            begun = self.scheme.start(self.eq, self.told[0], x0) if even and n == 0 else state
            found = self._several(n, begun) if even else None
            if found:
                n, state, given = found
            else:
                kept, seen = self.look(n, (state, ()))
                n, state, given = n + 1, tuple(kept[0]), list(seen)
            yield from given

    def _several(self, n: int, state: State) -> Taken | None:
        if self.native:
            try:
                return self._looped(n, state)
            except Unsuited:
                self.native = False
        return self._chunk(n, state)

    def _chunk(self, n: int, state: State) -> Taken | None:
        """A chunk; None where fewer steps are left."""
        end = n + self.chunk
        if end > self.steps:
            return None
        low = self.numbers[(self.steps - end if self.backward else n) // 2]
        state, found, _ = called(
            self.graph, "f or g", self.scheme, self.eq, self.source.shape, self.backward,
            self.told[n : end + 1], self.lengths[n:end], low, self.keys, state,
        )  # fmt: skip
        return end, state, [x for k, x in enumerate(found, n) if k in self.save]

    def _looped(self, n: int, state: State) -> Taken | None:
        """A loop to the next step that is saved; None where that comes at once.

        Raises:
            Unsuited: steps are no loop.
        """
        saved = next(k for k in range(n, self.steps) if k in self.save) + 1
        pairs = (min(saved, self.stretches.ends[self.stretches.stretch(n) + 1]) - n) // 2
        if not pairs:
            return None
        low, sign = (n // 2, 1) if not self.backward else ((self.steps - n) // 2 - 1, -1)
        a, b, N, k = self.stretches.course(n)
        (x, *_), t = state, self.told[n]
        idle = not any(counts(h, h, t, x) for h in (self.eq.f, self.eq.g))
        for first in range(0, pairs, TURNS):
            course = [[a, b - a, N, k + 2 * first, sign, low + sign * first]]
            live, count = torch.ones(len(x), dtype=torch.bool), torch.zeros((), dtype=torch.int64)
            (*_, state), _ = turned(
                self.eq.f, _pair, (live, count, self.keys, state), self.scheme, self.eq,
                self.source.shape[1:], self.backward, torch.tensor(course, dtype=torch.float64),
                torch.tensor([min(TURNS, pairs - first)]), idle=idle,
            )  # fmt: skip
        end = n + 2 * pairs
        return end, state, [state[0]] if end - 1 in self.save else []
