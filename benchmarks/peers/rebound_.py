"""REBOUND, for `benchmarks/nbody.py`: reads runs as JSON, writes what became of them.

python rebound_.py < runs.json
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import rebound


def simulation(run: dict[str, Any], start: list[list[list[float]]]) -> rebound.Simulation:
    sim = rebound.Simulation()
    sim.G, sim.integrator = run["G"], run["method"]
    for mass, q, v in zip(run["masses"], *start, strict=True):
        x, y, z = (*q, 0.0)[:3]
        vx, vy, vz = (*v, 0.0)[:3]
        sim.add(m=mass, x=x, y=y, z=z, vx=vx, vy=vy, vz=vz)
    if "dt" in run:
        sim.dt = run["dt"]
    return sim


def integrated(run: dict[str, Any]) -> dict[str, Any]:
    """Relative energy errors at the end of each start, the places there, steps, seconds."""
    errors, ends, steps, seconds = [], [], 0, 0.0
    for start in run["starts"]:
        sim = simulation(run, start)
        before = sim.energy()
        began = time.process_time()
        if "steps" in run:
            sim.steps(run["steps"])
            sim.synchronize()
        else:
            sim.integrate(run["end"])
        seconds += time.process_time() - began
        errors.append(sim.energy() / before - 1)
        ends.append([[p.x, p.y, p.z] for p in sim.particles])
        steps += int(sim.steps_done)
    known = {"seconds": seconds, "version": rebound.__version__}
    return {"errors": errors, "ends": ends, "steps": steps, **known}


if __name__ == "__main__":
    json.dump([integrated(run) for run in json.load(sys.stdin)], sys.stdout)
