"""The steps of a run of an SDE, once they are chosen: any of them can be taken, again or backward, from the seed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .brownian import AT_ONCE, DEPTH, Brownian, Independent
from .errors import SolveError
from .integrate import said
from .methods.sde import Scheme, State
from .problem import SDE


class Bound:
    """An SDE as its steps see it. columns: whether g is [B, ..., m], to be multiplied by W [B, m]."""

    def __init__(self, problem: SDE, columns: bool) -> None:
        self.f, self.g, self.slope, self.ito = problem.f, problem.g, problem.slope, problem.interpretation == "ito"
        self.push: Callable[[Tensor, Tensor, Tensor], Tensor] = _mixed if columns else torch.addcmul


def _mixed(x: Tensor, g: Tensor, z: Tensor) -> Tensor:
    """x + g z, g [B, ..., m], z [B, m]."""
    rows, m = len(x), g.shape[-1]
    return torch.baddbmm(x.reshape(rows, -1, 1), g.reshape(rows, -1, m), z[..., None]).view(x.shape)


@dataclass(frozen=True)
class Leg:
    """One step: from s to t, its length, the noise as its scheme wants it; live: the samples that take it."""

    s: Tensor
    t: Tensor
    h: float | Tensor
    z: State
    live: Tensor | None = None


class Course(ABC):
    """Steps of a scheme on an equation. Noise is drawn for several at once, and again when asked again."""

    def __init__(self, name: str, scheme: Scheme, eq: Bound, like: Tensor, steps: int, numbers: int) -> None:
        self.name, self.scheme, self.eq, self.like, self.steps = name, scheme, eq, like, steps
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

    def start(self, x: Tensor) -> State:
        return self.scheme.start(self.eq, self.leg(0).s, x)

    def step(self, n: int, state: State) -> State:
        """The state after step n from that before it.

        Raises:
            SolveError: what f or g raised, with method, step and time.
        """
        leg = self.leg(n)
        try:
            out = self.scheme.step(self.eq, leg.s, leg.t, leg.h, state, leg.z)
        except Exception as error:
            where = f"method {self.name}, step {n + 1} of {self.steps}, t = {float(leg.s.min()):.6g}"
            raise SolveError(f"{where}: {said(error)}") from error
        if leg.live is None:
            return out
        return tuple(torch.where(leg.live, new, old) for new, old in zip(out, state, strict=True))

    def undo(self, n: int, state: State) -> State:
        """The state before step n from that after it, by the step back of a reversible scheme."""
        leg = self.leg(n)
        return self.scheme.step(self.eq, leg.t, leg.s, -leg.h, state, tuple(-z for z in leg.z))

    @torch.no_grad()
    def go(self, state: State, a: int, b: int) -> State:
        """From the state before step a to that before step b."""
        for n in range(a, b):
            state = self.step(n, state)
        return state

    def legs_of(
        self, clock: tuple[Sequence[Tensor], ...], lengths: Tensor, W: Tensor, H: Tensor | None
    ) -> list[Leg]:
        """Legs from s, t and h of each, with the noise that the scheme makes of W and H, [n, B, ...]."""
        H = None if H is None else H.to(self.like)
        lengths = lengths.to(self.like).view(*lengths.shape, *(1,) * (W.ndim - lengths.ndim))
        z = self.scheme.noise(self.eq.ito, lengths, W.to(self.like), H)
        parts = zip(*clock, zip(*(v.unbind(0) for v in z), strict=True), strict=True)
        return [Leg(s, t, h, z, live) for s, t, h, live, z in parts]


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
        times: Sequence[float],
        source: Independent | Brownian,
    ) -> None:
        super().__init__(name, scheme, eq, x, len(times) - 1, math.prod(source.shape))
        self.times, self.source = times, source

    def drawn(self, a: int, b: int) -> list[Leg]:
        times = self.times[a : b + 1]
        told = torch.tensor(times, dtype=self.like.dtype, device=self.like.device).unbind()
        h = [t - s for s, t in pairwise(times)]
        lengths = torch.tensor(h, dtype=torch.float64, device=self.like.device)[:, None]
        return self.legs_of((told[:-1], told[1:], h, [None] * (b - a)), lengths, *self._noise(a, b, lengths))

    def _noise(self, a: int, b: int, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        source, area = self.source, self.scheme.area
        if isinstance(source, Brownian):
            return source.between(source.place(self.times[a : b + 1])[:, None])
        backward = self.times[0] > self.times[-1]
        W, H = source.increments(*((self.steps - b, self.steps - a) if backward else (a, b)), area)
        scale = lengths.abs().sqrt().view(-1, *(1,) * len(source.shape))
        W, H = W * scale, None if H is None else H * (scale / 12**0.5)
        return (-W.flip(0), None if H is None else H.flip(0)) if backward else (W, H)


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
        beside = (*steps.shape, *(1,) * (self.like.ndim - 1))
        clock = told[:-1], told[1:], lengths.to(self.like).view(beside).unbind(), (steps != 0).view(beside).unbind()
        return self.legs_of(clock, lengths, *path.between(places))
