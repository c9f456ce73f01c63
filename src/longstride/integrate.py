"""The planned loop: a plan applied to fields, from a state to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .core import MULTIPLIERS, Field, advance
from .equal_steps.stretches import Stretches
from .errors import ArgumentError, Diverged, SolveError, at_step, failed, functions, said_of
from .methods import REGISTRY, get
from .methods.base import Method
from .methods.nystrom import IN_TURN
from .moments import Time, apart, numbers, stops
from .noise import Noise
from .plan import Plan
from .problem import ODE, SDE, Within
from .solution import Solution, Stats, at_once, ended
from .tree import Tree, check_state
from .view import View

if TYPE_CHECKING:
    from .gradients.differentiable import Way

Callback = Callable[[int, float, Tensor], Any]


def run(
    fields: Sequence[Field],
    plan: Plan,
    x: Tensor | Sequence[Tensor],
    noise: Noise | None = None,
    callback: Callback | None = None,
    save: set[int] | None = None,
    kept: list[Tensor] | None = None,
) -> tuple[list[Tensor], Stats]:
    """Apply a plan to x; returns the newest states after the steps numbered in `save` (default: the last).

    x: the state, or as many as the plan begins with, the newest last.  kept: filled with all the states
    that the last step keeps.

    callback(n, t, x) is called after step n, with the time and state it reached. Finiteness is looked at
    once, at the end; a run that fails is repeated with a look after every step, to name the one.

    Raises:
        SolveError: NaN or infinity, or an exception of a field, with the step where it first appeared.
    """
    started = time.perf_counter()
    xs = [x] if isinstance(x, Tensor) else list(x)
    if len(xs) != plan.states:
        raise ArgumentError(f"method {plan.method}: the plan begins with {plan.states} states, not {len(xs)}")
    found, last = _march(fields, plan, xs, noise, callback, save or {len(plan.steps) - 1}, watch=False)
    if not all(torch.isfinite(state).all() for state in last):
        _march(fields, plan, xs, noise, None, set(), watch=True)
        raise SolveError(f"method {plan.method}: the result is not finite, but a repetition's is")
    if kept is not None:
        kept[:] = last
    stats = Stats(plan.nfe, plan.nfe, len(plan.steps), time.perf_counter() - started, plan.nfe)
    return found, stats


def _march(
    fields: Sequence[Field],
    plan: Plan,
    xs: list[Tensor],
    noise: Noise | None,
    callback: Callback | None,
    save: set[int],
    watch: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    found: list[Tensor] = []
    fs: list[Tensor] = []
    for n in range(len(plan.steps)):
        xs, fs = take(fields, plan, n, xs, fs, noise)
        if watch and not all(torch.isfinite(x).all() for x in xs):
            evaluated = [stage.at for stage in plan.steps[n].stages if stage.at is not None]
            raise SolveError(
                f"{at_step(plan.method, n, plan.times)}: NaN or infinity, evaluated at t = {evaluated}; "
                "check what the network or f returns there, or take smaller steps"
            )
        if callback is not None:
            callback(n, plan.times[n + 1], xs[-1])
        if n in save:
            found.append(xs[-1])
    return found, xs


def take(
    fields: Sequence[Field],
    plan: Plan,
    n: int,
    xs: Sequence[Tensor],
    fs: Sequence[Tensor],
    noise: Noise | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Step n of a plan with its noise, from what step n - 1 kept; returns what it keeps.

    Raises:
        SolveError: what a field raised, with method, step and time.
    """
    step, zs = plan.steps[n], list[Tensor]()
    if step.brownian is not None:
        if noise is None:
            raise ArgumentError(f"method {plan.method} draws noise: give it a seed")
        zs = [noise.increment(a, b).to(xs[-1]) for a, b in pairwise(step.brownian)]
    try:
        return advance(fields, step, xs, fs, zs)
    except Exception as error:
        raise failed(at_step(plan.method, n, plan.times), error) from error


def chosen(method: str, **options: Any) -> Method:
    """A method for a problem."""
    if method not in REGISTRY:
        from .steppers.solvers import chooses  # it knows all methods

        chooses(method)
    rule = get(method, **options)
    if rule.diffusion:
        raise ArgumentError(f"method {method!r} samples diffusions: use ls.sample, or another method")
    return rule


def plan_problem(
    problem: ODE, times: Sequence[float], method: str, like: Tensor | None = None, **options: Any
) -> Plan:
    """The weights of a method on a problem, for any strictly monotone times.

    like: weights that are tensors are as precise as this state, and where it is; else as L has made them.
    """
    rule = chosen(method, **options)
    operator = problem.operator(rule.splits)
    if isinstance(operator.L, MULTIPLIERS):  # which equal steps share
        from .equal_steps.pace import Pace

        return Pace(problem, rule, like).plan(Stretches.between(times, [1] * (len(times) - 1)))
    steps = tuple(rule.step(times, n, operator) for n in range(len(times) - 1))
    return Plan(tuple(times), steps, {}, method, options)


def plan_fields(problem: ODE, plan: Plan) -> tuple[Field]:
    """What a plan evaluates: f alone where its method solves the linear part exactly, else all of dx/dt."""
    return problem.fields(plan.method in REGISTRY and get(plan.method, **plan.options).splits)


def solve(
    problem: ODE | SDE,
    x0: Any,
    *,
    t: tuple[Time, Time] | None = None,
    method: str | None = None,
    dt: float | None = None,
    steps: int | None = None,
    save_at: Sequence[Time] | Tensor | str | None = None,
    save_every: int | None = None,
    plan: Plan | None = None,
    callback: Callback | None = None,
    grad: bool | str | Way = True,
    **options: Any,
) -> Solution:
    """Integrate a problem over t = (start, end): in steps chosen as it goes, in equal steps, or by a plan.

    With dt or steps the steps are equal, and `method` is any of `ls.list_methods()`, "rk4" if none is named,
    "etdrk4" where L is a tensor or a matrix. With neither, steps follow from rtol and atol, `method` is one
    of `ls.list_solvers()`, "tsit5" if none is named, "krogstad43" with such an L, and f gets t [B], one for
    each sample. The other arguments are those of `longstride.adaptive.solve.adaptive`: controller, save_at,
    events, jump_times, nfe, max_steps, ...
    An `SDE` has methods and arguments of its own, seed among them: see `longstride.sde.solve.solve_sde`.

    Args:
        x0: [B, ...], or a tree of such: tuples, lists and dicts, nested. f and all else that is called with a
            state then see the tree, and so do the states of the solution; rtol and atol may be trees.
        dt or steps: how far a step goes, or how many there are between two saved times; dt
            is shortened so that the saved times are hit exactly.
        save_at: monotone times inside t at which the state is kept, or "steps": the start and the end of
            every step. Default: the end alone.
        save_every: in equal steps, in place of save_at: the start is kept, and the state after every so
            manieth step. The end is x_end, whether it is among them or not.
        reduce, checkpoint, checkpoint_every, progress: of equal steps, see `running.rolled`: what is
            evaluated on the way, where the run is written down and how often (seconds), whether a bar is
            shown.
        plan: in place of all of these, such as one that `ls.tune` made for this problem.
        grad: how gradients are made: True, by torch's own graph; in one of the ways of `differentiable.WAYS`,
            which remember little: "checkpoint", "reverse", "adjoint"; False, not at all.
        options: of the method.

    Times that are tensors are differentiated by.

    Raises:
        ArgumentError: a bad argument.  SolveError: the run failed, naming method, step and time.
    """
    functions(callback=callback)
    compile, told = options.get("compile") or False, (dt, steps, plan)
    if compile not in (True, False, "solver"):
        raise ArgumentError(f"compile = {compile!r}: True, or 'solver', or leave it out")
    if compile == "solver" and (isinstance(problem, SDE) or any(v is not None for v in told)):
        raise ArgumentError(
            "compile='solver' goes with chosen steps of an ODE: compile=True, or leave it out"
        )
    if isinstance(problem, SDE):
        from .sde.solve import solve_sde  # it builds on Solution, above

        if plan is not None or callback is not None:
            raise ArgumentError("plan= and callback= are not for an SDE: leave them out")
        return solve_sde(
            problem, x0, t=t, method=method, dt=dt, steps=steps, save_at=save_at, save_every=save_every,
            grad=grad, **options,
        )  # fmt: skip
    if not isinstance(problem, ODE):
        raise ArgumentError(f"the problem is {said_of(problem)}: wrap what gives dx/dt, ls.ODE(f)")
    if problem.space is None:  # else when it is entered
        problem.demand(x0)
    if not isinstance(x0, Tensor) or problem.space is not None:
        view, inner = seen(problem, x0)
        try:
            inside = solve(
                inner, view.flat(x0), t=t, method=method, dt=dt, steps=steps, save_at=save_at,
                save_every=save_every, plan=plan, callback=callback and view.reader(callback), grad=grad,
                **view.options(options),
            )  # fmt: skip
        except Diverged as error:
            error.x = view.nest(error.x)
            raise
        return view.solution(inside)
    if plan is not None:
        others = options or any(v is not None for v in (t, method, dt, steps, save_at, save_every))
        return _planned(problem, x0, plan, callback, grad, bool(others))
    if dt is None and steps is None:
        from .adaptive.solve import adaptive  # it builds on Solution, above

        if callback is not None or save_every is not None:
            raise ArgumentError("callback= and save_every= go with dt=, steps= or plan=")
        return adaptive(problem, x0, t=t, method=method, save_at=save_at, grad=grad, **options)
    check_state(x0)
    every, given = apart(save_at)
    times, marks = stops(t, dt, steps, given)
    assert t is not None
    if not times.steps:
        return at_once(x0, marks)
    saved = numbers(times, marks, every, save_every, save_at)
    marks = [times[n] for n in saved]
    if method in IN_TURN:
        from .equal_steps.turns import turned  # it builds on Solution, above

        return turned(problem, x0, times, saved, method, callback, grad, options)
    from .gradients.differentiable import Flow

    with torch.set_grad_enabled(grad is not False and torch.is_grad_enabled()):
        flow = Flow(problem.rate, shared=True)
        x0 = flow.moved(x0, t[0], ahead=-1.0)
        name = method or ("etdrk4" if isinstance(problem.L, MULTIPLIERS) else "rk4")
        found, end, reduced, stats = _equally(problem, x0, times, saved, name, callback, grad, options)
        ends = t[1:] if given is None else given
        x = flow.saved(torch.stack(found), marks if every or save_every else ends, x0)
    stats.nfe += flow.evaluations
    return replace(ended(x, marks, stats, times[-1], end), reduced=reduced)


def _equally(
    problem: ODE,
    x0: Tensor,
    times: Stretches,
    saved: Sequence[int],
    method: str,
    callback: Callback | None,
    grad: Any,
    options: Mapping[str, Any],
) -> tuple[list[Tensor], Tensor, Any, Stats]:
    """Equal steps: the states `saved`, the end, what reductions came to; gradients in the way asked for."""
    from .equal_steps.pace import Pace
    from .equal_steps.rollout import Rollout
    from .equal_steps.running import OPTIONS, rolled

    if "rtol" in options or "atol" in options:
        raise ArgumentError("dt= and steps= take equal steps: leave them out, or rtol= and atol=")
    asked = {key: value for key, value in options.items() if key in OPTIONS}
    others = {key: value for key, value in options.items() if key not in OPTIONS}
    if grad in (True, False) or not torch.is_grad_enabled():
        pace = Pace(problem, chosen(method, **others), x0)
        steps = Rollout(problem, pace, times, asked.pop("compile", False))
        run = rolled(steps, x0, saved, callback=callback, **asked)
        return run.x, run.end, run.reduced, run.stats
    if asked:
        raise ArgumentError(
            f"{', '.join(asked)}: leave out grad={grad!r}, which takes steps in its own order"
        )
    plan = plan_problem(problem, times, method, x0, **others)
    wanted = {n - 1 for n in (*saved, times.steps) if n}
    found, stats = _made(problem, plan, x0, callback, grad, wanted)
    end = found[-1]
    kept = found if saved[-1] == times.steps else found[:-1]
    return [x0, *kept] if saved[0] == 0 else kept, end, None, stats


def seen(problem: ODE, x0: Any) -> tuple[View, ODE]:
    """How a run sees the user's state, and the problem of what it sees."""
    if problem.space is not None:
        return Within(problem), problem.entered()
    tree = Tree(x0)
    return tree, problem.flattened(tree)


def _made(
    problem: ODE, plan: Plan, x0: Tensor, callback: Callback | None, grad: Any, save: set[int] | None = None
) -> tuple[list[Tensor], Stats]:
    """`run`, with gradients in the way asked for."""
    from .gradients.differentiable import WAYS, planned
    from .gradients.ways import way_of

    way = way_of(grad, WAYS)
    if way is None or not torch.is_grad_enabled():
        return run(plan_fields(problem, plan), plan, x0, callback=callback, save=save)
    began = time.perf_counter()
    found = planned(problem, plan, x0, save or {len(plan.steps) - 1}, way, callback)
    return found, Stats(plan.nfe, plan.nfe, len(plan.steps), time.perf_counter() - began, plan.nfe)


def _planned(
    problem: ODE, x0: Tensor, plan: Plan, callback: Callback | None, grad: Any, others: bool
) -> Solution:
    if others:
        raise ArgumentError(
            "plan= already holds times and weights: leave out t, method, dt, steps, save_at, options"
        )
    if not isinstance(plan, Plan):
        raise ArgumentError(f"plan = {plan!r}: it must be a Plan; Plan.load(path) reads one")
    plan.demand({})
    check_state(x0)
    with torch.set_grad_enabled(grad is not False and torch.is_grad_enabled()):
        found, stats = _made(problem, plan, x0, callback, grad)
    return ended(torch.stack(found), plan.times[-1:], stats)
