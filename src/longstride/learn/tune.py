"""The best solver for a model and a budget: fitted on some noises, chosen on others, judged on more."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import grid as grids
from ..core import Field
from ..denoiser import Denoiser
from ..errors import ArgumentError, SolveError, whole
from ..frame import DATA
from ..guidance import Guidance
from ..journal import Journal, fingerprint
from ..methods import REGISTRY
from ..metrics import endpoint_error, interval, squared_errors
from ..plan import Plan
from ..process import Process
from ..sampling import plan_reference, plan_sampling, prior, sample
from .free import Features, Free, fit, polish
from .optimal_times import optimal_times
from .trajectories import Trajectories, clock, trajectories

SEED = 0x74756E65  # added to the seed, so that nobody samples the noises that a plan was fitted to
ELEMENTS = 2**18  # noises times elements that weights are fitted to, unless `noises` says otherwise
MOST, LEAST = 4096, 64  # noises, whatever their size
FEW = 512  # noises at least, and an eighth of them, on which grids are compared and polishes begin
PART = 2**15  # elements behind a Jacobian
STARTS, FINALISTS = 3, 2  # grids that a polish begins from, and how many of them go on with all noises
FIRST = 4  # iterations before that is decided
SHAKE = 0.3  # of the distance of two times
SCREEN = 16  # noises that the whole registry is tried on
CHECKED = 16  # noises on which the reference is halved
CONVERGED = 0.2  # the reference's own error, as a share of the best error that is measured against it

# What is tried: families that are dense at the noisy end, in the middle, and at the clean one.
FAMILIES = (
    ("karras", "rho", (3.0, 7.0), (False,)),
    ("exponential", "rho", (0.7, 0.85, 1.0), (False, True)),
    ("decay", "gamma", (0.5, 0.3), (False, True)),
    ("flow_shift", "shift", (1.0, 2.0), (False, True)),
)
GRIDS: dict[str, grids.Grid] = {
    f"{family}:{key}={value:g}{':open=true' * end}": (family, {key: value} | ({"open": True} if end else {}))
    for family, key, values, ends in FAMILIES
    for value in values
    for end in ends
}
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A plan, what made it, and its error on the selection noises."""

    what: str
    plan: Plan
    error: float


def tune(
    model: Denoiser,
    nfe: int | Iterable[int],
    *,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    features: Features = lambda x: x,
    noises: int | None = None,
    select: int = 256,
    report: int = 1024,
    reference_nfe: int = 128,
    iterations: int = 20,
    hops: int = 8,
    batch: int = 256,
    cache: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> Any:
    """The plan of nfe evaluations that ends nearest to the converged solution of this model.

    1. Solutions are made from three sets of noise that have nothing in common: to fit, to choose, to report.
    2. Every method of the registry without noise of its own is tried, the best of them on every grid.
    3. On each grid, and on the times of `optimal_times`, the weights are fitted in closed form (`fit`); from
       the best of them times, the times that the network is told, and weights together go to a minimum
       (`polish`), from where the best is shaken and polished again.
    4. What is best on the selection noises is returned, be it a method as published.

    Args:
        nfe: a budget, or several, which share the solutions.
        cond: what the network is conditioned on: a value, or a tensor or list of them, dealt out to the
            noises in turn.
        features: of samples [n, *shape], what errors are measured in; the samples themselves.
        noises: to fit to; 2^18 over the elements of a sample, from 64 to 4096, unless given.
        select, report: noises to choose and to report on.
        reference_nfe: of the solutions; it is halved on some noises, to see whether they have converged.
        iterations: of a polish, at most.
        hops: times that the best solver is shaken and polished again, on the first noises.
        batch: noises that go through the network at once.
        cache: a folder that keeps what is finished: the same call goes on there, another budget shares it.
        progress: called with a line of text after everything that was done.

    Returns:
        The plan, or for several budgets a dict of them. `plan.report` says how good it is on the noises of
        the report, beside the best untuned method, and what it cost.

    Raises:
        ArgumentError: a budget below 2, or conditions that do not fit.
        SolveError: a model that returns NaN, or solutions that have not converged.
    """
    budgets = sorted({whole("nfe", k, 2, "one evaluation leaves nothing to tune") for k in
                      ([nfe] if isinstance(nfe, int) else list(nfe))})  # fmt: skip
    if not budgets:
        raise ArgumentError("nfe is empty: give a budget, or several")
    if noises is not None:
        whole("noises", noises, CHECKED, "what so few weights fit says nothing of other noises")
    sizes = [noises or min(max(ELEMENTS // math.prod(model.shape), LEAST), MOST), select, report]
    for name, size in (("select", select), ("report", report)):
        whole(name, size, CHECKED)
    tuning = Tuning(model, seed, cond, guidance, features, sizes, reference_nfe, batch, cache, progress)
    plans = {k: tuning.plan(k, iterations, hops) for k in budgets}
    return plans[nfe] if isinstance(nfe, int) else plans


class Tuning:
    """What all budgets share: the model as a field, three sets of noise, the solutions from them."""

    def __init__(
        self, model: Denoiser, seed: int, cond: Mapping[str, Any] | None, guidance: float | Guidance,
        features: Features, sizes: Sequence[int], reference_nfe: int, batch: int,
        cache: str | Path | None, progress: Progress,
    ):  # fmt: skip
        self.model, self.guidance, self.features, self.say = model, Guidance.of(guidance), features, progress
        self.sizes, self.seed, self.reference_nfe, self.evaluations = sizes, seed, reference_nfe, 0
        self.given, self.batch = _in_turn(cond or {}), batch
        drawn = prior(model, sum(sizes), SEED + seed, dtype=torch.float64)
        x, self.x_select, self.x_report = drawn.split(list(sizes))
        subject = {
            "model": fingerprint(model, x[:CHECKED], self.cond(CHECKED), self.guidance), "seed": seed,
            "sizes": list(sizes), "reference": reference_nfe, "features": features(x[:1]).sum().item(),
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(subject).encode()).hexdigest()[:16]
        self.kept = Journal(None if cache is None else Path(cache) / digest, subject)
        started = time.perf_counter()
        self.paths = self._paths(x)
        self.select, self.report = (
            self.kept.tensor(name, partial(self._reference, x, reference_nfe))
            for name, x in (("select", self.x_select), ("report", self.x_report))
        )
        half = self._reference(self.x_select[:CHECKED], max(reference_nfe // 2, 8))
        self.halved = endpoint_error(features(half), features(self.select[:CHECKED]))
        self.seconds = time.perf_counter() - started
        self.say(
            f"solutions from {sum(sizes)} noises; halving their evaluations moves them by {self.halved:.2g}"
        )

    def cond(self, n: int) -> dict[str, Any]:
        """The conditions of n noises, in turn."""
        return self._dealt(torch.arange(n))

    def _dealt(self, rows: Tensor) -> dict[str, Any]:
        return {k: v[rows % len(v)] if isinstance(v, Tensor) else v for k, v in self.given.items()}

    def fields(self, rows: Tensor) -> Field:
        """The data prediction for some of the noises, in batches."""
        parts = []
        for some in rows.split(self.batch):
            given = self.model.conditioning(self._dealt(some), len(some), self.model.device)
            parts.append(self.model.fields(given, self.guidance)[DATA])

        def evaluate(t: float, x: Tensor) -> Tensor:
            self.evaluations += len(x)
            return torch.cat([f(t, y) for f, y in zip(parts, x.split(self.batch), strict=True)])

        return evaluate

    def _sampled(self, plan: Plan, x: Tensor) -> Tensor:
        self.evaluations += plan.nfe * len(x)
        return sample(
            self.model, x_init=x, plan=plan, cond=self.cond(len(x)), guidance=self.guidance, batch=self.batch
        )

    def _reference(self, x: Tensor, nfe: int) -> Tensor:
        return self._sampled(plan_reference(self.model.process, nfe), x)

    def _paths(self, x: Tensor) -> Trajectories:
        """The solutions from x, of which a journal keeps the states."""
        made: list[Trajectories] = []

        def make() -> Trajectories:
            if not made:
                self.evaluations += self.reference_nfe * len(x)
                cond = self.cond(len(x))
                nfe, batch = self.reference_nfe, self.batch
                made.append(
                    trajectories(self.model, x, cond=cond, guidance=self.guidance, nfe=nfe, batch=batch)
                )
            return made[0]

        states = self.kept.tensor("states", lambda: make().states)
        end = self.kept.tensor("end", lambda: make().end)
        times = self.kept.value("times", lambda: make().times)
        return Trajectories(self.model.process, tuple(times), states, end)

    def error(self, plan: Plan, n: int | None = None) -> float:
        """On the first n selection noises; infinite where a plan blows up."""
        n = n or len(self.x_select)
        try:
            end = self._sampled(plan, self.x_select[:n])
        except SolveError:
            return math.inf
        return endpoint_error(self.features(end), self.features(self.select[:n]))

    def untuned(self, nfe: int) -> list[Candidate]:
        """The registry's best, on their best grids."""
        process, default = self.model.process, grids.default_grid(self.model.process)
        known: dict[str, float] = {}  # by weights: many names are the same

        def tried(cases: Iterable[tuple[str, str]], n: int) -> list[Candidate]:
            found = []
            for method, name in cases:
                plan = _planned(process, method, nfe, GRIDS.get(name, name))
                if plan is not None and not plan.stochastic:
                    key = f"{n} {plan.weights}"
                    if key not in known:
                        known[key] = self.error(plan, n)
                        found.append(Candidate(f"{method} on {name}", plan, known[key]))
            return sorted(found, key=lambda c: c.error)

        few = min(SCREEN, len(self.x_select))
        first = tried(((m, g) for m in REGISTRY for g in dict.fromkeys((default, "log_snr"))), few)
        best = list(dict.fromkeys(c.plan.method for c in first))[:8]
        second = tried(((m, g) for m in best for g in GRIDS), few)
        last = sorted([*first, *second], key=lambda c: c.error)[:6]
        return sorted((replace(c, error=self.error(c.plan)) for c in last), key=lambda c: c.error)

    def fitted(self, nfe: int) -> list[tuple[str, Free]]:
        """Weights in closed form on every grid, those first that do best on the first noises."""
        few, process, found = self.few, self.model.process, []
        field = self.fields(torch.arange(len(few.end)))
        tried = {name: grids.times(process, nfe, grid) for name, grid in GRIDS.items()}
        bends = self.paths.part(slice(0, CHECKED))
        if nfe < len(bends.times):
            given = {"cond": self.cond(CHECKED), "guidance": self.guidance}
            tried["optimal times"] = optimal_times(self.model, nfe, bends, **given)
            self.evaluations += CHECKED * len(bends.times)
        for name, times in tried.items():
            solver, end = fit(field, (*times, process.t_end), few)
            error = endpoint_error(self.features(end), self.features(few.end))
            found.append((error if math.isfinite(error) else math.inf, name, solver))
        return [(name, solver) for _, name, solver in sorted(found, key=lambda item: item[0])]

    def polished(self, solver: Free, paths: Trajectories, iterations: int) -> tuple[Free, float]:
        """The solver at a minimum over these noises, and its error there."""
        part = max(PART // math.prod(self.model.shape), LEAST)
        return polish(
            self.fields, solver, paths, iterations=iterations, part=part, features=self.features,
            seed=self.seed,
        )  # fmt: skip

    @property
    def few(self) -> Trajectories:
        return self.paths.part(slice(0, max(FEW, len(self.paths.end) // 8)))

    def plan(self, nfe: int, iterations: int, hops: int) -> Plan:
        """The best plan of this budget, with its report."""
        started, spent, seconds = time.perf_counter(), self.evaluations, self.seconds
        catalogue = self.untuned(nfe)
        if not catalogue:
            raise ArgumentError(f"no method of the registry can spend {nfe} evaluations on this process")
        self.say(f"{nfe} NFE: best untuned {catalogue[0].what}, {catalogue[0].error:.4g}")
        made = self.solvers(nfe, iterations, hops)
        best = min([*catalogue, *made], key=lambda c: c.error)  # the published one, among equals
        if self.halved > CONVERGED * best.error:
            raise SolveError(
                f"the reference has not converged: half its evaluations move it by {self.halved:.3g}, where "
                f"the best error is {best.error:.3g}; give reference_nfe={4 * self.reference_nfe}"
            )
        report = self._report(nfe, best, catalogue[0], [*made, *catalogue])
        report["evaluations"] = self.evaluations - spent
        report["seconds"] = round(time.perf_counter() - started, 1)
        report["seconds_of_solutions"] = round(seconds, 1)
        self.say(
            f"{nfe} NFE: {report['error']:.4g} beside {report['untuned']['error']:.4g}: {report['verdict']}"
        )
        tuned = best not in catalogue
        return replace(best.plan, method="tuned" if tuned else best.plan.method, report=report)

    def hopped(self, begun: list[tuple[Free, float, str]], hops: int) -> list[tuple[Free, float, str]]:
        """The same, best first, and with what is found from the best one's times when they are shaken.

        A polish ends in the nearest minimum, and there are many. Times that are shaken by a part of their
        distances, with weights fitted anew, begin beside it.
        """
        few, process = self.few, self.model.process
        field, generator = self.fields(torch.arange(len(few.end))), torch.Generator().manual_seed(self.seed)
        for hop in range(hops):
            solver, _, name = begun[0]
            nodes = torch.tensor([clock(process, t) for t in solver.times[:-1]], dtype=torch.float64)
            gaps = torch.cat([nodes.diff(), nodes.diff()[-1:]])
            shaken = nodes + SHAKE * gaps * torch.randn(len(nodes), generator=generator, dtype=torch.float64)
            moved = solver.with_vector([*shaken[1:].tolist(), *solver.vector()[solver.nfe - 1 :]])
            again, _ = fit(field, moved.times, few)
            begun.append((*self.polished(again, few, FIRST), f"{name.split(',')[0]}, shaken {hop + 1} times"))
            begun.sort(key=lambda item: item[1])
        return begun

    def solvers(self, nfe: int, iterations: int, hops: int) -> list[Candidate]:
        """The best fit as it is, and what the best few lead to when every number moves."""
        fitted = self.fitted(nfe)[:STARTS]
        everyone = torch.arange(len(self.paths.end))
        name, best = fitted[0]
        made = [self._candidate(f"weights on {name}", fit(self.fields(everyone), best.times, self.paths)[0])]
        begun = [(*self.polished(solver, self.few, FIRST), name) for name, solver in fitted]
        begun = self.hopped(sorted(begun, key=lambda item: item[1]), hops)
        n = len(self.paths.end)
        for size, many in zip(dict.fromkeys((min(max(FEW, n // 4), n), n)), (FINALISTS, 1), strict=False):
            paths = self.paths.part(slice(0, size))
            begun = sorted(
                ((*self._kept(solver, paths, iterations), name) for solver, _, name in begun[:many]),
                key=lambda item: item[1],
            )
            what = "times, conditioning times and weights, from"
            made += [self._candidate(f"{what} {name}", solver) for solver, _, name in begun]
        return made

    def _kept(self, solver: Free, paths: Trajectories, iterations: int) -> tuple[Free, float]:
        """`polished`, which the journal knows or will know."""

        def numbers() -> dict[str, Any]:
            better, error = self.polished(solver, paths, iterations)
            return {"times": better.times, "at": better.at, "weights": better.weights, "error": error}

        known = self.kept.value(f"from {solver.vector()}, {iterations} iterations, {len(paths.end)}", numbers)
        rows = tuple(tuple(row) for row in known["weights"])
        return Free(self.model.process, tuple(known["times"]), tuple(known["at"]), rows), known["error"]

    def _candidate(self, what: str, solver: Free) -> Candidate:
        plan = solver.plan()
        found = Candidate(what, plan, self.error(plan))
        self.say(f"{solver.nfe} NFE: {what}, {found.error:.4g}")
        return found

    def _report(
        self, nfe: int, best: Candidate, untuned: Candidate, tried: list[Candidate]
    ) -> dict[str, Any]:
        ours, theirs = (
            squared_errors(self.features(self._sampled(c.plan, self.x_report)), self.features(self.report))
            for c in (best, untuned)
        )
        error, other = (float(e.mean().sqrt()) for e in (ours, theirs))
        low, high = (1.0, 1.0) if best is untuned else interval(ours, theirs)
        verdict = f"{1 / high:.2f} to {1 / low:.2f} times smaller"
        if best is untuned:
            verdict = "no tuned plan was better on the selection noises, so this is the untuned one"
        elif high >= 1:
            verdict = "the paired 95 % interval includes no gain"
        return {
            "tuned_for": {"model": self.model.name, "shape": list(self.model.shape),
                          "guidance": str(self.guidance), "nfe": nfe},
            "what": best.what, "error": error, "interval": interval(ours),
            "untuned": {"what": untuned.what, "error": other, "interval": interval(theirs)},
            "ratio": 1.0 if best is untuned else error / other, "ratio_interval": (low, high),
            "verdict": verdict,
            "tried": [{"what": c.what, "selection_error": c.error} for c in tried],
            "noises": dict(zip(("fitted", "selection", "report"), self.sizes, strict=True)),
            "seed": self.seed,
            "reference": {"nfe": self.reference_nfe, "moved_by_halving": self.halved},
        }  # fmt: skip


def _planned(process: Process, method: str, nfe: int, grid: grids.Grid) -> Plan | None:
    try:
        return plan_sampling(process, method, nfe, grid)
    except ArgumentError:
        return None


def _in_turn(cond: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions as tensors that are dealt out in turn."""
    given: dict[str, Any] = {}
    for name, value in cond.items():
        dealt = (isinstance(value, Tensor) and value.ndim > 0) or (
            isinstance(value, Sequence) and not isinstance(value, str)
        )
        given[name] = torch.as_tensor(value) if dealt else value
    lengths = {len(v) for v in given.values() if isinstance(v, Tensor)} - {1}
    if len(lengths) > 1 or 0 in lengths:
        raise ArgumentError(
            f"cond has values of lengths {sorted(lengths)}: they are dealt out in turn together"
        )
    return given
