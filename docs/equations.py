"""Write docs/images/equations.png: what twelve of the equations do, on one sheet; and pictures of two alone.

Solved panel by panel; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import longstride as ls
from longstride import report
from longstride.journal import Journal
from longstride.report.fields import Part, colours_of
from longstride.report.pictures import FAINT, INK
from longstride.report.sheet import Sheet

IMAGES = Path(__file__).parent / "images"
COLUMNS, SIDE, GAP, TITLE = 6, 1.2, 0.25, 0.42  # inches
ROWS = 200  # times of space against time


@dataclass(frozen=True)
class Panel:
    """An equation at its last time, or from `since` to it against time where it has one dimension."""

    name: str
    title: str
    until: float
    since: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shown: Callable[[Tensor], Tensor] = lambda x: x

    @property
    def pde(self) -> Any:
        return ls.systems.get(self.name, **self.parameters)

    def solved(self, times: list[float]) -> Tensor:
        pde = self.pde
        return ls.solve(
            pde, pde.x0, t=(0.0, self.until), method=pde.method, dt=pde.dt, save_at=times,
            grad=False,
        ).x  # fmt: skip

    def image(self) -> Tensor:
        """[across, up] in float32."""
        if self.pde.space.dim > 1:
            return self.shown(self.solved([self.until])[-1, 0]).float()
        step = (self.until - self.since) / ROWS
        return self.shown(self.solved([self.since + step * i for i in range(ROWS + 1)])[:, 0]).float()


PANELS = (
    Panel("kuramoto_sivashinsky", "Kuramoto-Sivashinsky", 200, 100, parameters={"length": 100.0, "n": 256}),
    Panel("kuramoto_sivashinsky_2d", "the same in 2D", 80),
    Panel("korteweg_de_vries", "Korteweg-de Vries", 10),
    Panel("nonlinear_schroedinger", "nonlinear Schrödinger", 20, shown=torch.abs),
    Panel("kolmogorov_flow", "Kolmogorov flow", 20),
    Panel("navier_stokes_2d", "Navier-Stokes", 6),
    Panel("gray_scott", "Gray-Scott", 2000, shown=lambda x: x[1]),
    Panel("fitzhugh_nagumo_waves", "FitzHugh-Nagumo", 40, shown=lambda x: x[0]),
    Panel("ginzburg_landau", "Ginzburg-Landau", 120, shown=lambda x: x.real),
    Panel("swift_hohenberg", "Swift-Hohenberg", 100),
    Panel("cahn_hilliard", "Cahn-Hilliard", 0.4),
    Panel("allen_cahn", "Allen-Cahn", 10),
)
SINGLE = (
    Panel(
        "kuramoto_sivashinsky", "length 64 pi, 512 points", 200, parameters={"length": 64 * math.pi, "n": 512}
    ),
    Panel("kolmogorov_flow", "128 x 128 points", 30),
)


def main() -> None:
    said = {f"{p.name} {p.title}": repr([p.until, p.since, dict(p.parameters)]) for p in PANELS + SINGLE}
    kept = Journal(IMAGES / "unfinished", {"version": ls.__version__, **said})
    draw([kept.tensor(panel.name, panel.image) for panel in PANELS], IMAGES / "equations.png")
    for panel in SINGLE:
        pde, t = panel.pde, report.picture_times(panel.pde, panel.until)
        x = kept.tensor(f"{panel.name}-alone", lambda panel=panel, t=t: panel.solved(t))
        report.picture(pde, t, x, IMAGES / f"{panel.name}.png", panel.title)
    report.spectrum_picture(pde, t, x, IMAGES / "kolmogorov_spectrum.png", "of the vorticity")
    kept.forget()


def draw(images: list[Tensor], path: Path) -> None:
    sheet = Sheet("Equations", f"{len(images)} of those in ls.systems")
    rows = -(-len(images) // COLUMNS)
    sheet.bottom = 0.1
    sheet.begin(0.3 + COLUMNS * (SIDE + GAP) - GAP, rows * (SIDE + TITLE))
    parts = [Part.of(p.title, x.numpy()[None, None]) for p, x in zip(PANELS, images, strict=True)]
    for i, (panel, part) in enumerate(zip(PANELS, parts, strict=True)):
        left, top = 0.15 + i % COLUMNS * (SIDE + GAP), sheet.top + i // COLUMNS * (SIDE + TITLE)
        axes = sheet.axes(left, sheet.height - top - SIDE, sheet.width - left - SIDE, top)
        axes.set_axis_off()
        part.draw(axes, part.values[0, 0], (0.0, 1.0, 0.0, 1.0), "auto")
        flat = panel.pde.space.dim == 1
        when = f"x against t, {panel.since:g} to {panel.until:g}" if flat else f"t = {panel.until:g}"
        for down, text, size, colour in ((0.04, part.name, 8.5, INK), (0.19, when, 7.0, FAINT)):
            at = 1 - (top + SIDE + down) / sheet.height
            sheet.figure.text(left / sheet.width, at, text, size=size, color=colour, va="top")
    sheet.save(path, colours_of([replace(part, values=part.values[:0]) for part in parts], 0))


if __name__ == "__main__":
    main()
