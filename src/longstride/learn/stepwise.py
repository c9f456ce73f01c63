"""One number for each step of a plan, fitted step by step to converged solutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
Known = tuple[list[Tensor], list[Tensor]]  # states and evaluations
Made = Callable[[Numbers], tuple[Sequence[Field], Sequence[Step]]]


def least_squares(residual: Callable[[float], Tensor], start: float) -> tuple[float, float, float]:
    """(p, |residual(p)|^2, |residual(start)|^2), p a minimum: Gauss-Newton with a difference quotient.

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

    Greedy: a step nearer to the truth may leave more for those that follow. Where a method's own errors
    cancel later on, the end can come out worse, which `judged` shows.

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

    def taken(n: int, known: Known, p: float) -> Known:
        nonlocal spent
        fields, steps = made([*numbers[:n], p, *numbers[n + 1 :]])
        spent += steps[n].nfe
        return advance(fields, steps[n], *known)

    def miss(n: int, known: Known, truth: Tensor, p: float) -> Tensor:
        return taken(n, known, p)[0][-1] - truth

    known: Known = [paths.at(base.times[0])], []
    for n, t in enumerate(base.times[1:]):
        numbers[n], *squares = least_squares(partial(miss, n, known, paths.at(t)), neutral)
        errors.append([(square / noise.numel()) ** 0.5 for square in reversed(squares)])
        known = taken(n, known, numbers[n])
    return numbers, {
        "samples": samples, "seed": seed, "guidance": str(Guidance.of(guidance)), "evaluations": spent,
        "step_error": errors,
    }  # fmt: skip


def judged(
    model: Denoiser,
    plan: Plan,
    base: Plan,
    report: Mapping[str, Any],
    samples: int,
    seed: int,
    cond: Mapping[str, Any] | None,
    guidance: float | Guidance,
) -> Plan:
    """The plan with its report: end-point errors, its own and that of `base`, on as many noises as it was
    fitted to, of the same seed, that come after those.
    """
    noise = prior(model, samples, seed, dtype=torch.float64, first=samples)
    asked: dict[str, Any] = {"cond": cond, "guidance": guidance}
    truth = reference(model, noise, **asked)
    errors = {
        name: endpoint_error(sample(model, x_init=noise, plan=p, **asked), truth)
        for name, p in (("fitted", plan), (base.method, base))
    }
    spent = report["evaluations"] + plan_reference(model.process).nfe + plan.nfe + base.nfe
    return replace(plan, report={**report, "held_out": errors, "evaluations": spent})
