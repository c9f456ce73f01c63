"""Masked (absorbing) discrete diffusion: tokens behind a mask, shown one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError, finite, whole
from ..noise import Noise, seed_of
from ..solution import Stats

Network = Callable[[Tensor, Tensor], Tensor]
Schedule = Callable[[Tensor], Tensor]
F64 = torch.float64


def linear(t: Tensor) -> Tensor:
    """alpha(t) = 1 - t, the share of tokens that are shown at t."""
    return 1 - t


@dataclass(frozen=True)
class Remasking:
    """How likely a shown token is to be masked again in a step from t to s (ReMDM, Wang et al. 2025).

    sigma = min(cap, rescale * sigma_max). A share alpha_s of tokens is shown at s if a masked one is shown
    with probability (alpha_s - (1 - sigma) alpha_t)/(1 - alpha_t), which is one for every sigma up to
    sigma_max = min(1, (1 - alpha_s)/alpha_t). So the law of x_t given clean data stays the same, and 0 is
    the ancestral sampler.

    cap, rescale: in [0, 1], the paper's eta_cap and eta_rescale; one of them is usually left at 1.
    confidence: a token is masked again with sigma times its own weight ~ e^-p, p its probability when it was
        drawn. The paper's weights have the sum 1; here their mean is 1, which keeps the share of shown
        tokens. Being below e, they allow sigma <= 1/e.
    loop: (alpha_on, t_on, t_off). Time 1 to t_on leads to alpha_on, until t_off alpha stays, and then goes
        on to 1. Tokens are masked again while it stays. The paper takes (0.9, 0.55, 0.05), cap 0.02.

    Raises:
        ArgumentError: a number outside its range.
    """

    cap: float = 1.0
    rescale: float = 1.0
    confidence: bool = False
    loop: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not (0 <= finite("cap", self.cap) <= 1 and 0 <= finite("rescale", self.rescale) <= 1):
            raise ArgumentError(f"cap = {self.cap} and rescale = {self.rescale}: both are in [0, 1]")
        if self.loop is not None:
            alpha_on, t_on, t_off = self.loop
            if not (0 < alpha_on < 1 and 0 < t_off < t_on < 1):
                raise ArgumentError(
                    f"loop = {self.loop}: it is (alpha_on, t_on, t_off) with 0 < alpha_on < 1 and "
                    "0 < t_off < t_on < 1, such as (0.9, 0.55, 0.05)"
                )

    def steps(self, nfe: int, alpha: Schedule) -> list[tuple[float, float, float, float]]:
        """(t, alpha_t, alpha_s, sigma) of each of nfe steps from t = 1, all masked, to 0, all shown.

        Raises:
            ArgumentError: fewer steps than a loop has parts.
        """
        times = self._times(nfe, alpha)
        shares = [0.0, *alpha(torch.tensor(times[1:-1], dtype=F64)).tolist(), 1.0]
        found = []
        for (t, s), (alpha_t, alpha_s) in zip(pairwise(times), pairwise(shares), strict=True):
            most = min(1.0, (1 - alpha_s) / alpha_t) if alpha_t > 0 else 1.0
            sigma = min(self.cap, self.rescale * most, math.exp(-1) if self.confidence else 1.0)
            found.append((t, alpha_t, alpha_s, sigma if self.loop is None or s == t else 0.0))
        return found

    def _times(self, nfe: int, alpha: Schedule) -> list[float]:
        """Uniform from 1 to 0; a loop repeats one of them."""
        if self.loop is None:
            return [1 - k / nfe for k in range(nfe)] + [0.0]
        alpha_on, t_on, t_off = self.loop
        before, after = round(nfe * (1 - t_on)), round(nfe * t_off)
        held = nfe - before - after
        if min(before, held, after) < 1:
            raise ArgumentError(f"nfe = {nfe}: too few for a step before, in and after the loop {self.loop}")
        stay = float(time_of(alpha, torch.tensor(alpha_on, dtype=F64)))
        down = [1 - (1 - stay) * k / before for k in range(before)]
        return down + [stay] * (held + 1) + [stay * (after - k) / after for k in range(1, after + 1)]


PLAIN = Remasking(cap=0.0)


def sample_first_hitting(
    net: Network,
    x_init: Tensor,
    nfe: int,
    *,
    mask: int,
    alpha: Schedule = linear,
    seed: int | torch.Generator = 0,
    first: int = 0,
    stats: Stats | None = None,
) -> Tensor:
    """Tokens [B, L] by the first-hitting sampler (Zheng et al. 2025): exact, one call for each masked token.

    The masked share of a sample falls from 1 to 0, and each of its n masked positions is shown when it falls
    below a uniform variable of the position's own. The largest of these is u^(1/n), the largest of the rest
    u^(1/(n - 1)) times that: the paper's tau_(n-1) = alpha^-1(1 - u^(1/n) (1 - alpha(tau_n))), and which
    position comes next is uniform. At its time the network is asked and the token drawn, so nothing is
    discretized. With nfe < n the calls are dealt out evenly: each draws the tokens of several hits at once,
    independently of each other, at the time of the first.

    net: net(x [B, L], t [B]) -> logits [B, L, V]. It need not look at t: then alpha does not matter.
    x_init: integers; `mask` where a token is wanted, and what is shown there already stays.
    mask: its number, which may be below V: it is never drawn.
    alpha: share of shown tokens at t in [0, 1], falling from 1 at t = 0.
    seed: of the draws of samples first .. first + B - 1, whatever the batch. They are in float64: in
        float32, Gumbel noise is cut off at about 17, which lowers the temperature (section 5 of the paper).
    stats: filled with what the call cost.

    Raises:
        ArgumentError: a bad argument, before anything is run.
        SolveError: the network returned another shape, or NaN.
    """
    nfe, started = _checked(x_init, nfe, mask, alpha), time.perf_counter()
    x, hidden, asked = x_init.clone(), x_init == mask, _Network(net, mask)
    noise = Noise(seed_of(seed), range(first, first + len(x)), (2, x.shape[1]))
    hit, u = noise.uniform().to(x.device).unbind(1)
    n = hidden.sum(1, keepdim=True)
    rank = hit.where(hidden, -1.0).argsort(1, descending=True).argsort(1)
    # With K calls for n tokens, call k shows those of rank floor(n k/K) up to floor(n (k + 1)/K).
    call = ((rank + 1) * n.clamp(max=nfe) - 1) // n.clamp(min=1)
    steps = min(nfe, int(n.max()))
    with torch.no_grad():
        for k in range(steps):
            due = hidden & (call == k)
            t = time_of(alpha, 1 - hit.where(due, 0.0).amax(1))
            x[due] = asked(x, t, due, u)[0].to(x.dtype)
    _note(stats, asked, steps, started)
    return x


def sample_masked(
    net: Network,
    x_init: Tensor,
    nfe: int,
    *,
    mask: int,
    alpha: Schedule = linear,
    remasking: Remasking = PLAIN,
    seed: int | torch.Generator = 0,
    first: int = 0,
    stats: Stats | None = None,
) -> Tensor:
    """Tokens [B, L] by the ancestral sampler in nfe steps, shown ones being masked again if asked for.

    In a step from t to s a masked token is shown with probability (alpha_s - alpha_t)/(1 - alpha_t), and all
    that are shown in one step are drawn independently: an error of order 1/nfe, where the first-hitting
    sampler has none. With `remasking` the loop can take back what it got wrong. Which tokens are to be shown
    does not depend on the network, so a step that shows none in any sample does not ask it: `stats.nfe`
    counts the calls that were made, which are nfe at most.

    The arguments, and what is raised, are those of `sample_first_hitting`. In a prompt nothing is masked
    again. References: Sahoo et al. 2024, Shi et al. 2024; Wang et al. 2025 for remasking.
    """
    nfe, started = _checked(x_init, nfe, mask, alpha), time.perf_counter()
    x, free, asked = x_init.clone(), x_init == mask, _Network(net, mask)
    noise = Noise(seed_of(seed), range(first, first + len(x)), (2, x.shape[1]))
    certainty = torch.zeros(x.shape, dtype=F64, device=x.device)
    with torch.no_grad():
        for k, (t, alpha_t, alpha_s, sigma) in enumerate(remasking.steps(nfe, alpha)):
            change, u = noise.uniform(k).to(x.device).unbind(1)
            shown = free & (x != mask)
            due = (x == mask) & (change < (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t))
            weight = _weight(certainty, shown) if remasking.confidence else 1.0
            again = shown & (change < sigma * weight)
            if due.any():
                times = torch.full((len(x),), t, device=x.device)
                token, certainty[due] = asked(x, times, due, u)
                x[due] = token.to(x.dtype)
            x[again] = mask
    _note(stats, asked, nfe, started)
    return x


def time_of(alpha: Schedule, share: Tensor) -> Tensor:
    """t in [0, 1] with alpha(t) = share, element by element; by bisection, which any schedule allows."""
    low, high = torch.zeros_like(share), torch.ones_like(share)
    for _ in range(60):
        middle = (low + high) / 2
        later = alpha(middle) > share
        low, high = middle.where(later, low), high.where(later, middle)
    return high


def categorical(logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """A token [M] of softmax(logits [M, V]) from uniform u [M], and its probability, in float64.

    The distribution function is inverted. Its last value is above u times itself, as u < 1; a token of
    probability 0 is never the first whose value is above.
    """
    p = logits.to(F64).softmax(-1)
    cdf = p.cumsum(-1)
    token = torch.searchsorted(cdf, (u * cdf[:, -1])[:, None], right=True)
    return token[:, 0], p.gather(1, token)[:, 0]


class _Network:
    """The network, asked for the tokens that are due, and how often it was."""

    def __init__(self, net: Network, mask: int):
        self.net, self.mask, self.calls = net, mask, 0

    def __call__(self, x: Tensor, t: Tensor, due: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        logits = self.net(x, t.to(torch.get_default_dtype()))
        if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != x.shape:
            what = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise SolveError(f"the network returned {what} for x {list(x.shape)}: it must return [B, L, V]")
        wanted = logits[due]
        if 0 <= self.mask < wanted.shape[1]:
            wanted[:, self.mask] = -math.inf
        if not wanted.amax(1).isfinite().all():
            raise SolveError(f"call {self.calls} of the network: NaN or infinity in its logits")
        return categorical(wanted, u[due])


def _weight(certainty: Tensor, shown: Tensor) -> Tensor:
    """e^-p of the shown tokens [B, L], over its mean."""
    doubt = (-certainty).exp() * shown
    return doubt * (shown.sum(1) / doubt.sum(1).clamp(min=1e-300))[:, None]


def _checked(x_init: Tensor, nfe: int, mask: int, alpha: Schedule) -> int:
    if not isinstance(x_init, Tensor) or x_init.dtype not in (torch.int32, torch.int64) or x_init.ndim != 2:
        raise ArgumentError("x_init must be whole numbers [B, L], such as torch.full((8, 64), mask)")
    if not (x_init == whole("mask", mask)).any():
        raise ArgumentError(f"mask = {mask} is nowhere in x_init: there is no token to sample")
    try:
        shares = alpha(torch.linspace(0, 1, 65, dtype=F64))
        good = bool((shares.diff() < 0).all() and 0.99 < shares[0] <= 1 and 0 <= shares[-1] < 0.01)
    except Exception as error:
        raise ArgumentError(f"alpha must take a tensor of times: {error}") from error
    if not good:
        raise ArgumentError("alpha must fall, from 1 at t = 0 to 0 at t = 1, such as lambda t: 1 - t")
    return whole("nfe", nfe, 1)


def _note(stats: Stats | None, asked: _Network, steps: int, started: float) -> None:
    if stats is not None:
        stats.nfe = stats.network_calls = asked.calls
        stats.steps, stats.seconds = steps, time.perf_counter() - started
