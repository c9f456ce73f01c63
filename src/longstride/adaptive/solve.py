"""Adaptive integration of a problem: what is asked for, checked, and what is given back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ..control import Controller, I, tells
from ..control import bound as controller_of
from ..core import MULTIPLIERS
from ..errors import ArgumentError, SolveError, failed, functions, unknown
from ..gradients.backsolve import Backsolve
from ..gradients.differentiable import WAYS, Flow, Way, gone_through
from ..gradients.ways import Reverse, way_of
from ..methods.second_order import rtol_of
from ..moments import Time, apart, marks_of, moments, span_of
from ..problem import ODE, as_x
from ..solution import Solution, Stats, at_once
from ..steppers.kinds import stepper
from ..steppers.trial import Norm, Rate, Stepper, Whole
from ..tree import check_state
from .carry import Ended, Limits
from .events import Crossings, Event, several
from .failure import EVENT, REACHED, STATUSES
from .output import Keeping, Output, Reduction
from .reach import looseness, reach
from .regularize import Regularize
from .stepping import Loop

DEFAULT, SEMILINEAR = "tsit5", "krogstad43"


def adaptive(
    problem: ODE,
    x0: Tensor,
    *,
    t: tuple[Time, Time] | None,
    method: str | None = None,
    rtol: float | Tensor | None = None,
    atol: float | Tensor = 1e-9,
    save_at: Sequence[Time] | Tensor | str | None = None,
    dense: bool = False,
    reduce: Reduction | Sequence[Reduction] | None = None,
    controller: Controller | None = None,
    shared_step: bool = False,
    jump_times: Sequence[float] = (),
    events: Sequence[Event] = (),
    raise_on_failure: bool = False,
    norm: Norm | None = None,
    watch: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    grad: bool | str | Way = True,
    regularize: str | Regularize | None = None,
    linear: str | None = None,
    compile: bool | str = False,
    **limits: Any,
) -> Solution:
    """Integrate over t = (start, end), forward or backward, in steps that keep the error to the tolerances.

    A step is kept if the root mean square over a sample of error/(atol + rtol max(|x|, |x1|)) is at most 1,
    of the error estimated in that step. What accumulates is usually some ten times as much. Of coefficients
    of a space, and of any problem with a `magnitude`, errors are weighed as a whole: |e|/(atol + rtol |x|).

    Args:
        rtol, atol: numbers, or tensors that broadcast with x. rtol is 1e-6 by default, 0.01 where it is the
            parameter of a criterion (`hermite_aarseth`, `hermite_collision`).
        save_at: times from start to end without turning back; between steps the pair's interpolant gives
            the state, at its own order (`methods.embedded`). "steps": the start and the end of every step,
            with t [n, B] and x [n, B, ...], NaN behind the last of each sample. Default: the end alone.
        dense: give `interpolant`, the solution as a function of t.
        reduce: a `Fold` or an `Integral`, or several; `reduced` is what they come to.
        controller: `ls.control.PI()`, or anything like it; a policy, `ls.control.load`.
        shared_step: one step for the batch, the root mean square over all of it; f gets a scalar t. Else
            samples step on their own, f gets t [B], and a sample's result does not depend on its batch.
        jump_times: where f jumps; steps end there and f is asked anew behind it, one evaluation.
        events: see `Event`.
        raise_on_failure: raise a SolveError where a sample does not come to its end, instead of a status.
        norm: norm(v) [B] of v [B, ...], an error over its tolerance, in place of what is said above; one
            number where the step is shared.
        watch: called with t, x and h before each step that is tried.
        grad: how gradients are made: True, through the graph of the accepted steps, whose sizes are taken as
            given; in one of the ways of `differentiable.WAYS`, which remember little; False, not at all.
        regularize: "error", "error_squared", "stiffness", or a `Regularize`: what the solver knows of its
            steps becomes `penalty` [B] of the solution, to be added to a loss.
        linear: "gmres", or "krylov" of exponential ones: implicit methods solve by products with df/dx, which
            is never written down.
        compile: a native loop takes the steps of states of few elements, else several are one compiled graph
            (`chunks`): of explicit pairs, hermite, gauss_radau_15 (up to 32 elements), Rosenbrock methods (up
            to 8). f, and what else is given, must become a graph whole; nothing can be backpropagated
            through; what is rare is still done uncompiled. "solver": f is called as it is, and may be
            anything; what explicit pairs do between two of its calls is native (`native.around`), of up to 32
            elements.
        limits: max_steps=100000 a sample, rejected ones included; nfe: a budget that is never exceeded, and
            on_budget="reach" to come to the end within it, in longer steps if need be (`reach.Reach`);
            first_step (default: Hairer's choice, one evaluation); min_step; max_step.

    Returns:
        x at the times t, NaN where a sample did not come; t_end and x_end where each stopped; a status and a
        message of each: "reached", "event", "step_limit", "nfe_limit", "step_underflow", "non_finite". With
        on_budget="reach" also "stretched", where the tolerances gave way, and error [B], an estimate of the
        error at the end, root mean square over a sample.

    Times that are tensors are differentiated by, and so are x0 and what f and g close over; in the result
    states, and times and states of events.

    Raises:
        ArgumentError: a bad argument.  SolveError: f fails or returns what it must not.
    """
    began = time.perf_counter()
    check_state(x0)
    way = way_of(grad, WAYS)
    method = method or _default(problem, way, bool(compile) or regularize is not None)
    bound, bounds, events = stepper(method), Limits(**_known(limits)), several(events)
    controller = controller_of(controller, problem)
    usable(controller)
    functions(norm=norm, watch=watch)
    if tells(controller) and (compile or bounds.on_budget == "reach" or way is not None):
        raise ArgumentError(
            "a controller that tells steps goes without compile=, on_budget='reach', and ways of grad= but "
            "True and False"
        )
    penalty = Regularize.of(regularize)
    start, end = span_of(t)
    assert t is not None
    sign = 1.0 if end >= start else -1.0
    every, given = apart(save_at)
    if way is not None and (every or dense or reduce is not None):
        raise ArgumentError("save_at='steps', dense= and reduce= look at every step: take grad=True")
    times = tuple(marks_of(given, start, end))
    jumps = [*moments("jump_times", jump_times), *moments("jump_times", problem.jump_times)]
    jumps = [s for s in sorted(set(jumps), key=lambda s: sign * s) if sign * start < sign * s < sign * end]
    if shared_step and any(event.terminal for event in events) and len(x0) > 1:
        raise ArgumentError("a terminal event stops samples one by one: leave out shared_step")
    rtol = rtol_of(method, 1e-6) if rtol is None else rtol
    tolerances = tolerances_of(x0, rtol=rtol, atol=atol)
    span = (sign * start, sign * end)
    if start == end or not x0.numel():
        found = Keeping(every, dense, reduce, sign).at_once(at_once(x0, times), span)
        return found if penalty is None else replace(found, penalty=x0.new_zeros(len(x0)))

    saved = [] if given is None else [sign * s for s in times]
    marks, rate = [sign * s for s in jumps], _checked(problem.rate, method, x0)
    a = problem.acceleration
    kick = None if a is None else _checked(a, method, x0.chunk(2, 1)[0])
    parts = [_checked(part, method, x0) for part in problem.parts]
    rest = _checked(problem.nonlinear, method, x0)
    weigh = norm or (Whole(problem.magnitude) if problem.magnitude else None)
    with torch.set_grad_enabled(grad is not False and torch.is_grad_enabled()):
        flow = Flow(rate, shared_step)
        x0 = flow.moved(x0.contiguous(), t[0], ahead=-1.0)

        def run(looser: float, rule: Controller | None, bounds: Limits, *more: Output) -> Solution:
            keeping, loose = Keeping(every, dense, reduce, sign), [looser * one for one in tolerances]
            steps = bound(rate, x0, sign, shared_step, torch.is_grad_enabled(), *loose, weigh)
            if controller is not None and steps.tells:
                raise ArgumentError(
                    f"method {method!r} has a criterion of its own for its steps: leave out controller=, "
                    "or take hermite"
                )
            steps.suit(problem.jacobian, parts, linear)
            steps.kicked(kick, problem.acceleration)
            steps.apart(problem.L, rest)
            noted = penalty.observer(steps, span, x0) if penalty else None
            outputs, observers = [*keeping.outputs(steps.degree), *more], [noted] if noted else []
            stops = sorted({*marks, *(s for s in saved if span[0] < s < span[1])}) if steps.lands else marks
            loop = Loop(
                steps, rule or steps.controller, bounds, span, stops, saved, events, outputs, observers, watch
            )
            if compile:
                from .chunks import Chunks  # few runs want it

                loop.chunks = Chunks(loop, problem.rate, problem.f, compile)
            ended = gone_through(loop, x0, method, way, problem)
            ended, crossings = flow.ended(ended, t[1], events)
            if given is None:
                came = (ended.code == REACHED).view(-1, *(1,) * (x0.ndim - 1))
                x = torch.where(came, ended.x, math.nan)[None]
            else:
                x = flow.saved(ended.saved(len(times)), given, ended.x)
            value = noted.value(len(x0)) if noted else None
            spent = flow.evaluations + (noted.evaluations if noted else 0)
            ended = replace(ended, nfe=ended.nfe + spent * (ended.nfe > 0))
            seconds = time.perf_counter() - began
            found = _solution(x, times, ended, crossings, steps, seconds, raise_on_failure)
            return replace(found, penalty=value, **keeping.given(span))

        if bounds.on_budget == "reach":
            return reach(run, looseness(x0, *tolerances), controller or I(), bounds)
        return run(1.0, controller, bounds)


def _default(problem: ODE, way: Any, plain: bool) -> str:
    """The method of a run that names none. plain: whether it wants a pair of plain weights."""
    if isinstance(way, Reverse):
        return "reversible_tsit5"
    semilinear = isinstance(problem.L, MULTIPLIERS) and not plain and not isinstance(way, Backsolve)
    return SEMILINEAR if semilinear else DEFAULT


def _checked(rate: Rate, method: str, x0: Tensor) -> Rate:
    """f, whose errors name the method and the time."""
    shape, dtype = x0.shape, x0.dtype

    def checked(t: Tensor, x: Tensor) -> Tensor:
        try:
            return as_x(rate(t, x), dtype, shape)
        except Exception as error:
            low, high = t.detach().min().item(), t.detach().max().item()
            where = f"method {method}, t = {low:.6g}" + (f" to {high:.6g}" if high > low else "")
            raise failed(where, error) from error

    return checked


def _known(limits: dict[str, Any]) -> dict[str, Any]:
    names = [f.name for f in fields(Limits)]
    for name in limits:
        if name not in names:
            others = list(signature(adaptive).parameters)[2:-1]
            raise unknown("argument of an adaptive run", name, [*names, *others])
    return limits


def usable(controller: Any) -> None:
    """That it can be asked: `PI`, the class, cannot."""
    if controller is None:
        return
    if isinstance(controller, type) or not (hasattr(controller, "start") and hasattr(controller, "control")):
        raise ArgumentError(f"controller = {controller!r}: it is ls.control.PI(), or has start and control")


def tolerances_of(x0: Tensor, **given: float | Tensor) -> tuple[Tensor, Tensor]:
    """rtol, atol beside the state."""
    found = []
    for name, value in given.items():
        try:
            tensor = torch.as_tensor(value, dtype=x0.dtype.to_real(), device=x0.device).detach()
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError(f"{name} = {value!r}: a number, or a tensor that broadcasts with x") from None
        try:
            tensor.expand(x0.shape)  # torch.broadcast_shapes would import sympy: 2 s
        except RuntimeError:
            shapes = f"{tuple(tensor.shape)} does not go with x {tuple(x0.shape)}"
            raise ArgumentError(f"{name} of shape {shapes}") from None
        if not bool(((tensor >= 0) & (tensor < math.inf)).all()):
            raise ArgumentError(f"{name} = {value!r}: it must be finite and not negative")
        found.append(tensor)
    if bool((found[0] + found[1] == 0).any()):
        raise ArgumentError("rtol and atol are both 0: no step is that exact; give one of them")
    # With atol = 0 an element that is and stays 0 is 0/tiny and not 0/0.
    return found[0], found[1].clamp_min(torch.finfo(found[1].dtype).tiny)


def _solution(
    x: Tensor,
    times: tuple[float, ...],
    ended: Ended,
    seen: tuple[Crossings, ...],
    steps: Stepper,
    seconds: float,
    loud: bool,
) -> Solution:
    codes = ended.code.tolist()
    all_reached = codes.count(REACHED) == len(codes)
    failed = [] if all_reached else [i for i, code in enumerate(codes) if code not in (REACHED, EVENT)]
    if loud and failed:
        raise SolveError(f"{len(failed)} of {len(codes)} samples failed; sample {failed[0]}: "
                         + ended.message[failed[0]])  # fmt: skip
    nfe = int(ended.nfe.max())
    stats = Stats(
        nfe,
        nfe,
        int((ended.accepted + ended.rejected).max()),
        seconds,
        nfe,
        accepted=ended.accepted,
        rejected=ended.rejected,
        nfe_each=ended.nfe,
        jacobians=steps.jacobians,
        factorizations=steps.factorizations,
    )
    status = (STATUSES[REACHED],) * len(codes) if all_reached else tuple(STATUSES[code] for code in codes)
    return Solution(x, times, status, stats, ended.t, ended.x, seen, ended.message)
