"""The continuous adjoint of sampling: the transposed differential equation, integrated back.

With u = x/alpha and D the data prediction, sampling is du/dlambda = c (D - u), where c = 1 + eta^2 and the
noise of an SDE is additive. The adjoint a = dL/du = alpha dL/dx obeys

    da/dlambda = c a - c alpha (dD/dx)^T a,        dL/dtheta = int c (dD/dtheta)^T a dlambda

(Pan et al. 2023, AdjointDPM; Blasingame and Liu 2024, AdjointDEIS). All is integrated from data to noise by
exponential Adams steps: u with L = -c, a with L = +c, the integral with L = 0. Noise that does not depend on
the state is not differentiated: the adjoint of an SDE is this ODE along its path, which the same motion leads
back.

The papers write the same equation for the noise prediction and extrapolate alpha (d eps/dx)^T a. Where D
hardly depends on x, as between the modes of the data, that is 1/sigma times what is wanted, and steps of more
than a factor of two in sigma blow up. Here D's own derivative is extrapolated, and that case is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from ..core import Field, Step, advance
from ..errors import ArgumentError, whole
from ..frame import PREDICTIONS, Frame, conversion, ddim_step
from ..methods import get
from ..methods.base import one_of
from ..noise import Noise
from ..operator import Linear
from ..plan import Plan
from ..process import Process
from .transpose import vjp

SAME = 1e-6  # relative difference below which two amounts of noise are one


@dataclass(frozen=True)
class Adjoint:
    """Integrate the adjoint equation back, together with x: only the states at both ends are remembered.

    The gradient is that of the differential equation, which the run itself followed only so far. It differs
    from the run's own by what both leave out, of the order of each.

    order: of the exponential Adams steps back, 1 or 2.  nfe: how many of them; default as many as forth.
    """

    order: int = 2
    nfe: int | None = None

    def __post_init__(self) -> None:
        one_of("order", self.order, (1, 2))
        if self.nfe is not None:
            whole("nfe", self.nfe, 1, "going back takes at least one evaluation")


@dataclass(frozen=True)
class Middle:
    """The part of a plan that is a differential equation: steps `first` to `last`, that one not included.

    A first step from pure noise and a last one to clean data, where lambda is infinite, are DDIM, which is
    exact there in the limit: they are differentiated as they stand.

    Raises:
        ArgumentError: nothing is left between them, or noise that belongs to no SDE of `Frame`.
    """

    process: Process
    plan: Plan

    def __post_init__(self) -> None:
        if self.plan.states > 1:
            raise ArgumentError(
                "the adjoint equation has one state: take grad='reverse' to go on from a State"
            )
        if self.first >= self.last:
            raise ArgumentError("the plan has no step between pure noise and clean data: use grad=True")
        for n in range(self.first, self.last):
            frame = self.motion(n)
            if frame is None or not math.isclose(frame.eta, self.frame.eta, rel_tol=SAME, abs_tol=SAME):
                raise ArgumentError(
                    f"method {self.plan.method}: the noise of its step {n + 1} is not that of one SDE from "
                    "start to end; take exp_adams_2 with an eta, ddpm, or grad='checkpoint'"
                )

    @property
    def first(self) -> int:
        return int(math.isinf(self.process.lambda_(self.plan.times[0])))

    @property
    def last(self) -> int:
        return len(self.plan.steps) - int(math.isinf(self.process.lambda_(self.plan.times[-1])))

    @cached_property
    def frame(self) -> Frame:
        """In which the plan's SDE, or its ODE, is integrated back."""
        return self.motion(self.first) or Frame(self.process, "data")

    def motion(self, n: int) -> Frame | None:
        """The frame whose noise step n draws, by its marks and its weight; None if there is no such."""
        step, (s, t) = self.plan.steps[n], self.plan.times[n : n + 2]
        if step.brownian is None:
            return Frame(self.process, "data")
        h = self.process.lambda_(t) - self.process.lambda_(s)
        if h <= 0:
            return None
        drawn = math.sqrt(sum(float(z) ** 2 for z in step.stages[-1].z))
        begin, end = step.brownian[0], step.brownian[-1]
        if end > begin:
            frame = Frame(self.process, "data", math.sqrt(math.log(end / begin) / (2 * h)))
        else:
            frame = Frame(self.process, "noise", drawn / self.process.sigma(t) / math.sqrt(math.expm1(2 * h)))
        weight, marks = frame.noise(s, t)
        there = marks is not None and all(map(_near, (weight, *marks), (drawn, begin, end)))
        return frame if there else None

    def back(self, steps: int | None) -> list[float]:
        """Times from the end to the beginning, even in lambda within a step of the plan."""
        times = self.plan.times[self.first : self.last + 1][::-1]
        m = len(times) - 1
        n = steps or m
        return [_between(self.process, times, Fraction(j * m, n)) for j in range(n + 1)]


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=SAME)


def _between(process: Process, times: Sequence[float], place: Fraction) -> float:
    """The time at a place in a list of times, in lambda."""
    k, share = int(place), float(place % 1)
    if not share:
        return times[k]
    return process.time((1 - share) * process.lambda_(times[k]) + share * process.lambda_(times[k + 1]))


def adjoint(
    way: Adjoint,
    middle: Middle,
    fields: Sequence[Field],
    ends: Mapping[int, Tensor],
    g: Tensor,
    wanted: Sequence[Tensor],
    noise: Noise | None,
) -> list[Tensor | None]:
    """(dL/dx, dL/dw of each wanted) from g = dL/d(end).

    ends: x [B, *shape] before step 0, if that is from pure noise, and before step `middle.last`.
    """
    process, times, first, last = middle.process, middle.plan.times, middle.first, middle.last
    totals = [torch.zeros_like(w) for w in wanted]
    if last < len(middle.plan.steps):
        g = _single(fields, process, times[last : last + 2], ends[last], g, wanted, totals)
    a = process.alpha(times[last]) * g
    a = _back(way, middle, fields, ends[last], a, wanted, totals, noise)
    g = a / process.alpha(times[first])
    if first:
        g = _single(fields, process, times[:2], ends[0], g, wanted, totals)
    return [g, *totals]


def _single(
    fields: Sequence[Field],
    process: Process,
    times: Sequence[float],
    x: Tensor,
    g: Tensor,
    wanted: Sequence[Tensor],
    totals: list[Tensor],
) -> Tensor:
    """One DDIM step between two times, transposed; adds to `totals`."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        out = advance(fields, ddim_step(process, *times), [x], [])[0]
    found = vjp(out, [x, *wanted], [g])
    _add(totals, found[1:])
    return torch.zeros_like(x) if found[0] is None else found[0]


def _add(totals: list[Tensor], parts: Sequence[Tensor | None]) -> None:
    for i, part in enumerate(parts):
        totals[i] = totals[i] if part is None else totals[i] + part


def _back(
    way: Adjoint,
    middle: Middle,
    fields: Sequence[Field],
    x: Tensor,
    a: Tensor,
    wanted: Sequence[Tensor],
    totals: list[Tensor],
    noise: Noise | None,
) -> Tensor:
    """a at the beginning from x and a at the end; adds to `totals`. Three rows of weights a step."""
    process, frame, times = middle.process, middle.frame, middle.back(way.nfe)
    lambdas, c = [process.lambda_(t) for t in times], 1 + frame.eta**2
    rule = get(f"exp_adams_{way.order}", prediction=frame.prediction, eta=frame.eta)
    known = [list[Tensor]() for _ in range(2 + len(wanted))]
    with torch.no_grad():
        for n, t in enumerate(times[:-1]):
            out, pulls = _look(process, fields, frame.field, t, x, a, wanted)
            step, step_a, step_w = (
                rule.step(*where)
                for where in ((times, n, frame), (lambdas, n, Linear(c)), (lambdas, n, Linear()))
            )
            zs = [] if noise is None else [noise.increment(*m).to(x) for m in pairwise(step.brownian or ())]
            x, known[0] = _moved(step, x, known[0], out, zs)
            a, known[1] = _moved(step_a, a, known[1], -c * pulls[0])
            for i, pull in enumerate(pulls[1:]):
                totals[i], known[2 + i] = _moved(step_w, totals[i], known[2 + i], -c * pull)
    return a


def _moved(
    step: Step, x: Tensor, fs: Sequence[Tensor], value: Tensor, zs: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """A step whose evaluation has been made."""
    (x,), kept = advance((lambda t, x: value,) * len(PREDICTIONS), step, [x], fs, zs)
    return x, kept


def _look(
    process: Process,
    fields: Sequence[Field],
    k: int,
    t: float,
    x: Tensor,
    a: Tensor,
    wanted: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Prediction k at x, and what a becomes under alpha (dD/dx)^T and under (dD/dw)^T of each wanted."""
    alpha, sigma = process.pair(t)
    p, q = conversion(PREDICTIONS[k], "data", alpha, sigma)  # D = p x + q out
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        out = fields[k](t, x)
    back, *others = vjp([out], [x, *wanted], [q * a])
    pulled = p * a if back is None else p * a + back
    zeros = (torch.zeros_like(w) if part is None else part for w, part in zip(wanted, others, strict=True))
    return out.detach(), [alpha * pulled, *zeros]
