"""What the samplers are judged on: exact models under three processes, a trained one, their references."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from peers import Data, Task

EXACT = ("mixture-edm", "mixture-vp", "mixture-flow", "digits-edm")
NETWORKS = ("digits", "fashion")
MODELS = (*EXACT, "fashion")


def pair(task: Task, t: float) -> tuple[float, float]:
    """(alpha, sigma) at t."""
    if task.kind == "flow":
        return 1 - t, t
    ratio = task.ratio(t)
    alpha = task.alpha(ratio)
    return alpha, alpha * ratio


def mixture(seed: int = 0, dim: int = 64, parts: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights [K], means [K, D], eigenvectors [K, D, D] and variances [K, D], as broad as images are.

    The variances of a component fall from 0.5 to 0.0005 along random directions.
    """
    g = torch.Generator().manual_seed(seed)
    random = partial(torch.randn, generator=g, dtype=torch.float64)
    weights = torch.softmax(0.5 * random(parts), 0)
    means = 0.7 * random(parts, dim)
    bases = torch.linalg.qr(random(parts, dim, dim))[0]
    variances = torch.logspace(math.log10(0.5), math.log10(5e-4), dim, dtype=torch.float64)
    return weights, means, bases, variances.expand(parts, dim).contiguous()


def mixture_data(
    x: Tensor, t: float, task: Task, parts: tuple[Tensor, ...], classes: int = 1, y: Tensor | None = None
) -> Tensor:
    """E[x0 | x_t] of the mixture: every component's Wiener filter, weighted by its posterior.

    The bases stand beside each other, [D, K D], so that all components are one product each way.
    With classes, the components of a class y are those k with k mod classes = y; sample i is of i mod classes
    if y is not given.
    """
    alpha, sigma = pair(task, t)
    weights, means, bases, variances = (part.to(x.dtype) for part in parts)
    if classes > 1:
        y = torch.arange(len(x)) % classes if y is None else y
        weights = weights * (torch.arange(len(weights)) % classes == y[:, None])
    total = alpha**2 * variances + sigma**2
    beside = bases.permute(1, 0, 2).flatten(1)
    z = x @ beside - torch.einsum("kd,kde->ke", alpha * means, bases).flatten()
    y = (z / total.flatten()).unflatten(1, variances.shape)
    distance = torch.einsum("bke,bke->bk", y, z.unflatten(1, variances.shape))
    p = torch.softmax(weights.log() - 0.5 * (distance + total.log().sum(-1)), 1)
    y = y * (alpha * variances) * p[..., None]  # not in place: polishes ask for derivatives
    return y.flatten(1) @ beside.T + p @ means


def ideal_data(x: Tensor, t: float, task: Task, points: Tensor) -> Tensor:
    """E[x0 | x_t] when the data are exactly `points` [N, D]."""
    alpha, sigma = pair(task, t)
    x = x.to(points)  # next to the last image float32 does not tell distances apart
    logits = -((torch.cdist(x, alpha * points) / sigma) ** 2) / 2
    return torch.softmax(logits, 1) @ points


def digits() -> Tensor:
    """scikit-learn's 1797 digits, 8 x 8, in [-1, 1]."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().data) / 8 - 1


def network_data(x: Tensor, t: float, model: object, guidance: float = 1.0) -> Tensor:
    """A longstride Denoiser's data prediction, sample i of class i mod 10; the network runs in float32."""
    with torch.no_grad():
        field = model.fields({"y": torch.arange(len(x)) % 10}, guidance)[0]  # type: ignore[attr-defined]
        return field(t, x.float()).double()


def task(model: str, guidance: float = 1.0) -> Task:
    if model in NETWORKS:
        import longstride as ls

        network = ls.load(model)
        return Task("edm", partial(network_data, model=network, guidance=guidance), tuple(network.shape))
    name, kind = model.split("-")
    dim = 64 if name == "digits" else dimension(name)
    shell = Task(kind, lambda x, t: x, (dim,))
    data: Data = (
        partial(ideal_data, points=digits())
        if name == "digits"
        else partial(mixture_data, parts=mixture(dim=dim), classes=classes(model))
    )
    return Task(kind, partial(data, task=shell), (dim,))


def dimension(name: str) -> int:
    """Of "mixture", "mixture8", "mixture64y" (conditioned on a class)."""
    return int(name.removeprefix("mixture").rstrip("y") or 64)


def classes(model: str) -> int:
    """How many classes sample i is one of, i mod that; 1: it has none."""
    if model in NETWORKS:
        return 10
    return 4 if model.split("-")[0].endswith("y") else 1


def noise(task: Task, n: int, seed: int) -> Tensor:
    """Unit normal [n, *shape]: sample i does not depend on n."""
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(task.shape, generator=g, dtype=torch.float64) for _ in range(n)])


def rk4(f: object, x: Tensor, start: float, end: float, steps: int) -> Tensor:
    h = (end - start) / steps
    for i in range(steps):
        s = start + i * h
        k1 = f(s, x)  # type: ignore[operator]
        k2 = f(s + h / 2, x + h / 2 * k1)  # type: ignore[operator]
        k3 = f(s + h / 2, x + h / 2 * k2)  # type: ignore[operator]
        k4 = f(s + h, x + h * k3)  # type: ignore[operator]
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def reference(task: Task, noise: Tensor, steps: int) -> Tensor:
    """The solution from x = sigma noise at the first time, ended by the data prediction at the last one.

    Classical Runge-Kutta of order 4 for u = x/alpha in log(sigma/alpha): du = u - x0_hat.  A flow, whose
    ratio is infinite at t = 1, goes to t = 0.9 in its own x and t first, and down to t = 1e-5.
    """
    high, low = task.ratio_max, task.ratio_min
    u = high * noise
    if task.kind == "flow":
        x = rk4(lambda t, x: (x - task.data(x, t)) / t, noise, 1.0, 0.9, steps // 4)
        u, high, low = x / 0.1, 9.0, 1e-5
    u = rk4(lambda s, u: u - task.denoise(u, math.exp(s)), u, math.log(high), math.log(low), steps)
    return task.denoise(u, low)
