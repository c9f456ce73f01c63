"""`rollouts.c`, compiled when first asked for: `nbody.rollout`, a hundred times as fast of many systems."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longstride.methods.runge_kutta import TSIT5
from longstride.nbody import Gravity
from longstride.nbody.rollouts import Rollout
from longstride.nbody.rules import Rule, aarseth, collision, free_fall, learned

F64 = torch.float64
STARS = Gravity(torch.ones(3, dtype=F64))
MOST = 300_000
METHODS, RULES = ("hermite", "leapfrog", "tsit5"), (collision, free_fall, aarseth, learned)  # as in C


@cache
def native(n: int, d: int) -> Any:
    """`rollouts` of rollouts.c, for n bodies in d dimensions."""
    source, made = Path(__file__).with_suffix(".c"), Path(tempfile.mkdtemp()) / "rollouts.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC", f"-DN={n}", f"-DD={d}"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", made, source, "-lm"], check=True)
    return ctypes.CDLL(str(made)).rollouts


def rolled(
    bodies: Gravity,
    x0: Tensor,
    end: float,
    rule: Rule,
    numbers: Tensor,
    max_steps: int = MOST,
    scheme: str = "hermite",
) -> Rollout:
    """`nbody.rollout` in C."""

    def at(x: Tensor) -> Any:
        return ctypes.cast(x.data_ptr(), ctypes.POINTER(ctypes.c_double))

    x, error, steps = x0.clone().contiguous(), *torch.zeros(2, len(x0), dtype=F64)
    told = torch.zeros(len(x0), 10, dtype=F64)
    told[:, : len(numbers)] = numbers.view(len(numbers), -1).T
    weights = torch.zeros(6, 6, dtype=F64)
    for row, w in zip(weights, (*TSIT5.a[1:], TSIT5.b), strict=True):
        row[: len(w)] = torch.tensor(w)
    masses = (bodies.G * bodies.masses).contiguous()
    native(*x.shape[2:])(
        at(masses), at(weights), len(x), at(x), ctypes.c_double(end), METHODS.index(scheme),
        RULES.index(rule), at(told), ctypes.c_long(max_steps), at(error), at(steps),
    )  # fmt: skip
    return Rollout(x, steps.long(), error)


def share(every: float, most: int = 1_000_000) -> Any:
    """What a `Task` runs, as `nbody.decisions.hermite_steps` does: a share of the collision time."""

    def run(x: Tensor, t: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        found = rolled(STARS, x, every, collision, value[None], most)
        return torch.where((found.steps < most)[:, None, None, None], found.x, torch.nan), found.steps

    return run
