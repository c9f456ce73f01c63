"""Evaluations at equal error: a controller whose corrections were learned beside I and PI.

    python benchmarks/learned_control.py [PART ...]

Work is the mean over cases of log evaluations, rejected steps included; precision the mean of log10 of the
error at the end, root mean square over components, each over its size. Work is compared at levels of
precision, between tolerances by interpolation. Parts:

- gains: the two gains and the safety factor of PI control, by CMA-ES on 64 oscillators of Van der Pol, mu
  from 2 to 20, by tsit5.
- train: the 24 numbers of `error_policy.ErrorPolicy`, in the same way, from those gains.
  Writes the policy that the library ships. Minutes of a core.
- held_out: cases that training never saw: other oscillators of the same family, other methods, other
  problems. Work over that of PI, with an interval of 90 % by resampling cases.
- diffusion: a mixture of Gaussians in 64 dimensions whose denoiser is exact, EDM's process: plans that are
  fixed, and steps of each sample's own along the probability-flow ODE in -log sigma, by tolerance or to
  reach the end within a budget.

Results of each part, and of each course in it, are kept as soon as they are done, in
results/learned_control.json.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import longstride as ls
from longstride.control import PI, Controller, I, Predictive
from longstride.error_policy import GAINS, ErrorPolicy, Gains, plain
from longstride.learn.step_training import Cases, Course, Many, curve, train, van_der_pol, work
from longstride.metrics import endpoint_error
from longstride.sampling import prior, reference

RESULTS, F64 = Path(__file__).parent / "results", torch.float64
SHIPPED = Path(ls.__file__).parent / "learn" / "policies" / "oscillators"
LEVELS = (-2.0, -3.0, -4.0)
FOUND: dict[str, Any] = {}


def training() -> list[Course]:
    """Four parts of 16 oscillators."""
    tolerances = torch.logspace(-1.5, -4.5, 4, dtype=F64)
    cases = van_der_pol(64, 8, 2.0, 20.0)
    course = Course.of("tsit5", cases, ("dopri8", 1e-10), tolerances, (-2.0, -2.5, -3.0, -3.5, -4.0))
    return [course[i::4] for i in range(4)]


def trained(begin: list[float], width: float, many: Many, generations: int) -> dict[str, Any]:
    began, course = time.perf_counter(), list[float]()

    def told(generation: int, mean: np.ndarray, value: float) -> None:
        course.append(value)
        print(generation, f"{time.perf_counter() - began:.0f} s", f"{value:.3f}", flush=True)

    numbers = train([training()], np.array(begin), width, many, generations, people=12, seed=1, told=told)
    return {"seconds": time.perf_counter() - began, "course": course, "numbers": numbers.tolist()}


def gains(generations: int = 32) -> dict[str, Any]:
    return trained([*GAINS], 0.1, Gains, generations)


def train_policy(generations: int = 60) -> dict[str, Any]:
    """From the gains that were tuned, without corrections."""
    begin = [*FOUND["gains"]["numbers"], *plain()[3:].tolist()]
    found = trained(begin, 0.1, ErrorPolicy, generations)
    about = (
        "benchmarks/learned_control.py: 64 oscillators of Van der Pol, mu from 2 to 20, by tsit5, "
        f"{generations} generations of 12 by CMA-ES, from tuned gains of PI control"
    )
    SHIPPED.parent.mkdir(exist_ok=True)
    ErrorPolicy(torch.tensor(found["numbers"], dtype=F64), about).save(SHIPPED)
    return found


def uniform(n: int, seed: int, *bounds: tuple[float, float]) -> Tensor:
    """[n, len(bounds)]."""
    low, high = torch.tensor(bounds, dtype=F64).unbind(1)
    return low + (high - low) * torch.rand(
        n, len(bounds), generator=torch.Generator().manual_seed(seed), dtype=F64
    )


def nerve(n: int, seed: int) -> Cases:
    """FitzHugh and Nagumo: a nerve that fires, t to 100."""

    def rate(t: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
        (current, tau), (v, w) = numbers.unbind(1), x.unbind(1)
        return 100 * torch.stack([v - v**3 / 3 - w + current, (v + 0.7 - 0.8 * w) / tau], 1)

    numbers = uniform(n, seed, (0.4, 1.3), (8.0, 40.0))
    starts = uniform(n, seed + 1, (-2.0, 2.0), (-0.5, 1.5))
    return Cases(rate, numbers, starts, torch.ones_like(starts))


def brusselator(n: int, seed: int) -> Cases:
    """t to 20."""

    def rate(t: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
        b, (u, v) = numbers[:, 0], x.unbind(1)
        return 20 * torch.stack([1 + u * u * v - (b + 1) * u, b * u - u * u * v], 1)

    starts = uniform(n, seed + 1, (0.5, 2.0), (1.0, 4.0))
    return Cases(rate, uniform(n, seed, (2.5, 6.0)), starts, torch.full_like(starts, 2.0))


def kepler(n: int, seed: int) -> Cases:
    """Two periods from the near end, eccentricity 0.3 to 0.9."""

    def rate(t: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
        q, v = x.chunk(2, 1)
        return 4 * math.pi * torch.cat([v, -q / q.norm(dim=1, keepdim=True) ** 3], 1)

    e = uniform(n, seed, (0.3, 0.9))
    starts = torch.cat([1 - e, 0 * e, 0 * e, ((1 + e) / (1 - e)).sqrt()], 1)
    return Cases(rate, e, starts, torch.ones_like(starts))


def oscillators(low: float, high: float) -> Callable[[int, int], Cases]:
    return lambda n, seed: van_der_pol(n, seed, low, high)


HELD_OUT: dict[str, tuple[Callable[[int, int], Cases], str]] = {
    "Van der Pol, mu 2 to 20": (oscillators(2.0, 20.0), "tsit5"),
    "Van der Pol, mu 2 to 20, bosh3": (oscillators(2.0, 20.0), "bosh3"),
    "Van der Pol, mu 2 to 20, rodas5p": (oscillators(2.0, 20.0), "rodas5p"),
    "FitzHugh-Nagumo": (nerve, "tsit5"),
    "Brusselator": (brusselator, "tsit5"),
    "Kepler": (kepler, "tsit5"),
}


def controllers() -> dict[str, Controller]:
    tuned = Gains(torch.tensor(FOUND["gains"]["numbers"], dtype=F64))
    return {
        "PI": PI(), "PI, gains tuned": tuned, "I": I(), "I, safety 0.5": I(safety=0.5),
        "predictive": Predictive(), "learned": ls.control.load(SHIPPED),
    }  # fmt: skip


def relative(errors: Tensor, cost: Tensor, base: tuple[Tensor, Tensor]) -> list[float]:
    """Work over that of base at LEVELS, and their geometric mean; of cases [n, m]."""
    apart = work(curve(errors, cost), LEVELS) - work(curve(*base), LEVELS)
    return [float(v) for v in np.exp([*apart, apart.mean()])]


def compared(family: Callable[[int, int], Cases], method: str, n: int = 24) -> list[dict[str, Any]]:
    tolerances = torch.logspace(-1.5, -5.5, 6, dtype=F64)
    course = Course.of(method, family(n, 1000), ("dopri8", 1e-10), tolerances, LEVELS)
    rows, base, draw = list[dict[str, Any]](), None, np.random.default_rng(0)
    picks = [torch.from_numpy(draw.integers(0, n, n)) for _ in range(200)]
    for name, controller in controllers().items():
        errors, ends = course.runs(controller)
        found = errors[0], ends.evaluations[0]
        base = base or found
        *at, mean = relative(*found, base)
        again = [relative(*(v[p] for v in found), tuple(v[p] for v in base))[-1] for p in picks]
        low, high = np.quantile(again, [0.05, 0.95]).tolist()
        evaluations = float(np.exp(work(curve(*found), LEVELS)[1]))
        rows.append({
            "controller": name, "evaluations at 1e-3": evaluations,
            **{f"at 1e{level:.0f}": one for level, one in zip(LEVELS, at, strict=True)},
            "mean": mean, "low": low, "high": high,
            "rejected of 1,000 evaluations": float(1000 * ends.rejected.sum() / ends.evaluations.sum()),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def held_out() -> dict[str, Any]:
    known = FOUND.setdefault("held_out", {})
    for name, (family, method) in HELD_OUT.items():
        if name not in known:
            print(name, flush=True)
            known[name] = compared(family, method)
            keep()
    return known


def diffusion(n: int = 64) -> dict[str, Any]:
    model = ls.models.exact.mixture()
    x = prior(model, n, 0).to(F64)
    truth = reference(model, x)
    start, end = -math.log(80.0), -math.log(0.002)

    def data(t: Tensor, x: Tensor) -> Tensor:
        return model.net(x, (-t).exp().expand(len(x)))

    def ended(found: ls.Solution) -> dict[str, float]:
        """With the data prediction at the end, one more evaluation."""
        each = found.stats.nfe_each.double() + 1
        low, high = each.quantile(torch.tensor([0.05, 0.95], dtype=F64)).tolist()
        error = endpoint_error(data(torch.full((n,), end, dtype=F64), found.x_end), truth)
        return {"nfe": float(each.mean()), "nfe 5 %": low, "nfe 95 %": high, "error": float(error)}

    fixed, own, budget = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for nfe in (20, 30, 40, 50, 60, 80, 100):
        for method in ("dpmpp_2m", "dpmpp_3m", "exp_adams_3"):
            ends = ls.sample(model, x_init=x, method=method, nfe=nfe, grid="karras")
            fixed.append({"method": method, "nfe": nfe, "error": float(endpoint_error(ends, truth))})
    for method in ("bosh3", "dopri5", "krogstad43"):
        exponential = method == "krogstad43"
        problem = ls.ODE(data, L=-1.0) if exponential else ls.ODE(lambda t, x: data(t, x) - x)
        rules = {"PI": PI(max_factor=2.0) if exponential else PI(), "learned": ls.control.load(SHIPPED)}
        for name, rule in rules.items():
            for rtol in torch.logspace(-1, -4.5, 8, dtype=F64).tolist():
                found = ls.solve(
                    problem, x, t=(start, end), method=method, rtol=rtol, atol=0.1 * rtol, controller=rule,
                    grad=False,
                )  # fmt: skip
                own.append({"method": method, "controller": name, "rtol": rtol, **ended(found)})
        for nfe in (40, 80, 120):
            found = ls.solve(
                problem, x, t=(start, end), method=method, rtol=1e-6, atol=1e-7, nfe=nfe - 1,
                on_budget="reach", grad=False,
            )  # fmt: skip
            budget.append({"method": method, "budget": nfe, **ended(found)})
    return {"fixed": fixed, "own": own, "reach": budget}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "gains": gains, "train": train_policy, "held_out": held_out, "diffusion": diffusion,
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    for row in rows:
        said = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        lines.append("| " + " | ".join(said) + " |")
    return lines


def page() -> str:
    lines = ["# A learned controller", "", *(__doc__ or "").split("\n")[2:]]
    for part in ("gains", "train"):
        if part in FOUND:
            told = FOUND[part]
            course = ", ".join(f"{v:.3f}" for v in told["course"][::5])
            lines += ["", f"## {part}", "", f"Log work over PI's, every fifth generation: {course}.", "",
                      f"Numbers: {[round(v, 3) for v in told['numbers']]}."]  # fmt: skip
    for part in ("held_out", "diffusion"):
        for name, rows in FOUND.get(part, {}).items():
            lines += ["", f"## {part}: {name}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def picture(path: Path) -> None:
    """Left: work over that of PI on each course. Right: error against evaluations of diffusion sampling."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    names = list(FOUND["held_out"])
    for i, rule in enumerate(("PI, gains tuned", "I, safety 0.5", "learned")):
        rows = [next(r for r in FOUND["held_out"][n] if r["controller"] == rule) for n in names]
        mean, low, high = (np.array([r[key] for r in rows]) for key in ("mean", "low", "high"))
        at = np.arange(len(names)) + 0.2 * (i - 1)
        left.errorbar(mean, at, xerr=[mean - low, high - mean], fmt="o", ms=4, lw=1, label=rule)
    left.axvline(1, color="grey", lw=0.8)
    left.set(yticks=range(len(names)), yticklabels=names, xlabel="evaluations over PI's, at equal error")
    left.invert_yaxis()
    left.legend(frameon=False, fontsize=8)
    for method in ("dpmpp_3m", "exp_adams_3"):
        known = [(r["nfe"], r["error"]) for r in FOUND["diffusion"]["fixed"] if r["method"] == method]
        right.loglog(*zip(*known, strict=True), "--", lw=1, label=f"{method}, fixed steps")
    for rule, mark in (("PI", "o"), ("learned", "s")):
        for method in ("bosh3", "dopri5", "krogstad43"):
            rows = [r for r in FOUND["diffusion"]["own"] if (r["method"], r["controller"]) == (method, rule)]
            right.loglog([r["nfe"] for r in rows], [r["error"] for r in rows], marker=mark, ms=3, lw=1,
                         label=f"{method}, {rule}")  # fmt: skip
    right.set(xlabel="evaluations, mean of a sample", ylabel="end-point error", xlim=(18, 200))
    right.set_xticks([20, 40, 80, 160], ["20", "40", "80", "160"])
    right.set_xticks([], minor=True)
    right.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=90)


def keep() -> None:
    path = RESULTS / "learned_control.json"
    path.write_text(json.dumps(FOUND, indent=1) + "\n")
    path.with_suffix(".md").write_text(page())


def main() -> None:
    torch.set_num_threads(1)
    path = RESULTS / "learned_control.json"
    FOUND.update(json.loads(path.read_text()) if path.exists() else {})
    for part in sys.argv[1:] or PARTS:
        FOUND[part] = PARTS[part]()
        keep()
    if FOUND.keys() >= PARTS.keys():
        picture(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
