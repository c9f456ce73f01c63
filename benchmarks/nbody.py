"""Bodies beside REBOUND: the same methods at the same steps, 1,000 orbits, a batch's throughput.

    python benchmarks/nbody.py [PART ...]

REBOUND_PYTHON names an interpreter that has REBOUND (5.2.2 here). Parts: steps, radau, batch. Results
of each are kept as soon as it is done, in results/nbody.json, and the page is written anew.

- steps: the outer Solar System for 200,000 days. The largest relative energy error after each tenth, of the
  same method with the same steps, and for those that choose, at their usual parameter; Bulirsch-Stoer at
  a tolerance that comes near the error of REBOUND's at 1e-8, which estimates it otherwise.
- radau: Sun, Jupiter and Saturn from 20 random phases, 1,000 orbits of Jupiter; root mean square of the
  relative energy error at the end. IAS15 as it is, Gauss-Radau 15 with rtol = 1e-9, compiled; processor
  time of either in seconds, not of compiling.
- batch: 4,096 systems of three stars, leapfrog with the same steps of 1e-3, compiled, in the plane and in
  space, against a loop over REBOUND, which is in space always and timed on 64 of them; also Gauss-Radau 15
  to t = 2 and, compiled, to t = 20, and one system alone. One thread, in turn, processor time of a whole run
  of one system: the least of nine (us, peer_us, times), and the median of the nine ratios. first_s: seconds
  of the first run, most of which compile. REBOUND's loop is over sim.steps(n), where steps are equal, else
  sim.integrate(t), in C both; the simulations are made before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import longstride as ls
from longstride.nbody import Gravity, kepler_step, three_stars_at

COMPILED = "gauss_radau_15, compiled"
RESULTS, F64 = Path(__file__).parent / "results", torch.float64
PEER = os.environ.get("REBOUND_PYTHON", "")


def rebound(*runs: dict[str, Any]) -> list[dict[str, Any]]:
    script = Path(__file__).parent / "peers" / "rebound_.py"
    done = subprocess.run(
        [PEER, str(script)], input=json.dumps(runs), capture_output=True, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def run_of(bodies: Gravity, x0: Tensor, method: str, **how: Any) -> dict[str, Any]:
    return {"G": bodies.G, "masses": bodies.masses.tolist(), "method": method, "starts": x0.tolist(), **how}


def equal(end: float, dt: float) -> dict[str, Any]:
    return {"dt": dt, "steps": round(end / dt)}


def steps() -> list[dict[str, Any]]:
    system, end = ls.systems.outer_solar_system(), 200_000.0
    bodies, marks = system.acceleration.gravity, [end * k / 10 for k in range(1, 11)]
    rows = []
    for ours, theirs, how in [
        ("leapfrog_dkd", "leapfrog", {"dt": 50.0}), ("wisdom_holman", "whfast", {"dt": 200.0}),
        ("gauss_radau_15", "ias15", {"rtol": 1e-9}), ("bulirsch_stoer", "bs", {"rtol": 2e-11, "atol": 2e-14}),
    ]:  # fmt: skip
        found = ls.solve(system, system.x0, t=(0.0, end), method=ours, save_at=marks, **how)
        mine = (bodies.energy(found.x) / bodies.energy(system.x0) - 1).abs()
        runs = [
            run_of(bodies, system.x0, theirs, **(equal(m, how["dt"]) if "dt" in how else {"end": m}))
            for m in marks
        ]  # fmt: skip
        peer = rebound(*runs)
        apart = torch.tensor(peer[-1]["ends"], dtype=F64) - found.x_end[:, 0]
        rows.append({
            "ours": ours, "theirs": theirs, **how, "error": float(mine.max()),
            "peer_error": max(abs(p["errors"][0]) for p in peer), "steps": found.stats.steps,
            "nfe": found.stats.nfe, "peer_steps": peer[-1]["steps"], "apart_au": float(apart.abs().max()),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def phases(n: int) -> tuple[Gravity, Tensor]:
    """Sun, Jupiter and Saturn, each planet moved along its orbit by a random time."""
    system = ls.systems.outer_solar_system()
    whole, x = system.acceleration.gravity, system.x0[0]
    bodies = Gravity(whole.masses[:3], G=whole.G)
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    q, v = [torch.zeros(n, 3, dtype=F64)], [torch.zeros(n, 3, dtype=F64)]
    for i in (1, 2):
        mu = float(whole.G * (whole.masses[0] + whole.masses[i]))
        place, speed = (part.expand(n, 3) for part in (x[:, i] - x[:, 0]))
        moved = kepler_step(place, speed, 11_000.0 * u[:, i - 1], mu)
        q.append(moved[0])
        v.append(moved[1])
    return bodies, bodies.start(torch.stack(q, 1), torch.stack(v, 1))


def radau(orbits: int = 1000) -> dict[str, Any]:
    bodies, x0 = phases(20)
    end = 4332.6 * orbits
    torch.set_num_threads(1)
    (peer,) = rebound(run_of(bodies, x0, "ias15", end=end))
    problem = bodies.problem()

    def run(until: float) -> ls.Solution:
        how = {"rtol": 1e-9, "max_steps": 10_000_000, "grad": False, "compile": True}
        return ls.solve(problem, x0, t=(0.0, until), method="gauss_radau_15", **how)

    run(1.0)  # and compiled
    began = time.process_time()
    found = run(end)
    seconds = time.process_time() - began
    error = bodies.energy(found.x_end) / bodies.energy(x0) - 1
    assert found.stats.accepted is not None
    assert found.stats.nfe_each is not None
    return {
        "orbits": orbits, "starts": len(x0), "rms": float(error.square().mean().sqrt()),
        "peer_rms": float(torch.tensor(peer["errors"], dtype=F64).square().mean().sqrt()),
        "steps": float(found.stats.accepted.double().mean()), "peer_steps": peer["steps"] / len(x0),
        "nfe": float(found.stats.nfe_each.double().mean()), "seconds": seconds,
        "peer_seconds": peer["seconds"], "version": peer["version"],
    }  # fmt: skip


def batch(size: int = 4096, few: int = 64, rounds: int = 9) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    store = RESULTS / "nbody.json"
    found = json.loads(store.read_text()).get("batch") if store.exists() else None
    rows: list[dict[str, Any]] = found if isinstance(found, list) else []
    done = {(row["ours"], row["systems"], row["d"], row.get("end")) for row in rows}
    for ours, theirs, d, n, how, peer in [
        ("leapfrog_dkd", "leapfrog", 2, size, {"steps": 1008, "compile": True}, {"dt": 1e-3, "steps": 1008}),
        ("leapfrog_dkd", "leapfrog", 3, size, {"steps": 1008, "compile": True}, {"dt": 1e-3, "steps": 1008}),
        ("gauss_radau_15", "ias15", 2, size, {"rtol": 1e-9}, {"end": 2.0}),
        (COMPILED, "ias15", 2, size, {"rtol": 1e-9, "compile": True}, {"end": 2.0}),
        (COMPILED, "ias15", 2, size, {"rtol": 1e-9, "compile": True}, {"end": 20.0}),
        (COMPILED, "ias15", 3, size, {"rtol": 1e-9, "compile": True}, {"end": 20.0}),
        ("leapfrog_dkd", "leapfrog", 2, 1, {"steps": 1008}, {"dt": 1e-3, "steps": 1008}),
    ]:  # fmt: skip
        if (ours, n, d, peer.get("end")) not in done:
            rows.append(timed(ours, theirs, d, n, min(few, n), rounds, how, peer))
            print(rows[-1], flush=True)
            kept = json.loads(store.read_text()) if store.exists() else {}
            store.write_text(json.dumps({**kept, "batch": rows}, indent=1) + "\n")
    return rows


def timed(
    ours: str, theirs: str, d: int, n: int, few: int, rounds: int, how: dict[str, Any], peer: dict[str, Any]
) -> dict[str, Any]:
    """Processor time of n systems by ours, of the first few by theirs, in turn."""
    bodies = Gravity(torch.ones(3, dtype=F64))
    q, v = (torch.nn.functional.pad(part, (0, d - 2)) for part in three_stars_at(n, seed=0))
    x0, end = bodies.start(q, v), peer.get("end") or peer["dt"] * peer["steps"]
    problem, spent = bodies.problem(), list[tuple[float, float]]()

    def solved() -> tuple[ls.Solution, float]:
        began = time.process_time()
        method = ours.removesuffix(", compiled")
        found = ls.solve(problem, x0, t=(0.0, end), method=method, grad=False, **how)
        return found, time.process_time() - began

    began = time.perf_counter()
    solved()  # and compiled
    first = time.perf_counter() - began
    for _ in range(rounds):
        found, seconds = solved()
        (other,) = rebound(run_of(bodies, x0[:few], theirs, **peer))
        spent.append((seconds / n, other["seconds"] / few))
    mine, its = zip(*spent, strict=True)
    error = (bodies.energy(found.x_end) / bodies.energy(x0) - 1)[:few]
    peer_error = torch.tensor(other["errors"], dtype=F64)
    accepted = found.stats.accepted
    steps = float(found.stats.steps if accepted is None else accepted[:few].double().mean())
    return {
        "ours": ours, "theirs": theirs, "d": d, "systems": n,
        "steps": steps, "peer_steps": other["steps"] / few,
        "us": 1e6 * min(mine), "peer_us": 1e6 * min(its), "ns_a_step": 1e9 * min(mine) / steps,
        "times": min(its) / min(mine), "median_times": median(b / a for a, b in spent),
        "error": float(error.abs().median()), "peer_error": float(peer_error.abs().median()),
        "apart": float((error - peer_error).abs().max()), "first_s": first,
        **({"end": end} if "end" in peer else {}),
    }  # fmt: skip


PARTS = {"steps": steps, "radau": radau, "batch": batch}


def table(rows: list[dict[str, Any]]) -> list[str]:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [
        [f"{v:.3g}" if isinstance(v := row.get(h, ""), float) else str(v) for h in heads] for row in rows
    ]
    return ["| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *cells)]


def page(found: dict[str, Any]) -> str:
    lines = ["# Bodies beside REBOUND", "", *(__doc__ or "").splitlines()[6:]]
    for name in PARTS:
        if name in found:
            rows = found[name] if isinstance(found[name], list) else [found[name]]
            lines += ["", f"## {name}", "", *table(rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    store = RESULTS / "nbody.json"
    found: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for name in sys.argv[1:] or [part for part in PARTS if part not in found]:
        found[name] = PARTS[name]()
        print(name, found[name], flush=True)
        store.write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "nbody.md").write_text(page(found))


if __name__ == "__main__":
    main()
