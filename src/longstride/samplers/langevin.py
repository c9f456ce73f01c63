"""Predictor-corrector sampling of the score-SDE paper: Langevin steps between those of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..core import Field, Stage, Step, advance
from ..denoiser import Denoiser
from ..errors import ArgumentError, SolveError
from ..frame import PREDICTIONS
from ..grid import Grid
from ..guidance import Guidance
from ..noise import Noise, seed_of
from ..sampling import plan_sampling

NOISE = PREDICTIONS.index("noise")
OTHER = (
    0x4C414E4745564E  # the corrector draws with the seed XOR this: a motion independent of the predictor's
)


def langevin(fields: tuple[Field, ...], t: float, sigma: float, x: Tensor, z: Tensor, snr: float) -> Tensor:
    """x + e score + sqrt(2 e) z with e = 2 (snr |z|/|score|)^2 (Song et al. 2021, algorithms 4 and 5).

    x, z [B, *shape]; the norms are of each sample, so the step size is the sample's own, [B, 1, ...]. The
    weights depend on an evaluation, which no plan can hold; `advance` applies them all the same. The factor
    1 - beta_i that algorithm 5 has for VP, between 0.98 and 1, is left out.
    """
    _, evaluated = advance(fields, Step((Stage((1.0,), at=t, field=NOISE),), keep_f=(-1,)), [x], [])
    norm_z, norm_eps = (
        torch.linalg.vector_norm(v, dim=tuple(range(1, x.ndim)), keepdim=True) for v in (z, evaluated[0])
    )
    root = snr * sigma * norm_z / norm_eps  # sqrt(e/2), as |score| = |eps_hat|/sigma
    row = Stage((1.0,), (-2 * root**2 / sigma,), (2 * root,))
    return advance(fields, Step((row,)), [x], evaluated, [z])[0][0]


def sample_langevin(
    model: Denoiser,
    x_init: Tensor,
    nfe: int,
    *,
    predictor: str = "reverse_diffusion",
    correctors: int = 1,
    snr: float = 0.16,
    grid: Grid | None = None,
    seed: int | torch.Generator = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    **options: Any,
) -> Tensor:
    """Samples [B, *shape] from noise x_init at t_max: after each step of the predictor, Langevin steps.

    There are `correctors` of them. The last step, to clean data, is not corrected. What is left of `nfe`
    goes into the last corrector.

    predictor, options: a method that takes one evaluation and keeps no history: reverse_diffusion, ddpm
    (the paper's ancestral), ddim.  snr: of a Langevin step, the paper's r.  The rest: see `sample`.

    Raises:
        ArgumentError: a predictor that does not fit, or too few evaluations.
        SolveError: the result is not finite.
    """
    steps = (nfe + correctors) // (1 + correctors)
    if correctors < 0 or snr <= 0 or steps < 2:
        raise ArgumentError(
            f"nfe = {nfe} with correctors = {correctors} and snr = {snr}: give correctors >= 0, snr > 0 and "
            "evaluations for two steps"
        )
    process = model.process
    plan = plan_sampling(process, predictor, steps, grid, **options)
    if plan.nfe != len(plan.steps) or any(step.keep_x != (-1,) or step.keep_f for step in plan.steps):
        raise ArgumentError(
            f"{predictor} keeps a history or takes several evaluations a step: use ddpm or ddim"
        )
    number, samples, shape = seed_of(seed), range(len(x_init)), x_init.shape[1:]
    moves, shakes = Noise(number, samples, shape), Noise(number ^ OTHER, samples, shape)
    fields = model.fields(cond, guidance)
    x, drawn = x_init, 1.0
    with torch.no_grad():
        for n, (step, t) in enumerate(zip(plan.steps, plan.times[1:], strict=True)):
            zs = [moves.increment(a, b).to(x) for a, b in pairwise(step.brownian or ())]
            x = advance(fields, step, [x], [], zs)[0][0]
            last = n == steps - 2
            extra = nfe - steps - correctors * (steps - 1) if last else 0
            for _ in range(correctors + extra if n < steps - 1 else 0):
                z = shakes.increment(drawn, drawn + 1).to(x)
                x, drawn = langevin(fields, t, process.sigma(t), x, z, snr), drawn + 1
    if not torch.isfinite(x).all():
        raise SolveError(
            f"predictor {predictor} with {correctors} correctors: NaN or infinity; lower snr = {snr}"
        )
    return x
