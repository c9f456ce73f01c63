"""Pictures of fields: space against time, frames of two dimensions, how well is kept what should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.image import AxesImage
from torch import Tensor

from ..errors import ArgumentError
from ..systems import PDE, Frames, SpaceTime, System
from .pictures import FAINT, INK
from .plots import COLOURS
from .sheet import Sheet, shades

SAMPLES, FRAMES = 3, 6  # drawn at most
STRIP = 1.0  # inches: height of the drift below
OUTLIERS = 1e-3  # share of the values at either end that a scale of colours may leave out
LEVELS, SHADES = 80, 10  # of a colour map, of a line: so few that those of a sheet fit into 256
SIGNED = 0.05  # of the other end, which a field must reach beyond 0 to be one with a sign
PHASE = "phase of "
Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """What is drawn in colours of its own: a name, values [T, B, ...], a colour map between two limits."""

    name: str
    values: np.ndarray
    cmap: str
    low: float
    high: float

    @property
    def colours(self) -> Colormap:
        return colormaps[self.cmap].resampled(LEVELS)

    def draw(
        self, axes: Axes, image: np.ndarray, extent: Extent, aspect: Literal["auto", "equal"]
    ) -> AxesImage:
        """An image [across, up]."""
        between = "antialiased" if aspect == "auto" else "bilinear"  # many times; few points
        return axes.imshow(
            image.T, origin="lower", cmap=self.colours, vmin=self.low, vmax=self.high, extent=extent,
            aspect=aspect, interpolation=between,
        )  # fmt: skip

    @staticmethod
    def of(name: str, values: np.ndarray) -> Part:
        """A field with both signs has white at 0 and limits at the same distance; a phase goes around."""
        if name.startswith(PHASE):
            return Part(name, values, "twilight", -np.pi, np.pi)
        later = values[1:] if len(values) > 2 else values  # the start is somebody's choice
        known = later[np.isfinite(later)]
        low, high = np.quantile(known, [OUTLIERS, 1 - OUTLIERS]).tolist() if len(known) else (0.0, 1.0)
        if min(-low, high) > SIGNED * max(-low, high):
            most = max(-low, high)
            return Part(name, values, "RdBu_r", -most, most)
        return Part(name, values, "viridis", low, high if high > low else low + 1.0)


def view_of(system: System) -> SpaceTime | Frames:
    """How a field is drawn.

    Raises:
        ArgumentError: a system that is no field.
    """
    if not isinstance(system.view, SpaceTime | Frames):
        raise ArgumentError(f"{system.name} is no field: trajectory_picture draws it")
    return system.view


def parts_of(system: System, x: Tensor) -> list[Part]:
    """What the view of a system shows of x [T, B, *shape]; complex fields as modulus and phase."""
    view = view_of(system)
    found = (view.row if isinstance(view, SpaceTime) else view.image)(x.detach().cpu())
    fields = found if isinstance(found, tuple) else (found,)
    names = view.colour if isinstance(view.colour, tuple) else (view.colour,)
    named: list[tuple[str, Tensor]] = []
    for name, field in zip(names, fields, strict=True):
        complex_ = [(f"|{name}|", field.abs()), (PHASE + name, field.angle())] if field.is_complex() else []
        named += complex_ or [(name, field)]
    return [Part.of(name, field.double().numpy()) for name, field in named]


def field_picture(
    system: System, t: Sequence[float], x: Tensor, path: str | Path, subtitle: str = "", warning: str = ""
) -> None:
    """Write the picture of fields along solutions: space against time, or frames at a few of the times.

    t, x: [T], [T, B, *shape], NaN where a solution did not come.  Samples are side by side, or one below the
    other where there are frames, and share their colours.  Below: by how much what the system keeps differs
    from what it was.
    """
    if x.shape[1] > SAMPLES:
        subtitle += f"; {SAMPLES} of {x.shape[1]} samples"
    x = x.detach().cpu()[:, :SAMPLES]
    parts, sheet = parts_of(system, x), Sheet(system.name, subtitle, warning)
    view, strip = view_of(system), STRIP if system.invariants and len(t) > 2 else 0.0
    if isinstance(view, SpaceTime):
        places = _space_time(sheet, view, t, extent_of(system, view, parts), parts, strip)
    else:
        places = _frames(sheet, view, t, parts, strip)
    for column, (left, right) in enumerate(places if strip else ()):
        own = x if len(places) == 1 else x[:, column : column + 1]
        axes = sheet.axes(left, sheet.bottom, right, sheet.height - sheet.bottom - strip + 0.3)
        _drift(axes, system, t, own, first=column == 0)
    sheet.save(path, colours_of(parts, len(system.invariants) if strip else 0))


def colours_of(parts: Sequence[Part], lines: int) -> np.ndarray:
    """Those of the maps, and of so many lines, [n, 3]."""
    maps = [part.colours(np.arange(LEVELS))[:, :3] for part in {part.cmap: part for part in parts}.values()]
    return np.concatenate([*maps, *(shades(colour, SHADES) for colour in COLOURS[:lines])])


def extent_of(system: System, view: SpaceTime, parts: Sequence[Part]) -> tuple[float, float]:
    """Where space begins and ends: with its box, or half a cell beyond the points of other systems."""
    cells = parts[0].values.shape[2] - 1
    half = 0.0 if isinstance(system, PDE) else (view.last - view.first) / cells / 2
    return view.first - half, view.last + half


def _space_time(
    sheet: Sheet,
    view: SpaceTime,
    t: Sequence[float],
    space: tuple[float, float],
    parts: Sequence[Part],
    strip: float,
) -> list[tuple[float, float]]:
    """A row for each part, a column for each sample; returns the margins left and right of each column."""
    rows, columns = len(parts), parts[0].values.shape[1]
    panel, left, right, gap = 2.1 if rows == 1 else 1.5, 0.65, 1.05, 0.3
    sheet.begin(7.2 if columns == 1 else 1.7 + 2.9 * columns, rows * panel + strip)
    across = (sheet.width - left - right + gap) / columns
    for row, part in enumerate(parts):
        bottom = sheet.bottom + strip + (rows - 1 - row) * panel
        top = sheet.height - bottom - panel + (0.12 if row else 0.0)
        for column in range(columns):
            a = left + column * across
            axes = sheet.axes(a, bottom, sheet.width - a - across + gap, top)
            values = part.values[:, column]
            drawn = part.draw(axes, values, (t[0], t[-1], *space), "auto")
            axes.tick_params(labelleft=column == 0, labelbottom=row == rows - 1 and not strip)
            if column == 0:
                axes.set_ylabel(view.axis, size=9, color=INK)
            if row == rows - 1 and not strip:
                axes.set_xlabel("t", size=9, color=INK)
        sheet.bar(drawn, part.name, bottom, top)
    edges = [left + column * across for column in range(columns)]
    return [(a, sheet.width - a - across + gap) for a in edges]


def chosen_times(t: Sequence[float], count: int) -> list[int]:
    """Indices of so many times, the first and the last among them, as evenly spread as those there are."""
    times = np.asarray(t, dtype=float)
    if len(times) <= count:
        return list(range(len(times)))
    wanted = np.linspace(times[0], times[-1], count)
    found = {int(np.abs(times - at).argmin()) for at in wanted}
    if len(found) < count:  # of times that are not even
        found = {round(i) for i in np.linspace(0, len(times) - 1, count)}
    return sorted(found)


def _frames(
    sheet: Sheet, view: Frames, t: Sequence[float], parts: Sequence[Part], strip: float
) -> list[tuple[float, float]]:
    """A row for each sample and part, a column for each time; returns the margins left and right."""
    wide = view.length[0] / view.length[1]
    shown = chosen_times(t, FRAMES if wide <= 2 else FRAMES // 2)
    across = min(1.5 if wide <= 2 else 3.0, 2.4 * wide)
    up, gap, left, right = across / wide, 0.1, 0.65, 1.05
    rows = [(part, sample) for sample in range(parts[0].values.shape[1]) for part in parts]
    sheet.begin(
        max(left + len(shown) * (across + gap) - gap + right, 5.0), len(rows) * (up + gap) + 0.2 + strip
    )
    for row, (part, sample) in enumerate(rows):
        bottom = sheet.bottom + strip + (len(rows) - 1 - row) * (up + gap)
        for column, index in enumerate(shown):
            a = left + column * (across + gap)
            axes = sheet.axes(a, bottom, sheet.width - a - across, sheet.height - bottom - up)
            drawn = framed(axes, view, part, index, sample)
            axes.tick_params(labelleft=column == 0, labelbottom=column == 0 and row == len(rows) - 1)
            if row == 0:
                axes.set_title(f"t = {t[index]:.4g}", size=8.5, color=INK, pad=4)
        sheet.bar(drawn, part.name, bottom, sheet.height - bottom - up)
    return [(left, sheet.width - left - len(shown) * (across + gap) + gap)]


def framed(axes: Axes, view: Frames, part: Part, index: int, sample: int) -> AxesImage:
    """One image: the first axis of the field to the right, the second up, both as long as the box is."""
    drawn = part.draw(axes, part.values[index, sample], (0.0, view.length[0], 0.0, view.length[1]), "equal")
    for axis, length in ((axes.xaxis, view.length[0]), (axes.yaxis, view.length[1])):
        axis.set_ticks([0.0, length], ["0", f"{length:.3g}"])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def _drift(axes: Axes, system: System, t: Sequence[float], x: Tensor, first: bool) -> None:
    """The largest drift of the samples for each of the invariants, from round-off up."""
    with torch.no_grad():
        drift = system.drift(x, x[0])
    for i, (name, values) in enumerate(drift.items()):
        most = values.double().reshape(len(t), -1).amax(1).clamp_min(1e-17).numpy()
        axes.plot(t, most, lw=1.1, color=COLOURS[i % len(COLOURS)], label=name)
    axes.set_yscale("log")
    axes.set_xlim(t[0], t[-1])
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 1e-17), max(high, 1e-9))
    axes.grid(True, which="major", color="#e8e8e8", lw=0.7)
    axes.set_xlabel("t", size=9, color=INK)
    axes.tick_params(labelleft=first)
    if not first:
        return
    axes.set_ylabel("drift", size=9, color=INK)
    axes.legend(fontsize=8, frameon=False, labelcolor=FAINT, ncols=len(drift), loc="lower right",
                bbox_to_anchor=(1.0, 0.97), borderaxespad=0.0)  # fmt: skip
