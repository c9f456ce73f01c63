"""How large the next step is: controllers, and the size of the first step.

A controller sees the error ratio of each sample, the estimated error over what the tolerance allows, and says
by which factor the step changes and whether this one is kept. Anything with the two methods of `Controller`
is one; all is tensors, so that several steps may go into one graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard

import torch
from torch import Tensor

from .errors import ArgumentError

if TYPE_CHECKING:
    from .environments import Network
    from .error_policy import ErrorPolicy
    from .nbody import Policy

History = tuple[Tensor, ...]
LEAST_LOG = math.log(1e-4)  # of a ratio: one below says nothing of the next


class Controller(Protocol):
    """start(ones) gives the history of a run of as many samples.

    control(ratio, history, power) gives factor, accept and the next history, all [B] as ratio is. The
    estimate falls with h^power, a number or one of each sample. A ratio of NaN or infinity is a step that
    failed: it must not be accepted, and its factor must be below 1.
    """

    def start(self, ones: Tensor) -> History: ...

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]: ...


class Telling(Controller, Protocol):
    """A controller that tells each next step from where the last one ended: factors are for refused steps.

    next_step(x, sign) gives [B] of states x, also of the first; sign is -1 where t falls. A sample whose
    step is not above 0 ends there ("step_underflow").
    """

    def next_step(self, x: Tensor, sign: float) -> Tensor: ...


def tells(controller: Any) -> TypeGuard[Telling]:
    """Whether it tells steps. (To ask isinstance of a protocol takes as long as ten operations of torch.)"""
    return hasattr(controller, "next_step")


def load(path: str | Path) -> Policy | ErrorPolicy | Network:
    """A policy that was saved: `ls.solve(..., controller=ls.control.load("three_stars"))`.

    Those that come with the library: "three_stars", for bodies that attract each other (`nbody.Policy`), and
    "oscillators", for any problem (`error_policy.ErrorPolicy`). A `Network` decides on a parameter in its
    task: `task.play(ls.control.load(path), x0)`.

    Raises:
        ArgumentError: no such file, not a policy, or one that observes something else.
    """
    from . import error_policy as errors  # few runs want them
    from .environments import networks
    from .nbody import rules
    from .policy_file import NETWORK, read

    path, tensors, told = read(path)
    seen = told.get("observation")
    try:
        if told["format"] == NETWORK:
            return networks.Network.read(tensors, told)
        if seen == list(rules.OBSERVATION):
            return rules.Policy(tensors["numbers"], told["pace"], told["about"])
        if seen == list(errors.OBSERVATION):
            return errors.ErrorPolicy(tensors["numbers"], told["about"])
    except (KeyError, ValueError, TypeError) as error:
        raise ArgumentError(f"{path} is not a policy: {type(error).__name__}: {error}") from error
    raise ArgumentError(
        f"{path} is a policy for another observation, {seen}; here it is {list(rules.OBSERVATION)} "
        f"of bodies, or {list(errors.OBSERVATION)}: train it again"
    )


def bound(controller: Any, problem: Any) -> Any:
    """The controller of a problem's runs: a policy is asked for it."""
    return controller.of(problem) if hasattr(controller, "of") else controller


def _log(v: float | Tensor) -> float | Tensor:
    return v.log() if isinstance(v, Tensor) else math.log(v) if v > 0 else -math.inf


def _less(a: float | Tensor, b: Tensor, by: float | Tensor) -> Tensor:
    """a - by b, one operation where `by` is a number."""
    return a - by * b if isinstance(by, Tensor) else torch.rsub(b, a, alpha=by)


@dataclass(frozen=True)
class _Filter:
    """h' = h safety r_n^(-beta_1/k) r_(n-1)^(-beta_2/k) r_(n-2)^(-beta_3/k), bounded (Soderlind 2003)."""

    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    betas: ClassVar[tuple[float, ...]] = (1.0,)

    def __post_init__(self) -> None:
        if not 0 < self.safety <= 1 or not 0 < self.min_factor < 1 < self.max_factor:
            raise ArgumentError(f"{self}: it takes safety in (0, 1] and min_factor < 1 < max_factor")

    def start(self, ones: Tensor) -> History:
        return (ones - 1,) * (len(self.betas) - 1)

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        """history: log r of the steps before: one power is taken of all, since powers are dear."""
        accept, log, safety = ratio <= 1.0, ratio.log(), _log(self.safety)
        first, *rest = self.betas
        change = _less(safety, log, first / power)
        for beta, before in zip(rest, history, strict=True):
            change = _less(change, before, beta / power)
        if history:  # what came before may not make a step that failed longer
            change = torch.where(accept, change, _less(safety, log, 1 / power))
        factor = change.exp_().nan_to_num_(0.0).clamp_(self.min_factor, self.max_factor)
        if history:
            latest = log.clamp_min(LEAST_LOG), *history[:-1]
            history = tuple([torch.where(accept, *pair) for pair in zip(latest, history, strict=True)])
        return factor, accept, history


@dataclass(frozen=True)
class I(_Filter):  # noqa: E742 (the field's name for it)
    """The elementary controller: what the last error alone says."""


@dataclass(frozen=True)
class PI(_Filter):
    """Proportional and integral: the error's trend damps the steps where stability limits them.

    beta = (0.85, -0.2), as in DOPRI5 (Hairer, Norsett and Wanner 1993; Gustafsson 1991).
    """

    betas: ClassVar[tuple[float, ...]] = (0.85, -0.2)


@dataclass(frozen=True)
class PID(_Filter):
    """With a derivative: beta = (0.58, -0.21, 0.1), after Kennedy and Carpenter 2003, as ARKODE has it."""

    betas: ClassVar[tuple[float, ...]] = (0.58, -0.21, 0.1)


@dataclass(frozen=True)
class Predictive(_Filter):
    """Gustafsson's, for implicit methods: the error is expected to go on growing or falling as it did.

    h' = h safety r_n^(-1/k) min(1, (h_n/h_(n-1)) (r_(n-1)/r_n)^(1/k)), as in RADAU5 (Hairer and Wanner 1996,
    IV.8). A step that would grow by less than `keep` stays as it is, and with it what is factored.
    """

    max_factor: float = 8.0
    keep: float = 1.2

    def start(self, ones: Tensor) -> History:
        return (ones * torch.inf,)

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        """history: h_n/h_(n-1) r_(n-1)^(1/k), infinite before the first step that was kept."""
        accept = ratio <= 1.0
        plain, trend = ratio.pow(-1 / power), history[0]
        floored = plain.clamp(max=100 ** (1 / power))  # an error below 0.01 says nothing of the next
        factor = torch.where(accept, plain * (trend * floored).clamp(max=1.0), plain).mul_(self.safety)
        factor = factor.nan_to_num_(0.0).clamp_(self.min_factor, self.max_factor)
        stays = accept & (factor >= 1.0) & (factor <= self.keep)
        factor = factor.masked_fill_(stays, 1.0)
        # After an error that was refused it is the step to come over the last one kept that counts.
        return factor, accept, (factor * torch.where(accept, 1 / floored, trend),)


@dataclass(frozen=True)
class Hindsight:
    """For methods whose estimate is of the step they should have taken: h' = h r^(-1/k), with no safety.

    A step is kept unless that is shorter than `least` of it, and grows by 1/least at most (Everhart 1985).
    """

    least: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.least < 1:
            raise ArgumentError(f"least = {self.least}: it is between 0 and 1")

    def start(self, ones: Tensor) -> History:
        return ()

    def control(
        self, ratio: Tensor, history: History, power: float | Tensor
    ) -> tuple[Tensor, Tensor, History]:
        factor = ratio.pow(-1 / power).clamp(1e-3, 1 / self.least)
        return factor.nan_to_num(0.1), factor >= self.least, history


def first_step(
    ahead: Callable[[Tensor], Tensor],
    size: Callable[[Tensor], Tensor],
    x: Tensor,
    f: Tensor,
    order: int,
    span: Tensor,
) -> Tensor:
    """The first step of each sample: Hairer, Norsett and Wanner 1993, II.4. One evaluation.

    ahead(h) is f at x + h f; size is the norm of a state, weighted by the tolerances; span: the
    longest step there may be.
    """
    d0, d1 = size(x), size(f)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    h0 = torch.fmin(h0, span)
    d2 = size(ahead(h0) - f) / h0
    most = torch.fmax(d1, d2)
    h1 = torch.where(most <= 1e-15, (h0 * 1e-3).clamp_min(1e-6), (0.01 / most).pow(1 / (order + 1)))
    return torch.fmin(torch.fmin(100 * h0, h1), span)
