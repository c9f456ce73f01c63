"""A trial step of an embedded pair on a batch: its evaluations, its error ratio, the solution along it.

A step is a function of tensors: s [G], h [G], x and the first evaluation in, x1, evaluations and error ratio
out. G is the batch where samples step on their own, 1 where they share a step. The clock s rises from the
start to the end of a run, whichever way t goes: t = sign s, and the weights of the evaluations get the sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..control import PI, Controller, I, first_step
from ..errors import ArgumentError
from ..methods.embedded import Pair

Rate = Callable[[Tensor, Tensor], Tensor]
Norm = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Whole:
    """Errors e of a sample weighed as one: |e|/(atol + rtol |x|), |.| being `of`, [B] of [B, ...]."""

    of: Norm


@dataclass
class Trial:
    """From (s, x) to (s + h, x1), where f is `last`.

    K [S, *shape]: h times the evaluations; the next trial may write over them.
    evaluations: of f, that this trial took from every sample.
    full: K with the evaluations that the interpolant alone needs, once they are made.
    """

    s: Tensor
    h: Tensor
    x: Tensor
    x1: Tensor
    last: Tensor
    K: Tensor
    evaluations: int = 0
    full: Tensor | None = None


class Stepper:
    """A method bound to a problem, for the loop: the clocks, the norms, and what a kind of method fills in.

    graph: whether backpropagation may be wanted; if it is, nothing is written in place.
    most: evaluations that a trial takes at most.  between_costs: those to read the solution along a step;
    opening_costs: those to choose the first.
    repeatable: whether a trial is a function of its arguments alone, and can be made again.
    own: leaves that the last trial made to differentiate by, and that its graph may lead to.
    two_at_end: whether its last two stages stand at the end, and tell how stiff it is there.
    order: of the method.  shrinks: the power of h that the error estimate goes down with, or those [G].
    degree: at most, of the polynomial in theta that the solution along a step is.
    lands: whether steps end at saved times, since the solution along a step is less exact than at its ends.
    jacobians, factorizations: made so far, by implicit methods.  controller: of a run that names none.
    tells: whether the method chooses its steps itself, and no controller does.
    """

    most: int
    between_costs: int
    opening_costs = 1
    two_at_end = False
    repeatable = False
    own: Sequence[Tensor] = ()
    order: int
    shrinks: int | Tensor
    degree: int = 5
    lands = False
    jacobians = 0
    factorizations = 0
    tells = False
    controller: Controller = I()

    def __init__(
        self,
        rate: Rate,
        x0: Tensor,
        sign: float,
        shared: bool,
        graph: bool,
        rtol: Tensor,
        atol: Tensor,
        norm: Norm | Whole | None = None,
    ) -> None:
        self.rate, self.sign, self.shared, self.graph = rate, sign, shared, graph
        self.rtol, self.atol = rtol, atol
        self.whole = norm.of if isinstance(norm, Whole) else None
        self.norm = None if isinstance(norm, Whole) else norm
        self.shape, self.dtype, self.real = x0.shape, x0.dtype, x0.dtype.to_real()
        self.groups = 1 if shared else len(x0)
        self.flat = x0.ndim == 2 and (not shared or len(x0) == 1)  # [B, D] already, as the norm wants it
        self.row = x0.ndim == 2 and len(x0) == 1  # one sample is one row, and needs no view
        self.lead = (-1,) + (1,) * (x0.ndim - 1)  # of any number of samples: compiled runs may have idle ones
        self.root = 1.0 if self.norm else math.sqrt(x0.numel() / self.groups)
        self.limit: Tensor | None = None  # a time before which all stages stay: just before a jump

    def suit(self, jacobian: Any, parts: Sequence[Rate], linear: str | None) -> None:
        """What implicit methods need: how df/dx looks, f and L x + g apart, how systems are solved."""
        if linear is not None:
            raise ArgumentError("linear= is for implicit methods")

    def kicked(self, a: Rate | None, own: Any) -> None:
        """What methods of x'' = a(t, x) need: a, checked, and as the user gave it, which may know more."""

    def apart(self, L: Any, f: Rate) -> None:
        """What exponential pairs need: L, and the rest of dx/dt."""

    def polynomials(self, dense: Tensor) -> None:
        """What `between` reads a step by: x + sum_j K_j sum_m dense[j][m] theta^(m+1)."""
        self.dense = dense
        self.powers = torch.arange(1, dense.shape[1] + 1, dtype=torch.float64, device=dense.device)

    def opening(self, s: Tensor, x: Tensor, first: Tensor, span: Tensor) -> Tensor:
        """The first step to try [G], at most span; `opening_costs` evaluations."""
        return first_step(
            lambda h: self.rate(self.time(s + h), x + self.spread(self.sign * h) * first),
            lambda f: self.size(x, f),
            x,
            first,
            self.order,
            span,
        )

    def prepare(self, x: Tensor, first: Tensor) -> None:
        """Before the first step: first is f at x."""
        self.graph = self.graph and (x.requires_grad or first.requires_grad)

    def entered(self, x: Tensor, first: Tensor) -> Tensor:
        """What the first step gets for `first`, where f at x is first: that, unless a method carries more."""
        return first

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        """A step of h from (s, x), where f is first."""
        raise NotImplementedError

    def afresh(self, s: Tensor, x: Tensor, first: Tensor, jumped: Tensor) -> Tensor:
        """first, where f has jumped at s made anew just behind it. One evaluation."""
        real = s.to(self.real)
        behind = torch.where(jumped, torch.nextafter(real, torch.full_like(real, math.inf)), real)
        return torch.where(jumped.view(self.lead), self.rate(self.time(behind), x), first)

    def ratio(self, trial: Trial) -> Tensor:
        """The estimated error over what the tolerances allow, root mean square over a sample: [G]."""
        raise NotImplementedError

    def estimate(self, trial: Trial) -> Tensor:
        """`ratio` with its graph."""
        raise ArgumentError("regularize= knows the estimates of explicit pairs alone: take tsit5")

    def spectral(self, trial: Trial) -> Tensor:
        """h |lambda| of a step [G] as its last two stages tell it, where `two_at_end`, with its graph."""
        raise NotImplementedError

    def complete(self, trial: Trial) -> Tensor:
        """K with all that `dense` gives weights to."""
        return trial.K

    def between(self, x: Tensor, K: Tensor, theta: Tensor) -> Tensor:
        """The solution at theta [P] along steps from x [P, ...] with K [S, P, ...]."""
        weights = (theta[:, None] ** self.powers) @ self.dense.t()
        weights = weights.t().to(self.dtype).view(*K.shape[:2], *(1,) * (K.ndim - 2))
        return x + (weights * K).sum(0)

    def at(self, trial: Trial, sample: Tensor, theta: Tensor) -> Tensor:
        """The solution at theta [P] along the steps of samples [P], which may come several times."""
        return self.between(trial.x[sample], self.complete(trial)[:, sample], theta)

    def along(self, trial: Trial, theta: Tensor) -> Tensor:
        """The solution at theta [B] of every sample."""
        return self.between(trial.x, self.complete(trial), theta)

    def stiffness(self, trial: Trial) -> Tensor:
        """h |lambda| of a step [G] where the method can tell, else 0."""
        return 0 * trial.h

    def accepted(self, trial: Trial, ok: Tensor, h: Tensor) -> Tensor:
        """After every trial: ok [G] who keeps it. The next step, given the one that the controller wants."""
        return h

    def forget(self, who: Tensor) -> None:
        """f jumps where samples who [G] stand: what is remembered of before says nothing of what comes."""

    def spread(self, v: Tensor) -> Tensor:
        """[G] beside the state: [G, 1, ...]."""
        v = v if self.dtype is v.dtype else v.to(self.dtype)
        return v if v.numel() == 1 else v.view(self.lead)

    def times(self, s: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """What f is told at s + c h: [B] in the state's precision, or a scalar where the step is shared."""
        at = torch.addcmul(s, c, h)
        if self.real is not at.dtype:  # asking costs less than a conversion that does nothing
            at = at.to(self.real)
        if self.limit is not None:
            at = torch.minimum(at, self.limit)
        if self.sign < 0:
            at = -at
        return (at[:, 0] if self.shared else at).unbind()

    def time(self, s: Tensor) -> Tensor:
        """As f gets it."""
        t = (self.sign * s).to(self.real)
        return t[0] if self.shared else t

    def allowed(self, *xs: Tensor) -> Tensor:
        """What the tolerances allow at the larger of states: of each element, or of a sample [B, 1, ...]."""
        sizes = [self._sized(x) for x in xs]
        return torch.addcmul(self.atol, self.rtol, sizes[0] if len(xs) == 1 else torch.maximum(*sizes))

    def _sized(self, x: Tensor) -> Tensor:
        if self.whole is None:
            return x.abs()
        return self.whole(x).to(self.real).view(-1, *(1,) * (x.ndim - 1))

    def _norm(self, v: Tensor) -> Tensor:
        """The norm of an error over its tolerance [G]: the user's, or `root` times the root mean square."""
        if self.whole is not None:
            each = self.whole(v).to(torch.float64)
            return self.root * (each if self.groups > 1 else each.square().mean().sqrt()[None])
        if self.norm is None:
            return self.norms(v)
        out = torch.as_tensor(self.norm(v), dtype=torch.float64, device=v.device)
        if out.numel() != self.groups:
            raise ArgumentError(f"norm returned {tuple(out.shape)}: return one number of each step")
        return out.view(self.groups)

    def size(self, x: Tensor, f: Tensor) -> Tensor:
        """Root mean square of f over what the tolerances allow at x: [G]."""
        return self._norm(f / self.allowed(x)) / self.root

    def norms(self, x: Tensor) -> Tensor:
        """Euclidean norms [G]."""
        x = x if self.flat else x.reshape(1 if self.shared else len(x), -1)
        out = torch.linalg.vector_norm(x, dim=1)
        return out if out.dtype is torch.float64 else out.to(torch.float64)


class Explicit(Stepper):
    """An embedded Runge-Kutta pair: weights as tensors beside the state, and memory that all steps share."""

    repeatable = True
    controller: Controller = PI()  # a sixteenth fewer evaluations than I (benchmarks/controllers.py)

    def __init__(self, pair: Pair, rate: Rate, x0: Tensor, sign: float, *bound: Any) -> None:
        super().__init__(rate, x0, sign, *bound)
        self.pair = pair
        self.sized: tuple[Tensor, Tensor] | None = None  # a state and what `_sized` said of it
        rows = (*pair.a[1:], *pair.extra_a)
        numbers = sign * x0.new_tensor([weight for row in rows for weight in row])
        self.rows = list(numbers.split([len(row) for row in rows]))
        self.judges = [x0.new_tensor(row)[None] / self.root for row in pair.error]
        self.most, self.between_costs = pair.evaluations - 1, len(pair.extra_c)
        self.order, self.shrinks, self.degree = pair.order, pair.shrinks, len(pair.dense[0])
        self.two_at_end = pair.c[-2] == 1.0
        clock: dict[str, Any] = {"dtype": torch.float64, "device": x0.device}
        self.c = torch.tensor(pair.c[1:], **clock)[:, None]
        self.extra_c = torch.tensor(pair.extra_c, **clock)[:, None]
        self.polynomials(sign * torch.tensor(pair.dense, **clock))

    def prepare(self, x: Tensor, first: Tensor) -> None:
        super().prepare(x, first)
        self.K: Tensor | None = None

    def _sized(self, x: Tensor) -> Tensor:
        """As of the last x that it was asked of: where a step ends, the next begins."""
        if self.graph:
            return super()._sized(x)
        if self.sized is None or self.sized[0] is not x:
            self.sized = x, super()._sized(x)
        return self.sized[1]

    def _remember(self, x: Tensor) -> Tensor:
        """Memory for the evaluations, where there is nothing to backpropagate to, which shares none."""
        self.K = x.new_empty(self.pair.evaluations, *x.shape)
        self.slots, flat = self.K.unbind(), self.K.view(self.pair.evaluations, -1)
        self.known = [flat[: len(row)] for row in self.rows[: self.most]]
        self.wide = [row[None] for row in self.rows]
        self.seen = [flat[: row.shape[1]] for row in self.judges]
        return self.K

    def trial(self, s: Tensor, h: Tensor, x: Tensor, first: Tensor) -> Trial:
        times, by = self.times(s, h, self.c), self.spread(h)
        if self.graph:
            ks, at, f = [by * first], x, first
            for row, t in zip(self.rows, times, strict=False):
                at = x + self._mix(row, ks)
                f = self.rate(t, at)
                ks.append(by * f)
            return Trial(s, h, x, at, f, torch.stack(ks), self.most)
        K = self._remember(x) if self.K is None else self.K
        if not self.row and self.groups > 1:
            by = by.expand(self.shape).contiguous()  # products that broadcast cost three times as much
        flat, at, f = x if self.row else x.view(1, -1), x, first
        torch.mul(by, first, out=self.slots[0])
        for t, known, row, slot in zip(times, self.known, self.wide, self.slots[1:], strict=False):
            at = torch.addmm(flat, row, known)
            if not self.row:
                at = at.view(self.shape)
            f = self.rate(t, at)
            torch.mul(by, f, out=slot)
        return Trial(s, h, x, at, f.clone(), K, self.most)

    def _mix(self, row: Tensor, ks: list[Tensor]) -> Tensor:
        return (row @ torch.stack(ks[: len(row)]).view(len(row), -1)).view(self.shape)

    def ratio(self, trial: Trial) -> Tensor:
        if not self.graph:  # nor has the loop one
            return self.estimate(trial)
        with torch.no_grad():
            return self.estimate(trial)

    def estimate(self, trial: Trial) -> Tensor:
        flat = trial.K.view(len(trial.K), -1) if self.graph else None
        seen = self.seen if flat is None else [flat[: row.shape[1]] for row in self.judges]
        scale = self.allowed(trial.x, trial.x1)
        e, *other = [
            self._norm((torch.mm(row, k) if self.row else torch.mm(row, k).view(self.shape)).div_(scale))
            for k, row in zip(seen, self.judges, strict=True)
        ]
        # e^2/sqrt(e^2 + g^2/100); of 0 and 0 it is 0, and NaN stays NaN.
        return e * (e / torch.hypot(e, 0.1 * other[0]).clamp_min(1e-300)) if other else e

    @torch.no_grad()
    def stiffness(self, trial: Trial) -> Tensor:
        return self.spectral(trial) if self.two_at_end else 0 * trial.h

    def spectral(self, trial: Trial) -> Tensor:
        """As Hairer and Wanner estimate it."""
        last, before = self.rows[self.most - 1].clone(), self.rows[self.most - 2]
        last[: len(before)] -= before
        K = trial.K.view(len(trial.K), -1)
        apart = self.norms(torch.mv(K[: len(last)].t(), last).view(self.shape))
        return self.norms(trial.K[-1] - trial.K[-2]) / torch.where(apart > 0, apart, 1.0)

    def complete(self, trial: Trial) -> Tensor:
        """K with what the interpolant needs besides: with its graph, even if it is first read without one."""
        if trial.full is None:
            with torch.set_grad_enabled(self.graph):
                trial.full = self._completed(trial)
        return trial.full

    def _completed(self, trial: Trial) -> Tensor:
        if not self.extra_c.numel():
            return trial.K
        ks, by = list(trial.K), self.spread(trial.h)
        for t, row in zip(self.times(trial.s, trial.h, self.extra_c), self.rows[len(ks) - 1 :], strict=True):
            ks.append(by * self.rate(t, trial.x + self._mix(row, ks)))
        return torch.stack(ks)
