"""What controllers cost at equal error on families of problems, and a policy trained by that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control import PI, Controller
from ..error_policy import ErrorPolicy
from ..integrate import solve
from ..problem import ODE

F64 = torch.float64
TAIL = 0.8  # log of evaluations for a digit, as of a method of order 3
FAILED = 10.0  # stands for the relative error of a run that does not come to its end
Rate = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Cases:
    """Problems of one family: dx/ds = rate(s, x, numbers), s from 0 to 1.

    numbers [n, P], starts [n, D].  size [n, D]: of each component, by which errors are measured.
    jacobian: that of rate, for implicit methods.
    """

    rate: Rate
    numbers: Tensor
    starts: Tensor
    size: Tensor
    jacobian: Rate | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, who: slice) -> Cases:
        return Cases(self.rate, self.numbers[who], self.starts[who], self.size[who], self.jacobian)

    def ends(self, method: str, tolerances: Tensor, controller: Controller | None, copies: int = 1) -> Ends:
        """All cases at all tolerances in one batch, `copies` times: results [copies, n, tolerances]."""
        n, m = len(self), len(tolerances)
        numbers, x0 = (v.repeat_interleave(m, 0).repeat(copies, 1) for v in (self.numbers, self.starts))
        size = self.size.repeat_interleave(m, 0).repeat(copies, 1)
        rtol, known = tolerances.repeat(copies * n)[:, None], self.jacobian
        problem = ODE(
            lambda t, x: self.rate(t, x, numbers),
            jacobian=None if known is None else lambda t, x: known(t, x, numbers),
        )
        found = solve(
            problem, x0, t=(0.0, 1.0), method=method, rtol=rtol, atol=0.01 * rtol * size,
            controller=controller, max_steps=20_000, grad=False,
        )  # fmt: skip
        assert found.stats.nfe_each is not None
        assert found.stats.rejected is not None
        x = torch.where(torch.tensor([s == "reached" for s in found.status])[:, None], found.x_end, math.nan)
        shape = (copies, n, m)
        return Ends(
            x.view(*shape, -1), found.stats.nfe_each.double().view(shape),
            found.stats.rejected.double().view(shape),
        )  # fmt: skip


@dataclass(frozen=True)
class Ends:
    """x [copies, n, m, D], NaN where a run did not end; evaluations, rejected [copies, n, m]."""

    x: Tensor
    evaluations: Tensor
    rejected: Tensor

    def errors(self, exact: Tensor, size: Tensor) -> Tensor:
        """Root mean square of (x - exact)/size, [copies, n, m]."""
        off = (self.x - exact[None, :, None]) / size[None, :, None]
        return off.square().mean(-1).sqrt().nan_to_num(FAILED).clamp(1e-14, FAILED)


def van_der_pol(n: int, seed: int, low: float, high: float) -> Cases:
    """A cycle of x'' = mu (1 - x^2) x' - x from random starts, log mu uniform: stiff and nonstiff in turn.

    Time is in units of about that cycle, (3 - 2 ln 2) mu + 2 pi/(1 + mu).
    """
    made = torch.Generator().manual_seed(seed)
    u, a, b = torch.rand(3, n, generator=made, dtype=F64)
    mu = low * (high / low) ** u
    span = (3 - 2 * math.log(2)) * mu + 2 * math.pi / (1 + mu)

    def rate(t: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
        mu, span = numbers.unbind(1)
        q, v = x.unbind(1)
        return torch.stack([v * span, (mu * (1 - q * q) * v - q) * span], 1)

    def jacobian(t: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
        mu, span = numbers.unbind(1)
        q, v = x.unbind(1)
        below = [(-2 * mu * q * v - 1) * span, mu * (1 - q * q) * span]
        return torch.stack([torch.stack([0 * q, span], 1), torch.stack(below, 1)], 1)

    size = torch.stack([torch.full_like(mu, 2.0), 1.5 * mu + 0.5], 1)
    starts = torch.stack([4 * a - 2, 2 * b - 1], 1)
    return Cases(rate, torch.stack([mu, span], 1), starts, size, jacobian)


def curve(errors: Tensor, evaluations: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Work and precision [m] of many cases [n, m]: means over them of log10 errors and of log evaluations."""
    return errors.log10().mean(0).numpy(), evaluations.log().mean(0).numpy()


def work(points: tuple[np.ndarray, np.ndarray], levels: Sequence[float]) -> np.ndarray:
    """Log evaluations at levels of log10 of the error, between tolerances by interpolation.

    Points that another one beats in both are left out. Beyond the others nothing is made better than it was
    seen: larger errors cost what the largest does, smaller ones TAIL more for each digit.
    """
    error, cost = points
    order = np.lexsort((error, cost))
    best = np.minimum.accumulate(np.concatenate([[math.inf], error[order][:-1]]))
    front = order[error[order] < best]
    at = np.asarray(levels)
    inside = np.interp(-at, -error[front], cost[front])
    return np.asarray(inside + TAIL * np.clip(error[front][-1] - at, 0, None))


@dataclass(frozen=True, eq=False)
class Course:
    """A method on cases, which a controller is judged by: `exact` [n, D] their ends.

    levels: of log10 of the error, at which work is compared.
    """

    method: str
    cases: Cases
    exact: Tensor
    tolerances: Tensor
    levels: tuple[float, ...]

    @classmethod
    def of(
        cls, method: str, cases: Cases, truth: tuple[str, float], tolerances: Tensor, levels: Sequence[float]
    ) -> Course:
        """truth: the method and the tolerance of the exact ends."""
        by, tolerance = truth
        ends = cases.ends(by, torch.tensor([tolerance], dtype=F64), None)
        return cls(method, cases, ends.x[0, :, 0], tolerances, tuple(levels))

    def __getitem__(self, who: slice) -> Course:
        return Course(self.method, self.cases[who], self.exact[who], self.tolerances, self.levels)

    def runs(self, controller: Controller | None, copies: int = 1) -> tuple[Tensor, Ends]:
        """Errors [copies, n, m], and where they come from."""
        ends = self.cases.ends(self.method, self.tolerances, controller, copies)
        return ends.errors(self.exact, self.cases.size), ends

    def work(self, controller: Controller | None, copies: int = 1) -> np.ndarray:
        """Log evaluations at the levels, [copies, levels]."""
        errors, ends = self.runs(controller, copies)
        pairs = zip(errors, ends.evaluations, strict=True)
        return np.stack([work(curve(e, cost), self.levels) for e, cost in pairs])

    def spread(self) -> int:
        """Runs of one copy."""
        return len(self.cases) * len(self.tolerances)


Many = Callable[[Tensor], Controller]  # numbers [..., runs], one column for each, to a controller of a batch


def train(
    courses: Sequence[Sequence[Course]],
    begin: np.ndarray,
    width: float,
    many: Many = ErrorPolicy,
    generations: int = 60,
    people: int = 12,
    seed: int = 1,
    told: Callable[[int, np.ndarray, float], Any] = lambda *_: None,
) -> np.ndarray:
    """Numbers of the controller with the least work, by CMA-ES: needs `pip install cma`.

    In each generation the next part of every course is solved, by all candidates in one batch. Work is the
    mean of log evaluations at the levels of error, over that of PI on the same cases.

    courses: parts of each course, taken in turn.  told: generation, mean, its work.
    """
    import cma

    plain: dict[tuple[int, int], np.ndarray] = {}
    search = cma.CMAEvolutionStrategy(begin, width, {"popsize": people, "seed": seed, "verbose": -9})
    for generation in range(generations):
        asked = np.stack([*search.ask(), search.mean])
        worth = np.zeros(len(asked))
        for i, parts in enumerate(courses):
            part, key = parts[generation % len(parts)], (i, generation % len(parts))
            if key not in plain:
                plain[key] = part.work(PI())
            columns = torch.from_numpy(asked).T.repeat_interleave(part.spread(), 1)
            worth += (part.work(many(columns), len(asked)) - plain[key]).mean(1) / len(courses)
        worth = np.nan_to_num(worth, nan=10.0, posinf=10.0)
        search.tell(list(asked[:-1]), worth[:-1].tolist())
        told(generation, search.mean, float(worth[-1]))
    return np.asarray(search.mean)
