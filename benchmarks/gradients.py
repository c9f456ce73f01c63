"""What gradients through a sampler cost: peak bytes of saved tensors and seconds, against evaluations.

    python benchmarks/gradients.py

One image of `digits`, `bdia` on the Karras grid, gradient of the sum of squares of the sample with respect to
its noise. Bytes: every tensor that autograd saves, in the run, in the transposed run and by the run's own
node, is counted by its storage from when it is packed to when it is let go; parameters are not. Goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
NFE = (10, 20, 50, 100, 200)
WAYS = {
    "backpropagation": True,
    "checkpoint": "checkpoint",
    "checkpoint, 4 states": ls.gradients.Checkpoint(4),
    "reverse": "reverse",
    "adjoint": "adjoint",
}


class Ledger:
    """Bytes of the storages that packed tensors hold, now and at most."""

    def __init__(self, beside: set[int]):
        self.beside, self.count, self.now, self.most = beside, dict[int, int](), 0, 0

    def pack(self, tensor: Tensor) -> Entry:
        return Entry(self, tensor)


class Entry:
    """A packed tensor, in the ledger for as long as this object lives."""

    def __init__(self, ledger: Ledger, tensor: Tensor):
        # Detached: an output that knows its own graph would keep it alive for ever.
        self.ledger, self.tensor = ledger, tensor.detach()
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        if self.key in ledger.beside:
            self.size = 0
        ledger.count[self.key] = ledger.count.get(self.key, 0) + 1
        if ledger.count[self.key] == 1:
            ledger.now += self.size
            ledger.most = max(ledger.most, ledger.now)

    def __del__(self) -> None:
        self.ledger.count[self.key] -= 1
        if not self.ledger.count[self.key]:
            self.ledger.now -= self.size


def measure(way: Any, nfe: int) -> dict[str, float]:
    """Peak bytes, seconds of the whole gradient, and seconds of the run alone."""
    model = ls.load("digits")
    plan = ls.plan_sampling(model.process, "bdia", nfe, "karras")
    x = ls.prior(model, 1).requires_grad_()
    beside = {p.untyped_storage().data_ptr() for p in model.net.parameters()}
    model.net.requires_grad_(False)
    ledger = Ledger(beside)
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda entry: entry.tensor):
        ls.sample(model, x_init=x, plan=plan, grad=way).square().sum().backward()
    seconds, alone = [], []
    for _ in range(3):
        started = time.process_time()
        ls.sample(model, x_init=x, plan=plan, grad=way).square().sum().backward()
        seconds.append(time.process_time() - started)
        started = time.process_time()
        ls.sample(model, x_init=x.detach(), plan=plan)
        alone.append(time.process_time() - started)
    return {"bytes": ledger.most, "seconds": min(seconds), "alone": min(alone)}


def write(known: dict[str, dict[str, float]]) -> None:
    def rows(cell: Any) -> list[str]:
        return [
            f"| {name} | "
            + " | ".join(cell(known[f"{name}/{n}"]) if f"{name}/{n}" in known else "" for n in NFE)
            + " |"
            for name in WAYS
        ]

    head = ["| | " + " | ".join(f"{n} NFE" for n in NFE) + " |", "|---" * (1 + len(NFE)) + "|"]
    lines = [
        "# Gradients: memory and time",
        "",
        "Made by `python benchmarks/gradients.py`: one image of `digits`, `bdia`, the gradient by its noise.",
        "",
        "## Peak of saved tensors, kB",
        "",
        "States that a checkpointed run keeps again on its way back (no more than it was allowed) and the "
        "handful of states that an adjoint carries are not saved tensors; a state of this model is 0.26 kB.",
        "",
        *head,
        *rows(lambda k: f"{k['bytes'] / 1e3:.1f}"),
        "",
        "## Processor seconds of run and gradient, as a multiple of the run alone",
        "",
        *head,
        *rows(lambda k: f"{k['seconds'] / k['alone']:.1f}"),
    ]
    (RESULTS / "gradients.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure again what is already known")
    arguments = parser.parse_args()
    path = RESULTS / "gradients.json"
    known = json.loads(path.read_text()) if path.exists() and not arguments.fresh else {}
    for nfe in NFE:
        for name, way in WAYS.items():
            if f"{name}/{nfe}" not in known:
                known[f"{name}/{nfe}"] = measure(way, nfe)
                print(name, nfe, known[f"{name}/{nfe}"], flush=True)
                path.write_text(json.dumps(known, indent=1) + "\n")
                write(known)


if __name__ == "__main__":
    main()
