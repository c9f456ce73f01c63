"""What the adaptive loop is given, carries from step to step, and gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, positive, whole
from ..steppers.trial import Trial
from .events import Crossings

Reading = tuple[Tensor, Tensor]  # samples [P], theta [P]: where a step was looked at between its ends


@dataclass(frozen=True)
class Ended:
    """Where each sample stopped and why.

    x, t: at the end of its last step, which for "event" lies behind the event.
    read: states [P, ...] that were read on the way.
    saved_at: (mark, sample, which of these) of what was to be saved.  seen: (sample, when, which) by event.
    """

    x: Tensor
    t: Tensor
    code: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    message: tuple[str, ...]
    read: list[Tensor] = field(default_factory=list)
    saved_at: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)
    seen: tuple[list[tuple[Tensor, Tensor, int]], ...] = ()

    def saved(self, marks: int) -> Tensor:
        """[marks, B, ...], NaN where a sample did not come."""
        out = self.x.new_full((marks, *self.x.shape), math.nan)
        if not self.saved_at:
            return out
        mark, sample, x = self._cat(self.saved_at)
        return out.index_put((mark, sample), x)

    def crossings(self) -> tuple[Crossings, ...]:
        """Of each event."""
        none = torch.zeros_like(self.code[:0]), self.t[:0], self.x[:0]
        return tuple(Crossings(*(self._cat(seen) if seen else none)) for seen in self.seen)

    def _cat(self, parts: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
        one, other, which = zip(*parts, strict=True)
        return torch.cat(one), torch.cat(other), torch.cat([self.read[i] for i in which])


@dataclass(frozen=True)
class Limits:
    """What a run may spend, and how long its steps may be; all in the clock that rises.

    on_budget: where nfe is spent, "stop", or "reach" the end within it in longer steps.
    """

    max_steps: int = 100_000
    nfe: int | None = None
    first_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    on_budget: str = "stop"

    def __post_init__(self) -> None:
        if self.on_budget not in ("stop", "reach") or (self.on_budget == "reach" and self.nfe is None):
            raise ArgumentError(f"on_budget = {self.on_budget!r}: 'stop', or 'reach' with nfe= evaluations")
        whole("max_steps", self.max_steps, 0)
        if self.nfe is not None:
            whole("nfe", self.nfe, 0)
        if self.first_step is not None:
            positive("first_step", self.first_step)
        if finite("min_step", self.min_step) < 0:
            raise ArgumentError(f"min_step = {self.min_step}: it must not be negative")
        if not isinstance(self.max_step, Real) or not self.max_step > self.min_step:
            raise ArgumentError(f"max_step = {self.max_step!r}: a number above min_step and 0")


@dataclass
class Carry:
    """Between two steps, [G] each but x and first [B, ...]: first is f at (s, x), values those of the events.

    leg: jumps passed.  end: where the leg ends, or the sample has.
    n: steps tried, spent: evaluations in them; tries, bill: those of what stopped, before that those in
    chunks, and passes: steps that chunks had time for.
    extra: evaluations beyond those of the steps.
    """

    s: Tensor
    h: Tensor
    x: Tensor
    first: Tensor
    code: Tensor
    leg: Tensor
    end: Tensor
    tries: Tensor
    bill: Tensor
    extra: Tensor
    rejected: Tensor
    history: tuple[Tensor, ...]
    values: list[Tensor]
    n: int = 0
    spent: int = 0
    passes: int = 0


class Observer(Protocol):
    """Sees each step that was accepted, before the run moves on: who took it (None: all), what was read."""

    def note(self, c: Carry, trial: Trial, ok: Tensor | None, read: list[Reading]) -> None: ...
