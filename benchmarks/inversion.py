"""There and back: round trips of every exact method, and class changes on `fashion`.

    python benchmarks/inversion.py

Goes on where it stopped; --fresh measures again. About half an hour on one core, most of it the networks.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import longstride as ls
from longstride.metrics import class_agreement
from longstride.models import ideal, judge, mixture
from longstride.models.data import load_images
from longstride.models.exact import Mixture, random_mixture
from longstride.report import Strip, picture_grid

RESULTS = Path(__file__).parent / "results"
NFE = (5, 10, 20, 50, 100)
GUIDANCE = (0.0, 1.0, 2.5, 5.0, 7.5)
NETWORK = (0.0, 2.5, 7.5)  # guidance of the networks, which take longer
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "bdia": ("bdia", {}),
    "bdia, gamma = 1": ("bdia", {"gamma": 1.0}),
    "bdia, gamma = 0.5": ("bdia", {"gamma": 0.5}),
    "rev_adams_2": ("rev_adams_2", {}),
    "rev_adams_3": ("rev_adams_3", {}),
    "edict": ("edict", {}),
}
F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
# model, dtype of the network, of the state, samples
CASES = (
    ("mixture", F64, F64, 8),
    ("mixture VP", F64, F64, 8),
    ("mixture flow", F64, F64, 8),
    ("ideal digits", F64, F64, 8),
    ("digits", F64, F64, 4),
    ("digits", F32, F32, 4),
    ("digits", BF16, F32, 4),
    ("digits", F32, F64, 4),
    ("digits", BF16, F64, 4),
    ("fashion", F32, F32, 1),
    ("fashion", F64, F64, 1),
    ("fashion", BF16, F32, 1),
)
PAIRS = ((2, 4), (7, 9), (0, 3), (5, 7))  # labels, from and to
EACH = 8  # images of a pair
NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "BDIA": ("bdia", {}),
    "reversible Adams 2": ("rev_adams_2", {}),
    "reversible Adams 3": ("rev_adams_3", {}),
    "EDICT": ("edict", {}),
    "DDIM inversion": ("ddim", {"fixed_point": True, "iterations": 0}),
    "RF-Solver inversion": ("rf_solver_2", {"fixed_point": True, "iterations": 0}),
    "DDIM, fixed point": ("ddim", {"fixed_point": True, "iterations": 30, "tolerance": 1e-5}),
}
STRENGTHS = (1.0, 2.5)  # guidance towards the new label


def conditional(parts: Sequence[ls.Denoiser], whole: ls.Denoiser) -> ls.Denoiser:
    """cond y = k asks part k, and the null condition the whole."""

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        out = whole.net(x, t)
        for k, part in enumerate(parts):
            mine = y == k
            if mine.any():
                out[mine] = part.net(x[mine], t[mine])
        return out

    return ls.Denoiser(net, whole.process, shape=whole.shape, null={"y": len(parts)}, name="conditional")


def mixtures(process: ls.process.Process) -> tuple[ls.Denoiser, Tensor, Tensor]:
    d = random_mixture(dim=8, components=4)
    parts = [
        mixture(Mixture(d.weights[k : k + 1], d.means[k : k + 1], d.covs[k : k + 1]), process)
        for k in range(4)
    ]
    y = torch.arange(8) % 4
    factors = torch.linalg.cholesky(d.covs[y])
    z = torch.randn(8, 8, 1, generator=torch.Generator().manual_seed(1), dtype=F64)
    return conditional(parts, mixture(d, process)), d.means[y] + (factors @ z)[..., 0], y


@cache
def material(name: str, dtype: torch.dtype) -> tuple[ls.Denoiser, Tensor, Tensor]:
    """A model, data [n, *shape] and labels [n]."""
    processes: dict[str, Callable[[], ls.process.Process]] = {
        "mixture": ls.process.EDM, "mixture VP": ls.process.VP, "mixture flow": ls.process.Flow,
    }  # fmt: skip
    if name in processes:
        return mixtures(processes[name]())
    if name == "ideal digits":
        held, known = load_images("digits", "test"), load_images("digits", "train")
        parts = [ideal(known.x[known.y == k]) for k in range(10)]
        return conditional(parts, ideal(known.x)), held.x[:8], held.y[:8]
    held = load_images(name, "test")
    return ls.load(name).to(dtype=dtype), held.x[:8], held.y[:8]


def round_trip(
    name: str, net: torch.dtype, state: torch.dtype, n: int, label: str, guidance: float, nfe: int
):
    """[largest relative error of a sample, root mean square of the state over that of noised data]."""
    model, x, y = material(name, net)
    method, options = METHODS[label]
    x, told = x[:n].to(state), {"cond": {"y": y[:n]}, "guidance": guidance}
    try:
        found = ls.invert(model, x, method=method, nfe=nfe, **options, **told)
        back = ls.sample(model, x_init=found, **told)
    except ls.SolveError as error:
        return [None, str(error)]
    alpha, sigma = model.process.pair(found.t)
    scale = math.sqrt(alpha**2 * float(x.square().mean()) + sigma**2)
    error = ((back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max()
    return [float(error), float(found.x.square().mean().sqrt()) / scale]


def edited(label: str, nfe: int = 20) -> dict[str, Any]:
    """Class changes of test images at each strength: figures, and pictures of the first two of a pair."""
    model, held = ls.load("fashion"), load_images("fashion", "test")
    rows = torch.cat([(held.y == a).nonzero()[:EACH, 0] for a, _ in PAIRS])
    x, y = held.x[rows], held.y[rows]
    target = torch.tensor([b for _, b in PAIRS]).repeat_interleave(EACH)
    method, options = EDITS[label]
    stats = ls.Stats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the residual says it
        state = ls.invert(model, x, method=method, nfe=nfe, cond={"y": y}, stats=stats, **options)
    found: dict[str, Any] = {"nfe": stats.nfe}
    found["residual"] = None if state.residual is None else float(state.residual.max())
    found["back"] = rms(ls.sample(model, x_init=state, cond={"y": y}) - x)
    for strength in STRENGTHS:
        z = ls.sample(model, x_init=state, cond={"y": target}, guidance=strength)
        agreement = class_agreement(judge("fashion").classifier, z, target)
        found[str(strength)] = [rms(z - x), agreement]
        if strength == 2.5:
            found["pictures"] = shown(z)
    found["originals"] = shown(x)
    return found


def shown(x: Tensor) -> list[Any]:
    """The first two of each pair, to three digits."""
    few = x.unflatten(0, (-1, EACH))[:, :2].flatten(0, 1).flatten(1)
    return [[round(v, 3) for v in row] for row in few.tolist()]


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def write(known: dict[str, Any]) -> None:
    trips, edits = known["round trips"], known["edits"]
    pairs = ", ".join(f"{NAMES[a]} to {NAMES[b]}" for a, b in PAIRS)
    lines = [
        "# Inversion",
        "",
        "Made by `python benchmarks/inversion.py`.",
        "",
        "## Round trips",
        "",
        "Data inverted with `ls.invert` and sampled back with `ls.sample(x_init=state)` under the same label "
        "and guidance: the largest relative error of a sample. In brackets the root mean square of the "
        "state over what noised data have at its time, where that is not between 0.5 and 2.",
    ]
    for name, net, state, n in CASES:
        head = f"{name}, network {short(net)}, state {short(state)}"
        rows = []
        for label in METHODS:
            for guidance in levels(name):
                cells = [trips.get(key(name, net, state, label, guidance, nfe)) for nfe in NFE]
                if all(cells):
                    shown = " | ".join(cell(*c) for c in cells if c)
                    rows.append(f"| {label} | {guidance:g} | {shown} |")
        if rows:
            lines += ["", f"### {head}", "", f"Samples: {n}.", ""]
            lines += ["| method | guidance | " + " | ".join(f"{k} NFE" for k in NFE) + " |"]
            lines += ["|" + "---|" * (2 + len(NFE)), *rows]
    lines += [
        "",
        "## Class changes on `fashion`",
        "",
        f"{EACH * len(PAIRS)} test images ({EACH} each of {pairs}) inverted under their label without "
        "guidance, 20 NFE, then sampled under the other label. Distance to the original: root mean square "
        "of a pixel in [-1, 1]. Agreement: share that the judge puts in the new "
        "class. Back: distance under the old label, which is the round trip. NFE: of the inversion, the "
        "residual's included where there is one.",
        "",
        "| method | NFE | residual | back | "
        + " | ".join(f"guidance {s:g}: distance, agreement" for s in STRENGTHS) + " |",
        "|" + "---|" * (4 + len(STRENGTHS)),
    ]  # fmt: skip
    for label in (label for label in EDITS if label in edits):
        e = edits[label]
        residual = "" if e["residual"] is None else f"{e['residual']:.0e}"
        cells = " | ".join("{:.3f}, {:.2f}".format(*e[str(s)]) for s in STRENGTHS)
        lines.append(f"| {label} | {e['nfe']} | {residual} | {e['back']:.1e} | {cells} |")
    (RESULTS / "inversion.md").write_text("\n".join(lines) + "\n")


def cell(error: float | None, scale: Any) -> str:
    if error is None:
        return "not finite"
    return f"{error:.0e}" + ("" if 0.5 <= scale <= 2 else f" ({scale:.0e})")


def levels(name: str) -> tuple[float, ...]:
    return NETWORK if name in ls.models.MODELS else GUIDANCE


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def key(name: str, net: torch.dtype, state: torch.dtype, label: str, guidance: float, nfe: int) -> str:
    return f"{name} | {short(net)} | {short(state)} | {label} | {guidance:g} | {nfe}"


def images(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows).reshape(-1, *ls.load("fashion").shape)


def pictures(edits: dict[str, Any]) -> None:
    first = next(iter(edits.values()))
    strips = [Strip("original", images(first["originals"]))]
    for label in EDITS:
        e = edits[label]
        note = "distance {:.2f}, agreement {:.2f}".format(*e["2.5"])
        strips.append(Strip(label, images(e["pictures"]), note))
    picture_grid(
        strips,
        RESULTS.parent.parent / "docs" / "images" / "editing.png",
        "One class made into another",
        "fashion, inverted under one label and sampled under another; 20 NFE, guidance 2.5",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure again what is already known")
    parser.add_argument(
        "--models", default="", help="of the round trips, such as digits,fashion; all by default"
    )
    arguments = parser.parse_args()
    path = RESULTS / "inversion.json"
    known: dict[str, Any] = {"round trips": {}, "edits": {}}
    if path.exists() and not arguments.fresh:
        known = json.loads(path.read_text())

    def keep() -> None:
        path.write_text(json.dumps(known) + "\n")
        write(known)

    for label in EDITS:
        if label not in known["edits"]:
            known["edits"][label] = edited(label)
            print(label, flush=True)
            keep()
    pictures(known["edits"])
    asked = arguments.models.split(",") if arguments.models else [name for name, *_ in CASES]
    for name, net, state, n in CASES:
        for label in METHODS:
            for guidance in levels(name):
                for nfe in NFE:
                    k = key(name, net, state, label, guidance, nfe)
                    if k not in known["round trips"] and name in asked:
                        known["round trips"][k] = round_trip(name, net, state, n, label, guidance, nfe)
            print(name, short(net), label, flush=True)
            keep()


if __name__ == "__main__":
    main()
