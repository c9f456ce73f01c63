"""Stage, Step, advance: the only place where a step is taken.

Every explicit scheme that is linear in its states, evaluations and noises is rows of weights:

    X_k = sum_i x_ki X_i + sum_j f_kj F_j + sum_m z_km xi_m,     F_k = field(t_k, X_k)

A Method writes the rows, a Plan keeps them, `advance` applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from .matrix import Matrix

Weight = float | Tensor  # or a Matrix, which multiplies states as a tensor does
MULTIPLIERS = (Tensor, Matrix)  # the weights that are no numbers
Field = Callable[[float, Tensor], Tensor]
Known = Sequence[Tensor] | Mapping[int, Tensor]


@overload
def beside(w: Tensor, x: Tensor) -> Tensor: ...
@overload
def beside(w: Weight, x: Tensor) -> Weight: ...
def beside(w: Weight, x: Tensor) -> Weight:
    """A weight in the precision and on the device of a state; numbers as they are."""
    if isinstance(w, Matrix):
        return w.beside(x)
    return w.to(x.device, x.dtype if w.is_complex() else x.dtype.to_real()) if isinstance(w, Tensor) else w


@dataclass(frozen=True)
class Stage:
    """One row: combine what is known, then evaluate there, or not.

    x, f, z: weights of the states, evaluations and noises known so far, oldest first. A row may be
    shorter than what is known.  at: time of the evaluation, None for none.  field: which field.
    """

    x: tuple[Weight, ...]
    f: tuple[Weight, ...] = ()
    z: tuple[Weight, ...] = ()
    at: float | None = None
    field: int = 0

    @cached_property
    def terms(self) -> tuple[tuple[int, int, Weight], ...]:
        """(0 for x, 1 for f, 2 for z; position; weight) without the zeros."""
        rows = enumerate((self.x, self.f, self.z))
        return tuple(
            (kind, i, w)
            for kind, row in rows
            for i, w in enumerate(row)
            if isinstance(w, MULTIPLIERS) or w != 0
        )


@dataclass(frozen=True)
class Step:
    """The rows of one step, and which states and evaluations the next step sees.

    brownian: marks of Brownian time, or None: noise m of the step is the motion from mark m to the next
    over the root of its length, a unit normal, whatever clock the method integrates in. Most steps have one
    noise and two marks; a stage in the middle that is noisy too has a mark of its own.
    """

    stages: tuple[Stage, ...]
    keep_x: tuple[int, ...] = (-1,)
    keep_f: tuple[int, ...] = ()
    brownian: tuple[float, ...] | None = None

    @cached_property
    def nfe(self) -> int:
        return sum(stage.at is not None for stage in self.stages)


def combine(terms: Sequence[tuple[int, int, Weight]], known: Sequence[Known]) -> Tensor:
    """The weighted sum of one row. Only its own fresh result is ever written in place."""
    kind, i, w = terms[0]
    if isinstance(w, Matrix) and w.together:
        return w.sum([(weight, known[kind][i]) for kind, i, weight in terms])
    out = known[kind][i]
    fresh = not (isinstance(w, float) and w == 1.0)
    if fresh:
        out = out * w
    for kind, i, w in terms[1:]:
        v = known[kind][i]
        if type(w) is Tensor:
            out = torch.addcmul(out, v, w)
        elif isinstance(w, MULTIPLIERS):  # those that multiply in a way of their own
            out = out + v * w
        elif fresh:
            out = out.add_(v, alpha=w)
        else:
            out = torch.add(out, v, alpha=w)
        fresh = True
    return out


def advance(
    fields: Sequence[Field],
    step: Step,
    xs: Sequence[Tensor],
    fs: Sequence[Tensor],
    zs: Sequence[Tensor] = (),
) -> tuple[list[Tensor], list[Tensor]]:
    """Take one step from the states xs and evaluations fs kept by the last; returns those to keep."""
    xs, fs = list(xs), list(fs)
    known = (xs, fs, zs)
    for stage in step.stages:
        x = combine(stage.terms, known)
        xs.append(x)
        if stage.at is not None:
            fs.append(fields[stage.field](stage.at, x))
    return [xs[i] for i in step.keep_x], [fs[i] for i in step.keep_f]
