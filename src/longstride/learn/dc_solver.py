"""DC-Solver: the newest evaluation replaced by what the last few say of a time nearby."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..denoiser import Denoiser
from ..errors import whole
from ..grid import Grid
from ..guidance import Guidance
from ..plan import Plan
from ..sampling import plan_sampling
from .rewrite import evaluations, remembering, rewritten
from .stepwise import fit_steps, judged


@torch.no_grad()
def dc_solver(
    model: Denoiser,
    nfe: int,
    *,
    method: str = "unipc_2",
    grid: Grid | None = None,
    K: int = 2,
    samples: int = 10,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    **options: Any,
) -> Plan:
    """The plan of a method with dynamic compensation: `compensated`, each rho_i fitted to the model.

    A predictor-corrector keeps the evaluation it made at the predicted state and goes on from the corrected
    one; the two do not match, the less so the stronger the guidance. A ratio rho_i says at which time near
    t_i the last K + 1 evaluations are asked for one that does. Step by step, rho_i is where the corrected
    state of the next step is nearest to the converged trajectory, a least-squares problem in one number
    (`stepwise.fit_steps`; the paper takes gradient steps, on 10 samples as well).

    Not here: the paper's cascade polynomial regression, which predicts rho for another NFE or guidance from
    many such fits.

    Args:
        nfe, method, grid, options: as for `plan_sampling`; a deterministic multistep method.
        K: degree of the interpolation; the first K steps stay as they are.
        samples: noises to fit to.  cond: as for `sample`, for all `samples`.

    Returns:
        The plan, of the same nfe. Its report has every rho, the error of each step before and after on the
        noises that were fitted to, and the end-point error of both plans on as many others.

    Raises:
        ArgumentError: a method that draws noise, K below 1, or no samples.

    Reference: Zhao et al. 2024, "DC-Solver: improving predictor-corrector diffusion sampler via dynamic
    compensation".
    """
    base = plan_sampling(model.process, method, nfe, grid, **options)
    fields = model.fields(model.conditioning(cond, samples, model.device), guidance)
    asked: dict[str, Any] = {"samples": samples, "seed": seed, "cond": cond, "guidance": guidance}
    rhos, report = fit_steps(model, base, lambda p: (fields, compensated(base, p, K).steps), 1.0, **asked)
    plan = replace(compensated(base, rhos, K), method=f"dc_{method}", options={**options, "K": K})
    return judged(model, plan, base, {"learned": "dc_solver", "rho": rhos, **report}, **asked)


def compensated(plan: Plan, rhos: Sequence[float], K: int = 2) -> Plan:
    """The plan with dynamic compensation by these rho_i, one for each step. Ones change nothing.

    Before the step from t_i, the evaluation F_i that was made there gives way to

        sum_{k=0..K} l_k(t') F_{i-k},     t' = rho_i t_i + (1 - rho_i) t_{i-1},

    l_k the Lagrange polynomials through t_i .. t_{i-K}, in the process's t. It stays replaced for all steps
    to come, and the next interpolation sees it so.
    """
    whole("K", K, 1, "the interpolation is at least linear")
    steps = remembering(plan.steps, plan.nfe)  # every evaluation keeps its number in the run
    table: dict[int, dict[int, float]] = {}
    new = []
    for n, (step, known, rho) in enumerate(zip(steps, evaluations(steps), rhos, strict=True)):
        made_at = {t: j for j, (t, _) in enumerate(known)}  # the newest, where a time is asked at twice
        nodes = plan.times[max(n - K, 0) : n + 1][::-1]
        places = [made_at[t] for t in nodes if t in made_at]
        if len(places) == K + 1 and len({known[j][1] for j in places}) == 1:
            share = _lagrange(nodes, rho * nodes[0] + (1 - rho) * nodes[1])
            total: dict[int, float] = {}
            for j, w in zip(places, share, strict=True):
                for i, v in table.get(j, {j: 1.0}).items():
                    total[i] = total.get(i, 0.0) + w * v
            table[places[0]] = total
        new.append(rewritten(step, table))
    return replace(plan, steps=tuple(new))


def _lagrange(nodes: Sequence[float], t: float) -> list[float]:
    return [math.prod((t - b) / (a - b) for b in nodes if b != a) for a in nodes]
