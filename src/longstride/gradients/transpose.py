"""A run transposed, step by step, from its end; and a value that torch differentiates by that.

A run is a chain of steps, s_(n+1), y_n = step_n(s_n, theta), where s_n is what step n - 1 kept, states and
evaluations, and y_n what the run gives out in step n. With the cotangents g_n = dL/ds_n and h_n = dL/dy_n,

    (g_n, dL/dtheta +=) = (d step_n/d(s_n, theta))^T (g_(n+1), h_n)

so backpropagation needs s_n for falling n, and no more than one step's graph at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..core import Field
from ..integrate import Callback, run, take
from ..noise import Noise
from ..plan import Plan

Kept = tuple[Sequence[Tensor], Sequence[Tensor]]  # states and evaluations between two steps
Given = Mapping[int, Sequence[Tensor | None]]  # by the number of a step: what belongs to what it gives out
Pull = Callable[[dict[int, Kept], Given, Sequence[Tensor]], list[Tensor | None]]


class Steps(Protocol):
    """A run as a chain.  states: how many it begins with.  step(n, what step n - 1 kept): what n keeps.

    look: that, and what the run gives out in step n.
    """

    @property
    def states(self) -> int: ...

    def __len__(self) -> int: ...

    def step(self, n: int, state: Kept) -> Kept: ...

    def look(self, n: int, state: Kept) -> tuple[Kept, Sequence[Tensor]]: ...


@dataclass(frozen=True)
class Chain:
    """The steps of a plan on fields, with the plan's noise, from any state to any other.

    save: the steps after which the newest state is given out; default the last.
    """

    fields: Sequence[Field]
    plan: Plan
    noise: Noise | None = None
    save: frozenset[int] | None = None

    @property
    def states(self) -> int:
        return self.plan.states

    def __len__(self) -> int:
        return len(self.plan.steps)

    def step(self, n: int, state: Kept) -> Kept:
        return take(self.fields, self.plan, n, *state, self.noise)

    def look(self, n: int, state: Kept) -> tuple[Kept, Sequence[Tensor]]:
        kept = self.step(n, state)
        return kept, [kept[0][-1]] if n in (self.save or {len(self) - 1}) else []


@torch.no_grad()
def go(chain: Steps, state: Kept, a: int, b: int) -> Kept:
    """From the state before step a to that before step b."""
    for n in range(a, b):
        state = chain.step(n, state)
    return state


@dataclass(frozen=True)
class Memory:
    """What a way of differentiating remembers of a run, and what it makes of that.

    keep: numbers n of the steps before which the state is kept; n = steps is the end.
    pull(states by number, g, wanted): (dL/dx of each state at the beginning, dL/dw of each wanted) from
    g = dL/d(what each step gave out).
    """

    keep: frozenset[int]
    pull: Pull


class Ties:
    """Tensors of the user's, and what stands for them inside, cut off from how they were made."""

    def __init__(self) -> None:
        self.outside, self.inside = list[Tensor](), list[Tensor]()

    def inner(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        self.outside.append(value)
        self.inside.append(value.detach().requires_grad_())
        return self.inside[-1]


def attached(
    chain: Chain,
    xs: Sequence[Tensor],
    memory: Memory,
    ties: Ties | None = None,
    callback: Callback | None = None,
) -> list[Tensor]:
    """What a chain gives out from the states xs, computed step by step, with `memory` as its gradient."""
    ties, steps, plan = ties or Ties(), len(chain), chain.plan
    held, found, given = dict[int, Kept](), dict[int, Tensor](), dict[int, list[Tensor]]()
    state: Kept = [x.detach() for x in xs], []
    for n in range(steps):
        if n in memory.keep:
            held[n] = state
        with torch.enable_grad():
            out, seen = chain.look(n, state)
        found |= leaves([*out[0], *out[1]])
        state = [v.detach() for v in out[0]], [v.detach() for v in out[1]]
        given[n] = [v.detach() for v in seen]
        if callback is not None:
            callback(n, plan.times[n + 1], state[0][-1])
    if steps in memory.keep:
        held[steps] = state
    if not torch.isfinite(state[0][-1]).all():
        run(chain.fields, plan, [x.detach() for x in xs], chain.noise)  # says where
    others = [leaf for leaf in found.values() if all(leaf is not t for t in ties.inside)]
    wanted = [*ties.inside, *others]
    return tied(given, held, memory.pull, wanted, [*xs, *ties.outside, *others])


def tied(
    given: Mapping[int, Sequence[Tensor]],
    held: dict[int, Kept],
    pull: Pull,
    wanted: Sequence[Tensor],
    inputs: Sequence[Tensor],
) -> list[Tensor]:
    """The tensors of `given` as functions of `inputs`, whose gradient `pull` makes of what is held."""
    values = [v for part in given.values() for v in part]
    if not torch.is_grad_enabled() or not values or not any(t.requires_grad for t in inputs):
        return values
    counts = {n: len(part) for n, part in given.items()}
    sizes = {n: (len(xs), len(fs)) for n, (xs, fs) in held.items()}

    def backward(saved: Sequence[Tensor], g: Sequence[Tensor | None]) -> list[Tensor | None]:
        rest, states = iter(saved), dict[int, Kept]()
        for n, (a, b) in sizes.items():
            states[n] = list(islice(rest, a)), list(islice(rest, b))
        cotangents = iter(g)
        return pull(states, {n: list(islice(cotangents, k)) for n, k in counts.items()}, wanted)

    saved = [v for xs, fs in held.values() for v in (*xs, *fs)]
    return list(_Attached.apply(backward, values, saved, *inputs))


class _Attached(torch.autograd.Function):
    """Values that are there already, with the function that gives their gradients."""

    @staticmethod
    def forward(ctx: Any, pull: Any, values: Any, saved: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.pull = pull
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        return tuple(value.clone() for value in values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *g: Tensor | None) -> tuple[Any, ...]:
        return None, None, None, *ctx.pull(ctx.saved_tensors, g)


def leaves(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """The leaves that want a gradient and that the graphs of these tensors lead to, by their id."""
    found = dict[int, Tensor]()
    nodes = [get_gradient_edge(t).node for t in tensors if t.requires_grad]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                nodes.append(after)
    return found


def transposed(
    chain: Steps, states: Iterable[tuple[int, Kept]], g: Given, wanted: Sequence[Tensor]
) -> list[Tensor | None]:
    """What `Memory.pull` gives, from (n, state before step n) for falling n."""
    total: list[Tensor | None] = [None] * len(wanted)
    cotangents: list[Tensor | None] = []  # of what step n keeps
    for n, state in states:
        size = len(state[0]) + len(state[1])
        found = _pulled(chain, n, state, cotangents, g.get(n, []), wanted)
        cotangents = found[:size]
        for i, part in enumerate(found[size:]):
            old = total[i]
            total[i] = part if old is None else old if part is None else old + part
    return [*cotangents[: chain.states], *total]


def _pulled(
    chain: Steps,
    n: int,
    state: Kept,
    cotangents: list[Tensor | None],
    g: Sequence[Tensor | None],
    wanted: Sequence[Tensor],
) -> list[Tensor | None]:
    """Step n transposed, at the state before it; its graph is gone on return. The last one has g alone."""
    xs, fs = ([v.detach().requires_grad_() for v in part] for part in state)
    with torch.enable_grad():
        (xs_n, fs_n), given = chain.look(n, (xs, fs))
    kept = [*xs_n, *fs_n]
    cotangents = cotangents or [None] * len(kept)
    return vjp([*kept, *given], [*xs, *fs, *wanted], [*cotangents, *g])


def vjp(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """sum of (d output/d input)^T cotangent for each input; None where that is nothing.

    The graph is kept: what lies outside of a step, say behind a weight that was computed, is passed again.
    """
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    outs, cots = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outs, list(inputs), cots, allow_unused=True, retain_graph=True))
