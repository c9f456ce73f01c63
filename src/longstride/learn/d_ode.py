"""D-ODE: a multiple of how the prediction last changed, added to it, one scalar for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..denoiser import Denoiser
from ..grid import Grid
from ..guidance import Guidance
from ..plan import Plan
from ..sampling import plan_sampling
from .rewrite import evaluations, remembering, rewritten
from .stepwise import fit_steps, judged


@torch.no_grad()
def d_ode(
    model: Denoiser,
    nfe: int,
    *,
    method: str = "ddim",
    grid: Grid | None = None,
    samples: int = 64,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    **options: Any,
) -> Plan:
    """The plan of a method whose steps put O_t = D_t + lambda_t (D_t - D_{t+1}) for the prediction D_t.

    D_t is the newest prediction when a step ends and D_{t+1} the one before it, of the same kind (noise or
    data, whichever the method integrates). A step is linear in both, so it ends in x(lambda) = x + lambda g,
    g its weight of D_t times D_t - D_{t+1}, and what brings it nearest to the truth y is

        lambda_t = <g, y - x>/<g, g>        over all elements of all samples.

    The paper's y is the same method in C steps for one (the teacher); here it is the converged trajectory,
    which is that for large C. The first step has no D_{t+1} and stays. See `stepwise.fit_steps`.

    Args:
        nfe, method, grid, options: as for `plan_sampling`; a deterministic method.
        samples: noises to fit to.  cond: as for `sample`, for all `samples`.

    Returns:
        The plan, of the same nfe. Its report has every lambda, the error of each step before and after on
        the noises that were fitted to, and the end-point error of both plans on as many others.

    Raises:
        ArgumentError: a method that draws noise, or no samples.

    Reference: Kim et al. 2024, "Distilling ODE solvers of diffusion models into smaller steps".
    """
    base = plan_sampling(model.process, method, nfe, grid, **options)
    fields = model.fields(model.conditioning(cond, samples, model.device), guidance)
    asked: dict[str, Any] = {"samples": samples, "seed": seed, "cond": cond, "guidance": guidance}
    lambdas, report = fit_steps(model, base, lambda p: (fields, distilled(base, p).steps), 0.0, **asked)
    plan = replace(distilled(base, lambdas), method=f"d_{method}", options=options)
    return judged(model, plan, base, {"learned": "d_ode", "lambda": lambdas, **report}, **asked)


def distilled(plan: Plan, lambdas: Sequence[float]) -> Plan:
    """The plan with these lambda_t, one for each step. Zeros change nothing, to the last bit."""
    steps = remembering(plan.steps, 2)
    new = []
    for step, known, p in zip(steps, evaluations(steps), lambdas, strict=True):
        newest = len(known) - 1
        before = [i for i in range(newest) if known[i][1] == known[newest][1]]
        table = {newest: {newest: 1 + p, before[-1]: -p}} if before else {}
        new.append(rewritten(step, table))
    return replace(plan, steps=tuple(new))
