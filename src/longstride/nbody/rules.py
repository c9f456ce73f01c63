"""Rules that say how long the next step of some bodies is, and policies: rules whose numbers were learned.

A rule takes a `Look` and numbers [P, B] or [P, 1], and gives steps [B]. Places and velocities are [N, d, B],
the batch last, and pairs are gone through one by one: it is for a few bodies, and becomes one loop along the
batch where it is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from ..control import History
from ..errors import ArgumentError, positive
from ..policy_file import write
from ..problem import ODE
from .gravity import Attraction, Gravity

OBSERVATION = (
    "share of attraction in the rate of the closest pairs",
    "square of d tau/dt",
    "log of tau over the crossing time, over 5",
    "share of all pairs but the closest",
)


@dataclass(frozen=True)
class Look:
    """masses: N of [] or [B], times G.  q, v, and a with its first three derivatives: [N, d, B].

    softening2: of places, squared.
    """

    masses: tuple[Tensor, ...]
    softening2: float
    q: Tensor
    v: Tensor
    a: tuple[Tensor, ...] = ()

    def pairs(self) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor]]:
        """i, j, places and velocities from i to j [d, B], and rho^2 [B]."""
        n = len(self.masses)
        for i in range(n):
            for j in range(i + 1, n):
                s = self.q[j] - self.q[i]
                yield i, j, s, self.v[j] - self.v[i], dot(s, s) + self.softening2


Rule = Callable[[Look, Tensor], Tensor]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the components [d, ...]; written out, for compilers."""
    x, *more = (a * b).unbind()
    for y in more:
        x = x + y
    return x


def look(gravity: Gravity, x: Tensor) -> Look:
    """At states [B, 2, N, d]."""
    q, v = x.permute(1, 2, 3, 0).unbind()
    return Look(tuple((gravity.G * gravity.masses.to(x)).unbind(-1)), gravity.softening**2, q, v)


def collision(at: Look, numbers: Tensor) -> Tensor:
    """numbers[0] times `Gravity.collision_time`, the rule of `hermite_collision`."""
    fourth = []
    for i, j, _, w, r2 in at.pairs():
        fourth += [(r2 / dot(w, w)).square(), r2**3 / (at.masses[i] + at.masses[j]).square()]
    return numbers[0] * least(fourth).sqrt().sqrt()


def free_fall(at: Look, numbers: Tensor) -> Tensor:
    """numbers[0] times the least sqrt(rho^3/(G m)) of pairs: the classical criterion of places alone."""
    fourth = (r2**3 / (at.masses[i] + at.masses[j]).square() for i, j, _, _, r2 in at.pairs())
    return numbers[0] * least(fourth).sqrt().sqrt()


def aarseth(at: Look, numbers: Tensor) -> Tensor:
    """Aarseth's criterion with eta = numbers[0], the rule of `hermite_aarseth`."""
    if len(at.a) < 4:
        raise ArgumentError("Aarseth's criterion wants the derivatives that Hermite's method knows")
    squares = []
    for body in range(len(at.masses)):
        a, j, second, third = (dot(part[body], part[body]).sqrt() for part in at.a)
        squares.append((a * second + j * j) / (j * third + second * second))
    return (numbers[0] * least(squares)).sqrt()


def observed(at: Look) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """A time tau, d tau/dt, and OBSERVATION, four numbers without dimension, each [B].

    Of a pair at rho with velocity w, the rates A = |w|^2/rho^2 and F = G m/rho^3 add to W, and tau^-4 is the
    sum of W^2 over pairs: smooth, and close to the least collision time. Along the motion of a pair alone
    A' = -2 c W and F' = -3 c F with c = s.w/rho^2, so that

        d tau/dt = tau/2 sum W c (2 A + 5 F)/sum W^2.

    The crossing time is G M^(5/2)/(2 |E|)^(3/2), |E| at least a hundredth of the potential energy. Nothing
    changes when lengths, masses or times are measured in other units, nor by turning or moving the bodies;
    and but for the sign of d tau/dt, nothing when all velocities are reversed.
    """
    squares, pulled, turn, most, bound = [], [], [], None, []
    for i, j, s, w, r2 in at.pairs():
        r = r2.sqrt()
        A, F, c = dot(w, w) / r2, (at.masses[i] + at.masses[j]) / (r2 * r), dot(s, w) / r2
        W = A + F
        squares.append(W * W)
        pulled.append(W * F)
        turn.append(W * c * (2 * A + 5 * F))
        bound.append(at.masses[i] * at.masses[j] / r)
        most = squares[-1] if most is None else torch.maximum(most, squares[-1])
    assert most is not None
    S, U = total(squares), total(bound)
    tau = S.sqrt().rsqrt()
    kinetic = total([m * dot(v, v) / 2 for m, v in zip(at.masses, at.v, strict=True)])
    energy, mass = torch.maximum((kinetic - U).abs(), 0.01 * U), total(at.masses)
    depth = (tau * (2 * energy / mass).pow(1.5) / mass).log() / 5
    change = tau * total(turn) / S / 2
    return tau, change, (total(pulled) / S, change * change, depth, 1 - most / S)


def total(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def least(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.minimum, parts)


def learned(at: Look, numbers: Tensor) -> Tensor:
    """h = e exp(e kappa d tau/dt) tau, with e = numbers[0] exp(w.o), kappa = k_0 + k.o of what is seen, o.

    numbers[1:5] are w, numbers[5] is k_0, and numbers[6:] are k. The first factor is the same forward and
    backward in time. The second knows the direction: a step that tells its length where it begins is, along
    tau that changes, not the one that would lead back, by a share of e/2 d tau/dt.
    """
    tau, change, seen = observed(at)
    log_e = total([w * one for w, one in zip(numbers[1:5], seen, strict=True)])
    kappa = numbers[5] + total([k * one for k, one in zip(numbers[6:], seen, strict=True)])
    e = numbers[0] * log_e.exp()
    return e * (e * kappa * change).clamp(-1, 1).exp() * tau


@dataclass(frozen=True)
class Policy:
    """Steps of bodies by what is `observed` of them: a controller for any method that chooses its steps.

    ls.solve(bodies.problem(), x0, method=..., controller=policy): the step from a state is told by `learned`;
    tolerances say nothing, and only a step that is not finite is refused.

    numbers [9]: w, k_0 and k of `learned`.  pace: its first number, in proportion to which steps are.
    about: how it was made.

    Raises:
        ArgumentError: numbers of another shape or not finite; a pace that is not positive.
    """

    numbers: Tensor
    pace: float = 0.01
    about: str = ""

    def __post_init__(self) -> None:
        n = self.numbers
        if n.shape != (9,) or not bool(n.isfinite().all()):
            raise ArgumentError(f"numbers {tuple(n.shape)}: a policy has 9, finite ones")
        positive("pace", self.pace)

    def at(self, pace: float) -> Policy:
        """The same policy, more or less exact."""
        return replace(self, pace=pace)

    def even(self) -> Policy:
        """Without its second factor: the same steps with all velocities reversed."""
        return replace(self, numbers=torch.cat([self.numbers[:4], torch.zeros_like(self.numbers[4:])]))

    def for_order(self, order: int, learned: int = 4) -> Policy:
        """The first factor carried over from a method of order `learned` to one of another.

        A step of a share e of tau makes an energy error C e^(p+1), C of the state, and 1/(e tau) steps are
        taken in a unit of time: errors C e^p/tau. Their sum is least, at a number of steps that is given,
        where the change of both with e is everywhere in the same proportion: C e^(p+1) = const. So e goes as
        C^(-1/(p+1)), and w as 1/(p+1).
        """
        numbers = torch.cat([self.numbers[:4] * ((learned + 1) / (order + 1)), self.numbers[4:]])
        return replace(self, numbers=numbers)

    def column(self) -> Tensor:
        """[10, 1], as `learned` wants them."""
        return torch.cat([self.numbers.new_tensor([self.pace]), self.numbers])[:, None]

    def of(self, problem: ODE) -> Steps:
        """The controller of a problem's runs."""
        known = problem.acceleration
        if not isinstance(known, Attraction):
            raise ArgumentError(
                "this policy observes bodies that attract each other: solve `nbody.Gravity(...).problem()`, "
                "or take ls.control.PI()"
            )
        return Steps(known.gravity, self.column())

    def save(self, path: str | Path) -> None:
        """Write PATH.safetensors, the numbers, and PATH.json, what they observe and how they were made."""
        write(path, self.numbers, OBSERVATION, pace=self.pace, about=self.about)


@dataclass(frozen=True)
class Steps:
    """A `Controller` whose steps come from the state alone."""

    gravity: Gravity
    numbers: Tensor

    def start(self, ones: Tensor) -> History:
        return ()

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        """Half of a step that is not finite."""
        accept = ratio.isfinite()
        return torch.where(accept, 1.0, 0.5).to(ratio), accept, history

    def next_step(self, x: Tensor, sign: float) -> Tensor:
        """[B] of states [B, 2, N, d], which go on as sign says."""
        with torch.no_grad():
            at = look(self.gravity, x.to(torch.float64))
            return learned(replace(at, v=sign * at.v), self.numbers.to(at.q))
