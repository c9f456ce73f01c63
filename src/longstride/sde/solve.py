"""Solving an SDE: what is asked, checked and given back.

Noise that multiplies g(t, x) is no weight of a plan, so this is a loop of its own beside the core. The steps
of a run make a `Course`: equal ones are known before it, others are chosen as it goes (`sde_adaptive.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError, failed, unknown
from ..gradients.transpose import Kept
from ..gradients.ways import Reverse, way_of
from ..methods.sde import Scheme, scheme
from ..moments import Time, apart, numbers, stops
from ..noise import seed_of
from ..problem import SDE
from ..solution import Solution, Stats
from ..tree import check_state
from .adaptive import Asked, steps_chosen
from .brownian import Brownian, Independent
from .course import Bound, Course, Even, Own, beside, rows
from .gradients import WAYS, Way, through


def solve_sde(
    problem: SDE,
    x0: Tensor,
    *,
    t: tuple[Time, Time] | None,
    method: str | None = None,
    dt: float | None = None,
    steps: int | None = None,
    save_at: Sequence[Time] | Tensor | str | None = None,
    save_every: int | None = None,
    seed: int | torch.Generator = 0,
    brownian: Brownian | None = None,
    grad: Any = True,
    raise_on_failure: bool = False,
    compile: bool = False,
    **options: Any,
) -> Solution:
    """Integrate an SDE over t = (start, end), in equal steps or in steps that keep a tolerance.

    Args:
        x0: [B, ...], real.  method: one of `longstride.methods.sde.SCHEMES` that fits the noise and the
            integral; default the one of the highest strong order.
        dt or steps: as in `ls.solve`. Without either samples step on their own, see `sde_adaptive.Asked`
            for the arguments of that.
        save_at: times, default the end. "steps", or save_every=n, keep every or every n-th of equal steps.
        seed: sample i gets the same noise whatever the batch.  brownian: a path to follow instead, so that
            runs with other steps and other methods see the same one. Without it the noise of equal steps
            belongs to the number of the step, and that of others is a path over t.
        grad: True: backpropagation through the steps. "checkpoint": some states are kept and the others made
            again from the seed. "reverse": the steps of `reversible_heun` are undone. All give the same
            gradient to x0 and to what f and g close over.
        raise_on_failure: raise a SolveError where x becomes NaN or infinite, instead of a status.
        compile: take equal steps in a native loop or, with a gradient, several in one compiled graph, which
            draw their noise too, without `brownian` (`chunks.py`). f and g must become a graph whole. For
            many runs: the first one compiles.

    Backward, t = (1, 0), the path is run back: its increments change sign. Ito's integral has no such way.

    Raises:
        ArgumentError: a bad argument, or a method for another kind of noise or integral.
        SolveError: f or g fails, or returns what it must not.
    """
    began = time.perf_counter()
    check_state(x0)
    if x0.is_complex():
        raise ArgumentError("x0 of an SDE is real: give real and imaginary parts as elements")
    name, rule = scheme(method, problem.noise, problem.interpretation)
    equal, way = dt is not None or steps is not None, way_of(grad, WAYS)
    every, wanted = apart(save_at)
    times, marks = stops(t, dt, steps if equal else 1, wanted)
    given = [*(t or ()), *(() if wanted is None else wanted)]
    if any(isinstance(v, Tensor) and v.requires_grad for v in given):
        raise ArgumentError("a path has no derivative: times of an SDE must not require gradients")
    start, end = times[0], times[-1]
    if not equal and (every or save_every is not None):
        raise ArgumentError(
            "save_at='steps' and save_every= are of equal steps: give dt= or steps=, or times"
        )
    saved = numbers(times, marks, every, save_every, save_at) if equal else ()
    marks = [times[n] for n in saved] if equal else marks
    _refused(problem, name, rule, way, end < start, equal, compile, options)
    asked = None if equal else Asked.of(name, rule, problem.noise, x0, options)
    if start == end or not x0.numel():
        return _arrived(torch.stack([x0] * len(marks)), tuple(marks), start, Stats())
    x0 = x0.contiguous()
    with torch.set_grad_enabled(grad is not False and torch.is_grad_enabled()):
        eq, noise = _bound(problem, x0, start, name, own=not equal)
        shape, span = (len(x0), *noise), (min(start, end), max(start, end))
        if brownian is not None:
            brownian = _fitting(brownian, shape, span, x0.device)
        if asked is None:
            source = brownian or Independent(shape, seed_of(seed), x0.device)
            kind: type[Even] = Even
            if compile:
                from .chunks import Chunked  # few runs want it

                kind = Chunked
            found = _in_equal_steps(kind(name, rule, eq, x0, times, source), x0, saved, way)
        else:
            path = brownian or Brownian(shape, span, seed_of(seed), x0.device)
            with torch.no_grad():
                found, grid, counts = steps_chosen(asked, eq, x0, tuple(marks), start, path)
            if eq.differentiable and torch.is_grad_enabled() and len(grid) > 1:
                x = through(Own(name, rule, eq, x0, grid, path), x0, counts, way)
                found = replace(found, x=torch.where(found.x.isnan(), found.x, x))
    found.stats.seconds = time.perf_counter() - began
    failed = [i for i, message in enumerate(found.message) if message]
    if raise_on_failure and failed:
        raise SolveError(f"{len(failed)} of {len(x0)} samples failed; {found.message[failed[0]]}")
    return found


def _refused(
    problem: SDE,
    name: str,
    rule: Scheme,
    way: Way | None,
    backward: bool,
    equal: bool,
    compile: bool,
    options: dict[str, Any],
) -> None:
    if backward and problem.interpretation == "ito" and problem.noise != "additive":
        raise ArgumentError(
            'Ito\'s integral does not run backward: convert with problem.to("stratonovich"), or give t upward'
        )
    if equal and options:
        raise unknown(
            "argument of a run in equal steps", next(iter(options)), ("brownian", "save_at", "seed")
        )
    if compile and not (equal and way is None):
        raise ArgumentError(
            "compile=True of an SDE takes equal steps, dt= or steps=, and grad=True or False: or leave it out"
        )
    if isinstance(way, Reverse) and not (rule.reversible and equal):
        raise ArgumentError(
            "grad='reverse' undoes equal steps of reversible_heun: take these, or 'checkpoint'"
        )


def _fitting(
    path: Brownian, shape: tuple[int, ...], span: tuple[float, float], device: torch.device
) -> Brownian:
    if not isinstance(path, Brownian):
        raise ArgumentError(f"brownian = {path!r}: it is an ls.Brownian")
    if path.shape != shape:
        raise ArgumentError(f"brownian has shape {path.shape}; x0 and g take {shape}")
    if not path.span[0] <= span[0] <= span[1] <= path.span[1]:
        raise ArgumentError(f"t from {span[0]} to {span[1]} leaves the span {path.span} of brownian")
    return replace(path, device=device)


def _bound(problem: SDE, x0: Tensor, start: float, name: str, own: bool) -> tuple[Bound, tuple[int, ...]]:
    """The equation as its steps see it, and the shape of a sample's noise, from f and g at the start."""
    t = torch.full((len(x0),) if own else (), start, dtype=x0.dtype, device=x0.device)
    try:
        values = {"f": problem.f(t, x0), "g": problem.g(t, x0)}
    except Exception as error:
        raise failed(f"method {name}, t = {start:.6g}", error) from error
    shape, noise, g = x0.shape, problem.noise, values["g"]
    wide = isinstance(g, Tensor) and g.ndim == x0.ndim + 1
    columns = noise == "general" or (noise == "additive" and wide)
    expected = {"f": shape, "g": (*shape, g.shape[-1] if wide else "m") if columns else shape}
    for what, value in values.items():
        if not isinstance(value, Tensor) or value.dtype != x0.dtype or value.shape != expected[what]:
            kind = type(value).__name__
            is_ = f"{value.dtype}, {tuple(value.shape)}" if isinstance(value, Tensor) else kind
            raise SolveError(
                f"{what} returned {is_} for x of {x0.dtype}, {tuple(shape)} and {noise} noise: "
                f"return {x0.dtype}, {tuple(expected[what])}"
            )
    if noise == "additive" and not torch.equal(problem.g(t, x0 + 1), g):
        raise ArgumentError("g of additive noise changes with x: it is diagonal, scalar or general noise")
    differentiable = x0.requires_grad or any(value.requires_grad for value in values.values())
    each = g.shape[-1:] if columns else (1,) * (x0.ndim - 1) if noise == "scalar" else shape[1:]
    return Bound(problem, columns, differentiable), tuple(each)


def _arrived(x: Tensor, marks: tuple[float, ...], end: float, stats: Stats) -> Solution:
    """Where all samples came to the end."""
    batch, last = x.shape[1], x[-1].detach()
    t_end = torch.full((batch,), end, dtype=torch.float64, device=x.device)
    return Solution(x, marks, ("reached",) * batch, stats, t_end, last, (), ("",) * batch)


def _in_equal_steps(course: Even, x0: Tensor, saved: Sequence[int], way: Way | None) -> Solution:
    times, marks = course.times, tuple(course.times[n] for n in saved)
    with torch.set_grad_enabled(torch.is_grad_enabled() and course.eq.differentiable):
        x = through(course, x0, sorted({*saved, len(course)}), way)
    end, x = x[-1].detach(), x[: len(saved)]
    rule = course.scheme
    nfe = course.eq.asked + 2 * rule.reversible + len(course) * sum(rule.evaluations)
    stats = Stats(nfe, nfe, len(course), 0.0, nfe)
    if bool(end.isfinite().all()):
        return replace(_arrived(x, marks, times[-1], stats), x_end=end)
    stopped, x_end = _watched(course, x0)
    here = beside(stopped, x0)
    x = torch.stack([v.where(n <= here, math.nan) for v, n in zip(x, saved, strict=True)])
    why = "x becomes NaN or infinite; check f and g there, or take smaller steps"
    message = tuple("" if n == len(course) else f"{course.where(n)}: {why}" for n in stopped.tolist())
    status = tuple("non_finite" if m else "reached" for m in message)
    t_end = torch.tensor(times, dtype=torch.float64, device=x.device)[stopped]
    return Solution(x, marks, status, stats, t_end, x_end, (), message)


@torch.no_grad()
def _watched(course: Course, x0: Tensor) -> tuple[Tensor, Tensor]:
    """How many steps each sample came through finite [B], and its state then: the run, looked at."""
    kept: Kept = ((x0,), ())
    x = x0
    alive = rows(x0).isfinite().all(1)
    steps = torch.zeros(len(x0), dtype=torch.int64, device=x0.device)
    for n in range(len(course)):
        kept = course.step(n, kept)
        alive = alive & rows(kept[0][0]).isfinite().all(1)
        x = torch.where(beside(alive, x), kept[0][0], x)
        steps = steps + alive
    return steps, x
