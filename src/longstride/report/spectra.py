"""What fields hold at each wavenumber, as it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from torch import Tensor

from ..errors import ArgumentError
from ..metrics import energy_spectrum
from ..spectral import Fourier
from ..systems import System
from .fields import chosen_times
from .pictures import FAINT, INK
from .sheet import Sheet

LINES = 8  # times at most
DECADES = 16  # below the largest, which are drawn


def spectrum_picture(
    system: System,
    t: Sequence[float],
    x: Tensor,
    path: str | Path,
    subtitle: str = "",
    slope: float | None = None,
) -> None:
    """Write E(k) at a few of the times, coloured by time: the mean over samples, summed over fields.

    t, x: [T], [T, B, *fields, *n].  slope: of a line beside them, such as -5/3.

    Raises:
        ArgumentError: a system that is no field in a periodic box.
    """
    space = getattr(system, "space", None)
    if type(space) is not Fourier:  # a kind of it may have walls
        raise ArgumentError(f"{system.name} is no field in a periodic box, which spectra are of")
    length = space.length
    shown = chosen_times(t, LINES)
    shells, found = energy_spectrum(x[shown].detach().cpu(), length)
    found = found.mean(1).flatten(1, -2).sum(1) if found.ndim > 3 else found.mean(1)
    full = min(2 * torch.pi * m / a for m, a in zip(space.highest, length, strict=True)) * (1 + 1e-9)
    inside = (shells > 0) & (shells <= full)  # shells beyond are not full, or not kept
    k, E = shells[inside].double().numpy(), found[:, inside].double().numpy()
    sheet = Sheet(system.name, subtitle)
    sheet.begin(6.0, 3.4)
    axes = sheet.axes(0.75, sheet.bottom, 1.05, sheet.top)
    top = np.nanmax(E)
    low = max(np.nanmax(E, 0).min() / 10, top * 10.0**-DECADES)  # some start from a few modes alone
    span = (t[-1] - t[0]) or 1.0
    for row, index in enumerate(shown):
        axes.plot(k, E[row], lw=1.3, color=colormaps["viridis"](0.92 * (t[index] - t[0]) / span))
    if slope is not None:
        at = len(k) // 8
        line = 3 * np.nanmax(E[:, at]) * (k / k[at]) ** slope
        axes.plot(k, line, lw=1.0, ls="--", color=FAINT)
        axes.annotate(f"$k^{{{slope:.3g}}}$", (k[at], line[at]), xytext=(4, 6), textcoords="offset points",
                      size=9, color=FAINT)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(float(k[0]), float(k[-1]))
    axes.set_ylim(low / 2, top * 5)
    axes.set_xlabel("k", size=9, color=INK)
    axes.set_ylabel("E(k)", size=9, color=INK)
    axes.grid(True, which="major", color="#e8e8e8", lw=0.7)
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, 64)))
    sheet.bar(ScalarMappable(Normalize(t[0], t[-1]), colours), "t")
    sheet.save(path)
