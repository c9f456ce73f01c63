"""Penalties that make an equation easier to solve: what the solver itself knows of its steps.

Over the accepted steps j of a sample, of length h_j, with the error estimate E_j over what the tolerances
allow and the stiffness estimate S_j = |f(t, g) - f(t, g')|/|g - g'| of the last two stages, which stand at
the same time (Shampine 1977),

    error: sum_j E_j |h_j|        error_squared: sum_j E_j^2 |h_j|        stiffness: sum_j S_j

(Pal, Ma, Shah and Rackauckas 2021, "Opening the Blackbox"). Their gradient goes through all steps. The local
ones (Pal, Edelman and Rackauckas 2023) are one term of that sum, of one step more from the state at a random
time, which is taken as given: so they cost a step whatever the way of the gradient. "unbiased" takes a time
uniform between start and end; "biased" the beginning of one of the steps, all alike, which are many where the
equation is hard. Both take the length of the step that was accepted there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, unknown, whole
from ..methods.base import one_of
from ..noise import Noise
from ..steppers.trial import Stepper, Trial
from .carry import Carry, Reading

KINDS = ("error", "error_squared", "stiffness")


@dataclass(frozen=True)
class Regularize:
    """Which penalty `solve(regularize=)` adds up, into `Solution.penalty` [B].

    kind: "error", "error_squared" or "stiffness".  local: None for all steps, else "unbiased" or "biased".
    seed: of the random times; without one torch's own generator is asked.
    """

    kind: str = "error"
    local: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("penalty", self.kind, KINDS)
        one_of("local", self.local, (None, "unbiased", "biased"))
        if self.seed is not None:
            whole("seed", self.seed)

    @staticmethod
    def of(value: Any) -> Regularize | None:
        """From what `regularize=` may be: None, a kind, or one of these."""
        value = Regularize(value) if isinstance(value, str) else value
        if not isinstance(value, Regularize | None):
            raise ArgumentError(f"regularize = {value!r}: a kind, one of {', '.join(KINDS)}, or a Regularize")
        return value

    def observer(self, stepper: Stepper, span: tuple[float, float], x0: Tensor) -> Total | Once:
        """What notes it along a run."""
        if self.kind == "stiffness" and not stepper.two_at_end:
            raise ArgumentError("two stages at the end of a step tell how stiff it is: take tsit5 or dopri5")
        return Total(self.kind, stepper) if self.local is None else Once(self, stepper, span, x0)


def term(kind: str, stepper: Stepper, trial: Trial) -> Tensor:
    """What one step adds to the penalty [G], with its graph; 0 of a step of length 0."""
    if kind == "stiffness":
        h = torch.where(trial.h > 0, trial.h, 1.0)
        return torch.where(trial.h > 0, stepper.spectral(trial) / h, 0.0)
    estimate = stepper.estimate(trial)
    return (estimate if kind == "error" else estimate * estimate) * trial.h


class Total:
    """The sum over all accepted steps. evaluations: of f, beyond those of the run."""

    def __init__(self, kind: str, stepper: Stepper) -> None:
        self.kind, self.stepper, self.terms, self.evaluations = kind, stepper, list[Tensor](), 0

    def term(self, trial: Trial, ok: Tensor | None) -> Tensor:
        value = term(self.kind, self.stepper, trial)
        return value if ok is None else torch.where(ok, value, 0.0)

    def note(self, c: Carry, trial: Trial, ok: Tensor | None, read: list[Reading]) -> None:
        self.terms.append(self.term(trial, ok))

    def value(self, batch: int) -> Tensor:
        """The penalty [B]."""
        none = torch.zeros(self.stepper.groups, dtype=torch.float64, device=self.stepper.rtol.device)
        return torch.stack([none, *self.terms]).sum(0).expand(batch)


class Once:
    """One step at a random time of each sample, or of the batch where the step is shared.

    evaluations: of f, beyond those of the run.  u: uniform on [0, 1). "biased": of n steps the n-th takes the
    place of what was chosen before with probability 1/n, and what is left of u, stretched, is uniform again.
    """

    def __init__(self, what: Regularize, stepper: Stepper, span: tuple[float, float], x0: Tensor) -> None:
        self.what, self.stepper, groups = what, stepper, stepper.groups
        if what.seed is None:
            self.u = torch.rand(groups, dtype=torch.float64).to(x0.device)
        else:
            self.u = Noise(what.seed, range(groups), ()).uniform().to(x0.device)
        self.s, self.end = span[0] + self.u * (span[1] - span[0]), span[1]
        self.x, self.h, self.count, self.evaluations = x0.detach(), 0 * self.u, 0 * self.u, 0

    @torch.no_grad()
    def note(self, c: Carry, trial: Trial, ok: Tensor | None, read: list[Reading]) -> None:
        ok = torch.ones_like(trial.h, dtype=torch.bool) if ok is None else ok
        if self.what.local == "biased":
            self.count = self.count + ok
            share = 1 / self.count.clamp_min(1.0)
            hit = ok & (self.u < share)
            left = torch.where(hit, self.u / share, (self.u - share) / (1 - share).clamp_min(1e-300))
            self.u, self.s = torch.where(ok, left, self.u), torch.where(hit, trial.s, self.s)
            x = trial.x
        else:
            hit = ok & (trial.s <= self.s) & (self.s < trial.s + trial.h)
            if not bool(hit.any()):
                return
            theta = ((self.s - trial.s) / trial.h).nan_to_num_(0.0).clamp_(0.0, 1.0)
            self.evaluations += self.stepper.between_costs * (trial.full is None)
            x = self.stepper.along(trial, theta.expand(len(trial.x)))
        self.x = torch.where(hit.view(self.stepper.lead), x, self.x).detach()
        self.h = torch.where(hit, trial.h, self.h)

    def value(self, batch: int) -> Tensor:
        """The penalty [B]."""
        stepper = self.stepper
        stepper.graph, stepper.limit = torch.is_grad_enabled(), None
        first = stepper.rate(stepper.time(self.s), self.x)
        h = torch.fmin(self.h, self.end - self.s)
        trial = stepper.trial(self.s, h, self.x, stepper.entered(self.x, first))
        self.evaluations += 1 + trial.evaluations
        return term(self.what.kind, stepper, trial).expand(batch)
