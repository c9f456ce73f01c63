"""The slope of a free solver's error in every free number, by the adjoint of its run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..core import Field
from ..errors import SolveError
from .free import Features, Free, March

CHUNK = 2**17  # elements that are differentiated at once: the graph of one evaluation is kept, not a run's


@torch.no_grad()
def slope(
    fields: Callable[[Tensor], Field], solver: Free, run: March, truth: Tensor, features: Features,
    weights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """d/dv of |features(end) - features(truth)|^2 / 2, summed over all noises: [len(solver.vector())].

    How an error e changes with each part of a run x_{i+1} = r_i x_i + sum_j w_ij D_j follows from
    l_i = de/dx_i and m_j = de/dD_j, which go backward through it, s_i the scale that x_i is shown in:

        l_n = de/dend,    m_j = sum_{i>=j} w_ij l_{i+1},    l_i = r_i l_{i+1} + s_i (dD_i/dx)^T m_i

    de/dr_i = <l_{i+1}, x_i> and de/dw_ij = <l_{i+1}, D_j>; for the time that evaluation i is told it is
    <m_i, dD_i/dt>, by a difference quotient. All numbers together cost three evaluations for each of the
    solver's, and a derivative; a Jacobian costs some for each of the numbers.

    fields: the field for some of the noises, by their numbers.
    weights: [n], of each in the sum; 1 unless given.

    Raises:
        SolveError: the field or the features give no derivative; torch may raise what it will, too.
    """
    n = solver.nfe
    weights = torch.ones(len(truth)) if weights is None else weights
    by_row, by_asking = [torch.zeros(i + 2).double() for i in range(n)], [0.0] * n
    for some in torch.arange(len(truth)).split(max(CHUNK // truth[0].numel(), 1)):
        _add(fields(some), solver, run.part(some), truth[some], features, weights[some], by_row, by_asking)

    def of_rows(k: int) -> float:
        size, moved = solver.nudged(k)
        changed = ((_row(moved, i), _row(solver, i), by_row[i].tolist()) for i in range(n))
        return sum((a - b) * known for row in changed for a, b, known in zip(*row, strict=True)) / size

    # A time takes the one that is told there along.
    by_time = [of_rows(k) + by_asking[k + 1] for k in range(n - 1)]
    rest = [of_rows(k) for k in range(2 * n - 1, len(solver.vector()))]
    return torch.tensor([*by_time, *by_asking, *rest], dtype=torch.float64)


def _add(
    field: Field, solver: Free, run: March, truth: Tensor, features: Features, weights: Tensor,
    by_row: list[Tensor], by_asking: list[float],
) -> None:  # fmt: skip
    """What these noises have of de/d(r_i, w_i0, ..., w_ii) and of de/d(time of evaluation i)."""
    off = features(run.end) - features(truth)
    adjoint = _pulled(features, run.end, weights.to(off).view(-1, *(1,) * (off.ndim - 1)) * off)
    pulls = [torch.zeros_like(adjoint) for _ in run.evaluations]
    for i in reversed(range(solver.nfe)):
        x, (r, *w) = run.states[i], _row(solver, i)
        known = [x, *run.evaluations[: i + 1]]
        by_row[i] += torch.stack([(adjoint * v).sum().double().cpu() for v in known])
        for pull, weight in zip(pulls, w, strict=False):
            pull.add_(adjoint, alpha=weight)
        size, moved = solver.nudged(solver.nfe - 1 + i)
        later = field(moved.at[i], moved.scale(i) * x)
        by_asking[i] += float((pulls[i] * (later - run.evaluations[i])).sum()) / size
        if i:  # the start is given, and only it is scaled
            adjoint = r * adjoint + _pulled(partial(field, solver.at[i]), x, pulls[i])


def _row(solver: Free, i: int) -> list[float]:
    r, w = solver.row(i)
    return [r, *w]


def _pulled(function: Callable[[Tensor], Tensor], x: Tensor, pull: Tensor) -> Tensor:
    """pull times the function's Jacobian at x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = function(x)
    if not out.requires_grad:
        raise SolveError("the field or the features give no derivative: `polish` needs none")
    return torch.autograd.grad(out, x, pull)[0]
