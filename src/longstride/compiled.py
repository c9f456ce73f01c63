"""A plan run as one compiled graph: all that changes from one evaluation to the next travels as a tensor.

Between two evaluations a plan is linear. So what is remembered (states, evaluations, noises still needed) is
one tensor H [R, B, *shape] with the next x as its first row, and

    H' = W [H; F; z],     F = a x + b net(c_in x, time),     x = H[0]

with a matrix W and four numbers for each evaluation. Peers compile a graph for each step, because their
weights are Python numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .core import MULTIPLIERS
from .denoiser import Denoiser
from .errors import ArgumentError, SolveError
from .frame import PREDICTIONS
from .guidance import Guidance
from .integrate import run
from .noise import Noise
from .plan import Plan


@dataclass(frozen=True)
class Matrices:
    """begin [R, 1 + Z]: H before the first evaluation, of x and noises.  W [nfe, R, R + 1 + Z].

    at, field: of each evaluation.  marks: Brownian intervals whose noises are z of `begin`, then of each W.
    """

    begin: Tensor
    W: Tensor
    at: tuple[float, ...]
    field: tuple[int, ...]
    marks: tuple[tuple[tuple[float, float], ...], ...]

    def drawn(self, n: int, noise: Noise | None, x: Tensor) -> Tensor:
        """The noises [Z, *x.shape] before evaluation n, zero where there are fewer than the most."""
        z = x.new_zeros(self.begin.shape[1] - 1, *x.shape)
        for row, interval in zip(z, self.marks[n], strict=False):
            row.copy_(noise.increment(*interval))  # type: ignore[union-attr]
        return z


def matrices(plan: Plan) -> Matrices:
    """The weights of a plan between its evaluations.

    Every row is followed as a vector over what was remembered at the last evaluation, the evaluation itself
    and the noises drawn since; at the next one the rows still known are what is remembered.
    """
    blocks: list[list[np.ndarray]] = []
    at, field, marks = list[float](), list[int](), list[list[tuple[float, float]]]([[]])
    size = 1  # of what is remembered, without the evaluation and the noises
    xs, fs, zs = [{0: 1.0}], list[dict[int, float]](), list[dict[int, float]]()
    first = True

    def combined(stage: Any) -> dict[int, float]:
        row: dict[int, float] = {}
        for kind, i, w in stage.terms:
            if isinstance(w, MULTIPLIERS):
                raise ArgumentError(
                    "a plan with tensor weights has no matrices: leave out compile= and parallel="
                )
            for k, v in (xs, fs, zs)[kind][i].items():
                row[k] = row.get(k, 0.0) + w * v
        return row

    for step in plan.steps:
        zs = []
        for interval in pairwise(step.brownian or ()):
            zs.append({size + (0 if first else 1) + len(marks[-1]): 1.0})
            marks[-1].append(interval)
        for stage in step.stages:
            xs.append(combined(stage))
            if stage.at is None:
                continue
            at.append(stage.at)
            field.append(stage.field)
            rows = [xs[-1], *xs[:-1], *fs, *zs]
            width = size + (0 if first else 1) + len(marks[-1])
            blocks.append([np.array([row.get(k, 0.0) for k in range(width)]) for row in rows])
            first, size = False, len(rows)
            marks.append([])
            names = iter(range(1, size))
            older, fs, zs = ([{next(names): 1.0} for _ in known] for known in (xs[:-1], fs, zs))
            xs, fs = [*older, {0: 1.0}], [*fs, {size: 1.0}]
        xs, fs = [xs[i] for i in step.keep_x], [fs[i] for i in step.keep_f]
    width = size + 1 + len(marks[-1])
    blocks.append([np.array([xs[-1].get(k, 0.0) for k in range(width)])])
    return _padded(blocks, at, field, marks)


def _padded(
    blocks: list[list[np.ndarray]], at: list[float], field: list[int], marks: list[list[tuple[float, float]]]
) -> Matrices:
    """Blocks of different sizes as matrices of one: remembered [R], evaluation, noises [Z]."""
    R = max(len(rows) for rows in blocks)
    Z = max(len(drawn) for drawn in marks)
    begin = torch.zeros(R, 1 + Z, dtype=torch.float64)
    W = torch.zeros(len(at), R, R + 1 + Z, dtype=torch.float64)
    size = 1
    for n, rows in enumerate(blocks):
        for i, row in enumerate(rows):
            known = torch.from_numpy(row)
            if n == 0:
                begin[i, : len(row)] = known
                continue
            W[n - 1, i, :size] = known[:size]
            W[n - 1, i, R : R + len(row) - size] = known[size:]
        size = len(rows)
    return Matrices(begin, W, tuple(at), tuple(field), tuple(map(tuple, marks)))


def _advance(
    model: Denoiser,
    H: Tensor,
    W: Tensor,
    numbers: Tensor,
    z: Tensor,
    cond: Mapping[str, Any],
    guidance: Guidance,
    guided: bool,
) -> Tensor:
    """H' from H; numbers: see `Denoiser.predicted`."""
    F = model.predicted(H[0], numbers, cond, guidance, guided)
    return torch.tensordot(W, torch.cat([H, F[None], z]), 1)


@cache
def _compiled() -> Callable[..., Tensor]:
    """Made at the first use: torch.compile imports the compiler, which takes longer than torch itself."""
    return torch.compile(_advance, dynamic=False)  # symbolic shapes are what torch fails at most


def run_compiled(
    model: Denoiser,
    plan: Plan,
    x: Tensor,
    noise: Noise | None,
    cond: Mapping[str, Any],
    guidance: Guidance,
) -> Tensor:
    """x at the end of the plan, as `integrate.run` finds it, through one graph for all evaluations.

    The first call compiles, later ones with the same model and shapes do not. Guidance that is off at some
    of the times has two graphs, since it asks the network once or twice.

    Raises:
        SolveError: NaN or infinity, or what the network raised, with the step where it appears.
    """
    m = matrices(plan)
    if isinstance(guidance.weight, Tensor):
        raise ArgumentError("guidance that is a tensor cannot be compiled: give a number, or no compile=True")
    conditioned = model.conditioned(cond, guidance)
    weights = [guidance.at(model.process, t) for t in m.at]
    numbers = [
        (1.0 if w is None else w, *model.weights(PREDICTIONS[k], t, guidance))
        for w, k, t in zip(weights, m.field, m.at, strict=True)
    ]
    table = torch.tensor(numbers, dtype=torch.float64).to(x)
    begin, W = m.begin.to(x), m.W.to(x)

    advance = _compiled()
    try:
        H = torch.tensordot(begin, torch.cat([x[None], m.drawn(0, noise, x)]), 1)
        for n, weight in enumerate(weights):
            arguments = conditioned(len(x), x.device, weight is not None)
            z = m.drawn(n + 1, noise, x)
            H = advance(model, H, W[n], table[n], z, arguments, guidance, weight is not None)
        if torch.isfinite(H[0]).all():
            return H[0]
    except Exception:
        run(model.fields(cond, guidance), plan, x, noise)  # says where, if the network is the reason
        raise
    run(model.fields(cond, guidance), plan, x, noise)
    raise SolveError(f"method {plan.method}: compiled, the result is not finite, but uncompiled it is")
