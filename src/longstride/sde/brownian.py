"""Brownian motion as a function of (seed, sample, time): increments and time integrals, many at once.

Numbers come from a hash of (seed, sample, counter) as whole numbers, and a Box-Muller transform: any of them
can be had without those before it, for all samples in one go, on any device. What a step of an SDE needs of
the motion W on [a, b], h = b - a, is

    W_ab = W(b) - W(a),        H_ab = (1/h) int_a^b (W(s) - W(a)) ds - W_ab/2

two independent normals of variance h and h/12; H is the space-time Levy area. Run backward in time W_ab
changes its sign and H_ab does not. Levy's area of two motions, A_ij = (1/2) int (W_i dW_j - W_j dW_i) with
W counted from a on, changes its sign too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, finite
from ..noise import seed_of

DEPTH = 30  # times are whole multiples of a span's 2^-30
LEVELS, STEPS_W, STEPS_H, FIELDS, STEPS_A = range(5)  # what the numbers of a seed are for
GOLDEN, BITS32 = 0x9E3779B97F4A7C15 - 2**64, 2**32 - 1
MIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
AT_ONCE = 2**16  # numbers: what is drawn at once fits into a cache


def _mixed(z: Tensor) -> Tensor:
    """Each 64-bit word to another, one to one: the output function of SplitMix64 (Steele et al. 2014)."""
    for shift, factor in MIX:
        z = ((z >> shift).bitwise_and_(2 ** (64 - shift) - 1)).bitwise_xor_(z).mul_(factor)
    return ((z >> 31).bitwise_and_(2**33 - 1)).bitwise_xor_(z)


def _word(value: int) -> int:
    """A whole number modulo 2^64, as torch holds it."""
    value &= 2**64 - 1
    return value - 2**64 if value >> 63 else value


def keys(seed: int, use: int, samples: int, device: torch.device | None = None) -> Tensor:
    """[samples]: a word of each sample's own."""
    start = torch.tensor(_word(seed * 8 + use), device=device)
    return _mixed(_mixed(start * GOLDEN) + torch.arange(1, samples + 1, device=device) * GOLDEN)


def normals(key: Tensor, counter: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit normals in float64 for each counter of each key, which broadcast: Box and Muller's."""
    bits = _mixed(_mixed(counter * GOLDEN) + key)
    radius = ((bits >> 32).bitwise_and_(BITS32)).double().add_(0.5).mul_(2.0**-32)
    radius = radius.log_().mul_(-2).sqrt_()
    angle = bits.bitwise_and_(BITS32).double().mul_(2 * math.pi * 2.0**-32)
    return angle.cos().mul_(radius), angle.sin_().mul_(radius)


def of_steps(key: Tensor, low: int | Tensor, pairs: int, shape: tuple[int, ...]) -> Tensor:
    """Unit normals of steps 2 low to 2 (low + pairs), [2 pairs, *shape]: one counter serves two steps."""
    size = math.prod(shape[1:])
    counter = (torch.arange(pairs * size, device=key.device) + low * size).view(-1, 1, size)
    return torch.stack(normals(key[:, None], counter), 1).view(-1, *shape)


@dataclass(frozen=True)
class Independent:
    """Increments of steps that follow each other, drawn one by one: for steps chosen before the run.

    shape: (B, *shape of a sample's noise). Step k of sample i gets the same unit normals whatever the batch
    and the method. They do not refine: for that there is `Brownian`.
    """

    shape: tuple[int, ...]
    seed: int
    device: torch.device | None = None

    def increments(self, a: int, b: int, area: bool) -> tuple[Tensor, Tensor | None]:
        """Unit normals of steps a to b, [b - a, *shape]: those of W and, if asked, those of H."""
        return self._drawn(STEPS_W, a, b), self._drawn(STEPS_H, a, b) if area else None

    def areas(self, a: int, b: int, W: Tensor, H: Tensor, h: Tensor) -> Tensor:
        """A [b - a, B, m, m] of steps a to b of length h [b - a, 1, 1], given their W and H [b - a, B, m].

        A normal of A's mean and variance given W and H, H_i W_j - W_i H_j and h^2/20 + h (H_i^2 + H_j^2)/5
        (Foster and Habermann 2023). So A has its variance h^2/4, and is uncorrelated with W.
        """
        (batch, m), A = self.shape, known(W, H)
        if m == 1:
            return A
        i, j = torch.triu_indices(m, m, 1, device=self.device)
        z = replace(self, shape=(batch, len(i)))._drawn(STEPS_A, a, b)
        z = z * (h * h / 20 + h / 5 * (H[..., i].square() + H[..., j].square())).sqrt()
        A[..., i, j] += z
        A[..., j, i] -= z
        return A

    def key(self, use: int) -> Tensor:
        """[B]: the words of what numbers are for."""
        return keys(self.seed, use, self.shape[0], self.device)

    def _drawn(self, use: int, a: int, b: int) -> Tensor:
        low = a // 2
        both = of_steps(self.key(use), low, (b + 1) // 2 - low, self.shape)
        return both[a - 2 * low : b - 2 * low]


@dataclass(frozen=True)
class Brownian:
    """A Brownian path of each sample over span = (low, high): the same at any refinement, batch or device.

        path = ls.Brownian((64, 1), span=(0.0, 1.0), seed=0)
        ls.solve(problem, x0, t=(0.0, 1.0), dt=0.01, brownian=path);  W, H = path(0.0, 1.0)

    White noise is expanded in wavelets that are orthogonal to constants and to lines. The two normals of the
    whole span are its W and H; each halving adds two for every interval, with the path they make in it

        sqrt(d)/4 (3 p^2 - 2 p) Z  +- sqrt(3 d)/2 p (1 - p) N,        p = 1 - |2 theta - 1|

    d its length, theta the place in it, + in its left half. Both vanish at the ends of the interval and so do
    their integrals, so that W(t) and int W have one interval of each level to ask, all levels at once. It is
    the midpoint rule for (W, H) of Foster and Jelincic's tree (Jelincic, Foster and Kidger 2024), added up.

    Times are rounded to 2^-30 of the span; a path is exact in law at these. The time that is a multiple of
    2^-k costs k levels, any other 30.

    Args:
        shape: (B, *noise): as many samples as x0, and the shape of g's noise in one sample.
    """

    shape: tuple[int, ...]
    span: tuple[float, float]
    seed: int = 0
    device: torch.device | None = None

    def __post_init__(self) -> None:
        low, high = (finite("span", s) for s in self.span)
        if not low < high:
            raise ArgumentError(f"span = {self.span}: it is (low, high), low < high")
        object.__setattr__(self, "seed", seed_of(self.seed))
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def unit(self) -> float:
        """The length of the shortest interval."""
        return math.ldexp(self.span[1] - self.span[0], -DEPTH)

    def place(self, t: Sequence[float] | Tensor) -> Tensor:
        """Times as whole multiples of the unit, int64.

        Raises:
            ArgumentError: a time outside the span.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=self.device)
        place = ((t - self.span[0]) / self.unit).round().long()
        if place.numel() and not 0 <= int(place.min()) <= int(place.max()) <= 2**DEPTH:
            raise ArgumentError(f"t = {t.tolist()} leaves the span {self.span} of the Brownian path")
        return place

    def time(self, places: Tensor) -> Tensor:
        """The times of places, float64."""
        return places.double().mul_(self.unit).add_(self.span[0])

    def __call__(self, a: float | Tensor, b: float | Tensor) -> tuple[Tensor, Tensor]:
        """W and H on [a, b], [*shape] in float64; a and b: numbers, or one for each sample [B]."""
        ends = [self.place(torch.as_tensor(t, dtype=torch.float64)).expand(self.shape[0]) for t in (a, b)]
        W, H = self.between(torch.stack(ends))
        return W[0], H[0]

    def between(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """W and H [n, *shape] of the intervals between places [n + 1, B or 1] that follow each other."""
        return self.changes(places, *self.at(places))

    def areas(self, places: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        """W [n, B, m] and A [n, B, m, m] of intervals between places [n + 1, 1], from so many parts of each.

        Chen's relation adds up the parts; of each part alone A is its mean given W and H. What that leaves
        out has a variance of h^2/(12 parts).
        """
        n, lengths = len(places) - 1, places.diff(dim=0)
        inner = places[:-1] + lengths * torch.arange(parts, device=places.device) // parts
        W, H = self.between(torch.cat([inner.view(-1, 1), places[-1:]]))
        W, H = (v.view(n, parts, *self.shape) for v in (W, H))
        before = W.cumsum(1) - W
        return W.sum(1), known(W, before / 2 + H).sum(1)

    def changes(self, places: Tensor, W: Tensor, J: Tensor) -> tuple[Tensor, Tensor]:
        """The same from what `at` says of the places. Of an interval of length 0 both are 0."""
        h = places.diff(dim=0).double().mul_(self.unit)
        h, change = h.view(*h.shape, *(1,) * (len(self.shape) - 1)), W.diff(dim=0)
        return change, (J.diff(dim=0) - W[:-1] * h) / torch.where(h == 0, 1.0, h) - change / 2

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """W and its integral from `low` on, [n, *shape], at places [n, B or 1]."""
        length, levels = self.span[1] - self.span[0], DEPTH - _zeros(places)
        numbers = math.prod(self.shape)
        parts = [self._at(part, levels) for part in places.split(max(1, AT_ONCE // (numbers * (levels + 1))))]
        W, J = (torch.cat(part).view(-1, *self.shape) for part in zip(*parts, strict=True))
        return W.mul_(length**0.5), J.mul_(length**1.5)

    def _at(self, places: Tensor, levels: int) -> tuple[Tensor, Tensor]:
        """[n, B, size], of a span of length 1."""
        W, J = _added(_root(places.double() * 2.0**-DEPTH), self._normals(torch.zeros_like(places)))
        each = max(1, AT_ONCE // W.numel())
        for first in range(0, levels, each):
            level = torch.arange(first, min(first + each, levels), device=places.device).view(-1, 1, 1)
            rest = DEPTH - level
            theta, width = (places & ((1 << rest) - 1)).double() / (1 << rest), 0.5 ** level.double()
            rises = _added(_wavelets(theta, width), self._normals((places >> rest) + (1 << level)))
            for w, j in zip(*rises, strict=True):  # in one order, whatever the batch
                W, J = W.add_(w), J.add_(j)
        return W, J

    def _normals(self, node: Tensor) -> tuple[Tensor, Tensor]:
        size = math.prod(self.shape[1:])
        counter = node[..., None] * size + torch.arange(size, device=node.device)
        return normals(self._keys, counter)

    @cached_property
    def _keys(self) -> Tensor:
        return keys(self.seed, LEVELS, self.shape[0], self.device)[:, None]


def known(W: Tensor, H: Tensor) -> Tensor:
    """H_i W_j - W_i H_j: the mean of A_ij = (1/2) int (W_i dW_j - W_j dW_i) over a step, given W and H."""
    one = H[..., :, None] * W[..., None, :]
    return one - one.mT


def _zeros(places: Tensor) -> int:
    """How often all of them can be halved, DEPTH at most."""
    lowest = torch.where(places == 0, 2**DEPTH, places & -places)
    return min(DEPTH, int(lowest.min()).bit_length() - 1) if places.numel() else DEPTH


Pairs = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def _added(weights: Pairs, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """W and its integral from weights [..., B or 1] of two normals [..., B, size]."""
    (z_w, n_w), (z_j, n_j) = weights
    Z, N = pair
    W, J = ((z[..., None] * Z).add_(n[..., None] * N) for z, n in ((z_w, n_w), (z_j, n_j)))
    return W, J


def _root(theta: Tensor) -> Pairs:
    """Weights of the two normals of a span of length 1: in W, and in its integral."""
    square = theta * theta
    return (theta, 3**0.5 * (theta - square)), (square / 2, 3**0.5 * (square / 2 - square * theta / 3))


def _wavelets(theta: Tensor, d: Tensor) -> Pairs:
    """Those of an interval of length d within a span."""
    sign = torch.where(theta < 0.5, 1.0, -1.0)
    p, root = 1 - (2 * theta - 1).abs(), d.sqrt()
    square, long = p * p, d * d.sqrt()
    in_W = root / 4 * (3 * square - 2 * p), sign * (0.75**0.5 * root) * (p - square)
    return in_W, (
        sign * (long / 8) * (square * p - square),
        0.1875**0.5 * long * (square / 2 - square * p / 3),
    )
