"""Training a small neural ODE to be easy to solve: evaluations at prediction, against the test loss.

    python benchmarks/regularization.py [--seeds 1,2,3,4,5] [--pilot]

Two tasks: "digits" of 8 x 8 pixels (1,300 to train on, 497 to test), whose state is the image; "rings",
three rings of points in the plane (1,000 and 500), whose state is the point and three zeros, and which no
linear layer tells apart. f is a tanh network of 64 units that sees t, and a linear layer reads the classes
off at t = 1. tsit5 in float64 at rtol = atol = 1e-6 under I control, samples on steps of their own; Adam on
batches of 128. The loss is the cross-entropy plus a weight times the mean of `Solution.penalty`. What differs
between the rows of a task is the penalty alone: data, order of batches and first weights of a seed are the
same.
Weights are chosen by `--pilot`, on seed 0, which is not in the table: of those tried the one of fewest
evaluations whose test loss was not above the unregularized one. Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import longstride as ls
from longstride.models.data import load_images

RESULTS = Path(__file__).parent / "results"
BATCH, TOL = 128, 1e-6
STEPS = {"digits": 200, "rings": 300}
PENALTIES = {
    "none": None,
    "error": ls.Regularize("error"),
    "stiffness": ls.Regularize("stiffness"),
    "local error, unbiased": ls.Regularize("error", "unbiased"),
    "local error, biased": ls.Regularize("error", "biased"),
    "local stiffness, unbiased": ls.Regularize("stiffness", "unbiased"),
}
TRIED = {
    "none": (0.0,),
    "error": (0.01, 0.1, 1.0),
    "stiffness": (0.0003, 0.003, 0.03),
    "local error, unbiased": (0.1, 1.0, 10.0),
    "local error, biased": (0.1, 1.0, 10.0),
    "local stiffness, unbiased": (0.003, 0.03, 0.3),
}


class Classifier(nn.Module):
    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(dim + 1, 64), nn.Linear(64, dim)
        self.read = nn.Linear(dim, classes)

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(torch.cat([x, t[:, None]], 1))))

    def forward(self, x: Tensor, penalty: ls.Regularize | None = None) -> tuple[Tensor, ls.Solution]:
        found = ls.solve(
            ls.ODE(self.f), x, t=(0, 1), rtol=TOL, atol=TOL, regularize=penalty, controller=ls.control.I()
        )
        return self.read(found.x[-1]), found


def data(task: str, split: str) -> tuple[Tensor, Tensor]:
    if task == "digits":
        x, y = load_images("digits", split)
        return x.flatten(1).double(), y
    n = {"train": 1000, "test": 500}[split]
    draw = torch.Generator().manual_seed({"train": 1, "test": 2}[split])
    uniform = torch.rand(3, n, generator=draw, dtype=torch.float64)
    y, angle = torch.arange(n) % 3, 2 * math.pi * uniform[0]
    radius = 0.5 * y + 0.4 * uniform[1]
    x = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    return torch.cat([x, torch.zeros(n, 3, dtype=torch.float64)], 1), y


def trained(task: str, name: str, weight: float, seed: int) -> dict[str, float]:
    """Test loss, accuracy and evaluations of one training, and its seconds."""
    torch.manual_seed(seed)
    x, y = data(task, "train")
    model = Classifier(x.shape[1], int(y.max()) + 1).double()
    adam, order = torch.optim.Adam(model.parameters(), lr=1e-2), torch.Generator().manual_seed(seed)
    began, spent = time.perf_counter(), 0
    for _ in range(STEPS[task]):
        batch = torch.randint(len(x), (BATCH,), generator=order)
        logits, found = model(x[batch], PENALTIES[name])
        loss = nn.functional.cross_entropy(logits, y[batch])
        if found.penalty is not None:
            loss = loss + weight * found.penalty.mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        spent += found.stats.nfe
    seconds = time.perf_counter() - began
    x, y = data(task, "test")
    with torch.no_grad():
        logits, found = model(x)
    return {
        "loss": float(nn.functional.cross_entropy(logits, y)),
        "accuracy": float((logits.argmax(1) == y).double().mean()),
        "nfe": float(found.stats.nfe_each.double().mean()),
        "training_nfe": spent / STEPS[task],
        "seconds": seconds,
    }


def chosen(found: dict, task: str, name: str) -> float:
    """What the pilot says."""
    plain = found[f"{task}|none|0.0|0"]["loss"]
    good = [w for w in TRIED[name] if found[f"{task}|{name}|{w}|0"]["loss"] <= plain]
    return min(good or TRIED[name][:1], key=lambda w: found[f"{task}|{name}|{w}|0"]["nfe"])


def complete(found: dict, task: str, seeds: list[int]) -> list[int]:
    """The seeds of which all rows are there."""
    return [
        seed
        for seed in seeds
        if all(f"{task}|{n}|{chosen(found, task, n)}|{seed}" in found for n in PENALTIES)
    ]


def tried(found: dict, task: str) -> str:
    """What every weight came to, over all seeds that it was trained with, the pilot's among them."""
    lines = [
        "| penalty | weight | seeds | test loss | loss of none | accuracy | NFE at prediction | over none |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, weights in TRIED.items():
        for w in weights:
            seeds = [key.split("|")[3] for key in found if key.startswith(f"{task}|{name}|{w}|")]
            rows = [found[f"{task}|{name}|{w}|{seed}"] for seed in seeds]
            plain = [found[f"{task}|none|0.0|{seed}"] for seed in seeds]
            mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
            other = {key: statistics.mean(row[key] for row in plain) for key in plain[0]}
            cells = [
                name,
                f"{w:g}",
                str(len(seeds)),
                f"{mean['loss']:.3f}",
                f"{other['loss']:.3f}",
                f"{mean['accuracy']:.3f}",
                f"{mean['nfe']:.1f}",
                f"{mean['nfe'] / other['nfe']:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(found: dict, task: str, seeds: list[int]) -> str:
    """Means over the seeds, with the NFE over the unregularized one of the same seed."""
    head = "| penalty | weight | test loss | accuracy | NFE at prediction | over none | NFE in training |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name in PENALTIES:
        w = chosen(found, task, name)
        rows = [found[f"{task}|{name}|{w}|{seed}"] for seed in seeds]
        plain = [found[f"{task}|none|0.0|{seed}"] for seed in seeds]
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        spread = statistics.stdev(row["loss"] for row in rows) if len(rows) > 1 else math.nan
        ratios = [row["nfe"] / other["nfe"] for row, other in zip(rows, plain, strict=True)]
        cells = [
            name,
            f"{w:g}",
            f"{mean['loss']:.3f}" + (f" +- {spread:.3f}" if len(rows) > 1 else ""),
            f"{mean['accuracy']:.3f}",
            f"{mean['nfe']:.1f}",
            f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{mean['training_nfe']:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--pilot", action="store_true")
    parser.add_argument("--report", action="store_true", help="train nothing more")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "regularization.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    seeds = [0] if arguments.pilot else [int(s) for s in arguments.seeds.split(",")]
    for seed in [] if arguments.report else seeds:
        for task in STEPS:
            for name in PENALTIES:
                for weight in TRIED[name] if arguments.pilot else (chosen(found, task, name),):
                    key = f"{task}|{name}|{weight}|{seed}"
                    if key not in found:
                        found[key] = trained(task, name, weight, seed)
                        path.write_text(json.dumps(found, indent=1) + "\n")
                        print(key, found[key], flush=True)
    if arguments.pilot:
        return
    parts = []
    for task in STEPS:
        done = complete(found, task, seeds)
        parts.append(f"## {task}\n\nSeeds {done}, weights by the pilot:\n\n{table(found, task, done)}")
        parts.append(
            f"Every weight, over the seeds it was trained with, 0 among them:\n\n{tried(found, task)}"
        )
    head = (
        "# Regularization by the solver's own estimates\n\n`python benchmarks/regularization.py`, see there "
        "what is trained. Means over the seeds, +- the standard deviation between them; in brackets the "
        "range.\n\n"
    )
    (RESULTS / "regularization.md").write_text(head + "\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
