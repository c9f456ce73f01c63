"""Plan: the weights of a whole run, with what they were made for and how good they were measured to be.

A plan file is JSON. It is checked when it is read, and its digest tells whether it is the file that was
written; nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from .core import MULTIPLIERS, Stage, Step, Weight
from .errors import ArgumentError, PlanError, differing
from .files import write_text

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """times[0] > ... > times[-1] and the step between each two; a step of noise alone may go back.

    made_for: the process (`Process.describe`) that the weights belong to, {} for a plain problem.
    method, options: who wrote the weights.  report: what was tried and measured, for the reader.
    states: how many it begins with, the newest last; more than one where it goes on from a run (`State`).

    Raises:
        PlanError: the weights do not fit together.
    """

    times: tuple[float, ...]
    steps: tuple[Step, ...]
    made_for: Mapping[str, Any] = field(default_factory=dict)
    method: str = "custom"
    options: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    states: int = 1

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def nfe(self) -> int:
        """Evaluations of a field per sample."""
        return sum(step.nfe for step in self.steps)

    @cached_property
    def weights(self) -> str:
        """A digest of what the plan does, whatever it is called: many names write the same weights."""
        return hashlib.sha256(repr((self.times, self.steps)).encode()).hexdigest()

    @property
    def evaluated(self) -> list[float]:
        """The times of the evaluations, in their order."""
        return [stage.at for step in self.steps for stage in step.stages if stage.at is not None]

    @property
    def stochastic(self) -> bool:
        return any(step.brownian is not None for step in self.steps)

    def mapped(self, change: Callable[[Weight], Weight]) -> Plan:
        """The plan with change(w) for each weight w, zeros included."""
        steps = tuple(
            replace(step, stages=tuple(
                replace(g, x=tuple(map(change, g.x)), f=tuple(map(change, g.f)), z=tuple(map(change, g.z)))
                for g in step.stages
            ))
            for step in self.steps
        )  # fmt: skip
        return replace(self, steps=steps)

    def demand(self, made_for: Mapping[str, Any]) -> None:
        """Refuse to be used for something else than the plan was made for.

        Raises:
            PlanError: naming what differs.
        """
        what = differing(_plain(self.made_for), _plain(made_for))
        if what:
            raise PlanError(f"this plan was made for another process: {what}; make one for this model")

    def warn_elsewhere(self, shape: Sequence[int], guidance: str) -> None:
        """A plan that was tuned says where, and warns where that is not."""
        made_for = self.report.get("tuned_for", {})
        for what, here in (("shape", list(shape)), ("guidance", guidance)):
            wanted = made_for.get(what, here)
            several = what == "guidance" and isinstance(wanted, Sequence) and not isinstance(wanted, str)
            if here not in (wanted if several else [wanted]):
                warnings.warn(
                    f"this plan was tuned for {what} {wanted} and is used for {here}: "
                    "tune again, or see what it does there",
                    stacklevel=3,
                )

    def to_json(self) -> dict[str, Any]:
        """The plan as what JSON can hold, with its digest.

        Raises:
            ArgumentError: a weight is a tensor (keep the method, its options and the times instead: they
                make the weights again).
        """
        weights = (w for s in self.steps for g in s.stages for row in (g.x, g.f, g.z) for w in row)
        if any(isinstance(w, MULTIPLIERS) for w in weights):
            raise ArgumentError(
                "a plan with tensor weights has no file: save method, options and times, which make it"
            )
        body = _body(self)
        return {**body, "digest": _digest(body)}

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, whole or not at all.

        Raises:
            ArgumentError: the path cannot be written, or a weight is a tensor.
        """
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read a plan and check it.

        Raises:
            PlanError: not there, truncated, edited by hand, of another version, or inconsistent.
        """
        try:
            raw = json.loads(Path(path).read_text())
        except OSError as error:
            raise PlanError(f"cannot read plan {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path} is not a plan: truncated or not JSON ({error})") from error
        return Plan.from_json(raw, path)

    @staticmethod
    def from_json(raw: Any, path: str | Path = "the plan") -> Plan:
        """What `to_json` gave, checked; `path` is what errors call it.

        Raises:
            PlanError: edited by hand, of another version, or inconsistent.
        """
        from .plan_file import PlanFile, parse  # pydantic, which only a reader needs

        file: PlanFile = parse(path, raw)
        if file.digest != _digest({k: v for k, v in raw.items() if k != "digest"}):
            raise PlanError(
                f"{path} was changed after it was written: its digest does not match; write it again with "
                "Plan.save"
            )
        steps = tuple(
            Step(
                tuple(Stage(**stage.model_dump()) for stage in step.stages),
                step.keep_x,
                step.keep_f,
                step.brownian,
            )
            for step in file.steps
        )
        plan = Plan(file.times, steps, file.made_for, file.method, file.options, file.report, file.states)
        if plan.nfe != file.nfe:
            raise PlanError(f"{path} says nfe = {file.nfe}, but its steps evaluate {plan.nfe} times")
        return plan


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists, and numpy's numbers Python's."""
    return json.loads(json.dumps(value, default=lambda number: number.item()))


def _body(plan: Plan) -> dict[str, Any]:
    return _plain(
        {
            "format": "longstride-plan",
            "version": VERSION,
            "method": plan.method,
            "options": dict(plan.options),
            "made_for": dict(plan.made_for),
            "nfe": plan.nfe,
            "states": plan.states,
            "times": plan.times,
            "steps": [asdict(step) for step in plan.steps],
            "report": dict(plan.report),
        }
    )


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _check(plan: Plan) -> None:
    times = plan.times
    if len(times) != len(plan.steps) + 1 or not plan.steps:
        raise PlanError(f"{len(plan.steps)} steps need one time more than that, not {len(times)}")
    rising = times[-1] > times[0]
    for (a, b), step in zip(pairwise(times), plan.steps, strict=True):
        jump = step.nfe == 0 and step.brownian is not None  # noise puts it back to an earlier time
        if not (math.isfinite(a) and math.isfinite(b) and a != b and (jump or (b > a) == rising)):
            raise PlanError(f"times must all go one way, but {b} follows {a}")
    states, evaluations = plan.states, 0
    if states < 1:
        raise PlanError(f"states = {states}: a plan begins with one state at least")
    low, high = min(times), max(times)
    slack = 1e-9 * (high - low)  # a method may find a time again through its clock
    for n, step in enumerate(plan.steps):
        evaluated = [stage.at for stage in step.stages if stage.at is not None and plan.states == 1]
        if any(not low - slack <= at <= high + slack for at in evaluated):  # states may be of earlier times
            raise PlanError(f"step {n} evaluates outside the times of the plan, {low} to {high}")
        try:
            states, evaluations = _check_step(step, states, evaluations)
        except PlanError as error:
            raise PlanError(f"step {n}: {error}") from None


def _check_step(step: Step, states: int, evaluations: int) -> tuple[int, int]:
    """States and evaluations kept by a step that begins with so many; every index must exist."""
    marks = () if step.brownian is None else step.brownian
    ordered = sorted({m for m in marks if 0 < m < math.inf})
    if step.brownian is not None and (len(marks) < 2 or list(marks) not in (ordered, ordered[::-1])):
        raise PlanError(f"its Brownian times {marks} must be two or more, positive, and all go one way")
    noises = max(len(marks) - 1, 0)
    for k, stage in enumerate(step.stages):
        for name, row, known in (
            ("x", stage.x, states),
            ("f", stage.f, evaluations),
            ("z", stage.z, noises),
        ):
            if len(row) > known:
                raise PlanError(f"stage {k} has {len(row)} weights {name}, but only {known} are known")
            if any(not isinstance(w, MULTIPLIERS) and not math.isfinite(w) for w in row):
                raise PlanError(f"stage {k} has a weight {name} that is not finite")
        if not stage.terms:
            raise PlanError(f"stage {k} combines nothing: all its weights are zero")
        states += 1
        evaluations += stage.at is not None
    if not step.keep_x:
        raise PlanError("it keeps no state")
    for name, keep, known in (("x", step.keep_x, states), ("f", step.keep_f, evaluations)):
        if any(not -known <= i < known for i in keep):
            raise PlanError(f"keep_{name} = {keep} points outside the {known} known")
    return len(step.keep_x), len(step.keep_f)
