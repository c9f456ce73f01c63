"""Rules that say how long the next step of some bodies is, and policies: rules whose numbers were learned.

A rule takes a `Look` and numbers [P, B] or [P, 1], and gives steps [B]. Places and velocities are [N, d, B],
the batch last. All G pairs are gone through at once, as tensors [G, B]. While a graph is made they are gone
through one by one, as tensors [B]: so it becomes one loop along the batch, of a few bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..control import History
from ..errors import ArgumentError, positive, whole
from ..policy_file import STEPS, write
from ..problem import ODE
from .gravity import Attraction, Gravity

OBSERVATION = (
    "share of attraction in the rate of the closest pairs",
    "square of d tau/dt",
    "log of tau over the crossing time, over 5",
    "share of all pairs but the closest",
)


Index = Any  # int, slice or Tensor


@dataclass(frozen=True)
class Look:
    """masses: [N, 1] or [N, B], times G.  q, v, and a with its first three derivatives: [N, d, B].

    softening2: of places, squared.
    """

    masses: Tensor
    softening2: float
    q: Tensor
    v: Tensor
    a: tuple[Tensor, ...] = ()

    def bodies(self) -> list[Index]:
        """All, or one by one."""
        return list(range(len(self.q))) if compiling() else [slice(None)]

    def pairs(self) -> Iterator[tuple[Index, Index, Tensor, Tensor, Tensor]]:
        """i, j, places and velocities from i to j [G, d, B], and rho^2 [G, B]; or of each without G."""
        for i, j in self._indices():
            s = self.q[j] - self.q[i]
            yield i, j, s, self.v[j] - self.v[i], dot(s, s) + self.softening2

    def felt(self, u: Sequence[Tensor]) -> Tensor:
        """What bodies feel of pairs [N, d, B]: i feels m_j u, and j feels -m_i u, of u as `pairs` go."""
        m, zero = self.masses[:, None], torch.zeros_like(self.q)
        if not compiling():
            ((i, j),), (one,) = self._indices(), u
            return zero.index_add(0, i, m[j] * one).index_add(0, j, m[i] * one, alpha=-1)
        parts = list(zero.unbind())
        for (i, j), one in zip(self._indices(), u, strict=True):
            parts[i], parts[j] = parts[i] + m[j] * one, parts[j] - m[i] * one
        return torch.stack(parts)

    def _indices(self) -> list[tuple[Index, Index]]:
        n = len(self.q)
        if compiling():
            return [(i, j) for i in range(n) for j in range(i + 1, n)]
        i, j = torch.triu_indices(n, n, 1, device=self.q.device)
        return [(i, j)]


Rule = Callable[[Look, Tensor], Tensor]


def compiling() -> bool:
    """Whether a graph is being made."""
    return torch.compiler.is_compiling()


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the components, [..., d, B] to [..., B]; written out, for compilers."""
    return reduce(torch.add, (a * b).unbind(-2))


def look(gravity: Gravity, x: Tensor) -> Look:
    """At states [B, 2, N, d]."""
    q, v = x.permute(1, 2, 3, 0).unbind()
    return Look((gravity.G * gravity.masses.to(x)).view(-1, len(q)).T, gravity.softening**2, q, v)


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
    for body in at.bodies():
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
    squares, pulled, turn, bound = [], [], [], []
    for i, j, s, w, r2 in at.pairs():
        r = r2.sqrt()
        A, F, c = dot(w, w) / r2, (at.masses[i] + at.masses[j]) / (r2 * r), dot(s, w) / r2
        W = A + F
        squares.append(W * W)
        pulled.append(W * F)
        turn.append(W * c * (2 * A + 5 * F))
        bound.append(at.masses[i] * at.masses[j] / r)
    S, U = total(squares), total(bound)
    tau = S.sqrt().rsqrt()
    kinetic = total(at.masses[body] * dot(at.v[body], at.v[body]) / 2 for body in at.bodies())
    energy, mass = (
        torch.maximum((kinetic - U).abs(), 0.01 * U),
        total(at.masses[body] for body in at.bodies()),
    )
    depth = (tau * (2 * energy / mass).pow(1.5) / mass).log() / 5
    change = tau * total(turn) / S / 2
    return tau, change, (total(pulled) / S, change * change, depth, 1 - most(squares) / S)


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum [B] over all that `pairs` or `bodies` give."""
    return reduce(torch.add, (part if compiling() else part.sum(0) for part in parts))


def least(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.minimum, (part if compiling() else part.amin(0) for part in parts))


def most(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.maximum, (part if compiling() else part.amax(0) for part in parts))


def learned(at: Look, numbers: Tensor) -> Tensor:
    """h = e exp(e kappa d tau/dt) tau, with e = numbers[0] exp(w.o), kappa = k_0 + k.o of what is seen, o.

    numbers[1:5] are w, numbers[5] is k_0, and numbers[6:] are k. The first factor is the same forward and
    backward in time. The second knows the direction: a step that tells its length where it begins is, along
    tau that changes, not the one that would lead back, by a share of e/2 d tau/dt.
    """
    if len(numbers) != 10:
        raise ArgumentError(f"numbers of {len(numbers)} rows: a policy has a pace and 9, `Policy.column`")
    tau, change, seen = observed(at)
    log_e, more = (
        reduce(torch.add, [w * one for w, one in zip(weights, seen, strict=True)])
        for weights in (numbers[1:5], numbers[6:])
    )
    kappa = numbers[5] + more
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
        fits = isinstance(n, Tensor) and n.is_floating_point() and n.shape == (9,)
        if not fits or not bool(n.isfinite().all()):
            raise ArgumentError(f"numbers = {n}: a policy has 9, finite ones, in a tensor")
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

        Raises:
            ArgumentError: an order that is no whole number above 0.
        """
        whole("order", order, 1)
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
        if bool(((known.gravity.masses > 0).sum(-1) < 2).any()):
            raise ArgumentError("this policy observes bodies by their energy: give two of them a mass")
        return Steps(known.gravity, self.column())

    def save(self, path: str | Path) -> None:
        """Write PATH.safetensors, the numbers, and PATH.json, what they observe and how they were made."""
        told = {"observation": OBSERVATION, "pace": self.pace, "about": self.about}
        write(path, STEPS, {"numbers": self.numbers}, **told)


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
