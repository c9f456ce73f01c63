"""Fields that move: a GIF by Pillow, an MP4 where ffmpeg is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ..errors import ArgumentError, whole
from ..systems import Frames, SpaceTime, System
from .fields import SAMPLES, Part, chosen_times, colours_of, extent_of, framed, parts_of, view_of
from .pictures import FAINT, INK
from .plots import COLOURS
from .sheet import Sheet, palette

FRAMES, SECONDS = 61, 6.0  # of an animation
SIDE, DOTS = 2.6, 100  # inches: the longer side of an image; dots per inch


def animation(
    system: System, t: Sequence[float], x: Tensor, path: str | Path, subtitle: str = "", frames: int = FRAMES
) -> None:
    """Write what the system's view shows at `frames` times between the first and the last, .gif or .mp4.

    t, x: [T], [T, B, *shape].  Fields in one dimension are curves, of several samples in one panel; in two
    dimensions images, samples side by side. Scales are the same at all times. A GIF of the default size is
    below 3 MB.

    Raises:
        ArgumentError: .mp4 without ffmpeg, another suffix, fewer than two times.
    """
    path = Path(path)
    shown = chosen_times(t, whole("frames", frames, 2, "an animation has two or more"))
    if len(shown) < 2:
        raise ArgumentError(f"{len(shown)} time: an animation needs two or more; keep them by save_at=")
    check_film(path)
    parts = parts_of(system, x[:, :SAMPLES])
    view, sheet = view_of(system), Sheet(system.name, subtitle)
    lines = parts[0].values.shape[1] if isinstance(view, SpaceTime) else 0
    if isinstance(view, SpaceTime):
        show = _curves(sheet, view, t, extent_of(system, view, parts), parts)
    else:
        show = _images(sheet, view, t, parts)
    filmed(sheet, shown, show, path, colours_of(() if lines else parts, lines))


def check_film(path: Path) -> None:
    """
    Raises:
        ArgumentError: neither .gif nor .mp4, or .mp4 without ffmpeg.
    """
    if path.suffix not in (".gif", ".mp4"):
        raise ArgumentError(f"{path}: an animation is a .gif or an .mp4")
    if path.suffix == ".mp4" and not FFMpegWriter.isAvailable():
        raise ArgumentError(f"{path}: an .mp4 needs the program ffmpeg, which is not here; write a .gif")


def filmed(
    sheet: Sheet, shown: Sequence[int], show: Callable[[int], None], path: Path, colours: np.ndarray
) -> None:
    """Write the sheet as show(i) leaves it for each i, SECONDS in all; a .gif in greys and colours [n, 3].

    What show changes is marked as animated; all else of a .gif is drawn once.
    """
    rate = len(shown) / SECONDS
    if path.suffix == ".gif":
        _gif(sheet.figure, shown, show, path, rate, colours)
        return
    writer = FFMpegWriter(fps=max(1, round(rate)))
    with writer.saving(sheet.figure, str(path), DOTS):
        for i in shown:
            show(i)
            writer.grab_frame()


def _gif(
    figure: Figure,
    shown: Sequence[int],
    show: Callable[[int], None],
    path: Path,
    rate: float,
    colours: np.ndarray,
) -> None:
    """One palette for all frames, no dithering: what does not change is not written again."""
    from PIL import Image

    figure.set_dpi(DOTS)
    canvas, shared = FigureCanvasAgg(figure), palette(colours)
    moving = sorted(figure.findobj(lambda artist: artist.get_animated()), key=lambda one: one.get_zorder())
    drawn = []
    canvas.draw()
    still = canvas.copy_from_bbox(figure.bbox)
    for i in shown:
        show(i)
        canvas.restore_region(still)
        for artist in moving:
            figure.draw_artist(artist)
        frame = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        drawn.append(frame.quantize(palette=shared, dither=Image.Dither.NONE))
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=1000 / rate, loop=0, optimize=True)


def _images(sheet: Sheet, view: Frames, t: Sequence[float], parts: Sequence[Part]) -> Callable[[int], None]:
    """A column for each sample, a row for each part; returns what shows a time."""
    samples = parts[0].values.shape[1]
    across = SIDE * min(1.0, view.length[0] / view.length[1])
    up, left, right, gap = across * view.length[1] / view.length[0], 0.5, 1.0, 0.1
    sheet.begin(left + samples * (across + gap) - gap + right, len(parts) * (up + gap) - gap)
    drawn = []
    for row, part in enumerate(parts):
        bottom = sheet.bottom + (len(parts) - 1 - row) * (up + gap)
        top = sheet.height - bottom - up
        for column in range(samples):
            a = left + column * (across + gap)
            axes = sheet.axes(a, bottom, sheet.width - a - across, top)
            axes.tick_params(labelleft=column == 0, labelbottom=column == 0 and row == len(parts) - 1)
            drawn.append((framed(axes, view, part, 0, column), part, column))
            drawn[-1][0].set_animated(True)
        sheet.bar(drawn[-1][0], part.name, bottom, top)
    said = clock(sheet)

    def show(i: int) -> None:
        for image, part, column in drawn:
            image.set_data(part.values[i, column].T)
        said(t[i])

    return show


def _curves(
    sheet: Sheet, view: SpaceTime, t: Sequence[float], space: tuple[float, float], parts: Sequence[Part]
) -> Callable[[int], None]:
    """A panel for each part, a curve for each sample; returns what shows a time."""
    panel, (first, last) = 2.0, space
    sheet.begin(5.0, panel * len(parts))
    lines = []
    for row, part in enumerate(parts):
        axes = sheet.axes(
            0.65, sheet.bottom + (len(parts) - 1 - row) * panel, 0.25, sheet.top + row * panel + 0.1
        )
        n = part.values.shape[2]
        at = first + (np.arange(n) + (0.0 if first == view.first else 0.5)) * (last - first) / n
        for sample in range(part.values.shape[1]):
            (line,) = axes.plot(at, part.values[0, sample], lw=1.4, color=COLOURS[sample], animated=True)
            lines.append((line, part, sample))
        low, high = np.nanmin(part.values), np.nanmax(part.values)
        margin = 0.05 * (high - low) or 1.0
        axes.set_xlim(first, last)
        axes.set_ylim(low - margin, high + margin)
        axes.set_ylabel(part.name, size=9, color=INK)
        axes.grid(True, which="major", color="#e8e8e8", lw=0.7)
        axes.tick_params(labelbottom=row == len(parts) - 1)
    axes.set_xlabel(view.axis, size=9, color=INK)
    said = clock(sheet)

    def show(i: int) -> None:
        for line, part, sample in lines:
            line.set_ydata(part.values[i, sample])
        said(t[i])

    return show


def clock(sheet: Sheet) -> Callable[[float], None]:
    """Says the time, below on the right."""
    text = sheet.figure.text(1 - 0.15 / sheet.width, 0.12 / sheet.height, "", size=9, color=FAINT, ha="right")
    text.set_animated(True)
    return lambda t: text.set_text(f"t = {t:.4g}")
