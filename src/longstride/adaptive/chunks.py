"""Several adaptive steps as one compiled graph, masked, with one look from the host at what became of them.

Between two steps everything is a tensor, and a step is a function of tensors (`Graph.step`). A sample takes
part while it is `live`. What a graph cannot settle by masks (an event to be located, a step below what t can
resolve, the last steps of a budget) it leaves as it stood before that step: the sample waits, and the loop
takes the step uncompiled. So there is one place for all that is rare, and compiled runs end as others do.

States [B, D] of few columns travel as D tensors [B]: then all of a step is elementwise over the batch and
becomes one vectorized loop. What stands between, such as `torch.stack` in f, `columns.py` takes apart.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..columns import columnwise
from ..control import Controller, History
from ..errors import ArgumentError, said
from ..methods.embedded import Rows
from ..steppers.hermite import Corrected, HermiteStepper
from ..steppers.trial import Explicit, Rate, Trial
from .events import Event
from .failure import REACHED, RUNNING

if TYPE_CHECKING:
    from .carry import Carry
    from .stepping import Loop

STEPS = 4  # of a chunk; of those that are long of themselves, one
COLUMNS, BODIES = 8, 32  # as many as a step may hold apart: of any state, of one of bodies
Parts = tuple[Tensor, ...]  # the columns of a state, or the state alone


class State(NamedTuple):
    """Between two steps: [G] each; tries, rejected and left count steps, `left` those the chunk may take.

    more: what a method carries besides x and f.
    """

    s: Tensor
    h: Tensor
    x: Parts
    first: Parts
    live: Tensor
    tries: Tensor
    rejected: Tensor
    left: Tensor
    history: History
    values: Parts
    more: Parts


class Made(NamedTuple):
    """A step that was tried.  K: what tells the solution along it.  wants: the next step [G], if told."""

    x1: Parts
    first: Parts
    K: Tensor | None
    ratio: Tensor
    wants: Tensor | None
    more: Parts


class Bounds(NamedTuple):
    """What holds for a chunk: where the leg ends [G], tolerances, the longest and the least step."""

    end: Tensor
    rtol: Parts
    atol: Parts
    longest: Tensor
    least: Tensor
    limit: Tensor | None


@dataclass(frozen=True)
class Graph:
    """What a graph is made for: the numbers in it.

    rows, c: of the evaluations after the first.  judges: of the error estimate, which falls with h^shrinks.
    columns: of the state where they travel apart, else 0.  shape: of a sample.
    lead: a number of each sample beside its state.
    keep: whether the evaluations of each step are given out, for the solution between its ends.
    """

    rows: Rows
    c: tuple[float, ...]
    judges: Rows
    shrinks: int
    controller: Controller
    events: tuple[Event, ...]
    sign: float
    shared: bool
    columns: int
    shape: tuple[int, ...]
    lead: tuple[int, ...]
    real: torch.dtype
    keep: bool

    @property
    def steps(self) -> int:
        return STEPS

    def join(self, parts: Parts) -> Tensor:
        return torch.stack(parts, 1).view(-1, *self.shape) if self.columns else parts[0]

    def split(self, x: Tensor) -> Parts:
        return x.flatten(1).unbind(1) if self.columns else (x,)

    def beside(self, v: Tensor, x: Tensor) -> Tensor:
        """[G] beside a part of the state."""
        return v.to(x.dtype) if self.columns else v.to(x.dtype).view(self.lead)

    def time(self, s: Tensor, limit: Tensor | None = None) -> Tensor:
        t = s.to(self.real)
        t = self.sign * (t if limit is None else torch.minimum(t, limit))
        return t[0] if self.shared else t

    def combined(self, row: Sequence[float], ks: Sequence[Parts]) -> Parts:
        """sum of w K_j without those of weight 0."""
        terms = [(w, k) for w, k in zip(row, ks, strict=False) if w]
        out = tuple(terms[0][0] * part for part in terms[0][1])
        for w, k in terms[1:]:
            out = tuple(a + w * part for a, part in zip(out, k, strict=True))
        return out

    def size(self, error: Parts, scale: Parts) -> Tensor:
        """Root mean square of what is scaled: [G]."""
        quotients = [e / q for e, q in zip(error, scale, strict=True)]
        if not self.columns:
            rows = quotients[0].reshape(self.lead[0], -1)
            count = rows.shape[1]
            return (torch.linalg.vector_norm(rows, dim=1) / count**0.5).to(torch.float64)
        total = quotients[0] * quotients[0]
        for q in quotients[1:]:
            total = total + q * q
        mean = total.mean(0, keepdim=True) if self.shared else total
        return (mean / self.columns).sqrt().to(torch.float64)

    def trial(self, rate: Rate, at: State, h: Tensor, b: Bounds) -> Made:
        """A step of h, as `trial.Explicit` has it."""
        x1, f = at.x, at.first
        by = self.beside(self.sign * h, at.x[0])
        ks = [tuple(by * part for part in f)]
        for row, c in zip(self.rows, self.c, strict=True):
            move = self.combined(row, ks)
            x1 = tuple(x + m for x, m in zip(at.x, move, strict=True))
            f = self.split(rate(self.time(at.s + c * h, b.limit), self.join(x1)))
            ks.append(tuple(by * part for part in f))
        scale = tuple(
            atol + rtol * torch.maximum(x.abs(), y.abs())
            for atol, rtol, x, y in zip(b.atol, b.rtol, at.x, x1, strict=True)
        )
        e, *other = [self.size(self.combined(row, ks), scale) for row in self.judges]
        ratio = e * (e / torch.hypot(e, 0.1 * other[0]).clamp_min(1e-300)) if other else e
        # h f in a Trial, here with the sign
        K = self.sign * torch.stack([self.join(k) for k in ks]) if self.keep else None
        return Made(x1, f, K, ratio, None, ())

    def step(self, rate: Rate, at: State, b: Bounds) -> tuple[State, tuple[Tensor, ...]]:
        """One step of all that are live; what it was: s, h, where it ended, who took it, and K if kept."""
        room = b.end - at.s
        wanted = torch.where(at.h < room, torch.minimum(at.h, room / 2), at.h)
        h = torch.where(at.live, torch.minimum(wanted, room), 0.0)
        x1, f, K, ratio, wants, more = self.trial(rate, at, h, b)
        factor, accept, history = self.controller.control(ratio, at.history, self.shrinks)
        after = h * factor if wants is None else torch.where(accept, wants, h * factor)
        after = torch.minimum(after, b.longest)
        least = torch.maximum(4 * torch.finfo(self.real).eps * at.s.abs() + b.least[0], b.least[1])
        live = at.live & (accept | (after > least))
        s1, values = at.s + h, at.values
        if self.events:
            x = self.join(x1)
            t = self.time(s1).expand(len(x))
            values = tuple(event.value(t, x) for event in self.events)
            for event, before, value in zip(self.events, at.values, values, strict=True):
                live = live & ~(accept & event.crossed(before, value))
        ok = accept & live
        s1 = torch.where(ok, torch.where(h >= room, b.end, s1), at.s)
        after = torch.where(accept & (h < wanted), torch.maximum(wanted, after), after)
        wide = ok if self.columns else ok.view(self.lead)
        left = at.left - live.to(at.left.dtype)
        state = State(
            s1,
            torch.where(live, after, at.h),
            tuple(torch.where(wide, a, b) for a, b in zip(x1, at.x, strict=True)),
            tuple(torch.where(wide, a, b) for a, b in zip(f, at.first, strict=True)),
            live & (s1 < b.end) & (left > 0),
            at.tries + live.to(at.tries.dtype),
            at.rejected + (live & ~accept).to(at.rejected.dtype),
            left,
            tuple(torch.where(live, a, b) for a, b in zip(history, at.history, strict=True)),
            tuple(torch.where(ok, a, b) for a, b in zip(values, at.values, strict=True)),
            tuple(torch.where(wide, a, b) for a, b in zip(more, at.more, strict=True)),
        )
        return state, () if K is None else (at.s, h, s1, ok, self.join(at.x), K)


@dataclass(frozen=True)
class Hermites(Graph):
    """Of Hermite's method, whose jerk is carried from step to step."""

    stepper: HermiteStepper

    @property
    def steps(self) -> int:
        return 1

    def trial(self, rate: Rate, at: State, h: Tensor, b: Bounds) -> Made:
        """As `hermite.HermiteStepper` has it; K is what tells the solution along a step."""
        stepper, half = self.stepper, self.shape[0] // 2
        jerk = torch.stack(at.more, 1).view(-1, half, *self.shape[1:]) if self.columns else at.more[0]
        trial = stepper.stepped(at.s, h, self.join(at.x), self.join(at.first), jerk, 1)
        assert isinstance(trial, Corrected)
        K = stepper.complete(trial) if self.keep else None
        x1, first, more = (self.split(part) for part in (trial.x1, trial.last, trial.jerk))
        return Made(x1, first, K, stepper.ratio(trial), trial.wants, more)


def _chunk(
    graph: Graph, rate: Rate, at: State, b: Bounds, code: Tensor, last: Tensor, mark: Tensor
) -> tuple[State, Tensor, Tensor, list[tuple[Tensor, ...]]]:
    """STEPS steps; who has come to the end of its last leg; what the host must know; the steps themselves."""
    running = code == RUNNING
    at = at._replace(live=running & (at.s < b.end) & (at.left > 0))
    kept = []
    for _ in range(graph.steps):
        at, taken = graph.step(rate, at, b)
        kept.append(taken)
    there = running & (at.s >= b.end)
    code = torch.where(there & last, REACHED, code)
    flags = [code == RUNNING, running & ~there & ~at.live, there & ~last, mark <= at.s]
    return at, code, torch.stack([flag.any() for flag in flags]), kept


_COMPILED: WeakKeyDictionary[Any, Callable[..., Any]] = WeakKeyDictionary()


def compiled(f: Any, cuda: bool) -> Callable[..., Any]:
    """`_chunk` compiled for f. Each f has code of its own: torch counts graphs by it, up to 8."""
    owner = getattr(getattr(f, "func", f), "__code__", f)
    if owner not in _COMPILED:
        own = types.FunctionType(_chunk.__code__.replace(), globals(), "_chunk")
        _COMPILED[owner] = torch.compile(own, fullgraph=True, dynamic=False, options=columnwise(cuda))
    return _COMPILED[owner]


class Chunks:
    """The chunks of a run: its state as a graph has it, and back again."""

    def __init__(self, loop: Loop, rate: Rate, f: Any) -> None:
        stepper = loop.stepper
        if not isinstance(stepper, Explicit | HermiteStepper):
            raise ArgumentError("compile=True knows explicit pairs, such as tsit5, and hermite: leave it out")
        if isinstance(stepper, HermiteStepper) and not hasattr(stepper.known, "jerk"):
            raise ArgumentError("compile=True of hermite takes what knows its jerk, such as nbody.Gravity")
        self.loop, self.stepper, self.rate = loop, stepper, rate
        if loop.outputs or loop.reach or loop.watch or stepper.norm:
            raise ArgumentError(
                "save_at='steps', dense=, reduce=, on_budget=, watch=, norm= look at each step: leave out "
                "compile=True"
            )
        shape, device = stepper.shape, stepper.rtol.device
        size = math.prod(shape[1:])
        narrow = (
            size <= BODIES if isinstance(stepper, HermiteStepper) else len(shape) == 2 and size <= COLUMNS
        )
        apart = size if narrow and not stepper.dtype.is_complex else 0
        known: Any = (
            stepper.shrinks, loop.controller, tuple(loop.events), stepper.sign, stepper.shared, apart,
            tuple(shape[1:]), stepper.lead, stepper.real, loop.saving,
        )  # fmt: skip
        self.graph: Graph
        if isinstance(stepper, HermiteStepper):
            self.graph, self.each = Hermites(*((), (), (), *known, stepper)), 1
        else:
            pair = stepper.pair
            self.graph, self.each = Graph(pair.a[1:], pair.c[1:], pair.error, *known), stepper.most
        self.cuda = device.type == "cuda"
        self.run = compiled(f, self.cuda)
        self.rtol, self.atol = (
            self._parts(tol.expand(shape)) if tol.ndim else (tol,) * max(self.graph.columns, 1)
            for tol in (stepper.rtol, stepper.atol)
        )
        clock: dict[str, Any] = {"dtype": torch.float64, "device": device}
        limits = loop.limits
        self.longest = torch.tensor(limits.max_step, **clock)
        self.least = torch.tensor([1e-26 * (loop.end - loop.start), limits.min_step], **clock)
        self.marks = torch.tensor([*loop.save.tolist(), torch.inf], **clock)

    def _parts(self, x: Tensor) -> Parts:
        return tuple(part.clone() for part in self.graph.split(x))

    def advance(self, c: Carry) -> bool:
        """Steps until all have ended, or somebody waits for a step of the loop: whether one does."""
        if self.stepper.graph or self.loop.observers:
            raise ArgumentError(
                "compile=True keeps nothing to backpropagate through, or to regularize by: leave it out, "
                "or give grad=False"
            )
        loop, active, spent = self.loop, c.code == RUNNING, c.tries
        bounds = Bounds(c.end, self.rtol, self.atol, self.longest, self.least, self.stepper.limit)
        at, last, on = self._state(c), c.leg == len(loop.legs) - 1, [True, False, False]
        while on == [True, False, False]:
            at, c.code, flags, kept = self._called(at, bounds, c.code, last, self.marks[loop.next_save])
            *on, marked = flags.tolist()
            c.passes += self.graph.steps
            for s, h, s1, ok, x, K in kept if marked else ():
                trial = Trial(s, h, x, x, x, K, full=None if isinstance(self.stepper, Explicit) else K)
                c.extra = c.extra + self.stepper.between_costs * loop._emit(trial, s1, ok)
        c.s, c.h, c.tries, c.rejected = at.s, at.h, at.tries, at.rejected
        c.x, c.first, c.history, c.values = (
            self.graph.join(at.x), self.graph.join(at.first), at.history, list(at.values)
        )  # fmt: skip
        if isinstance(self.stepper, HermiteStepper):
            self.stepper.jerk = self._joined(at.more)
        c.bill = c.bill + self.each * (at.tries - spent)
        if on[2]:
            loop._jump(c, (c.code == RUNNING) & (c.s >= c.end))
        loop._stop(c, active)
        loop._aim(c)
        return bool(on[1])

    def _joined(self, more: Parts) -> Tensor:
        """Half a state."""
        shape = self.stepper.shape
        return torch.stack(more, 1).view(-1, shape[1] // 2, *shape[2:]) if self.graph.columns else more[0]

    def _state(self, c: Carry) -> State:
        """Copies: a graph is made anew where two of its inputs have become one tensor, or a view."""
        limits, loop = self.loop.limits, self.loop
        more: Parts = ()
        if isinstance(self.stepper, HermiteStepper):
            c.extra = c.extra + self.stepper.refresh(c.s, *c.x.chunk(2, 1))
            more = self._parts(self.stepper.jerk)
        left = limits.max_steps - 1 - c.n - c.tries
        if limits.nfe is not None:
            free = limits.nfe - c.spent - loop.base - loop.reserve - c.bill - c.extra
            left = torch.minimum(left, free // (self.stepper.most + self.stepper.between_costs) - 1)
        history = tuple(v.clone() for v in c.history)
        return State(
            c.s.clone(), c.h.clone(), self._parts(c.x), self._parts(c.first), c.code == RUNNING,
            c.tries.clone(), c.rejected.clone(), left, history, tuple(c.values), more,
        )  # fmt: skip

    def _called(self, at: State, *bound: Any) -> Any:
        if self.cuda:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            out = self.run(self.graph, self.rate, at, *bound)
        except Exception as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            raise ArgumentError(
                f"compile=True: f, an event or the controller does not become one graph, {said(error)}; "
                "leave out compile=True, or write it in torch alone"
            ) from error
        # What a captured graph returns, its next run writes over.
        return torch.utils._pytree.tree_map(torch.clone, out) if self.cuda else out
