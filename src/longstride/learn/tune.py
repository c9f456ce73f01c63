"""The best solver for a model and a budget: fitted on some starts, chosen on others, judged on more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError, finite, floating, functions, said_of, unknown, whole
from ..files import check_writable
from ..guidance import Guidance
from ..plan import Plan
from ..problem import ODE
from .free import Features
from .hops import check_storage
from .judge import Judge, Objective
from .recipes import RECIPES
from .search import LEAST
from .subject import Sampling, Solving, Subject
from .tuning import CHECKED, Progress, Tuning

ELEMENTS = 2**18  # starts times elements that weights are fitted to, unless `noises` says otherwise
MOST = 4096  # starts, however small


@torch.no_grad()
def tune(
    model: Denoiser | ODE,
    nfe: int | Iterable[int],
    *,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance | Sequence[float | Guidance] = 1.0,
    x0: Tensor | None = None,
    t: Sequence[float] | None = None,
    features: Features = lambda x: x,
    objective: Objective | None = None,
    through: float = 0.0,
    recipes: Sequence[str] = (),
    noises: int | None = None,
    of: int | None = None,
    select: int = 256,
    report: int = 1024,
    reference_nfe: int = 128,
    iterations: int = 20,
    hops: int = 8,
    batch: int = 256,
    dtype: torch.dtype | None = None,
    begin: Sequence[Plan] = (),
    cache: str | Path | None = None,
    storage: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> Any:
    """The plan of nfe evaluations that ends nearest to the converged solution of this model.

    1. Solutions are made from three sets of starts that have nothing in common: to fit, to choose, to
       report. A model starts from noises, an ODE from the states x0.
    2. Every method of the registry without noise of its own is tried, the best of them on every grid, and
       the published recipes that are named.
    3. On each grid, and on the times of `optimal_times`, the weights are fitted in closed form (`fit`); from
       the best of them the times that the network is told and all weights together go towards a minimum
       (`polish`); the best is shaken and polished again (`hopped`), and the best of all these go on.
    4. What is best on the selection starts is returned, be it a method as published.

    Args:
        nfe: a budget, or several, which share the solutions.
        cond: what the network is conditioned on: a value, or a tensor or list of them, dealt out to the
            noises in turn.
        guidance: a weight, or several that one plan is to serve, dealt out evenly whatever the conditions.
        x0, t: of an ODE: the states [n, ...] that it is solved from, n at least noises + of + select + report
            (noises are the rest unless given), and (start, end).
        features: of samples [n, *shape], what errors are measured in; the samples themselves. A
            latent space, or the embedding of a perceptual network.
        objective: of two sets of features, what leads and what the solutions have: what the choice and the
            report go by, such as `metrics.frechet`. By default their end-point error, which fits and polishes
            lower whatever the objective is; one with residuals, such as `learn.Frechet`, is lowered last.
        through: weight in the polish of the states on the way, beside the end: see `polish`.
        recipes: names of `RECIPES` that compete as well, or "all".
        noises: to fit to; 2^18 over the elements of a sample, from 64 to 4096, unless given.
        of: others, from which as many as `noises` are drawn for polishes to go by, more often where solutions
            part: a plan of many evaluations errs on one in a thousand (`starts.telling`, `starts.split`).
        select, report: starts to choose and to report on.
        reference_nfe: of the solutions; it is halved on some starts, to see whether they have converged.
        iterations: of a polish, at most.
        hops: times that the best solver is shaken and polished again, on the first starts.
        batch: samples that go through the network at once.
        dtype: of the states, as in `sample`: the network's, and float32 at least. Of a mixture float64 takes
            twice as long, and errors below 1e-5 need it. Those of an ODE have x0's.
        begin: plans that tune has made, to begin from as well: for another guidance or network, or of fewer
            evaluations, to which more are added. Of several budgets each begins from the one before it.
        cache: a folder that keeps what is finished: the same call goes on there, another budget shares it.
        storage: a file that an optuna study of the hops is kept in; all calls that name it share them.
        progress: called with a line of text after everything that was done.

    Returns:
        The plan, or for several budgets a dict of them. `plan.report` says how good it is on the starts of
        the report, beside the best untuned method, and what it cost.

    Raises:
        ArgumentError: a budget below 2, or arguments that do not fit.
        SolveError: a model that returns NaN, or solutions that have not converged.
    """
    if not isinstance(model, Denoiser | ODE):
        raise ArgumentError(
            f"the model is {said_of(model)}: an ls.Denoiser, as ls.load(name) gives, or an ls.ODE"
        )
    several = isinstance(nfe, Iterable) and not isinstance(nfe, str)
    asked: list[Any] = list(nfe) if several else [nfe]  # type: ignore[arg-type]
    budgets = sorted({whole("nfe", k, 2, "one evaluation leaves nothing to tune") for k in asked})
    if not budgets:
        raise ArgumentError("nfe is empty: give a budget, or several")
    if noises is not None:
        whole("noises", noises, CHECKED, "what so few weights fit says nothing of other starts")
    pool = 0 if of is None else whole("of", of, CHECKED)
    if pool and through:
        raise ArgumentError("through goes by states on the way, which drawn noises do not have: leave of out")
    for name, size in (("select", select), ("report", report)):
        whole(name, size, CHECKED)
    whole("reference_nfe", reference_nfe, 32, "solutions are many short steps")
    if budgets[-1] >= reference_nfe:
        raise ArgumentError(f"nfe = {budgets[-1]}: solutions are to be nearer, give a larger reference_nfe=")
    for name, number, least in (("seed", seed, None), ("iterations", iterations, 0), ("hops", hops, 0),
                                ("batch", batch, 1)):  # fmt: skip
        whole(name, number, least)
    if finite("through", through) < 0:
        raise ArgumentError(f"through = {through}: it is a weight, not negative")
    functions(features=features, objective=objective, progress=progress)
    recipes = [recipes] if isinstance(recipes, str) or not isinstance(recipes, Iterable) else list(recipes)
    begin = [begin] if isinstance(begin, Plan) else begin
    if not isinstance(begin, Sequence) or not all(isinstance(plan, Plan) for plan in begin):
        raise ArgumentError(f"begin = {said_of(begin)}: it is plans that ls.tune has made")
    if cache is not None:
        check_writable(Path(cache))
    if storage is not None:
        check_storage(storage)
    names = tuple(RECIPES) if "all" in recipes else tuple(recipes)
    if strange := [name for name in names if name not in RECIPES]:
        raise unknown("recipe", strange[0], RECIPES)
    if dtype is not None:
        floating(dtype)
    if isinstance(model, ODE):
        if x0 is None or t is None:
            raise ArgumentError("an ODE is tuned for the states it is solved from: give x0= [n, ...] and t=")
        if cond or names or guidance != 1.0 or dtype:
            raise ArgumentError("cond, guidance, recipes and dtype belong to a Denoiser, not to an ODE")
        sizes = [noises or len(x0) - select - report - pool, select, report, pool]
        if sizes[0] < CHECKED or sum(sizes) > len(x0):
            raise ArgumentError(
                f"x0 has {len(x0)} states: {select} to choose on and {report} to report on leave too few; "
                "give more, or smaller select=, report= and of="
            )
        subject: Subject = Solving(model, x0[: sum(sizes)], t, batch)
    else:
        if x0 is not None or t is not None:
            raise ArgumentError("x0 and t belong to an ODE: a Denoiser starts from noises at its t_max")
        sizes = [noises or min(max(ELEMENTS // math.prod(model.shape), LEAST), MOST), select, report, pool]
        subject = Sampling(model, cond, guidance, sum(sizes), seed, batch, dtype)
    if pool and pool < sizes[0]:
        raise ArgumentError(f"of = {of}: the {sizes[0]} that polishes go by are drawn from these, give more")
    judge = Judge(features, objective)
    tuning = Tuning(subject, judge, through, sizes, seed, reference_nfe, cache, progress, begin)
    plans = {k: tuning.plan(k, iterations, hops, names, storage) for k in budgets}
    return plans if several else plans[budgets[0]]
