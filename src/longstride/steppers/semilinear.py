"""Steps of exponential pairs: dx/dt = L x + F(t, x), L x exactly, the error of the rest estimated."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..control import PI, Controller
from ..core import MULTIPLIERS, Stage, Weight, beside, combine
from ..errors import ArgumentError
from ..matrix import Matrix
from ..methods.exponential import ExponentialPair
from ..methods.runge_kutta import entry
from ..operator import Phis
from .trial import Rate, Stepper, Trial

RUNGS = 4  # steps of the ladder in one octave: a rung is at most a sixth shorter than what was wanted
KEPT = 16  # rungs whose weights are kept
BEND = ((3, 1.0, 4.0), (2, 1.0, -2.0))
STILL = -(1 << 30)  # the rung of what has stopped, whose steps are 0


@dataclass(frozen=True)
class Rung:
    """Who takes a step of one size, and its rows: those of the stages after the first, the end, the
    estimate, the bend.
    """

    who: Tensor | None  # None: all
    rows: tuple[Stage, ...]


class Semilinear(Stepper):
    """An exponential pair. The steps it asks for are those of a ladder, 2^(m/4).

    Weights are functions of h L, dear where L has many elements. On a ladder few of them are ever wanted:
    what was made for a rung serves all samples and all later steps on it. The first step and those that end
    a leg stand between rungs.

    `first` and `last` of a trial are F, and K holds all F_j. Between its ends a step is the polynomial
    through the F_j, integrated exactly beside L: b_j is sum_k w_jk theta^k phi_k(theta h L). Order 3.

    The pair's estimate compares two states at the end of a step, and says nothing of an F that depends on
    t alone. So a second one stands beside it. With F_m the mean of the F_j at the middle, the parabola that
    is integrated differs from the line by D = h 2 (2 phi_3 - phi_2) (F_0 - 2 F_m + F(x1)); S is the same with
    pluses. Of F = e^(i w t) and small L, D is a share (w h)^2/16 of S, and the parabola's own error, that of
    Simpson's rule, is about D^2/(15 S). It falls with h^5, below the other one, where both see F.
    """

    repeatable = True
    between_costs = 0
    controller: Controller = PI(max_factor=2.0)  # F_4 - F(x1) may pass through 0 where the error does not

    def __init__(self, pair: ExponentialPair, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.pair, self.like = pair, x0.detach()
        self.order, self.shrinks, self.most = pair.tableau.order, pair.shrinks, len(pair.tableau.c)
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        self.c = torch.tensor([*pair.tableau.c[1:], 1.0], **clock)[:, None]
        self.made: OrderedDict[tuple[int, bool], tuple[Stage, ...]] = OrderedDict()  # with a graph or not
        self.middle = [j for j, c in enumerate(pair.tableau.c) if c == 0.5]

    def apart(self, L: Any, f: Rate) -> None:
        if not isinstance(L, MULTIPLIERS):
            L = torch.tensor(L, dtype=torch.complex128 if isinstance(L, complex) else torch.float64)
        self.L, self.rate = L, f
        # Whether samples have an L each.
        self.each = L.each if isinstance(L, Matrix) else L.ndim == len(self.shape) and len(L) > 1

    def prepare(self, x: Tensor, first: Tensor) -> None:
        wanted = self.graph
        super().prepare(x, first)  # it knows F alone
        self.graph = self.graph or (wanted and self.differentiated)

    @property
    def differentiated(self) -> bool:
        """Whether something is differentiated by L."""
        return bool(self.L.requires_grad)

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        rungs = list(self._rungs(h))
        fs, times = [first], self.times(s, h, self.c)
        for i, t in enumerate(times):
            x1 = self._combined(i, rungs, x, fs)
            fs.append(self.rate(t, x1))
        with torch.no_grad():
            error = self._combined(len(times), rungs, x, fs)
            ends, middle = fs[0] + fs[-1], sum(fs[j] for j in self.middle) * (2 / len(self.middle))
            bend, whole = (self._combined(-1, rungs, x, [v]) for v in (ends - middle, ends + middle))
        K = torch.stack(fs[:-1])
        return Judged(s, h, x, x1, fs[-1], K, self.most, error=error, bend=bend, whole=whole)

    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Judged)
        with torch.no_grad():
            allowed = self.allowed(trial.x, trial.x1)
            error, bend, whole = (
                self._norm(v / allowed) / self.root for v in (trial.error, trial.bend, trial.whole)
            )
            return torch.maximum(error, bend.square() / (15 * whole + 20 * bend).clamp_min(1e-300))

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        return torch.exp2(torch.floor(RUNGS * torch.log2(h) + 1e-9) / RUNGS)

    def at(self, trial: Trial, sample: Tensor, theta: Tensor) -> Tensor:
        group = torch.zeros_like(sample) if self.groups == 1 else sample
        return self._between(trial.x[sample], trial.K[:, sample], trial.h[group], theta, sample)

    def along(self, trial: Trial, theta: Tensor) -> Tensor:
        everybody = torch.arange(self.shape[0], device=theta.device)
        return self.at(trial, everybody, theta.expand(len(everybody)))

    def _between(self, x: Tensor, K: Tensor, h: Tensor, theta: Tensor, sample: Tensor) -> Tensor:
        """At theta [P] along steps of h [P] from x [P, ...], by F [S, P, ...]."""
        if isinstance(self.L, Matrix):
            if self.each:
                raise ArgumentError("a matrix of each sample: take grad=True and save the end of a run alone")
            points = [self._read(x[p : p + 1], K[:, p : p + 1], float(h[p]), float(theta[p]), self.L)
                      for p in range(len(x))]  # fmt: skip
            return torch.cat(points)
        L = self.L[sample.to(self.L.device)] if self.each else self.L
        wide = (-1, *(1,) * (x.ndim - 1))
        step, part = (v.to(L.device).view(wide) for v in (h, theta))
        return self._read(x, K, step, part, L)

    def _read(self, x: Tensor, K: Tensor, h: Weight, theta: Weight, L: Any) -> Tensor:
        phi, by = Phis(self.sign * (theta * h) * L), self.sign * h
        row = [
            sum(w * theta**k * phi(k, 1.0) for k, _, w in e) * by if isinstance(e, tuple) else 0.0
            for e in self.pair.tableau.b
        ]
        terms = self._moved(Stage((phi(0, 1.0),), tuple(row))).terms
        return combine(terms, ([x], K.unbind(), ()))

    def _combined(self, i: int, rungs: Sequence[Rung], x: Tensor, fs: Sequence[Tensor]) -> Tensor:
        if rungs[0].who is None:
            return combine(rungs[0].rows[i].terms, ([x], fs, ()))
        parts = [combine(g.rows[i].terms, ([x[g.who]], [f[g.who] for f in fs], ())) for g in rungs]
        order = torch.cat([g.who for g in rungs if g.who is not None])
        return torch.cat(parts)[order.argsort()]

    def _rungs(self, h: Tensor) -> Iterator[Rung]:
        """The rows of every step size there is; of all at once, where many stand between rungs."""
        sizes = h.tolist()
        keys = [self._key(size) for size in sizes]
        if len(set(keys)) == 1:
            yield Rung(None, self._rows(keys[0], sizes[0]))
            return
        loose = any(isinstance(key, float) for key in keys)
        if isinstance(self.L, Tensor) and (self.each or loose):
            wide = h.to(self.L.device).view(-1, *(1,) * (len(self.shape) - 1))
            yield Rung(None, self._written(wide))
            return
        if self.each:
            raise ArgumentError("a matrix of each sample: give shared_step=True")
        for key in dict.fromkeys(keys):
            who = torch.tensor([i for i, other in enumerate(keys) if other == key], device=h.device)
            yield Rung(who, self._rows(key, sizes[int(who[0])]))

    @staticmethod
    def _key(h: float) -> int | float:
        """The number of the rung, or h if it stands between them."""
        if h == 0:
            return STILL
        m = RUNGS * math.log2(h)
        return round(m) if abs(m - round(m)) < 1e-9 else h

    def _rows(self, key: int | float, h: float) -> tuple[Stage, ...]:
        if isinstance(key, float):
            return self._written(h)
        rung = key, self.differentiated and torch.is_grad_enabled()
        if rung not in self.made:
            self.made[rung] = self._written(h)
            if len(self.made) > KEPT:
                self.made.popitem(last=False)
        self.made.move_to_end(rung)
        return self.made[rung]

    def _written(self, h: Weight) -> tuple[Stage, ...]:
        by = self.sign * h
        z = by * self.L
        phi = Phis(z)
        rows = [Stage((w,), tuple(by * e for e in row)) for w, row in self.pair.tableau.rows(z, phi)]
        rows.append(Stage((0.0,), tuple(by * entry(e, phi) for e in self.pair.error)))
        rows.append(Stage((0.0,), (by * entry(BEND, phi),)))
        return tuple(map(self._moved, rows[1:]))

    def _moved(self, row: Stage) -> Stage:
        """Beside the state."""
        x, f = (tuple(beside(w, self.like) for w in part) for part in (row.x, row.f))
        return Stage(x, f)


@dataclass
class Judged(Trial):
    """error: the pair's estimate.  bend, whole: D and S of `Semilinear`."""

    error: Tensor = field(default_factory=lambda: torch.zeros(0))
    bend: Tensor = field(default_factory=lambda: torch.zeros(0))
    whole: Tensor = field(default_factory=lambda: torch.zeros(0))
