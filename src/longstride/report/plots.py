"""Error against the number of network evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .pictures import DPI, FAINT, INK, PAPER

if TYPE_CHECKING:
    from .comparison import Comparison

# Okabe and Ito 2008, told apart by colour-blind eyes too, without the yellow: too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
PANEL = 3.4  # inches: width of the panel of one grid
LINE = 0.055  # least distance of two labels, as a fraction of the panel's height


def spread(heights: list[float]) -> list[float]:
    """Heights, as fractions of the panel, moved apart until labels there do not overlap."""
    order = np.argsort(heights)
    placed = np.array(heights)[order]
    for _ in range(200):
        gap = np.diff(placed)
        short = np.maximum(LINE - gap, 0) / 2
        if short.max(initial=0) < 1e-4:
            break
        placed[:-1] -= short
        placed[1:] += short
    out = np.empty(len(heights))
    out[order] = placed
    return out.tolist()


def error_plot(table: Comparison, path: Path) -> None:
    """Write the plot of a comparison: a panel per grid, a line per method, named at its end."""
    methods, grids, nfes = table.methods, table.grids, table.nfes
    labels = 0.3 + 0.085 * max(len(m) for m in methods)
    width, height = 0.8 + len(grids) * (PANEL + labels) + 0.1, 4.6
    width = max(width, 6.6)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    figure.text(0.15 / width, 1 - 0.2 / height, table.title, size=13, weight="bold", color=INK, va="top")
    figure.text(0.15 / width, 1 - 0.48 / height, table.subtitle, size=9, color=FAINT, va="top")
    errors = [r.error for r in table.rows if r.error > 0]
    low, high = min(errors, default=1e-3) / 1.25, max(errors, default=1.0) * 1.25
    step = (width - 0.9) / len(grids)
    for g, grid in enumerate(grids):
        box = (0.8 + g * step, 0.6, step - labels, height - 1.8)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        for m, method in enumerate(methods):
            line = table.lines[method, grid]
            colour, marker = COLOURS[m % len(COLOURS)], MARKERS[m // len(COLOURS) % len(MARKERS)]
            axes.plot(nfes, line, lw=1.8, ms=4.5, color=colour, marker=marker)
        finish(axes, grid, nfes, (low, high), first=g == 0)
        name_lines(axes, methods, nfes[-1], [table.lines[method, grid][-1] for method in methods])
    figure.savefig(path, dpi=DPI)


def finish(axes: Axes, grid: str, nfes: list[int], limits: tuple[float, float], first: bool) -> None:
    """Axes of one panel: NFE as they were run, one logarithmic scale for all panels."""
    axes.set_yscale("log")
    axes.set_ylim(limits)
    axes.set_xticks(nfes, [str(k) for k in nfes])
    axes.set_title(f"grid: {grid}", size=10, loc="left", color=INK)
    axes.set_xlabel("network evaluations (NFE)", size=9, color=INK)
    if first:
        axes.set_ylabel("RMS error at the end", size=9, color=INK)
    # Plain figures, and 2 and 5 between the decades where there are few of them.
    few = limits[1] / limits[0] < 200
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    plain = FuncFormatter(lambda y, _: f"{y:g}")
    axes.yaxis.set_major_formatter(plain if first else NullFormatter())
    axes.grid(True, which="major", color="#e4e4e4", lw=0.8)
    axes.tick_params(labelsize=8, colors=FAINT, which="both", length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b0b0b0")


def name_lines(axes: Axes, methods: list[str], nfe: int, errors: list[float]) -> None:
    """Names right of the panel, led to the ends (nfe, error) of their lines."""
    bottom, top = np.log(axes.get_ylim())
    heights = [(np.log(max(error, np.exp(bottom))) - bottom) / (top - bottom) for error in errors]
    for m, (error, height) in enumerate(zip(errors, spread(heights), strict=True)):
        colour = COLOURS[m % len(COLOURS)]
        axes.annotate(
            methods[m], (nfe, error), xytext=(1.06, height), textcoords="axes fraction",
            va="center", size=8.5, color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "alpha": 0.6, "shrinkA": 1},
        )  # fmt: skip
