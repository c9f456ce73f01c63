"""The continuous adjoint of sampling: the transposed differential equation, integrated back by a plan.

In y = x/alpha and rho = sigma/alpha sampling is dy/drho = eps(t, x), and the adjoint a = dL/dy obeys

    da/drho = -alpha (d eps/dx)^T a,        dL/dtheta = int (d eps/dtheta)^T a drho

from noise to data (Pan et al. 2023, AdjointDPM). With A = alpha a = alpha^2 dL/dx these say that A changes
as x does, with the prediction -(d eps/dx)^T A in place of eps. Predictions are affine in each other, so
whichever P = p x + q eps a row of a plan asks for,

    x: P        A: 2 p A - (dP/dx)^T A        G = alpha dL/dtheta: p G - (dP/dtheta)^T A/alpha

So (x, A, G) is one state that any plan for the process integrates. Here it is exponential Adams in lambda,
with the times the other way round (Blasingame and Liu 2024, AdjointDEIS). Additive noise is not
differentiated: of an SDE, A and G have the drift and x the same motion, undone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .core import Field, advance
from .errors import ArgumentError, whole
from .frame import PREDICTIONS, Frame, conversion, ddim_step
from .integrate import run
from .methods import get
from .methods.base import one_of
from .noise import Noise
from .plan import Plan
from .process import Process

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
        return self.motion(self.first) or Frame(self.process, "noise")

    def motion(self, n: int) -> Frame | None:
        """The frame whose noise step n draws, by its marks and its weight; None if there is no such."""
        step, (s, t) = self.plan.steps[n], self.plan.times[n : n + 2]
        if step.brownian is None:
            return Frame(self.process, "noise")
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

    def back(self, way: Adjoint) -> Plan:
        """Exponential Adams from the end to the beginning, even in lambda within a step of the plan."""
        times = self.plan.times[self.first : self.last + 1][::-1]
        m, n = len(times) - 1, way.nfe or len(times) - 1
        rule = get(f"exp_adams_{way.order}", prediction=self.frame.prediction, eta=self.frame.eta)
        at = [_between(self.process, times, Fraction(j * m, n)) for j in range(n + 1)]
        steps = tuple(rule.step(at, j, self.frame) for j in range(n))
        return Plan(tuple(at), steps, method=f"the adjoint of {self.plan.method}")


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=SAME)


def _between(process: Process, times: Sequence[float], place: Fraction) -> float:
    """The time at a place in a list of times, in lambda."""
    k, share = int(place), float(place % 1)
    if not share:
        return times[k]
    return process.time((1 - share) * process.lambda_(times[k]) + share * process.lambda_(times[k + 1]))


class _Padded:
    """The noise of x as that of the flat state (x, A, G): nothing else is moved by it."""

    def __init__(self, noise: Noise, size: int):
        self.noise, self.size = noise, size

    def increment(self, a: float, b: float) -> Tensor:
        z = self.noise.increment(a, b).flatten()
        return torch.cat([z, z.new_zeros(self.size - len(z))])


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
    total = [torch.zeros_like(w) for w in wanted]

    def single(n: int, g: Tensor) -> Tensor:
        x = ends[n].detach().requires_grad_()
        with torch.enable_grad():
            out = advance(fields, ddim_step(process, *times[n : n + 2]), [x], [])[0]
        found = vjp(out, [x, *wanted], [g])
        for i, part in enumerate(found[1:]):
            total[i] = total[i] if part is None else total[i] + part
        return torch.zeros_like(x) if found[0] is None else found[0]

    if last < len(middle.plan.steps):
        g = single(last, g)
    x, alpha = ends[last], process.alpha(times[last])
    sizes = [v.numel() for v in (x, g, *total)]
    state = torch.cat([x.flatten(), alpha**2 * g.flatten(), x.new_zeros(sum(sizes[2:]))])
    augmented = [_augmented(process, k, f, x.shape, sizes, wanted) for k, f in enumerate(fields)]
    padded: Any = None if noise is None else _Padded(noise, len(state))
    with torch.no_grad():
        state = run(augmented, middle.back(way), state, padded)[0][-1]
    alpha = process.alpha(times[first])
    _, a, *gs = state.split(sizes)
    for i, part in enumerate(gs):
        total[i] = total[i] + part.reshape(total[i].shape).to(total[i]) / alpha
    g = a.reshape(x.shape) / alpha**2
    return [single(0, g) if first else g, *total]


def _augmented(
    process: Process,
    k: int,
    field: Field,
    shape: Sequence[int],
    sizes: Sequence[int],
    wanted: Sequence[Tensor],
) -> Field:
    """What a row of the flat state (x, A, G) asks for, where a plan asks for prediction k of x."""

    def evaluate(t: float, state: Tensor) -> Tensor:
        alpha, sigma = process.pair(t)
        p, _ = conversion("noise", PREDICTIONS[k], alpha, sigma)
        x, a, *gs = state.split(list(sizes))
        x = x.reshape(shape).requires_grad_()
        with torch.enable_grad():
            out = field(t, x)
        found = vjp([out], [x, *wanted], [a.reshape(shape)])
        parts = [2 * p * a, *(p * g for g in gs)]
        scales = [1.0, *[1 / alpha] * len(gs)]
        for i, (part, scale) in enumerate(zip(found, scales, strict=True)):
            if part is not None:
                parts[i] = parts[i] - scale * part.flatten().to(state)
        return torch.cat([out.detach().flatten(), *parts])

    return evaluate


def vjp(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """sum of (d output/d input)^T cotangent for each input; None where that is nothing.

    The graph is kept: what lies outside of a step, say behind a weight that was computed, is passed again.
    """
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    outs, cots = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outs, list(inputs), cots, allow_unused=True, retain_graph=True))
