"""Chains that sample a density known up to a constant: underdamped Langevin, Hamiltonian Monte Carlo."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..core import advance
from ..errors import ArgumentError, SolveError, failed, positive, unknown, whole
from ..noise import Noise, seed_of
from ..solution import Stats
from .splitting import LANGEVIN, NEWTON, RANDOM, Word, midpoint, noises, write

LogDensity = Callable[[Tensor], Tensor]
BLOCK = 32  # steps whose noise is drawn at once


@dataclass(frozen=True)
class Chain:
    """x [S, B, *shape]: the states that were kept.

    acceptance [B]: the share of proposals taken, of a chain that proposes.  stats.nfe: gradients of the log
    density in each chain.
    """

    x: Tensor
    acceptance: Tensor | None = None
    stats: Stats = field(default_factory=Stats)


class _Score:
    """grad log pi as a field; keeps the newest log pi [B] beside it."""

    def __init__(self, log_density: LogDensity) -> None:
        self.log_density, self.calls = log_density, 0

    def __call__(self, t: float, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            try:
                value = self.log_density(x)
                if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
                    what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise SolveError(f"it returned {what} for x of {tuple(x.shape)}: return [B]")
                (score,) = torch.autograd.grad(value.sum(), x)
            except Exception as error:
                raise failed(f"log_density, evaluation {self.calls}", error) from error
        self.value = value.detach()
        return score


class _Draws:
    """Randomness of each step of each chain, a block of steps at a time."""

    def __init__(self, seed: int | torch.Generator, x0: Tensor, parts: int) -> None:
        number, samples = seed_of(seed), range(len(x0))
        self.x0, self.shape = x0, x0.shape[1:]
        self.normals = Noise(number, samples, (BLOCK, max(parts, 1), *self.shape))
        self.uniforms = Noise(number, samples, (BLOCK,))
        self.first = Noise(number, samples, self.shape).prior().to(x0)
        self.block, self.z, self.u = -1, x0, x0

    def __call__(self, step: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Unit normals, each [B, *shape], and uniforms [B] in float64."""
        block, place = divmod(step, BLOCK)
        if block != self.block:
            self.block, self.z, self.u = block, self.normals.step(block), self.uniforms.uniform(block)
        return self.z[:, place].to(self.x0).unbind(1), self.u[:, place]


def langevin(
    log_density: LogDensity,
    x0: Tensor,
    *,
    dt: float,
    steps: int,
    method: str = "baoab",
    friction: float = 1.0,
    every: int = 1,
    v0: Tensor | None = None,
    seed: int | torch.Generator = 0,
) -> Chain:
    """Underdamped Langevin dynamics, dx = v dt, dv = (grad log pi(x) - gamma v) dt + sqrt(2 gamma) dW.

    In the limit of small dt its x is distributed as pi; nothing is refused, so there is a bias in dt.

    - "baoab" (Leimkuhler and Matthews 2013): one gradient a step; the variance of x is exact on Gaussians
      for every stable dt. Weak order 2, strong order 1.
    - "ubu" (Zapatero 2017; Sanz-Serna and Zygalakis 2021): one gradient; strong order 2.
    - "randomized_midpoint" (Shen and Lee 2019): two gradients, the second at a random time of each chain in
      the step; strong order 1.5 without a second derivative of the score.

    Args:
        log_density: x [B, *shape] -> [B], up to a constant; differentiated by torch.
        x0: starts [B, *shape], a chain each.  v0: velocities; default unit normal, as they are in the end.
        dt, steps: of each chain.  friction: gamma > 0.  every: keep each so-many-th state.
        seed: chain i is the same whatever B.

    Raises:
        ArgumentError: a bad argument.  SolveError: log_density fails, or a chain is not finite.
    """
    began = time.perf_counter()
    _check(x0, dt, steps, every)
    gamma = positive("friction", friction)
    if method != RANDOM and method not in LANGEVIN:
        raise unknown("Langevin method", method, (*LANGEVIN, RANDOM))
    if v0 is not None and v0.shape != x0.shape:
        raise ArgumentError(f"v0 of {tuple(v0.shape)} is not as x0, {tuple(x0.shape)}")
    word: Word = midpoint(0.5) if method == RANDOM else LANGEVIN[method]
    draws, score, kept = _Draws(seed, x0, noises(word)), _Score(log_density), list[Tensor]()
    step = write(word, dt, gamma)
    with torch.no_grad():
        xs = [x0, draws.first if v0 is None else v0]
        fs = [score(0.0, x0)] if step.keep_f else []
        for n in range(steps):
            z, u = draws(n)
            if method == RANDOM:
                step = write(midpoint(u.numpy()), dt, gamma, x0)
            xs, fs = advance((score,), step, xs, fs, z)
            if (n + 1) % every == 0:
                kept.append(xs[0])
    x = torch.stack(kept)
    finite = x.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        first = (int((~finite).nonzero()[0]) + 1) * every
        raise SolveError(
            f"method {method}: NaN or infinity by step {first} of {steps}; take a smaller dt = {dt}"
        )
    stats = Stats(score.calls, score.calls, steps, time.perf_counter() - began, score.calls)
    return Chain(x, None, stats)


def hmc(
    log_density: LogDensity,
    x0: Tensor,
    *,
    dt: float,
    leaps: int,
    steps: int,
    method: str = "leapfrog",
    every: int = 1,
    seed: int | torch.Generator = 0,
) -> Chain:
    """Hamiltonian Monte Carlo: Newton's equations from fresh velocities (Duane et al. 1987).

    A proposal is `leaps` steps of a symmetric splitting, which is its own inverse once v is turned round and
    keeps volumes, so accepting with min(1, e^(-change of energy)) keeps pi exactly, whatever dt. A proposal
    that is not finite is refused. Methods, by gradients a step: "leapfrog" (1, order 2), "yoshida_4" (3,
    order 4), "three_stage" (3, order 2 with a small error; Blanes, Casas and Sanz-Serna 2014).

    Args:
        log_density, x0, every, seed: as of `langevin`.  steps: proposals.  leaps: steps of dt in each.

    Raises:
        ArgumentError: a bad argument.  SolveError: log_density fails, or is not finite at the start.
    """
    began = time.perf_counter()
    _check(x0, dt, steps, every)
    whole("leaps", leaps, 1)
    if method not in NEWTON:
        raise unknown("splitting", method, NEWTON)
    step, draws, score = write(NEWTON[method], dt), _Draws(seed, x0, 1), _Score(log_density)
    kept, taken = list[Tensor](), torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    with torch.no_grad():
        x, force = x0, score(0.0, x0)
        height = score.value
        if not bool(height.isfinite().all() & force.isfinite().all()):
            raise SolveError("log_density or its gradient is not finite at the start; choose another x0")
        for n in range(steps):
            (v, *_), u = draws(n)
            xs, fs = [x, v], [force]
            for _ in range(leaps):
                xs, fs = advance((score,), step, xs, fs)
            gain = score.value - height - (_energy(xs[1]) - _energy(v))
            accept = u.log().to(gain) < gain  # False where the gain is NaN
            wide = accept.view(-1, *(1,) * (x.ndim - 1))
            x, force = torch.where(wide, xs[0], x), torch.where(wide, fs[0], force)
            height, taken = torch.where(accept, score.value, height), taken + accept
            if (n + 1) % every == 0:
                kept.append(x)
    stats = Stats(score.calls, score.calls, steps, time.perf_counter() - began, score.calls)
    return Chain(torch.stack(kept), taken / steps, stats)


def _energy(v: Tensor) -> Tensor:
    return v.flatten(1).square().sum(1) / 2


def _check(x0: Tensor, dt: float, steps: int, every: int) -> None:
    if not isinstance(x0, Tensor) or not x0.is_floating_point() or x0.ndim < 2:
        raise ArgumentError("x0 must be a tensor of real numbers, [B, ...] with B chains")
    positive("dt", dt)
    whole("every", every, 1)
    whole("steps", steps, every, f"it must be at least every = {every}")
