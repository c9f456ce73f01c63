"""What `tune` does for a model: solutions once, then for each budget what is fitted, chosen and reported."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core import Field
from ..errors import ArgumentError, SolveError
from ..journal import Journal
from ..metrics import endpoint_error
from ..plan import Plan
from .catalogue import untuned
from .free import Free, fit
from .hops import Begun, hopped, read, written
from .judge import Candidate, Judge
from .optimal_times import cheapest_path, jumps
from .polish import SetObjective, differentiable, polish, polish_set
from .recipes import RECIPES, SAMPLES, Request
from .starts import Starts, telling
from .subject import Sampling, Subject
from .trajectories import Trajectories

LEAST = 64  # starts, whatever their size
FEW = 512  # starts at least, and an eighth of them, on which polishes begin
SKETCH = 4  # times as many evaluations, by the best method, tell where a solver errs
SOME = 1024  # selection starts that tell which method that is
SCREENED = 2**16  # elements that grids are compared on, of the first starts
PART = 2**15  # elements behind a Jacobian, of an eighth of the starts at most
STARTS = 4  # grids that a polish begins from
FIRST, SECOND = 3, 6  # iterations before it is decided what is shaken, and what goes on
FINALISTS = 2  # how many do
CHECKED = 16  # starts on which the reference is halved
CONVERGED = 0.2  # the reference's own error, as a share of the best error that is measured against it
RICHARDSON = 3  # its error is what halving moves it by over 2^p - 1: p is 4 where all is smooth, and here 2
FINE = 1e-5  # or that of the solutions' size: a plan may be exact
Progress = Callable[[str], None]


class Tuning:
    """What all budgets share: three sets of starts, and the solutions from them."""

    def __init__(
        self, subject: Subject, judge: Judge, through: float, sizes: Sequence[int], seed: int,
        reference_nfe: int, cache: str | Path | None, progress: Progress, begin: Sequence[Plan] = (),
    ):  # fmt: skip
        self.subject, self.judge, self.through, self.say = subject, judge, through, progress
        self.sizes, self.seed, self.reference_nfe = sizes, seed, reference_nfe
        start, *_, end = subject.times(2, subject.grids[0])
        if strange := [plan for plan in begin if (plan.times[0], plan.times[-1]) != (start, end)]:
            a, *_, b = strange[0].times
            raise ArgumentError(f"begin has a plan from t = {a:g} to {b:g}, not from {start:g} to {end:g}")
        self.begin = [Free.of(plan, subject.axis) for plan in begin]
        rows = torch.arange(sum(sizes)).split(list(sizes))
        self.fit_rows, self.select_rows, self.report_rows, self.pool = rows
        about = {
            "subject": subject.identity(torch.arange(CHECKED)), "seed": seed, "sizes": list(sizes),
            "reference": reference_nfe, "for": subject.tuned_for(),
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        self.kept = Journal(None if cache is None else Path(cache) / digest, about)
        started = time.perf_counter()
        self.say(f"solving from {sum(sizes[:3])} starts, in {reference_nfe} evaluations each")
        self.plain = Starts(self.fit_rows, self._paths())
        self.select, self.report = (
            self.kept.tensor(name, partial(subject.reference, rows, reference_nfe)).to(subject.x.device)
            for name, rows in (("select", self.select_rows), ("report", self.report_rows))
        )
        half = subject.reference(self.select_rows[:CHECKED], reference_nfe // 2)
        self.halved = endpoint_error(judge.features(half), judge.features(self.select[:CHECKED]))
        self.minimized = f"{judge.identity(self.select[:CHECKED])}, through {through}"
        self.seconds = time.perf_counter() - started
        self.say(f"solved; half the evaluations move what they come to by {self.halved:.2g}")

    def _paths(self) -> Trajectories:
        """The solutions to fit to, of which a journal keeps the states."""
        made: list[Trajectories] = []

        def make() -> Trajectories:
            if not made:
                made.append(self.subject.solutions(self.fit_rows, self.reference_nfe))
            return made[0]

        states = self.kept.tensor("states", lambda: make().states)
        end = self.kept.tensor("end", lambda: make().end)
        times = self.kept.value("times", lambda: make().times)
        where = self.subject.x.device  # a journal gives them back on the CPU
        return Trajectories(self.subject.axis, tuple(times), states.to(where), end.to(where))

    def error(self, plan: Plan) -> float:
        """On the selection starts."""
        return self.judge.of(plan, self.subject, self.select_rows, self.select)

    def untuned(self, nfe: int, n: int | None = None) -> list[Candidate]:
        """The best of the catalogue on the first n selection starts."""
        return untuned(self.subject, self.judge, self.select_rows[:n], self.select[:n], nfe)

    def followed(self, nfe: int, names: Sequence[str], best: Candidate) -> list[Candidate]:
        """What the published recipes make."""
        made: list[Candidate] = []
        for name in names:
            assert isinstance(self.subject, Sampling)
            paths = self.plain.paths.part(slice(0, SAMPLES))
            request = Request(self.subject, self.subject.counting(), nfe, paths, best.plan, self.seed)

            def make(request: Request = request, name: str = name) -> Any:
                try:
                    return RECIPES[name](request).to_json()
                except ArgumentError as error:  # such as a method that it does not know how to change
                    return str(error)

            found = self.kept.value(f"{name}, {nfe} NFE, from {best.plan.weights}", make)
            if isinstance(found, str):
                self.say(f"{nfe} NFE: {name} cannot: {found}")
                continue
            plan = Plan.from_json(found)
            made.append(Candidate(name, plan, self.error(plan)))
            self.say(f"{nfe} NFE: {name}, {made[-1].error:.4g}")
        return made

    def fitted(self, nfe: int) -> list[tuple[str, Free]]:
        """Weights in closed form on every grid, those first that do best on the first starts."""
        most = max(SCREENED // math.prod(self.subject.shape), LEAST)
        few, end, found = self.few.first(most), self.subject.axis.end, []
        field = self.subject.field(few.rows)
        tried = {grid: self.subject.times(nfe, grid) for grid in self.subject.grids}
        late = {grid: self.subject.times(nfe + 1, grid) for grid in self.subject.grids}
        bends = self.plain.paths.part(slice(0, CHECKED))
        if nfe < len(bends.times):
            path = cheapest_path(jumps(self.subject.field(self.fit_rows[:CHECKED]), bends), nfe)
            tried["optimal times"] = (*(bends.times[i] for i in path[:-1]), end)
        asked = [(name, times, times[0]) for name, times in tried.items()]
        # Of one evaluation more, the first, at which nothing is known yet, left out.
        asked += [(f"{name} late", (times[0], *times[2:]), times[1]) for name, times in late.items()]
        for name, times, first in asked:
            solver, ends = fit(field, times, few.paths, first)
            error = endpoint_error(self.judge.features(ends), self.judge.features(few.paths.end))
            found.append((error if math.isfinite(error) else math.inf, name, solver))
        return [(name, solver) for _, name, solver in sorted(found, key=lambda item: item[0])]

    def polished(self, solver: Free, starts: Starts, iterations: int) -> tuple[Free, float]:
        """The solver at a minimum over these starts, and its error there.

        A row's slack can do all that the time it leads to can, unless the state there is looked at.
        """
        return polish(
            lambda some: self.subject.field(starts.rows[some]), solver, starts.paths, iterations=iterations,
            part=self._part(starts), weights=starts.weights,
            fixed=() if self.through else range(solver.nfe - 1), features=self.judge.features,
            through=self.through, seed=self.seed,
        )  # fmt: skip

    def _part(self, starts: Starts) -> int:
        return max(min(PART // math.prod(self.subject.shape), len(starts) // 8), LEAST)

    @property
    def few(self) -> Starts:
        return self.plain.first(max(FEW, len(self.plain) // 8))

    def told(self, solvers: Sequence[Free], half: int) -> Starts:
        """As many starts as are known, drawn from a half of the pool by where these solvers err."""
        n, pool, nfe = len(self.plain), self.pool.tensor_split(2)[half], solvers[0].nfe
        self.say(f"{nfe} NFE: drawing {n} of {len(pool)} starts by where {len(solvers)} solvers err")
        more = SKETCH * nfe
        near = self.kept.value(f"near, {more} NFE", lambda: self.untuned(more, SOME)[0].plan.to_json())
        return telling(
            self.subject, solvers, Plan.from_json(near), pool, n, self.reference_nfe, self.seed, self.kept,
            self.judge.features,
        )  # fmt: skip

    def plan(
        self, nfe: int, iterations: int, hops: int, recipes: Sequence[str], storage: str | Path | None
    ) -> Plan:
        """The best plan of this budget, with its report."""
        started, spent, seconds = time.perf_counter(), self.subject.evaluations, self.seconds
        catalogue = self.untuned(nfe)
        if not catalogue:
            raise ArgumentError(f"no method of the registry can spend {nfe} evaluations here")
        self.say(f"{nfe} NFE: best untuned {catalogue[0].what}, {catalogue[0].error:.4g}")
        made = self.followed(nfe, recipes, catalogue[0]) + self.solvers(nfe, iterations, hops, storage)
        best = min([*catalogue, *made], key=lambda c: c.error)  # the published one, among equals
        ends = [self.judge.features(x) for x in (self.subject.ends(best.plan, self.select_rows), self.select)]
        error, size = endpoint_error(*ends), float(ends[1].double().square().mean().sqrt())
        if self.halved / RICHARDSON > max(CONVERGED * error, FINE * size):
            raise SolveError(
                f"the reference has not converged: half its evaluations move it by {self.halved:.3g}, where "
                f"the best error is {error:.3g}; give reference_nfe={4 * self.reference_nfe}"
            )
        report = self._report(nfe, best, catalogue[0], [*made, *catalogue])
        report["evaluations"] = self.subject.evaluations - spent
        report["seconds"] = round(time.perf_counter() - started, 1)
        report["seconds_of_solutions"] = round(seconds, 1)
        self.say(
            f"{nfe} NFE: {report['error']:.4g} beside {report['untuned']['error']:.4g}: {report['verdict']}"
        )
        return replace(best.plan, report=report)

    def solvers(self, nfe: int, iterations: int, hops: int, storage: str | Path | None) -> list[Candidate]:
        """The best fit as it is, and what the best few lead to when every number moves."""
        fitted, few = _of_both_kinds(self.fitted(nfe)), self.few
        name, first = fitted[0]
        closed = fit(self.subject.field(self.fit_rows), first.times, self.plain.paths, first.at[0])[0]
        made = [self._candidate(f"weights on {name}", closed)]
        self._tell_of_slopes(closed)
        made += [self._candidate("as it began", solver) for solver in self.begin if solver.nfe == nfe]
        fitted += self.enlarged(nfe)

        def begin(starts: Starts) -> list[Begun]:
            begun = [Begun(*self._kept(solver, starts, FIRST), name) for name, solver in fitted]
            return sorted(begun, key=lambda b: b.error)

        hopping, field = few, self.subject.field(few.rows)
        if len(self.pool):
            hopping = self.told([b.solver for b in begin(few)], 0)

        def again(shaken: Free) -> tuple[Free, float]:
            return self._kept(fit(field, shaken.times, few.paths, shaken.at[0])[0], hopping, FIRST)

        subject = f"{self.kept.head} {nfe} {self.minimized}"
        begun = hopped(begin(hopping), again, hops, self.seed, storage, subject)
        begun = _of_each_origin(begun)
        some = everyone = self.plain
        if len(self.pool):  # others, since the best of many is partly so by chance
            some = everyone = self.told([b.solver for b in begun], 1)
        elif len(everyone) > FEW:
            some = everyone.first(max(FEW, len(everyone) // 4))
        rounds = [(some, len(begun), min(SECOND, iterations)), (some, FINALISTS, iterations)]
        rounds += [(everyone, 1, iterations)] * (some is not everyone)
        for starts, many, steps in rounds:
            begun = [Begun(*self._kept(b.solver, starts, steps), b.name) for b in begun[:many]]
            begun.sort(key=lambda b: b.error)
        best = begun[0]  # by the starts of the polish: the few of `select` that matter say less
        for b in [best] if self.judge.objective is None else begun:
            made.append(self._candidate(f"conditioning times and weights, from {b.name}", b.solver))
        self.begin.append(best.solver)
        if isinstance(self.judge.objective, SetObjective):
            solver = self._for_the_set(best.solver, self.judge.objective, iterations)
            made.append(self._candidate("all of these for the objective itself", solver))
        return made

    def _tell_of_slopes(self, solver: Free) -> None:
        def fields(some: Tensor) -> Field:
            return self.subject.field(self.fit_rows[some])

        if self.through or self._part(self.plain) >= len(self.plain):
            return  # nothing is left to a part
        if not differentiable(fields, solver, self.plain.paths, self.judge.features):
            self.say("torch cannot differentiate the model: polishes know the slope of a part alone")

    def enlarged(self, nfe: int) -> list[tuple[str, Free]]:
        """The largest solver that is known, evaluations added to it one by one, each where it helps most."""
        known = [solver for solver in self.begin if solver.nfe <= nfe]
        if not known:
            return []
        solver = first = max(known, key=lambda solver: solver.nfe)
        while solver.nfe < nfe:
            tried = [self._kept(solver.enlarged(i), self.few, 1) for i in range(solver.nfe)]
            solver = min(tried, key=lambda made: made[1])[0]
        return [(f"a plan of {first.nfe} evaluations", solver)]

    def _for_the_set(self, solver: Free, objective: SetObjective, iterations: int) -> Free:
        """Polished on all starts for what the choice goes by."""

        def better() -> tuple[Free, float]:
            return polish_set(
                lambda rows: self.subject.field(self.fit_rows[rows]), solver, self.plain.paths.noise,
                objective, iterations=iterations, fixed=range(solver.nfe - 1), features=self.judge.features,
                seed=self.seed,
            )  # fmt: skip

        of_truth = self.judge.error(self.select, self.select)  # tells one objective from another
        return self._known(f"for a set, {of_truth}, from {solver.vector()}, {iterations} iterations", better)[
            0
        ]

    def _kept(self, solver: Free, starts: Starts, iterations: int) -> tuple[Free, float]:
        """`polished`, which the journal knows or will know."""
        key = f"from {solver.vector()}, {iterations} iterations, starts {starts.digest}, {self.minimized}"
        return self._known(key, lambda: self.polished(solver, starts, iterations))

    def _known(self, key: str, make: Callable[[], tuple[Free, float]]) -> tuple[Free, float]:
        def numbers() -> dict[str, Any]:
            better, error = make()
            return {**written(better), "error": error}

        known = self.kept.value(key, numbers)
        return read(self.subject.axis, known), known["error"]

    def _candidate(self, what: str, solver: Free) -> Candidate:
        plan = solver.plan()
        found = Candidate(what, plan, self.error(plan))
        self.say(f"{solver.nfe} NFE: {what}, {found.error:.4g}")
        return found

    def _report(
        self, nfe: int, best: Candidate, untuned: Candidate, tried: list[Candidate]
    ) -> dict[str, Any]:
        ours, theirs = (self.subject.ends(c.plan, self.report_rows) for c in (best, untuned))
        error, other = (self.judge.error(ends, self.report) for ends in (ours, theirs))
        same = best is untuned
        low, high = (1.0, 1.0) if same else self.judge.interval(ours, self.report, theirs)
        verdict = f"{1 / high:.2f} to {1 / low:.2f} times smaller"
        if same:
            verdict = "no tuned plan was better on the selection starts, so this is the untuned one"
        elif high >= 1:
            verdict = "the paired 95 % interval includes no gain"
        return {
            "tuned_for": {**self.subject.tuned_for(), "nfe": nfe},
            "what": best.what, "error": error, "interval": self.judge.interval(ours, self.report),
            "untuned": {"what": untuned.what, "error": other,
                        "interval": self.judge.interval(theirs, self.report)},
            "ratio": 1.0 if same else error / other, "ratio_interval": (low, high),
            "verdict": verdict,
            "tried": [{"what": c.what, "selection_error": c.error} for c in tried],
            "noises": dict(zip(("fitted", "selection", "report", "drawn from"), self.sizes, strict=True)),
            "seed": self.seed,
            "reference": {"nfe": self.reference_nfe, "moved_by_halving": self.halved},
        }  # fmt: skip


def _of_both_kinds(fitted: list[tuple[str, Free]]) -> list[tuple[str, Free]]:
    """The best few, half of them such that begin late, and half that do not: their minima lie far apart."""
    late = [solver.at[0] != solver.times[0] for _, solver in fitted]
    kinds = [[one for one, is_late in zip(fitted, late, strict=True) if is_late == kind] for kind in (0, 1)]
    some = [one for kind in kinds for one in kind[: STARTS // 2]]
    return [one for one in fitted if one in some]


def _of_each_origin(begun: list[Begun]) -> list[Begun]:
    """The best of what came from each beginning, best first: few iterations tell little of where it ends."""
    best = {b.name.split(",")[0]: b for b in reversed(begun)}
    return sorted(best.values(), key=lambda b: b.error)
