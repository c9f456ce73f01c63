"""A run of an SDE as a differentiable function: by torch's graph, or from few states and the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..gradients.recall import places, recall
from ..gradients.transpose import Given, Kept, Pull, leaves, tied, transposed
from ..gradients.ways import Checkpoint, Reverse
from .course import Course

Way = Checkpoint | Reverse
WAYS: dict[str, Way] = {"checkpoint": Checkpoint(), "reverse": Reverse()}


def through(course: Course, x0: Tensor, counts: Sequence[int], way: Way | None) -> Tensor:
    """x [len(counts), *x0.shape] after as many steps, differentiable in the way that is asked for."""
    course.save = frozenset(n - 1 for n in counts if n)
    if way is None or not torch.is_grad_enabled():
        found = list(course.run(x0))
    else:
        found = _remembered(course, x0, *_memory(course, way))
    return torch.stack([x0, *found] if counts[0] == 0 else found)


def _remembered(course: Course, x0: Tensor, keep: set[int], pull: Pull) -> list[Tensor]:
    """What a course gives out, from the states before the steps in `keep`; its end has a number too."""
    kept: Kept = ((x0.detach(),), ())
    held, given, wanted = dict[int, Kept](), dict[int, Sequence[Tensor]](), dict[int, Tensor]()
    for n in range(len(course)):
        if n in keep:
            held[n] = kept
        (state, _), seen = course.look(n, kept)
        wanted |= leaves(state)
        kept, given[n] = (tuple(v.detach() for v in state), ()), [v.detach() for v in seen]
    if len(course) in keep:
        held[len(course)] = kept
    others = list(wanted.values())
    return tied(given, held, pull, others, [x0, *others])


def _memory(course: Course, way: Way) -> tuple[set[int], Pull]:
    """The steps before which the state is kept, and what makes gradients of that."""
    steps = len(course)
    if isinstance(way, Reverse):

        def undo(states: dict[int, Kept], g: Given, wanted: Sequence[Tensor]) -> list[Tensor | None]:
            return transposed(course, course.undone(tuple(states[steps][0])), g, wanted)

        return {steps}, undo
    held = way.memory or math.ceil(2 * math.sqrt(steps))

    def again(states: dict[int, Kept], g: Given, wanted: Sequence[Tensor]) -> list[Tensor | None]:
        return transposed(course, recall(states, course, held), g, wanted)

    return {0, *places(0, steps, held - 1)}, again
