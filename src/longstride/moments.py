"""The times a run is asked for: its span, those that are kept, and equal steps that meet them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from .equal_steps.stretches import Stretches
from .errors import ArgumentError, finite, positive, said_of, whole

MOST = 2**53  # steps, which a float counts one by one
Time = float | Tensor  # one that is a tensor without dimensions is differentiated by


def stops(
    t: tuple[Time, Time] | None,
    dt: float | None,
    steps: int | None,
    save_at: Sequence[Time] | Tensor | None,
) -> tuple[Stretches, list[float]]:
    """Equal steps over t whose ends meet the times of save_at, and these; see `solve`."""
    if dt is not None and steps is not None:
        raise ArgumentError("give either dt= or steps=, not both")
    count = 1 if steps is None else whole("steps", steps, 1)
    start, end = span_of(t)
    if dt is not None:
        if finite("dt", dt) < 0 < end - start:
            raise ArgumentError(f"dt = {dt}: t goes up, from {start} to {end}, so dt is positive")
        dt = positive("dt", abs(dt))
    marks = marks_of(save_at, start, end)
    turns = [start, *(mark for mark in marks if mark != start)]
    if dt is not None and abs(end - start) / dt > MOST:
        raise ArgumentError(f"dt = {dt}: from {start} to {end} that is more steps than can be counted")
    counts = [count if dt is None else math.ceil(abs(b - a) / dt - 1e-9) for a, b in pairwise(turns)]
    return Stretches.between(turns, [max(n, 1) for n in counts], dt), marks


def numbers(
    times: Stretches, marks: Sequence[float], every: bool, save_every: int | None, save_at: Any
) -> Sequence[int]:
    """Of the states to keep: 0 is the start."""
    if every or save_every is not None:
        if save_every is not None and save_at is not None:
            raise ArgumentError("give either save_at= or save_every=, not both")
        return range(0, len(times), 1 if save_every is None else whole("save_every", save_every, 1))
    wanted = set(marks)
    return [n for n, turn in zip(times.ends, times.turns, strict=True) if turn in wanted]


def apart(save_at: Any) -> tuple[bool, Any]:
    """Whether every step is asked for, and the times that are."""
    if not isinstance(save_at, str):
        return False, save_at
    if save_at != "steps":
        raise ArgumentError(f"save_at = {save_at!r}: times, or 'steps' for every step")
    return True, None


def marks_of(save_at: Any, start: float, end: float) -> list[float]:
    """The times of save_at, which go from start to end; the end alone where there are none."""
    if save_at is None:
        return [end]
    marks, sign = moments("save_at", save_at), 1.0 if end >= start else -1.0
    if not marks:
        raise ArgumentError("save_at is empty: leave it out to save the end")
    along = [sign * m for m in marks]
    if any(b <= a for a, b in pairwise(along)) or along[0] < sign * start or along[-1] > sign * end:
        raise ArgumentError(f"save_at must go from {start} to {end} without turning back, each time once")
    return marks


def span_of(t: Any) -> list[float]:
    """t as (start, end)."""
    if not isinstance(t, Sequence) or len(t) != 2:
        what = f"{len(t)} times" if isinstance(t, Sequence) else said_of(t)
        raise ArgumentError(f"t is {what}: give (start, end), and times to keep as save_at=")
    return moments("t", t)


def moments(what: str, values: Any) -> list[float]:
    """Times as floats, of numbers and tensors without dimensions."""
    if not isinstance(values, Iterable) or (isinstance(values, Tensor) and values.ndim != 1):
        raise ArgumentError(f"{what} is {said_of(values)}: give a list of times, or a tensor [n]")
    return [finite(what, v.item() if isinstance(v, Tensor) and v.ndim == 0 else v) for v in values]
