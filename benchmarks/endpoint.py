"""End-point error of every sampler and grid, ours and the peers', from the same noise on the same model.

The error is the root mean square over elements and samples against a converged reference. Goes on where it
stopped: figures already in the results are not computed again (--fresh does).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

import endpoint_tables
import tasks
from peers import Run, Task, counted
from peers import runs as peer_runs

RESULTS = Path(__file__).parent / "results"
NFES = (4, 5, 6, 8, 10, 15, 20)
SCREENS = ("mixture-edm", "digits-edm")  # what is run on `fashion` was best of its library on these
SEED = 0
PACKAGES = ("torch", "longstride", "diffusers", "k-diffusion", "azula", "smalldiffusion")


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def command() -> str:
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def all_runs(task: Task, peers: list[str]) -> Iterator[Run]:
    yield from peer_runs(task, tuple(p for p in peers if p != "longstride"))
    if "longstride" in peers:
        from ours import runs as our_runs

        yield from our_runs(task)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, data: dict) -> None:
    """Whole or not at all, and keeping the rows that another run has added in the meantime."""
    path.parent.mkdir(exist_ok=True)
    for model, entry in read_json(path).items():
        if model != "about":
            mine = data.setdefault(model, entry)["rows"]
            for key, row in entry["rows"].items():
                mine.setdefault(key, row)
    part = path.with_suffix(".part")
    lines = []
    for model, entry in sorted(data.items()):
        rows = entry.get("rows", {})
        rest = json.dumps({k: v for k, v in entry.items() if k != "rows"})
        body = ",\n".join(f"{json.dumps(k)}: {json.dumps(rows[k])}" for k in sorted(rows))
        comma = "" if rest == "{}" else ", "
        tail = f'{comma}"rows": {{\n{body}}}}}' if model != "about" else "}"
        lines.append(f"{json.dumps(model)}: {rest[:-1]}{tail}")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    os.replace(part, path)


def measure(run: Run, counter: object, noise: torch.Tensor, truth: torch.Tensor, nfe: int) -> list | None:
    """[error or what went wrong, evaluations], None where the sampler cannot spend nfe."""
    counter.calls = 0  # type: ignore[attr-defined]
    try:
        with torch.no_grad():
            x = run.call(noise, nfe)
    except Exception as error:  # a peer's failure is a result, and the next sampler is to be measured
        return [f"{type(error).__name__}: {error}"[:120], counter.calls]  # type: ignore[attr-defined]
    if x is None:
        return None
    calls = counter.calls  # type: ignore[attr-defined]
    if calls > nfe:
        raise AssertionError(f"{run.peer} {run.sampler} on {run.grid} spent {calls} of {nfe}")
    error = float((x.double() - truth).square().mean().sqrt())
    return [float(f"{error:.5g}") if math.isfinite(error) else "not finite", calls]


def screened(figures: dict, runs: list[Run], best: int) -> set[tuple[str, str, str, str]]:
    """(peer, sampler, grid, nfe): every peer's `best` at that NFE on each exact model of the same process."""
    keep: set[tuple[str, str, str, str]] = set()
    known = {(r.peer, r.sampler, r.grid) for r in runs}
    for model, peer in product(SCREENS, sorted({peer for peer, _, _ in known})):
        rows = {endpoint_tables.split(k): row for k, row in figures.get(model, {}).get("rows", {}).items()}
        mine = {key: row for key, row in rows.items() if key in known and key[0] == peer}
        if not mine:
            raise SystemExit(f"fashion is screened on {model}, where {peer} was not run yet: run that first")
        for nfe in map(str, NFES):
            ranked = sorted((endpoint_tables.figure(row, nfe), key) for key, row in mine.items())
            keep |= {(*key, nfe) for error, key in ranked[:best] if math.isfinite(error)}
    return keep


def run_model(model: str, figures: dict, args: argparse.Namespace, path: Path) -> None:
    task, counter = counted(tasks.task(model))
    n = args.n or (32 if model == "fashion" else 64)
    noise = tasks.noise(task, n, SEED)
    entry = figures.setdefault(model, {"rows": {}})
    if entry.get("n", n) != n:
        raise SystemExit(f"{model} was measured with n = {entry['n']}: give --n {entry['n']} or --fresh")
    steps = 150 if model == "fashion" else 1000
    with torch.no_grad():
        truth = tasks.reference(task, noise, steps)
        coarse = tasks.reference(task, noise, steps // 2)
    entry["command"] = command()
    entry["n"], entry["reference"] = n, float(f"{(truth - coarse).square().mean().sqrt():.2g}")
    print(
        f"{model}: {n} noises; halving the reference's steps changes it by {entry['reference']}", flush=True
    )
    runs = list(all_runs(task, args.peers))
    keep = None
    if model == "fashion" and args.screen:
        keep = screened(figures, runs, args.screen)
        runs = [r for r in runs if (r.peer, r.sampler, r.grid) in {key[:3] for key in keep}]
        entry.setdefault("screen", {}).update({str(nfe): args.screen for nfe in args.nfe})
    saved = time.monotonic()
    for i, run in enumerate(runs, 1):
        row = entry["rows"].setdefault(" | ".join((run.peer, run.sampler, run.grid)), {"nfe": {}})
        if run.note:
            row["note"] = run.note
        for nfe in args.nfe:
            wanted = keep is None or (run.peer, run.sampler, run.grid, str(nfe)) in keep
            if wanted and str(nfe) not in row["nfe"]:
                row["nfe"][str(nfe)] = measure(run, counter, noise, truth, nfe)
        if time.monotonic() - saved > 15 or i == len(runs):
            saved = time.monotonic()
            write_json(path, figures)
            print(f"  {i}/{len(runs)} {run.peer}: {run.sampler} on {run.grid}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=lambda s: s.split(","), default=list(tasks.EXACT))
    parser.add_argument("--nfe", type=lambda s: [int(v) for v in s.split(",")], default=list(NFES))
    parser.add_argument("--n", type=int, help="noises (64, fashion 32)")
    parser.add_argument(
        "--peers",
        type=lambda s: s.split(","),
        default=["diffusers", "k_diffusion", "azula", "smalldiffusion", "longstride"],
    )
    parser.add_argument(
        "--screen", type=int, default=12, help="fashion: only each peer's best on exact models"
    )
    parser.add_argument("--fresh", action="store_true", help="forget these models' and peers' figures first")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    unknown = set(args.models) - set(tasks.MODELS)
    if unknown:
        parser.error(f"unknown models {sorted(unknown)}: choose from {', '.join(tasks.MODELS)}")
    torch.set_num_threads(args.threads)
    path = RESULTS / "endpoint.json"
    stored = read_json(path)
    if args.fresh:
        for model in args.models:
            rows = stored.get(model, {}).get("rows", {})
            kept = {k: v for k, v in rows.items() if endpoint_tables.split(k)[0] not in args.peers}
            stored[model] = {"rows": kept}
        path.unlink(missing_ok=True)
        write_json(path, stored)
    stored["about"] = {"command": command(), "versions": versions(), "seed": SEED}
    for model in args.models:
        run_model(model, stored, args, path)
    endpoint_tables.write(stored, RESULTS)


if __name__ == "__main__":
    main()
