"""Equal steps of an SDE, several in one compiled graph, with the noise they draw.

A step is a few sums around f and g. In a graph these are fused with what f and g end with, the numbers of a
step are hashed and turned into normals in one loop over the batch, and torch is called once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compiler import called, compiled
from ..errors import ArgumentError
from ..methods.sde import Scheme, State
from .brownian import STEPS_H, STEPS_W, Independent, of_steps
from .course import Bound, Even, beside, scaled

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


class Chunked(Even):
    """`Even`, with the run in chunks; what they leave over of it, and what goes back, in single steps.

    One counter serves two steps, and so a chunk has an even number of them and begins at an even one.

    Raises:
        ArgumentError: noise along a path; a method that wants areas of pairs of motions.
    """

    def __init__(self, name: str, scheme: Scheme, eq: Bound, x: Tensor, *course: Any) -> None:
        super().__init__(name, scheme, eq, x, *course)
        if not isinstance(self.source, Independent):
            raise ArgumentError("compile=True draws the noise of its steps: leave out brownian= or that")
        if scheme.pairs:
            raise ArgumentError(f"compile=True draws no areas of pairs, which {name} wants: leave it out")
        self.chunk = 2 * max(1, EVALUATIONS // 2 // sum(scheme.evaluations))
        self.first = self.steps % self.chunk if self.backward else 0
        self.keys = [self.source.key(use) for use in (STEPS_W, STEPS_H)[: 1 + scheme.area]]
        clock = torch.tensor(self.times, dtype=torch.float64, device=x.device)
        self.told, self.lengths = clock.to(x.dtype), clock.diff()
        self.numbers = torch.arange(self.steps, device=x.device)
        self.graph = compiled(_chunk, eq.f, name)

    def run(self, x0: Tensor) -> Iterator[Tensor]:
        if torch.is_grad_enabled() and not x0.requires_grad:
            x0 = x0.detach().requires_grad_()  # so that the first chunk is the graph of all others
        state: State = (x0,)
        n, size = 0, self.chunk
        while n < self.steps:
            if n < self.first or n + size > self.steps:
                kept, given = self.look(n, (state, ()))
                state = tuple(kept[0])
                yield from given
                n += 1
                continue
            if n == 0:
                state = self.scheme.start(self.eq, self.told[0], x0)
            low = self.numbers[(self.steps - n - size if self.backward else n) // 2]
            times, lengths = self.told[n : n + size + 1], self.lengths[n : n + size]
            state, found, _ = called(
                self.graph, "f or g", self.scheme, self.eq, self.source.shape, self.backward, times, lengths,
                low, self.keys, state,
            )  # fmt: skip
            yield from (x for k, x in enumerate(found, n) if k in self.save)
            n += size
