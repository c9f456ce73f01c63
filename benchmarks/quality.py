"""How good the embedded models' samples are: class agreement, and the Frechet distance against evaluations.

    python benchmarks/quality.py fashion            # 10,000 samples at 40 NFE, then 5,000 at few
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import longstride as ls
import torch
from longstride.metrics import class_agreement, frechet_distance, statistics
from longstride.models import judge

RESULTS = Path(__file__).parent / "results"
FEW = (("ddim", "karras", 10), ("dpmpp_2m", "karras", 6), ("dpmpp_2m", "karras", 10))


def measure(name: str, n: int, method: str, grid: str, nfe: int, guidance: float = 1.0) -> list[str]:
    """One row: what was run, the share of samples in the class asked for, the distance, the seconds."""
    model, of = ls.load(name), judge(name)
    labels = torch.arange(n) % 10
    started = time.perf_counter()
    x = ls.sample(model, n, method=method, grid=grid, nfe=nfe, cond={"y": labels}, guidance=guidance, seed=1)
    found = statistics(of.classifier, x)
    distance = frechet_distance(found.mean, found.cov, of.test.mean, of.test.cov)
    agreement = class_agreement(of.classifier, x, labels)
    seconds = time.perf_counter() - started
    cells = (n, method, grid, nfe, guidance, f"{agreement:.4f}", f"{distance:.2f}", f"{seconds:.0f}")
    print(name, *cells, flush=True)
    return [str(cell) for cell in cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=ls.models.MODELS)
    parser.add_argument("--n", type=int, default=10_000, help="samples at 40 NFE; half as many at few")
    arguments = parser.parse_args()
    name, n = arguments.model, arguments.n
    of = judge(name)
    rows = [measure(name, n, "dpmpp_2m", "karras", 40)]
    rows += [measure(name, n // 2, *few) for few in FEW]
    head = ("samples", "method", "grid", "NFE", "guidance", "agreement", "Frechet distance", "seconds")
    lines = [f"# Quality of the samples of `{name}`", ""]
    lines += [
        f"Made by `python benchmarks/quality.py {name} --n {n}`, seed 1, balanced labels, unguided, "
        f"{torch.get_num_threads()} threads. On the {of.test.n} test images the classifier agrees with the "
        f"label in {of.accuracy:.4f}; as many training images are at a Frechet distance of {of.floor:.2f} from "
        "them, the floor.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    (RESULTS / f"quality-{name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
