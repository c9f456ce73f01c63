"""Likelihoods: bits per dimension of the embedded networks on held-out images, and what estimates cost.

Held-out images are dequantized evenly within their grey values; the density is that of the process at t_min
with the Gaussian prior, so the mean is an upper bound on the bits of the images. Goes on where it stopped:
figures already in the results are not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import longstride as ls
from longstride.likelihood import Likelihood, dequantized
from longstride.models import mixture
from longstride.models.data import load_images
from longstride.models.exact import Mixture, random_mixture

RESULTS = Path(__file__).parent / "results"
IMAGES = {"digits": (128, 17), "fashion": (48, 256)}  # how many, and their grey values
BITS = (  # model, trace, probes, whether labels are given, evaluations
    ("digits", "hutchinson", 2, "no", (12, 24, 48, 96)),
    ("fashion", "hutchinson", 2, "no", (12, 24, 48, 96)),
    ("digits", "exact", 0, "no", (12, 24)),
    ("digits", "hutchinson", 2, "yes", (48,)),
    ("fashion", "hutchinson", 2, "yes", (48,)),
)
METHODS = (("abm_4", {}), ("rk4", {}), ("dopri5", {}), ("krogstad", {"prediction": "noise"}), ("heun", {}))
F64 = torch.float64
PROCESSES = {"EDM": ls.process.EDM(), "VP": ls.process.VP(), "Flow": ls.process.Flow()}


def images(name: str) -> tuple[Tensor, Tensor]:
    """Held-out images and their labels."""
    count, levels = IMAGES[name]
    x, y = load_images(name, "test")
    return dequantized(x[:count].double(), levels), y[:count]


def mean(values: Tensor) -> list[float]:
    """The mean and its standard error."""
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


def bits(name: str, nfe: int, trace: str, probes: int, labelled: bool) -> dict:
    """Bits per dimension, their standard error over images, that of the trace, and the seconds it took."""
    (x, y), levels = images(name), IMAGES[name][1]
    begun = time.perf_counter()
    found = ls.log_likelihood(
        ls.load(name), x, nfe=nfe, trace=trace, probes=max(probes, 1), batch=32,
        cond={"y": y} if labelled else None,
    )  # fmt: skip
    each = found.standard_error.square().mean().sqrt() / (x[0].numel() * math.log(2))
    return {
        "bits": mean(found.bits(levels)),
        "trace": float(each / len(x) ** 0.5),
        "products": found.products,
        "seconds": time.perf_counter() - begun,
        "log_p": [round(v, 4) for v in found.log_p.tolist()],
    }


def density(of: Mixture, process: ls.process.Process, t: float) -> Callable[[Tensor], Tensor]:
    pair = process.pair(t)
    return lambda x: of.log_density(x, *(torch.full((len(x),), v, dtype=F64) for v in pair))


def noised(of: Mixture, process: ls.process.Process, n: int) -> Tensor:
    z = torch.randn(n, of.means.shape[1], dtype=F64, generator=torch.Generator().manual_seed(0))
    return process.add_noise(of.sample(n), process.t_min, z)


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def convergence(process: ls.process.Process, method: str, options: dict) -> dict:
    """Greatest error of log p in nats over 16 draws of a mixture in 8 dimensions, by nfe."""
    of = random_mixture(8, 3, seed=1)
    x = noised(of, process, 16)
    truth = density(of, process, process.t_min)(x)
    row = {}
    for nfe in (48, 96, 192, 384, 768):
        prior = density(of, process, process.t_max)
        try:
            found = ls.log_likelihood(mixture(of, process), x, nfe=nfe, method=method, prior=prior, **options)
        except ls.ArgumentError:
            return {}  # a frame that is infinite where alpha = 0
        row[str(nfe)] = float((found.log_p - truth).abs().max())
    return row


def priors(process: ls.process.Process) -> float:
    """Root mean square error of log p in nats that the Gaussian prior makes, in 8 dimensions."""
    of = random_mixture(8, 3, seed=1)
    x = noised(of, process, 64)
    exact, default = (
        ls.log_likelihood(mixture(of, process), x, nfe=192, prior=p)
        for p in (density(of, process, process.t_max), None)
    )
    return rms(default.log_p - exact.log_p)


def low_rank() -> Mixture:
    """Two components in 64 dimensions that are broad in four directions and narrow in the rest."""
    g = torch.Generator().manual_seed(0)
    bases = torch.linalg.qr(torch.randn(2, 64, 64, dtype=F64, generator=g)).Q
    variances = torch.cat([torch.full((4,), 1.0, dtype=F64), torch.full((60,), 1e-4, dtype=F64)])
    covs = bases * variances @ bases.mT
    return Mixture([1.0, 1.0], 0.5 * torch.randn(2, 64, dtype=F64, generator=g), (covs + covs.mT) / 2)


def estimates(of: Mixture) -> dict:
    """Root mean square error of log p in nats, and the standard error stated, by products an evaluation."""
    process = ls.process.VP()
    model, x = mixture(of, process), noised(of, process, 32)
    truth: Likelihood = ls.log_likelihood(model, x, nfe=24)
    rows = {}
    for trace in ("hutchinson", "hutch++"):
        for probes in (3, 6, 12, 24, 48):
            found = ls.log_likelihood(model, x, nfe=24, trace=trace, probes=probes)
            error, said = rms(found.log_p - truth.log_p), rms(found.standard_error)
            rows[f"{trace} {probes}"] = [error, said if math.isfinite(said) else None]
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def pages(stored: dict) -> str:
    """The results as text."""
    parts = ["# Likelihoods\n", f"`python benchmarks/likelihood.py`, torch {torch.__version__}, one core.\n"]
    for name, (count, levels) in IMAGES.items():
        rows = []
        for key, row in stored.items():
            if not key.startswith(f"bits {name} "):
                continue
            value, spread = row["bits"]
            last = [other for k, other in stored.items() if k.rsplit(" ", 1)[0] == key.rsplit(" ", 1)[0]][-1]
            off = (
                "-" if row is last else f"{rms(torch.tensor(row['log_p']) - torch.tensor(last['log_p'])):.2g}"
            )
            rows.append([*key.split()[2:], f"{value:.4f}", f"{spread:.4f}", f"{row['trace']:.2g}",
                         off, str(row["products"]), f"{row['seconds']:.0f}"])  # fmt: skip
        parts += [
            f"## `{name}`: {count} held-out images, {levels} grey values\n",
            "Bits per dimension, their standard error over images, the part of it that the trace's estimate "
            "makes, root mean square change of log p (nats) against the most evaluations with the same "
            "probes, products per image, seconds (of a core that others used as well).\n",
            table(["trace", "labels", "NFE", "bits/dim", "s.e.", "trace's", "off", "products", "s"], rows),
        ]
    marks = ["48", "96", "192", "384", "768"]
    rows = [
        [*key.split()[1:], *(f"{row[m]:.1e}" for m in marks)]
        for key, row in stored.items()
        if key.startswith("convergence ") and row
    ]
    parts += [
        "## Mixture of three Gaussians in 8 dimensions: greatest error of log p (nats) by NFE\n",
        "Exact trace, exact density at t_max, against the exact density at t_min.\n",
        table(["process", "method", *marks], rows),
        "What the Gaussian prior adds, root mean square in nats: "
        + ", ".join(f"{k.split()[1]} {v:.1e}" for k, v in stored.items() if k.startswith("prior ")) + ".\n",
        "## Estimates of the trace at equal products\n",
        "Root mean square error of log p (nats) against the exact trace and, in brackets, the standard error "
        "that the call states; 64 dimensions, VP, 24 evaluations.\n",
    ]  # fmt: skip
    kinds = [key for key in stored if key.startswith("estimates ")]
    rows = []
    for key in kinds:
        for trace in ("hutchinson", "hutch++"):
            pairs = [v for k, v in stored[key].items() if k.startswith(f"{trace} ")]
            cells = [f"{error:.3g} ({'-' if said is None else f'{said:.2g}'})" for error, said in pairs]
            rows.append([key.split(" ", 1)[1], trace, *cells])
    parts.append(table(["mixture", "trace", "3", "6", "12", "24", "48"], rows))
    return "\n".join(parts)


def jobs() -> dict[str, Callable[[], object]]:
    """Every figure by its name, cheapest first."""
    found: dict[str, Callable[[], object]] = {}
    found["estimates low rank"] = lambda: estimates(low_rank())
    found["estimates full rank"] = lambda: estimates(random_mixture(64, 8))
    for name, process in PROCESSES.items():
        found[f"prior {name}"] = lambda process=process: priors(process)
        for method, options in METHODS:
            run = lambda p=process, m=method, o=options: convergence(p, m, o)  # noqa: E731
            found[f"convergence {name} {method}"] = run
    for name, trace, probes, labels, nfes in BITS:
        for nfe in nfes:
            run = lambda a=(name, nfe, trace, probes, labels == "yes"): bits(*a)  # noqa: E731
            found[f"bits {name} {trace} {labels} {nfe}"] = run
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="figures whose name begins so")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "likelihood.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    for key, run in jobs().items():
        if key not in stored and key.startswith(args.only):
            stored[key] = run()
            ls.files.write_text(path, json.dumps(stored, indent=1) + "\n")
            print(key, str(stored[key])[:200], flush=True)
    ordered = {key: stored[key] for key in jobs() if key in stored}
    ls.files.write_text(RESULTS / "likelihood.md", pages(ordered))


if __name__ == "__main__":
    main()
