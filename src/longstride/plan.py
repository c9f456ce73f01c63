"""Plan: the weights of a whole run, with what they were made for and how good they were measured to be.

A plan file is JSON. It is checked when it is read, and its digest tells whether it is the file that was
written; nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from .core import Stage, Step
from .errors import ArgumentError, PlanError

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """times[0] > ... > times[-1] and the step between each two.

    made_for: the process (`Process.describe`) that the weights belong to, {} for a plain problem.
    method, options: who wrote the weights.  report: what was tried and measured, for the reader.

    Raises:
        PlanError: the weights do not fit together.
    """

    times: tuple[float, ...]
    steps: tuple[Step, ...]
    made_for: Mapping[str, Any] = field(default_factory=dict)
    method: str = "custom"
    options: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def nfe(self) -> int:
        """Evaluations of a field per sample."""
        return sum(step.nfe for step in self.steps)

    @property
    def stochastic(self) -> bool:
        return any(step.brownian is not None for step in self.steps)

    def demand(self, made_for: Mapping[str, Any]) -> None:
        """Refuse to be used for something else than the plan was made for.

        Raises:
            PlanError: naming what differs.
        """
        wanted, have = _plain(self.made_for), _plain(made_for)
        differ = [k for k in sorted({*wanted, *have}) if wanted.get(k) != have.get(k)]
        if differ:
            what = ", ".join(f"{k} {wanted.get(k)} and not {have.get(k)}" for k in differ)
            raise PlanError(f"this plan was made for another process: {what}; make one for this model")

    def to_json(self) -> dict[str, Any]:
        """The plan as what JSON can hold, with its digest.

        Raises:
            ArgumentError: a weight is a tensor (keep the method, its options and the times instead: they
                make the weights again).
        """
        weights = (w for s in self.steps for g in s.stages for row in (g.x, g.f, g.z) for w in row)
        if any(isinstance(w, Tensor) for w in weights):
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
        return Plan(file.times, steps, file.made_for, file.method, file.options, file.report)


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        ArgumentError: the path cannot be written.
    """
    path = Path(path)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            os.chmod(part, 0o644)
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror}") from error


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


def _body(plan: Plan) -> dict[str, Any]:
    return _plain(
        {
            "format": "longstride-plan",
            "version": VERSION,
            "method": plan.method,
            "options": dict(plan.options),
            "made_for": dict(plan.made_for),
            "nfe": plan.nfe,
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
    for a, b in pairwise(times):
        if not (math.isfinite(a) and math.isfinite(b) and (b > a if rising else b < a)):
            raise PlanError(f"times must all go one way, but {b} follows {a}")
    states, evaluations = 1, 0
    for n, step in enumerate(plan.steps):
        try:
            states, evaluations = _check_step(step, states, evaluations)
        except PlanError as error:
            raise PlanError(f"step {n}: {error}") from None


def _check_step(step: Step, states: int, evaluations: int) -> tuple[int, int]:
    """States and evaluations kept by a step that begins with so many; every index must exist."""
    for k, stage in enumerate(step.stages):
        noises = 0 if step.brownian is None else 1
        for name, row, known in (
            ("x", stage.x, states),
            ("f", stage.f, evaluations),
            ("z", stage.z, noises),
        ):
            if len(row) > known:
                raise PlanError(f"stage {k} has {len(row)} weights {name}, but only {known} are known")
            if any(not isinstance(w, Tensor) and not math.isfinite(w) for w in row):
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
