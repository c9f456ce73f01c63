"""Gradients of a run at little memory: a plan transposed, step by step, from the end.

A run is a chain of steps, s_(n+1) = step_n(s_n, theta), where s_n is what step n - 1 kept: states and
evaluations. With the cotangent g_n = (dL/ds_n)^T,

    g_n = (d step_n/d s_n)^T g_(n+1),        dL/dtheta = sum_n (d step_n/d theta)^T g_(n+1)

so backpropagation needs s_n for falling n and no more than one step's graph at a time. The ways to get s_n:
remember a few and compute the others again (`Checkpoint`), or undo the step (`Reverse`). Both give the
gradient of the numbers that the run made. `Adjoint` integrates the transposed differential equation
instead (`adjoint.py`) and is as near as its order says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from .adjoint import Adjoint, Middle, adjoint, vjp
from .core import Field, Step, Weight, advance
from .denoiser import Denoiser
from .errors import ArgumentError, unknown, whole
from .fields.cached import Cached
from .guidance import Guidance
from .integrate import Callback, run, take
from .noise import Noise
from .plan import Plan
from .process import Process
from .reverse import Account, Evaluation, accounted, reverse

Kept = tuple[Sequence[Tensor], Sequence[Tensor]]  # states and evaluations between two steps


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


def way_of(grad: bool | str | Way) -> Way | None:
    """What `grad=` of `sample` asks for; None where torch does it all or nothing is differentiated."""
    if isinstance(grad, Way):
        return grad
    if grad is True or grad is False:
        return None
    if not isinstance(grad, str) or grad not in WAYS:
        raise unknown("way of differentiating", grad, WAYS)
    return WAYS[grad]


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
        plan = mapped(plan, ties.inner)
    chain = Chain(model.fields(cond, guidance), plan, noise)
    return attached(chain, xs, _memory(way, chain, model.process), ties, callback)


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


def mapped(plan: Plan, change: Callable[[Any], Any]) -> Plan:
    """The plan with each weight w as change(w)."""

    def changed(step: Step) -> Step:
        stages = (
            replace(
                stage,
                x=tuple(map(change, stage.x)),
                f=tuple(map(change, stage.f)),
                z=tuple(map(change, stage.z)),
            )
            for stage in step.stages
        )
        return replace(step, stages=tuple(stages))

    return replace(plan, steps=tuple(map(changed, plan.steps)))


@dataclass(frozen=True)
class Chain:
    """The steps of a plan on fields, with the plan's noise, from any state to any other."""

    fields: Sequence[Field]
    plan: Plan
    noise: Noise | None = None

    def __len__(self) -> int:
        return len(self.plan.steps)

    def step(self, n: int, state: Kept) -> Kept:
        return take(self.fields, self.plan, n, *state, self.noise)

    @torch.no_grad()
    def go(self, state: Kept, a: int, b: int) -> Kept:
        """From the state before step a to that before step b."""
        for n in range(a, b):
            state = self.step(n, state)
        return state


@dataclass(frozen=True)
class Memory:
    """What a way of differentiating remembers of a run, and what it makes of that.

    keep: numbers n of the steps before which the state is kept; n = steps is the end.
    pull(states by number, g, wanted): (dL/dx of each state at the beginning, dL/dw of each wanted) from
    g = dL/d(end).
    """

    keep: frozenset[int]
    pull: Callable[[dict[int, Kept], Tensor, Sequence[Tensor]], list[Tensor | None]]


def _memory(way: Way, chain: Chain, process: Process) -> Memory:
    steps, plan = len(chain), chain.plan
    if isinstance(way, Checkpoint):
        memory = way.memory or math.ceil(2 * math.sqrt(steps))
        return Memory(
            frozenset({0, *places(0, steps, memory - 1)}),
            lambda states, g, wanted: transposed(chain, recall(states, chain, memory), g, wanted),
        )
    if isinstance(way, Reverse):
        back = _backward(plan)
        return Memory(
            frozenset({steps - 1}),
            lambda states, g, wanted: transposed(chain, undone(states, chain, back), g, wanted),
        )
    if any(
        isinstance(w, Tensor) and w.requires_grad for s in plan.steps for g in s.stages for *_, w in g.terms
    ):
        raise ArgumentError("the adjoint equation knows no weights of a plan: take grad='checkpoint'")
    middle = Middle(process, plan)
    return Memory(
        frozenset({middle.last, *range(middle.first)}),
        lambda states, g, wanted: adjoint(
            way, middle, chain.fields, {n: xs[-1] for n, (xs, _) in states.items()}, g, wanted, chain.noise
        ),
    )


def attached(
    chain: Chain,
    xs: Sequence[Tensor],
    memory: Memory,
    ties: Ties | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """The end of a chain from the states xs, computed step by step, with `memory` as its gradient."""
    ties, steps, plan = ties or Ties(), len(chain), chain.plan
    held, found = dict[int, Kept](), dict[int, Tensor]()
    state: Kept = [x.detach() for x in xs], []
    for n in range(steps):
        if n in memory.keep:
            held[n] = state
        with torch.enable_grad():
            out = chain.step(n, state)
        found |= leaves([*out[0], *out[1]])
        state = [v.detach() for v in out[0]], [v.detach() for v in out[1]]
        if callback is not None:
            callback(n, plan.times[n + 1], state[0][-1])
    if steps in memory.keep:
        held[steps] = state
    value = state[0][-1]
    if not torch.isfinite(value).all():
        run(chain.fields, plan, [x.detach() for x in xs], chain.noise)  # says where
    others = [leaf for leaf in found.values() if all(leaf is not t for t in ties.inside)]
    wanted, inputs = [*ties.inside, *others], [*xs, *ties.outside, *others]
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in inputs):
        return value
    sizes = {n: (len(xs), len(fs)) for n, (xs, fs) in held.items()}

    def pull(saved: Sequence[Tensor], g: Tensor) -> list[Tensor | None]:
        rest, states = iter(saved), dict[int, Kept]()
        for n, (a, b) in sizes.items():
            states[n] = list(islice(rest, a)), list(islice(rest, b))
        return memory.pull(states, g, wanted)

    return _Attached.apply(pull, value, [v for xs, fs in held.values() for v in (*xs, *fs)], *inputs)


class _Attached(torch.autograd.Function):
    """A value that is there already, with the function that gives its gradients."""

    @staticmethod
    def forward(ctx: Any, pull: Any, value: Tensor, saved: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.pull = pull
        ctx.save_for_backward(*saved)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
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
    chain: Chain, states: Iterable[tuple[int, Kept]], g: Tensor, wanted: Sequence[Tensor]
) -> list[Tensor | None]:
    """What `Memory.pull` gives, from g = dL/d(end) and (n, state before step n) for falling n."""
    total: list[Tensor | None] = [None] * len(wanted)
    cotangents: list[Tensor | None] = []  # of what step n keeps
    for n, state in states:
        size = len(state[0]) + len(state[1])
        found = _pulled(chain, n, state, cotangents, g, wanted)
        cotangents = found[:size]
        for i, part in enumerate(found[size:]):
            old = total[i]
            total[i] = part if old is None else old if part is None else old + part
    return [*cotangents[: chain.plan.states], *total]


def _pulled(
    chain: Chain,
    n: int,
    state: Kept,
    cotangents: list[Tensor | None],
    g: Tensor,
    wanted: Sequence[Tensor],
) -> list[Tensor | None]:
    """Step n transposed, at the state before it; its graph is gone on return. The last one has g alone."""
    xs, fs = ([v.detach().requires_grad_() for v in part] for part in state)
    with torch.enable_grad():
        xs_n, fs_n = chain.step(n, (xs, fs))
    cotangents = cotangents or [*[None] * (len(xs_n) - 1), g, *[None] * len(fs_n)]
    return vjp([*xs_n, *fs_n], [*xs, *fs, *wanted], cotangents)


def split(n: int, free: int) -> int:
    """How far to go on before the next state is kept, on the way back through n steps with `free` to keep.

    With f free and no step computed more than r times, one comes back through l(f, r) = C(f + 1 + r, r) steps
    at most, and l(f, r) = l(f, r - 1) + l(f - 1, r): what is before the state kept, and after it.
    """
    r = 1
    while _reach(free, r) < n:
        r += 1
    return min(_reach(free, r - 1), n - _reach(free - 1, r - 1))


def _reach(free: int, r: int) -> int:
    return math.comb(free + 1 + r, r)


def places(a: int, n: int, free: int) -> list[int]:
    """Steps before which a state is kept on the way from step a to the last of n, `free` of them at most."""
    out = list[int]()
    while free and n - a > 1:
        a += split(n - a, free)
        free -= 1
        out.append(a)
    return out


def recall(held: dict[int, Kept], chain: Chain, memory: int) -> Iterator[tuple[int, Kept]]:
    """(n, state before step n) for falling n; `memory` of them held at most, that of 0 among them."""
    for n in reversed(range(len(chain))):
        a = max(held)
        for m in places(a, n + 1, memory - len(held)):
            held[m] = chain.go(held[a], a, m)
            a = m
        yield n, chain.go(held[a], a, n)
        held.pop(n, None)


@dataclass(frozen=True)
class Backward:
    """The steps that undo all steps of a plan but the last, whose beginning is remembered.

    before: what each of them comes back to, in the order of going back.
    """

    steps: tuple[Step, ...]
    before: tuple[Account, ...]


def _backward(plan: Plan) -> Backward:
    if len(plan.steps) == 1:
        return Backward((), ())
    # A weight to be differentiated by may well be 0 or 1, and what a step can be solved for depends on that.
    front = mapped(replace(plan, times=plan.times[:-1], steps=plan.steps[:-1]), _value)
    return Backward(reverse(front).steps, tuple(accounted(front, start=True)[::-1]))


def _value(w: Weight) -> Weight:
    return w if not isinstance(w, Tensor) else w.detach() if w.ndim else w.item()


def undone(held: dict[int, Kept], chain: Chain, back: Backward) -> Iterator[tuple[int, Kept]]:
    """(n, state before step n) for falling n, each found by undoing step n; the last is held.

    Evaluations that step n began with were made at states that it began with too, and are made again.
    """
    ((n, (xs, fs)),) = held.items()
    yield n, (xs, fs)
    made, fs = dict[Evaluation, Tensor](), []
    for step, account in zip(back.steps, back.before, strict=True):
        with torch.no_grad():
            xs, fs = advance(chain.fields, step, xs, fs)
            at = dict(zip(account.before, xs, strict=True))
            made = {
                (i, t, k): made[i, t, k] if (i, t, k) in made else chain.fields[k](t, at[i])
                for i, t, k in account.known
            }
        n -= 1
        yield n, (xs, [made[e] for e in account.known])
