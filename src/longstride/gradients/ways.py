"""Gradients through a sampler at little memory: which ways there are, and what each remembers.

`Checkpoint` and `Reverse` give the gradient of the numbers that the run made: they come by the states between
the steps again, and transpose the steps (`transpose.py`, `recall.py`). `Adjoint` integrates the transposed
differential equation instead (`adjoint.py`) and is as near as its order says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError, unknown, whole
from ..fields.cached import Cached
from ..guidance import Guidance
from ..integrate import Callback
from ..noise import Noise
from ..plan import Plan
from ..process import Process
from .adjoint import Adjoint, Middle, adjoint
from .recall import backward, places, recall, undone
from .transpose import Chain, Given, Kept, Memory, Ties, attached, transposed


@dataclass(frozen=True)
class Checkpoint:
    """Remember some of the states between steps and compute the others again, with the fewest evaluations.

    memory: states kept at once, each with its history; default 2 sqrt(steps). With so many no step is
    computed more than three times, with as many as there are steps twice. (Griewank and Walther 2000.)
    """

    memory: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None:
            whole("memory", self.memory, 1, "a gradient needs the state that the run began with, at least")


@dataclass(frozen=True)
class Reverse:
    """Undo the steps of a reversible plan, such as bdia's: no state is remembered but the last."""


Way = Checkpoint | Reverse | Adjoint
WAYS: dict[str, Way] = {"checkpoint": Checkpoint(), "reverse": Reverse(), "adjoint": Adjoint()}


def way_of(grad: Any, ways: Mapping[str, Any] = WAYS) -> Any:
    """Which of the ways `grad=` asks for; None where torch does it all or nothing is differentiated."""
    if grad is True or grad is False or isinstance(grad, tuple(map(type, ways.values()))):
        return None if isinstance(grad, bool) else grad
    if not isinstance(grad, str) or grad not in ways:
        raise unknown("way of differentiating", grad, ways)
    return ways[grad]


def differentiable(
    model: Denoiser,
    plan: Plan,
    xs: Sequence[Tensor],
    noise: Noise | None,
    cond: Mapping[str, Any],
    guidance: Guidance,
    way: Way,
    callback: Callback | None = None,
) -> Tensor:
    """The end [B, *shape] of a plan from the states xs, which knows its gradient by whatever was used.

    That is xs, tensors among the conditions, a guidance weight that is a tensor, weights of the plan that
    are, parameters of the network, and any other leaf that its graph leads to.

    Raises:
        ArgumentError: a way that does not fit the plan or the model.
    """
    if isinstance(model, Cached):
        raise ArgumentError("evaluations of a cached model depend on earlier ones: use grad=True")
    ties = Ties()
    cond = {name: ties.inner(value) for name, value in cond.items()}
    if not callable(guidance.weight):
        guidance = replace(guidance, weight=ties.inner(guidance.weight))
    if not isinstance(way, Adjoint):
        plan = plan.mapped(ties.inner)
    chain = Chain(model.fields(cond, guidance), plan, noise)
    (end,) = attached(chain, xs, _memory(way, chain, model.process), ties, callback)
    return end


def discrete(way: Checkpoint | Reverse, chain: Chain) -> Memory:
    """Of the ways whose gradient is that of the numbers a plan makes."""
    steps = len(chain)
    if isinstance(way, Checkpoint):
        memory = way.memory or math.ceil(2 * math.sqrt(steps))
        return Memory(
            frozenset({0, *places(0, steps, memory - 1)}),
            lambda states, g, wanted: transposed(chain, recall(states, chain, memory), g, wanted),
        )
    back = backward(chain.plan)
    return Memory(
        frozenset({steps - 1}),
        lambda states, g, wanted: transposed(chain, undone(states, chain, back), g, wanted),
    )


def _memory(way: Way, chain: Chain, process: Process) -> Memory:
    steps, plan = len(chain), chain.plan
    if not isinstance(way, Adjoint):
        return discrete(way, chain)
    if any(
        isinstance(w, Tensor) and w.requires_grad for s in plan.steps for g in s.stages for *_, w in g.terms
    ):
        raise ArgumentError("the adjoint equation knows no weights of a plan: take grad='checkpoint'")
    middle = Middle(process, plan)

    def pull(states: dict[int, Kept], g: Given, wanted: Sequence[Tensor]) -> list[Tensor | None]:
        end, xs = g[steps - 1][0], {n: xs[-1] for n, (xs, _) in states.items()}
        if end is None:
            return [None] * (1 + len(wanted))
        return adjoint(way, middle, chain.fields, xs, end, wanted, chain.noise)

    return Memory(frozenset({middle.last, *range(middle.first)}), pull)
