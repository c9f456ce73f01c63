"""Curves in a plane that grow, coloured by the size of the steps; how the energy and the steps go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb

from ..systems import Plane, System
from .moving import FRAMES, clock, filmed
from .pictures import FAINT, INK, PAPER
from .plots import COLOURS
from .sheet import Sheet, plain, shades
from .trajectory import Steps, between

PIECES = 2000  # of a curve
FADE = np.array([0.3, 0.5, 0.75, 1.0])  # how much of its colour a piece has, the oldest first
LASTS = 0.25  # the share of the film in which it fades
SIZES = LinearSegmentedColormap.from_list("sizes", colormaps["plasma"](np.linspace(0, 0.86, 256)))
ROUND_OFF = 1e-16


@dataclass(frozen=True)
class Track:
    """A run of one sample: what it is called, and where its steps ended."""

    system: System
    label: str
    steps: Steps

    @cached_property
    def sizes(self) -> np.ndarray:
        """Of the steps, each at its end; the first twice."""
        h: np.ndarray = np.abs(np.diff(self.steps.t))
        return np.concatenate([h[:1], h])

    @cached_property
    def error(self) -> np.ndarray | None:
        """Of the energy over what it was, at the ends of steps."""
        energy = self.system.invariants.get("energy")
        if energy is None:
            return None
        found = energy(torch.from_numpy(self.steps.x)).numpy()
        error: np.ndarray = np.abs(found - found[0]) / (np.abs(found[0]) or 1.0)
        return np.maximum(error, ROUND_OFF)

    @cached_property
    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times [P + 1], points [P + 1, C, 2], and the step size along each piece [P]."""
        assert isinstance(self.system.view, Plane)
        t, x = between(self.system, self.steps)
        keep = np.unique(np.linspace(0, len(t) - 1, PIECES + 1).round().astype(int))
        t, points = t[keep], self.system.view.points(x[torch.from_numpy(keep)]).numpy()
        at = np.searchsorted(self.steps.t * self.way, (t[1:] + t[:-1]) / 2 * self.way)
        return t, points, self.sizes[at.clip(1, len(self.sizes) - 1)]

    @property
    def way(self) -> float:
        """Which way the time goes."""
        return 1.0 if self.steps.t[-1] >= self.steps.t[0] else -1.0


def orbit_picture(
    system: System, tracks: Sequence[Track], path: str | Path, subtitle: str = "", warning: str = ""
) -> None:
    """Write runs of one sample of a system that is drawn in a plane, side by side: .png, .gif or .mp4.

    Curves are coloured by the size of the steps, on one scale. Below are the error of the energy and the size
    of the steps against time. A film shows the curves as they grow, and 61 frames of them.

    Raises:
        ArgumentError: another suffix, .mp4 without ffmpeg.
    """
    path, sheet = Path(path), Sheet(system.name, subtitle, warning)
    show = _drawn(sheet, tracks)
    first, last = tracks[0].steps.t[[0, -1]]
    if path.suffix == ".png":
        show(last, False)
        sheet.save(path)
        return
    said, times = clock(sheet), np.linspace(first, last, FRAMES)

    def frame(i: int) -> None:
        show(times[i], True)
        said(times[i])

    scale = [to_rgb(SIZES(v)) for v in np.linspace(0, 1, 48)]
    faded = [(1 - a) * np.array(to_rgb(PAPER)) + a * np.array(scale) for a in FADE]
    lines = [shades(colour, 16) for colour in COLOURS[: len(tracks)]]
    filmed(sheet, range(FRAMES), frame, path, np.concatenate([*faded, *lines]))


def _drawn(sheet: Sheet, tracks: Sequence[Track]) -> Callable[[float, bool], None]:
    """The axes; returns what shows all up to a time, old pieces fading or not."""
    count, side, low, right = len(tracks), 4.3 if len(tracks) > 1 else 4.8, 1.15, 1.0
    rows = [row for row in ("error", "size") if row == "size" or tracks[0].error is not None]
    below = sheet.bottom + len(rows) * low + 0.35
    sheet.begin(0.65 + count * (side + 0.15) + right - 0.15, side + len(rows) * low + 0.55)
    norm = LogNorm(min(t.sizes[1:].min() for t in tracks), max(t.sizes.max() for t in tracks))
    shown: list[Callable[[float, bool], None]] = []
    box = _limits([t.curve[1] for t in tracks])
    for i, track in enumerate(tracks):
        left = 0.65 + i * (side + 0.15)
        axes = sheet.axes(left, below, sheet.width - left - side, sheet.top + 0.2)
        shown.append(_orbit(axes, track, norm, box))
        axes.tick_params(labelleft=i == 0)
        if count > 1:
            axes.set_title(track.label, size=9.5, color=COLOURS[i], loc="left", pad=5)
    sheet.bar(shown_by(norm), "step size", below, sheet.top + 0.2)
    for row, name in enumerate(rows):
        bottom = sheet.bottom + (len(rows) - 1 - row) * low
        axes = sheet.axes(0.65, bottom, right, sheet.height - bottom - low + 0.18)
        axes.tick_params(labelbottom=row == len(rows) - 1)
        axes.set_ylabel({"error": "|E/E0 - 1|", "size": "step size"}[name], size=9, color=INK)
        lowest = np.inf
        for i, track in enumerate(tracks):
            values = track.sizes if name == "size" else track.error
            assert values is not None
            shown.append(_line(axes, track, values, COLOURS[i]))
            lowest = min(lowest, float(np.quantile(values, 0.02)))
        axes.set_yscale("log")
        axes.set_ylim(bottom=lowest / 2)
        axes.set_xlim(*sorted(tracks[0].steps.t[[0, -1]]))
        axes.grid(True, which="major", color="#e8e8e8", lw=0.7)
    axes.set_xlabel("t", size=9, color=INK)

    def show(t: float, fades: bool) -> None:
        for one in shown:
            one(t, fades)

    return show


def shown_by(norm: LogNorm) -> LineCollection:
    """What a bar of the colours of step sizes belongs to."""
    lines = LineCollection([], cmap=SIZES, norm=norm)
    lines.set_array(np.array([norm.vmin, norm.vmax]))
    return lines


def _limits(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Middle and half the side of a square that all curves are in."""
    points = np.concatenate([c.reshape(-1, 2) for c in curves])
    points = points[np.isfinite(points).all(1)]
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, 0.54 * float((high - low).max() or 1.0)


def _orbit(
    axes: Axes, track: Track, norm: LogNorm, box: tuple[np.ndarray, float]
) -> Callable[[float, bool], None]:
    """Curves of a run on a square; returns what shows them up to a time, and where they have come to."""
    plain(axes)
    t, points, sizes = track.curve
    (x, y), half = box
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half, y + half)
    many = points.shape[1] > 12
    pieces = np.stack([points[:-1], points[1:]], 2)  # [P, C, 2 ends, 2]
    colours = SIZES(norm(sizes))[:, None].repeat(points.shape[1], 1)
    lines = LineCollection([], lw=0.6 if many else 1.1, capstyle="round", animated=True)
    axes.add_collection(lines)
    if not many:
        axes.plot(*points[0].T, "o", ms=4, mfc=PAPER, mec=FAINT, mew=0.9, zorder=3)
    (heads,) = axes.plot([], [], "o", ms=2.5 if many else 5, color=INK, zorder=4, animated=True)
    span = LASTS * abs(t[-1] - t[0])

    def show(now: float, fades: bool) -> None:
        upto = int(np.searchsorted(t * track.way, now * track.way, side="right")) - 1
        some = colours[:upto].copy()
        if fades:
            age = np.abs(now - t[1 : upto + 1]) / span
            some[..., 3] = FADE[(len(FADE) * (1 - age)).clip(0, len(FADE) - 1).astype(int)][:, None]
        lines.set_segments(list(pieces[:upto].reshape(-1, 2, 2)))
        lines.set_color(some.reshape(-1, 4))
        heads.set_data(*points[max(upto, 0)].T)

    return show


def _line(axes: Axes, track: Track, values: np.ndarray, colour: str) -> Callable[[float, bool], None]:
    """Values at the ends of steps, all of them faint; returns what shows them up to a time."""
    t = track.steps.t
    axes.plot(t, values, lw=0.8, color=colour, alpha=0.25)
    (line,) = axes.plot(t, values, lw=0.8, color=colour, animated=True)

    def show(now: float, fades: bool) -> None:
        upto = int(np.searchsorted(t * track.way, now * track.way, side="right"))
        line.set_data(t[:upto], values[:upto])

    return show
