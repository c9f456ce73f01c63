"""A budget of evaluations that brings a run to its end, as exactly as it can afford.

A pilot run at a loose tolerance says where the steps are short and where they are long: how many of its steps
are left at s. The tolerances asked for want steps that are some factor shorter, which shows as the run goes
on, so what is left costs that many times as many. Where the budget has fewer, all steps are longer by the
factor that is missing, as if the tolerances were looser throughout, and the last of it reaches the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..control import Controller, History
from ..solution import Solution
from ..steppers.trial import Stepper, Trial
from .output import Steps

if TYPE_CHECKING:
    from .carry import Carry, Limits

PILOT = 1e-2  # the error of a step of the pilot, relative to the state
MEMORY = 0.7  # of how the steps wanted compare with the pilot's


def looseness(x0: Tensor, rtol: Tensor, atol: Tensor) -> float:
    """How many times the tolerances the pilot's are."""
    x0 = x0.detach().abs()
    size = float(x0.square().mean().sqrt()) or 1.0
    return max(1.0, PILOT * size / float((atol + rtol * x0).mean()))


class Pilot:
    """The steps of the pilot: times s [n, B] where they end, the start among them, NaN behind the last."""

    def __init__(self, s: Tensor):
        self.s = s.t().nan_to_num(math.inf).contiguous()
        self.count = (self.s < math.inf).sum(1) - 1

    def ahead(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """How many of its steps are left at s [G], and how long the one there is."""
        rows = self.s[: len(s)]
        step = torch.searchsorted(rows, s[:, None], right=True).clamp(max=rows.shape[1] - 1)
        step = step.minimum(self.count[: len(s), None]).clamp_min(1)
        end, begin = rows.gather(1, step)[:, 0], rows.gather(1, step - 1)[:, 0]
        gone = step[:, 0] - (end - s) / (end - begin)
        return (self.count[: len(s)] - gone).clamp_min(0.0), end - begin


class Estimating:
    """A controller whose estimates are summed: error [B], root mean squares over a sample.

    power: with which the true error falls where the sum falls.
    """

    between = False

    def __init__(self, controller: Controller):
        self.controller = controller

    def start(self, ones: Tensor) -> History:
        return self.controller.start(ones)

    def control(self, ratio: Tensor, history: History, power: int | Tensor) -> tuple[Tensor, Tensor, History]:
        self.ratio = ratio
        return self.controller.control(ratio, history, power)

    def begin(self, s: Tensor, x: Tensor) -> None:
        self.error, self.power = torch.zeros_like(s), 1.0

    def note(self, stepper: Stepper, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        scale = stepper.allowed(trial.x, trial.x1)
        scale = stepper.norms(scale.expand(stepper.shape)).detach() / stepper.root
        self.error = self.error + torch.where(ok, self.ratio * scale, 0.0)
        if isinstance(stepper.shrinks, int):  # else orders, and estimates of them, are each sample's
            self.power = stepper.order / max(stepper.shrinks - 1, 1)
        return torch.zeros_like(ok)


class Reach(Estimating):
    """A controller that works at looser tolerances where the budget asks for it, the pilot's at most."""

    def __init__(self, controller: Controller, pilot: Pilot, looser: float):
        super().__init__(controller)
        self.pilot, self.looser, self.fresh = pilot, looser, True

    def start(self, ones: Tensor) -> History:
        self.stretched, self.shorter = ones < 0, ones
        return self.controller.start(ones)

    def lengthened(self, stepper: Stepper, c: Carry, step: Tensor, left: Tensor, paid: Tensor) -> Tensor:
        """The steps [G] to try, where so many are paid for and left is to the next jump or the end."""
        ahead, length = self.pilot.ahead(c.s)
        told = (length / c.h).clamp(1e-3, 1e6)  # how many steps are wanted in the place of one of the pilot's
        if self.fresh:  # the first step is a guess
            self.fresh, told = False, torch.full_like(told, self.looser) ** (1 / stepper.shrinks)
            self.shorter = told
        told = self.shorter**MEMORY * told ** (1 - MEMORY)
        self.shorter = torch.where(left > 0, told, self.shorter)
        longer = ahead * self.shorter / paid.clamp_min(1)
        step = torch.where(longer > 1, (longer * step).minimum(left), step)
        last = paid <= 1
        self.allowed = torch.where(last, math.inf, longer**stepper.shrinks).clamp(1.0, self.looser)
        return torch.where(last, left, step)

    def control(self, ratio: Tensor, history: History, power: int | Tensor) -> tuple[Tensor, Tensor, History]:
        factor, accept, history = super().control(ratio, history, power)
        kept = ratio <= self.allowed
        self.stretched = self.stretched | (kept & ~accept)
        # What the tolerances want, however far from what was done.
        return torch.where(ratio > 1, (0.9 * ratio ** (-1 / power)).nan_to_num(0.2), factor), kept, history


def reach(run: Callable[..., Solution], looser: float, rule: Controller, limits: Limits) -> Solution:
    """The pilot, and with what it left of the budget the run; the pilot alone where that is too little.

    run(looser, controller, limits, *outputs) is a run whose tolerances are looser by that factor.

    The two differ by the pilot's error. With steps of size h errors are of order h^p, and the sums E of the
    estimates of order h^(k-1) where one falls as h^k: the run's error is that difference times (E/E_pilot)^q,
    q = p/(k - 1). That knows how errors grow and die out. Of a pilot alone the sum has to do.
    """
    assert limits.nfe is not None
    times, first = Steps(), Estimating(rule)
    pilot = run(looser, first, limits, first, times)
    left = limits.nfe - pilot.stats.nfe
    short = "nfe_limit" in pilot.status or left < pilot.stats.nfe
    if looser > 1 and not short:
        s, _ = times.table(1.0)
        second = Reach(rule, Pilot(s), looser)
        found = run(1.0, second, replace(limits, nfe=left), second)
        if "nfe_limit" not in found.status:
            apart = (found.x_end - pilot.x_end).detach().reshape(len(first.error), -1)
            apart = apart.abs().square().mean(1).sqrt()
            error = apart * (second.error / first.error.clamp_min(1e-300)) ** second.power
            came = zip(found.status, pilot.status, strict=True)
            both = torch.tensor([a == b == "reached" for a, b in came], device=error.device)
            error = torch.where(both, error, second.error)
            return _told(found, error, second.stretched.expand(len(error)).tolist(), pilot.stats.nfe)
    return _told(pilot, first.error, [looser > 1] * len(pilot.status), 0)


def _told(found: Solution, error: Tensor, stretched: Sequence[bool], spent: int) -> Solution:
    """With its error, what it cost before, and a status and message of its own where tolerances gave way."""
    who = [long and said == "reached" for long, said in zip(stretched, found.status, strict=True)]
    status = tuple("stretched" if long else said for long, said in zip(who, found.status, strict=True))
    why = "the tolerances gave way to the budget nfe=; the estimated error is"
    message = tuple(
        f"{why} {size:.2g}" if long else said
        for long, said, size in zip(who, found.message, error.tolist(), strict=True)
    )
    each = found.stats.nfe_each
    stats = replace(
        found.stats,
        nfe=found.stats.nfe + spent,
        network_calls=found.stats.network_calls + spent,
        rounds=found.stats.rounds + spent,
        nfe_each=None if each is None else each + spent,
    )
    return replace(found, status=status, message=message, stats=stats, error=error)
