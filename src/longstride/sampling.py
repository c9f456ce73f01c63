"""A Denoiser and a Plan in, samples out."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import grid as grids
from .compiled import run_compiled
from .core import Stage, Step, Weight
from .denoiser import Denoiser
from .errors import ArgumentError, finite, floating, functions, said_of, whole
from .frame import PREDICTIONS, Frame, conversion, ddim_step
from .gradients.ways import Way, differentiable, way_of
from .guidance import Guidance
from .integrate import Callback, run
from .methods import Method, get
from .noise import Noise, seed_of
from .parallel import Parallel, run_parallel
from .plan import Plan
from .process import Process
from .solution import State, Stats

DEFAULT_METHOD, DEFAULT_NFE = "dpmpp_2m", 20
REFERENCE_RATIO = 1e5  # the noise-to-signal ratio taken for infinite when the reference begins


def plan_sampling(
    process: Process,
    method: str = DEFAULT_METHOD,
    nfe: int | None = None,
    grid: grids.Grid | None = None,
    *,
    final: str = "data",
    t_start: float | None = None,
    **options: Any,
) -> Plan:
    """The weights of a method on a process within a budget of `nfe` evaluations, never exceeded.

    The last step is the data prediction at the last positive time (final="sigma_min" stops there
    instead). Where the noise is pure (alpha = 0) and the method's frame is infinite, the first step is
    DDIM, which is exact in that limit. With explicit times the budget follows from them; where both are
    given and leave nothing for a method's start, it begins without.

    Raises:
        ArgumentError: a budget the method cannot keep, or a grid that does not fit it.
    """
    if final not in ("data", "sigma_min"):
        raise ArgumentError(f"final = {final!r}: it is data or sigma_min")
    if nfe is not None:
        nfe = whole("nfe", nfe, 1, "a sample needs at least one evaluation")
    rule, to_data = get(method, **options), final == "data"
    frame = frame_of(process, rule)
    grid, given = positive_times(process, grid)
    if given and t_start is not None:
        raise ArgumentError("t_start belongs to a family of grids: explicit times have their own")
    first = given[0] if given else process.t_max if t_start is None else finite("t_start", t_start)
    pure = math.isinf(frame.clock(first))
    if given and nfe is None:
        lead = min(int(pure), len(given) - 1)
        parts = tuple(rule.full(n) for n in range(len(given) - 1 - lead))
    else:
        budget = DEFAULT_NFE if nfe is None else nfe
        lead, parts = _spent(rule, budget, pure, to_data)
        if lead + len(parts) + 1 < len(given):  # on times of this number nothing is left for a start
            lead, parts = _spent(replace(rule, start=()), budget, pure, to_data)
    times = grids.times(process, lead + len(parts) + 1, given or grid, t_start)
    if parts and lead and not math.isinf(frame.clock(times[0])):
        lead, parts = 0, (1, *parts)  # a family that begins below t_max
    times = [*times, process.t_end] if to_data else times
    steps = [ddim_step(process, *times[k : k + 2]) for k in range(lead)]
    regular = times[lead:]  # the step to clean data counted, as methods count that look at how many are left
    try:
        steps += [rule.step(regular, n, frame, evals) for n, evals in enumerate(parts)]
    except OverflowError:
        raise ArgumentError(
            f"method {method} with {options}: its weights overflow; take smaller ones"
        ) from None
    if to_data:
        evaluated = bool(parts) and rule.evaluates_end
        steps.append(_end(process, frame, times[-2], steps[-1] if steps else Step(()), evaluated))
    elif not steps:
        raise ArgumentError("final = sigma_min needs two times at least: where to begin and where to stop")
    return Plan(tuple(times), tuple(steps), process.describe(), method, rule.options)


def frame_of(process: Process, rule: Method) -> Frame:
    """The frame a method samples a process in: its own, or one with L = 0 that is finite at the start."""
    natural = "velocity" if process.alpha(process.t_max) == 0 else "sigma"
    return Frame(process, rule.prediction or natural, rule.eta)


def positive_times(process: Process, grid: grids.Grid | None) -> tuple[Any, list[float]]:
    """(family, []) or (None, explicit times without the clean end)."""
    if grid is None:
        return grids.default_grid(process), []
    if callable(grid) or grids.named(grid) is not None:
        return grid, []
    times = grids.explicit(grid)
    times = times[:-1] if times and times[-1] == process.t_end else times
    if not times:
        raise ArgumentError("the grid is empty: give descending process times, or a family by name")
    return None, times


def _spent(rule: Method, nfe: int, pure: bool, to_data: bool) -> tuple[int, tuple[int, ...]]:
    """Steps of DDIM first, then the evaluations of each step of the method; the rest is for the end."""
    left = nfe - pure - (1 if to_data or rule.evaluates_end else 0)
    return (int(pure), rule.split(left)) if left > 0 else (nfe - to_data, ())


def _end(process: Process, frame: Frame, t: float, last: Step, evaluated: bool) -> Step:
    """Clean data at the end: the data prediction at t, from the evaluation there if it was made."""
    newest = (0.0,) * (len(last.keep_x) - 1) + (1.0,)
    older = (0.0,) * (len(last.keep_f) - 1 if evaluated else len(last.keep_f))
    if not evaluated:
        return Step((Stage(newest, at=t), Stage((), (*older, 1.0))))
    a, b = conversion(PREDICTIONS[frame.field], "data", *process.pair(t))
    return Step((Stage((*newest[:-1], a), (*older, b)),))


def usable(model: Any) -> None:
    """That it is a model, and not its name or its network."""
    if not isinstance(model, Denoiser):
        raise ArgumentError(
            f"the model is {said_of(model)}: ls.load(name), or ls.Denoiser(net, process, ...)"
        )


def prior(
    model: Denoiser,
    n: int,
    seed: int | torch.Generator = 0,
    t: float | None = None,
    dtype: torch.dtype | None = None,
    first: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """Pure noise [n, *shape] at time t (default t_max), of samples first .. first + n - 1."""
    usable(model)
    if not model.shape:
        raise ArgumentError("the model has no shape: Denoiser(..., shape=(3, 32, 32)), or give x_init=")
    n = whole("n", n, 1, "at least one sample")
    sigma = model.process.sigma(model.process.t_max if t is None else t)
    noise = Noise(seed_of(seed), range(first, first + n), model.shape).prior()
    return (noise * sigma).to(device or model.device or "cpu", dtype or model.dtype)


def sample(
    model: Denoiser,
    n: int | None = None,
    *,
    x_init: Tensor | State | None = None,
    first: int = 0,
    method: str | None = None,
    nfe: int | None = None,
    grid: grids.Grid | None = None,
    plan: Plan | None = None,
    seed: int | torch.Generator = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: Weight | Guidance = 1.0,
    t_start: float | None = None,
    final: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    batch: int = 256,
    callback: Callback | None = None,
    grad: bool | str | Way = False,
    compile: bool = False,
    parallel: Parallel | None = None,
    stats: Stats | None = None,
    **options: Any,
) -> Tensor:
    """Samples [n, *shape] of a model, in the scale of its data (not clamped).

    Args:
        n or x_init: how many, from noise drawn with `seed`; or x at the plan's first time; or the `State` of
            an inversion, which brings its plan and goes on exactly. Its plan with x alone takes the method's
            start instead, with a warning: then the way back is approximate.
        first: the samples are those of indices first .. first + n - 1, each with its own noise: what is
            drawn in parts is what is drawn at once.
        method, nfe, grid, t_start, final, options: see `plan_sampling`; or a finished `plan`.
        seed: of the noise of sample i, whatever n and batch are; an int or a torch Generator.
        cond: what the network is conditioned on, e.g. {"y": labels}: a number for all samples, or a tensor
            or list of length n, dealt out sample by sample.
        guidance: classifier-free guidance weight; 1 is plain conditional. A `Guidance` says more: a weight
            that depends on time, rescale, threshold, a second network.
        device, dtype: of the state (and the network is moved to the device).
        batch: samples that go through the network at once.
        callback: called as callback(step, t, x) after every step of every batch.
        grad: what backpropagation needs is kept (True); or little of it, in one of the ways of `gradients`:
            "checkpoint", "reverse" (reversible plans), "adjoint", or one of these with its arguments, such
            as `gradients.Checkpoint(memory=6)`.
        compile: run the plan as one graph of torch.compile, made once for a model and a shape of x.
        parallel: ask the network about many steps at once, in rounds: see `Parallel`. The window is shared by
            the samples of a batch, which is in the results up to the tolerance.
        stats: filled with what the call cost: the most of any batch.

    Raises:
        ArgumentError: a bad argument, before anything is run.
        SolveError: the network failed or returned NaN, with method, step and time.
    """
    usable(model)
    batch, first, number = whole("batch", batch, 1), whole("first", first, 0), seed_of(seed)
    functions(callback=callback)
    way = _one_loop(compile, parallel, grad, callback)
    asked = {"method": method, "nfe": nfe, "grid": grid, "t_start": t_start, "final": final, **options}
    asked = {k: v for k, v in asked.items() if v is not None}
    state = x_init if isinstance(x_init, State) else None
    if isinstance(x_init, State):
        if plan is not None or asked:
            raise ArgumentError("a State brings its plan: leave out plan=, and what makes one")
        plan, x_init = x_init.plan, x_init.x
    plan = chosen(model.process, plan, asked)
    if plan.states > 1 and state is None:
        plan = _begun_anew(model.process, plan)
    if (compile or parallel) and plan.states > 1:
        raise ArgumentError("compile= and parallel= run plans that begin with one state: leave them out here")
    count = _count(model, n, x_init, plan.times[0], t_start)
    try:
        where = None if device is None else torch.device(device)
        model = model if where is None else model.to(where)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"device = {device!r}: {error}") from error
    if x_init is not None:
        dtype = dtype or torch.promote_types(x_init.dtype, torch.float32)
        where = where or model.device or x_init.device
    where = where or model.device or torch.device("cpu")
    floating(dtype or model.dtype)
    guidance = Guidance.of(guidance)
    plan.warn_elsewhere(model.shape, str(guidance))
    if guidance.against is not None:
        guidance = replace(guidance, against=guidance.against.to(where))
    calls = model.network_calls(guidance, plan.evaluated)  # refuses a weight that is no number somewhere
    cond = model.conditioning(cond, count, where)
    parts, seconds, spent = [], 0.0, [(plan.nfe, calls, plan.nfe)]
    with torch.set_grad_enabled(grad is not False):
        for begin in range(0, count, batch):
            part = range(begin, min(begin + batch, count))
            if x_init is None:
                x = prior(model, len(part), number, plan.times[0], dtype, first + begin, where)
            else:
                x = x_init[part.start : part.stop].to(where, dtype)
            xs = [x] if state is None else [v[part.start : part.stop].to(where, dtype) for v in state.xs]
            dealt = dealt_out(cond, part)
            samples = range(first + part.start, first + part.stop)
            noise = Noise(number, samples, x.shape[1:]) if plan.stochastic else None
            started = time.perf_counter()
            if parallel is not None:
                out, cost = run_parallel(model, plan, x, noise, dealt, guidance, parallel)
                parts.append(out)
                spent = [*spent[begin == 0 :], cost]
            elif compile:
                parts.append(run_compiled(model, plan, x, noise, dealt, guidance))
            elif way is not None:
                parts.append(differentiable(model, plan, xs, noise, dealt, guidance, way, callback))
            else:
                parts.append(run(model.fields(dealt, guidance), plan, xs, noise, callback)[0][-1])
            seconds += time.perf_counter() - started
    if stats is not None:
        stats.steps, stats.seconds = len(plan.steps), seconds
        stats.nfe, stats.network_calls, stats.rounds = map(max, zip(*spent, strict=True))
    return torch.cat(parts)


def _one_loop(
    compile: bool, parallel: Parallel | None, grad: bool | str | Way, callback: Callback | None
) -> Way | None:
    """The way of the gradients, if no two of these want the steps for themselves."""
    way = way_of(grad)
    if compile and callback is not None:
        raise ArgumentError("compile=True has no steps to call back after: leave out callback or compile")
    if compile and way is not None:
        raise ArgumentError(
            f"compile=True has no steps to go back through: leave out compile, or grad={grad!r}"
        )
    if parallel is None:
        return way
    if not isinstance(parallel, Parallel):
        raise ArgumentError(f"parallel = {parallel!r}: it is a Parallel, such as ls.Parallel(window=20)")
    also = {"compile": compile, "callback": callback is not None, "grad": grad is not False}
    if taken := " and ".join(name for name, on in also.items() if on):
        raise ArgumentError(f"parallel= takes the steps in rounds, without {taken}: leave out one of them")
    return way


def chosen(process: Process, plan: Plan | None, asked: Mapping[str, Any]) -> Plan:
    """The plan that was given, or the one that was asked for."""
    if plan is None:
        return plan_sampling(process, **asked)
    if not isinstance(plan, Plan):
        raise ArgumentError(f"plan = {plan!r}: it must be a Plan; Plan.load(path) reads one")
    if asked:
        raise ArgumentError(f"plan= already holds {', '.join(asked)}: leave those out")
    plan.demand(process.describe())
    return plan


def fits(model: Denoiser, x: Any, name: str) -> None:
    """Refuse what is no batch of samples of the model."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ArgumentError(f"{name} must be a tensor of floats [n, *shape]")
    if not x.ndim or not len(x) or (model.shape and tuple(x.shape[1:]) != model.shape):
        raise ArgumentError(
            f"{name} is {list(x.shape)} where the model wants [n, *{list(model.shape)}], n at least 1"
        )


def dealt_out(cond: Mapping[str, Any], samples: range) -> dict[str, Any]:
    """Of conditions with one entry for each sample, the entries of these samples."""
    return {
        name: value[samples.start : samples.stop] if isinstance(value, Tensor) and value.ndim else value
        for name, value in cond.items()
    }


def _begun_anew(process: Process, plan: Plan) -> Plan:
    """The plan's method on its times with its own start, for who has one of several states."""
    warnings.warn(
        f"this plan goes on from {plan.states} states and gets x alone: it begins with the start of "
        f"{plan.method}, and returns to where it was inverted from approximately; keep the State for more",
        stacklevel=3,
    )
    return plan_sampling(process, plan.method, grid=plan.times, final="sigma_min", **plan.options)


def _count(model: Denoiser, n: int | None, x_init: Tensor | None, first: float, t_start: float | None) -> int:
    """How many samples are asked for, if what they start from fits the model."""
    if (n is None) == (x_init is None):
        raise ArgumentError("give either n=, how many samples, or x_init=, the noise to start from")
    if x_init is None:
        if t_start is not None or model.process.lambda_(first) >= 0:
            raise ArgumentError(
                f"the run begins at t = {first:.6g}, where x is not noise alone: give x_init=; "
                "process.add_noise(x0, t, noise) makes one"
            )
        return whole("n", n, 1, "at least one sample")
    fits(model, x_init, "x_init")
    return len(x_init)


def plan_reference(process: Process, nfe: int = 400) -> Plan:
    """Krogstad's fourth-order steps, even in log-SNR, as samples end: with the data prediction at t_min."""
    nfe = whole("nfe", nfe, 8, "a reference takes steps of 4 evaluations, 2 at least")
    high = min(math.exp(-process.lambda_(process.t_max)), REFERENCE_RATIO)
    low = math.exp(-process.lambda_(process.t_min))
    n = nfe // 4 + 1
    ratios = [high * (low / high) ** (i / (n - 1)) for i in range(n)]
    times = [process.time(-math.log(r)) for r in ratios[1:-1]]
    if high < REFERENCE_RATIO:
        times = [process.t_max, *times, process.t_min]
    else:
        times = [process.t_max, process.time(-math.log(high)), *times, process.t_min]
    return plan_sampling(process, "krogstad", grid=times)


def reference(
    model: Denoiser,
    x_init: Tensor,
    *,
    cond: Mapping[str, Any] | None = None,
    guidance: float | Guidance = 1.0,
    nfe: int = 400,
    batch: int = 256,
    callback: Callback | None = None,
) -> Tensor:
    """The ODE's own end point [n, *shape] from x_init at t_max, by `plan_reference`.

    Halving `nfe` says how converged it is.
    """
    usable(model)
    return sample(
        model, x_init=x_init, plan=plan_reference(model.process, nfe), cond=cond, guidance=guidance,
        batch=batch, callback=callback,
    )  # fmt: skip
