"""Accuracy at equal steps, ours and exponax's, on the equations that both have.

    python benchmarks/equations.py PYTHON

PYTHON is the interpreter of an environment with exponax. ETDRK4 (Cox and Matthews) in float64 in both, the
same start, grid and step. The error is relative, root mean square, against Krogstad's method of ours with
8 times the finest number of steps; of linear equations, against their exact solution. "apart" is how far
the two are from each other. All cases are resolved well below the errors shown, since the two libraries treat
the shortest waves differently.

Not compared: Kuramoto-Sivashinsky in two dimensions, where exponax has u_xxxx + u_yyyy in place of Delta^2 u,
so that it is another equation. In two dimensions exponax multiplies linear drag by 2, and its vorticity is
u_y - v_x: half the drag is asked of it, and the negative of our start.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import longstride as ls

RESULTS = Path(__file__).parent / "results"
HERE = Path(__file__).parent
LINEAR = ("advection", "diffusion", "dispersion", "hyper_diffusion")


@dataclass(frozen=True)
class Case:
    """A system of ours, and what exponax calls it.

    waves, scale: the highest mode and the size of a random start; 0: the system's.  sign: of their state.
    """

    system: str
    name: str
    end: float
    steps: int
    ours: dict = field(default_factory=dict)
    theirs: dict = field(default_factory=dict)
    waves: int = 0
    scale: float = 1.0
    sign: int = 1

    def pde(self) -> ls.PDE:
        return ls.systems.get(self.system, **self.ours)

    def start(self, pde: ls.PDE) -> Tensor:
        x0 = self.scale * ls.systems.pde.waves(pde.space, self.waves) if self.waves else pde.x0
        return pde.space.leave(pde.space.enter(x0))


TWO = 2 * math.pi
CASES = (
    Case("advection", "Advection", 1.0, 1, theirs={"velocity": 1.0}),
    Case("diffusion", "Diffusion", 1.0, 1, theirs={"diffusivity": 0.1}),
    Case("dispersion", "Dispersion", 0.5, 1, theirs={"dispersivity": 1.0}),
    Case("hyper_diffusion", "HyperDiffusion", 1.0, 1, theirs={"hyper_diffusivity": 0.01}),
    Case("burgers", "Burgers", 1.0, 50, {"n": 256}, {"diffusivity": 0.1, "conservative": True}),
    Case("burgers", "Burgers", 0.5, 25, {"n": 64, "dim": 2}, {"diffusivity": 0.1, "conservative": True}),
    Case(
        "korteweg_de_vries", "KortewegDeVries", 1.0, 250, {"n": 256},
        {"convection_scale": 6.0, "hyper_diffusivity": 0.0, "conservative": True},
    ),
    Case("kuramoto_sivashinsky", "KuramotoSivashinskyConservative", 20.0, 100, {"n": 256}),
    Case(
        "dispersive_kuramoto_sivashinsky", "GeneralConvectionStepper", 20.0, 200, {"n": 256},
        {"linear_coefficients": [0.0, 0.0, -1.0, -1.0, -1.0], "conservative": True},
    ),
    Case("allen_cahn", "AllenCahn", 4.0, 20, {"n": 128, "epsilon": 0.4}, {"diffusivity": 0.16}, 3, 0.5),
    Case(
        "cahn_hilliard", "CahnHilliard", 0.5, 25, {"n": 128, "epsilon": 0.4},
        {"diffusivity": 1.0, "gamma": 0.16}, 3, 0.3,
    ),
    Case(
        "swift_hohenberg", "SwiftHohenberg", 5.0, 25, {"n": 128, "length": 3 * TWO, "r": 0.7, "g": 1.0},
        {"reactivity": 0.7}, 4, 0.3,
    ),
    Case("fisher_kpp", "FisherKPP", 5.0, 25, {"n": 256}, {"diffusivity": 1.0, "reactivity": 1.0}),
    Case("gray_scott", "GrayScott", 40.0, 10, {"n": 192, "length": 0.4}),
    Case(
        "navier_stokes_2d", "NavierStokesVorticity", 0.5, 25, {"n": 128, "viscosity": 0.1, "drag": 0.1},
        {"diffusivity": 0.1, "drag": -0.05}, 3, 4.0, -1,
    ),
    Case(
        "kolmogorov_flow", "KolmogorovFlowVorticity", 0.5, 25,
        {"n": 128, "viscosity": 0.1, "drag": 0.1, "force": -1.0},
        {"diffusivity": 0.1, "drag": -0.05}, 3, 4.0, -1,
    ),
)  # fmt: skip


def solved(pde: ls.PDE, x0: Tensor, end: float, steps: int, method: str = "etdrk4") -> Tensor:
    return ls.solve(pde, x0, t=(0.0, end), method=method, steps=steps, grad=False).x[-1]


def off(x: Tensor, reference: Tensor) -> float:
    return float((x - reference).norm() / reference.norm())


def exponax_ends(python: str, starts: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The ends of exponax's runs, "CASE STEPS" each, of states [C, *n]."""
    asked = {}
    for i, case in enumerate(CASES):
        pde = case.pde()
        asked[str(i)] = {
            "class": case.name, "steps": levels(case), "end": case.end, "dim": pde.space.dim,
            "length": pde.space.length[0], "n": pde.space.n[0], "options": case.theirs,
            "linear": case.system in LINEAR,
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        cases, begin, end = (str(Path(folder) / name) for name in ("cases.json", "starts.npz", "ends.npz"))
        Path(cases).write_text(json.dumps(asked))
        np.savez(begin, **{k: v.numpy() for k, v in starts.items()})
        subprocess.run([python, str(HERE / "equations_exponax.py"), cases, begin, end], check=True)
        return dict(np.load(end))


def levels(case: Case) -> list[int]:
    return [case.steps] if case.system in LINEAR else [case.steps, 2 * case.steps, 4 * case.steps]


def main(python: str) -> None:
    starts = {}
    for i, case in enumerate(CASES):
        x0 = case.start(pde := case.pde())[0]
        starts[str(i)] = case.sign * (x0 if x0.ndim > pde.space.dim else x0[None])
    theirs = exponax_ends(python, starts)
    rows = []
    for i, case in enumerate(CASES):
        pde, x0 = case.pde(), case.start(case.pde())
        linear = case.system in LINEAR
        reference = (
            pde.exact(case.end, x0) if linear else solved(pde, x0, case.end, 8 * levels(case)[-1], "krogstad")
        )
        for steps in levels(case):
            ours = solved(pde, x0, case.end, steps)
            peer = case.sign * torch.from_numpy(theirs[f"{i} {steps}"].copy()).reshape(x0.shape)
            rows.append({
                "equation": case.system, "dim": pde.space.dim, "n": pde.space.n[0], "dt": case.end / steps,
                "ours": off(ours, reference), "exponax": off(peer, reference), "apart": off(peer, ours),
            })  # fmt: skip
        print(case.system, rows[-1]["ours"], rows[-1]["exponax"], flush=True)
    write(rows)


def write(rows: list[dict]) -> None:
    (RESULTS / "equations.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = [
        "# Accuracy at equal steps",
        "",
        f"ETDRK4, float64, longstride {importlib.metadata.version('longstride')} and exponax 0.1.0, by "
        "`python benchmarks/equations.py PYTHON`. Relative root mean square error at the end against a "
        "converged run on the same grid (the exact solution of linear equations); apart: the two from each "
        "other.",
        "",
        "| equation | grid | dt | ours | exponax | exponax/ours | apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| `{row['equation']}` | {'x'.join([str(row['n'])] * row['dim'])} | {row['dt']:.3g} | "
            f"{row['ours']:.1e} | {row['exponax']:.1e} | {row['exponax'] / max(row['ours'], 1e-16):.3g} | "
            f"{row['apart']:.1e} |"
        )
    (RESULTS / "equations.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
