"""A state as its user has it, and as a run carries it: what both need of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from .adaptive.events import several


class View:
    """What lies between the two: `flat` and `nest`. All else that is given to a run, or comes back, follows.

    A run knows nothing of it: functions of a state see the user's, and so does the user.
    """

    def flat(self, state: Any) -> Tensor:
        """A state of the user's as the run carries it, [B, ...]."""
        raise NotImplementedError

    def nest(self, x: Tensor) -> Any:
        """The user's state of x [..., B, ...]."""
        raise NotImplementedError

    def reader(self, g: Callable[..., Any]) -> Callable[..., Any]:
        """g(..., state), on what the run carries."""
        return lambda *args: g(*args[:-1], self.nest(args[-1]))

    def _seen(self, reduction: Any) -> Any:
        return reduction.seen_by(self.reader) if hasattr(reduction, "seen_by") else reduction

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `solve` that see a state."""
        out = dict(options)
        if callable(norm := out.get("norm")):
            out["norm"] = self.reader(norm)
        if callable(watch := out.get("watch")):
            out["watch"] = lambda t, x, h: watch(t, self.nest(x), h)
        if "events" in out:
            out["events"] = [replace(event, g=self.reader(event.g)) for event in several(out["events"])]
        if asked := out.get("reduce"):
            listed = isinstance(asked, Sequence)
            out["reduce"] = [self._seen(a) for a in asked] if listed else self._seen(asked)
        return out

    def solution(self, found: Any) -> Any:
        """A `Solution` whose states are the user's."""
        events = tuple(replace(seen, x=self.nest(seen.x)) for seen in found.events)
        along = found.interpolant and replace(found.interpolant, nest=self.nest)
        states = {"x": self.nest(found.x), "x_end": self.nest(found.x_end)}
        return replace(found, **states, events=events, interpolant=along)
