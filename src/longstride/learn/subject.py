"""What `tune` tunes for: a model that samples, or an equation that is solved from many states."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .. import grid as grids
from ..core import Field
from ..denoiser import Denoiser
from ..errors import ArgumentError, finite
from ..frame import DATA
from ..guidance import Guidance
from ..integrate import plan_fields, plan_problem, run
from ..journal import fingerprint
from ..plan import Plan
from ..problem import ODE
from ..sampling import plan_reference, plan_sampling, prior, sample
from .axis import Axis, Diffusion, Straight
from .trajectories import Trajectories, trajectories

SEED = 0x74756E65  # added to the seed, so that nobody samples the noises that a plan was fitted to

# What is tried: families that are dense at the noisy end, in the middle, and at the clean one.
FAMILIES = (
    ("karras", "rho", (3.0, 7.0), (False,)),
    ("exponential", "rho", (0.7, 0.85, 1.0), (False, True)),
    ("decay", "gamma", (0.5, 0.3), (False, True)),
    ("flow_shift", "shift", (1.0, 2.0), (False, True)),
)
GRIDS: dict[str, grids.Grid] = {
    f"{family}:{key}={value:g}{':open=true' * end}": (family, {key: value} | ({"open": True} if end else {}))
    for family, key, values, ends in FAMILIES
    for value in values
    for end in ends
}
# Two that leave out t_min: what is best on them may be far from it on any other.
OPEN = ("flow_shift:shift=1:open=true", "decay:gamma=0.5:open=true")
GOLDEN = (5**0.5 - 1) / 2  # its multiples are spread evenly over [0, 1], and so are any part of them
POWERS = (1.0, 0.5, 0.7, 1.5, 2.0)  # of an equation's times, (i/n)^p of the way: 1 is even


class Subject(Protocol):
    """Starts by their numbers (rows), and how to go from them. `evaluations` counts every one."""

    name: str
    shape: tuple[int, ...]
    axis: Axis
    x: Tensor  # the starts [n, *shape]
    like: Tensor  # [n], the rows whose conditions they have
    spread: float  # of starts that are Gaussian and nothing else, 0 of others
    evaluations: int
    screened: tuple[str, ...]  # grids that every method is tried on, before the best are on all
    grids: tuple[str, ...]

    def add(self, x: Tensor, like: Tensor) -> Tensor:
        """More starts, of the conditions that the rows `like` have; their rows."""

    def field(self, rows: Tensor) -> Field:
        """The field of these rows, in batches: f(t, x), x [len(rows), *shape]."""

    def ends(self, plan: Plan, rows: Tensor) -> Tensor:
        """Where a plan leads them."""

    def solutions(self, rows: Tensor, nfe: int) -> Trajectories:
        """Where they truly go, in so many evaluations."""

    def reference(self, rows: Tensor, nfe: int) -> Tensor:
        """The end of that."""

    def published(self, method: str, grid: str, nfe: int) -> Plan | None:
        """A method's plan of a budget, None if it has none."""

    def times(self, nfe: int, grid: str) -> tuple[float, ...]:
        """Of nfe evaluations, and the end."""

    def identity(self, rows: Tensor) -> str:
        """A digest of what the field answers."""

    def tuned_for(self) -> dict[str, Any]:
        """What a plan of it says it is for."""


class Sampling:
    """A model, and n noises. Conditions and guidance weights are dealt out to them in turn."""

    def __init__(
        self, model: Denoiser, cond: Mapping[str, Any] | None,
        guidance: float | Guidance | Sequence[float | Guidance], n: int, seed: int, batch: int,
        dtype: torch.dtype | None = None,
    ):  # fmt: skip
        self.model, self.name, self.shape, self.batch = model, model.name, model.shape, batch
        self.given = in_turn(cond or {})
        several = guidance if isinstance(guidance, Sequence) else [guidance]
        if not several:
            raise ArgumentError("guidance is empty: give a weight, or several that a plan is for")
        self.guidances = [Guidance.of(g) for g in several]
        self.axis: Axis = Diffusion(model.process)
        self.x = prior(model, n, SEED + seed, dtype=dtype)
        self.like, self.spread = torch.arange(n), model.process.sigma(model.process.t_max)
        self.evaluations = 0
        self.grids = tuple(GRIDS)
        self.screened = tuple(dict.fromkeys((grids.default_grid(model.process), "log_snr", *OPEN)))

    def add(self, x: Tensor, like: Tensor) -> Tensor:
        return _added(self, x, like)

    def cond(self, rows: Tensor) -> dict[str, Any]:
        rows = self.like[rows]
        return {k: v[rows % len(v)] if isinstance(v, Tensor) else v for k, v in self.given.items()}

    def _groups(self, rows: Tensor) -> Iterator[tuple[Any, Guidance]]:
        """Places among the rows that have one guidance. As even among a few as among all."""
        if len(self.guidances) == 1:
            yield slice(None), self.guidances[0]
            return
        which = (self.like[rows].double() * GOLDEN % 1 * len(self.guidances)).long()
        for k, guidance in enumerate(self.guidances):
            if (places := (which == k).nonzero().flatten()).numel():
                yield places, guidance

    def field(self, rows: Tensor) -> Field:
        parts = []
        for places, guidance in self._groups(rows):
            for some in torch.arange(len(rows))[places].split(self.batch):
                given = self.model.conditioning(self.cond(rows[some]), len(some), self.model.device)
                first, last = int(some[0]), int(some[-1]) + 1
                where = slice(first, last) if last - first == len(some) else some
                parts.append((where, self.model.fields(given, guidance)[DATA]))

        def evaluate(t: float, x: Tensor) -> Tensor:
            self.evaluations += _counted(x)
            out = torch.empty_like(x)
            for where, field in parts:
                out[where] = field(t, x[where])
            return out

        return evaluate

    def ends(self, plan: Plan, rows: Tensor) -> Tensor:
        self.evaluations += plan.nfe * len(rows)
        out = torch.empty_like(self.x[rows])
        for places, guidance in self._groups(rows):
            some = rows[places]
            out[places] = sample(
                self.model, x_init=self.x[some], plan=plan, cond=self.cond(some), guidance=guidance,
                batch=self.batch,
            ).to(out)  # fmt: skip
        return out

    def solutions(self, rows: Tensor, nfe: int) -> Trajectories:
        self.evaluations += nfe * len(rows)
        found = [
            trajectories(
                self.model, self.x[rows[places]], cond=self.cond(rows[places]), guidance=guidance, nfe=nfe,
                batch=self.batch,
            )
            for places, guidance in self._groups(rows)
        ]  # fmt: skip
        if len(found) == 1:
            return found[0]
        order = torch.cat([places for places, _ in self._groups(rows)]).argsort()
        states = torch.cat([paths.states for paths in found], 1)[:, order]
        return Trajectories(
            self.axis, found[0].times, states, torch.cat([paths.end for paths in found])[order]
        )

    def reference(self, rows: Tensor, nfe: int) -> Tensor:
        return self.ends(plan_reference(self.model.process, nfe), rows)

    def published(self, method: str, grid: str, nfe: int) -> Plan | None:
        try:
            return plan_sampling(self.model.process, method, nfe, GRIDS.get(grid, grid))
        except ArgumentError:
            return None

    def times(self, nfe: int, grid: str) -> tuple[float, ...]:
        return (*grids.times(self.model.process, nfe, GRIDS[grid]), self.axis.end)

    def counting(self) -> Denoiser:
        """The model, its network's calls among the evaluations, one for each sample."""
        return replace(self.model, net=Counting(self.model.net, self))

    def identity(self, rows: Tensor) -> str:
        noise = self.x[rows] / self.model.process.sigma(self.model.process.t_max)
        answers = [fingerprint(self.model, noise, self.cond(rows), guidance) for guidance in self.guidances]
        dealt = [f"{name} {torch.as_tensor(v).tolist()}" for name, v in sorted(self.given.items())
                 if isinstance(v, Tensor)]  # fmt: skip
        return hashlib.sha256(" ".join([*answers, *dealt]).encode()).hexdigest()

    def tuned_for(self) -> dict[str, Any]:
        """Of several guidances all are named."""
        guided = [str(guidance) for guidance in self.guidances]
        return {"model": self.name, "shape": list(self.shape),
                "guidance": guided[0] if len(guided) == 1 else guided}  # fmt: skip


class Counting(nn.Module):
    """A network that adds the samples it is called with to the evaluations of its subject."""

    def __init__(self, net: Callable[..., Tensor], subject: Sampling):
        super().__init__()
        self.net, self.counted = net, [subject]  # in a list: no module of this one

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        self.counted[0].evaluations += len(x)
        return self.net(x, t, **cond)


class Solving:
    """An equation, and the states [n, *shape] that it is solved from, over t = (start, end)."""

    name = "ODE"

    def __init__(self, problem: ODE, x0: Tensor, t: Sequence[float], batch: int):
        if not isinstance(x0, Tensor) or not x0.is_floating_point() or x0.ndim < 2:
            raise ArgumentError("x0 must be a tensor of floats [n, ...]: the states to solve the ODE from")
        if not isinstance(t, Sequence) or len(t) != 2 or finite("t", t[0]) == finite("t", t[1]):
            raise ArgumentError(f"t = {t!r}: it is (start, end)")
        self.problem, self.x, self.shape, self.batch = problem, x0, tuple(x0.shape[1:]), batch
        self.like, self.spread = torch.arange(len(x0)), 0.0
        self.axis: Axis = Straight(float(t[0]), float(t[1]))
        self.t = float(t[0]), float(t[1])
        self.evaluations = 0
        self.grids = tuple(f"power:p={p:g}" for p in POWERS)
        self.screened = self.grids[:1]

    def add(self, x: Tensor, like: Tensor) -> Tensor:
        return _added(self, x, like)

    def _placed(self, n: int, power: float = 1.0) -> tuple[float, ...]:
        start, end = self.t
        return (*(start + (end - start) * (i / n) ** power for i in range(n)), end)

    def field(self, rows: Tensor) -> Field:
        rate = self.problem.fields(False)[0]

        def evaluate(t: float, x: Tensor) -> Tensor:
            self.evaluations += _counted(x)
            return torch.cat([rate(t, part) for part in x.split(self.batch)])

        return evaluate

    def _run(self, plan: Plan, rows: Tensor) -> list[Tensor]:
        """The states after every step."""
        self.evaluations += plan.nfe * len(rows)
        fields, every = plan_fields(self.problem, plan), set(range(len(plan.steps)))
        parts = [run(fields, plan, x, save=every)[0] for x in self.x[rows].split(self.batch)]
        return [torch.cat(states) for states in zip(*parts, strict=True)]

    def ends(self, plan: Plan, rows: Tensor) -> Tensor:
        return self._run(plan, rows)[-1]

    def solutions(self, rows: Tensor, nfe: int) -> Trajectories:
        plan = self._converged(nfe)
        *states, end = self._run(plan, rows)
        return Trajectories(self.axis, plan.times[:-1], torch.stack([self.x[rows], *states]), end)

    def reference(self, rows: Tensor, nfe: int) -> Tensor:
        return self.ends(self._converged(nfe), rows)

    def _converged(self, nfe: int) -> Plan:
        return plan_problem(self.problem, self._placed(max(nfe // 4, 4)), "rk4")

    def published(self, method: str, grid: str, nfe: int) -> Plan | None:
        power = POWERS[self.grids.index(grid)]
        for n in range(nfe, 0, -1):
            try:
                plan = plan_problem(self.problem, self._placed(n, power), method)
            except (ArgumentError, OverflowError):
                return None
            if plan.nfe <= nfe:
                return plan
        return None

    def times(self, nfe: int, grid: str) -> tuple[float, ...]:
        return self._placed(nfe, POWERS[self.grids.index(grid)])

    def identity(self, rows: Tensor) -> str:
        answers = [self.field(rows)(t, self.x[rows]) for t in self._placed(3)]
        both = torch.stack([self.x[rows], *answers]).double().cpu()
        return hashlib.sha256(both.numpy().tobytes() + repr(self.t).encode()).hexdigest()

    def tuned_for(self) -> dict[str, Any]:
        return {"model": self.name, "shape": list(self.shape), "t": list(self.t)}


def _added(subject: Subject, x: Tensor, like: Tensor) -> Tensor:
    rows = len(subject.x) + torch.arange(len(x))
    subject.x, subject.like = torch.cat([subject.x, x]), torch.cat([subject.like, like])
    return rows


def _counted(x: Tensor) -> int:
    """A derivative costs about what its evaluation does."""
    return len(x) * (2 if torch.is_grad_enabled() else 1)


def in_turn(cond: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions as tensors that are dealt out in turn.

    Raises:
        ArgumentError: lengths that differ.
    """
    given: dict[str, Any] = {}
    for name, value in cond.items():
        dealt = (isinstance(value, Tensor) and value.ndim > 0) or (
            isinstance(value, Sequence) and not isinstance(value, str)
        )
        given[name] = torch.as_tensor(value) if dealt else value
    lengths = {len(v) for v in given.values() if isinstance(v, Tensor)} - {1}
    if len(lengths) > 1 or 0 in lengths:
        raise ArgumentError(
            f"cond has values of lengths {sorted(lengths)}: they are dealt out in turn together"
        )
    return given
