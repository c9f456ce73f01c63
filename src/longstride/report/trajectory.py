"""Pictures of solutions: curves in a plane, components against time with their steps, space against time."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from ..systems import Plane, Series, SpaceTime, System
from .pictures import DPI, FAINT, INK, PAPER
from .plots import COLOURS

SAMPLES = 8  # drawn at most
WARNING = "#b3261e"


@dataclass(frozen=True)
class Steps:
    """Where the steps of the first sample ended: t [S], its start the first, and x [S, *shape] there."""

    t: np.ndarray
    x: np.ndarray


def trajectory_picture(
    system: System,
    t: Sequence[float],
    x: Tensor,
    steps: Steps,
    path: Path,
    subtitle: str = "",
    warning: str = "",
) -> None:
    """Write the picture that the system's view asks for.

    t, x: [T], [T, B, *shape] along the solutions, NaN where they did not come.  steps: of the first sample.
    warning: what went wrong, written below.
    """
    if x.shape[1] > SAMPLES:
        subtitle += f"; {SAMPLES} of {x.shape[1]} samples"
    x, view = x.detach().cpu()[:, :SAMPLES], system.view
    sheet = _Sheet(system.name, subtitle, warning)
    if isinstance(view, Series):
        _series(sheet, system, view, t, x.flatten(2).numpy(), steps)
    elif isinstance(view, Plane):
        _plane(sheet, view, t, view.points(x).numpy())
    elif isinstance(view, SpaceTime):
        _space_time(sheet, view, t, view.row(x[:, 0]).numpy())
    sheet.save(path, lines=not isinstance(view, SpaceTime))


class _Sheet:
    """A figure with a title above and a warning below; what is between takes margins in inches."""

    def __init__(self, title: str, subtitle: str, warning: str) -> None:
        self.title, self.subtitle = title, subtitle
        self.warning = textwrap.wrap(warning, 105)
        self.top = 0.55 + 0.15 * len(subtitle.split("\n"))
        self.bottom = 0.5 + 0.15 * len(self.warning)

    def begin(self, width: float, height: float) -> Figure:
        """Of this height between title and warning."""
        self.width, self.height = width, height + self.top + self.bottom
        self.figure = Figure(figsize=(width, self.height), dpi=DPI, facecolor=PAPER)
        left = 0.15 / width
        for y, text, size, weight in ((0.15, self.title, 13, "bold"), (0.42, self.subtitle, 8.5, "normal")):
            colour = INK if weight == "bold" else FAINT
            self.figure.text(
                left, 1 - y / self.height, text, size=size, weight=weight, color=colour, va="top"
            )
        text = "\n".join(self.warning)
        self.figure.text(left, 0.06 / self.height, text, size=8, color=WARNING, va="bottom")
        return self.figure

    def axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Axes with these margins."""
        across, up = self.width - left - right, self.height - bottom - top
        box = (left / self.width, bottom / self.height, across / self.width, up / self.height)
        return _plain(self.figure.add_axes(box))

    def bar(self, drawn: Any, label: str) -> None:
        """A scale of colours on the right."""
        axes = self.axes(self.width - 0.85, self.bottom, 0.73, self.top)
        bar = self.figure.colorbar(drawn, cax=axes)
        bar.set_label(label, size=9, color=INK)
        bar.outline.set_visible(False)

    def save(self, path: Path, lines: bool) -> None:
        """Lines in 256 colours: a third of the bytes."""
        from PIL import Image

        buffer = io.BytesIO()
        self.figure.savefig(buffer, dpi=DPI)
        sheet = Image.open(buffer).convert("RGB")
        if lines:
            sheet = sheet.quantize(256, kmeans=1, dither=Image.Dither.NONE)
        sheet.save(path, format="png", optimize=True)


def _plain(axes: Axes) -> Axes:
    axes.tick_params(labelsize=8, colors=FAINT, which="both", length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b0b0b0")
    return axes


def _plane(sheet: _Sheet, view: Plane, t: Sequence[float], points: np.ndarray) -> None:
    """Curves [T, B, C, 2]: one alone is coloured by time, several each in a colour of their own."""
    sheet.begin(6.6, 4.4)
    curves = points.reshape(len(points), -1, 2).swapaxes(0, 1)
    axes = sheet.axes(0.65, sheet.bottom, 0.3 if len(curves) > 1 else 1.0, sheet.top)
    for i, curve in enumerate(curves):
        if len(curves) > 1:
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(*curve.T, lw=0.9, color=colour)
        else:
            pieces = np.stack([curve[:-1], curve[1:]], 1)
            lines = LineCollection(list(pieces), cmap="viridis", lw=0.9, capstyle="round")
            lines.set_array(np.asarray(t[:-1]))
            axes.add_collection(lines)
            sheet.bar(lines, "t")
        reached = curve[np.isfinite(curve).all(1)]
        axes.plot(*reached[0], "o", ms=4, mfc=PAPER, mec=INK, mew=0.9, zorder=3)
        axes.plot(*reached[-1], "o", ms=4, color=INK, zorder=3)
    axes.autoscale()
    axes.margins(0.04)
    if view.equal:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(view.axes[0], size=9, color=INK)
    axes.set_ylabel(view.axes[1], size=9, color=INK)


def _series(
    sheet: _Sheet, system: System, view: Series, t: Sequence[float], x: np.ndarray, steps: Steps
) -> None:
    """A panel for each component of x [T, B, D], dots where the first sample's steps end; sizes below."""
    shown = view.shown or tuple(range(x.shape[2]))
    panel = 1.15 if len(shown) > 2 else 1.6
    sheet.begin(6.6, panel * (len(shown) + 1))
    states, few = steps.x.reshape(len(steps.x), -1), len(steps.t) < 300
    for row in range(len(shown) + 1):
        axes = sheet.axes(
            0.75, sheet.bottom + (len(shown) - row) * panel, 0.25, sheet.top + row * panel + 0.16
        )
        if row < len(shown):
            component = shown[row]
            for i in range(x.shape[1]):
                axes.plot(t, x[:, i, component], lw=1.2, color=COLOURS[i % len(COLOURS)])
            axes.plot(steps.t, states[:, component], ".", ms=4 if few else 1.2, color=COLOURS[0])
            axes.set_yscale("log" if view.log_values else "linear")
            axes.set_ylabel(system.labels[component], size=9, color=INK)
            axes.tick_params(labelbottom=False)
        else:
            axes.plot(steps.t[1:], np.abs(np.diff(steps.t)), ".-", ms=3 if few else 1.2, lw=0.7, color=FAINT)
            axes.set_yscale("log")
            axes.set_ylabel("step size", size=9, color=INK)
            axes.set_xlabel("t", size=9, color=INK)
        if view.log_from:
            axes.set_xscale("log")
        axes.set_xlim(view.log_from or t[0], t[-1])
        axes.grid(True, which="major", color="#e8e8e8", lw=0.7)


def _space_time(sheet: _Sheet, view: SpaceTime, t: Sequence[float], rows: np.ndarray) -> None:
    """An image of rows [T, N] over time."""
    sheet.begin(7.2, 2.6)
    axes = sheet.axes(0.65, sheet.bottom, 1.05, sheet.top)
    half = (view.last - view.first) / (rows.shape[1] - 1) / 2
    extent = (t[0], t[-1], view.first - half, view.last + half)
    image = axes.imshow(rows.T, aspect="auto", origin="lower", cmap="viridis", extent=extent)
    axes.set_xlabel("t", size=9, color=INK)
    axes.set_ylabel(view.axis, size=9, color=INK)
    sheet.bar(image, view.colour)
