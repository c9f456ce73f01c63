"""Steps by what a run has seen of its errors: a controller whose corrections are learned."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .control import PI, History
from .errors import ArgumentError
from .policy_file import STEPS, write

OBSERVATION = (
    "u: log of the error ratio, over the power of h it falls with",
    "u of the last step that was kept",
    "log of the step over that last one",
    "log of the step over its running mean",
    "how often this step has been refused",
    "share of refused steps, running",
    "1",
)
ACTION = ("log of the factor of a kept step", "of a refused one, negative", "log of the step at which u is 0")
BOUNDS = (math.log(2.0), math.log(8.0), 0.5)  # of what the actions may be
MEAN, SHARE = 1 / 32, 1 / 8  # rates of the running means
GAINS = (*PI.betas, PI.safety)
SHAPE = (len(ACTION), len(OBSERVATION))
NUMBERS = len(GAINS) + len(ACTION) * len(OBSERVATION)


class Gains(PI):
    """PI control by numbers [3] or [3, B]: both gains and the safety factor."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, numbers: Tensor) -> None:
        # Of one policy they are floats, as those of `PI` are: a float over a tensor rounds as no tensor does.
        *betas, safety = numbers.tolist() if numbers.ndim == 1 else numbers.unbind()
        object.__setattr__(self, "betas", tuple(betas))
        object.__setattr__(self, "safety", safety)


def plain() -> Tensor:
    """The numbers of a policy that is `PI()`."""
    return torch.tensor(GAINS + (0.0,) * (NUMBERS - len(GAINS)), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class ErrorPolicy:
    """PI control with gains of its own, corrected by what was seen before.

    With error ratios r that fall as h^k, u = log(r)/k is how much longer than wanted a step was, as a
    logarithm. Observations o are `OBSERVATION`, seven numbers that do not change with the units of x and t,
    the tolerance or the method; actions are

        a_i = bound_i tanh(sum_j W_ij o_j):  r <- r exp(-k a_3),  factor <- factor exp(a_1) or exp(-a_2),

    the first where the step is kept. So the tolerance is met within exp(k/2), at every tolerance, and
    `plain()` is PI control to the last bit. A run of thousands of samples takes thousands of policies.

    numbers [24], or [24, B]: beta_1, beta_2 and the safety factor of PI control, then W by rows.
    about: how it was made.

    Raises:
        ArgumentError: numbers of another shape, or not finite.
    """

    numbers: Tensor = field(default_factory=plain)
    about: str = ""
    pi: Gains = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = tuple(self.numbers.shape)
        if shape[:1] != (NUMBERS,) or len(shape) > 2:
            raise ArgumentError(f"numbers {shape}: a policy has [{NUMBERS}], or one for each sample, [.., B]")
        if not bool(self.numbers.isfinite().all()):
            raise ArgumentError("the numbers of a policy must be finite")
        object.__setattr__(self, "pi", Gains(self.numbers[: len(GAINS)]))

    def start(self, ones: Tensor) -> History:
        return (*(0 * ones,) * 5, *self.pi.start(ones))

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        """history: five of the observations, those from the second on; then that of PI."""
        kept, change, longer, refused, share, *rest = history
        u = (ratio.log() / power).nan_to_num(3.0).clamp(-3.0, 3.0)
        seen = torch.stack([u, kept, change, longer, refused, share, torch.ones_like(u)])
        weights = self.numbers[len(GAINS) :].to(seen)
        sums = (weights.view(*SHAPE, -1) * seen).sum(1)
        grow, shrink, target = (bound * a.tanh() for bound, a in zip(BOUNDS, sums.unbind(), strict=True))
        judged = ratio * (-power * target).exp()
        factor, accept, inner = self.pi.control(judged, tuple(rest), power)
        factor = factor * torch.where(accept, grow, -shrink).exp()
        # What is refused must become shorter.
        factor = torch.where(accept, factor, factor.clamp(max=0.95))
        moved = factor.log()
        observed = (
            torch.where(accept, u, kept).clamp(min=-2.0),
            torch.where(accept, moved, change + moved).clamp(-3.0, 3.0),
            (torch.where(accept, (1 - MEAN) * longer, longer) + moved).clamp(-8.0, 8.0),
            torch.where(accept, 0.0, (refused + 1).clamp(max=4.0)),
            share + SHARE * ((~accept).to(share) - share),
        )
        return factor, accept, (*observed, *inner)

    def save(self, path: str | Path) -> None:
        """Write PATH.safetensors, the numbers, and PATH.json, what they observe and how they were made."""
        told = {"observation": OBSERVATION, "about": self.about}
        write(path, STEPS, {"numbers": self.numbers}, **told)
