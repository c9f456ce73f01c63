"""Diffusion bridges: from x_T, which is not noise but another sample, to the x_0 that belongs to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..core import Stage, Step
from ..errors import ArgumentError, finite, whole
from ..frame import DATA
from ..grid import Grid
from ..plan import Plan
from ..process import Process
from ..sampling import plan_sampling


@dataclass(frozen=True)
class Bridge(Process):
    """x_t = a_t x_T + b_t x_0 + c_t eps: a process tied to x_T at t = t_pin.

    With r = SNR_T/SNR_t of `base`, conditioning it on x_T as well as on x_0 gives (Zhou et al. 2024)

        a = r alpha_t/alpha_T,     b = alpha_t (1 - r),     c^2 = sigma_t^2 (1 - r).

    The base with alpha = 1, sigma^2 = t makes the Brownian bridge; VP makes the VP bridge. About the moving
    mean a x_T a bridge is the process (b, c), which is what alpha_sigma gives.

    t_pin: where x is x_T, default the base's t_max.  t_max < t_pin: where the first step, of booting noise,
    leads to; default 0.999 t_pin. What a sample forgets there of Cov(x_0 | x_T) is b^2 of it.

    Raises:
        ArgumentError: times out of order, or a base with alpha = 0 at t_pin, which x_T could not reach.
    """

    base: Process
    t_pin: float = None  # type: ignore[assignment]
    t_max: float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        pin = self.base.t_max if self.t_pin is None else finite("t_pin", self.t_pin)
        object.__setattr__(self, "t_pin", pin)
        object.__setattr__(self, "t_max", 0.999 * pin if self.t_max is None else finite("t_max", self.t_max))
        if not self.base.t_min < self.t_max < pin <= self.base.t_max or self.base.alpha(pin) == 0:
            raise ArgumentError(
                f"t_max = {self.t_max} and t_pin = {pin}: they must follow {self.base.t_min} < t_max < t_pin "
                f"<= {self.base.t_max}, with alpha > 0 at t_pin"
            )

    @property
    def t_min(self) -> float:
        return self.base.t_min

    @property
    def t_end(self) -> float:
        return self.base.t_end

    def _pinned(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r and the base's pair; r is 1 at t_pin and 0 at clean data."""
        alpha, sigma = self.base.alpha_sigma(t)
        return (math.exp(self.base.lambda_(self.t_pin)) * sigma / alpha) ** 2, alpha, sigma

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r, alpha, sigma = self._pinned(t)
        left = (1 - r).clamp(min=0)
        return alpha * left, sigma * left.sqrt()

    def lambda_(self, t: float) -> float:
        return -math.inf if t >= self.t_pin else super().lambda_(t)

    def pull(self, t: float) -> float:
        """a_t, the share of x_T."""
        return math.exp(2 * (self.base.lambda_(self.t_pin) - self.base.lambda_(t))) * (
            self.base.alpha(t) / self.base.alpha(self.t_pin)
        )

    def describe(self) -> dict[str, Any]:
        times = {"t_pin": self.t_pin, "t_max": self.t_max}
        return {"process": "Bridge", "base": self.base.describe(), **times}


def plan_bridge(
    bridge: Bridge, method: str = "exp_adams_2", nfe: int = 20, grid: Grid | None = None, **options: Any
) -> Plan:
    """The weights of a method on a bridge; run it with sample(model, x_init=x_T, plan=plan).

    y = x - a x_T obeys what a process (b, c) obeys, du/dlambda = -u + x0_hat with u = y/b and lambda =
    log(b/c): so a bridge step is any data-predicting method's, each row made whole by the weight
    a_k - sum_i x_ki a_i of x_T, which is kept as the oldest state. The first step has nothing but x_T to go
    from, x = a x_T + b x0_hat(x_T) + c xi: the booting noise, after which DBIM is deterministic. DBIM of
    order 1 is `ddim` with its eta, of orders 2 and 3 `exp_adams_2` and `exp_adams_3` (Zheng et al. 2025).

    nfe: evaluations, the booting one included.  grid, options: see `plan_sampling`.

    Raises:
        ArgumentError: fewer than two evaluations, or a method that asks for another prediction.
    """
    nfe = whole("nfe", nfe, 2, "a bridge boots with one evaluation and needs one more")
    plan = plan_sampling(bridge, method, None if isinstance(grid, Sequence) and not isinstance(grid, str)
                         else nfe - 1, grid, **options)  # fmt: skip
    if any(stage.at is not None and stage.field != DATA for step in plan.steps for stage in step.stages):
        raise ArgumentError(
            f"{method} does not ask for the data, which is all that a bridge's network tells: take ddim, "
            "exp_adams_2 or exp_adams_3, or give prediction='data'"
        )
    first = plan.times[0]
    b, c = bridge.pair(first)
    # Half of what Brownian time e^(2 lambda) there is up to the first step: no later one touches it.
    mark = math.exp(2 * bridge.lambda_(first))
    boot = Step(
        (Stage((1.0,), at=bridge.t_pin, field=DATA), Stage((bridge.pull(first),), (b,), (c,))),
        keep_x=(0, -1),
        brownian=(mark / 2, mark),
    )
    steps, shares = [boot], [bridge.pull(first)]
    for step, t in zip(plan.steps, plan.times[1:], strict=True):
        whole_step, shares = _about(bridge, step, shares, t)
        steps.append(whole_step)
    return Plan((bridge.t_pin, *plan.times), tuple(steps), bridge.describe(), method, plan.options)


def _about(bridge: Bridge, step: Step, shares: list[float], t: float) -> tuple[Step, list[float]]:
    """A step of y as one of x, and the share a of x_T in each state it keeps.

    A state that is not evaluated may be any sum; it gets the share of the step's end, and later rows take
    the same out again.
    """
    shares, rows = list(shares), []
    for stage in step.stages:
        share = bridge.pull(t if stage.at is None else stage.at)
        taken = sum(float(w) * a for w, a in zip(stage.x, shares, strict=False))
        rows.append(replace(stage, x=(share - taken, *stage.x)))
        shares.append(share)
    known = len(shares)
    kept = [i % known for i in step.keep_x]
    return replace(step, stages=tuple(rows), keep_x=(0, *(i + 1 for i in kept))), [shares[i] for i in kept]
