"""Steps of x'' = a(t, x), and of Hermite's method of order 4, which knows how a changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import ArgumentError
from ..methods.second_order import Hermite
from .trial import Rate, Stepper, Trial

# Of the polynomial of degree 5 through x, x', x'' at both ends: h x', h^2 x'' at the start, x1 - x, and then
# h x', h^2 x'' at the end.
QUINTIC = (
    (1.0, 0.0, -6.0, 8.0, -3.0),
    (0.0, 0.5, -1.5, 1.5, -0.5),
    (0.0, 0.0, 10.0, -15.0, 6.0),
    (0.0, 0.0, -4.0, 7.0, -3.0),
    (0.0, 0.0, 0.5, -1.0, 0.5),
)


def corrected(
    q: Tensor,
    v: Tensor,
    a: Tensor,
    j: Tensor,
    dt: Tensor,
    slope: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, ...]:
    """A step of Hermite's method, as `HermiteStepper` says: q, v, a and its three derivatives behind it.

    slope: a and its rate of change along the motion, of q and v.
    """
    a1, j1 = slope(q + dt * (v + dt / 2 * (a + dt / 3 * j)), v + dt * (a + dt / 2 * j))
    v1 = v + dt / 2 * (a + a1) + dt * dt / 12 * (j - j1)
    q1 = q + dt / 2 * (v + v1) + dt * dt / 12 * (a - a1)
    wide = torch.where(dt == 0, 1.0, dt)
    third = (12 * (a - a1) + 6 * dt * (j + j1)) / wide**3
    second = (-6 * (a - a1) - dt * (4 * j + 2 * j1)) / wide**2 + dt * third
    return q1, v1, a1, j1, second, third


class SecondOrder(Stepper):
    """A stepper of x'' = a(t, x) on states (x, v), halves of dimension 1."""

    between_costs = 0

    def kicked(self, a: Rate | None, own: Any) -> None:
        if a is None or len(self.shape) < 2 or self.shape[1] % 2:
            raise ArgumentError(
                "this method is for x'' = a(t, x): give it ls.Newton(a) and a pair (x, v), or take another"
            )
        self.a, self.known = a, own

    def by(self, h: Tensor) -> Tensor:
        """dt of a step h [G], beside a half state."""
        return self.spread(self.sign * h)

    def sizes(self, v: Tensor) -> Tensor:
        """The length of each body's vector [G, bodies], where the last dimension is that of space."""
        v = v.reshape(1 if self.shared else len(v), -1, v.shape[-1])
        return torch.linalg.vector_norm(v, dim=2).to(torch.float64)


@dataclass
class Corrected(Trial):
    """K: f at the start; the jerk there and at the end.  jerk: at the end.  error: of the state.  wants: the
    next step [G], as a criterion tells it.
    """

    jerk: Tensor = field(default_factory=lambda: torch.zeros(0))
    error: Tensor = field(default_factory=lambda: torch.zeros(0))
    wants: Tensor | None = None


class HermiteStepper(SecondOrder):
    """Predict by Taylor's series to the jerk, evaluate a and jerk there, correct by Hermite's cubic of a.

        v1 = v + h (a + a1)/2 + h^2 (j - j1)/12,      x1 = x + h (v + v1)/2 + h^2 (a - a1)/12

    One evaluation a step, of a and j = da/dt. The second and third derivatives that the cubic has,
    a'' and a''', tell the error and the step. By criterion, each sample's own and the least of its bodies:

    error       h^5 a'''/120 of x and h^4 a'''/24 of v, weighed as rtol and atol say
    aarseth     h = sqrt(rtol (|a| |a''| + |j|^2)/(|j| |a'''| + |a''|^2)): rtol is eta, about 0.01
    collision   h = rtol times `collision_time` of the bodies, which `nbody.Gravity` knows

    The last two refuse no step.
    """

    most = 2
    order, shrinks = 4, 4

    def __init__(self, table: Hermite, *bound: Any) -> None:
        super().__init__(*bound)
        self.criterion = table.criterion
        self.tells = self.criterion != "error"
        self.opening_costs = 3 if self.tells else 1
        self.polynomials(torch.tensor(QUINTIC, dtype=torch.float64, device=self.rtol.device))

    def kicked(self, a: Rate | None, own: Any) -> None:
        super().kicked(a, own)
        if self.criterion == "collision" and not hasattr(own, "collision_time"):
            raise ArgumentError(
                "this method asks bodies for their collision time: take nbody.Gravity, or hermite"
            )

    def slope(self, t: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """a and da/dt, from what knows both, or by forward differentiation."""
        if hasattr(self.known, "jerk"):
            known: tuple[Tensor, Tensor] = self.known.jerk(t, x, v)
            return known
        with forward_ad.dual_level():
            dual = self.a(forward_ad.make_dual(t, torch.ones_like(t)), forward_ad.make_dual(x, v))
            found = forward_ad.unpack_dual(dual)
        return found.primal, torch.zeros_like(x) if found.tangent is None else found.tangent

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.jerk = torch.zeros_like(x.chunk(2, 1)[0])
        self.forget(torch.ones(self.groups, dtype=torch.bool, device=x.device))

    def forget(self, who: Tensor) -> None:
        self.stale, self.some_stale = who, True

    def refresh(self, s: Tensor, q: Tensor, v: Tensor) -> bool:
        """The jerk of those who have none; whether it took an evaluation."""
        took = self.some_stale
        if took:
            jerk = self.slope(self.time(s), q, v)[1]
            self.jerk, self.some_stale = torch.where(self.stale.view(self.lead), jerk, self.jerk), False
        return took

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        evaluations = 1 + self.refresh(s, *x.chunk(2, 1))
        return self.stepped(s, h, x, first, self.jerk, evaluations)

    def stepped(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor, j: Tensor, evaluations: int) -> Trial:
        """A trial as a function of tensors alone; j: the jerk at the start."""
        (q, v), (_, a), dt = x.chunk(2, 1), first.chunk(2, 1), self.by(h)
        (t1,) = self.times(s, h, torch.ones(1, 1, dtype=torch.float64, device=s.device))
        q1, v1, a1, j1, second, third = corrected(q, v, a, j, dt, partial(self.slope, t1))
        x1, last = torch.cat([q1, v1], 1), torch.cat([v1, a1], 1)
        fourth = dt**4 / 24 * third
        trial = Corrected(
            s, h, x, x1, last, torch.stack([first, torch.cat([j, j1], 1)]), evaluations,
            jerk=j1, error=torch.cat([dt / 5 * fourth, fourth], 1),
        )  # fmt: skip
        if self.tells:
            with torch.no_grad():
                trial.wants = self.wanted(q1, v1, a1, j1, second, third)
        return trial

    def wanted(self, q: Tensor, v: Tensor, *derivatives: Tensor) -> Tensor:
        """The step that a criterion tells [G]."""
        parameter = self.rtol.to(torch.float64).flatten()  # one, or each sample's
        if self.criterion == "collision":
            time = self.known.collision_time(q, v).to(torch.float64)
            return parameter * (time.amin(0, keepdim=True) if self.shared else time)
        a, j, second, third = map(self.sizes, derivatives)
        square = (a * second + j * j) / (j * third + second * second)
        return (parameter * square.nan_to_num(torch.inf, torch.inf).amin(1)).sqrt()

    def opening(self, s: Tensor, x: Tensor, first: Tensor, span: Tensor) -> Tensor:
        """What the criterion says behind a short step: at rest the first derivative of a says nothing."""
        h = super().opening(s, x, first, span)
        if not self.tells:
            return h
        trial = self.trial(s, h, x, first)
        assert isinstance(trial, Corrected)
        return h if trial.wants is None else torch.fmin(trial.wants, span)

    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Corrected)
        with torch.no_grad():
            if self.tells:
                return 0 * self.norms(trial.x1)  # NaN where it is
            scale = torch.addcmul(self.atol, self.rtol, torch.maximum(trial.x.abs(), trial.x1.abs()))
            return self._norm(trial.error / scale) / self.root

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        assert isinstance(trial, Corrected)
        self.jerk = torch.where(ok.view(self.lead), trial.jerk, self.jerk)
        return h if trial.wants is None else torch.where(ok, trial.wants, h)

    def complete(self, trial: Trial) -> Tensor:
        """Derivatives at both ends, as QUINTIC wants them."""
        if trial.full is None:
            (v, a), (j, j1), dt = trial.K[0].chunk(2, 1), trial.K[1].chunk(2, 1), self.by(trial.h)
            v1, a1 = trial.last.chunk(2, 1)
            trial.full = torch.stack([
                dt * torch.cat([v, a], 1), dt**2 * torch.cat([a, j], 1), trial.x1 - trial.x,
                dt * torch.cat([v1, a1], 1), dt**2 * torch.cat([a1, j1], 1),
            ])  # fmt: skip
        return trial.full
