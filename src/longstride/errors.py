"""One family of errors. Every message says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SolveError(Exception):
    """Anything Longstride refuses or fails at."""


class ArgumentError(SolveError, ValueError):
    """A bad argument: nothing was run."""


class PlanError(ArgumentError):
    """A plan that is damaged, or made for something else."""


def unknown(kind: str, name: str, names: Iterable[str]) -> ArgumentError:
    """The error for an unknown `name`, with the nearest of the known `names`."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return ArgumentError(f"unknown {kind} {name!r}: {hint}")
