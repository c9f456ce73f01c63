"""Tuned plans beside the best sampler of every peer, from the same noise, held out of everything.

    python benchmarks/tune.py --models mixture-edm --nfe 5,6

For each model and budget: `ls.tune` makes a plan on noises of its own, beginning also from what it has made
of fewer evaluations, if that is there; then the plan and every deterministic sampler on every grid of
diffusers, k-diffusion, azula and smalldiffusion run from the same report noises. The baseline is the best of
the peers on those noises. Where evaluations are dear (networks, the ideal digits) the peers' runs are those
that were best in endpoint.json. Goes on where it stopped; a row of other report noises is judged anew. With
`--again` a plan that is there is one of the beginnings of a new one, and its cost is part of the new one's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

import longstride as ls
import ours
import tasks
from endpoint import NFES, RESULTS, read_json, versions
from endpoint_tables import figure, split
from longstride.learn import Frechet, Free, polish_set
from longstride.learn.subject import Sampling
from longstride.metrics import frechet_distance, interval, squared_errors
from longstride.models.data import load_images
from peers import Task, runs

SEED = 1  # of the report noises; tune's own are of another generator
ASKED = {  # of the best peer's error: exact mixtures, ideal digits, networks
    "mixture": dict.fromkeys((5, 6, 8, 10), 1 / 3) | {4: 1 / 2},
    "digits-edm": dict.fromkeys((5, 6, 8, 10), 0.4),
    **{network: dict.fromkeys((5, 6, 8, 10), 1 / 2) for network in tasks.NETWORKS},
}
NOISES = {
    "digits-edm": {"noises": 8192, "of": 65536, "select": 8192, "report": 256, "batch": 1024},
    "digits": {"noises": 1024, "select": 256, "report": 64, "iterations": 10, "hops": 3},
    "fashion": {"noises": 384, "of": 1024, "select": 128, "report": 64, "iterations": 8, "hops": 2},
}
CHEAP = {"noises": 8192, "of": 65536, "select": 16384, "report": 256, "batch": 1024}
# Of a polish for the Frechet distance: noises, those of a Jacobian, and whether the last row alone moves,
# which takes no evaluations.
CROWD = {"digits": (4096, 512, False), "fashion": (2048, 256, True)}
TRAINING = 10000  # images that a network was trained on: distances from them, too
SCREENED, NEAR = 1000, 1.2  # noises that all peers run from; those this near to the best run from all noises
BATCH = 4000  # noises solved at once: whole turns of labels
CHECKED = 16  # noises whose answers tell one model from another
CACHE = Path(tempfile.gettempdir()) / "longstride-tune"  # solutions, which budgets share
# Where evaluations are dear: so many of each peer, the best at this budget in these tables of endpoint.json.
SCREEN = {
    "digits": (6, ("digits-edm", "mixture-edm")),
    "fashion": (3, ("fashion",)),
    "digits-edm": (30, ("digits-edm",)),
}


def commit() -> str:
    """Of the library that made the plan."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def peers_of(model: str, task: Task, nfe: int, count: int | None = None) -> list:
    """Every run of the peers; where they are dear, each peer's best at this budget in endpoint.json."""
    found = list(runs(task))
    if model not in SCREEN:
        return found
    best, tables = SCREEN[model]
    best = count or best
    keep = set()
    for table, peer in product(tables, {run.peer for run in found}):
        rows = read_json(RESULTS / "endpoint.json")[table]["rows"]
        mine = [key for key in rows if split(key)[0] == peer]
        keep |= {split(k) for k in sorted(mine, key=lambda k: figure(rows[k], str(nfe)))[:best]}
    return [run for run in found if (run.peer, run.sampler, run.grid) in keep]


def best_peer(
    model: str, task: Task, noise: torch.Tensor, truth: torch.Tensor, nfe: int, known: str | None = None
) -> tuple:
    """(error, squared errors, name, how many ran) of the best peer; of one that is known to be, alone.

    Labels are dealt out in turn, from the first of the screened noises and from the first of the others.
    """
    found = [(f"{run.peer}: {run.sampler} on {run.grid}", run) for run in peers_of(model, task, nfe)]
    if known:
        found = [(name, run) for name, run in found if name == known]

    def squares(run, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if not len(x):
            return truth.new_zeros(0)
        try:
            with torch.no_grad():
                ends = run.call(x, nfe)
            return torch.full((len(x),), math.inf) if ends is None else squared_errors(ends.double(), truth)
        except Exception:  # a peer's failure is no baseline
            return torch.full((len(x),), math.inf)

    def error(squares: torch.Tensor) -> float:
        return float(squares.mean().sqrt().nan_to_num(nan=math.inf, posinf=math.inf))

    first = {name: squares(run, noise[:SCREENED], truth[:SCREENED]) for name, run in found}
    limit = NEAR * min(map(error, first.values()))
    near = {
        name: torch.cat([first[name], squares(run, noise[SCREENED:], truth[SCREENED:])])
        for name, run in found
        if error(first[name]) <= limit
    }
    best = min(near, key=lambda name: error(near[name]))
    return error(near[best]), near[best], best, sum(error(one) < math.inf for one in first.values())


def named(model: str, nfe: int, seed: int, guidance: float) -> str:
    return (
        f"{model} {nfe}"
        + (f" seed {seed}" if seed else "")
        + (f" guidance {guidance:g}" if guidance != 1 else "")
    )


def tuned(network: ls.Denoiser, model: str, nfe: int, seed: int, guidance: float) -> tuple[ls.Plan, dict]:
    """The plan, and what it cost to make."""
    asked = NOISES.get(model, CHEAP)
    solutions = 128 * sum(asked[k] for k in ("noises", "select", "report"))
    known = (saved(model, k, seed, guidance) for k in range(2, nfe + 1))
    begin = [ls.Plan.load(path) for path in known if path.exists()]
    started = time.process_time()
    plan = ls.tune(
        network, nfe, cond=turns(model), guidance=guidance, seed=seed, begin=begin, cache=CACHE,
        progress=partial(print, flush=True), **asked
    )  # fmt: skip
    (RESULTS / "plans").mkdir(exist_ok=True)
    plan.save(saved(model, nfe, seed, guidance))
    return plan, {
        "evaluations": plan.report["evaluations"] + solutions,
        "seconds": round(time.process_time() - started, 1),
        "commit": commit(),
    }


def turns(model: str) -> dict | None:
    classes = tasks.classes(model)
    return {"y": torch.arange(classes)} if classes > 1 else None


def saved(model: str, nfe: int, seed: int, guidance: float) -> Path:
    return RESULTS / "plans" / f"{named(model, nfe, seed, guidance).replace(' ', '-')}.json"


def solved(model: str, task: Task, noise: torch.Tensor) -> torch.Tensor:
    """The solutions' from the report noises, which all budgets share; kept by what the model answers."""
    with torch.no_grad():
        answer = torch.cat([noise, task.denoise(noise[:CHECKED], 1.0)])
    # Of a mixture 400 move none of 1,000 by more than 3e-5.
    steps = 50 if model in tasks.NETWORKS else 200 if model.startswith("mixture") else 400
    digest = hashlib.sha256(answer.numpy().tobytes()).hexdigest()[:16]
    parts = noise.split(BATCH)
    return kept(f"report-{digest}", lambda: torch.cat([tasks.reference(task, z, steps) for z in parts]))


def kept(name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    path = CACHE / f"{name}.pt"
    if path.exists():
        return torch.load(path)
    with torch.no_grad():
        made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made, path)
    return made


def measure(
    model: str, nfe: int, n: int, seed: int, guidance: float, before: dict | None, again: bool
) -> dict:
    """before: the row of this plan as it was, if there is one: it is judged anew, or a beginning."""
    task = tasks.task(model, guidance)
    network = ls.load(model) if model in tasks.NETWORKS else ours.denoiser(task)
    if before and not again:
        plan = ls.Plan.load(saved(model, nfe, seed, guidance))
        cost = {k: before[k] for k in ("evaluations", "seconds", "commit")}
    else:
        goes_on = before if saved(model, nfe, seed, guidance).exists() else None
        plan, cost = tuned(network, model, nfe, seed, guidance)
        if goes_on:
            cost |= {k: cost[k] + goes_on[k] for k in ("evaluations", "seconds")}
    noise = tasks.noise(task, n, SEED)
    truth = solved(model, task, noise)
    given = (
        {"cond": {"y": torch.arange(n) % tasks.classes(model)}, "guidance": guidance} if turns(model) else {}
    )
    start = noise * network.process.sigma(network.process.t_max)
    squares = squared_errors(ls.sample(network, x_init=start, plan=plan, **given).double(), truth)
    # From the same noises the best peer is the same, whatever was tuned on.
    first = read_json(RESULTS / "tune.json").get(named(model, nfe, 0, guidance), {"n": 0})
    known = first["peer"] if first["n"] == n else None
    error, theirs, name, ran = best_peer(model, task, noise, truth, nfe, known)
    ran = first["peers run"] if known else ran
    low, high = interval(squares, theirs)
    return {
        "tuned": float(squares.mean().sqrt()), "interval": interval(squares), "what": plan.report["what"],
        "untuned": plan.report["untuned"]["what"], "peer": name, "peer error": error, "peers run": ran,
        "ratio": float(squares.mean().sqrt()) / error, "ratio interval": (low, high), "n": n,
        **cost, "versions": versions(),
    }  # fmt: skip


def nearer(model: str, nfe: int) -> ls.Plan:
    """The plan tuned for its ends, polished for the Frechet distance from training images on other noises."""
    path = RESULTS / "plans" / f"{model}-{nfe}-frechet.json"
    if path.exists():
        return ls.Plan.load(path)
    network, classifier = ls.load(model), ls.models.judge(model).classifier
    n, part, last = CROWD[model]

    def features(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([classifier.embedding(part.float()) for part in x.split(256)])

    objective = Frechet(load_images(model, "train").x[:TRAINING], features)
    crowd = Sampling(network, {"y": torch.arange(10)}, 1.0, n, seed=SEED, batch=256)
    ended = ls.Plan.load(RESULTS / "plans" / f"{model}-{nfe}.json")
    started, solver = time.process_time(), Free.of(ended, crowd.axis)
    before = [k for k in range(len(solver.vector())) if solver.begins(k) < nfe]
    solver, root = polish_set(
        crowd.field, solver, crowd.x, objective, part=part, fixed=before if last else range(nfe - 1),
        progress=lambda _, root: print(model, f"{root**2:.3f}", flush=True),
    )  # fmt: skip
    report = {
        "tuned_for": ended.report["tuned_for"],
        "what": f"{'its last row' if last else 'all of it'} polished for the Frechet distance",
        "noises": n, "distance of these": root**2, "evaluations": crowd.evaluations,
        "processor seconds": round(time.process_time() - started), "commit": commit(),
    }  # fmt: skip
    plan = solver.plan(report=report)
    plan.save(path)
    return plan


def distances(model: str, few: int, more: int, n: int) -> dict:
    """Frechet distances from the test images, and from images the network was trained on.

    Of both plans at `few`, of every peer's best for ends at `more`, and of the solutions.
    """
    of, task, network = ls.models.judge(model), tasks.task(model), ls.load(model)
    noise, labels = tasks.noise(task, n, SEED), torch.arange(n) % 10
    start = (noise * network.process.sigma(network.process.t_max)).float()

    def features(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([of.classifier.embedding(part.float()) for part in x.split(500)]).double()

    learned = features(load_images(model, "train").x[:TRAINING])
    test, training = (of.test.mean, of.test.cov), (learned.mean(0), learned.T.cov())

    def distance(x: torch.Tensor, data: tuple[torch.Tensor, ...]) -> float:
        return frechet_distance(x.mean(0), x.T.cov(), *data)

    plans = ls.Plan.load(RESULTS / "plans" / f"{model}-{few}.json"), nearer(model, few)
    ours = [features(ls.sample(network, x_init=start, plan=plan, cond={"y": labels})) for plan in plans]
    before = read_json(RESULTS / "tune-frechet.json").get(model, {})
    same = (before.get("more"), before.get("n")) == (more, n)  # then so are the peers, whatever was tuned
    theirs = dict(before["peers"]) if same else {}
    seen: dict[str, torch.Tensor] = {}
    rows = {f"{run.peer}: {run.sampler} on {run.grid}": run for run in peers_of(model, task, more, 1)}

    def ran(name: str) -> torch.Tensor:
        if name not in seen:
            parts = [rows[name].call(part, more) for part in noise.split(500)]  # whole turns of labels
            seen[name] = features(torch.cat(parts))
        return seen[name]

    for name in rows.keys() - theirs.keys():
        theirs[name] = [distance(ran(name), data) for data in (test, training)]
        print(model, name, *(f"{d:.3f}" for d in theirs[name]), flush=True)
    solutions = features(solved(model, task, noise))
    draws = [torch.from_numpy(picks) for picks in np.random.default_rng(0).integers(n, size=(200, n))]

    def beside(k: int, data: tuple[torch.Tensor, ...]) -> dict:
        best = min(theirs, key=lambda name: theirs[name][k])
        mine = [distance(x, data) for x in ours]
        nearest = ours[mine.index(min(mine))]
        ratios = [distance(nearest[some], data) / distance(ran(best)[some], data) for some in draws]
        return {
            "tuned": mine[0], "tuned for it": mine[1], "peer": best, "peer distance": theirs[best][k],
            "ratio interval": np.quantile(ratios, [0.025, 0.975]).tolist(),
            "solutions": distance(solutions, data),
        }  # fmt: skip

    return {
        "few": few, "more": more, "n": n, "peers": theirs, "floor": of.floor,
        "test": beside(0, test), "training": beside(1, training),
    }  # fmt: skip


HEAD = ("model", "NFE", "best peer", "its error", "tuned", "ratio", "95 %", "asked", "n", "peers' runs",
        "evaluations", "seconds", "commit")  # fmt: skip
ABOUT = """# Tuned plans beside the best peer

Made by `python benchmarks/tune.py`. End-point error on n report noises that nothing was fitted to or chosen
on. The peer is the best of all its runs from the same noises; of more than 1,000, all run from the first of
them and those within a fifth of the best from all. The interval of the ratio is a paired 95 % bootstrap.
Evaluations are of single samples, seconds of processor time, on one thread; the solutions, which the budgets
of a model share, are in the seconds of the first. A plan that began from an older one of its budget has the
cost of both. The plans are in `plans/`.
"""


def write(figures: dict, path: Path) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n")
    rows = [HEAD, ["---"] * len(HEAD)]
    for key, r in sorted(figures.items(), key=lambda kv: (kv[0].split()[0], int(kv[0].split()[1]))):
        model, nfe, *seed = key.split()
        asked = ASKED["mixture" if model.startswith("mixture") else model].get(int(nfe))
        low, high = r["ratio interval"]
        rows.append([
            " ".join([model, *seed]), nfe, r["peer"], f"{r['peer error']:.4f}", f"{r['tuned']:.4f}",
            f"{r['ratio']:.3f}", f"{low:.3f} to {high:.3f}", "" if asked is None else f"{asked:.3f}",
            str(r["n"]), str(r["peers run"]), f"{r['evaluations']:,}", f"{r['seconds']:.0f}", r["commit"],
        ])  # fmt: skip
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    path.with_suffix(".md").write_text(f"{ABOUT}\n{table}\n{distances_table()}")


def distances_table() -> str:
    found = read_json(RESULTS / "tune-frechet.json")
    lines = []
    for model, r in found.items():
        for data in ("test", "training"):
            d = r[data]
            low, high = d["ratio interval"]
            lines.append(
                f"| {model} | {data} | {r['few']} | {d['tuned']:.3f} | {d['tuned for it']:.3f} | "
                f"{r['more']} | "
                f"{d['peer']} | {d['peer distance']:.3f} | {low:.2f} to {high:.2f} | "
                f"{d['solutions']:.3f} | {r['n']} |"
            )
    head = (
        "| model | from images of | NFE | tuned for ends | for this | NFE | best peer | its distance | "
        "ours over it, 95 % | solutions | samples |"
    )
    floors = ", ".join(f"{model} {r['floor']:.2f}" for model, r in found.items())
    about = (
        "Frechet distance from the test images, and from training images; each peer's best sampler for ends\n"
        "at its budget run, the best of these by each distance. The plan for this distance is that for\n"
        "ends, polished for that from training images on noises of its own.\n"
        "The interval is of the better plan's over the peer's, by resampling the noises; solutions are the\n"
        f"ends of converged runs. As many training images as there are test images are from these: {floors}."
    )
    return "\n".join(["", about, "", head, "|" + "---|" * 11, *lines, ""]) if lines else ""


def write_json(path: Path, found: dict) -> None:
    path.write_text(json.dumps(read_json(path) | found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=lambda s: s.split(","), default=list(tasks.EXACT))
    parser.add_argument("--nfe", type=lambda s: [int(v) for v in s.split(",")], default=list(NFES[:5]))
    parser.add_argument("--n", type=int, help="report noises (1024); rows of others are judged anew")
    parser.add_argument("--again", action="store_true", help="plans that are there are begun from")
    parser.add_argument("--seed", type=int, default=0, help="of the noises that are tuned on")
    parser.add_argument("--guidance", type=float, default=1.0, help="of a network, and of its peers")
    parser.add_argument("--frechet", action="store_true", help="distances at 6 beside the peers' at 10")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "tune.json"
    for model in arguments.models if arguments.frechet else ():
        found = distances(model, 6, 10, arguments.n or 5000)
        write_json(RESULTS / "tune-frechet.json", {model: found})
        write(read_json(path), path)
        for data in ("test", "training"):
            d = found[data]
            print(
                model,
                data,
                f"{d['tuned']:.3f}, for it {d['tuned for it']:.3f}",
                d["peer distance"],
                d["peer"],
            )
    for model in () if arguments.frechet else arguments.models:
        for nfe in arguments.nfe:
            key = named(model, nfe, arguments.seed, arguments.guidance)
            before, n = read_json(path).get(key), arguments.n or 1024
            if before and before["n"] == n and not arguments.again:
                continue
            found = measure(model, nfe, n, arguments.seed, arguments.guidance, before, arguments.again)
            write(read_json(path) | {key: found}, path)
            print(
                key, f"{found['tuned']:.4f} beside {found['peer error']:.4f} of {found['peer']}", flush=True
            )


if __name__ == "__main__":
    main()
