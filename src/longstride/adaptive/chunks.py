"""Many adaptive steps compiled, with one look from the host at what became of them.

A native loop takes each sample to its end where states have few elements (`native.steps`); else several
masked steps are one graph of torch.compile.

Between two steps everything is a tensor, and a step is a function of tensors (`Graph.step`). A sample takes
part while it is `live`. What a graph cannot settle by masks (an event to be located, a step below what t can
resolve, the last steps of a budget) it leaves as it stood before that step: the sample waits, and the loop
takes the step uncompiled. So there is one place for all that is rare, and compiled runs end as others do.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..columns import WIDE, columnwise
from ..compiler import called, compiled, recorded
from ..control import PI, PID, Hindsight, I, Predictive
from ..errors import ArgumentError
from ..native.around import Made, around
from ..native.emit import Unsuited
from ..native.steps import counts, turned
from ..steppers.gauss_radau import GaussRadau
from ..steppers.hermite import HermiteStepper
from ..steppers.linearly import LinearlyImplicit
from ..steppers.trial import Explicit, Rate, Stepper, Trial
from .failure import REACHED, RUNNING
from .graphs import COLUMNS, Bounds, Graph, Hermites, Pairs, Parts, State
from .radaus import Radaus
from .rosenbrocks import Rosenbrocks

if TYPE_CHECKING:
    from .carry import Carry
    from .stepping import Loop

KINDS: tuple[tuple[type[Stepper], type[Graph]], ...] = (
    (Explicit, Pairs),
    (HermiteStepper, Hermites),
    (LinearlyImplicit, Rosenbrocks),
    (GaussRadau, Radaus),
)


def _begun(at: State, b: Bounds, code: Tensor) -> State:
    return at._replace(live=(code == RUNNING) & (at.s < b.end) & (at.left > 0))


def _come(at: State, b: Bounds, code: Tensor, last: Tensor, mark: Tensor) -> tuple[Tensor, Tensor]:
    """Who has come to the end of its last leg, and what the host must know."""
    running = code == RUNNING
    there = running & (at.s >= b.end)
    code = torch.where(there & last, REACHED, code)
    waits = running & ~there & ~at.live & (at.s < mark)
    flags = [code == RUNNING, waits, there & ~last, mark <= at.s]
    return code, torch.stack([flag.any() for flag in flags])


def _chunk(
    graph: Graph, rate: Rate, at: State, b: Bounds, code: Tensor, last: Tensor, mark: Tensor
) -> tuple[State, Tensor, Tensor, list[tuple[Tensor, ...]]]:
    """STEPS steps; who has come to the end of its last leg; what the host must know; the steps themselves."""
    at, kept = _begun(at, b, code), []
    for _ in range(graph.steps):
        at, taken = graph.step(rate, at, b)
        kept.append(taken)
    return (at, *_come(at, b, code, last, mark), kept)


def _turn(at: State, graph: Graph, rate: Rate, b: Bounds, mark: Tensor) -> tuple[State, tuple[Tensor, ...]]:
    """One step, after which those wait who have come to a mark."""
    at, taken = graph.step(rate, at, b)
    return at._replace(live=at.live & (at.s < mark)), taken


def graph_of(loop: Loop, columns: int) -> Graph:
    """What is compiled for a run, of states of up to so many columns.

    Raises:
        ArgumentError: nothing can be.
    """
    if loop.stepper.whole:
        raise ArgumentError(
            "compile=True weighs errors element by element, and this problem has a magnitude, of its own or "
            "of its space: leave it out"
        )
    for stepper, graph in KINDS:
        if isinstance(loop.stepper, stepper):
            return graph.of(loop, columns)
    raise ArgumentError(
        "compile=True knows explicit pairs, such as tsit5, Rosenbrock methods, such as rodas5p, hermite, and "
        "gauss_radau_15: take one of them, or leave it out"
    )


PLAIN = (I, PI, PID, Predictive, Hindsight)  # controllers that are their numbers
_MADE: Made = {}  # of runs that differ in f alone


def _copied(v: Tensor) -> Tensor:
    """With the strides that a graph gives: those of one sample alone would be kept."""
    return v.clone(memory_format=torch.contiguous_format)


class Chunks:
    """The chunks of a run: its state as a graph has it, and back again."""

    def __init__(self, loop: Loop, rate: Rate, f: Any, kind: bool | str = True) -> None:
        """kind: True, or "solver", where f is called as it is."""
        stepper = loop.stepper
        self.loop, self.stepper, self.rate, self.plain = loop, stepper, rate, kind == "solver"
        if loop.outputs or loop.reach or stepper.norm:
            raise ArgumentError(
                "save_at='steps', dense=, reduce=, on_budget=, norm= look at each step: leave out "
                f"compile={kind!r}"
            )
        device = stepper.rtol.device
        self.cuda, self.f = device.type == "cuda", f
        self.idle: bool | None = None  # whether f bears samples beside its own
        self.made: Made = {}
        self._take(graph_of(loop, WIDE))
        self.native = bool(self.graph.columns) and not stepper.shared  # until it is found not to be
        fits = self.native and type(stepper).trial is Explicit.trial and not self.cuda
        if self.plain and not (fits and stepper.dtype in (torch.float64, torch.float32)):
            raise ArgumentError(
                "compile='solver' takes explicit pairs, such as tsit5, on the CPU, and real states of up to "
                f"{WIDE} elements, each with steps of its own: leave it out"
            )
        if not self.native:
            self._take(graph_of(loop, COLUMNS))
        clock: dict[str, Any] = {"dtype": torch.float64, "device": device}
        limits = loop.limits
        self.longest = torch.tensor([limits.max_step], **clock)  # [1]: see `native.steps.turned`
        least = 1e-26 * (loop.end - loop.start), limits.min_step
        self.least = tuple(torch.tensor([value], **clock) for value in least)
        self.marks = torch.tensor([*loop.save.tolist(), torch.inf], **clock)

    def _take(self, graph: Graph) -> None:
        self.graph, shape = graph, self.stepper.shape
        self.rtol, self.atol = (
            self._parts(tol.expand(shape)) if tol.ndim else (tol[None],) * max(graph.columns, 1)
            for tol in (self.stepper.rtol, self.stepper.atol)
        )

    def _masked(self, at: State, b: Bounds) -> tuple[State, Bounds]:
        """Where no native loop is found, what the compiler of chunks is given, which has fewer columns."""
        before, self.native = self.graph, False
        self._take(graph_of(self.loop, COLUMNS))
        x, first = (self._parts(before.join(parts)) for parts in (at.x, at.first))
        return at._replace(x=x, first=first), b._replace(rtol=self.rtol, atol=self.atol)

    def _parts(self, x: Tensor) -> Parts:
        return tuple(map(_copied, self.graph.split(x)))

    def advance(self, c: Carry) -> bool:
        """Steps until all have ended, or somebody waits for a step of the loop: whether one does."""
        if self.stepper.graph or self.loop.observers:
            raise ArgumentError(
                "compile=True keeps nothing to backpropagate through, or to regularize by: leave it out, "
                "or give grad=False"
            )
        loop, active, tries, rejected = self.loop, c.code == RUNNING, c.tries, c.rejected
        bounds = Bounds(c.end, self.rtol, self.atol, self.longest, self.least, self.stepper.limit)
        at, last, on = self._state(c), c.leg == len(loop.legs) - 1, [True, False, False]
        with nullcontext() if self.plain else recorded():
            while on == [True, False, False]:
                before, mark = at.tries, self._mark(at, c)
                try:
                    at, c.code, flags, kept = self._called(at, bounds, c.code, last, mark)
                except Unsuited:
                    at, bounds = self._masked(at, bounds)
                    continue
                *on, marked = flags.tolist()
                c.passes += int((at.tries - before).max()) if self.native else self.graph.steps
                for s, h, s1, ok, x, K in kept if marked and loop.saving else ():
                    trial = Trial(s, h, x, x, x, K, full=None if isinstance(self.stepper, Explicit) else K)
                    c.extra = c.extra + self.stepper.between_costs * loop._emit(trial, s1, ok)
        c.s, c.h, c.tries, c.rejected = at.s, at.h, at.tries, at.rejected
        c.x, c.first, c.history, c.values = (
            self.graph.join(at.x), self.graph.join(at.first), at.history, list(at.values)
        )  # fmt: skip
        self.graph.restore(self.stepper, at, int((at.tries - tries).max()))
        c.bill = c.bill + self.graph.evaluations(at, at.tries - tries, at.rejected - rejected)
        if on[2]:
            loop._jump(c, (c.code == RUNNING) & (c.s >= c.end))
        loop._stop(c, active)
        loop._aim(c)
        return bool(on[1])

    def _mark(self, at: State, c: Carry) -> Tensor:
        """The time behind which each waits for the host: the next to be saved; if watched, that of now."""
        loop = self.loop
        if loop.watch is None:
            return self.marks[loop.next_save]
        loop.watch(self.stepper.time(at.s), self.graph.join(at.x), torch.minimum(at.h, c.end - at.s))
        return torch.nextafter(at.s, torch.full_like(at.s, torch.inf))

    def _state(self, c: Carry) -> State:
        """Copies: a graph is made anew where two of its inputs have become one tensor, or a view."""
        limits, loop = self.loop.limits, self.loop
        if isinstance(self.stepper, HermiteStepper):
            c.extra = c.extra + self.stepper.refresh(c.s, *c.x.chunk(2, 1))
        more, inner = (tuple(map(_copied, parts)) for parts in self.graph.carried())
        left = limits.max_steps - 1 - c.n - c.tries
        if limits.nfe is not None:
            free = limits.nfe - c.spent - loop.base - loop.reserve - c.bill - c.extra
            left = torch.minimum(left, free // (self.stepper.most + self.stepper.between_costs) - 1)
        history = tuple(v.clone() for v in c.history)
        return State(
            c.code == RUNNING, c.s.clone(), c.h.clone(), self._parts(c.x), self._parts(c.first),
            c.tries.clone(), c.rejected.clone(), left, history, tuple(c.values), more, inner,
        )  # fmt: skip

    def _around(self, at: State, b: Bounds, mark: Tensor) -> Any:
        """All turns, with f as it is."""
        graph, known = self.graph, not self.graph.events and type(self.graph.controller) in PLAIN
        now = (graph.time(at.s, b.limit), graph.join(at.x)) if graph.events else ()
        if any(counts(event.g, event.value, *now) for event in graph.events):
            raise ArgumentError("compile='solver': an event counts the samples, as by len(x): leave it out")

        def turn(rate: Rate, at: State, b: Bounds, mark: Tensor) -> Any:
            return _turn(at, graph, rate, b, mark)

        try:
            # What else a run is given may change behind its back: it is recorded for this run.
            key, made = (graph, _MADE) if known else (None, self.made)
            return around(made, key, turn, self.stepper.rate, at, b, mark)
        except Unsuited as error:
            raise ArgumentError(
                f"compile='solver': an event or the controller is no function of tensors, {error}: leave it "
                "out"
            ) from error

    def _called(self, at: State, b: Bounds, code: Tensor, last: Tensor, mark: Tensor) -> Any:
        if self.plain:
            at, kept = self._around(_begun(at, b, code), b, mark)
            return (at, *_come(at, b, code, last, mark), [kept])
        if self.native:
            if self.idle is None:
                t, x = self.graph.time(at.s, b.limit), self.graph.join(at.x)
                self.idle = not counts(self.f, self.rate, t, x)
            at, kept = turned(
                self.f, _turn, _begun(at, b, code), self.graph, self.rate, b, mark, idle=self.idle
            )
            return (at, *_come(at, b, code, last, mark), [kept])
        if self.loop.watch is not None:
            raise ArgumentError(
                "compile=True takes several steps at once, and watch= looks at each: leave one"
            )
        if self.cuda:
            torch.compiler.cudagraph_mark_step_begin()
        graph = compiled(_chunk, self.f, self.cuda, options=columnwise(self.cuda))
        what = "f, an event or the controller"
        out = called(graph, what, self.graph, self.rate, at, b, code, last, mark)
        # What a captured graph returns, its next run writes over.
        return torch.utils._pytree.tree_map(torch.clone, out) if self.cuda else out
