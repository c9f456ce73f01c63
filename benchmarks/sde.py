"""SDEs: strong orders, time per step beside torchsde, the cost of noise, gradients.

    python benchmarks/sde.py      # goes on where it stopped; without torchsde, where it is not installed

Orders: root mean square error at t = 1 over 4,000 paths (neural: 300), the same Brownian path for every step
and method, and the slope of its logarithm over steps of 2^-4 to 2^-8. Geometric Brownian motion is held
against its exact solution; the neural SDEs against 2^-11 steps of a method of order 1.5.

Times: least processor time of several rounds in which the two take turns, one thread, over the steps of a run
of 128; float64; without a gradient, or forward and backward. Both draw their own noise. torchsde's methods
are called as its documentation does; platen stands beside its milstein without derivatives. diffrax, compiled
by XLA, is asked over a pipe (DIFFRAX_PYTHON names its interpreter) and draws its noise step by step too.
Compiled: `compile=True` here, and for torchsde an f and a g that are compiled by torch, each for itself; the
first round, which compiles, never counts, since the least of all does.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import longstride as ls
from longstride.methods.sde import SCHEMES
from longstride.sde.brownian import Independent

RESULTS = Path(__file__).parent / "results"
F64 = torch.float64
HALVINGS, STEPS, ROUNDS = (4, 5, 6, 7, 8), 128, 7
MU, SIGMA = 0.7, 0.5
PEERS = {
    "euler_maruyama": ("euler", {}), "milstein": ("milstein", {}), "sri1w1": ("srk", {}),
    "platen": ("milstein", {"grad_free": True}),
    "sri2w1": ("srk", {}), "sra1": ("srk", {}), "heun": ("heun", {}),
    "midpoint": ("midpoint", {}), "reversible_heun": ("reversible_heun", {}),
}  # fmt: skip


class Neural(nn.Module):
    """f a network of 2 hidden layers; g_i(x_i) of 8 tanh units for each element, or a constant matrix."""

    def __init__(self, noise: str, sense: str, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.noise_type, self.sde_type = noise, sense
        self.net = nn.Sequential(
            nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 8)
        )
        self.a, self.b, self.c = (nn.Parameter(torch.randn(8, 8)) for _ in range(3))
        with torch.no_grad():
            self.net[0].weight.mul_(6)  # else it is nearly linear
        self.double()

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(x) - x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        if self.noise_type == "additive":
            return (0.5 * self.a).expand(len(x), 8, 8)
        return (torch.tanh(x[..., None] * self.a + self.b) * self.c).sum(-1) / 2


class Geometric(nn.Module):
    def __init__(self, noise: str, sense: str) -> None:
        super().__init__()
        self.noise_type, self.sde_type = noise, sense

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        return MU * x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        return SIGMA * x if self.noise_type == "diagonal" else torch.full_like(x, SIGMA)[..., None]


def ours(model: nn.Module) -> ls.SDE:
    return ls.SDE(model.f, model.g, model.noise_type, model.sde_type)


def sense_of(name: str) -> str:
    return SCHEMES[name].interpretations[0]


@cache
def reference(kind: str, sense: str) -> tuple[nn.Module, ls.Brownian, Tensor, Tensor]:
    """The equation, its paths, where they start and where they end."""
    noise = "additive" if kind == "neural, additive" else "diagonal"
    batch, columns = (4000, 1) if kind == "geometric" else (300, 8)
    model = (Geometric if kind == "geometric" else Neural)(noise, sense)
    path = ls.Brownian((batch, columns), (0.0, 1.0), seed=1)
    x0 = torch.linspace(0.5, 1.5, batch * columns, dtype=F64).view(batch, columns)
    if kind == "geometric":
        drift = MU - (SIGMA**2 / 2 if sense == "ito" else 0.0)
        return model, path, x0, x0 * torch.exp(drift + SIGMA * path(0.0, 1.0)[0])
    return (
        model,
        path,
        x0,
        ls.solve(ours(model).to("ito"), x0, t=(0.0, 1.0), dt=2.0**-11, brownian=path).x[-1],
    )


def errors(name: str, kind: str) -> list[float]:
    model, path, x0, end = reference(kind, sense_of(name))
    ends = (
        ls.solve(ours(model), x0, t=(0.0, 1.0), dt=2.0**-k, method=name, brownian=path).x[-1]
        for k in HALVINGS
    )
    return [float((x - end).square().mean().sqrt()) for x in ends]


def spent(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def in_turns(runs: dict[str, Callable[[], object]], steps: int) -> dict[str, float]:
    """Microseconds a step of each, the least of all rounds."""
    best = {name: float("inf") for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            best[name] = min(best[name], spent(run))
    return {name: value / steps * 1e6 for name, value in best.items()}


def timed(name: str, kind: str, batch: int, way: str, graphs: bool = False) -> dict[str, float]:
    """way: "" without a gradient, "direct" or "memory" with one.  graphs: compiled runs beside the plain."""
    noise = "additive" if name == "sra1" else "diagonal"
    model = (Geometric if kind == "geometric" else Neural)(noise, sense_of(name))
    x0 = torch.ones(batch, 1 if kind == "geometric" else 8, dtype=F64)
    grad = {"": False, "direct": True, "memory": "reverse" if SCHEMES[name].reversible else "checkpoint"}[way]

    def run_ours(compile: bool = False) -> None:
        sol = ls.solve(ours(model), x0, t=(0.0, 1.0), steps=STEPS, method=name, grad=grad, compile=compile)
        if way:
            sol.x.square().mean().backward()

    runs: dict[str, Callable[[], object]] = {"longstride": run_ours}
    if graphs:
        runs["longstride, compiled"] = lambda: run_ours(True)
    if importlib.util.find_spec("torchsde"):
        import torchsde

        method, options = PEERS[name]
        ts = torch.tensor([0.0, 1.0], dtype=F64)
        adjoint = {"adjoint_method": "adjoint_reversible_heun"} if SCHEMES[name].reversible else {}

        def run_theirs(model: nn.Module = model) -> None:
            with torch.set_grad_enabled(bool(way)):
                if way == "memory":
                    x = torchsde.sdeint_adjoint(model, x0, ts, method=method, dt=1 / STEPS, **adjoint)
                else:
                    x = torchsde.sdeint(model, x0, ts, method=method, dt=1 / STEPS, options=options)
            if way:
                x.square().mean().backward()

        runs["torchsde"] = run_theirs
        if graphs:
            own = copy.deepcopy(model)
            own.f, own.g = (torch.compile(h, fullgraph=True, dynamic=False) for h in (own.f, own.g))
            runs["torchsde, f and g compiled"] = lambda: run_theirs(own)
    return in_turns(runs, STEPS)


@cache
def diffrax() -> subprocess.Popen:
    script = Path(__file__).parent / "peers" / "diffrax_sde.py"
    flags = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
    return subprocess.Popen(
        [os.environ["DIFFRAX_PYTHON"], str(script)], text=True, env={**os.environ, **flags},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def beside(name: str, kind: str, batch: int) -> dict[str, float]:
    """Longstride, torchsde where it is there, and diffrax, one after the other."""
    found, peer = timed(name, kind, batch, "", graphs=True), diffrax()
    print(name, kind, batch, STEPS, file=peer.stdin, flush=True)
    return {**found, "diffrax": json.loads(peer.stdout.readline())}


def bare(batch: int) -> dict[str, float]:
    """Microseconds of f and of g of the neural SDE alone."""
    model, x, t = Neural("diagonal", "ito"), torch.ones(batch, 8, dtype=F64), torch.zeros((), dtype=F64)
    each = {"f": model.f, "g": model.g}
    return in_turns({name: lambda h=h: [h(t, x) for _ in range(STEPS)] for name, h in each.items()}, STEPS)


def noises() -> dict[str, float]:
    """Microseconds an increment of 1,024 samples, in runs of 128 steps or of 100, no power of two."""
    runs: dict[str, Callable[[], object]] = {}
    for n in (128, 100):
        ticks = torch.linspace(0, 1, n + 1, dtype=F64)
        path = ls.Brownian((1024, 1), (0.0, 1.0))
        runs[f"Brownian, {n} steps"] = lambda p=path, t=ticks: [p(float(a), float(b)) for a, b in pairwise(t)]
        runs[f"Brownian, {n} steps at once"] = lambda p=path, t=ticks: p.between(p.place(t)[:, None])
    runs["increments of equal steps"] = lambda: [
        Independent((1024, 1), 0).increments(a, a + 32, False) for a in range(0, 128, 32)
    ]
    if importlib.util.find_spec("torchsde"):
        import torchsde

        for n in (128, 100):
            ticks = torch.linspace(0, 1, n + 1, dtype=F64)

            def theirs(t: Tensor = ticks, n: int = n) -> None:
                motion = torchsde.BrownianInterval(0.0, 1.0, size=(1024, 1), dtype=F64, dt=1 / n)
                for a, b in pairwise(t):
                    motion(a, b)

            runs[f"torchsde BrownianInterval, {n} steps"] = theirs
    return {name: us * (128 / 100 if ", 100" in name else 1) for name, us in in_turns(runs, 128).items()}


def burst(t: Tensor, x: Tensor) -> Tensor:
    """Noise that is 30 times as strong for a short while, which `max_step` keeps from being passed over."""
    level = 0.1 + 3 * torch.exp(-(((t - 0.5) / 0.02) ** 2))
    return (level if t.ndim == 0 else level[:, None]) * x


def chosen() -> list[tuple[str, str, str, float, float]]:
    """Equation, method, steps, root mean square error, mean evaluations: equal steps and chosen ones."""
    rows = []
    for what, count in (("x dW", 2000), ("burst", 100)):
        path, x0 = ls.Brownian((count, 1), (0.0, 1.0), seed=1), torch.ones(count, 1, dtype=F64)
        bounds = {"max_step": 0.02} if what == "burst" else {}
        problem = ls.SDE(lambda t, x: 0 * x, burst if what == "burst" else lambda t, x: x)
        end = torch.exp(path(0.0, 1.0)[0] - 0.5)
        if what == "burst":
            end = ls.solve(problem, x0, t=(0.0, 1.0), dt=2.0**-13, method="sri1w1", brownian=path).x[-1]
        SCHEMES["unguarded"] = replace(SCHEMES["euler_maruyama"], orders={"diagonal": 1.0})
        for method in ("unguarded", "milstein", "sri1w1"):
            asked = [{"rtol": tol, "atol": tol, **bounds} for tol in (1e-1, 1e-2, 1e-3)]
            for how in (*asked, *({"dt": 2.0**-k} for k in (5, 7, 9, 11))):
                if method == "unguarded" and what == "burst":
                    continue
                run = ls.solve(problem, x0, t=(0.0, 1.0), method=method, brownian=path, **how)
                error = float((run.x[-1] - end).square().mean().sqrt())
                each = (
                    run.stats.nfe if run.stats.nfe_each is None else float(run.stats.nfe_each.double().mean())
                )
                steps = f"rtol {how['rtol']:g}" if "rtol" in how else f"dt 2^-{-math.log2(how['dt']):.0f}"
                rows.append((what, method, steps, error, each))
        del SCHEMES["unguarded"]
    return rows


def exactness() -> dict[str, float]:
    """The largest difference of a gradient from backpropagation's, over the largest element of that."""
    found = {}
    for name in ("euler_maruyama", "sri1w1", "heun", "reversible_heun"):
        model, x0 = Neural("diagonal", sense_of(name)), torch.ones(16, 8, dtype=F64)
        wanted = list(model.parameters())
        grads = {}
        for way in (True, "checkpoint", *(["reverse"] if SCHEMES[name].reversible else [])):
            x = ls.solve(ours(model), x0, t=(0.0, 1.0), steps=STEPS, method=name, grad=way).x
            grads[str(way)] = torch.autograd.grad(x.square().mean(), wanted)
        for way in list(grads)[1:]:
            pairs = list(zip(grads["True"], grads[way], strict=True))
            scale = max(float(a.abs().max()) for a, _ in pairs)
            found[f"{name}, {way}"] = max(float((a - b).abs().max()) for a, b in pairs) / scale
    return found


def cases() -> dict[str, Callable[[], object]]:
    out: dict[str, Callable[[], object]] = {}
    for kind in ("geometric", "neural", "neural, additive"):
        noise = "additive" if kind == "neural, additive" else "diagonal"
        for name in SCHEMES:
            if SCHEMES[name].fits(noise, sense_of(name)):
                out[f"order/{kind}/{name}"] = lambda n=name, k=kind: errors(n, k)
    for kind, batches in (("geometric", (1, 1024, 8192)), ("neural", (64, 512))):
        for name in PEERS:
            for batch in batches:
                out[f"time/{kind}/{name}/{batch}/"] = lambda n=name, k=kind, b=batch: timed(n, k, b, "")
    for name in ("euler_maruyama", "midpoint", "reversible_heun"):
        for way in ("direct", "memory"):
            out[f"time/neural/{name}/64/{way}"] = lambda n=name, w=way: timed(n, "neural", 64, w)
    with_gradient = ("euler_maruyama", "midpoint", "reversible_heun", "sri2w1")
    for name, (kind, batch, way) in product(
        PEERS, (("geometric", 1024, ""), ("neural", 64, ""), ("neural", 512, ""), ("neural", 64, "direct"))
    ):
        if not way or name in with_gradient:
            out[f"compiled/{kind}/{name}/{batch}/{way}"] = lambda n=name, k=kind, b=batch, w=way: timed(
                n, k, b, w, graphs=True
            )
    if "DIFFRAX_PYTHON" in os.environ:
        for name in ("euler_maruyama", "midpoint"):
            for kind, batch in (("geometric", 1024), ("neural", 64), ("neural", 512)):
                out[f"beside/{kind}/{name}/{batch}"] = lambda n=name, k=kind, b=batch: beside(n, k, b)
    for batch in (64, 512):
        out[f"bare/{batch}"] = lambda b=batch: bare(b)
    return {**out, "noise": noises, "gradients": exactness, "chosen": chosen}


def slope(found: list[float]) -> float:
    return float(np.polyfit(HALVINGS, -np.log2(found), 1)[0])


def compiled(rows: dict[str, object]) -> list[str]:
    """The table of compiled runs, with their ratios to torchsde: compiled to compiled, and to plain."""
    whom = ("longstride", "longstride, compiled", "torchsde", "torchsde, f and g compiled")
    lines = ["", "## Microseconds a step, compiled", ""]
    lines += [f"| method | equation | batch | gradient | {' | '.join(whom)} | compiled | to plain |"]
    lines += ["|---|---|---|---|" + "---|" * 6]
    for key, found in rows.items():
        if key.startswith("compiled/"):
            _, kind, name, batch, way = key.split("/")
            mine, cells = found[whom[1]], [f"{found[who]:.0f}" if who in found else "" for who in whom]
            cells += [f"{mine / found[who]:.2f}" if who in found else "" for who in whom[:1:-1]]
            lines.append(f"| {name} | {kind} | {batch} | {way or 'none'} | {' | '.join(cells)} |")
    return lines if len(lines) > 5 else []


def report(rows: dict[str, object]) -> str:
    lines = [
        "# SDEs",
        "",
        "`python benchmarks/sde.py`, see there what is measured.",
        "",
        "## Strong orders",
        "",
    ]
    lines += ["| method | equation | claimed | measured | error at 2^-8 |", "|---|---|---|---|---|"]
    for key, found in rows.items():
        if key.startswith("order/"):
            _, kind, name = key.split("/")
            claimed = SCHEMES[name].orders["additive" if kind == "neural, additive" else "diagonal"]
            lines.append(f"| {name} | {kind} | {claimed} | {slope(found):.2f} | {found[-1]:.1e} |")
    lines += ["", "## Microseconds a step", ""]
    lines += [
        "| method | equation | batch | gradient | longstride | torchsde | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, found in rows.items():
        if key.startswith("time/"):
            _, kind, name, batch, way = key.split("/")
            theirs = found.get("torchsde")
            rest = f"{theirs:.0f} | {found['longstride'] / theirs:.2f} |" if theirs else "| |"
            lines.append(
                f"| {name} | {kind} | {batch} | {way or 'none'} | {found['longstride']:.0f} | {rest}"
            )
    lines += compiled(rows)
    if any(key.startswith("beside/") for key in rows):
        lines += ["", "## Microseconds a step, beside diffrax", ""]
        lines += [
            "| method | equation | batch | longstride | longstride, compiled | torchsde | diffrax |",
            "|---|---|---|---|---|---|---|",
        ]
    for key, found in rows.items():
        if key.startswith("beside/"):
            _, kind, name, batch = key.split("/")
            cells = [
                f"{found[who]:.0f}" if who in found else "-"
                for who in ("longstride", "longstride, compiled", "torchsde", "diffrax")
            ]
            lines.append(f"| {name} | {kind} | {batch} | " + " | ".join(cells) + " |")
    for key, found in rows.items():
        if key.startswith("bare/"):
            batch = key.split("/")[1]
            lines += ["", f"f and g of the neural SDE, batch {batch}: {found['f']:.0f} and {found['g']:.0f}."]
    for title, key, digits in (("Microseconds an increment, 1,024 samples", "noise", ".1f"),
                               ("Gradients beside backpropagation's", "gradients", ".1e")):  # fmt: skip
        if key in rows:
            lines += ["", f"## {title}", "", "| | |", "|---|---|"]
            lines += [f"| {name} | {value:{digits}} |" for name, value in rows[key].items()]
    if "chosen" in rows:
        lines += [
            "",
            "## Steps chosen by their error",
            "",
            "unguarded is Euler-Maruyama, which `ls.solve` refuses here.",
        ]
        lines += ["", "| equation | method | steps | error | evaluations |", "|---|---|---|---|---|"]
        lines += [f"| {a} | {b} | {c} | {e:.1e} | {n:.0f} |" for a, b, c, e, n in rows["chosen"]]
    return "\n".join(lines) + f"\n\ntorch {torch.__version__}, one thread; load {os.getloadavg()[0]:.1f}.\n"


def picture(rows: dict[str, object]) -> None:
    """Error against the step, geometric Brownian motion and the additive neural SDE."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), dpi=90, sharey=True)
    h = 2.0 ** -np.array(HALVINGS)
    names = list(dict.fromkeys(key.split("/")[2] for key in rows if key.startswith("order/")))
    colours = plt.get_cmap("tab20")
    for axis, kind in zip(axes, ("geometric", "neural, additive"), strict=True):
        for key, found in rows.items():
            if key.startswith(f"order/{kind}/"):
                name = key.split("/")[2]  # in the same colour on both sides
                look = {"color": colours(names.index(name)), "label": f"{name}, {slope(found):.2f}"}
                axis.loglog(h, found, "o-", ms=3, lw=1, **look)
        title = "geometric Brownian motion" if kind == "geometric" else "neural SDE, additive noise"
        axis.set(title=title, xlabel="step")
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=1e-6)
        axis.legend(fontsize=7, frameon=False, ncols=2, loc="lower center")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("root mean square error at t = 1")
    fig.tight_layout()
    fig.savefig(RESULTS / "sde.png")


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torchsde")
    file = RESULTS / "sde.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    for key, measure in cases().items():
        if key in rows:
            continue
        with torch.set_grad_enabled(key == "gradients" or key.endswith(("direct", "memory"))):
            rows[key] = measure()
        file.write_text(json.dumps(rows, indent=1) + "\n")
        print(key, rows[key], flush=True)
    (RESULTS / "sde.md").write_text(report(rows))
    picture(rows)


if __name__ == "__main__":
    main()
