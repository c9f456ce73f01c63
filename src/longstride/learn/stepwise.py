"""One number for each step of a plan, fitted step by step to converged solutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core import Field, Step, advance
from ..denoiser import Denoiser
from ..errors import ArgumentError, whole
from ..guidance import Guidance
from ..metrics import endpoint_error
from ..plan import Plan
from ..sampling import plan_reference, prior, reference, sample
from .trajectories import trajectories

NUDGE = 1e-3  # of a number for its difference quotient; float32 networks answer to about 1e-7
ITERATIONS = 10
HALVINGS = 5  # of a move that does not lower the error
SETTLED = 1e-6  # relative gain of an iteration, below which it ends

Numbers = Sequence[float]
Made = Callable[[Numbers], tuple[Sequence[Field], Sequence[Step]]]


def least_squares(residual: Callable[[float], Tensor], start: float) -> tuple[float, float, float]:
    """(p, |residual(p)|^2, |residual(start)|^2), the first a minimum: Gauss-Newton with a difference quotient.

    A residual linear in p is done in one move, -<r', r>/<r', r'>. A move is taken only where it lowers the
    sum of squares, so that p is never worse than where it began.
    """
    p, r = start, residual(start)
    error = first = _square(r)
    for _ in range(ITERATIONS):
        slope = (residual(p + NUDGE) - residual(p - NUDGE)) / (2 * NUDGE)
        steepness = _square(slope)
        if not 0 < steepness < float("inf"):  # nothing depends on p, or the model answers with NaN
            break
        move, before = -float((slope * r).sum()) / steepness, error
        for _ in range(HALVINGS):
            trial = residual(p + move)
            if _square(trial) < error:
                p, r, error = p + move, trial, _square(trial)
                break
            move /= 2
        if not error < (1 - SETTLED) * before:
            break
    return p, error, first


def _square(r: Tensor) -> float:
    return float(r.double().square().sum())


def fit_steps(
    model: Denoiser,
    base: Plan,
    made: Made,
    neutral: float,
    samples: int,
    seed: int,
    cond: Mapping[str, Any] | None,
    guidance: float | Guidance,
) -> tuple[list[float], dict[str, Any]]:
    """The number p_n of each step that brings it nearest to the converged trajectories, and a report.

    made(numbers), a number for each step, gives the fields and the steps to run. From the state that the
    steps fitted so far have reached, step n goes to x(p); p_n minimises the sum of |x(p) - x_true(t)|^2 over
    `samples` noises, x_true the trajectories of the same noises (`plan_reference`), and the next step
    is fitted from there. `neutral` changes nothing; the later steps have it until their turn comes.

    The report counts evaluations of each sample, and has the root mean square error of each step before and
    after, on the noises that were fitted to.

    Raises:
        ArgumentError: no samples, a plan that draws noise, or one for another process.
    """
    whole("samples", samples, 1)
    base.demand(model.process.describe())
    if base.stochastic:
        raise ArgumentError(
            f"the plan of {base.method} draws noise, so it follows no trajectory: take a deterministic one"
        )
    noise = prior(model, samples, seed, dtype=torch.float64)
    paths = trajectories(model, noise, cond=cond, guidance=guidance)
    numbers, errors, spent = [neutral] * len(base.steps), [], plan_reference(model.process).nfe
    xs, fs = [paths.at(base.times[0])], list[Tensor]()
    for n, (step, t) in enumerate(zip(base.steps, base.times[1:], strict=True)):
        truth, tried = paths.at(t), 0

        def reached(p: float, n: int = n) -> tuple[list[Tensor], list[Tensor]]:
            nonlocal tried
            tried += 1
            fields, steps = made([*numbers[:n], p, *numbers[n + 1 :]])
            return advance(fields, steps[n], xs, fs)

        numbers[n], *squares = least_squares(lambda p, x=truth: reached(p)[0][-1] - x, neutral)
        errors.append([(square / truth.numel()) ** 0.5 for square in reversed(squares)])
        xs, fs = reached(numbers[n])
        spent += tried * step.nfe
    return numbers, {
        "samples": samples, "seed": seed, "guidance": str(Guidance.of(guidance)), "evaluations": spent,
        "step_error": errors,
    }  # fmt: skip


def held_out(
    model: Denoiser,
    plans: Mapping[str, Plan],
    samples: int,
    seed: int,
    cond: Mapping[str, Any] | None,
    guidance: float | Guidance,
) -> dict[str, float]:
    """End-point errors of plans on the `samples` noises of this seed that come after those fitted to."""
    noise = prior(model, samples, seed, dtype=torch.float64, first=samples)
    asked: dict[str, Any] = {"cond": cond, "guidance": guidance}
    truth = reference(model, noise, **asked)
    return {
        name: endpoint_error(sample(model, x_init=noise, plan=plan, **asked), truth)
        for name, plan in plans.items()
    }
