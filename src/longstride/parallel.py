"""A run as one fixed point, found in rounds that ask the network about many steps at once.

A run is x_(k+1) = update(x_k, F_k), F_k = drift(k, x_k): the drift is dear, the update cheap. Guess the x_k
of a window of steps; then a round is

    F_k = drift(k, x_k)                                      for the whole window, in one batch
    x'_(k+1) = update(x'_k, F_k + S_k (x'_k - x_k))          step by step, as the sequential run goes

The sequential run is its only fixed point, whatever the slopes S_k are. The first state of the window follows
from what is settled alone, so every round settles one step at least, and n steps end within n rounds. S_k = 0
is Picard's iteration; here S_k is the secant through the last rounds, step by step, which is Anderson's
acceleration kept in the order of the steps.

References: Shih et al. 2023, "Parallel Sampling of Diffusion Models" (the sliding window); Zhou et al. 2024,
"DreamPropeller" (any sequential update, with what it carries); Tang et al. 2024, "Accelerating Parallel
Sampling of Diffusion Models" (triangular Anderson acceleration).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .compiled import Matrices, matrices
from .denoiser import Denoiser
from .errors import ArgumentError, SolveError, finite, like, whole
from .frame import PREDICTIONS, conversion
from .guidance import Guidance
from .integrate import run
from .noise import Noise
from .plan import Plan
from .process import Process

RIDGE = 1e-6  # of a Gram matrix of secants, in units of its trace: keeps parallel ones apart
AHEAD, LEAST = 3, 4  # an adaptive window looks 3 times as far as the last round came, and 4 steps

Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
Update = Callable[[int, Any, Tensor], Any]


@dataclass(frozen=True)
class Parallel:
    """How a run is swept in parallel.

    Args:
        window: evaluations asked for in one batch, of each sample. 1 is the sequential run.
        tolerance: a step is settled when no sample's state moved more in a round: the root mean square over
            its elements, in units of sqrt(alpha^2 + sigma^2) at its time. The samples then differ from the
            sequential run's by about as much at the end. At 0 they differ by round-off.
        adaptive: let the window follow how far the last round came, `window` at most. Asks less where little
            can be settled at once.
        anderson: past rounds that the slopes S_k are taken from; 0 is Picard's iteration.
        group: of torch.distributed. Its processes call with the same arguments, share out each batch and
            return the same samples.

    Raises:
        ArgumentError: a value out of its range.
    """

    window: int
    tolerance: float = 1e-4
    adaptive: bool = False
    anderson: int = 2
    group: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", whole("window", self.window, 1, "a round asks for one at least"))
        object.__setattr__(self, "anderson", whole("anderson", self.anderson, 0))
        like("adaptive", self.adaptive, True)
        if finite("tolerance", self.tolerance) < 0:
            raise ArgumentError(f"tolerance = {self.tolerance}: it is 0 (round-off) or more")
        if self.group is not None and not isinstance(self.group, torch.distributed.ProcessGroup):
            raise ArgumentError(
                f"group = {self.group!r}: it is a process group that this process is in, such as "
                "torch.distributed.group.WORLD after init_process_group"
            )


@dataclass
class _Evaluation:
    """One of the window: its guessed state x, and (x, F) of the rounds before, oldest first."""

    x: Tensor
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def at(self, x: Tensor) -> Tensor:
        """F + S (x - x_last), with S the slope through the rounds seen: S dX = dF and S = 0 across them."""
        last, F = self.seen[-1]
        if len(self.seen) == 1:
            return F
        dX = torch.stack([(u - last).flatten(1) for u, _ in self.seen[:-1]], 1)
        dF = torch.stack([(v - F).flatten(1) for _, v in self.seen[:-1]], 1)
        gram = dX @ dX.mT
        ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1) + torch.finfo(gram.dtype).tiny
        gram = gram + torch.diag_embed(ridge[:, None].expand(-1, len(gram[0])))
        share = torch.linalg.solve_ex(gram, dX @ (x - last).flatten(1)[:, :, None]).result
        return F + (dF.mT @ share).reshape(F.shape)


def fixed_point(
    drift: Drift,
    update: Update,
    carry: Any,
    steps: int,
    how: Parallel,
    scales: Sequence[float] | None = None,
) -> tuple[Any, int, list[int]]:
    """What `for k in range(steps): carry = update(k, carry, drift(k, carry[0]))` ends with, in fewer rounds.

    Args:
        drift: drift(k [R], sample [R], x [R, ...]) -> [R, ...], row r for step k[r] of sample sample[r].
        update: (k, carry, F [B, ...]) -> the carry of step k + 1, leaving its arguments as they are. A carry
            is anything whose first entry is the state x [B, ...]: what else it holds (a multistep method's
            history, an optimizer's moments) is rebuilt along the window.
        scales: what the tolerance is in units of, step by step; 1 by default.

    Returns:
        (carry, rounds, how often each step was evaluated).

    The window begins at one step, with which nothing has to be guessed. Beyond what was evaluated the states
    are what the update gives when the newest F is held still; a window slides there, and one that shrinks
    forgets what it leaves, for a newer F is the better guess.

    Raises:
        ArgumentError: a window larger than the run.
    """
    if how.window > steps:
        raise ArgumentError(
            f"window = {how.window} is larger than the plan, which evaluates {steps} times: give "
            f"window={steps} or less"
        )
    first, rounds, asked = 0, 0, [0] * steps
    window = [_Evaluation(carry[0])]
    while first < steps:
        answers = _evaluated(drift, first, [point.x for point in window], how.group)
        rounds += 1
        carries, moves = [carry], []
        for k, (point, F) in enumerate(zip(window, answers, strict=True), first):
            asked[k] += 1
            point.seen = [*point.seen[max(0, len(point.seen) - how.anderson) :], (point.x, F)]
            x = carries[-1][0]
            moves.append((x - point.x).flatten(1).square().mean(1).sqrt().amax())
            F = F if k == first else point.at(x)
            point.x = x
            carries.append(update(k, carries[-1], F))
        settled = _settled(moves, how, None if scales is None else scales[first:])
        reach = min(how.window, AHEAD * settled + LEAST) if how.adaptive else how.window
        first, carry, ahead = first + settled, carries[settled], carries[-1]
        window = window[settled:][:reach]
        while len(window) < min(reach, steps - first):
            window.append(_Evaluation(ahead[0]))
            ahead = update(first + len(window) - 1, ahead, F)
    return carry, rounds, asked


def _settled(moves: list[Tensor], how: Parallel, scales: Sequence[float] | None) -> int:
    """Steps at the front of the window that moved no more than the tolerance; the first is always exact."""
    agreed = torch.stack(moves)
    if how.group is not None:  # processes of different kinds may round apart, and must not part ways
        torch.distributed.broadcast(agreed, torch.distributed.get_global_rank(how.group, 0), how.group)
    limits = [how.tolerance * scale for scale in scales or [1.0] * len(moves)]
    within = [move <= limit for move, limit in zip(agreed.tolist(), limits, strict=False)]  # NaN is not
    return next((k for k in range(1, len(moves)) if not within[k]), len(moves))


def _evaluated(drift: Drift, first: int, states: list[Tensor], group: Any) -> Sequence[Tensor]:
    """The drift at the states of steps first, first + 1, ...; the processes of a group share the rows."""
    size, x = len(states[0]), torch.cat(states)
    rows = torch.arange(len(x), device=x.device)
    k, sample = first + rows // size, rows % size
    if group is None:
        return drift(k, sample, x).split(size)
    world, rank = torch.distributed.get_world_size(group), torch.distributed.get_rank(group)
    share = -(-len(x) // world)
    mine = slice(rank * share, (rank + 1) * share)
    out = x.new_zeros(share, *x.shape[1:])  # all of one size, though the last share may be short
    if len(x[mine]):
        out[: len(x[mine])] = drift(k[mine], sample[mine], x[mine])
    parts = [torch.empty_like(out) for _ in range(world)]
    torch.distributed.all_gather(parts, out, group)
    return torch.cat(parts)[: len(x)].split(size)


def run_parallel(
    model: Denoiser,
    plan: Plan,
    x: Tensor,
    noise: Noise | None,
    cond: Mapping[str, Any],
    guidance: Guidance,
    how: Parallel,
) -> tuple[Tensor, tuple[int, int, int]]:
    """x at the end of the plan, and (evaluations of each sample, network calls of each sample, rounds).

    The carry is what the plan remembers from one evaluation to the next (`compiled.Matrices`), so a multistep
    history and a noise are swept along with the state. Noise is a function of the seed: all rounds see the
    same.

    Raises:
        ArgumentError: a window larger than the plan, or a model that must be asked in order.
        SolveError: NaN or infinity, or what the network raised, with the step where it appears.
    """
    m = matrices(plan)
    W, scales = _of_data(m, model.process)
    W = W.to(x)
    drawn = lru_cache(2 * how.window)(lambda n: m.drawn(n, noise, x))  # no sweep touches more

    def update(k: int, H: Tensor, F: Tensor) -> Tensor:
        return torch.tensordot(W[k], torch.cat([H, F[None], drawn(k + 1)]), 1)

    H = torch.tensordot(m.begin.to(x), torch.cat([x[None], drawn(0)]), 1)
    drift = _drift(model, m.at, x, cond, guidance)
    try:
        H, rounds, asked = fixed_point(drift, update, H, plan.nfe, how, scales)
        if torch.isfinite(H[0]).all():
            times = [t for t, n in zip(m.at, asked, strict=True) for _ in range(n)]
            return H[0], (len(times), model.network_calls(guidance, times), rounds)
    except ArgumentError:
        raise
    except Exception:
        run(model.fields(cond, guidance), plan, x, noise)  # says where, if the network is the reason
        raise
    run(model.fields(cond, guidance), plan, x, noise)
    raise SolveError(f"method {plan.method}: in parallel the result is not finite, but in order it is")


def _of_data(m: Matrices, process: Process) -> tuple[Tensor, list[float]]:
    """W with every F the data prediction, which stands still best, and the scale of x at each evaluation."""
    W, R, scales = m.W.clone(), m.W.shape[1], []
    for weights, t, k in zip(W, m.at, m.field, strict=True):
        alpha, sigma = process.pair(t)
        a, b = conversion("data", PREDICTIONS[k], alpha, sigma)
        weights[:, 0] += a * weights[:, R]
        weights[:, R] *= b
        scales.append((alpha**2 + sigma**2) ** 0.5)
    return W, scales


def _drift(
    model: Denoiser, at: Sequence[float], x: Tensor, cond: Mapping[str, Any], guidance: Guidance
) -> Drift:
    """The data prediction of evaluation k[r] for sample sample[r]; what is guided is asked apart."""
    model.conditioned(cond, guidance)  # refuses a model that must be asked in order
    weights = [guidance.at(model.process, t) for t in at]
    numbers = [
        (1.0 if w is None else w, *model.weights("data", t, guidance))
        for w, t in zip(weights, at, strict=True)
    ]
    table = torch.tensor(numbers, dtype=torch.float64).to(x)
    guided = torch.tensor([w is not None for w in weights], device=x.device)

    def drift(k: Tensor, sample: Tensor, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for on in (False, True):
            rows = (guided[k] == on).nonzero()[:, 0]
            if not len(rows):
                continue
            dealt = {
                name: value[sample[rows]] if isinstance(value, Tensor) and value.ndim else value
                for name, value in cond.items()
            }
            arguments = model.conditioned(dealt, guidance)(len(rows), x.device, on)
            out[rows] = model.predicted(x[rows], table[k[rows]], arguments, guidance, on)
        return out

    return drift
