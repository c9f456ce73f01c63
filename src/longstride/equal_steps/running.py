"""Long runs in equal steps: what is saved, reduced, written down, shown and watched on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adaptive.output import Fold, Folding, Record, Recording
from ..errors import ArgumentError, functions
from ..integrate import Callback
from ..interrupts import between_steps
from ..solution import Stats
from .divergence import diverged, finite
from .resume import Book, digest
from .rollout import Stand, Steps
from .stretches import Stretches

LOOK = 64  # steps between two looks at whether the state is finite
SHOWN = 0.1  # seconds between two moves of a progress bar

OPTIONS = ("reduce", "checkpoint", "checkpoint_every", "progress", "compile")

Bar = Callable[[int, int], Any]  # (done, of)


@dataclass(frozen=True)
class Run:
    """What came of a run: the states after the steps `saved`, its end, what reductions came to."""

    x: list[Tensor]
    end: Tensor
    stats: Stats
    reduced: Any = None


class Reductions:
    """Folds and records of a run in equal steps."""

    def __init__(self, reduce: Any, times: Stretches) -> None:
        self.times, self.single = times, not isinstance(reduce, Sequence)
        asked = [] if reduce is None else [reduce] if self.single else list(reduce)
        for one in asked:
            if not isinstance(one, Fold | Record) or (isinstance(one, Fold) and one.at is not None):
                raise ArgumentError(
                    f"reduce = {one!r}: in equal steps a Record, or a Fold without at=; others go without dt="
                )
        self.asked = asked
        self.running: list[Folding | Recording] = [one.running(1.0) for one in asked]

    def begin(self, x: Tensor) -> None:
        for one in self.running:
            one.begin(self._at(0, x), x)

    def note(self, n: int, x: Tensor) -> None:
        """Step n - 1 was taken, to x."""
        for asked, one in zip(self.asked, self.running, strict=True):
            if n % asked.every == 0:
                one.take(self._at(n, x), x)

    def _at(self, n: int, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.times[n], dtype=torch.float64, device=x.device)

    @property
    def leaves(self) -> list[list[Tensor]]:
        return [one.leaves for one in self.running]

    def restore(self, leaves: Iterable[Sequence[Tensor]]) -> None:
        for one, found in zip(self.running, leaves, strict=True):
            one.restore(found)

    @property
    def found(self) -> Any:
        found = tuple(one.carry for one in self.running)
        return (found[0] if self.single else found) if found else None


class Pieces:
    """A run cut into as few pieces as what happens between them allows.

    often: after every so manieth step something happens.  hurried: and after a tenth of a second.
    """

    def __init__(self, run: Steps, often: Sequence[int], hurried: bool) -> None:
        self.run, self.often, self.most = run, often, run.grain if hurried else LOOK

    def next(self, stand: Stand, saved: Sequence[int]) -> Stand:
        """Up to the next step at which something happens; saved: the next that is kept."""
        n, began, grain = stand.n, time.monotonic(), self.run.grain
        steps = min(self.most, min([(n // k + 1) * k for k in self.often] + list(saved)) - n)
        stand = self.run.go(stand, steps)
        if self.most < LOOK:
            quick = SHOWN * steps / max(time.monotonic() - began, 1e-9)
            self.most = min(LOOK, 2 * self.most, grain * (1 + int(quick / grain)))
        return stand


def rolled(
    run: Steps,
    x0: Tensor,
    saved: Sequence[int],
    *,
    callback: Callback | None = None,
    reduce: Any = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 60.0,
    progress: bool | Bar = False,
) -> Run:
    """Go along the times of a run from x0; see `integrate.solve`.

    saved: numbers of states to keep, rising; 0 is x0.
    reduce: a `Record`, a `Fold` without `at`, or several.
    checkpoint: a folder, where the run is written down every `checkpoint_every` seconds, when it is told to
        end, and when it has ended. The same call goes on from there, to the same bits. It stays there.
    progress: show a bar on a terminal, or call progress(done, of).

    Raises:
        ArgumentError: a bad argument, or a checkpoint of another run.
        Diverged: NaN or infinity, looked for every `LOOK` steps.  SolveError: what f raised.
    """
    began = time.perf_counter()
    times, folds = run.times, Reductions(reduce, run.times)
    stand, kept = run.begin(x0), list[Tensor]()
    book = None if checkpoint is None else Book(checkpoint, asked(run, stand, x0, saved, folds))
    folds.begin(x0)
    if book is not None and (found := book.read(x0.device)):
        stand, kept, carries = found
        folds.restore(carries)
    elif saved and saved[0] == 0:
        kept.append(x0)
    looked, written = [stand], time.monotonic()
    often = [LOOK, times.steps, *([] if callback is None else [1]), *(one.every for one in folds.asked)]
    pieces = Pieces(run, often, hurried=book is not None or progress is not False)
    with between_steps(book is not None) as told, shown(progress, run.name) as show:
        while stand.n < times.steps:
            stand = pieces.next(stand, saved[len(kept) : len(kept) + 1])
            n, x, last = stand.n, run.state(stand), stand.n == times.steps
            if callback is not None:
                callback(n - 1, times[n], x)
            folds.note(n, x)
            if len(kept) < len(saved) and saved[len(kept)] == n:
                kept.append(x)
            show(n, times.steps)
            due = book and (last or told.number is not None or time.monotonic() > written + checkpoint_every)
            if due or last or n % LOOK == 0:
                if not finite(x):
                    raise diverged(run, looked[0], n)
                looked = [looked[-1], stand]
            if book and due:
                book.write(stand, kept, folds.leaves)
                written = time.monotonic()
                told.pass_on()
    seconds = time.perf_counter() - began
    return Run(
        kept, run.state(stand), Stats(stand.nfe, stand.nfe, times.steps, seconds, stand.nfe), folds.found
    )


def asked(run: Steps, stand: Stand, x0: Tensor, saved: Sequence[int], folds: Reductions) -> dict[str, Any]:
    """What a checkpoint is of. The problem is what the first step makes of x0."""
    times, first = run.times, run.state(run.step(stand))
    if first.requires_grad:
        raise ArgumentError("a checkpoint keeps no graph: take grad=False with checkpoint=")
    return {
        "problem": digest([first]),
        "start": digest([x0]),
        "shape": list(x0.shape),
        "dtype": str(x0.dtype),
        "method": run.name,
        "options": {key: repr(value) for key, value in run.options.items()},
        "t": [times[0], times[-1]],
        "steps": times.steps,
        "dt": times.sizes[0],
        "turns": digest([torch.tensor(times.turns, dtype=torch.float64)]),
        "saved": [len(saved), digest([torch.tensor(saved)])],
        "reduce": [f"{type(one).__name__} of every {one.every}" for one in folds.asked],
    }


def shown(progress: bool | Bar, label: str) -> AbstractContextManager[Bar]:
    """What moves a bar: one on the terminal, the user's own, or none; now and then alone."""
    if progress is False:
        return nullcontext(lambda done, total: None)
    if progress is True:
        from ..terminal import progress as bar  # it brings typer

        return _Seldom(bar(label))
    functions(progress=progress)
    return _Seldom(nullcontext(progress))


class _Seldom(AbstractContextManager[Bar]):
    def __init__(self, inner: AbstractContextManager[Bar]) -> None:
        self.inner, self.due = inner, 0.0

    def __enter__(self) -> Bar:
        self.bar = self.inner.__enter__()
        return self.move

    def __exit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)

    def move(self, done: int, total: int) -> None:
        if (now := time.monotonic()) > self.due or done == total:
            self.due = now + SHOWN
            self.bar(done, total)
