"""A run of `longstride solve`: what is asked, what is seen on the way, and how it is told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, Diverged, SolveError

if TYPE_CHECKING:
    from torch import Tensor

    from ..report import Steps, Track
    from ..solution import Solution
    from ..systems import System

WIDE = 8  # components of a state that the table still shows
MARKS = 10_000  # times along the curves of a picture
LOOK, MANY = 50, 1_000  # steps that tell how many come, and how many pay a loop in C++
ROOM = 2**28  # bytes of a field's frames in a picture, at most


@dataclass
class Task:
    """A run as it was asked for, and what is seen of it on the way: the ends of the first sample's steps."""

    system: System
    x0: Tensor
    end: float
    method: str
    how: dict[str, Any]
    drawn: bool
    controller: Any = None
    label: str = ""
    ends: list[float] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)
    wrong: str = ""

    def run(self, report: Callable[[int, int], None]) -> Solution | None:
        """The solution; nothing where equal steps failed, what went wrong in `wrong`."""
        from ..integrate import solve

        start, due = self.system.t[0], 0.0
        every, last = self.frames()

        def look(t: float, x: Tensor, n: int = 0) -> None:
            nonlocal due
            if self.drawn and (n % every == 0 or n == last):
                self.ends.append(t)
                self.seen.append(x.clone())
            if time.monotonic() > due:
                due = time.monotonic() + 0.1
                report(round(1000 * abs(t - start)), round(1000 * abs(self.end - start)))

        def watch(t: Tensor, x: Tensor, h: Tensor) -> None:
            look(float(t.flatten()[0]), x[:1])

        common: dict[str, Any] = {"t": (start, self.end), "method": self.method, "grad": False, **self.how}
        if "dt" not in self.how:
            common["save_at"] = self.marks() if self.drawn and not self.follows else None
            if self.controller is not None:
                common["controller"] = self.controller
            compiled = self.pays(solve)
            seen = None if compiled and not self.drawn else watch  # the loop is quicker than who looks at it
            return solve(self.system, self.x0, watch=seen, compile=compiled, **common)
        try:
            return solve(self.system, self.x0, callback=lambda n, t, x: look(t, x, n + 1), **common)
        except ArgumentError:
            raise
        except SolveError as error:
            self.wrong = str(error)
            if isinstance(error, Diverged):  # what came later would spoil the scale of a picture
                good = max(1, sum(abs(t - start) <= abs(error.t - start) for t in self.ends))
                self.ends, self.seen = self.ends[:good], self.seen[:good]
            return None

    def pays(self, solve: Callable[..., Solution]) -> bool:
        """Whether so many steps are ahead that it pays to compile them, which takes some seconds.

        Those of Gauss and Radau cost the host some 25 evaluations each. The first few tell how many come.
        """
        from ..columns import WIDE as most
        from ..native.library import compiler
        from ..nbody import Attraction

        narrow = self.x0[0].numel() <= most and self.controller is None and compiler() is not None
        bodies = isinstance(self.system.acceleration, Attraction)
        if self.method != "gauss_radau_15" or "dt" in self.how or not (narrow and bodies):
            return False
        span = self.system.t[0], self.end
        ahead = solve(
            self.system, self.x0, t=span, method=self.method, grad=False, max_steps=LOOK, **self.how
        ).t_end
        gone = math.inf if ahead is None else float((ahead - span[0]).abs().min())
        return gone * MANY < LOOK * abs(span[1] - span[0])

    @property
    def follows(self) -> bool:
        """Whether a picture is made of the steps of the one sample, and no other times are asked for."""
        from ..systems import Plane

        return isinstance(self.system.view, Plane) and len(self.x0) == 1 and "dt" not in self.how

    @property
    def most(self) -> int:
        """States that a picture is made of, at most."""
        if self.system.space is None:
            return MARKS
        from ..report import picture_times

        return min(len(picture_times(self.system, self.end)), max(2, ROOM // self.x0.nbytes))

    def frames(self) -> tuple[int, int]:
        """Every how many equal steps a state is kept for a picture, and after which one in any case."""
        if self.system.space is None or "dt" not in self.how:
            return 1, 0
        steps = math.ceil(abs(self.end - self.system.t[0]) / self.how["dt"] - 1e-9)
        return max(1, math.ceil(steps / self.most)), steps

    def marks(self) -> list[float]:
        """Times along the curves, the start among them."""
        import numpy as np

        start, first = self.system.t[0], getattr(self.system.view, "log_from", 0.0)
        if 0 < first < self.end:
            return [start, *np.geomspace(first, self.end, self.most)[:-1].tolist(), self.end]
        return [*np.linspace(start, self.end, self.most)[:-1].tolist(), self.end]

    def draw(self, path: Path, solution: Solution | None, wrong: str, others: Sequence[Track] = ()) -> None:
        """others: runs to stand beside this one."""
        import torch

        from ..report import between, orbit_picture, picture, trajectory_picture

        t, x = self.seen_by(solution)
        along, curve = (
            (t, torch.stack(x)) if solution is None or "dt" in self.how else (solution.t, solution.x)
        )
        if self.system.space is not None:
            picture(self.system, along, curve, path, self.title(), wrong)
        elif path.suffix != ".png" or others:
            orbit_picture(self.system, [self.track(solution), *others], path, self.title(), wrong)
        else:
            steps = self.steps(solution)
            if self.follows:
                times, states = between(self.system, steps)
                along, curve = times.tolist(), states[:, None]
            trajectory_picture(self.system, along, curve, steps, path, self.title(), wrong)

    def seen_by(self, solution: Solution | None) -> tuple[list[float], list[Tensor]]:
        """Times and states that were seen, from the start to where the run ended."""
        if "dt" in self.how:
            return [self.system.t[0], *self.ends], [self.x0, *self.seen]
        if solution is None or solution.t_end is None:
            return list(self.ends), list(self.seen)
        return [*self.ends, float(solution.t_end[0])], [*self.seen, solution.x_end[:1]]

    def steps(self, solution: Solution | None) -> Steps:
        """Of the first sample."""
        import numpy as np
        import torch

        from ..report import Steps

        t, x = self.seen_by(solution)
        ends, states = np.array(t), torch.cat([v[:1] for v in x])
        kept = np.append(ends[:-1] != ends[1:], True)  # refused steps are tried again from where they began
        return Steps(ends[kept], states[torch.from_numpy(kept)].numpy())

    def track(self, solution: Solution | None) -> Track:
        from ..report import Track

        cost = f", {solution.stats.nfe} evaluations" if solution is not None else ""
        return Track(self.system, self.label + cost, self.steps(solution))

    def title(self) -> str:
        """Parameters, method, span."""
        given = ", ".join(
            f"{k} = {', '.join(map(said, flat(value)))}" for k, value in self.system.parameters.items()
        )
        how = [f"{k} {v:g}" for k, v in self.how.items()]
        line = ", ".join(
            [self.method, *[self.label] * bool(self.label), *how, f"t = {self.system.t[0]:g} to {self.end:g}"]
        )
        return f"{given}\n{line}" if given else line

    def parameters(self) -> dict[str, Any]:
        """As JSON has them."""
        return {k: flat(v) if hasattr(v, "reshape") else v for k, v in self.system.parameters.items()}

    def samples(self, solution: Solution) -> list[dict[str, Any]]:
        """All that is known of each sample, for a program."""
        x = solution.x[-1] if solution.x_end is None else solution.x_end
        stats, B = solution.stats, len(x)

        def each(found: Tensor | None, default: Any) -> list[Any]:
            return [default] * B if found is None else found.tolist()

        ends = each(solution.t_end, self.end)
        nfe, accepted = each(stats.nfe_each, stats.nfe), each(stats.accepted, stats.steps)
        rejected, drift = each(stats.rejected, 0), self.system.drift(x, self.x0)
        swept = {k: flat(v) for k, v in self.system.parameters.items() if len(flat(v)) > 1}
        return [
            {
                "sample": i, **{k: v[i] for k, v in swept.items()}, "status": solution.status[i],
                "t": ends[i], "NFE": nfe[i], "accepted": accepted[i], "rejected": rejected[i],
                "drift": {k: float(v[i]) for k, v in drift.items()}, **self.state(x[i]),
                "message": solution.message[i] if solution.message else "",
            }
            for i in range(B)
        ]  # fmt: skip

    def state(self, x: Tensor) -> dict[str, Any]:
        """Of a state: its numbers; of a field, what they come to."""
        if self.system.space is None:
            return {"x": x.tolist()}
        size = x.abs()
        return {"largest": float(size.max()), "rms": float(size.square().mean().sqrt())}

    def rows(self, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines of the table."""
        import torch

        out = []
        for row in samples:
            line = {k: v for k, v in row.items() if k not in ("drift", "x", "message")}
            line |= {f"drift of {k}": v for k, v in row["drift"].items()}
            if "x" in row:
                line |= self.components(torch.tensor(row["x"]).flatten().tolist())
            out.append(line)
        return out

    def components(self, x: Sequence[float]) -> dict[str, Any]:
        """By their labels, or the first few of many."""
        if len(x) <= WIDE:
            return dict(zip(self.system.labels, x, strict=True))
        return {"x": f"{', '.join(f'{v:.4g}' for v in x[:3])}, ... ({len(x)})"}


def said(value: Any) -> str:
    """A parameter's value, a number or a word."""
    return value if isinstance(value, str) else f"{value:g}"


def flat(value: Any) -> list[Any]:
    """A parameter as the numbers it has, one or one of each sample."""
    return value.reshape(-1).tolist() if hasattr(value, "reshape") else [value]
