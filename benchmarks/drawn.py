"""What drawing the noises of a polish gives: `ls.tune` with `of=` beside the same without, over three seeds.

python benchmarks/drawn.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import longstride as ls
from longstride.models import mixture
from longstride.models.exact import Mixture

CASES = [(nfe, noises) for nfe in (4, 6, 8) for noises in (256, 1024)]
SEEDS, OF, JUDGED = (0, 1, 2), 32, 32768
ABOUT = f"""# Plain noises, and drawn ones

Made by `python benchmarks/drawn.py`. Three Gaussians in the plane, EDM. End-point error on {JUDGED:,} noises
that nothing was fitted to, of plans tuned on the first so many noises, and on as many drawn of {OF} times as
many (`of=`); thousands of evaluations that each took, its solutions of known noises left out. Three seeds.

| NFE | noises | plain | drawn | evaluations, plain | drawn |
|---|---|---|---|---|---|
"""


def three() -> ls.Denoiser:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    return mixture(Mixture(torch.ones(3), means, 0.05 * torch.eye(2).expand(3, 2, 2)), ls.process.EDM())


def main() -> None:
    torch.set_num_threads(1)
    model, lines = three(), []
    x = ls.prior(model, JUDGED, seed=9)
    truth = ls.reference(model, x)
    for nfe, noises in CASES:
        cells: list[list[str]] = [[], [], [], []]
        for seed in SEEDS:
            for k, of in enumerate((None, OF * noises)):
                plan = ls.tune(
                    model, nfe, noises=noises, of=of, select=2048, report=64, iterations=8, hops=2, seed=seed
                )
                error = ls.metrics.endpoint_error(ls.sample(model, x_init=x, plan=plan), truth)
                cells[k].append(f"{error:.4f}")
                cells[2 + k].append(f"{plan.report['evaluations'] / 1000:.0f}")
        lines.append(f"| {nfe} | {noises} | " + " | ".join(", ".join(cell) for cell in cells) + " |")
        print(lines[-1], flush=True)
    (Path(__file__).parent / "results" / "drawn.md").write_text(ABOUT + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
