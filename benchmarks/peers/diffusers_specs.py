"""The schedulers of diffusers, with every option and grid that is valid for a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import diffusers

from . import Task

SPACINGS = ("linspace", "leading", "trailing")
CONVERTED = ("karras", "exponential", "beta")


@dataclass(frozen=True)
class Spec:
    """A scheduler class and the frame of its samples.

    frame: "vp" x = (x0 + r noise)/sqrt(1 + r^2), "ve" x = x0 + r noise, r its sigma; "flow" its sigma is t.
    output: what `step` is given: "data", "noise", "velocity" or EDM's "raw".
    cost: evaluations spent on n steps.
    last: "zero" it reaches clean data; "sigma_min" it stops at noise, and a second run spends its last
    evaluation on the data prediction there; "repeat" its last sigma stands twice, so that its last step has
    length zero; "repeat, nan" that step divides by zero and can only be left out.
    """

    name: str
    make: Callable[[], Any]
    grid: str
    frame: str = "vp"
    output: str = "data"
    cost: Callable[[int], int] = field(default=lambda n: n)
    last: str = "zero"
    step: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def grid_options(task: Task, extra: tuple[str, ...] = (), spacings: bool = True) -> dict[str, dict]:
    """Constructor arguments of every grid that is valid for the task."""
    found: dict[str, dict] = {}
    if task.kind == "vp":
        found |= {s: {"timestep_spacing": s} for s in SPACINGS} if spacings else {"linspace": {}}
    found |= {name: {f"use_{name}_sigmas": True} for name in CONVERTED}
    if "lu" in extra:
        found["lu_lambdas"] = {"use_lu_lambdas": True}
    if task.kind == "flow" and "flow" in extra:
        for shift in (1.0, 2.0, 3.0, 5.0):
            options = {"use_flow_sigmas": True, "flow_shift": shift}
            found[f"flow shift={shift:g}"] = options
    return found


def frame_of(options: dict) -> str:
    return "flow" if options.get("use_flow_sigmas") else "vp"


def dpm_solvers(task: Task) -> Iterator[Spec]:
    multi, single = diffusers.DPMSolverMultistepScheduler, diffusers.DPMSolverSinglestepScheduler
    kinds = ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"))
    ends = {
        "": {},
        ", euler at final": {"euler_at_final": True},
        ", full order to the end": {"lower_order_final": False},
    }
    float32 = "the state is cast to float32 in every step"
    for grid, options in grid_options(task, ("lu", "flow")).items():
        for (order, kind), end in product(kinds, ends):
            if order == 1 and end:
                continue
            name = f"DPM++ multistep {order} {kind}{end}"
            args = {"solver_order": order, "solver_type": kind, "prediction_type": "sample"}
            make = partial(multi, **args, **ends[end], **options)
            yield Spec(name, make, grid, frame_of(options), note=float32)
            if end == ", euler at final":
                continue
            args |= {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
            make = partial(multi, **args, **ends[end], **options)
            if frame_of(options) == "vp":  # sigma_min is taken from the table, which is no flow's
                last = "sigma_min" if grid in SPACINGS else "repeat"
                yield Spec(name.replace("++", ""), make, grid, last=last, note=float32)
    kinds = ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun"))
    for (order, kind), (grid, options) in product(
        kinds, grid_options(task, ("flow",), spacings=False).items()
    ):
        args = {"solver_order": order, "solver_type": kind, "prediction_type": "sample"}
        args["lower_order_final"] = True
        name = f"DPM++ singlestep {order} {kind}"
        yield Spec(name, partial(single, **args, **options), grid, frame_of(options))
        if frame_of(options) == "vp":
            args |= {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
            make = partial(single, **args, **options)
            yield Spec(name.replace("++", ""), make, grid, last="sigma_min")


def multistep(task: Task) -> Iterator[Spec]:
    for grid, options in grid_options(task, ("flow",)).items():
        for order, kind, x0, lower in product((1, 2, 3, 4), ("bh1", "bh2"), (True, False), (True, False)):
            if order == 1 and not lower:
                continue
            end = "" if lower else ", full order to the end"
            name = f"UniPC {order} {kind} {'data' if x0 else 'noise'} prediction{end}"
            args: dict[str, Any] = {"solver_order": order, "solver_type": kind, "predict_x0": x0}
            args |= {"lower_order_final": lower, "prediction_type": "sample"}
            last = "zero"
            if not x0 or not lower or kind == "bh1":  # each is infinite or 0 * infinity at sigma = 0
                args["final_sigmas_type"] = "sigma_min"
                last = "sigma_min" if grid in SPACINGS else "repeat, nan"
            make = partial(diffusers.UniPCMultistepScheduler, **args, **options)
            yield Spec(name, make, grid, frame_of(options), last=last)
        for order, lower in product((1, 2, 3), (True, False)):
            if order == 1 and not lower:
                continue
            name = f"DEIS {order}" + ("" if lower else ", full order to the end")
            args = {"solver_order": order, "lower_order_final": lower, "prediction_type": "sample"}
            make = partial(diffusers.DEISMultistepScheduler, **args, **options)
            last = "sigma_min" if grid in SPACINGS else "repeat"
            yield Spec(name, make, grid, frame_of(options), last=last)


def sigma_space(task: Task) -> Iterator[Spec]:
    two = lambda n: 2 * n - 1  # noqa: E731
    for grid, options in grid_options(task).items():
        data = options | {"prediction_type": "sample"}
        make = partial(diffusers.EulerDiscreteScheduler, **data)
        yield Spec("Euler", make, grid, "ve", note="the state is cast to float32 in every step")
        yield Spec("Heun", partial(diffusers.HeunDiscreteScheduler, **data), grid, "ve", cost=two)
        make = partial(diffusers.KDPM2DiscreteScheduler, **options)
        yield Spec("KDPM2", make, grid, "ve", "noise", cost=two)
        for order in (1, 2, 3, 4):
            make = partial(diffusers.LMSDiscreteScheduler, **data)
            yield Spec(f"LMS {order}", make, grid, "ve", step={"order": order})
    if task.kind != "edm":
        return
    for rho, schedule in (
        (3.0, "karras"),
        (5.0, "karras"),
        (7.0, "karras"),
        (10.0, "karras"),
        (7.0, "exponential"),
    ):
        grid = schedule if schedule == "exponential" else f"karras rho={rho:g}"
        args: dict[str, Any] = {"sigma_schedule": schedule, "rho": rho}
        make = partial(diffusers.EDMEulerScheduler, **args)
        yield Spec("EDMEuler", make, grid, "ve", "raw", note="the state is cast to float32 in every step")
        for order, kind, lower in product((1, 2, 3), ("midpoint", "heun"), (True, False)):
            if (order == 1 and not lower) or (order != 2 and kind == "heun"):
                continue
            args2 = args | {"solver_order": order, "solver_type": kind, "lower_order_final": lower}
            end = "" if lower else ", full order to the end"
            make = partial(diffusers.EDMDPMSolverMultistepScheduler, **args2)
            yield Spec(f"EDM DPM++ multistep {order} {kind}{end}", make, grid, "ve", "raw")


def flows(task: Task) -> Iterator[Spec]:
    note = "the state is cast to float32 in every step"
    for shift in (1.0, 2.0, 3.0, 5.0):
        for kind in ("", *CONVERTED):
            options = {"shift": shift} | ({f"use_{kind}_sigmas": True} if kind else {})
            make = partial(diffusers.FlowMatchEulerDiscreteScheduler, **options)
            grid = f"shift={shift:g} {kind}".strip()
            yield Spec("FlowMatchEuler", make, grid, "flow", "velocity", note=note)
        make = partial(diffusers.FlowMatchHeunDiscreteScheduler, shift=shift)
        cost = lambda n: 2 * n - 1  # noqa: E731
        yield Spec("FlowMatchHeun", make, f"shift={shift:g}", "flow", "velocity", cost, note=note)
