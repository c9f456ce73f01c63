"""Several methods and grids on one model, from the same noise, against the converged solution."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .. import __version__
from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..files import output_folder
from ..grid import Grid
from ..journal import Journal, fingerprint, journal
from ..methods import REGISTRY
from ..metrics import endpoint_error, frechet_distance, statistics
from ..plan import Plan
from ..process import Process
from ..sampling import plan_sampling, prior, reference, sample
from .comparison import FINALISTS, REFERENCE_NFE, SCREENED, SHOWN, Comparison, Result, best_of, distinct
from .pictures import Strip, picture_grid
from .plots import error_plot

if TYPE_CHECKING:
    from ..models import Judge

COLUMNS = 10  # noises on the sheet of pictures
SECTIONS = 2  # budgets on the sheet: the smallest ones, where methods differ
DISTANCES = (6, 10)  # budgets at which the Frechet distance is taken, if they are compared

Cases = dict[tuple[str, str, int], Plan]  # by method, grid and budget
Conditions = Callable[[int], dict[str, Tensor] | None]  # of n samples


class _Runs:
    """What is measured of one model: each plan once, whatever it is called, and never twice."""

    def __init__(self, model: Denoiser, n: int, seed: int, cond: Conditions, guidance: float,
                 kept: Journal, count: Callable[[int], None]):  # fmt: skip
        self.model, self.cond, self.kept, self.count = model, cond, kept, count
        self.asked: dict[str, Any] = {"seed": seed, "guidance": guidance}
        self.x_init = prior(model, n, seed)
        self.exact = kept.tensor(
            "reference",
            lambda: reference(model, self.x_init, cond=cond(n), guidance=guidance, nfe=REFERENCE_NFE),
        )
        count(n * REFERENCE_NFE)

    def ends(self, plan: Plan, n: int) -> Tensor:
        """Where the plan leads from the first n noises."""
        return sample(self.model, x_init=self.x_init[:n], plan=plan, cond=self.cond(n), **self.asked)

    def error(self, plan: Plan) -> float:
        return endpoint_error(self.ends(plan, len(self.x_init)), self.exact)

    def distance(self, plan: Plan, judge: Judge, samples: int) -> float:
        x = sample(self.model, samples, plan=plan, cond=self.cond(samples), **self.asked)
        found = statistics(judge.classifier, x)
        return frechet_distance(found.mean, found.cov, judge.test.mean, judge.test.cov)

    def results(
        self, cases: Cases, what: str, size: int, measure: Callable[[Plan], float]
    ) -> tuple[Result, ...]:
        rows = []
        for case, plan in cases.items():
            rows.append(Result(*case, self.kept.value(f"{what} {plan.weights}", partial(measure, plan))))  # type: ignore[misc]
            self.count(size * case[2])
        return tuple(rows)


def compare(
    model: Denoiser,
    methods: Sequence[str] | None,
    grids: Mapping[str, Grid],
    nfes: Sequence[int],
    *,
    out: Path,
    n: int = 64,
    seed: int = 0,
    cond: Conditions = lambda n: None,
    guidance: float = 1.0,
    judge: Judge | None = None,
    samples: int = 5000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Run every method on every grid with every budget from the same n noises.

    Methods without noise are ranked by their end-point error. Those with noise have none, for they end
    elsewhere; with a judge they are ranked by Frechet distance, the best beside the best without noise.

    Writes to the folder `out`: table.md, table.json, error.png, and for images pictures.png, all of
    them or none. What is finished is kept in `out/unfinished` until then: an interrupted comparison goes on
    there.

    Args:
        methods: None for all.  grids: by the name that tables call them.
        cond: for n samples, what the network takes beside x and t, [n, ...] each.
        progress: called with (evaluations done, in all) after every run, each counted for every sample.

    Raises:
        ArgumentError: before anything runs: a name, a budget that a method cannot work with, `out`.
        SolveError: a run that failed.
    """
    cases, left_out = _planned(model.process, methods, grids, nfes, judge is not None)
    exact = {case: plan for case, plan in cases.items() if not plan.stochastic}
    budgets = {k for k in nfes if k in DISTANCES} or set(nfes) if len(exact) < len(cases) else set()
    noisy = {case: plan for case, plan in cases.items() if plan.stochastic and case[2] in budgets}
    screened = max(samples // SCREENED, 2)
    kinds = bool(exact) + bool(noisy)
    total = n * (REFERENCE_NFE + sum(k for _, _, k in exact)) + screened * sum(k for _, _, k in noisy)
    total += kinds * FINALISTS * samples * sum(budgets)
    done = 0

    def count(evaluations: int) -> None:
        nonlocal done
        done += evaluations
        progress(done, total)

    subject = {
        "version": __version__, "n": n, "seed": seed, "guidance": str(guidance), "samples": samples,
        "reference": REFERENCE_NFE, "model": fingerprint(model, prior(model, n, seed), cond(n), guidance),
    }  # fmt: skip
    with output_folder(out) as part, journal(out / "unfinished", subject) as kept:
        runs = _Runs(model, n, seed, cond, guidance, kept, count)
        rows, distances = runs.results(exact, "error", n, runs.error), tuple[Result, ...]()
        if noisy:
            assert judge is not None  # or _planned left them out
            first = runs.results(noisy, "screen", screened, lambda p: runs.distance(p, judge, screened))
            finalists = {
                case: cases[case] for kind in (rows, first) for case in _finalists(kind, cases, budgets)
            }
            distances = runs.results(
                finalists, "distance", samples, lambda p: runs.distance(p, judge, samples)
            )
        table = Comparison(model.name, n, seed, guidance, rows, distances, samples if noisy else 0,
                           judge.floor if judge and noisy else None, tuple(left_out))  # fmt: skip
        (part / "table.md").write_text(table.markdown())
        (part / "table.json").write_text(json.dumps(table.as_dict(), indent=1) + "\n")
        if rows:
            error_plot(table.shown, part / "error.png")
        if rows and len(model.shape) == 3 and model.shape[0] in (1, 3):
            sheet(table, runs, cases, part / "pictures.png")
    return table


def _planned(
    process: Process, methods: Sequence[str] | None, grids: Mapping[str, Grid], nfes: Sequence[int],
    judged: bool,
) -> tuple[Cases, list[tuple[str, str]]]:  # fmt: skip
    """The plan of every case, and the methods that were not asked for by name and cannot be compared."""
    cases: Cases = {}
    left_out: list[tuple[str, str]] = []
    for method in dict.fromkeys(REGISTRY if methods is None else methods):
        try:
            found = {
                (method, name, k): plan_sampling(process, method, nfe=k, grid=grid)
                for name, grid in grids.items()
                for k in sorted(set(nfes))
            }
            if not judged and any(plan.stochastic for plan in found.values()):
                raise ArgumentError(
                    f"{method} ends elsewhere than the solution, by its noise: only a model with a judge "
                    "tells how good that is"
                )
            cases |= found
        except ArgumentError as error:
            if methods is not None:
                raise
            left_out.append((method, str(error)))
    if not cases:
        raise ArgumentError("nothing to compare: name at least one method, grid and NFE")
    return cases, left_out


def _finalists(rows: Sequence[Result], cases: Cases, budgets: set[int]) -> list[tuple[str, str, int]]:
    """The best of each budget, each on its best grid; the same weights under two names are one."""
    found = []
    for k in sorted(budgets):
        plans: dict[str, tuple[str, str, int]] = {}
        for r in best_of([r for r in rows if r.nfe == k]):
            case = (r.method, r.grid, r.nfe)
            plans.setdefault(cases[case].weights, case)
        found += [*plans.values()][:FINALISTS]
    return found


def sheet(table: Comparison, runs: _Runs, cases: Cases, path: Path) -> None:
    """The pictures of the smallest budgets below the converged ones, one noise per column."""
    columns = min(COLUMNS, len(runs.exact))
    strips = [
        Strip("reference", runs.exact[:columns], f"{REFERENCE_NFE} evaluations", "The converged solution")
    ]
    for nfe in table.nfes[:SECTIONS]:
        for i, r in enumerate(distinct(table.ranked(nfe))[:SHOWN]):
            heading = "" if i else f"{nfe} network evaluations, best method first"
            images = runs.ends(cases[r.method, r.grid, r.nfe], columns)
            strips.append(Strip(r.method, images, f"{r.grid}, error {r.error:.3f}", heading))
    picture_grid(
        strips,
        path,
        f"{table.model}: one noise per column, one method per row",
        "every row starts from the same noise; the closer to the reference, the better",
        runs.model.data_range or (-1.0, 1.0),
    )
