"""Pictures of solutions: curves in a plane, components against time with their steps, fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.collections import LineCollection
from torch import Tensor

from ..systems import Plane, Series, System
from .fields import field_picture
from .pictures import FAINT, INK, PAPER
from .plots import COLOURS
from .sheet import Sheet

SAMPLES = 8  # drawn at most
POINTS, FINEST = 10_000, 32  # along a curve, and of a step, at most
AT_ONCE = 64  # states whose slopes are asked for together


@dataclass(frozen=True)
class Steps:
    """Where the steps of the first sample ended: t [S], its start the first, and x [S, *shape] there."""

    t: np.ndarray
    x: np.ndarray


def between(system: System, steps: Steps) -> tuple[np.ndarray, Tensor]:
    """Times [T] and states [T, *shape] along the steps of a sample, by Hermite's cubic between their ends.

    It costs an evaluation of each end, which is less than to ask a run for so many times.
    """
    t, x = torch.from_numpy(steps.t), torch.from_numpy(steps.x)
    parts = zip(t.to(x.dtype).split(AT_ONCE), x.split(AT_ONCE), strict=True)
    with torch.no_grad():
        f = torch.cat([system.rate(*part) for part in parts])
    fine = max(1, min(FINEST, POINTS // len(t)))
    theta = (torch.arange(fine, dtype=t.dtype) / fine).view(1, -1, *[1] * (x.ndim - 1))
    h = (t[1:] - t[:-1]).view(-1, 1, *[1] * (x.ndim - 1)).to(x.dtype)
    a, b, fa, fb = x[:-1, None], x[1:, None], h * f[:-1, None], h * f[1:, None]
    move = b - a
    curve = a + theta * (fa + theta * (3 * move - 2 * fa - fb + theta * (fa + fb - 2 * move)))
    times = t[:-1, None] + theta.view(1, -1) * (t[1:] - t[:-1])[:, None]
    return torch.cat([times.flatten(), t[-1:]]).numpy(), torch.cat([curve.flatten(0, 1), x[-1:]])


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
    view = system.view
    if not isinstance(view, Series | Plane):
        field_picture(system, t, x, path, subtitle, warning)
        return
    if x.shape[1] > SAMPLES:
        subtitle += f"; {SAMPLES} of {x.shape[1]} samples"
    x, sheet = x.detach().cpu()[:, :SAMPLES], Sheet(system.name, subtitle, warning)
    if isinstance(view, Series):
        _series(sheet, system, view, t, x.flatten(2).numpy(), steps)
    else:
        _plane(sheet, view, t, view.points(x).numpy())
    sheet.save(path)


def _plane(sheet: Sheet, view: Plane, t: Sequence[float], points: np.ndarray) -> None:
    """Curves [T, B, C, 2]: one alone is coloured by time, several each in a colour of their own."""
    sheet.begin(6.6, 4.4)
    curves = points.reshape(len(points), -1, 2).swapaxes(0, 1)
    many = len(curves) > 12
    axes = sheet.axes(0.65, sheet.bottom, 0.3 if len(curves) > 1 else 1.0, sheet.top)
    for i, curve in enumerate(curves):
        if len(curves) > 1:
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(*curve.T, lw=0.5 if many else 0.9, color=colour)
        else:
            pieces = np.stack([curve[:-1], curve[1:]], 1)
            lines = LineCollection(list(pieces), cmap="viridis", lw=0.9, capstyle="round")
            lines.set_array(np.asarray(t[:-1]))
            axes.add_collection(lines)
            sheet.bar(lines, "t")
        reached = curve[np.isfinite(curve).all(1)]
        if not many:
            axes.plot(*reached[0], "o", ms=4, mfc=PAPER, mec=INK, mew=0.9, zorder=3)
        axes.plot(*reached[-1], "o", ms=2 if many else 4, color=INK, zorder=3)
    axes.autoscale()
    axes.margins(0.04)
    if view.equal:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(view.axes[0], size=9, color=INK)
    axes.set_ylabel(view.axes[1], size=9, color=INK)


def _series(
    sheet: Sheet, system: System, view: Series, t: Sequence[float], x: np.ndarray, steps: Steps
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
