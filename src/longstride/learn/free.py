"""A solver all of whose numbers are free, and its weights in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from ..core import Field, Stage, Step
from ..errors import ArgumentError
from ..plan import Plan
from .axis import Axis
from .trajectories import Trajectories

RIDGE = 1e-8  # of the mean diagonal: between columns that say the same, the smaller weights
SINGULAR = 1e-14  # relative size of an eigenvalue that counts as none
NUDGE = 1e-3  # of a parameter for its difference quotient; float32 networks answer to about 1e-7
GAP = 1e-3  # least distance of two times in lambda
Features = Callable[[Tensor], Tensor]  # of samples [n, *shape]: what errors are measured in, [n, ...]


@dataclass(frozen=True)
class Free:
    """n evaluations of a field D, each asked at a time of its own, and what becomes of them.

        x_{i+1} = (r_i + a_i) x_i + sum_{j<=i} w_ij D_j,    D_j = D(at_j, x_j),    sum_j w_ij = q_i + b_i

    with (r_i, q_i) of DDIM from times[i] to times[i+1]. Without slack, a_i = b_i = 0, a network which always
    says the same is solved exactly; but what a sampler of few steps is short of is numbers. The last time is
    that of clean data. A state x_i is fitted to the solution at times[i], and the network is asked at at[i],
    which need not be the same (Xia et al. 2024, "A timestep aligner"): pure noise says more when it is taken
    for less than that. D is the data prediction; of an ODE it is f, and (r_i, q_i) are Euler's.

    times [n + 1], at [n], weights: row i of i numbers, the last of which (j = i) follows from the sum;
    slack: (a_i, b_i) [n], or nothing for none.
    """

    axis: Axis
    times: tuple[float, ...]
    at: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    slack: tuple[tuple[float, float], ...] = ()

    @property
    def nfe(self) -> int:
        return len(self.at)

    def row(self, i: int) -> tuple[float, list[float]]:
        """r_i + a_i and all w_ij."""
        r, q = self.axis.row(*self.times[i : i + 2])
        a, b = self.slack[i] if self.slack else (0.0, 0.0)
        return r + a, [*self.weights[i], q + b - sum(self.weights[i])]

    def scale(self, i: int) -> float:
        """Of state i where the network sees it."""
        return 1.0 if i else self.axis.shrunk(self.at[0])

    def step(self, i: int) -> Step:
        r, w = self.row(i)
        x = (r,) if r else ()
        return Step(
            (Stage((self.scale(i),), at=self.at[i], field=self.axis.field), Stage(x, tuple(w))),
            keep_f=tuple(range(i + 1)),
        )

    def plan(
        self, method: str = "tuned", options: Mapping[str, Any] = {}, report: Mapping[str, Any] = {}
    ) -> Plan:
        steps = tuple(self.step(i) for i in range(self.nfe))
        return Plan(self.times, steps, self.axis.made_for(), method, options, report)

    @classmethod
    def of(cls, plan: Plan, axis: Axis) -> Free:
        """The solver that `plan()` has made a plan of.

        Raises:
            ArgumentError: another plan, or one of another process.
        """
        plan.demand(axis.made_for())
        at, rows = list[float](), list[tuple[float, list[float]]]()
        for i, step in enumerate(plan.steps):
            asked, row = step.stages[0], step.stages[-1]
            if len(step.stages) != 2 or len(row.f) != i + 1 or not isinstance(asked.at, float):
                raise ArgumentError(f"method {plan.method}: step {i} is not one of a tuned plan")
            at.append(asked.at)
            rows.append((float(sum(row.x)), [float(v) for v in row.f]))
        return cls.of_rows(axis, plan.times, at, rows)

    @classmethod
    def of_rows(
        cls,
        axis: Axis,
        times: Sequence[float],
        at: Sequence[float],
        rows: Sequence[tuple[float, list[float]]],
    ) -> Free:
        """The solver whose `row(i)` is rows[i]."""
        ddim = [axis.row(s, t) for s, t in pairwise(times)]
        slack = tuple((a - r, sum(w) - q) for (a, w), (r, q) in zip(rows, ddim, strict=True))
        return cls(axis, tuple(times), tuple(at), tuple(tuple(w[:-1]) for _, w in rows), slack)

    def enlarged(self, i: int) -> Free:
        """With one evaluation more, behind evaluation i and halfway to the next; nobody uses it yet.

        Step i from x to y = a x + sum_j w_j D_j goes by z = r x + q (sum_j w_j D_j)/(sum_j w_j), where DDIM's
        (r, q) lead to halfway: y = (a/r) z + sum_j (1 - a q/(r sum_j w_j)) w_j D_j is what it was.
        """
        axis = self.axis
        rows = [self.row(k) for k in range(self.nfe)]

        def halfway(times: Sequence[float]) -> float:
            ahead = axis.clock(times[i + 1]) if i + 1 < self.nfe else axis.high
            return axis.time((axis.clock(times[i]) + ahead) / 2)

        t, asked, (a, w) = halfway(self.times), halfway(self.at), rows[i]
        r, q = axis.row(self.times[i], t)
        part, rest = [q / (sum(w) or 1.0) * v for v in w], a / r
        later = [(a, [*w[: i + 1], 0.0, *w[i + 1 :]]) for a, w in rows[i + 1 :]]
        ahead = [v - rest * z for v, z in zip(w, part, strict=True)]
        times, at = ((*v[: i + 1], new, *v[i + 1 :]) for v, new in ((self.times, t), (self.at, asked)))
        return Free.of_rows(axis, times, at, [*rows[:i], (r, part), (rest, [*ahead, 0.0]), *later])

    def vector(self) -> list[float]:
        """All that is free, in the order of `with_vector`: times in lambda, at relative to them, weights,
        slack.
        """
        u = [self.axis.clock(t) for t in self.times[:-1]]
        v = [self.axis.clock(t) for t in self.at]
        return [
            *u[1:],
            *(b - a for a, b in zip(u, v, strict=True)),
            *(w for row in self.weights for w in row),
            *(s for pair in self.slack or ((0.0, 0.0),) * self.nfe for s in pair),
        ]

    @property
    def slackness(self) -> range:
        """Which numbers of the vector are slack."""
        first = 2 * self.nfe - 1 + self.nfe * (self.nfe - 1) // 2
        return range(first, first + 2 * self.nfe)

    def with_vector(self, vector: Sequence[float]) -> Free:
        """The solver of these numbers; times that are out of order are moved until they are not."""
        n, axis = self.nfe, self.axis
        first, low, high = self.times[0], axis.clock(self.times[0]), axis.high
        u = [low]
        for i, wanted in enumerate(vector[: n - 1]):
            u.append(min(max(wanted, u[-1] + GAP), high - (n - 2 - i) * GAP))
        v = [min(max(a + d, low), high) for a, d in zip(u, vector[n - 1 : 2 * n - 1], strict=True)]
        times, at = ([first if w <= low else axis.time(w) for w in row] for row in (u, v))
        ends = accumulate(range(n), initial=2 * n - 1)
        weights = tuple(tuple(vector[a:b]) for a, b in pairwise(ends))
        rest = iter(vector[self.slackness.start :])
        return Free(axis, (*times, axis.end), tuple(at), weights, tuple(zip(rest, rest, strict=True)))

    def bound(self, k: int) -> bool:
        """Whether number k is a time that cannot get any later."""
        n = self.nfe
        if k >= 2 * n - 1:
            return False
        t = self.times[1 + k] if k < n - 1 else self.at[k - n + 1]
        return self.axis.clock(t) >= self.axis.high - NUDGE

    def nudged(self, k: int) -> tuple[float, Free]:
        """With number k a little larger, or a time that cannot get later a little earlier: by how much."""
        size, vector = -NUDGE if self.bound(k) else NUDGE, self.vector()
        vector[k] += size
        return size, self.with_vector(vector)

    def begins(self, k: int) -> int:
        """The first evaluation that free number k changes; nfe, of the last row, changes none."""
        n = self.nfe
        if k < n - 1:
            return k + 1
        if k < 2 * n - 1:
            return k - (n - 1)
        if k in self.slackness:
            return (k - self.slackness.start) // 2 + 1
        k -= 2 * n - 1
        return next(i for i in range(1, n) if k < i * (i + 1) // 2) + 1


@dataclass
class March:
    """The states before each evaluation, and the evaluations, of a solver run on some noises."""

    states: list[Tensor]
    evaluations: list[Tensor]

    @property
    def end(self) -> Tensor:
        return self.states[-1]

    def part(self, rows: Tensor) -> March:
        """Some of the noises."""
        return March([x[rows] for x in self.states], [e[rows] for e in self.evaluations])


def march(field: Field, solver: Free, x: Tensor, known: March | None = None, start: int = 0) -> March:
    """Run the solver; where the evaluations before `start` are known, from the row on that they lead to."""
    first = max(start - 1, 0)
    states = [x] if known is None else known.states[: first + 1]
    evaluations = [] if known is None else known.evaluations[:start]
    for i in range(first, solver.nfe):
        scale, (r, w) = solver.scale(i), solver.row(i)
        if i >= start:
            evaluations.append(field(solver.at[i], states[i] if scale == 1 else scale * states[i]))
        states.append(_combined(r, states[i], w, evaluations))
    return March(states, evaluations)


def _combined(r: float, x: Tensor, w: Sequence[float], evaluations: Sequence[Tensor]) -> Tensor:
    out = x * r
    for weight, evaluation in zip(w, evaluations, strict=True):
        out.add_(evaluation, alpha=weight)
    return out


@torch.no_grad()
def fit(
    field: Field, times: Sequence[float], paths: Trajectories, first: float | None = None
) -> tuple[Free, Tensor]:
    """The solver on these times whose every row lands nearest to the trajectories, and where it ends.

    Row by row: from the states that the rows before have led to, one evaluation of the network, then the
    weights of all evaluations by linear least squares over every noise and element. No row knows that the
    next ones exist, but each corrects what error the ones before have left.

    first: at[0], where the first evaluation is asked; times[0] unless given.
    """
    at = (times[0] if first is None else first, *times[1:-1])
    solver = Free(paths.axis, tuple(times), at, tuple(() for _ in at))
    x, evaluations, rows = paths.noise, list[Tensor](), list[tuple[float, ...]]()
    for i, (s, t) in enumerate(pairwise(times)):
        evaluations.append(field(at[i], solver.scale(i) * x))
        r, q = paths.axis.row(s, t)
        newest = evaluations[-1]
        w: list[float] = []
        if i:
            columns = torch.stack([(e - newest).flatten() for e in evaluations[:-1]]).double()
            gram, right = columns @ columns.T, columns @ (paths.at(t) - r * x - q * newest).flatten().double()
            w = solved(gram, right, RIDGE * gram.diag().mean()).tolist()
        rows.append(tuple(w))
        x = _combined(r, x, [*w, q - sum(w)], evaluations)
    return replace(solver, weights=tuple(rows)), x


def solved(gram: Tensor, right: Tensor, ridge: Tensor) -> Tensor:
    """The smallest w with (gram + ridge) w = right: columns that are nothing get nothing."""
    gram, right = gram.double().cpu(), right.double().cpu()
    ridge = ridge.double().cpu().expand(len(gram)).diag()
    return torch.linalg.pinv(gram + ridge, rcond=SINGULAR, hermitian=True) @ right
