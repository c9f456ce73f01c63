"""Steps by what a run has seen of its errors: a controller whose corrections are learned."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..control import PI, History
from ..errors import ArgumentError
from ..policy_file import write

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
BASE = PI()
MEAN, SHARE = 1 / 32, 1 / 8  # rates of the running means


@dataclass(frozen=True, eq=False)
class ErrorPolicy:
    """PI control whose factors and tolerance are corrected by what was seen before.

    With error ratios r that fall as h^k, u = log(r)/k is how much longer than wanted a step was, as a
    logarithm. Observations o are `OBSERVATION`, seven numbers that do not change with the units of x and t,
    the tolerance or the method; actions are

        a_i = bound_i tanh(sum_j W_ij o_j):  r <- r exp(-k a_3),  factor <- factor exp(a_1) or exp(-a_2),

    the first where the step is kept. So the tolerance is met within exp(k/2), at every tolerance, and zeros
    are PI control to the last bit. A run of thousands of samples takes thousands of policies: W may be
    [3, 7, B].

    weights: W.  about: how it was made.

    Raises:
        ArgumentError: weights of another shape, or not finite.
    """

    weights: Tensor = field(default_factory=lambda: torch.zeros(len(ACTION), len(OBSERVATION)))
    about: str = ""

    def __post_init__(self) -> None:
        shape = tuple(self.weights.shape)
        if shape[:2] != (len(ACTION), len(OBSERVATION)) or len(shape) > 3:
            raise ArgumentError(f"weights {shape}: they are [{len(ACTION)}, {len(OBSERVATION)}], or one for "
                                "each sample, [..., B]")  # fmt: skip
        if not bool(self.weights.isfinite().all()):
            raise ArgumentError("the weights of a policy must be finite")

    def start(self, ones: Tensor) -> History:
        return (*(0 * ones,) * 5, *BASE.start(ones))

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        """history: five of the observations, those from the second on; then that of PI."""
        kept, change, longer, refused, share, *rest = history
        u = (ratio.log() / power).nan_to_num(3.0).clamp(-3.0, 3.0)
        seen = torch.stack([u, kept, change, longer, refused, share, torch.ones_like(u)])
        weights = self.weights.to(seen)
        weights = weights if weights.ndim == 3 else weights[:, :, None]
        grow, shrink, target = (
            bound * a.tanh() for bound, a in zip(BOUNDS, (weights * seen).sum(1).unbind(), strict=True)
        )
        factor, accept, inner = BASE.control(ratio * (-power * target).exp(), tuple(rest), power)
        # What is refused must become shorter.
        factor = factor * torch.where(accept, grow, -shrink).exp()
        factor = torch.where(accept, factor, factor.clamp(max=0.95))
        moved = factor.log()
        return factor, accept, (
            torch.where(accept, u, kept).clamp(min=-2.0),
            torch.where(accept, moved, change + moved).clamp(-3.0, 3.0),
            (torch.where(accept, (1 - MEAN) * longer, longer) + moved).clamp(-8.0, 8.0),
            torch.where(accept, 0.0, (refused + 1).clamp(max=4.0)),
            share + SHARE * ((~accept).to(share) - share),
            *inner,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write PATH.safetensors, the weights, and PATH.json, what they observe and how they were made."""
        write(path, self.weights, OBSERVATION, about=self.about)
