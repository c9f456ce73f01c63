"""What a learned step controller can win at most, and what one wins on a neural ODE.

    python benchmarks/step_ceiling.py [PART ...]

Work and its levels are those of `learned_control.py`, beside whose controllers all is measured.

- network: a neural ODE, trained by flow matching to carry normal samples to two moons; every held-out
  sample is a case. Also a policy trained on it, by CMA-ES on other samples.
- ceiling: steps chosen with hindsight by dynamic programming, per trajectory, for tsit5; run, and
  judged by the errors at their ends. And a policy fitted to the ratios of those steps.
- grids: diffusion sampling at 40 evaluations, each sample on the best of a family of Karras's grids, or
  with a number of evaluations of its own that is 40 in the mean; chosen with hindsight, and by the errors
  that another method makes on the same sample, which knows where it is hard but not where this one is lucky.

Dynamic programming: the reference has M equal intervals of time, x_j at their ends and Phi(1, t_j) the
derivative of the end by x_j. A step from j over l intervals leaves the local error e_jl, known exactly. It
moves the end by Phi(1, t_(j+l)) e_jl. With w_jl its norm, the steps are those of the least sum of w_jl + mu,
V_j = min_l (w_jl + mu + V_(j+l)), for each mu: the least bound of the end's error at their number. "local"
takes |e_jl| instead, which is all that a controller may hope to see. Left out are steps whose own derivative
has a spectral radius above 1.01 and 1.01 times the flow's, for errors of steps before them would grow, and
such as err by more than 0.03, where derivatives say nothing. Neither oracle refuses a step. The optimum is
one of the bound, on a ladder of lengths, four an octave, without errors that cancel: a ceiling in practice,
not a proven one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import learned_control as known
import longstride as ls
from learned_control import F64, FOUND, LEVELS, RESULTS, relative, table
from longstride.error_policy import GAINS, ErrorPolicy, plain
from longstride.learn.step_training import Cases, Course, Rate, curve, train, van_der_pol, work
from longstride.methods.embedded import PAIRS
from longstride.metrics import squared_errors
from longstride.sampling import prior, reference

TOLERANCES = torch.logspace(-1.5, -5.5, 6, dtype=F64)
MARGINS = torch.logspace(-1.5, -8.0, 10, dtype=F64)  # mu
LINEAR = 0.03  # local errors that a derivative is trusted with
SEEN: dict[str, Any] = {}


@cache
def moons() -> nn.Module:
    """A velocity field v(t, x) by flow matching: |v - (x_1 - x_0)|^2 at x = (1 - t) x_0 + t x_1."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)).to(F64)
    steps = 4000
    walk = torch.optim.Adam(net.parameters(), 5e-3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(walk, steps)
    for _ in range(steps):
        n = 256
        angle, side = math.pi * torch.rand(n, dtype=F64), torch.randint(2, (n,)).to(F64)
        x1 = torch.stack([angle.cos() + side - 0.5, (1 - 2 * side) * angle.sin() + 0.5 * side - 0.25], 1)
        x1 = 1.5 * x1 + 0.05 * torch.randn(n, 2, dtype=F64)
        x0, t = torch.randn(n, 2, dtype=F64), torch.rand(n, 1, dtype=F64)
        off = net(torch.cat([(1 - t) * x0 + t * x1, t], 1)) - (x1 - x0)
        walk.zero_grad()
        off.square().mean().backward()
        walk.step()
        fall.step()
    return net.requires_grad_(False)


def network(n: int, seed: int) -> Cases:
    """Normal samples, each a case."""

    net = moons()

    def rate(t: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
        return net(torch.cat([x, (t + 0 * x[:, 0])[:, None]], 1))

    starts = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return Cases(rate, torch.zeros(n, 1, dtype=F64), starts, torch.ones_like(starts))


# Of each family its cases, and the intervals that steps of the oracle are made of.
FAMILIES: dict[str, tuple[Callable[[int, int], Cases], int]] = {
    "Van der Pol, mu 2 to 20": (known.oscillators(2.0, 20.0), 4096),
    "FitzHugh-Nagumo": (known.nerve, 2048),
    "Brusselator": (known.brusselator, 2048),
    "Kepler": (known.kepler, 4096),
    "Network": (network, 512),
}


def tsit5(rate: Rate, numbers: Tensor, t: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """A step from [B, D], and its estimate of the error."""
    pair, slopes = PAIRS["tsit5"], list[Tensor]()
    tableau = pair.tableau
    for c, row in zip((*tableau.c, 1.0), (*tableau.a, tableau.b), strict=True):
        at = x + h[:, None] * sum((w * k for w, k in zip(row, slopes, strict=True)), 0 * x)
        slopes.append(rate(t + c * h, at, numbers))
    (weights,) = pair.error
    return at, h[:, None] * sum(w * k for w, k in zip(weights, slopes, strict=True))


def derivative(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[B, D, D] of f, of [B, D]."""
    ways = torch.eye(x.shape[1], dtype=x.dtype)
    return torch.stack([torch.func.jvp(f, (x,), (way.expand_as(x).contiguous(),))[1] for way in ways], 2)


def radius(m: Tensor) -> Tensor:
    return torch.linalg.eigvals(m).abs().amax(-1)


def lengths(most: int) -> list[int]:
    return [1, 2, 3, *(m << k for k in range(20) for m in (4, 5, 6, 7) if m << k <= most)]


def effects(cases: Cases, nodes: int) -> tuple[list[int], Tensor, Tensor]:
    """Lengths [L], and of each step the norm of what it does to the end, and its local error: [M, L, n]."""
    n, d, m, h = len(cases), cases.starts.shape[1], nodes, 1 / nodes
    x, path = cases.starts, [cases.starts]
    half = torch.full((n,), h / 2, dtype=F64)
    for j in range(2 * m):
        x, _ = tsit5(cases.rate, cases.numbers, half * j, x, half)
        path += [x] * (j % 2)
    xs, ts = torch.stack(path), torch.arange(m + 1, dtype=F64)[:, None].expand(m + 1, n) * h

    def moved(length: int, parts: int) -> tuple[Tensor, Tensor]:
        """From every node that has room for it: ends [j, n, D] and derivatives, the step in so many parts."""
        begin, t, count = (
            xs[: m + 1 - length].reshape(-1, d),
            ts[: m + 1 - length].reshape(-1),
            m + 1 - length,
        )
        numbers, step = (
            cases.numbers.repeat(count, 1),
            torch.full((count * n,), length * h / parts, dtype=F64),
        )

        def f(x: Tensor) -> Tensor:
            for k in range(parts):
                x, _ = tsit5(cases.rate, numbers, t + k * step, x, step)
            return x

        return f(begin).view(count, n, d), derivative(f, begin).view(count, n, d, d)

    flow = [moved(1, 2)[1]]  # over 1, 2, 4, ... intervals
    while 2 << (len(flow) - 1) <= m:
        p, gap = flow[-1], 1 << (len(flow) - 1)
        flow.append(p[gap:] @ p[:-gap])
    to_end = [torch.eye(d, dtype=F64).expand(n, d, d)]
    for p in reversed(flow[0]):
        to_end.append(to_end[-1] @ p)
    onward = torch.stack(to_end[::-1])
    many = lengths(m)
    ends, local = (torch.full((m, len(many), n), math.inf, dtype=F64) for _ in range(2))
    for i, length in enumerate(many):
        made, own = moved(length, 1)
        count = m + 1 - length
        exact, gone = torch.eye(d, dtype=F64).expand(count, n, d, d), 0
        for k, p in enumerate(flow):
            if length >> k & 1:
                exact, gone = p[gone : gone + count] @ exact, gone + (1 << k)
        error = made - xs[length:]
        small = (error / cases.size).square().mean(-1).sqrt() <= LINEAR
        stable = radius(own) <= 1.01 * radius(exact).clamp_min(1.0)
        fit = (small & stable) | (length == 1)
        carried = (onward[length:] @ error[..., None])[..., 0]
        for kept, v in ((ends, carried), (local, error)):
            kept[:count, i] = torch.where(fit, (v / cases.size).square().mean(-1).sqrt(), math.inf)
    return many, ends, local


def planned(many: list[int], costs: Tensor) -> Tensor:
    """Steps [N, n, mu] of the least sum of costs [M, L, n] and mu for each step; zeros after the end."""
    m, _, n = costs.shape
    table = torch.full((m + 1 + max(many), n, len(MARGINS)), math.inf, dtype=F64)
    table[m] = 0
    choice, reach = torch.zeros(m, n, len(MARGINS), dtype=torch.long), torch.tensor(many)
    for j in reversed(range(m)):
        least, choice[j] = (costs[j, :, :, None] + table[j + reach]).min(0)
        table[j] = least + MARGINS
    at, steps = torch.zeros(1, n, len(MARGINS), dtype=torch.long), list[Tensor]()
    while bool((at < m).any()):
        step = torch.where(at < m, reach[choice.gather(0, at.clamp(max=m - 1))], 0)
        steps.append(step[0] / m)
        at = at + step
    return torch.stack(steps).to(F64)


def followed(cases: Cases, steps: Tensor, tried: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Ends [n, mu, D] of such steps, and error estimates over |x| + size/100, [N, n, mu].

    tried: other steps from the same states, which the estimates are then of.
    """
    _, n, m = steps.shape
    x, t = cases.starts.repeat_interleave(m, 0), torch.zeros(n * m, dtype=F64)
    numbers, size = cases.numbers.repeat_interleave(m, 0), cases.size.repeat_interleave(m, 0)
    told = list[Tensor]()
    for h, other in zip(*(v.flatten(1) for v in (steps, steps if tried is None else tried)), strict=True):
        after, off = tsit5(cases.rate, numbers, t, x, other)
        told.append((off / (0.01 * size + torch.maximum(x.abs(), after.abs()))).square().mean(1).sqrt())
        x, t = after if tried is None else tsit5(cases.rate, numbers, t, x, h)[0], t + h
    return x.view(n, m, -1), torch.stack(told).view_as(steps)


def cost_of(steps: Tensor) -> Tensor:
    """Evaluations [n, mu]: six for each step, and two before the first, as of any controller's run."""
    return 6.0 * (steps > 0).sum(0) + 2


def judged(course: Course, rules: dict[str, Any], plans: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Work over PI's of controllers and of steps that are given."""
    runs = dict[str, tuple[Tensor, Tensor]]()
    for name, rule in rules.items():
        errors, ends = course.runs(rule)
        runs[name] = errors[0], ends.evaluations[0]
    for name, steps in plans.items():
        off = (followed(course.cases, steps)[0] - course.exact[:, None]) / course.cases.size[:, None]
        runs[name] = off.square().mean(-1).sqrt().nan_to_num(10.0).clamp(1e-14, 10.0), cost_of(steps)
    n, draw, rows = len(course.cases), np.random.default_rng(0), list[dict[str, Any]]()
    picks = [torch.from_numpy(draw.integers(0, n, n)) for _ in range(200)]
    for name, found in runs.items():
        *at, mean = relative(*found, runs["PI"])
        again = [relative(*(v[p] for v in found), tuple(v[p] for v in runs["PI"]))[-1] for p in picks]
        low, high = np.quantile(again, [0.05, 0.95]).tolist()
        rows.append({
            "steps by": name, "evaluations at 1e-3": float(np.exp(work(curve(*found), LEVELS)[1])),
            **{f"at 1e{level:.0f}": one for level, one in zip(LEVELS, at, strict=True)},
            "mean": mean, "low": low, "high": high,
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def network_rows() -> dict[str, Any]:
    """The policy is trained on 64 samples, and judged on 48 others."""
    tolerances = torch.logspace(-1.5, -4.5, 4, dtype=F64)
    course = Course.of("tsit5", network(64, 8), ("dopri8", 1e-10), tolerances, (-2.0, -2.5, -3.0, -3.5, -4.0))
    begin = np.array([*FOUND["gains"]["numbers"], *plain()[3:].tolist()])
    began = time.perf_counter()

    def told(generation: int, mean: np.ndarray, value: float) -> None:
        print(generation, f"{time.perf_counter() - began:.0f} s", f"{value:.3f}", flush=True)

    numbers = train([[course[i::4] for i in range(4)]], begin, 0.1, ErrorPolicy, 40, 12, 1, told)
    held = Course.of("tsit5", network(48, 1000), ("dopri8", 1e-10), TOLERANCES, LEVELS)
    own = ErrorPolicy(torch.from_numpy(numbers))
    rows = judged(held, {**known.controllers(), "learned on the network": own}, {})
    return {"seconds": time.perf_counter() - began, "numbers": numbers.tolist(), "rows": rows}


def imitated(cases: Cases, steps: Tensor) -> ErrorPolicy:
    """Least squares of log factors, of all steps with one before and one after, under their errors' ratios.

    An oracle does not err, so its own steps do not show how to recover (Laskey et al. 2017, DART): what is
    seen is a step of exp(0.4 N(0, 1)) times its length, and the factor asked for is from that to its next
    step. The tolerance of each trajectory is such that a tenth of the oracle's steps would be refused; what
    is refused is left out. The tolerance and what follows a refusal stay PI control's.
    """
    k, real = 5, steps > 0
    noise = 0.4 * torch.randn(steps.shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    own = followed(cases, steps)[1]
    tolerance = torch.where(real, own, math.nan).nanquantile(0.9, 0)
    seen = followed(cases, steps, steps * noise.exp())[1]
    own, seen = ((v / tolerance).clamp_min(1e-4) for v in (own, seen))
    h = steps.clamp_min(1e-300).log()
    longer, mean = list[Tensor](), torch.zeros_like(h[0])
    for change in h.diff(dim=0):
        mean = (1 - 1 / 32) * mean + change
        longer.append(mean)
    rises, moved = h.diff(dim=0), noise[1:-1]
    use = real[2:] & (seen[1:-1] <= 1) & (own[:-2] <= 1)
    now, before, target, change, run = (
        v[use]
        for v in (
            seen[1:-1], own[:-2], rises[1:] - moved, rises[:-1] + moved, torch.stack(longer)[:-1] + moved,
        )
    )  # fmt: skip
    history = ((before.log() / k).clamp(-2.0, 3.0), change.clamp(-3, 3), run.clamp(-8, 8), 0 * now, 0 * now)
    free = torch.tensor([*GAINS, *[0.0] * 7], dtype=F64, requires_grad=True)  # gains and growth's weights
    fit = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def numbers() -> Tensor:
        return torch.cat([free, torch.zeros(14, dtype=F64)])

    def loss() -> Tensor:
        fit.zero_grad()
        policy = ErrorPolicy(numbers()[:, None].expand(-1, len(now)))
        factor, _, _ = policy.control(now, (*history, before), k)
        value = (factor.log() - target).square().mean() + 1e-4 * free[3:].square().sum()
        value.backward()
        return value

    fit.step(loss)
    left = float(loss().detach())
    print("imitation", len(now), "steps; variance", float(target.var()), "left", left, flush=True)
    return ErrorPolicy(numbers().detach())


def ceiling(n: int = 12) -> dict[str, Any]:
    found = SEEN.setdefault("ceiling", {})
    if "imitation" not in found:
        cases = van_der_pol(n, 8, 2.0, 20.0)
        many, *costs = effects(cases, 4096)
        found["imitation"] = {
            name: imitated(cases, planned(many, cost)).numbers.tolist()
            for name, cost in zip(("ends", "local"), costs, strict=True)
        }
        keep()
    imitations = {
        f"imitates {name}": ErrorPolicy(torch.tensor(v, dtype=F64)) for name, v in found["imitation"].items()
    }
    for name, (family, nodes) in FAMILIES.items():
        if name not in found:
            began = time.perf_counter()
            cases = family(n, 1000)
            course = Course.of("tsit5", cases, ("dopri8", 1e-10), TOLERANCES, LEVELS)
            many, ends, local = effects(cases, nodes)
            plans = {"oracle, local": planned(many, local), "oracle, ends": planned(many, ends)}
            print(name, flush=True)
            found[name] = judged(course, {**known.controllers(), **imitations}, plans)
            print(f"{time.perf_counter() - began:.0f} s", flush=True)
            keep()
    return found


def grids(n: int = 256, nfe: int = 40) -> dict[str, Any]:
    """Errors are root mean squares over samples, as of `endpoint_error`."""
    model = ls.models.exact.mixture()
    x = prior(model, n, 0).to(F64)
    truth, rows = reference(model, x), list[dict[str, Any]]()

    def errors(method: str, nfe: int, rho: float) -> Tensor:
        grid = ("karras", {"rho": rho})
        return squared_errors(ls.sample(model, x_init=x, method=method, nfe=nfe, grid=grid), truth)

    rhos, counts = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0), list(range(20, 81, 4))
    methods = ("dpmpp_2m", "dpmpp_3m", "exp_adams_3")
    by_rho = {m: torch.stack([errors(m, nfe, rho) for rho in rhos]) for m in methods}
    best = {m: int(by_rho[m].mean(1).argmin()) for m in methods}
    by_count = {m: torch.stack([errors(m, count, rhos[best[m]]) for count in counts]) for m in methods}
    for method in methods:
        other = "dpmpp_2m" if method == "dpmpp_3m" else "dpmpp_3m"
        shared = [float(v) ** 0.5 for v in by_count[method].mean(1)]
        kinds = {
            "shared": by_rho[method][best[method]],
            "rho of each, by hindsight": picked(by_rho[method], by_rho[method].argmin(0)),
            "rho of each, by another method's errors": picked(by_rho[method], by_rho[other].argmin(0)),
            "number of each, by hindsight": picked(by_count[method], spent(by_count[method], counts, nfe)),
            "number of each, by another method's errors": picked(
                by_count[method], spent(by_count[other], counts, nfe)
            ),
        }
        for name, each in kinds.items():
            error = float(each.mean()) ** 0.5
            alike = np.interp(-math.log(error), -np.log(np.minimum.accumulate(shared)), counts)
            rows.append({
                "method": method, "rho": rhos[best[method]], "steps": name, "error": error,
                "median of samples": float(each.median()) ** 0.5, "as a shared grid of": float(alike),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return {"rows": rows}


def picked(choices: Tensor, which: Tensor) -> Tensor:
    """[n] of [K, n]."""
    return choices.gather(0, which[None])[0]


def spent(course: Tensor, counts: list[int], nfe: int) -> Tensor:
    """Which of counts each sample takes, [n]: the least sum of course [K, n] at a mean of nfe at most.

    By Lagrange: argmin_k course[k] + price counts[k], at the least price that keeps the mean.
    """
    low, high, number = 0.0, float(course.max()), torch.tensor(counts, dtype=F64)
    for _ in range(100):
        price = (low + high) / 2
        pick = (course + price * number[:, None]).argmin(0)
        low, high = (low, price) if number[pick].mean() <= nfe else (price, high)
    return (course + high * number[:, None]).argmin(0)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"network": network_rows, "ceiling": ceiling, "grids": grids}


def keep() -> None:
    path = RESULTS / "step_ceiling.json"
    path.write_text(json.dumps(SEEN, indent=1) + "\n")
    lines = ["# What learned steps can win", "", *(__doc__ or "").split("\n")[2:]]
    for part in PARTS:
        for name, rows in SEEN.get(part, {}).items():
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                lines += ["", f"## {part}: {name}", "", *table(rows)]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    path = RESULTS / "step_ceiling.json"
    SEEN.update(json.loads(path.read_text()) if path.exists() else {})
    FOUND.update(json.loads((RESULTS / "learned_control.json").read_text()))
    for part in sys.argv[1:] or PARTS:
        SEEN[part] = PARTS[part]()
        keep()


if __name__ == "__main__":
    main()
