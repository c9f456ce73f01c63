"""Steps of Everhart's Gauss-Radau method of order 15 for x'' = a(t, x), to round-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..control import Controller, Hindsight
from ..methods.second_order import Radau
from .hermite import SecondOrder
from .summation import two_sum
from .trial import Rate, Trial

ROUNDS, CONVERGED = 12, 1e-16  # of the iteration: at most, and the change over |a| at which it ends
FORGETS = 20.0  # a step so much longer than the last is not predicted
TOP = 5040.0  # 7!: the step for which terms of a's Taylor series beyond rtol are not seen


@dataclass
class Fitted(Trial):
    """first: f at the start.  b [7, ...]: a's polynomial.  lost: what rounding took from x1.

    ratio [G]: the step over that which suits, to the 7th.
    """

    first: Tensor = field(default_factory=lambda: torch.zeros(0))
    b: Tensor = field(default_factory=lambda: torch.zeros(0))
    guess: Tensor = field(default_factory=lambda: torch.zeros(0))
    lost: Tensor = field(default_factory=lambda: torch.zeros(0))
    ratio: Tensor = field(default_factory=lambda: torch.zeros(0))


class Table:
    """A small matrix, by which parts are mixed; of numbers where a graph is recorded: its zeros go."""

    def __init__(self, rows: np.ndarray, like: dict[str, Any]) -> None:
        self.rows, self.whole = tuple(map(tuple, rows.tolist())), torch.from_numpy(rows).to(**like)

    def mixed(self, parts: Tensor) -> Tensor:
        """[m, s] times [s, ...]."""
        if torch.compiler.is_compiling():
            return torch.stack([self.row(i, parts) for i in range(len(self.rows))])
        return (self.whole @ parts.reshape(len(parts), -1)).view(-1, *parts.shape[1:])

    def row(self, i: int, parts: Tensor) -> Tensor:
        """One row times parts, as many as there are."""
        if torch.compiler.is_compiling():  # elementwise along the batch
            return (self.beside(self.rows[i][: len(parts)], parts[0]) * parts).sum(0)
        return (self.whole[i, : len(parts)] @ parts.reshape(len(parts), -1)).view(parts.shape[1:])

    def column(self, j: int, part: Tensor) -> Tensor:
        """[m, ...], a column times a part."""
        if torch.compiler.is_compiling():
            return self.beside([row[j] for row in self.rows], part) * part
        return self.whole[:, j].view(-1, *(1,) * part.ndim) * part

    def beside(self, numbers: Sequence[float], part: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=self.whole.dtype).view(-1, *(1,) * part.ndim)


class Path(NamedTuple):
    """Of a step: times at its nodes and its end, places at the nodes with a as it begins, v and a there.

    pull: a(t, x).
    """

    pull: Rate
    times: tuple[Tensor, ...]
    dt: Tensor
    nodes: list[Tensor]
    v: Tensor
    a: Tensor


class GaussRadau(SecondOrder):
    """a(theta) = a_0 + sum_k b_k theta^(k+1) along a step, through a at 8 nodes; x and v are its integrals.

    Each round goes through the nodes; every evaluation moves the polynomial at once. The rounds begin from
    the polynomial of the last step, continued, with the correction that it then turned out to need, and end
    where the last coefficient no longer changes, each sample's by itself. x and v are summed with what they
    lost to rounding before (Rein and Spiegel 2015).

    The step is that over which a changes by its own size, by its value, first and second derivative at the
    end, of the body that wants the shortest, times (7! rtol)^(1/7): h^2 = 2 |a|^2/(|j|^2 + |a| |a''|)
    (Pham, Rein and Spiegel 2024). With rtol = 1e-9, their choice, the error is round-off; atol says nothing.
    """

    most = 7 * ROUNDS
    order, shrinks, degree = 15, 7, 9
    controller: Controller = Hindsight()

    def __init__(self, table: Radau, *bound: Any) -> None:
        super().__init__(*bound)
        like: dict[str, Any] = {"dtype": self.dtype, "device": self.rtol.device}
        k = torch.arange(7, dtype=torch.float64)
        c = torch.from_numpy(table.c)
        self.nodes = tuple(c.tolist())
        self.c = torch.cat([c, torch.ones(1, dtype=torch.float64)])[:, None].to(self.rtol.device)
        # To the nodes and to the end: x gets h^2 b_k times these, v gets h b_k times those.
        once, twice = self.c.cpu() ** (k + 2) / (k + 2), self.c.cpu() ** (k + 3) / ((k + 2) * (k + 3))
        self.once, self.twice = Table(once.numpy(), like), Table(twice.numpy(), like)
        self.newton, self.to_powers = Table(table.newton, like), Table(table.to_powers, like)
        self.from_powers = Table(np.linalg.inv(table.to_powers), like)
        self.ahead = Table(table.ahead, like)
        m = np.arange(1.0, 8.0)
        self.ends = Table(np.stack([m**0, m, m * (m - 1)]), like)  # a - a_0 and derivatives
        self.polynomials(torch.eye(9, dtype=torch.float64, device=self.rtol.device))

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        half = x.chunk(2, 1)[0]
        self.b = self.guessed = half.new_zeros(7, *half.shape)
        self.lost, self.last_h = (
            torch.zeros_like(x),
            torch.zeros(self.groups, dtype=torch.float64, device=x.device),
        )

    def forget(self, who: Tensor) -> None:
        self.last_h = torch.where(who, 0.0, self.last_h)

    def expected(self, h: Tensor, last_h: Tensor, b: Tensor, guessed: Tensor) -> tuple[Tensor, Tensor]:
        """b of a step h from the last one's: continued; and with the correction that the last one needed."""
        ratio = h / last_h
        known = ratio <= FORGETS  # not of the first step, whose ratio is NaN or infinite
        q = torch.where(known, ratio, 0.0)
        scale = torch.stack(list(accumulate([q] * 7, torch.mul))).to(self.dtype)
        continued = scale.view(7, *self.lead) * self.ahead.mixed(b)
        right = torch.where(known.view(self.lead), b - guessed, 0.0)
        return continued, continued + right

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        guess, b = self.expected(h, self.last_h, self.b, self.guessed)
        path = self.path(self.a, self.times(s, h, self.c), h, x, first)
        b, evaluations = self.rounds(path, b)
        x1, last, lost = self.moved(path, x, b, self.lost)
        return Fitted(
            s, h, x, x1, last, x1[None], evaluations + 1, first=first, b=b, guess=guess, lost=lost,
            ratio=self.judged(path.a, b, self.rtol),
        )  # fmt: skip

    def path(self, pull: Rate, times: tuple[Tensor, ...], h: Tensor, x: Tensor, first: Tensor) -> Path:
        (q, v), (_, a), dt = x.chunk(2, 1), first.chunk(2, 1), self.by(h)
        nodes = [q + c * dt * (v + c / 2 * dt * a) for c in self.nodes]
        return Path(pull, times, dt, nodes, v, a)

    def moved(self, path: Path, x: Tensor, b: Tensor, lost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The end of a step: x, f, and what rounding took from x."""
        dt, a = path.dt, path.a
        move_v = dt * (a + self.once.row(-1, b))
        move_q = dt * path.v + dt * dt * (a / 2 + self.twice.row(-1, b))
        x1, lost = two_sum(x, torch.cat([move_q, move_v], 1) + lost)
        q1, v1 = x1.chunk(2, 1)
        return x1, torch.cat([v1, path.pull(path.times[-1], q1)], 1), lost

    def rounds(self, path: Path, b: Tensor) -> tuple[Tensor, int]:
        """b, converged, and the evaluations that it took."""
        g, some = list(self.from_powers.mixed(b)), True
        before = torch.full_like(path.times[0], torch.inf, dtype=torch.float64).expand(self.groups)
        moving: Tensor | None = None  # all are
        turn = 0
        while some and turn < ROUNDS:
            b, g, error = self.round(path, b, g, moving)
            with torch.no_grad():
                still = self.moves(error, before, turn)
                still = still if moving is None else still & moving
                some, moving = bool(still.any()), None if bool(still.all()) else still
            before, turn = error, turn + 1
        return b, 7 * turn

    def round(
        self, path: Path, b: Tensor, g: list[Tensor], moving: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """b and g, its Newton form, after going through the nodes; the last coefficient's change over |a|."""
        last, g = b[6], list(g)
        wide = None if moving is None else moving.view(self.lead)
        for n, (t, node) in enumerate(zip(path.times, path.nodes, strict=False)):
            at = path.pull(t, node + path.dt * path.dt * self.twice.row(n, b))
            rest = at - path.a
            if n:
                rest = rest - self.newton.row(n, torch.stack(g[:n]))
            change = rest / self.newton.rows[n][n] - g[n]
            change = change if wide is None else torch.where(wide, change, 0.0)
            g[n] = g[n] + change
            b = b + self.to_powers.column(n, change)
        with torch.no_grad():
            size = self.most_of(at).clamp_min(torch.finfo(self.real).tiny)
            return b, g, self.most_of(b[6] - last) / size

    def moves(self, error: Tensor, before: Tensor, turn: int | Tensor) -> Tensor:
        """Whether a round after one of this change, and the one before it, would better b."""
        return (error > CONVERGED) & ((error < before) | (turn < 2))

    def most_of(self, v: Tensor) -> Tensor:
        """The largest component [G]."""
        return v.reshape(1 if self.shared else len(v), -1).abs().amax(1).to(torch.float64)

    @torch.no_grad()
    def judged(self, a: Tensor, b: Tensor, rtol: Tensor) -> Tensor:
        """The step over that which suits, to the 7th: derivatives in units of the step, at its end."""
        ends = self.ends.mixed(b)
        size, jerk, second = (self.sizes(part) for part in (a + ends[0], ends[1], ends[2]))
        square = 2 * size**2 / (jerk**2 + size * second)  # of what suits over the step
        square = torch.where((size == 0) | square.isnan(), torch.inf, square)
        square = torch.where(
            (ends.isfinite().all(0).reshape(len(square), -1).all(1))[:, None], square, torch.nan
        )
        return square.amin(1) ** -3.5 / (TOP * rtol.to(torch.float64))

    def ratio(self, trial: Trial) -> Tensor:
        assert isinstance(trial, Fitted)
        return trial.ratio

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        assert isinstance(trial, Fitted)
        wide = ok.view(self.lead)
        self.b, self.guessed = (
            torch.where(wide, trial.b, self.b),
            torch.where(wide, trial.guess, self.guessed),
        )
        self.lost, self.last_h = (
            torch.where(wide, trial.lost, self.lost),
            torch.where(ok, trial.h, self.last_h),
        )
        return h

    def complete(self, trial: Trial) -> Tensor:
        """Coefficients of theta^1, .., theta^9 of x and v."""
        if trial.full is None:
            assert isinstance(trial, Fitted)
            (v, a), dt, none = trial.first.chunk(2, 1), self.by(trial.h), torch.zeros_like(trial.b[0])
            of_v = [dt * a, *(dt / (k + 2) * bk for k, bk in enumerate(trial.b)), none]
            of_q = [dt * v] + [dt / (m + 2) * part for m, part in enumerate(of_v[:-1])]
            trial.full = torch.stack([torch.cat(both, 1) for both in zip(of_q, of_v, strict=True)])
        return trial.full
