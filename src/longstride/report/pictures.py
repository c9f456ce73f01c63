"""Sheets of images. matplotlib's Figure is used directly: no global state, no display needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor

INK, FAINT, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"
DPI = 150
SIDE, GAP = 84, 6  # pixels: about the side of an image on a sheet, and between images
MARGIN, LABEL, HEADING = 30, 300, 66  # pixels: around the sheet, of the labels, of a heading
WIDTH = 1000  # pixels: what the title needs at least


@dataclass(frozen=True)
class Strip:
    """One row of a sheet: images [n, C, H, W], their label, a fainter note below it.

    heading: said above the row, where a new section begins.
    """

    label: str
    images: Tensor
    note: str = ""
    heading: str = ""


def pixels(images: Tensor, data_range: tuple[float, float]) -> np.ndarray:
    """Images [n, C, H, W], C = 1 or 3 -> [n, h, w, 3]: `data_range` to [0, 1], clamped.

    Small images are enlarged by a whole number, so that their pixels stay square and alike.
    """
    low, high = data_range
    x = ((images.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    scale = max(1, round(SIDE / max(x.shape[2:])))
    x = x.expand(-1, 3, -1, -1).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return x.permute(0, 2, 3, 1).numpy()


def tiles(images: np.ndarray, columns: int) -> np.ndarray:
    """[n, h, w, 3] -> one white sheet with the images in rows of `columns`."""
    n, h, w, _ = images.shape
    h, w = h + GAP, w + GAP
    sheet = np.ones((math.ceil(n / columns) * h - GAP, columns * w - GAP, 3))
    for i, image in enumerate(images):
        top, left = i // columns * h, i % columns * w
        sheet[top : top + h - GAP, left : left + w - GAP] = image
    return sheet


def samples_image(
    images: Tensor,
    path: Path,
    data_range: tuple[float, float] = (-1.0, 1.0),
    columns: int | None = None,
) -> None:
    """Write images [n, C, H, W] in rows of `columns`, by default in a near square."""
    sheet = tiles(pixels(images, data_range), columns or math.ceil(math.sqrt(len(images))))
    edge = ((GAP, GAP), (GAP, GAP), (0, 0))
    imsave(path, np.pad(sheet, edge, constant_values=1.0))


def picture_grid(
    strips: Sequence[Strip],
    path: Path,
    title: str,
    subtitle: str = "",
    data_range: tuple[float, float] = (-1.0, 1.0),
) -> None:
    """Write a sheet with one strip per method; column j of every strip began as noise j."""
    rows = [tiles(pixels(s.images, data_range), len(s.images)) for s in strips]
    width = max(WIDTH, 2 * MARGIN + LABEL + max(row.shape[1] for row in rows))
    height = 4 * MARGIN + sum(row.shape[0] + GAP for row in rows)
    height += HEADING * sum(bool(s.heading) for s in strips)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)

    def write(y: float, text: str, size: float, weight: str = "normal", color: str = INK) -> None:
        figure.text(MARGIN / width, y / height, text, size=size, va="center", weight=weight, color=color)

    y = height - MARGIN
    write(y - 10, title, 13, "bold")
    write(y - 50, subtitle, 9, color=FAINT)
    y -= 2 * MARGIN
    for strip, row in zip(strips, rows, strict=True):
        if strip.heading:
            y -= HEADING
            write(y + 20, strip.heading, 10, "bold")
        y -= row.shape[0] + GAP
        middle = y + row.shape[0] / 2
        write(middle + (14 if strip.note else 0), strip.label, 9)
        write(middle - 16, strip.note, 7, color=FAINT)
        figure.figimage(row, MARGIN + LABEL, y)
    figure.savefig(path, dpi=DPI)
