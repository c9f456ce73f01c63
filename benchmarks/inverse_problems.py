"""Inverse problems on test images of `fashion`, and a classifier that guides a whole sampler.

    python benchmarks/inverse_problems.py

PSNR against evaluations for inpainting, deblurring and super-resolution with dps, dds and svdd; a picture of
them; and samples whose noise is moved uphill a classifier's log-probability, by grad="reverse". The
classifier that guides is trained here, apart from the judge that counts. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import matplotlib
import torch
from torch import Tensor
from torch.nn import functional as F

import longstride as ls
from longstride.metrics import class_agreement
from longstride.models import judge
from longstride.models.classifier import Classifier
from longstride.models.data import load_images
from longstride.samplers import Measurement, blur, dds, dps, inpainting, sample_svdd, super_resolution

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS, IMAGES = Path(__file__).parent / "results", ROOT / "docs" / "images"
NOISE, SPREAD, COUNT = 0.05, 0.65, 8
EVALUATIONS = (5, 10, 20, 50)
PROPOSALS, TEMPERATURE = 4, 0.02  # of svdd: value is -mean square error, which is of this order
WAYS = ("dps on dpmpp_2m", "dps on ddpm", "dds on dpmpp_2m", "dds on ddpm", "svdd")
PICTURED = ("dps on ddpm", "dds on ddpm", "svdd")
STEPS, RATE = 12, 0.1  # of the classifier's guidance; the rate is a share of the noise's length


def problems() -> dict[str, Measurement]:
    hole = torch.ones(1, 28, 28)
    hole[:, 9:19, 9:19] = 0
    return {
        "inpainting (hole of 10 x 10)": inpainting(hole),
        "deblurring (1.5 pixels)": blur(1.5),
        "super-resolution (4 x 4)": super_resolution(4),
    }


def psnr(x: Tensor, truth: Tensor) -> float:
    """Of images in [-1, 1]: mean over images of 10 log10(4/mean square error)."""
    error = (x.clamp(-1, 1) - truth).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())


def solved(name: str, problem: Measurement, way: str, nfe: int, truth: Tensor) -> tuple[Tensor, float]:
    """Images from what was measured of the true ones, and seconds."""
    model, noise = ls.load("fashion"), torch.Generator().manual_seed(0)
    model.net.requires_grad_(False)
    y = problem.A(truth)
    y = y + NOISE * torch.randn(y.shape, generator=noise)
    x, started = ls.prior(model, len(truth), seed=5), time.perf_counter()
    if way == "svdd":
        x = sample_svdd(
            model, x, lambda data: -(problem.A(data) - y.repeat(len(data) // len(y), 1, 1, 1))
            .square().flatten(1).mean(1),
            nfe, proposals=PROPOSALS, alpha=TEMPERATURE, grid="karras", seed=5,
        )  # fmt: skip
    else:
        name, method = way.split(" on ")
        guided = {"dps": dps, "dds": dds}[name](model, problem, NOISE, spread=SPREAD)
        x = ls.sample(guided, x_init=x, method=method, nfe=nfe, grid="karras", seed=5, cond={"measured": y})
    return x, time.perf_counter() - started


def trained() -> Classifier:
    """A classifier of its own, two passes over 10,000 training images."""
    torch.manual_seed(1)
    data = load_images("fashion", "train")
    x, y = data.x[:10_000], data.y[:10_000]
    net = Classifier(1, 28, 10)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(2):
        for part in torch.randperm(len(x)).split(100):
            loss = F.cross_entropy(net(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def guided() -> dict:
    """Share of samples in the class asked for, before and after; and the pictures."""
    model, of, guide = ls.load("fashion"), judge("fashion"), trained()
    model.net.requires_grad_(False)
    plan = ls.plan_sampling(model.process, "bdia", 10, "karras")
    n = 20
    wanted = torch.arange(n) % 10
    start = ls.prior(model, n, seed=2)
    scale = model.process.prior_std
    z = (start / scale).requires_grad_()
    shares, first, started = [], None, time.perf_counter()
    for step in range(STEPS + 1):
        x = ls.sample(model, x_init=z * scale, plan=plan, grad="reverse" if step < STEPS else False)
        shares.append(class_agreement(of.classifier, x.detach(), wanted))
        first = x.detach() if first is None else first
        if step == STEPS:
            break
        (g,) = torch.autograd.grad(F.cross_entropy(guide(x), wanted, reduction="sum"), z)
        with torch.no_grad():  # a step of fixed length on the sphere where the noise is likely
            z = z - RATE * math.sqrt(z[0].numel()) * g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            z = z * (math.sqrt(z[0].numel()) / z.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
        z.requires_grad_()
    picture([first[:10], x[:10]], ["before", "after"], IMAGES / "classifier-guided.png")
    return {"shares": shares, "seconds": time.perf_counter() - started, "n": n}


def picture(rows: list[Tensor], names: list[str], path: Path) -> None:
    fig, axes = plt.subplots(len(rows), len(rows[0]), figsize=(len(rows[0]) * 0.9, len(rows) * 0.95))
    for line, row, name in zip(axes, rows, names, strict=True):
        for ax, image in zip(line, row, strict=True):
            ax.imshow(image[0].clamp(-1, 1), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
    fig.tight_layout(pad=0.3)
    fig.savefig(path, dpi=80, bbox_inches="tight", pad_inches=0.05)
    plt.close(fig)


def write(known: dict) -> None:
    lines = [
        "# Inverse problems on `fashion`",
        "",
        "Made by `python benchmarks/inverse_problems.py`.",
        "",
        f"PSNR in dB, mean over {COUNT} test images, noise {NOISE} on what is measured of data in [-1, 1]. "
        f"Evaluations are per image, those of all {PROPOSALS} proposals of svdd counted; dps also goes back "
        "through the network at each. svdd is on `ddpm`, the grid Karras. Unconditional.",
        "",
        "| problem | way | " + " | ".join(map(str, EVALUATIONS)) + " |",
        "|---" * (2 + len(EVALUATIONS)) + "|",
    ]
    for name in problems():
        for way in WAYS:
            found = [known.get(f"{name}/{way}/{nfe}") for nfe in EVALUATIONS]
            lines.append(f"| {name} | {way} | " + " | ".join(f"{f:.1f}" if f else "" for f in found) + " |")
    if "guided" in known:
        g = known["guided"]
        lines += [
            "",
            "## A classifier through the whole sampler",
            "",
            f"{g['n']} samples, two of each class wanted, 10 evaluations of `bdia`; the noise is moved "
            f'{STEPS} times along the gradient that `grad="reverse"` gives of the log-probability of a '
            "classifier trained for this. The judge, another classifier, finds the class wanted in this "
            "share of samples after 0, 1, ... moves: " + ", ".join(f"{s:.2f}" for s in g["shares"]) + ".",
        ]
    (RESULTS / "inverse_problems.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure again what is already known")
    arguments = parser.parse_args()
    path = RESULTS / "inverse_problems.json"
    known = json.loads(path.read_text()) if path.exists() and not arguments.fresh else {}
    truth = load_images("fashion", "test").x[:COUNT]

    def keep(name: str, value: object) -> None:
        known[name] = value
        path.write_text(json.dumps(known, indent=1) + "\n")
        write(known)
        print(name, value, flush=True)

    if "guided" not in known:
        keep("guided", guided())
    for nfe in EVALUATIONS:
        for name, problem in problems().items():
            for way in WAYS:
                if f"{name}/{way}/{nfe}" not in known:
                    x, _ = solved(name, problem, way, nfe, truth)
                    keep(f"{name}/{way}/{nfe}", psnr(x, truth))
    for name, problem in problems().items():
        stem = IMAGES / f"inverse-{name.split()[0]}.png"
        if not stem.exists() or arguments.fresh:
            seen = problem.A(truth)
            if seen.shape != truth.shape:
                seen = F.interpolate(seen, size=28, mode="nearest")
            rows = [solved(name, problem, way, 20, truth)[0] for way in PICTURED]
            picture([truth, seen, *rows], ["true", "measured", *PICTURED], stem)


if __name__ == "__main__":
    main()
