"""From closed-form fits to the best minimum that is found: polishes, hops, and whose starts they go by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core import Field
from ..journal import Journal
from ..metrics import endpoint_error
from ..plan import Plan
from .free import Free, fit
from .hops import Begun, hopped, read, written
from .judge import Judge
from .optimal_times import cheapest_path, jumps
from .polish import SetObjective, differentiable, polish, polish_set
from .starts import Starts, telling
from .subject import Subject

LEAST = 64  # starts, whatever their size
FEW = 512  # starts at least, and an eighth of them, on which polishes begin
SCREENED = 2**16  # elements that grids are compared on, of the first starts
BENDS = 16  # starts that show where trajectories do
PART = 2**15  # elements behind a Jacobian, of an eighth of the starts at most
STARTS = 4  # grids that a polish begins from
FIRST, SECOND = 3, 6  # iterations before it is decided what is shaken, and what goes on
FINALISTS = 2  # how many do
KEPT = ", as it began"
Named = tuple[str, Free]


@dataclass(eq=False)
class Search:
    """What it goes by.

    plain: starts whose solutions are known all the way; pool: rows that others are drawn from, if any, their
    solutions in reference_nfe evaluations; sketch: of a budget, the published plan that tells where its
    solvers err; begun: solvers to begin from as well, to which every budget adds its own.
    """

    subject: Subject
    judge: Judge
    plain: Starts
    pool: Tensor
    reference_nfe: int
    through: float
    seed: int
    kept: Journal
    say: Callable[[str], None]
    sketch: Callable[[int], Plan]
    begun: list[Named]

    def solvers(self, nfe: int, iterations: int, hops: int, storage: str | Path | None) -> Iterator[Named]:
        """The best fit as it is, and what the best few lead to when every number moves; as they are found."""
        fitted, objective = _of_both_kinds(self.fitted(nfe)), self.judge.objective
        name, first = fitted[0]
        closed = fit(self._field(self.plain), first.times, self.plain.paths, first.at[0])[0]
        yield f"weights on {name}", closed
        for name, solver in list(self.begun):
            if solver.nfe == nfe:
                yield name.removesuffix(KEPT) + KEPT, solver
        found = self._minima([*fitted, *self.enlarged(nfe)], iterations, hops, storage)
        made = [(f"conditioning times and weights, from {b.name}", b.solver) for b in found]
        self.begun.append(made[0])
        # The best by the starts of the polish: the few of a selection that matter say less.
        yield from made[:1] if objective is None else made
        if isinstance(objective, SetObjective):
            best = self._for_the_set(found[0].solver, objective, iterations)
            yield "all of these for the objective itself", best

    def _minima(
        self, fitted: Sequence[Named], iterations: int, hops: int, storage: str | Path | None
    ) -> list[Begun]:
        """The best that polishes and hops lead to, the best first."""
        few, nfe = self.few, fitted[0][1].nfe

        def begin(starts: Starts) -> list[Begun]:
            return _best([Begun(*self._polished(solver, starts, FIRST), name) for name, solver in fitted])

        hopping, field = few, self._field(few)
        if len(self.pool):
            hopping = self.told([b.solver for b in begin(few)], 0)

        def again(shaken: Free) -> tuple[Free, float]:
            return self._polished(fit(field, shaken.times, few.paths, shaken.at[0])[0], hopping, FIRST)

        subject = f"{self.kept.head} {nfe} {self._minimized}"
        found = _of_each_origin(hopped(begin(hopping), again, hops, self.seed, storage, subject))
        some = everyone = self.plain
        if len(self.pool):  # others, since the best of many is partly so by chance
            some = everyone = self.told([b.solver for b in found], 1)
        elif len(everyone) > FEW:
            some = everyone.first(max(FEW, len(everyone) // 4))
        rounds = [(some, len(found), min(SECOND, iterations)), (some, FINALISTS, iterations)]
        rounds += [(everyone, 1, iterations)] * (some is not everyone)
        for starts, many, steps in rounds:
            found = _best([Begun(*self._polished(b.solver, starts, steps), b.name) for b in found[:many]])
        return found

    def fitted(self, nfe: int) -> list[Named]:
        """Weights in closed form on every grid, those first that do best on the first starts."""
        few, end, found = self.few.first(max(SCREENED // self._size, LEAST)), self.subject.axis.end, []
        tried = {grid: self.subject.times(nfe, grid) for grid in self.subject.grids}
        late = {grid: self.subject.times(nfe + 1, grid) for grid in self.subject.grids}
        bends = self.plain.first(BENDS)
        if nfe < len(bends.paths.times):
            path = cheapest_path(jumps(self._field(bends), bends.paths), nfe)
            tried["optimal times"] = (*(bends.paths.times[i] for i in path[:-1]), end)
        asked = [(name, times, times[0]) for name, times in tried.items()]
        # Of one evaluation more, the first, at which nothing is known yet, left out.
        asked += [(f"{name} late", (times[0], *times[2:]), times[1]) for name, times in late.items()]
        for name, times, first in asked:
            solver, ends = fit(self._field(few), times, few.paths, first)
            error = endpoint_error(self.judge.features(ends), self.judge.features(few.paths.end))
            found.append(Begun(solver, error if math.isfinite(error) else math.inf, name))
        return [(b.name, b.solver) for b in _best(found)]

    def enlarged(self, nfe: int) -> list[Named]:
        """The largest solver that is known, evaluations added to it one by one, each where it helps most."""
        known = [solver for _, solver in self.begun if solver.nfe <= nfe]
        if not known:
            return []
        solver = first = max(known, key=lambda solver: solver.nfe)
        while solver.nfe < nfe:
            tried = [self._polished(solver.enlarged(i), self.few, 1) for i in range(solver.nfe)]
            solver = min(tried, key=lambda made: made[1])[0]
        return [(f"a plan of {first.nfe} evaluations", solver)]

    def told(self, solvers: Sequence[Free], half: int) -> Starts:
        """As many starts as are known, drawn from a half of the pool by where these solvers err."""
        n, pool, nfe = len(self.plain), self.pool.tensor_split(2)[half], solvers[0].nfe
        self.say(f"{nfe} NFE: drawing {n} of {len(pool)} starts by where {len(solvers)} solvers err")
        return telling(
            self.subject, solvers, self.sketch(nfe), pool, n, self.reference_nfe, self.seed, self.kept,
            self.judge.features,
        )  # fmt: skip

    def _polished(self, solver: Free, starts: Starts, iterations: int) -> tuple[Free, float]:
        """The solver at a minimum over these starts, and its error there; the journal may know it.

        A row's slack can do all that the time it leads to can, unless the state there is looked at.
        """

        def better() -> tuple[Free, float]:
            return polish(
                self._fields(starts), solver, starts.paths, iterations=iterations, part=self._part(starts),
                weights=starts.weights, fixed=() if self.through else range(solver.nfe - 1),
                features=self.judge.features, through=self.through, seed=self.seed,
            )  # fmt: skip

        key = f"from {solver.vector()}, {iterations} iterations, starts {starts.digest}, {self._minimized}"
        return self._known(key, better)

    def _for_the_set(self, solver: Free, objective: SetObjective, iterations: int) -> Free:
        """Polished on all starts for what the choice goes by."""

        def better() -> tuple[Free, float]:
            return polish_set(
                self._fields(self.plain), solver, self.plain.paths.noise, objective, iterations=iterations,
                fixed=range(solver.nfe - 1), features=self.judge.features, seed=self.seed,
            )  # fmt: skip

        truth = self.plain.paths.end  # tells one objective from another
        key = f"for a set, {self.judge.error(truth, truth)}, from {solver.vector()}, {iterations} iterations"
        return self._known(key, better)[0]

    def _known(self, key: str, make: Callable[[], tuple[Free, float]]) -> tuple[Free, float]:
        def numbers() -> dict[str, Any]:
            better, error = make()
            return {**written(better), "error": error}

        known = self.kept.value(key, numbers)
        return read(self.subject.axis, known), known["error"]

    def tell_of_slopes(self) -> None:
        """Says so where polishes cannot know the slope of all starts; by the smallest solver there is."""
        starts, times = self.plain, self.subject.times(2, self.subject.grids[0])
        ddim = Free(self.subject.axis, times, times[:-1], ((), (0.0,)))
        if self.through or self._part(starts) >= len(starts):
            return  # nothing is left to a part
        if not differentiable(self._fields(starts), ddim, starts.paths, self.judge.features):
            self.say("torch cannot differentiate the model: polishes know the slope of a part alone")

    @property
    def few(self) -> Starts:
        return self.plain.first(max(FEW, len(self.plain) // 8))

    @property
    def _size(self) -> int:
        return math.prod(self.subject.shape)

    @cached_property
    def _minimized(self) -> str:
        return f"{self.judge.identity(self.plain.paths.end[:BENDS])}, through {self.through}"

    def _part(self, starts: Starts) -> int:
        return max(min(PART // self._size, len(starts) // 8), LEAST)

    def _field(self, starts: Starts) -> Field:
        return self.subject.field(starts.rows)

    def _fields(self, starts: Starts) -> Callable[[Tensor], Field]:
        return lambda some: self.subject.field(starts.rows[some])


def _best(found: Sequence[Begun]) -> list[Begun]:
    return sorted(found, key=lambda b: b.error)


def _of_both_kinds(fitted: list[Named]) -> list[Named]:
    """The best few, half of them such that begin late, and half that do not: their minima lie far apart."""
    late = [solver.at[0] != solver.times[0] for _, solver in fitted]
    kinds = [[one for one, is_late in zip(fitted, late, strict=True) if is_late == kind] for kind in (0, 1)]
    some = [one for kind in kinds for one in kind[: STARTS // 2]]
    return [one for one in fitted if one in some]


def _of_each_origin(found: list[Begun]) -> list[Begun]:
    """The best of what came from each beginning, best first: few iterations tell little of where it ends."""
    return _best(list({b.name.split(",")[0]: b for b in reversed(found)}.values()))
