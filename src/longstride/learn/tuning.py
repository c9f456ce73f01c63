"""What `tune` does for a model: solutions once, then for each budget what is fitted, chosen and reported."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError
from ..journal import Journal
from ..metrics import endpoint_error
from ..plan import Plan
from .catalogue import untuned
from .free import Free
from .judge import Candidate, Judge
from .recipes import RECIPES, SAMPLES, Request
from .search import Search
from .starts import Starts
from .subject import Sampling, Subject
from .trajectories import Trajectories

SKETCH = 4  # times as many evaluations, by the best method, tell where a solver errs
SOME = 1024  # selection starts that tell which method that is
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
        self.subject, self.judge, self.say = subject, judge, progress
        self.sizes, self.seed, self.reference_nfe = sizes, seed, reference_nfe
        start, *_, end = subject.times(2, subject.grids[0])
        if strange := [plan for plan in begin if (plan.times[0], plan.times[-1]) != (start, end)]:
            a, *_, b = strange[0].times
            raise ArgumentError(f"begin has a plan from t = {a:g} to {b:g}, not from {start:g} to {end:g}")
        begun = [(str(plan.report.get("what", plan.method)), Free.of(plan, subject.axis)) for plan in begin]
        rows = torch.arange(sum(sizes)).split(list(sizes))
        fit_rows, self.select_rows, self.report_rows, pool = rows
        about = {
            "subject": subject.identity(torch.arange(CHECKED)), "seed": seed, "sizes": list(sizes),
            "reference": reference_nfe, "for": subject.tuned_for(),
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        self.kept = Journal(None if cache is None else Path(cache) / digest, about)
        started = time.perf_counter()
        self.say(f"solving from {sum(sizes[:3])} starts, in {reference_nfe} evaluations each")
        self.plain = Starts(fit_rows, self._paths(fit_rows))
        self.select, self.report = (
            self.kept.tensor(name, partial(subject.reference, rows, reference_nfe)).to(subject.x.device)
            for name, rows in (("select", self.select_rows), ("report", self.report_rows))
        )
        half = subject.reference(self.select_rows[:CHECKED], reference_nfe // 2)
        self.halved = endpoint_error(judge.features(half), judge.features(self.select[:CHECKED]))
        self.search = Search(
            subject, judge, self.plain, pool, reference_nfe, through, seed, self.kept, progress, self.sketch,
            begun,
        )  # fmt: skip
        self.seconds = time.perf_counter() - started
        self.say(f"solved; half the evaluations move what they come to by {self.halved:.2g}")
        self.search.tell_of_slopes()

    def _paths(self, rows: Tensor) -> Trajectories:
        """The solutions to fit to, of which a journal keeps the states."""
        made: list[Trajectories] = []

        def make() -> Trajectories:
            if not made:
                made.append(self.subject.solutions(rows, self.reference_nfe))
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

    def sketch(self, nfe: int) -> Plan:
        """Of the best method at more evaluations: nearer to the solutions than what is tuned."""
        more = SKETCH * nfe
        return Plan.from_json(
            self.kept.value(f"near, {more} NFE", lambda: self.untuned(more, SOME)[0].plan.to_json())
        )

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

    def plan(
        self, nfe: int, iterations: int, hops: int, recipes: Sequence[str], storage: str | Path | None
    ) -> Plan:
        """The best plan of this budget, with its report."""
        started, spent, seconds = time.perf_counter(), self.subject.evaluations, self.seconds
        catalogue = self.untuned(nfe)
        if not catalogue:
            raise ArgumentError(f"no method of the registry can spend {nfe} evaluations here")
        self.say(f"{nfe} NFE: best untuned {catalogue[0].what}, {catalogue[0].error:.4g}")
        made = self.followed(nfe, recipes, catalogue[0])
        made += [self._candidate(*found) for found in self.search.solvers(nfe, iterations, hops, storage)]
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
        around = self.judge.interval(ours, self.report)
        if best.error > around[1]:  # chosen there, it should be less
            verdict += f"; {best.error:.3g} on the selection starts, so a larger report= is wanted"
        return {
            "tuned_for": {**self.subject.tuned_for(), "nfe": nfe},
            "what": best.what, "error": error, "interval": around,
            "untuned": {"what": untuned.what, "error": other,
                        "interval": self.judge.interval(theirs, self.report)},
            "ratio": 1.0 if same else error / other, "ratio_interval": (low, high),
            "verdict": verdict,
            "tried": [{"what": c.what, "selection_error": c.error} for c in tried],
            "noises": dict(zip(("fitted", "selection", "report", "drawn from"), self.sizes, strict=True)),
            "seed": self.seed,
            "reference": {"nfe": self.reference_nfe, "moved_by_halving": self.halved},
        }  # fmt: skip
