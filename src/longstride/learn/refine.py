"""A plan that is there, taken to a minimum over more noises than it was made from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError, said_of, whole
from ..files import check_writable
from ..guidance import Guidance
from ..journal import Journal
from ..metrics import squared_errors
from ..plan import Plan
from .drawn import drawn
from .free import Free
from .polish import polish
from .subject import Sampling
from .trajectories import Trajectories
from .tuning import CHECKED, LEAST, Progress

SKETCH = 4  # times as many evaluations tell roughly where a plan errs
PART = 2**16  # elements behind a Jacobian


@torch.no_grad()
def refine(
    model: Denoiser,
    plan: Plan,
    noises: int,
    *,
    of: int | None = None,
    seed: int = 1,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    reference_nfe: int = 128,
    iterations: int = 8,
    batch: int = 256,
    cache: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> Plan:
    """A plan of `tune`, polished on more noises: kept if it is better on others, else the plan as it is.

    What is left of an error of few steps hangs on few noises, those where the solutions part: one in a
    hundred or in a thousand, which a coarse solver leads to another mode. A plan fitted to thousands has seen
    a handful. `of` noises are sketched, by this plan and in four times as many evaluations; where the two are
    apart, noises are drawn more often and count for less (`drawn`), and only for these solutions are made.

    Args:
        noises: to fit to; a quarter of `of` more are drawn from, as many at most, to decide.
        of: noises that they are drawn from; so many unless given.
        seed: of all these; another than the plan was tuned with, so that they are new to it.
        cond, guidance, reference_nfe, batch, cache, progress: as for `tune`. iterations: of the polish.

    Returns:
        The plan. `report["refined"]` has the error of both on the noises that decided, and the cost; of a
        better one `report["before"]` is the report of the plan that it was.

    Raises:
        ArgumentError: a plan that `tune` has not fitted, or numbers that do not fit.
        PlanError: a plan for another process.
        SolveError: a model that returns NaN.
    """
    if not isinstance(model, Denoiser) or not isinstance(plan, Plan):
        raise ArgumentError(f"refine takes an ls.Denoiser and a plan, got {said_of(model)}, {said_of(plan)}")
    whole("noises", noises, LEAST, "what so few weights fit says nothing of other noises")
    of = noises if of is None else whole("of", of, noises, "noises are drawn from these")
    for name, number, least in (("seed", seed, None), ("reference_nfe", reference_nfe, SKETCH * plan.nfe),
                                ("iterations", iterations, 1), ("batch", batch, 1)):  # fmt: skip
        whole(name, number, least)
    if cache is not None:
        check_writable(Path(cache))
    crowd = Sampling(model, cond, guidance, of + of // 4, seed, batch)
    before = Free.of(plan, crowd.axis)
    started, generator = time.perf_counter(), torch.Generator().manual_seed(seed)

    def telling(rows: Tensor) -> tuple[Tensor, Tensor]:
        if noises >= len(rows):
            return rows, torch.ones(len(rows))
        progress(f"sketching {len(rows)} noises")
        apart = squared_errors(crowd.ends(plan, rows), crowd.reference(rows, SKETCH * plan.nfe)).sqrt()
        picked, counts = drawn(apart.cpu(), noises, generator)
        return rows[picked], counts

    (rows, weights), (others, theirs) = map(telling, torch.arange(of + of // 4).split([of, of // 4]))
    everyone = torch.cat([rows, others])
    about = {"subject": crowd.identity(torch.arange(CHECKED)), "seed": seed, "reference": reference_nfe,
             "noises": hashlib.sha256(everyone.numpy().tobytes()).hexdigest()}  # fmt: skip
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    kept = Journal(None if cache is None else Path(cache) / digest, about)
    progress(f"solving from {len(everyone)} of them, in {reference_nfe} evaluations each")
    solved = kept.tensor("ends", lambda: crowd.reference(everyone, reference_nfe)).to(crowd.x.device)
    truth, known = solved.split([len(rows), len(others)])
    solver, fitted = polish(
        lambda some: crowd.field(rows[some]), before,
        Trajectories(crowd.axis, plan.times[:1], crowd.x[None, rows], truth), weights=weights,
        iterations=iterations, part=max(PART // truth[0].numel(), LEAST), fixed=range(plan.nfe - 1),
        seed=seed,
        progress=lambda _, error: progress(f"{plan.nfe} NFE: {error:.4g} on {len(rows)} noises"),
    )  # fmt: skip

    def held_out(plan: Plan) -> float:
        squares = squared_errors(crowd.ends(plan, others), known).cpu()
        return float((theirs * squares).sum() / theirs.sum()) ** 0.5

    errors = {"before": held_out(plan), "error": held_out(solver.plan())}
    progress(f"{plan.nfe} NFE: on {len(others)} others {errors['error']:.4g}, it was {errors['before']:.4g}")
    refined = {
        "noises": {"fitted": len(rows), "selection": len(others), "drawn from": of}, "seed": seed,
        "fitted": fitted, "selection": errors, "evaluations": crowd.evaluations,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    if errors["error"] >= errors["before"]:
        return replace(plan, report={**plan.report, "refined": refined})
    drawn_from = f" of {of}" if of > noises else ""
    report = {
        "tuned_for": {**crowd.tuned_for(), "nfe": plan.nfe}, "untuned": plan.report.get("untuned"),
        "what": f"{plan.report.get('what', plan.method)}, polished on {noises}{drawn_from} noises",
        "refined": refined, "before": dict(plan.report),
    }  # fmt: skip
    return solver.plan(plan.method, plan.options, report)
