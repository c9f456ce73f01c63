"""The line that a fitted solver's times lie on, and the step that is exact there whatever the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ..frame import DATA, ddim_row
from ..process import Process
from ..sampling import REFERENCE_RATIO

LENGTH = 10.0  # of a straight axis: about that of a diffusion in lambda


class Axis(Protocol):
    """What `Free` and `Trajectories` must know of time."""

    @property
    def field(self) -> int:
        """Which field is evaluated."""

    @property
    def end(self) -> float:
        """The last time."""

    @property
    def high(self) -> float:
        """The last clock at which the field is evaluated."""

    def clock(self, t: float) -> float:
        """u(t), rising from start to end, in which times are moved and states interpolated."""

    def time(self, u: float) -> float:
        """t(u)."""

    def row(self, s: float, t: float) -> tuple[float, float]:
        """(r, q) with x_t = r x_s + q F for a field that always says F."""

    def size(self, t: float) -> float:
        """About that of a state at t."""

    def shrunk(self, t: float) -> float:
        """What the start is multiplied with, where it is shown to the field as a state at t."""

    def made_for(self) -> Mapping[str, Any]:
        """What a plan on this axis belongs to."""


@dataclass(frozen=True)
class Diffusion:
    """A process in lambda = log(alpha/sigma), with DDIM's steps; its end is clean data."""

    process: Process
    field: ClassVar[int] = DATA

    @property
    def end(self) -> float:
        return self.process.t_end

    @property
    def high(self) -> float:
        return self.process.lambda_(self.process.t_min)

    def clock(self, t: float) -> float:
        return clock(self.process, t)

    def time(self, u: float) -> float:
        return self.process.time(u)

    def row(self, s: float, t: float) -> tuple[float, float]:
        return ddim_row(self.process, s, t)

    def size(self, t: float) -> float:
        return math.hypot(*self.process.pair(t))

    def shrunk(self, t: float) -> float:
        """Of EDM's kind the noise grows; what begins with unit noise (alpha = 0) stays about as large."""
        start = self.process.t_max
        return 1.0 if self.process.alpha(start) == 0 else self.size(t) / self.size(start)

    def made_for(self) -> Mapping[str, Any]:
        return self.process.describe()


@dataclass(frozen=True)
class Straight:
    """dx/dt = f from `start` to `end`, with Euler's steps; t may rise or fall."""

    start: float
    end: float
    field: ClassVar[int] = 0
    high: ClassVar[float] = LENGTH

    def clock(self, t: float) -> float:
        return LENGTH * (t - self.start) / (self.end - self.start)

    def time(self, u: float) -> float:
        return self.start + (self.end - self.start) * u / LENGTH

    def row(self, s: float, t: float) -> tuple[float, float]:
        return 1.0, t - s

    def size(self, t: float) -> float:
        return 1.0

    def shrunk(self, t: float) -> float:
        return 1.0

    def made_for(self) -> Mapping[str, Any]:
        return {}


def clock(process: Process, t: float) -> float:
    """lambda, from where the ratio sigma/alpha is finite enough to be told from pure noise."""
    return max(process.lambda_(t), -math.log(REFERENCE_RATIO))
