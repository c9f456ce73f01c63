"""Walls and blocks: stiff order, series against points, waves kept, and what the transforms cost.

1. Hochbruck and Ostermann 2005, u_t = u_xx + g(u) + p(t, x) on [0, 1], u = 0 at the walls, solved by x (1 -
x) e^t, with g the mean of u and g = 1/(1 + u^2): largest error at t = 1, 48 Chebyshev points. 2. Fisher's
equation, u = 0 at the walls: error at the middle at t = 0.5, by a sine series and by Chebyshev points. 3.
Heat at Chebyshev points, one step. 4. Linear waves to t = 1000: energy after 1000 steps, one step beside
1000, float32 beside float64. 5. Transforms there and back, float64, one thread, the lowest of 200 in
microseconds; scipy's for comparison; what walls of two kinds cost, over a cosine series.

    python benchmarks/walls.py
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import scipy.fft
import torch
from torch import Tensor

import longstride as ls
from longstride.spectral import Box, Chebyshev, Fourier, Pointwise, nothing

OUT, F64, PI = Path(__file__).parent / "results", torch.float64, math.pi
METHODS = ("etdrk2", "etdrk3", "etdrk4", "krogstad", "hochbruck_ostermann")
STEPS = (16, 32, 64, 128)


def end(problem: ls.ODE, x0: Tensor, t: float, method: str, steps: int) -> Tensor:
    return ls.solve(problem, x0, t=(0.0, t), method=method, steps=steps).x[-1]


def middle_weights(n: int, x: Tensor) -> Tensor:
    """Of a mean over [0, 1], exact for polynomials: those of Legendre have mean 0 but the first."""
    P = torch.special.legendre_polynomial_p(2 * x - 1, torch.arange(n, dtype=F64)[:, None])
    return torch.linalg.solve(P, (torch.arange(n) == 0).to(F64))


def stiff_order(g: str, method: str) -> list[float]:
    n = 48
    space = Chebyshev((0.0, 1.0), n)
    x = space.x[0]
    u0 = x * (1 - x)
    weights, inside = middle_weights(n, x)[1:-1, None], u0[1:-1]

    def f(t: Tensor, w: Tensor) -> Tensor:
        u = inside * torch.exp(t)
        if g == "mean of u":
            return w @ weights + u + (2 - 1 / 6) * torch.exp(t)
        return 1 / (1 + w * w) - 1 / (1 + u * u) + u + 2 * torch.exp(t)

    problem = ls.ODE(f, L=ls.Matrix(space.d(0, 2)), space=space)
    return [float((end(problem, u0[None], 1.0, method, n) - math.e * u0).abs().max()) for n in STEPS]


def fisher(kind: str, n: int) -> float:
    if kind == "Chebyshev":
        space = Chebyshev((0.0, 1.0), n)
        problem = ls.ODE(lambda t, w: 3 * w * (1 - w), L=ls.Matrix(0.05 * space.d(0, 2)), space=space)
    else:
        space = Box(1.0, n, "dirichlet")
        problem = ls.ODE(Pointwise(space, lambda u: -3 * u * u), L=3 - 0.05 * space.k2, space=space)
    u = torch.sin(PI * space.x[0])[None]
    return float(end(problem, u, 0.5, "hochbruck_ostermann", 60)[0, n // 2])


def heat(kind: str, n: int) -> float:
    shape, k = (torch.sin, PI) if kind == "dirichlet" else (torch.cos, 2 * PI)
    space = Chebyshev((0.0, 1.0), n, kind, kind)
    u = shape(k * space.x[0])[None]
    x = end(ls.ODE(nothing, L=ls.Matrix(space.d(0, 2)), space=space), u, 0.05, "etdrk4", 1)
    return float((x - math.exp(-0.05 * k * k) * u).abs().max())


WAVES: dict[str, tuple[str, dict]] = {
    "wave, 128 points": ("wave", {}),
    "wave, 64^2": ("wave", {"dim": 2, "n": 64}),
    "wave, fixed ends, 128 points": ("wave", {"walls": "dirichlet"}),
    "maxwell, 64^2": ("maxwell", {"n": 64}),
    "klein_gordon, g = 0": ("klein_gordon", {"strength": 0.0}),
}


def waves(name: str) -> list[float]:
    """Drift of the energy; one step against 1000; float32 against float64."""
    system, how = WAVES[name]
    pde = ls.systems.get(system, **how)
    x0 = pde.space.leave(pde.space.enter(pde.x0))
    many, one = (end(pde, x0, 1000.0, "exp_euler", n) for n in (1000, 1))
    single = end(pde, x0.float(), 1000.0, "exp_euler", 1000).double()
    return [
        float(pde.drift(many, x0)["energy"]),
        float((one - many).abs().max()),
        float((single - many).abs().max()),
    ]


def fastest(call: Callable[[], object], n: int = 200) -> float:
    spent = []
    for _ in range(n):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return min(spent) * 1e6


def transforms(n: int, dim: int) -> list[float]:
    u = torch.randn(1, *[n] * dim, dtype=F64)
    spaces = (Fourier(1.0, [n] * dim), Box(1.0, [n] * dim, "neumann"), Box(1.0, [n] * dim, "dirichlet"))
    times = [fastest(lambda space=space: space.leave(space.enter(u))) for space in spaces]
    v, axes = u.numpy(), list(range(1, dim + 1))
    return [*times, fastest(lambda: scipy.fft.idctn(scipy.fft.dctn(v, axes=axes), axes=axes))]


def quarter(n: int, dim: int) -> float:
    """The time of a series between walls of two kinds over that of a cosine series, in turn."""
    u = torch.randn(1, *[n] * dim, dtype=F64)
    spaces = [Box(1.0, [n] * dim, kind) for kind in ("neumann", "neumann-dirichlet")]
    spent = [[fastest(lambda s=space: s.leave(s.enter(u))) for space in spaces] for _ in range(5)]
    one, two = (min(times) for times in zip(*spent, strict=True))
    return two / one


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    path = OUT / "walls.json"
    data = json.loads(path.read_text()) if path.exists() else {}

    def once(key: str, make: Callable[[], object]) -> object:
        if key not in data:
            data[key] = make()
            path.write_text(json.dumps(data, indent=1) + "\n")
        return data[key]

    page = ["# Walls and blocks\n", __doc__.split("\n\n")[1].replace("\n", " ") + "\n"]
    for g in ("mean of u", "1/(1 + u^2)"):
        rows = []
        for method in METHODS:
            errors = once(f"order|{g}|{method}", lambda g=g, method=method: stiff_order(g, method))
            order = math.log2(errors[0] / errors[-1]) / 3
            rows.append([method, *(f"{e:.1e}" for e in errors), f"{order:.2f}"])
        page += [
            f"\n## Stiff order, g = {g}\n",
            table(["method", *(f"{n} steps" for n in STEPS), "order"], rows),
        ]
    truth = once("fisher|truth", lambda: fisher("Chebyshev", 41))
    sizes, rows = (9, 17, 33, 65), []
    for kind in ("sine series", "Chebyshev"):
        found = [once(f"fisher|{kind}|{n}", lambda kind=kind, n=n: fisher(kind, n)) for n in sizes]
        rows.append([kind, *(f"{abs(u - truth):.1e}" for u in found)])
    page += ["\n## Fisher's equation, u = 0 at the walls\n", table(["points", *map(str, sizes)], rows)]
    sizes = (8, 12, 16, 24, 64)
    rows = [
        [kind, *(f"{once(f'heat|{kind}|{n}', lambda kind=kind, n=n: heat(kind, n)):.1e}" for n in sizes)]
        for kind in ("dirichlet", "neumann")
    ]
    page += ["\n## Heat at Chebyshev points\n", table(["points", *map(str, sizes)], rows)]
    rows = [
        [name, *(f"{e:.1e}" for e in once(f"waves|{name}", lambda name=name: waves(name)))] for name in WAVES
    ]
    page += ["\n## Waves to t = 1000\n", table(["", "energy drift", "1 step against 1000", "float32"], rows)]
    rows = []
    for n, dim in ((128, 1), (512, 1), (128, 2), (256, 2), (32, 3)):
        spent = once(f"transforms|{n}|{dim}", lambda n=n, dim=dim: transforms(n, dim))
        ratio = once(f"quarter|{n}|{dim}", lambda n=n, dim=dim: quarter(n, dim))
        rows.append([f"{n}^{dim}" if dim > 1 else str(n), *(f"{us:.0f}" for us in spent), f"{ratio:.1f}"])
    page += [
        "\n## Transforms there and back\n",
        table(["points", "Fourier", "cosine", "sine", "scipy's cosine", "two kinds of walls/cosine"], rows),
    ]
    page.append(f"\ntorch {torch.__version__}, one thread, on a machine that other work shared.")
    text = "\n".join(page) + "\n"
    (OUT / "walls.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
