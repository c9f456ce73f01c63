"""The one good default picture of a field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..errors import ArgumentError
from ..systems import SpaceTime, System
from .fields import field_picture
from .moving import FRAMES, animation

SUFFIXES = (".png", ".gif", ".mp4")


def picture_times(system: System, end: float) -> list[float]:
    """Times to keep for a picture: as many as space against time can show, or an animation of frames."""
    count = 400 if isinstance(system.view, SpaceTime) else FRAMES - 1
    start = system.t[0]
    return [start + (end - start) * i / count for i in range(count)] + [end]


def picture(
    system: System, t: Sequence[float], x: Tensor, path: str | Path, subtitle: str = "", warning: str = ""
) -> None:
    """Write fields along solutions as the system's view shows them: a .png, or a .gif or .mp4 that moves.

    t, x: [T], [T, B, *shape], as `sol.t` and `sol.x` of a run with save_at=picture_times(system, end).
    warning: what went wrong, written below a .png.

    Raises:
        ArgumentError: another suffix, a system that is no field, .mp4 without ffmpeg.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"{path}: a picture is a {', a '.join(SUFFIXES)}")
    if path.suffix == ".png":
        field_picture(system, t, x, path, subtitle, warning)
    else:
        animation(system, t, x, path, subtitle)
