"""Two methods in one run, an explicit one and an implicit one: each sample takes what suits where it is.

Who is stiff is a mask. f is evaluated on whole batches, so that a trial costs what the methods cost that
somebody takes; the others take steps of length 0 in it, which change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..methods.embedded import PAIRS
from ..methods.multistep import ADAMS, BDFS
from ..methods.rosenbrock import ROSENBROCK
from .adams import Adams
from .bdf import BDF
from .implicit import Implicit
from .linearly import LinearlyImplicit
from .trial import Explicit, Rate, Stepper, Trial

INTO, BACK = 10, 5  # steps in which a method has to look wrong before a sample leaves it


@dataclass
class Both(Trial):
    """explicit, implicit: the trials of either, None where nobody takes it.  stiff [G]: who takes which."""

    explicit: Trial | None = None
    implicit: Trial | None = None
    stiff: Tensor | None = None


@dataclass(frozen=True)
class Pairing:
    """Of two steppers; edge: the h |lambda| at which the explicit one becomes unstable, or nearly so."""

    explicit: Callable[..., Stepper]
    implicit: Callable[..., Implicit]
    edge: float


class Switching(Stepper):
    """A sample becomes stiff after INTO steps whose h |lambda| is at the edge, net of those where it is not.

    It ceases to be after BACK steps in which h |df/dx|, by largest row sums, is below half the edge. So do
    OrdinaryDiffEq's AutoSwitch and, by the steps that either method would take, LSODA (Petzold 1983).
    """

    def __init__(self, pairing: Pairing, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        self.explicit = pairing.explicit(rate, x0, sign, *bound)
        self.implicit = pairing.implicit(rate, x0, sign, *bound)
        super().__init__(rate, x0, sign, *bound)
        self.edge, self.order = pairing.edge, self.explicit.order
        self.degree = max(self.explicit.degree, self.implicit.degree)
        self.stiff = torch.zeros(self.groups, dtype=torch.bool, device=x0.device)
        self.hits = torch.zeros(self.groups, dtype=torch.int64, device=x0.device)
        self.some = (True, False)  # whether anybody takes the explicit one, the implicit one

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        super().suit(jacobian, parts, linear)
        self.implicit.suit(jacobian, (), None)
        self._follow()

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.explicit.prepare(x, first)
        self.implicit.prepare(x, first)
        self._follow()

    def _follow(self) -> None:
        """What the loop asks of a stepper, as the two have it now."""
        a, b = self.explicit, self.implicit
        self.most, self.between_costs = a.most + b.most, a.between_costs + b.between_costs
        self.shrinks = torch.where(self.stiff, b.shrinks, a.shrinks)
        self.jacobians, self.factorizations = b.jacobians, b.factorizations

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        a, b = self.explicit, self.implicit
        a.limit = b.limit = self.limit
        mild, stiff = self.some
        one = a.trial(s, torch.where(self.stiff, 0.0, h), x, first) if mild else None
        other = b.trial(s, torch.where(self.stiff, h, 0.0), x, first) if stiff else None
        trials = Both(s, h, x, x, x, x[None], 0, None, one, other, self.stiff)
        trials.x1, trials.last = self._own(trials, lambda _, t: t.x1), self._own(trials, lambda _, t: t.last)
        trials.K = torch.stack([trials.x1, trials.last])
        trials.evaluations = sum(t.evaluations for t in (one, other) if t)
        return trials

    def _own(
        self, trial: Trial, ask: Callable[[Stepper, Trial], Tensor], who: Tensor | None = None
    ) -> Tensor:
        """What each sample, or each of `who`, hears from its own method."""
        assert isinstance(trial, Both)
        assert trial.stiff is not None
        if trial.implicit is None or trial.explicit is None:
            if trial.explicit is not None:
                return ask(self.explicit, trial.explicit)
            assert trial.implicit is not None
            return ask(self.implicit, trial.implicit)
        found = ask(self.explicit, trial.explicit), ask(self.implicit, trial.implicit)
        stiff = trial.stiff if who is None or self.shared else trial.stiff[who]
        return torch.where(stiff.view(-1, *(1,) * (found[0].ndim - 1)), found[1], found[0])

    def ratio(self, trial: Trial) -> Tensor:
        return self._own(trial, lambda stepper, t: stepper.ratio(t))

    def along(self, trial: Trial, theta: Tensor) -> Tensor:
        return self._own(trial, lambda stepper, t: stepper.along(t, theta))

    def at(self, trial: Trial, sample: Tensor, theta: Tensor) -> Tensor:
        return self._own(trial, lambda stepper, t: stepper.at(t, sample, theta), sample)

    def stiffness(self, trial: Trial) -> Tensor:
        """Where the explicit method is taken."""
        assert isinstance(trial, Both)
        return (
            torch.where(self.stiff, 0.0, self.explicit.stiffness(trial.explicit))
            if trial.explicit
            else 0 * trial.h
        )

    def forget(self, who: Tensor) -> None:
        self.explicit.forget(who)
        self.implicit.forget(who)

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        assert isinstance(trial, Both)
        hits = torch.zeros_like(self.hits)
        if trial.explicit is not None:
            h = self.explicit.accepted(trial.explicit, ok & ~self.stiff, h)
            hits = torch.where(self.explicit.stiffness(trial.explicit) > self.edge, 1, -1)
        if trial.implicit is not None:
            h = torch.where(self.stiff, self.implicit.accepted(trial.implicit, ok & self.stiff, h), h)
            mild = trial.h * self.slope() < self.edge / 2
            hits = torch.where(self.stiff, torch.where(mild, 1, -BACK), hits)
        self.hits = torch.where(ok, (self.hits + hits).clamp_min(0), self.hits)
        turned = self.hits >= torch.where(self.stiff, BACK, INTO)
        if bool(turned.any()):
            self.forget(turned)
            self.stiff, self.hits = self.stiff ^ turned, torch.where(turned, 0, self.hits)
            self.some = (not bool(self.stiff.all()), bool(self.stiff.any()))
        self._follow()
        return h

    def slope(self) -> Tensor:
        """The largest row sum of |df/dx|: [G]."""
        sizes = self.implicit.J[0].abs()
        sizes = (sizes.sum(-1) if sizes.ndim > 2 else sizes).flatten(1).amax(1).to(torch.float64)
        return sizes.amax(0, keepdim=True) if self.shared else sizes


AUTO = {
    "auto": Pairing(partial(Explicit, PAIRS["tsit5"]), partial(LinearlyImplicit, ROSENBROCK["rodas5p"]), 2.5),
    "adams_bdf": Pairing(partial(Adams, ADAMS["adams"]), partial(BDF, BDFS["bdf"]), 0.5),
}
