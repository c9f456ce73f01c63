"""The times of steps that are equal between turns: as many as one likes, at the memory of the turns."""

from __future__ import annotations

from bisect import bisect, bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any


@dataclass(frozen=True)
class Stretches(Sequence[float]):
    """times[0], ..., times[-1]: counts[i] equal steps from turns[i] to turns[i + 1].

    sizes: how long a step of each stretch is. Sizes that differ by no more than round-off of the times are
    one number, so that their steps share weights.
    """

    turns: tuple[float, ...]
    counts: tuple[int, ...]
    sizes: tuple[float, ...]

    @staticmethod
    def between(turns: Sequence[float], counts: Iterable[int], dt: float | None = None) -> Stretches:
        """counts[i] equal steps between two turns.  dt: the size that was asked for."""
        counts, slack = tuple(counts), 4e-16 * max(map(abs, turns))
        known = [] if dt is None else sorted((dt, -dt))
        sizes = []
        for (a, b), n in zip(pairwise(turns), counts, strict=True):
            h = (b - a) / n
            i = bisect_left(known, h)
            near = [v for v in known[max(i - 1, 0) : i + 1] if abs(v - h) <= 1e-12 * abs(h) + slack]
            sizes.append(near[0] if near else h)
            if not near:
                insort(known, h)
        return Stretches(tuple(turns), counts, tuple(sizes))

    @staticmethod
    def repeated(start: float, size: float, n: int) -> Stretches:
        """n steps of one size."""
        return Stretches((start, start + n * size), (n,), (size,))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The number of steps before each turn."""
        return tuple(accumulate(self.counts, initial=0))

    @property
    def steps(self) -> int:
        return self.ends[-1]

    def stretch(self, n: int) -> int:
        """In which stretch step n is."""
        return bisect(self.ends, n) - 1

    def course(self, n: int) -> tuple[float, float, int, int]:
        """(a, b, N, k): step n is step k of N equal ones from a to b."""
        i = self.stretch(n)
        return self.turns[i], self.turns[i + 1], self.counts[i], n - self.ends[i]

    def __len__(self) -> int:
        return self.steps + 1

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return [self[i] for i in range(*n.indices(len(self)))]
        n = range(len(self))[n]
        if n == self.steps:
            return self.turns[-1]
        a, b, N, k = self.course(n)
        return a + (b - a) * k / N
