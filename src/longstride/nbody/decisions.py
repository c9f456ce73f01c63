"""The problem of P001 as an environment: a parameter of Hermite's steps for every tenth of a year."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ArgumentError
from .gravity import Gravity
from .rollouts import rollout
from .rules import collision
from .starts import YEAR

PARAMETERS = torch.logspace(-4, -1, 10, dtype=torch.float64)
TENTH, LOST = YEAR / 10, 0.1  # of a decision; the |E/E_0 - 1| at which a system has stopped
LEAST = 1e-16  # of an error that is seen

Reward = Callable[[Tensor, Tensor], Tensor]


def digits_less_cost(error: Tensor, evaluations: Tensor) -> Tensor:
    """-log10 |E/E_0 - 1| - log10 of the evaluations of the decision."""
    return -error.clamp_min(LEAST).log10() - evaluations.clamp_min(1.0).log10()


@dataclass(frozen=True)
class Decided:
    """After a decision: observation [B, 2 N d + 1], reward [B], over [B]; and of each system the energy error
    and the evaluations of this decision [B].
    """

    observation: Tensor
    reward: Tensor
    over: Tensor
    error: Tensor
    evaluations: Tensor


class Decisions:
    """Systems of bodies, all at once, from states [B, 2, N, d] in a frame of G = 1.

    An action [B] is a number of `PARAMETERS`: the share of the collision time that steps have until the next
    decision, `TENTH` later. A system is over after so many decisions (100 in the paper's training, 300 in its
    tests), or when its energy error passes `LOST`; then it stands still and costs nothing. What is observed:
    places/10, velocities, and -log10 of the energy error, 16 at most.

    reward(error, evaluations) -> [B]; the paper's own has weights for both.

    Raises:
        ArgumentError: states that are not [B, 2, N, d] of these bodies, or numbers that are no action.
    """

    def __init__(
        self, gravity: Gravity, x0: Tensor, decisions: int = 100, reward: Reward = digits_less_cost
    ) -> None:
        if x0.ndim != 4:
            raise ArgumentError(f"x0 {tuple(x0.shape)}: states [B, 2, N, d] of `Gravity.start`")
        self.gravity, self.decisions, self.reward = gravity, decisions, reward
        q, v = x0.unbind(1)
        self.x = gravity.start(q, v, centred=False)
        self.energy = gravity.energy(self.x)
        self.made, self.over = 0, torch.zeros(len(x0), dtype=torch.bool, device=x0.device)

    def error(self) -> Tensor:
        """|E/E_0 - 1| [B]."""
        return (self.gravity.energy(self.x) / self.energy - 1).abs()

    def observation(self) -> Tensor:
        """[B, 2 N d + 1]."""
        q, v = (part.flatten(1) for part in self.x.unbind(1))
        return torch.cat([q / 10, v, -self.error().clamp_min(LEAST).log10()[:, None]], 1)

    def decide(self, action: Tensor) -> Decided:
        """Go on to the next decision."""
        whole = not action.is_floating_point() and action.shape == self.over.shape
        if not whole or not bool(((action >= 0) & (action < len(PARAMETERS))).all()):
            raise ArgumentError(f"an action is a whole number of 0 to {len(PARAMETERS) - 1} for each system")
        who = (~self.over).nonzero()[:, 0]
        evaluations = torch.zeros(len(self.x), dtype=torch.float64, device=self.x.device)
        if len(who):
            numbers = PARAMETERS.to(self.x.device)[action[who]][None]
            found = rollout(self.gravity, self.x[who], TENTH, collision, numbers)
            self.x = self.x.index_copy(0, who, found.x)
            evaluations[who] = found.steps.double()
        self.made += 1
        error = self.error()
        reward = torch.where(self.over, 0.0, self.reward(error, evaluations))
        self.over = self.over | ~(error <= LOST) | (self.made >= self.decisions)
        return Decided(self.observation(), reward, self.over, error, evaluations)
