"""One family of errors. Every message says what to do."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


class SolveError(Exception):
    """Anything Longstride refuses or fails at."""


class Diverged(SolveError):
    """A run in equal steps that went to infinity.

    x: the last good state, that of time t, after `step` steps.  samples: those that went.  dt: a step size
    that stays bounded from there, or None where none was found.
    """

    def __init__(
        self, message: str, *, x: Any, t: float, step: int, samples: tuple[int, ...], dt: float | None
    ) -> None:
        super().__init__(message)
        self.x, self.t, self.step, self.samples, self.dt = x, t, step, samples, dt


class ArgumentError(SolveError, ValueError):
    """A bad argument: nothing was run."""


class PlanError(ArgumentError):
    """A plan that is damaged, or made for something else."""


def unknown(kind: str, name: Any, names: Iterable[str]) -> ArgumentError:
    """The error for an unknown `name`, with the nearest of the known `names`."""
    known = sorted(names)
    lower = {word.lower(): word for word in known}  # BDF is near bdf
    near = [lower[word] for word in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.4)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return ArgumentError(f"unknown {kind} {name!r}: {hint}")


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs: "n 8 and not 9, seed 0 and not 1"; nothing if they are the same."""
    keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
    return ", ".join(f"{key} {one.get(key)} and not {other.get(key)}" for key in keys)


def whole(what: str, value: Any, least: int | None = None, why: str = "") -> int:
    """`value` as an int, not less than `least`; what has a fraction or is no number is refused."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{what} = {value!r}: it must be a whole number") from None
    if least is not None and number < least:
        raise ArgumentError(f"{what} = {number}: {why or f'it must be at least {least}'}")
    return number


def finite(what: str, value: Any) -> float:
    """`value` as a float, if it is a finite real number."""
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{what} = {value!r}: it must be a finite number")
    return float(value)


def positive(what: str, value: Any) -> float:
    """`value` as a float, if it is a finite number above 0."""
    if finite(what, value) <= 0:
        raise ArgumentError(f"{what} = {value!r}: it must be positive")
    return float(value)


def floating(dtype: Any) -> None:
    """That a state may be of this dtype."""
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentError(f"dtype = {dtype}: the state needs a floating one, such as torch.float32")


def functions(**given: Any) -> None:
    """That each of these is a function, or None."""
    for what, value in given.items():
        if value is not None and (not callable(value) or isinstance(value, type)):
            raise ArgumentError(f"{what} = {value!r}: it is a function")


def like(what: str, value: Any, default: Any) -> Any:
    """`value` as what `default` is: yes or no, a finite number, or a word."""
    if isinstance(default, bool):
        if value is not True and value is not False:
            raise ArgumentError(f"{what} = {value!r}: it is True or False")
        return bool(value)
    if isinstance(default, Real):
        return finite(what, value)
    if isinstance(default, str) and not isinstance(value, str):
        raise ArgumentError(f"{what} = {value!r}: it is a word, such as {default!r}")
    return value


def at_step(method: str, n: int, times: Sequence[float]) -> str:
    """What messages call step n of a run along times."""
    return f"method {method}, step {n + 1} of {len(times) - 1}, t = {times[n]:.6g} to {times[n + 1]:.6g}"


def failed(where: str, error: Exception) -> SolveError:
    """What f or the network raised, with where it was; of its own kind if that is one of the family."""
    kind = type(error) if isinstance(error, SolveError) else SolveError
    return kind(f"{where}: {said(error)}")


def said(error: Exception) -> str:
    """What an error of the network or of f says, in one line."""
    return str(error) if isinstance(error, SolveError) else f"{type(error).__name__}: {error}".split("\n")[0]


def said_of(value: Any) -> str:
    """What something is that is not what was wanted: its shape or, in short, its kind."""
    return (
        f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"
    )
