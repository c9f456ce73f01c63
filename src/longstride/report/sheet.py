"""A figure with a title above, a warning below, and axes between."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from .pictures import DPI, FAINT, INK, PAPER

WARNING = "#b3261e"
GREYS = 32  # of letters


class Sheet:
    """A figure with a title above and a warning below; what is between takes margins in inches."""

    def __init__(self, title: str, subtitle: str = "", warning: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self.warning = textwrap.wrap(warning, 105)
        self.top = 0.5 + 0.15 * (len(subtitle.split("\n")) if subtitle else 0)
        self.bottom = 0.5 + 0.15 * len(self.warning)

    def begin(self, width: float, height: float) -> Figure:
        """Of this height between title and warning."""
        room = int((width - 0.2) / 0.068)  # letters on a line
        lines = [part for line in self.subtitle.split("\n") for part in textwrap.wrap(line, room) or [""]]
        self.top += 0.15 * (len(lines) - len(self.subtitle.split("\n")))
        self.subtitle = "\n".join(lines)
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
        return plain(self.figure.add_axes(box))

    def bar(self, drawn: Any, label: str, bottom: float | None = None, top: float | None = None) -> None:
        """A scale of colours on the right, between these margins."""
        axes = self.axes(self.width - 0.85, bottom or self.bottom, 0.73, top or self.top)
        bar = self.figure.colorbar(drawn, cax=axes)
        short = len(label) <= 3
        bar.set_label(label, size=9, color=INK, rotation=0 if short else 90, labelpad=8 if short else 4)
        bar.outline.set_visible(False)

    def save(self, path: str | Path, colours: np.ndarray | None = None) -> None:
        """In 256 colours, a third of the bytes: those [n, 3] and greys, or the ones that fit best."""
        from PIL import Image

        buffer = io.BytesIO()
        self.figure.savefig(buffer, dpi=DPI)
        sheet = Image.open(buffer).convert("RGB")
        if colours is None:
            sheet = sheet.quantize(256, kmeans=1, dither=Image.Dither.NONE)
        else:
            sheet = sheet.quantize(palette=palette(colours), dither=Image.Dither.NONE)
        sheet.save(path, format="png", optimize=True)


def palette(colours: np.ndarray) -> Any:
    """An image whose palette is greys from paper to ink and these colours [n, 3], 224 at most."""
    from PIL import Image

    found = Image.new("P", (1, 1))
    all_ = np.concatenate([shades(INK, GREYS), colours])
    found.putpalette((255 * all_).round().astype(np.uint8).tobytes())
    return found


def shades(colour: str, count: int) -> np.ndarray:
    """From paper to a colour: what the edges of its lines are drawn in."""
    part = np.linspace(0, 1, count)[:, None]
    return (1 - part) * np.array(to_rgb(PAPER)) + part * np.array(to_rgb(colour))


def plain(axes: Axes) -> Axes:
    """Two spines, no ticks' marks."""
    axes.tick_params(labelsize=8, colors=FAINT, which="both", length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b0b0b0")
    return axes
