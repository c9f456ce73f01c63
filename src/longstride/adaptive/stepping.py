"""The adaptive loop: steps of each sample's own, output between them, events, statuses.

Each pass tries one step of every sample. `Stepper` and the controller are functions of tensors, what is
accepted is a mask, and the host looks once at whether anything but plain progress happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..control import Controller, tells
from ..steppers.trial import Stepper, Trial
from .carry import Carry, Ended, Limits, Observer, Reading
from .events import Event, locate
from .failure import EVENT, NFE_LIMIT, NON_FINITE, REACHED, RUNNING, STEP_LIMIT, UNDERFLOW, Standing
from .output import Output
from .reach import Reach

if TYPE_CHECKING:
    from .chunks import Chunks


class Loop:
    """One run: s from start to end, over marks where f jumps, output at `save`."""

    def __init__(
        self,
        stepper: Stepper,
        controller: Controller,
        limits: Limits,
        span: tuple[float, float],
        jumps: Sequence[float],
        save: Sequence[float],
        events: Sequence[Event],
        outputs: Sequence[Output] = (),
        observers: Sequence[Observer] = (),
        watch: Callable[[Tensor, Tensor, Tensor], Any] | None = None,
    ) -> None:
        self.stepper, self.controller, self.limits, self.events = stepper, controller, limits, events
        self.reach = controller if isinstance(controller, Reach) else None
        self.told = controller.next_step if tells(controller) else None
        self.outputs, self.observers, self.readings = tuple(outputs), observers, list[Reading]()
        clock: dict[str, Any] = {"dtype": torch.float64, "device": stepper.rtol.device}
        self.start, self.end = span
        self.watch = watch
        self.legs = torch.tensor([*jumps, self.end], **clock)
        self.save, self.saving = torch.tensor(save, **clock), bool(save or self.outputs)
        self.next_save = torch.zeros(stepper.shape[0], dtype=torch.int64, device=stepper.rtol.device)
        self.read: list[Tensor] = []
        self.saved_at: list[tuple[Tensor, Tensor, int]] = []
        self.seen: list[list[tuple[Tensor, Tensor, int]]] = [[] for _ in events]
        self.running = 0  # how many are, once there is an aim
        self.chunks: Chunks | None = None  # that takes the steps, where a run is compiled
        # A single step is looked at on the host; one above `least` can be told from its start anywhere.
        self.host = stepper.groups == 1 and clock["device"].type == "cpu" and not events
        eps = torch.finfo(stepper.real).eps
        self.least = max(4 * eps * max(map(abs, span)) + 1e-26 * (self.end - self.start), limits.min_step)
        # What a run costs: before its first step, for each, and at most besides after one.
        self.base = 1 if limits.first_step or self.told else 1 + stepper.opening_costs
        between = save or events or any(output.between for output in self.outputs)
        self.reading = stepper.between_costs * bool(between)
        self.reserve = self.reading + bool(jumps)

    def run(self, x: Tensor, method: str) -> Ended:
        """Steps until every sample has stopped."""
        c, trial = self._begin(x), None
        with torch.set_grad_enabled(self.stepper.graph):
            while self.running:
                if self.chunks and not self.chunks.advance(c):
                    continue
                trial, ratio, accept, h, values = self._plain_steps(c)
                self._settle(c, trial, ratio, accept, h, values)
                self._aim(c)
        return self._ended(c, x, trial, method)

    def _begin(self, x: Tensor) -> Carry:
        stepper, limits = self.stepper, self.limits
        s = torch.full((stepper.groups,), self.start, dtype=torch.float64, device=x.device)
        zero = torch.zeros_like(s, dtype=torch.int64)
        history = self.controller.start(s * 0 + 1)
        c = Carry(s, s * 0, x, x, zero, zero, s, zero, zero, zero, zero, history, [])
        for output in self.outputs:
            output.begin(s.expand(len(x)), x)
        if len(self.save) and float(self.save[0]) == self.start:
            self.saved_at.append((self.next_save, torch.arange(len(x), device=x.device), 0))
            self.read.append(x)
            self.next_save = self.next_save + 1
        if limits.max_steps == 0 or self._spent(c).any():
            c.code, self.base = zero + (NFE_LIMIT if limits.max_steps else STEP_LIMIT), 0
            return c
        t = stepper.time(s)
        c.first = stepper.rate(t, x).clone()  # f may answer in memory of its own
        stepper.prepare(x, c.first)
        self.reserve += stepper.most * (stepper.graph and stepper.groups > 1)
        span = s * 0 + min(limits.max_step, self.end - self.start)
        if limits.first_step:
            c.h = torch.fmin(s * 0 + limits.first_step, span)
        elif self.told:
            c.h = torch.fmin(self._told(x), span)
        else:
            with torch.no_grad():
                c.h = stepper.opening(s, x, c.first, span)
        bad = ~(stepper.size(x, x) + stepper.size(x, c.first)).isfinite()
        c.first = stepper.entered(x, c.first)
        if self.told:
            c.code = torch.where(c.h > 0, c.code, UNDERFLOW)
        c.code = torch.where(bad, NON_FINITE, c.code)
        c.values = self._values(s, x)
        self._aim(c)
        return c

    def _aim(self, c: Carry) -> None:
        """Where each leg ends; what has stopped takes steps of length 0 from here on."""
        self.active = c.code == RUNNING
        self.running = int(self.active.sum())
        c.end = torch.where(self.active, self.legs[c.leg], c.s)
        if len(self.legs) > 1:
            before = torch.nextafter(
                c.end.to(self.stepper.real), -torch.ones_like(c.end).to(self.stepper.real) / 0
            )
            self.stepper.limit = torch.where(c.leg < len(self.legs) - 1, before, math.inf)

    def _plain_steps(self, c: Carry) -> tuple[Trial, Tensor, Tensor, Tensor, list[Tensor]]:
        """Steps for as long as they are kept or refused and nothing else happens; the first that is not."""
        stepper, longest, host = self.stepper, self.limits.max_step, self.host
        while True:
            step, left = self._length(c)
            if self.watch is not None:
                self.watch(stepper.time(c.s), c.x, step)
            trial = stepper.trial(c.s, step, c.x, c.first)
            ratio = stepper.ratio(trial)
            factor, accept, c.history = self.controller.control(ratio, c.history, stepper.shrinks)
            h, s1 = step * factor, c.s + step
            if self.told:
                h = torch.where(accept, self._told(trial.x1), h)
            if longest < math.inf:
                h = h.clamp(max=longest)
            c.n, c.spent = c.n + 1, c.spent + trial.evaluations
            values = self._values(s1, trial.x1) if self.events else c.values
            apart = left is None or self._apart(c, step, left, values)
            out = c.n + c.passes >= self.limits.max_steps or (
                self.limits.nfe is not None and self._spent(c).any()
            )
            fine = accept & (h > 0) if self.told else accept
            quiet = fine.item() and apart if host else bool((fine & apart).all())
            if out or not (quiet or self._only_refused(accept, apart, h)):
                return trial, ratio, accept, h, values
            ok = accept if quiet else accept & self.active
            if self.saving:
                c.extra = c.extra + stepper.between_costs * self._emit(trial, s1, ok)
            self._note(c, trial, None)
            h = stepper.accepted(trial, ok, h)
            if quiet:
                c.h, c.s, c.x, c.first, c.values = h, s1, trial.x1, trial.last, values
            else:
                c.h, c.rejected = torch.where(self.active, h, c.h), c.rejected + (self.active ^ ok)
                self._keep(c, trial, ok, s1, values)

    def _told(self, x: Tensor) -> Tensor:
        """The next step [G] from states x, of a controller that tells it."""
        assert self.told is not None
        h = self.told(x, self.stepper.sign).to(torch.float64)
        h = torch.where(h > 0, h, 0.0)  # also where it is NaN
        return h.amin(0, keepdim=True) if self.stepper.shared else h

    def _length(self, c: Carry) -> tuple[Tensor, Tensor | None]:
        """Of the steps to try, and what is left to the end; None where a single step, on the host, is far."""
        longest = self.limits.max_step
        if self.host and not self.reach and c.h.item() <= min((c.end.item() - c.s.item()) / 2, longest):
            return c.h, None
        left = c.end - c.s
        # What two steps will do is not done in a long and a short one; a budget has plans of its own.
        if self.limits.on_budget == "stop":
            c.h = torch.where(c.h < left, torch.minimum(c.h, left / 2), c.h)
        step = torch.minimum(c.h, left)
        if self.reach:
            step = self.reach.lengthened(self.stepper, c, step, left, self._affordable(c))
        return (step.clamp(max=longest) if longest < math.inf else step), left

    def _apart(self, c: Carry, step: Tensor, left: Tensor, values: list[Tensor]) -> Any:
        """Who neither lands nor crosses an event, if the step is accepted: [G], or a bool on the host."""
        if self.host:
            return step.item() < left.item()
        apart = step < left
        for event, before, after in zip(self.events, c.values, values, strict=True):
            apart = apart & ~event.crossed(before, after)
        return apart

    def _only_refused(self, accept: Tensor, apart: Any, h: Tensor) -> bool:
        """Whether all that happened is that some were refused, who can be left to masks."""
        if self.stepper.groups == 1 or self.stepper.graph or self.observers or self.chunks:
            return False
        return bool((~self.active | (apart & (h > self.least))).all())

    def _keep(self, c: Carry, trial: Trial, ok: Tensor, s1: Tensor, values: list[Tensor]) -> None:
        """The step of those who are ok; others stay where they were."""
        wide = ok.view(self.stepper.lead).expand(c.x.shape).contiguous()  # a third of what a broadcast costs
        c.x = torch.where(wide, trial.x1, c.x)
        c.first = torch.where(wide, trial.last, c.first)
        c.s = torch.where(ok, s1, c.s)
        c.values = [torch.where(ok, b, a) for a, b in zip(c.values, values, strict=True)]

    def _values(self, s: Tensor, x: Tensor) -> list[Tensor]:
        """The events at s, which get it for each sample [B], also where the step is shared."""
        t = (self.stepper.sign * s).to(self.stepper.real).expand(len(x))
        return [event.value(t, x).detach() for event in self.events]

    def _note(self, c: Carry, trial: Trial, ok: Tensor | None) -> None:
        for observer in self.observers:
            observer.note(c, trial, ok, self.readings)
        self.readings = []

    def _spent(self, c: Carry) -> Tensor:
        """[G]: whether one more step may cost more than there is."""
        if self.limits.nfe is None:
            return torch.zeros_like(c.extra, dtype=torch.bool)
        at_most = c.spent + self.stepper.most + self.base + self.reserve
        return c.bill + c.extra + at_most > self.limits.nfe

    def _affordable(self, c: Carry) -> Tensor:
        """[G]: how many more steps the budget pays for, less one for each jump ahead, which may waste one."""
        assert self.limits.nfe is not None
        jumps = len(self.legs) - 1 - c.leg
        gone = self.base + c.bill + c.spent + c.extra
        free = self.limits.nfe - gone - (self.reserve - self.reading) - jumps
        return free // (self.stepper.most + self.reading) - jumps

    def _settle(
        self, c: Carry, trial: Trial, ratio: Tensor, accept: Tensor, h: Tensor, values: list[Tensor]
    ) -> None:
        """A step in which somebody was rejected, landed, crossed an event or ran out: through masks."""
        stepper, active = self.stepper, self.active
        ok = accept & active
        if stepper.graph:
            trial = self._sound(c, trial, ok)
        h = stepper.accepted(trial, ok, h)
        # A step cut short to land says little of the next one.
        c.h = h if self.told else torch.where(accept & (trial.h < c.h), torch.fmax(c.h, h), h)
        landed, need = ok & (trial.h >= c.end - c.s), torch.zeros_like(ok)
        s1 = upto = torch.where(landed, c.end, trial.s + trial.h)
        if self.events:
            upto, stop, need = self._cross(c, trial, s1, ok, values)
            landed, c.code = landed & ~stop, torch.where(stop, EVENT, c.code)
        if self.saving:
            need = need | self._emit(trial, upto, ok)
        if self.observers and bool(ok.any()):
            self._note(c, trial, ok)
        self._keep(c, trial, ok, s1, values)
        c.extra = c.extra + stepper.between_costs * need
        refused = active & ~accept
        c.rejected = c.rejected + refused
        least = 4 * torch.finfo(stepper.real).eps * c.s.abs() + 1e-26 * (self.end - self.start)
        under = (active if self.told else refused) & (c.h <= least.clamp_min(self.limits.min_step))
        c.code = torch.where(under, torch.where(ratio.isfinite(), UNDERFLOW, NON_FINITE), c.code)
        c.code = torch.where(landed & (c.leg == len(self.legs) - 1), REACHED, c.code)
        if len(self.legs) > 1:
            self._jump(c, landed & (c.code == RUNNING))
        self._stop(c, active)

    def _stop(self, c: Carry, active: Tensor) -> None:
        """Ends those that have spent what there is, and counts what all did that have stopped."""
        steps = c.tries + c.n >= self.limits.max_steps
        out = (c.code == RUNNING) & (self._spent(c) | steps)
        c.code = torch.where(out, torch.where(steps, STEP_LIMIT, NFE_LIMIT), c.code)
        stopped = active & (c.code != RUNNING)
        c.tries, c.bill = c.tries + stopped * c.n, c.bill + stopped * c.spent

    def _sound(self, c: Carry, trial: Trial, ok: Tensor) -> Trial:
        """The trial without what would make NaN of a gradient: a weight of 0 on what failed is not enough."""
        if not bool(ok.any()):
            return replace(trial, x1=c.x, last=c.first)
        if bool(trial.K.isfinite().all()):
            return trial
        again = self.stepper.trial(c.s, torch.where(ok, trial.h, 0.0), c.x, c.first)
        c.extra = c.extra + again.evaluations * (c.code == RUNNING)
        return again

    def _jump(self, c: Carry, jumped: Tensor) -> None:
        """f anew behind a jump, for those that landed on one."""
        if not bool(jumped.any()):
            return
        c.leg, c.extra = c.leg + jumped, c.extra + jumped
        self.stepper.forget(jumped)
        c.first = self.stepper.afresh(c.s, c.x, c.first, jumped)

    def _cross(
        self, c: Carry, trial: Trial, s1: Tensor, ok: Tensor, values: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Events within a step: how far it counts, who stops, for whom it was looked at between its ends."""
        stepper, thetas = self.stepper, list[Tensor]()
        for event, before, after in zip(self.events, c.values, values, strict=True):
            hit = ok & event.crossed(before, after)

            def g(theta: Tensor, event: Event = event) -> Tensor:
                t = stepper.sign * (c.s + theta * trial.h)
                return event.value(t.to(stepper.real), stepper.along(trial, theta))

            with torch.no_grad():
                found = locate(g, before) if bool(hit.any()) else torch.ones_like(s1)
            thetas.append(torch.where(hit, found, math.inf))
        ends = [theta for event, theta in zip(self.events, thetas, strict=True) if event.terminal]
        last = torch.stack([torch.full_like(s1, math.inf), *ends]).amin(0)
        stop, need = last <= 1, torch.zeros_like(ok)
        for seen, theta in zip(self.seen, thetas, strict=True):
            hit = (theta <= 1) & (theta <= last)
            need = need | (hit if len(need) > 1 else hit.any())
            who = hit.nonzero()[:, 0]
            if len(who):
                when = stepper.sign * (c.s + theta * trial.h)[who]
                seen.append((who, when, self._reading(trial, who, theta[who])))
        return torch.where(stop, c.s + last.clamp(max=1) * trial.h, s1), stop, need

    def _reading(self, trial: Trial, sample: Tensor, theta: Tensor) -> int:
        """Reads the solution at theta [P] along the steps of these samples; returns its number in `read`."""
        self.readings.append((sample, theta))
        self.read.append(self.stepper.at(trial, sample, theta))
        return len(self.read) - 1

    def _emit(self, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        """Output of a step up to s1; returns who was read between its ends [G]."""
        need = torch.zeros_like(ok)
        for output in self.outputs:
            need = need | output.note(self.stepper, trial, s1, ok)
        return need | self._marks(trial, s1, ok) if len(self.save) else need

    def _marks(self, trial: Trial, s1: Tensor, ok: Tensor) -> Tensor:
        """Keep the states at the times of `save` in (s, s1]; returns for whom there were some [G]."""
        upto = torch.searchsorted(self.save, s1, right=True).expand(len(self.next_save))
        upto = torch.where(ok, upto, self.next_save)
        count, begin = upto - self.next_save, self.next_save
        self.next_save = upto
        if not bool(count.any()):
            return torch.zeros_like(ok)
        sample = torch.repeat_interleave(count)
        mark = torch.arange(len(sample), device=count.device) - (count.cumsum(0) - count - begin)[sample]
        group = sample if len(s1) > 1 else torch.zeros_like(sample)
        theta = (self.save[mark] - trial.s[group]) / trial.h[group]
        self.saved_at.append((mark, sample, self._reading(trial, sample, theta.clamp(max=1.0))))
        return (count > 0)[: len(s1)]

    def _ended(self, c: Carry, x0: Tensor, trial: Trial | None, method: str) -> Ended:
        batch, code = len(x0), c.code.expand(len(x0))
        fine = bool(((c.code == REACHED) | (c.code == EVENT)).all())
        message = ("",) * batch if fine else self._messages(c, x0, trial, method)
        nfe = (self.base + c.bill + c.extra).expand(batch)
        taken = (c.tries - c.rejected).expand(batch)
        t = (self.stepper.sign * c.s).expand(batch)
        return Ended(
            c.x, t, code, nfe, taken, c.rejected.expand(batch), message, self.read, self.saved_at,
            tuple(self.seen),
        )  # fmt: skip

    def _messages(self, c: Carry, x0: Tensor, trial: Trial | None, method: str) -> tuple[str, ...]:
        """What is said of each sample."""
        stepper, batch = self.stepper, len(x0)
        grown = (stepper.norms(c.x) / stepper.norms(x0).clamp_min(1.0)).expand(batch).tolist()
        stiff = (stepper.stiffness(trial) if trial else 0 * c.s).expand(batch).tolist()
        code, s, h, tries, rejected = (
            v.expand(batch).tolist() for v in (c.code, c.s, c.h, c.tries, c.rejected)
        )
        sign, rtol, eps = stepper.sign, float(stepper.rtol.min()), torch.finfo(stepper.real).eps
        return tuple(
            Standing(
                method, code[i], sign * s[i], sign * self.end, h[i], tries[i], rejected[i], grown[i],
                stiff[i], rtol, eps,
            ).message()
            for i in range(batch)
        )  # fmt: skip
