"""How good the embedded models' samples are: class agreement, and the Frechet distance against evaluations.

    python benchmarks/quality.py fashion

Goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import longstride as ls
from longstride.metrics import class_agreement, frechet_distance, statistics
from longstride.models import judge

RESULTS = Path(__file__).parent / "results"
# samples, method, NFE, all on the Karras grid
CASES = (
    (10_000, "ddpm", 40),
    (10_000, "dpmpp_2m", 40),
    (5_000, "dpmpp_2m", 10),
    (5_000, "ddim", 10),
    (5_000, "dpmpp_2m", 6),
)
HEAD = ("samples", "method", "NFE", "agreement", "Frechet distance", "seconds")


def measure(name: str, n: int, method: str, nfe: int) -> list:
    """One row: what was run, the share of samples in the class asked for, the distance, the seconds."""
    model, of = ls.load(name), judge(name)
    labels = torch.arange(n) % 10
    started = time.perf_counter()
    x = ls.sample(model, n, method=method, grid="karras", nfe=nfe, cond={"y": labels}, seed=1, batch=128)
    found = statistics(of.classifier, x)
    distance = frechet_distance(found.mean, found.cov, of.test.mean, of.test.cov)
    agreement = class_agreement(of.classifier, x, labels)
    seconds = time.perf_counter() - started
    return [n, method, nfe, round(agreement, 4), round(distance, 2), round(seconds)]


def write(name: str, rows: list[list]) -> None:
    of = judge(name)
    lines = [
        f"# Quality of the samples of `{name}`",
        "",
        f"Made by `python benchmarks/quality.py {name}`, seed 1, balanced labels, unguided, Karras grid. "
        f"On the {of.test.n} test images the classifier agrees with the label in {of.accuracy:.4f}; training "
        f"images are at a Frechet distance of {of.floor:.2f} from them, the floor. Seconds: on a shared "
        "machine of two cores.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]
    (RESULTS / f"quality-{name}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=ls.models.MODELS)
    parser.add_argument("--fresh", action="store_true", help="measure again what is already known")
    arguments = parser.parse_args()
    path = RESULTS / f"quality-{arguments.model}.json"
    rows = json.loads(path.read_text()) if path.exists() and not arguments.fresh else []
    for case in CASES:
        if list(case) not in [row[:3] for row in rows]:
            rows.append(measure(arguments.model, *case))
            print(arguments.model, *rows[-1], flush=True)
            path.write_text(json.dumps(rows) + "\n")
            write(arguments.model, rows)


if __name__ == "__main__":
    main()
