"""Evaluations that cost less: the network's last answer again, or its deep features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Field
from ..denoiser import Denoiser, affine
from ..errors import ArgumentError, SolveError, unknown, whole
from ..frame import PREDICTIONS, conversion
from ..guidance import Guidance


@dataclass
class Switch:
    """Whether kept modules answer with what they returned last."""

    on: bool = False


class Kept(nn.Module):
    """A module that answers with its last output while the switch is on."""

    def __init__(self, module: nn.Module, switch: Switch):
        super().__init__()
        self.module, self.switch, self.output = module, switch, None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.switch.on:
            self.size, self.output = len(x), self.module(x, *args, **kwargs)
        elif len(x) != self.size:
            raise SolveError(
                f"features of a batch of {self.size} cannot be reused for one of {len(x)}: where guidance "
                "begins or ends, evaluate anew"
            )
        return self.output


@dataclass(frozen=True)
class Cached(Denoiser):
    """A Denoiser some of whose evaluations, by their number in a run, reuse what an earlier one left.

    Runs begin at their plan's first time and do not come back to it: that is where the count starts.
    """

    reused: frozenset[int] = frozenset()
    hold: str | None = None  # the prediction that is reused; None: the features that `switch` is for
    switch: Switch = field(default_factory=Switch)

    def fields(
        self, cond: Mapping[str, Any] | None = None, guidance: float | Guidance = 1.0
    ) -> tuple[Field, ...]:
        number, begun, last = 0, None, None

        def numbered(target: str, evaluate: Field) -> Field:
            def count(t: float, x: Tensor) -> Tensor:
                nonlocal number, begun, last
                begun = t if begun is None else begun
                number = 0 if t == begun else number + 1
                again = number in self.reused
                if again and self.hold is not None:
                    s, y, out, known = last
                    out = affine(out, y, *conversion(known, self.hold, *self.process.pair(s)))
                    return affine(out, x, *conversion(self.hold, target, *self.process.pair(t)))
                self.switch.on = again
                out = evaluate(t, x)
                last = (t, x, out, target)
                return out

            return count

        inner = super().fields(cond, guidance)
        return tuple(numbered(target, f) for target, f in zip(PREDICTIONS, inner, strict=True))

    def network_calls(self, guidance: float | Guidance, times: Iterable[float]) -> int:
        asked = [t for n, t in enumerate(times) if self.hold is None or n not in self.reused]
        return super().network_calls(guidance, asked)

    def conditioned(self, cond: Mapping[str, Any] | None, guidance: Guidance) -> Callable:
        return super().conditioned(cond, guidance)
