"""A parameter of a method, decided again and again while systems are carried on: the task, and its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ArgumentError, positive, whole

LEAST = 1e-16  # of an error that is seen


@dataclass(frozen=True)
class Seen:
    """Where systems stand: x [B, ...] and, each [B], t; error; before, what it was a decision ago; value, the
    parameter of that decision; evaluations, what it cost; left, the share of the decisions still to be made.

    made [B]: decisions so far. Before the first, value and evaluations are 1 and both errors are 0.
    """

    x: Tensor
    t: Tensor
    error: Tensor
    before: Tensor
    value: Tensor
    evaluations: Tensor
    made: Tensor
    left: Tensor


# x [B, ...], t [B] and the parameter [B] to the states after a decision, and evaluations [B].
Run = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Reward = Callable[[Seen], Tensor]
Deviation = Callable[[Tensor, Tensor, Tensor], Tensor]  # of x from what began as x0 and should be at t: [B]


class Observation(Protocol):
    """names: of the numbers [B, len(names)] that it gives; a policy is known by them."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, seen: Seen) -> Tensor: ...


def digits(error: Tensor) -> Tensor:
    """-log10 of an error, 16 at most, and at least -16."""
    return -error.clamp(LEAST, 1 / LEAST).log10()


def digits_less_cost(seen: Seen) -> Tensor:
    """-log10 of the error - log10 of the evaluations of the decision."""
    return digits(seen.error) - seen.evaluations.clamp_min(1.0).log10()


def drift(invariant: Callable[[Tensor], Tensor]) -> Deviation:
    """|I(x)/I(x0) - 1| of what the exact solution keeps, I(x) [B]."""
    return lambda x, x0, t: (invariant(x) / invariant(x0) - 1).abs()


@dataclass(frozen=True)
class Plain:
    """What can be seen of any problem."""

    names: tuple[str, ...] = (
        "digits of the error",
        "log10 of the last parameter",
        "log10 of the last evaluations",
        "log10 of the root mean square of x",
        "share of the decisions left",
    )

    def __call__(self, seen: Seen) -> Tensor:
        size = seen.x.flatten(1).square().mean(1).sqrt().clamp_min(LEAST).log10()
        value, cost = seen.value.log10(), seen.evaluations.clamp_min(1.0).log10()
        return torch.stack([digits(seen.error), value, cost, size, seen.left], 1)


@dataclass(frozen=True)
class Task:
    """What is decided: a value of a method's parameter, every `every` of time.

    start: a state [...] of a seed.
    run: how far a parameter carries states until the next decision, and what that costs: `Solved`.
    deviation: the error of states, `drift` of an invariant or the distance from what is known.
    values: the parameters to choose from, rising or falling; an action is a number of one.
    between: instead of them, two ends; an action is in [-1, 1], along the logarithm between them.
    observe, reward: functions of what is `Seen`.
    decisions: after which an episode ends.  lost: the error at which it does before.

    Raises:
        ArgumentError: values and between, or neither; parameters that are not positive; a bad number.
    """

    start: Callable[[int], Tensor]
    run: Run
    deviation: Deviation
    every: float
    values: Sequence[float] = ()
    between: tuple[float, float] | None = None
    observe: Observation = Plain()
    reward: Reward = digits_less_cost
    decisions: int = 100
    lost: float = 0.1

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.between):
            raise ArgumentError("give values= to choose from or between= two ends, one of them")
        for value in self.values or self.between or ():
            positive("a parameter", value)
        positive("every", self.every)
        positive("lost", self.lost)
        whole("decisions", self.decisions, 1)

    def parameter(self, action: Tensor) -> Tensor:
        """Its value of actions [B].

        Raises:
            ArgumentError: one that is not of this task.
        """
        n = len(self.values)
        if self.between is None:
            if action.is_floating_point() or not bool(((action >= 0) & (action < n)).all()):
                raise ArgumentError(f"an action is a whole number of 0 to {n - 1} for each system")
            return torch.tensor(self.values, dtype=torch.float64, device=action.device)[action]
        if not action.is_floating_point() or not bool((action.abs() <= 1).all()):
            raise ArgumentError("an action is a number of -1 to 1 for each system")
        low, high = torch.tensor(self.between, dtype=torch.float64, device=action.device).log()
        return ((low + high) / 2 + (high - low) / 2 * action.double()).exp()

    def starts(self, seeds: Sequence[int]) -> Tensor:
        """[B, ...]."""
        return torch.stack([self.start(seed) for seed in seeds])

    def play(self, policy: Callable[[Tensor], Tensor], x0: Tensor) -> Decisions:
        """Episodes from states x0 with the actions [B] that a policy takes of what it observes [B, n].

        Raises:
            ArgumentError: a policy that was made for another observation, or that takes other actions.
        """
        if hasattr(policy, "of"):
            policy = policy.of(self)
        env = Decisions(self, x0)
        while not bool(env.over.all()):
            env.decide(policy(env.observation()))
        return env


@dataclass(frozen=True)
class Decided:
    """After a decision: observation [B, n] and, each [B], reward; over; and of this decision error and
    evaluations. A system that was over before has reward 0 and no evaluations.
    """

    observation: Tensor
    reward: Tensor
    over: Tensor
    error: Tensor
    evaluations: Tensor


class Decisions:
    """Systems of a task, all at once, from states x0 [B, ...].

    seen: where they stand.  over [B]: whose episode has ended; they stand still.  spent [B]: evaluations.
    """

    def __init__(self, task: Task, x0: Tensor) -> None:
        self.task = task
        none = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        self.x0, self.spent = x0.clone(), none.clone()
        self.over = torch.zeros_like(none, dtype=torch.bool)
        self.seen = Seen(x0.clone(), none, none, none, none + 1, none + 1, none.long(), none + 1)

    def observation(self) -> Tensor:
        """[B, n]."""
        return self.task.observe(self.seen)

    def begin(self, who: Tensor, x0: Tensor) -> None:
        """New episodes of systems `who` [K], from x0 [K, ...]."""
        fresh = Decisions(self.task, x0)

        def put(old: Tensor, new: Tensor) -> Tensor:
            return old.index_copy(0, who, new)

        self.x0, self.spent, self.over = (
            put(getattr(self, name), getattr(fresh, name)) for name in ("x0", "spent", "over")
        )
        self.seen = Seen(
            **{name: put(old, getattr(fresh.seen, name)) for name, old in vars(self.seen).items()}
        )

    def decide(self, action: Tensor) -> Decided:
        """Go on to the next decision, with actions [B].

        Raises:
            ArgumentError: actions that are not of the task.
        """
        if action.shape != self.over.shape:
            raise ArgumentError(
                f"actions {tuple(action.shape)}: give one for each of {len(self.over)} systems"
            )
        task, old, was = self.task, self.seen, self.over
        values, who = task.parameter(action), (~was).nonzero()[:, 0]
        x, evaluations = old.x, torch.zeros_like(old.error)
        if len(who):
            new, cost = task.run(x[who], old.t[who], values[who])
            x = x.index_copy(0, who, new)
            evaluations = evaluations.index_copy(0, who, cost.to(evaluations))
        fine = x.isfinite().flatten(1).all(1)  # else it stands where it stood, and its error is infinite
        x = torch.where(fine.view(-1, *(1,) * (x.ndim - 1)), x, old.x)
        made = old.made + ~was
        t = made.double() * task.every
        error = torch.where(fine, task.deviation(x, self.x0, t), torch.inf)
        left = 1 - made.double() / task.decisions
        now = Seen(x, t, error, old.error, values, evaluations, made, left)
        self.seen = replace(now, **{name: torch.where(was, getattr(old, name), getattr(now, name))
                                    for name in ("error", "before", "value", "evaluations")})  # fmt: skip
        self.spent = self.spent + evaluations
        self.over = was | ~(now.error <= task.lost) | (made >= task.decisions)
        reward = task.reward(now)
        if reward.shape != was.shape:
            raise ArgumentError(
                f"reward gave {tuple(reward.shape)}: one number for each of {len(was)} systems"
            )
        reward = torch.where(was, 0.0, reward)
        return Decided(self.observation(), reward, self.over, self.seen.error, evaluations)
