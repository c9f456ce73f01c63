"""Runs of `longstride solve` whose steps a policy tells, and the constant steps beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from .task import Task

if TYPE_CHECKING:
    from ..solution import Solution


def steered(task: Task, controller: str, pace: float | None, named: bool, asked: bool) -> None:
    """Give a run the steps that a policy tells, by Hermite's method where none is named, or that follow from
    errors as a policy says.

    named: whether a method was.  asked: whether tolerances were.
    """
    from .. import control
    from ..nbody import Policy

    if "dt" in task.how:
        raise ArgumentError("--controller goes with steps that are chosen: leave out --dt, or name a method")
    try:
        policy = control.load("three_stars" if controller == "learned" else controller)
    except ArgumentError as error:
        raise ArgumentError(f"--controller is learned, or a policy's file: {error}") from error
    if pace is not None:
        if not isinstance(policy, Policy):
            raise ArgumentError(f"--pace {pace}: the policy {controller} has none")
        policy = policy.at(pace)
    task.controller, task.label = policy, f"{controller} steps"
    if control.tells(control.bound(policy, task.system)):  # or it is refused, before a run
        if asked:
            raise ArgumentError("--controller tells the steps: leave out --rtol and --atol")
        task.method, task.how = task.method if named else "hermite", {}
        task.label += f", pace {policy.pace:g}" if isinstance(policy, Policy) else ""


def constant(task: Task, solution: Solution, report: Callable[[int, int], None]) -> tuple[Task, Solution]:
    """The run with steps that are a constant share of the collision time, at the evaluations of another.

    Along the same orbit steps of a share p are int dt/tau over p in number. Where the orbits part, a second
    run takes the first one's number to do better.
    """
    import torch

    steps = task.steps(solution)
    found: list[tuple[Task, Solution]] = []
    q, v = torch.from_numpy(steps.x).unbind(1)
    time = task.system.acceleration.gravity.collision_time(q, v)  # type: ignore[union-attr]
    share = abs(float(torch.trapezoid(1 / time, torch.from_numpy(steps.t)))) / solution.stats.nfe
    for _ in range(2):
        label = f"constant steps, {share:.4g} of the collision time"
        other = Task(task.system, task.x0, task.end, "hermite_collision", {"rtol": share}, True, label=label)
        ended = other.run(report)
        assert ended is not None  # only equal steps have nothing to show
        found.append((other, ended))
        if abs(ended.stats.nfe - solution.stats.nfe) < 0.01 * solution.stats.nfe:
            break
        share *= ended.stats.nfe / solution.stats.nfe
    return min(found, key=lambda one: abs(one[1].stats.nfe - solution.stats.nfe))
