"""Steps of an SDE chosen as the run goes, each sample's own, along one Brownian path of each.

The error of a step is how far it is from two of half its length. All see the same path, which is there before
any step is tried: a step that is rejected is tried again, shorter, along the path it failed on. Increments
drawn anew would bend the path towards what is accepted.

Steps end at whole multiples of a 16th of the power of two below their length, in units of the path, so that
few of its levels are asked. The loop is not `stepping.Loop`, which saves states by an interpolant and carries
an evaluation along: a path has no interpolant, so steps land on the times that are saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..adaptive.carry import Limits
from ..adaptive.failure import (
    NFE_LIMIT,
    NON_FINITE,
    REACHED,
    RUNNING,
    STATUSES,
    STEP_LIMIT,
    UNDERFLOW,
    Standing,
)
from ..adaptive.solve import tolerances_of, usable
from ..control import PI, Controller
from ..errors import ArgumentError, failed, unknown
from ..methods.sde import Scheme, State
from ..solution import Solution, Stats
from .brownian import Brownian
from .course import Bound, beside, rows


@dataclass(frozen=True)
class Asked:
    """What is asked of steps chosen by their error: rtol=1e-3, atol=1e-4, controller, and `Limits`.

    A step is kept if the root mean square of its error/(atol + rtol max(|x|, |x1|)) over a sample is at most
    1. The default controller is PI(safety=0.7): the error of a step is a random number, and at the usual
    0.9 a third of the steps were rejected.

    Raises:
        ArgumentError: a bad argument. Or a method of strong order below 1: what it leaves out of a step is 0
            on the average over all paths, not over those on which a step is accepted, and the limit may be
            another one (Gaines and Lyons 1997).
    """

    name: str
    rule: Scheme
    order: float
    rtol: Tensor
    atol: Tensor
    controller: Controller
    limits: Limits

    @classmethod
    def of(cls, name: str, rule: Scheme, noise: str, x0: Tensor, options: dict[str, Any]) -> Asked:
        order = rule.orders[noise]
        known = [f.name for f in fields(Limits)]
        limits = {key: value for key, value in options.items() if key in known}
        for key in options:
            if key not in (*known, "rtol", "atol", "controller"):
                raise unknown(
                    "argument of an SDE", key, (*known, "rtol", "atol", "controller", "dt", "steps")
                )
        usable(options.get("controller"))
        if limits.get("on_budget", "stop") != "stop":
            raise ArgumentError("on_budget='reach' is not for an SDE: give nfe= alone, or dt=")
        if rule.pairs:
            raise ArgumentError(f"method {name!r} draws areas of equal steps: give dt= or steps=")
        if order < 1:
            raise ArgumentError(
                f"method {name!r} is of strong order {order} with {noise} noise: with steps chosen by their "
                "error it may go to another limit; give dt= or steps=, or take a method of order 1"
            )
        allowed = tolerances_of(x0, rtol=options.get("rtol", 1e-3), atol=options.get("atol", 1e-4))
        return cls(name, rule, order, *allowed, options.get("controller") or PI(safety=0.7), Limits(**limits))


@dataclass
class Pass:
    """What was accepted in one pass of the loop: by whom, the middle and the end; marks passed before."""

    ok: Tensor
    middle: Tensor
    end: Tensor
    mark: Tensor


class _Walk:
    """One run. Places are those of the path, lengths are in its units."""

    def __init__(
        self, asked: Asked, eq: Bound, x: Tensor, marks: Sequence[float], start: float, path: Brownian
    ) -> None:
        self.asked, self.eq, self.path, self.sign = asked, eq, path, 1 if marks[-1] > start else -1
        self.marks, batch = path.place(list(marks)), len(x)
        self.at = self.began = path.place([start]).expand(batch)
        self.W, self.J = path.at(self.at[None])
        self.out = x.new_full((len(marks), *x.shape), math.nan)
        zero = torch.zeros(batch, dtype=torch.int64, device=x.device)
        self.mark, self.code, self.rejected, self.tries = zero, zero, zero, zero
        if marks[0] == start:
            self.out[0], self.mark = x, zero + 1
        self.code = torch.where(rows(x).isfinite().all(1), RUNNING, NON_FINITE)
        span, limits = (self.marks[-1] - self.at).abs().double(), asked.limits
        self.longest = limits.max_step / path.unit
        self.h = torch.full_like(span, limits.first_step / path.unit) if limits.first_step else span / 100
        self.history = asked.controller.start(span * 0 + 1)
        self.state: State = (x,)
        self.n, self.cost, self.passes = 0, 3 * sum(asked.rule.evaluations), list[Pass]()

    @property
    def base(self) -> int:
        return self.eq.asked + 2 * self.asked.rule.reversible

    def run(self) -> None:
        limits = self.asked.limits
        if limits.max_steps and not self.spent():
            self.state = self.asked.rule.start(self.eq, self.told(self.at), *self.state)
        while bool((self.code == RUNNING).any()):
            if self.n >= limits.max_steps or self.spent():
                why = STEP_LIMIT if self.n >= limits.max_steps else NFE_LIMIT
                self.code = torch.where(self.code == RUNNING, why, self.code)
                break
            self.attempt()

    def spent(self) -> bool:
        nfe = self.asked.limits.nfe
        return nfe is not None and self.base + (self.n + 1) * self.cost > nfe

    def told(self, places: Tensor) -> Tensor:
        return self.path.time(places).to(self.out.dtype)

    def aimed(self) -> tuple[Tensor, Tensor]:
        """Where the next step ends, and whether it was cut short; who has stopped stays."""
        running = self.code == RUNNING
        target = self.marks[self.mark.clamp(max=len(self.marks) - 1)]
        left = (target - self.at).abs()
        want = torch.minimum(self.h.clamp(2.0, self.longest), left.double()).long().clamp_min(1)
        grain = 1 << (want.double().log2().long() - 4).clamp_min(0)
        ahead = self.sign * self.at + want
        end = torch.where(want >= left, target, self.sign * (ahead // grain * grain))
        return torch.where(running, end, self.at), want.double() < self.h

    def attempt(self) -> None:
        """One step of all, and what comes of it."""
        asked, x, state = self.asked, self.state[0], self.state
        end, cut = self.aimed()
        running, middle = self.code == RUNNING, (self.at + end) // 2
        places = torch.stack([self.at, middle, end])
        W, J = (
            torch.cat([now, more])
            for now, more in zip((self.W, self.J), self.path.at(places[1:]), strict=True)
        )
        whole = self.moved(state, places[::2], W[::2], J[::2])[0]
        halves = self.moved(state, places, W, J)
        scale = torch.addcmul(asked.atol, asked.rtol, torch.maximum(x.abs(), halves[0].abs()))
        error = rows((halves[0] - whole) / scale)
        ratio = torch.linalg.vector_norm(error, dim=1).double() / max(1, error.shape[1]) ** 0.5
        factor, accept, self.history = asked.controller.control(ratio, self.history, asked.order + 0.5)
        h, ok = (end - self.at).abs().double() * factor, accept & running
        self.h = torch.where(accept & cut, torch.fmax(self.h, h), h)
        if self.eq.differentiable:
            self.passes.append(Pass(ok, middle, end, self.mark))
        self.settle(ok, end, halves, W[-1:], J[-1:])
        refused = running & ~accept
        self.n, self.rejected = self.n + 1, self.rejected + refused
        under = refused & (self.h < max(2.0, asked.limits.min_step / self.path.unit))
        self.code = torch.where(under, torch.where(ratio.isfinite(), UNDERFLOW, NON_FINITE), self.code)
        self.tries = torch.where(running, self.n, self.tries)

    def moved(self, state: State, places: Tensor, W: Tensor, J: Tensor) -> State:
        """The state after steps between places [n + 1, B]."""
        rule, like = self.asked.rule, self.out
        times, lengths = self.told(places), places.diff(dim=0)
        # What has stopped takes steps of a unit without noise, which are not used.
        lengths = torch.where(lengths == 0, self.sign, lengths).double().mul_(self.path.unit).to(like)
        W, H = (v.to(like) for v in self.path.changes(places, W, J))
        z = rule.noise(self.eq.ito, beside(lengths, W), W, H)
        for n, h in enumerate(beside(lengths, like)):
            try:
                state = rule.step(self.eq, times[n], times[n + 1], h, state, tuple(v[n] for v in z))
            except Exception as error:
                where = f"method {self.asked.name}, t = {float(times[n].min()):.6g}"
                raise failed(where, error) from error
        return state

    def settle(self, ok: Tensor, end: Tensor, halves: State, W: Tensor, J: Tensor) -> None:
        self.state = tuple(torch.where(beside(ok, b), a, b) for a, b in zip(halves, self.state, strict=True))
        self.at = torch.where(ok, end, self.at)
        wide = beside(ok, W[0])
        self.W, self.J = torch.where(wide, W, self.W), torch.where(wide, J, self.J)
        landed = ok & (self.at == self.marks[self.mark.clamp(max=len(self.marks) - 1)])
        self.out[self.mark[landed], landed.nonzero()[:, 0]] = self.state[0][landed]
        self.mark = self.mark + landed
        self.code = torch.where(landed & (self.mark == len(self.marks)), REACHED, self.code)

    def grid(self) -> tuple[Tensor, list[int]]:
        """Places [steps + 1, B] of the accepted halves, and after how many of them each mark is, if noted.

        At a mark all samples wait for each other, so that a mark is after as many rows for all.
        """
        if not self.passes:
            return self.began[None], [0] * len(self.marks)
        ok = torch.stack([p.ok for p in self.passes])
        mark = torch.stack([p.mark for p in self.passes])
        rows = torch.zeros_like(mark)
        base, counts = 0, []
        for m in range(len(self.marks)):
            here = ok & (mark == m)
            rank = here.cumsum(0)
            rows = torch.where(here, base + 2 * rank - 1, rows)
            base += 2 * int(rank.max())
            counts.append(base)
        places = (self.sign * self.began).repeat(base + 2, 1)
        rows = torch.where(ok, rows, base + 1)  # what was not accepted goes into a row that is cut off
        for p, row in zip(self.passes, rows, strict=True):
            pair = torch.stack([row, torch.where(p.ok, row + 1, row)])
            places.scatter_(0, pair, self.sign * torch.stack([p.middle, p.end]))
        return self.sign * places[: base + 1].cummax(0).values, counts

    def solution(self, marks: tuple[float, ...], x0: Tensor) -> Solution:
        x, taken = self.state[0], self.tries - self.rejected
        began = self.n > 0 or len(self.state) > 1
        nfe_each = self.tries * self.cost + (self.base if began else self.eq.asked)
        grown = rows(x).norm(dim=1) / rows(x0).norm(dim=1).clamp_min(1.0)
        t, rtol, eps = self.path.time(self.at), float(self.asked.rtol.min()), torch.finfo(x.dtype).eps
        columns = (self.code, t, self.h * self.path.unit, self.tries, self.rejected, grown)
        messages = tuple(
            Standing(self.asked.name, code, s, marks[-1], h, tries, rejected, size, 0.0, rtol, eps).message()
            for code, s, h, tries, rejected, size in zip(*(v.tolist() for v in columns), strict=True)
        )
        nfe = int(nfe_each.max())
        stats = Stats(nfe, nfe, self.n, 0.0, nfe, taken, self.rejected, nfe_each)
        status = tuple(STATUSES[code] for code in self.code.tolist())
        return Solution(self.out, marks, status, stats, t, x, (), messages)


def steps_chosen(
    asked: Asked, eq: Bound, x0: Tensor, marks: tuple[float, ...], start: float, path: Brownian
) -> tuple[Solution, Tensor, list[int]]:
    """The run, the places [steps + 1, B] between its steps, and how many steps come before each mark."""
    walk = _Walk(asked, eq, x0, marks, start, path)
    walk.run()
    return walk.solution(marks, x0), *walk.grid()
