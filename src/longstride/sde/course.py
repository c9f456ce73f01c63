"""The steps of a run of an SDE, once they are chosen: each can be taken again, or back, from the seed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..equal_steps.stretches import Stretches
from ..errors import failed
from ..gradients.transpose import Kept
from ..methods.sde import Scheme, State
from ..problem import SDE
from .brownian import AT_ONCE, DEPTH, Brownian, Independent


class Bound:
    """An SDE as its steps see it. columns: whether g is [B, ..., m], to be multiplied by W [B, m].

    differentiable: whether there is anything to go back to.  asked: evaluations that were made to see.
    """

    def __init__(self, problem: SDE, columns: bool, differentiable: bool) -> None:
        self.f, self.g, self.slope = problem.f, problem.g, problem.slope
        self.ito, self.differentiable = problem.interpretation == "ito", differentiable
        self.asked = 2 + (problem.noise == "additive")
        self.push: Callable[[Tensor, Tensor, Tensor], Tensor] = _mixed if columns else torch.addcmul


def _mixed(x: Tensor, g: Tensor, z: Tensor) -> Tensor:
    """x + g z, g [B, ..., m], z [B, m]."""
    rows, m = len(x), g.shape[-1]
    return torch.baddbmm(x.reshape(rows, -1, 1), g.reshape(rows, -1, m), z[..., None]).view(x.shape)


def beside(v: Tensor, like: Tensor) -> Tensor:
    """v with as many dimensions as `like`, the first of them its own."""
    return v.view(*v.shape, *(1,) * (like.ndim - v.ndim))


def rows(v: Tensor) -> Tensor:
    """[B, ...] as [B, D]."""
    return v.reshape(len(v), -1)


def scaled(W: Tensor, H: Tensor | None, lengths: Tensor, backward: bool) -> tuple[Tensor, Tensor | None]:
    """W and H of steps of these lengths, from unit normals: backward from the last on, W with a minus."""
    if backward:
        W, H = -W.flip(0), None if H is None else H.flip(0)
    scale = beside(lengths.abs().sqrt(), W)
    return W * scale, None if H is None else H * (scale / 12**0.5)


@dataclass(frozen=True)
class Leg:
    """One step: from s to t, its length, the noise as its scheme wants it; live: the samples that take it."""

    s: Tensor
    t: Tensor
    h: float | Tensor
    z: State
    live: Tensor | None = None


class Course(ABC):
    """Steps of a scheme on an equation, as `transpose.Steps`; noise is drawn for several of them at once.

    save: the steps after which x is given out.
    """

    states = 1

    def __init__(self, name: str, scheme: Scheme, eq: Bound, like: Tensor, steps: int, numbers: int) -> None:
        self.name, self.scheme, self.eq, self.like, self.steps = name, scheme, eq, like.detach(), steps
        self.save = frozenset({steps - 1})
        self.each = max(1, AT_ONCE // max(1, numbers))
        self.block, self.legs = -1, list[Leg]()

    def __len__(self) -> int:
        return self.steps

    @abstractmethod
    def drawn(self, a: int, b: int) -> list[Leg]:
        """Steps a to b, b not included."""

    def leg(self, n: int) -> Leg:
        if n // self.each != self.block:
            self.block = n // self.each
            first = self.block * self.each
            with torch.no_grad():
                self.legs = self.drawn(first, min(first + self.each, self.steps))
        return self.legs[n % self.each]

    def step(self, n: int, kept: Kept) -> Kept:
        """What step n makes of the state before it; the first one begins with x alone.

        Raises:
            SolveError: what f or g raised, with method, step and time.
        """
        leg, state = self.leg(n), tuple(kept[0])
        try:
            if n == 0:
                state = self.scheme.start(self.eq, leg.s, *state)
            out = self.scheme.step(self.eq, leg.s, leg.t, leg.h, state, leg.z)
        except Exception as error:
            raise failed(self.where(n), error) from error
        if leg.live is not None:
            out = tuple(
                torch.where(beside(leg.live, new), new, old) for new, old in zip(out, state, strict=True)
            )
        return out, ()

    def look(self, n: int, kept: Kept) -> tuple[Kept, Sequence[Tensor]]:
        out = self.step(n, kept)
        return out, out[0][:1] if n in self.save else ()

    def run(self, x0: Tensor) -> Iterator[Tensor]:
        """What is given out of a run from x0, one after the other."""
        kept: Kept = ((x0,), ())
        for n in range(len(self)):
            kept, given = self.look(n, kept)
            yield from given

    def where(self, n: int) -> str:
        return f"method {self.name}, step {n + 1} of {self.steps}, t = {float(self.leg(n).s.min()):.6g}"

    def undone(self, state: State) -> Iterator[tuple[int, Kept]]:
        """(n, state before step n) for falling n from the state at the end, by steps of a reversible one."""
        for n in reversed(range(self.steps)):
            leg = self.leg(n)
            with torch.no_grad():
                state = self.scheme.step(self.eq, leg.t, leg.s, -leg.h, state, tuple(-z for z in leg.z))
            yield n, (state if n else state[:1], ())

    def legs_of(
        self,
        times: Sequence[Tensor],
        steps: Sequence[Any],
        lengths: Tensor,
        noise: tuple[Tensor, Tensor | None],
        live: Sequence[Tensor | None],
    ) -> list[Leg]:
        """Legs between times, with the noise that the scheme makes of W and H [n, B, ...], or of W and A.

        steps: the lengths, as they multiply f.
        """
        W, H = (None if v is None else v.to(self.like) for v in noise)
        assert W is not None
        made = self.scheme.noise(self.eq.ito, beside(lengths.to(self.like), W), W, H)
        z = zip(*(v.unbind(0) for v in made), strict=True)
        return [Leg(*parts) for parts in zip(times[:-1], times[1:], steps, z, live, strict=True)]


class Even(Course):
    """Steps between the same times for all samples: f gets a scalar t.

    brownian: the path; without one the steps' increments are drawn one by one from `seed`. Backward in time
    the same steps get the same increments, from the last on.
    """

    def __init__(
        self,
        name: str,
        scheme: Scheme,
        eq: Bound,
        x: Tensor,
        times: Stretches,
        source: Independent | Brownian,
    ) -> None:
        parts = len(times) - 1 if scheme.pairs and isinstance(source, Brownian) else 1
        super().__init__(name, scheme, eq, x, len(times) - 1, parts * math.prod(source.shape))
        self.stretches, self.times, self.source = times, list(times), source
        self.backward = times[0] > times[-1]

    def drawn(self, a: int, b: int) -> list[Leg]:
        times = self.times[a : b + 1]
        told = torch.tensor(times, dtype=self.like.dtype, device=self.like.device).unbind()
        h = [t - s for s, t in pairwise(times)]
        lengths = torch.tensor(h, dtype=torch.float64, device=self.like.device)[:, None]
        return self.legs_of(told, h, lengths, self._noise(a, b, lengths), [None] * (b - a))

    def _noise(self, a: int, b: int, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        source, pairs = self.source, self.scheme.pairs
        area = self.scheme.area or pairs
        if isinstance(source, Brownian):
            places = source.place(self.times[a : b + 1])[:, None]
            # As many parts of a step as there are steps: then the areas are of order 1 as well.
            return source.areas(places, self.steps) if pairs else source.between(places)
        first, last = (self.steps - b, self.steps - a) if self.backward else (a, b)
        W, H = source.increments(first, last, area)
        if not pairs or H is None:
            return scaled(W, H, lengths, self.backward)
        own = lengths.flip(0) if self.backward else lengths
        W, H = scaled(W, H, own, False)
        assert H is not None
        A = source.areas(first, last, W, H, beside(own.abs(), W))
        return (-W.flip(0), -A.flip(0)) if self.backward else (W, A)


class Own(Course):
    """Steps of each sample's own, between places [steps + 1, B] of a path: f gets t [B]."""

    def __init__(
        self, name: str, scheme: Scheme, eq: Bound, x: Tensor, places: Tensor, path: Brownian
    ) -> None:
        super().__init__(name, scheme, eq, x, len(places) - 1, DEPTH * math.prod(path.shape))
        self.places, self.path = places, path

    def drawn(self, a: int, b: int) -> list[Leg]:
        places, path = self.places[a : b + 1], self.path
        told = path.time(places).to(self.like.dtype).unbind()
        steps = places.diff(dim=0)
        # Who has come to its end waits: a step of a unit without noise is taken, and is not used.
        lengths = torch.where(steps == 0, 1, steps).double() * path.unit
        h = beside(lengths.to(self.like), self.like[None]).unbind()
        return self.legs_of(told, h, lengths, path.between(places), (steps != 0).unbind())
