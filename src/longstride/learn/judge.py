"""How good a plan is: on starts whose solutions are known, in the error that was asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import SolveError
from ..metrics import endpoint_error, interval, resampled, squared_errors
from ..plan import Plan
from .free import Features
from .subject import Subject

Objective = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Candidate:
    """A plan, what made it, and its error on some starts."""

    what: str
    plan: Plan
    error: float = math.inf


@dataclass(frozen=True)
class Judge:
    """How far ends are from the truth, [n, *shape] both."""

    features: Features
    objective: Objective | None

    def error(self, ends: Tensor, truth: Tensor) -> float:
        error = (self.objective or endpoint_error)(self.features(ends), self.features(truth))
        return error if math.isfinite(error) else math.inf

    def of(self, plan: Plan, subject: Subject, rows: Tensor, truth: Tensor) -> float:
        """The error of a plan from these rows; infinite where it blows up."""
        try:
            return self.error(subject.ends(plan, rows), truth)
        except SolveError:
            return math.inf

    def squares(self, plan: Plan, subject: Subject, rows: Tensor, truth: Tensor) -> Tensor:
        """[n], the squared end-point error of each, whatever the objective; infinite where it blows up."""
        try:
            found = squared_errors(self.features(subject.ends(plan, rows)), self.features(truth))
        except SolveError:
            return truth.new_full((len(rows),), math.inf).double().cpu()
        return found.nan_to_num(nan=math.inf)

    def identity(self, truth: Tensor) -> str:
        """A digest of the features of some samples."""
        seen = self.features(truth).double().cpu()
        return hashlib.sha256(seen.numpy().tobytes() + repr(seen.shape).encode()).hexdigest()

    def interval(self, ends: Tensor, truth: Tensor, others: Tensor | None = None) -> tuple[float, float]:
        """95 % of the error, or of its ratio to that of others, by resampling."""
        ends, truth = self.features(ends), self.features(truth)
        others = None if others is None else self.features(others)
        if self.objective is not None:
            return resampled(self.objective, ends, truth, others)
        return interval(
            squared_errors(ends, truth), None if others is None else squared_errors(others, truth)
        )
