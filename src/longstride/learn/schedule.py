"""The unified sampling framework: a schedule with another prediction, order and corrector at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..core import Stage, Step
from ..errors import ArgumentError, whole
from ..frame import DATA, FRAMES, PREDICTIONS, Frame, conversion
from ..methods.adams import Moments, exact, halved, unipc_moments, weights
from ..methods.base import one_of
from ..operator import exp
from ..plan import Plan
from ..process import Process

MOMENTS: dict[str, Moments] = {
    "exact": exact, "halved": halved, "bh1": unipc_moments("bh1"), "bh2": unipc_moments("bh2"),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """How one step goes: the frame of its prediction, its order, whether it is corrected, and its moments.

    prediction: one of `frame.FRAMES`.  order: evaluations behind the predictor; the corrector has one more.
    moments: of the interpolation, "exact" or as a published sampler simplifies them (`methods/adams.py`):
    "halved" as DPM-Solver++, "bh1" and "bh2" as UniPC.

    Raises:
        ArgumentError: an unknown frame or moments, or an order below 1.
    """

    prediction: str = "data"
    order: int = 2
    corrector: bool = False
    moments: str = "exact"

    def __post_init__(self) -> None:
        one_of("prediction", self.prediction, FRAMES)
        one_of("moments", self.moments, tuple(MOMENTS))
        whole("order", self.order, 1)


@dataclass(frozen=True)
class Node:
    """An evaluation D = D(t, X): its time, and where among what a step knows X and D are."""

    t: float
    x: int
    f: int


@dataclass(frozen=True)
class Schedule:
    """Times of the evaluations [nfe], falling, and the choice of the step after each; the last ends at data.

    Every evaluation is kept as the data prediction D_j with the state X_j that it was made of, so that any
    step can have it as any prediction, F_j = a_j X_j + b_j D_j. A step from s to t with state x is then

        x_t = r x + sum_j w_j (a_j X_j + b_j D_j)

    with r and w_j those of exponential Adams in the step's own frame. A corrected step has the evaluation at
    its end for one more node; that is kept, so it costs nothing, but x is not X_j any more. Where the frame's
    clock is infinite (pure noise, clean data) its prediction is held still.

    Reference: Liu et al. 2023, "A unified sampling framework for solver searching of diffusion probabilistic
    models".
    """

    times: tuple[float, ...]
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.times or len(self.times) != len(self.choices):
            raise ArgumentError(
                f"{len(self.times)} times, {len(self.choices)} choices: give one for the step after each time"
            )

    def plan(self, process: Process, report: Mapping[str, Any] = {}) -> Plan:
        """The weights of the schedule, for `ls.sample(model, plan=...)`.

        Raises:
            PlanError: times that do not fall.
        """
        window, steps = max(choice.order for choice in self.choices), list[Step]()
        stops = (*self.times[1:], process.t_end)
        nodes, now = [Node(self.times[0], 1, 0)], 1  # the first stage repeats the state and evaluates it
        for choice, s, t in zip(self.choices, self.times, stops, strict=True):
            frame = Frame(process, choice.prediction)
            stages = [] if steps else [Stage((1.0,), at=s, field=DATA)]
            x, f = _row(frame, choice, s, t, nodes[-choice.order :], now)
            if t == process.t_end:
                steps.append(Step((*stages, Stage(x, f))))
                break
            stages.append(Stage(x, f, at=t, field=DATA))
            nodes.append(Node(t, now + 1, nodes[-1].f + 1))
            newest = now + 1
            if choice.corrector and math.isfinite(frame.clock(s)):
                stages.append(Stage(*_row(frame, choice, s, t, nodes[-choice.order - 1 :], now)))
                newest += 1
            nodes = nodes[-window:]
            steps.append(Step(tuple(stages), (*(n.x for n in nodes), newest), tuple(n.f for n in nodes)))
            nodes, now = [Node(n.t, i, i) for i, n in enumerate(nodes)], len(nodes)
        options = {"choices": [asdict(choice) for choice in self.choices]}
        times = (*self.times, process.t_end)
        return Plan(times, tuple(steps), process.describe(), "solver_schedule", options, report)


def _row(frame: Frame, choice: Choice, s: float, t: float, nodes: Sequence[Node], now: int) -> tuple:
    """Weights (x, f) of the state at t from that at s, which is number `now`, and the nodes, oldest first."""
    prediction, process = PREDICTIONS[frame.field], frame.process
    if math.isfinite(frame.clock(s)) and math.isfinite(frame.clock(t)):
        nodes = [n for n in nodes if math.isfinite(frame.clock(n.t))]
        h = frame.clock(t) - frame.clock(s)
        inner = weights(frame, s, t, [n.t for n in nodes], MOMENTS[choice.moments])
        (r,), w = frame.row(t, [(s, exp(h * frame.L))], inner)
    else:
        nodes = nodes[-1:]
        alpha, sigma = process.pair(s)
        prediction = prediction if alpha else "data"  # pure noise tells nothing of the data
        (a, b), (c, d) = (conversion(prediction, p, alpha, sigma) for p in ("data", "noise"))
        alpha, sigma = process.pair(t)
        r, w = alpha * a + sigma * c, (alpha * b + sigma * d,)
    x, f = [0.0] * (max(now, *(n.x for n in nodes)) + 1), [0.0] * (max(n.f for n in nodes) + 1)
    x[now] = r
    for node, v in zip(nodes, w, strict=True):
        a, b = conversion("data", prediction, *process.pair(node.t))
        x[node.x] += v * a
        f[node.f] += v * b
    return tuple(x), tuple(f)
