"""Randomness that depends on (seed, sample, interval) and on nothing else.

Numbers come from a counter-based generator (Philox) keyed by seed and sample, one counter for each use, in
float64 on the CPU: a sample's noise is the same bit for bit whatever the batch, the device, the dtype and
the number of threads. Brownian motion is refinable: the increments of a split step add up to the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import whole

DEPTH = 20  # halvings of an octave of Brownian time: steps may be as short as its millionth part
PRIOR, MOTION, UNIFORM, GAMMA, STEPS, PROBES = range(6)  # uses of the generator, the high word of its counter
Fill = Callable[[np.random.Generator, np.ndarray], object]


def seed_of(seed: int | torch.Generator) -> int:
    """An integer seed; from a torch Generator one is drawn, which moves the generator on.

    Raises:
        ArgumentError: neither of the two.
    """
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (), generator=seed, device=seed.device))
    return whole("seed", seed)


class Noise:
    """The randomness of samples `samples` (their indices, any subset in any order), each of `shape`."""

    def __init__(self, seed: int, samples: Sequence[int], shape: Sequence[int]):
        self.seed, self.samples, self.shape = seed, samples, tuple(shape)
        self._path: tuple[float, np.ndarray] | None = None

    def _drawn(self, fill: Fill, use: int, *counter: int) -> np.ndarray:
        """One row for each sample, which `fill` fills from the sample's own generator."""
        words = [0, *(np.uint64(c & (2**64 - 1)) for c in counter), use]
        start = np.array(words + [0] * (4 - len(words)), dtype=np.uint64)
        key = np.array([self.seed & (2**64 - 1), 0], dtype=np.uint64)
        out = np.empty((len(self.samples), math.prod(self.shape)))
        bits = np.random.Philox(key=key, counter=start)
        generator, state = np.random.Generator(bits), bits.state
        state["state"]["key"] = key
        for row, sample in zip(out, self.samples, strict=True):
            key[1] = sample
            bits.state = state  # an eighth of the time that another generator takes
            fill(generator, row)
        return out

    def _normal(self, use: int, *counter: int) -> np.ndarray:
        return self._drawn(lambda generator, row: generator.standard_normal(out=row), use, *counter)

    def uniform(self, n: int = 0) -> Tensor:
        """The n-th draw, uniform on [0, 1), [B, *shape] in float64: multiples of 2^-53."""
        drawn = self._drawn(lambda generator, row: generator.random(out=row), UNIFORM, n, 0)
        return torch.from_numpy(drawn).reshape(-1, *self.shape)

    def gamma(self, k: float) -> Tensor:
        """Gamma variables of shape k and scale 1, [B, *shape] in float64."""
        drawn = self._drawn(lambda generator, row: generator.standard_gamma(k, out=row), GAMMA, 0, 0)
        return torch.from_numpy(drawn).reshape(-1, *self.shape)

    def prior(self) -> Tensor:
        """Unit normal [B, *shape], float64."""
        return torch.from_numpy(self._normal(PRIOR, 0, 0)).reshape(-1, *self.shape)

    def probe(self, k: int) -> Tensor:
        """Unit normal [B, *shape], float64, of probe k of a trace."""
        return torch.from_numpy(self._normal(PROBES, k, 0)).reshape(-1, *self.shape)

    def step(self, k: int) -> Tensor:
        """Unit normal [B, *shape], float64, of step k of a loop whose noise is of no Brownian motion."""
        return torch.from_numpy(self._normal(STEPS, k, 0)).reshape(-1, *self.shape)

    def increment(self, a: float, b: float) -> Tensor:
        """(W(b) - W(a)) / sqrt(|b - a|), a unit normal [B, *shape] in float64; a, b > 0 Brownian times."""
        start = self._path[1] if self._path and self._path[0] == a else self._within(a)
        end = self._within(b)
        self._path = (b, end)  # the next step begins where this one ends
        change = end - start
        first, last = _octave(a), _octave(b)
        for k in range(min(first, last), max(first, last)):
            change += math.copysign(math.ldexp(1.0, k) ** 0.5, last - first) * self._rise(k)
        return torch.from_numpy(change / math.sqrt(abs(b - a))).reshape(-1, *self.shape)

    def _rise(self, octave: int) -> np.ndarray:
        """Unit normal behind W(2^(k+1)) - W(2^k)."""
        return self._normal(MOTION, octave, 1)

    def _within(self, q: float) -> np.ndarray:
        """W(q) - W(2^k), k the octave of q: Brownian bridges, each half of an interval given the whole."""
        octave = _octave(q)
        low = width = math.ldexp(1.0, octave)
        value = np.zeros((len(self.samples), math.prod(self.shape)))
        if q == low:
            return value
        rise = math.sqrt(width) * self._rise(octave)
        node = 1
        for _ in range(DEPTH):
            node, width = 2 * node, width / 2
            left = rise / 2 + math.sqrt(width / 2) * self._normal(MOTION, octave, node)
            if q < low + width:
                rise = left
                continue
            value, rise, low, node = value + left, rise - left, low + width, node + 1
            if q == low:
                return value
        share = (q - low) / width
        bend = math.sqrt(share * (1 - share) * width)
        return value + share * rise + bend * self._normal(MOTION, octave, -node)


def _octave(q: float) -> int:
    """k with 2^k <= q < 2^(k+1)."""
    return math.frexp(q)[1] - 1
