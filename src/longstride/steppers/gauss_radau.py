"""Steps of Everhart's Gauss-Radau method of order 15 for x'' = a(t, x), to round-off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..control import Controller, Hindsight
from ..methods.second_order import Radau
from .hermite import SecondOrder
from .summation import two_sum
from .trial import Trial

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
        self.c = torch.cat([c, torch.ones(1, dtype=torch.float64)])[:, None].to(self.rtol.device)
        # To the nodes and to the end: x gets h^2 b_k times these, v gets h b_k times those.
        once, twice = self.c.cpu() ** (k + 2) / (k + 2), self.c.cpu() ** (k + 3) / ((k + 2) * (k + 3))
        self.once, self.twice = once.to(**like), twice.to(**like)
        self.newton = torch.from_numpy(table.newton).to(**like)
        self.to_powers = torch.from_numpy(table.to_powers).to(**like)
        self.from_powers = torch.linalg.inv(torch.from_numpy(table.to_powers)).to(**like)
        self.ahead = torch.from_numpy(table.ahead).to(**like)
        self.powers_ahead = (k + 1).to(self.rtol.device)
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

    def mixed(self, matrix: Tensor, parts: Tensor) -> Tensor:
        """[m, s] times [s, ...]."""
        return (matrix @ parts.reshape(len(parts), -1)).view(len(matrix), *parts.shape[1:])

    def expected(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """b of a step h from the last one's: continued; and with the correction that the last one needed."""
        ratio = h / self.last_h
        known = ratio <= FORGETS  # not of the first step, whose ratio is NaN or infinite
        q = torch.where(known, ratio, 0.0)
        scale = (q[None] ** self.powers_ahead[:, None]).to(self.dtype)
        continued = scale.view(7, *self.lead) * self.mixed(self.ahead, self.b)
        right = torch.where(known.view(self.lead), self.b - self.guessed, 0.0)
        return continued, continued + right

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        (q, v), (_, a), dt = x.chunk(2, 1), first.chunk(2, 1), self.by(h)
        guess, b = self.expected(h)
        b, evaluations = self.rounds(s, h, q, v, a, b)
        move_v = dt * (a + self.mixed(self.once[-1:], b)[0])
        move_q = dt * v + dt * dt * (a / 2 + self.mixed(self.twice[-1:], b)[0])
        x1, lost = two_sum(x, torch.cat([move_q, move_v], 1) + self.lost)
        a1 = self.a(self.times(s, h, self.c[-1:])[0], x1.chunk(2, 1)[0])
        last = torch.cat([x1.chunk(2, 1)[1], a1], 1)
        return Fitted(
            s, h, x, x1, last, x1[None], evaluations + 1, first=first, b=b, guess=guess, lost=lost,
            ratio=self.judged(a, b),
        )  # fmt: skip

    def rounds(self, s: Tensor, h: Tensor, q: Tensor, v: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        """b, converged, and the evaluations that it took."""
        dt, times = self.by(h), self.times(s, h, self.c)
        paths = [q + c * dt * (v + c / 2 * dt * a) for c in self.c[:7, 0].tolist()]  # with a as it begins
        g, before = list(self.mixed(self.from_powers, b)), torch.full_like(s, torch.inf)
        moving, evaluations, all_moving = torch.ones_like(s, dtype=torch.bool), 0, True
        for turn in range(ROUNDS):
            last, wide = b[6], moving.view(self.lead)
            for n, (t, path) in enumerate(zip(times, paths, strict=False)):
                at = self.a(t, path + dt * dt * self.mixed(self.twice[n : n + 1], b)[0])
                rest = at - a
                if n:
                    rest = rest - self.mixed(self.newton[n : n + 1, :n], torch.stack(g[:n]))[0]
                change = rest / self.newton[n, n] - g[n]
                change = change if all_moving else torch.where(wide, change, 0.0)
                g[n] = g[n] + change
                b = b + self.to_powers[:, n].view(7, *(1,) * a.ndim) * change
            evaluations += 7
            with torch.no_grad():
                size = self.most_of(at).clamp_min(torch.finfo(self.real).tiny)
                error = self.most_of(b[6] - last) / size
                moving = moving & (error > CONVERGED) & ((error < before) | (turn < 2))
                before = error
            some, all_moving = bool(moving.any()), bool(moving.all())
            if not some:
                break
        return b, evaluations

    def most_of(self, v: Tensor) -> Tensor:
        """The largest component [G]."""
        return v.reshape(self.groups, -1).abs().amax(1).to(torch.float64)

    @torch.no_grad()
    def judged(self, a: Tensor, b: Tensor) -> Tensor:
        """The step over that which suits, to the 7th: derivatives in units of the step, at its end."""
        k = torch.arange(1, 8, dtype=self.dtype, device=a.device)
        ends = self.mixed(torch.stack([torch.ones_like(k), k, k * (k - 1)]), b)
        size, jerk, second = (self.sizes(part) for part in (a + ends[0], ends[1], ends[2]))
        square = 2 * size**2 / (jerk**2 + size * second)  # of what suits over the step
        square = torch.where((size == 0) | square.isnan(), torch.inf, square)
        square = torch.where(
            (ends.isfinite().all(0).reshape(self.groups, -1).all(1))[:, None], square, torch.nan
        )
        return square.amin(1) ** -3.5 / (TOP * self.rtol.to(torch.float64))

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
        assert isinstance(trial, Fitted)
        if trial.full is None:
            (v, a), dt, none = trial.first.chunk(2, 1), self.by(trial.h), torch.zeros_like(trial.b[0])
            of_v = [dt * a, *(dt / (k + 2) * bk for k, bk in enumerate(trial.b)), none]
            of_q = [dt * v] + [dt / (m + 2) * part for m, part in enumerate(of_v[:-1])]
            trial.full = torch.stack([torch.cat(both, 1) for both in zip(of_q, of_v, strict=True)])
        return trial.full
