"""Method and the registry. A registered method is a tested method: the laws run over the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from ..core import Step
from ..errors import ArgumentError, like, unknown
from ..operator import Linear, Operator

Writer = Callable[[Sequence[float], int, Operator, int], Step]


@dataclass(frozen=True)
class Method:
    """A rule that writes the weights of a step.

    write(times, n, operator, evals) gives the step from times[n] to times[n+1] on at most `evals`
    evaluations; times[0] is where its history begins.

    order: of convergence.  sizes: evaluations that one step can be written with, largest first.
    start: evaluations of the first steps, where a start makes them dearer than sizes[0].
    prediction: the frame in which it samples a diffusion (`frame.Frame`: "data", "noise", or with L = 0
    "sigma", "velocity", "v"; None for the process's own of these).  eta: noise of the SDE it samples.
    exponential: whether it solves the linear part exactly.  implicit: whether implicitly. If neither, the
    linear part belongs to the field.  diffusion: whether it needs a process, as what injects noise does.
    """

    write: Writer
    order: int
    sizes: tuple[int, ...] = (1,)
    start: tuple[int, ...] = ()
    prediction: str | None = None
    eta: float = 0.0
    exponential: bool = True
    implicit: bool = False
    diffusion: bool = False
    name: str = ""
    kind: str = ""
    reference: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> bool:
        """Whether its weights are made of the linear part, and its field is the rest."""
        return self.exponential or self.implicit

    def step(self, times: Sequence[float], n: int, operator: Operator, evals: int | None = None) -> Step:
        return self.write(times, n, operator, evals or self.full(n))

    def full(self, n: int) -> int:
        """Evaluations of step n when no budget lowers them."""
        return self.start[n] if n < len(self.start) else self.sizes[0]

    def split(self, nfe: int) -> tuple[int, ...]:
        """The budget as evaluations of each step: full steps, then what is left in lower-order ones.

        A start is paid whole, with something left for what it prepares, or not at all.
        """
        parts = list(self.start) if nfe > sum(self.start) else []
        nfe -= sum(parts)
        while nfe > 0:
            parts.append(next(size for size in self.sizes if size <= nfe))
            nfe -= parts[-1]
        return tuple(parts)

    @cached_property
    def evaluates_end(self) -> bool:
        """Whether a step leaves behind the evaluation at its own end (predictor-correctors)."""
        step = self.step([0.0, 1.0, 2.0], 0, Linear())
        at = [stage.at for stage in step.stages if stage.at is not None]
        return at[-1] == 1.0 and -1 in step.keep_f


@dataclass(frozen=True)
class Entry:
    """A line of the registry: a builder, and the arguments that make it the named method."""

    build: Callable[..., Method]
    kind: str
    reference: str
    defaults: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the named method and their defaults; what the name itself fixes is not one."""
        parameters = inspect.signature(self.build).parameters
        return {
            name: self.defaults.get(name, p.default)
            for name, p in parameters.items()
            if p.kind is p.KEYWORD_ONLY
        }


REGISTRY: dict[str, Entry] = {}


def register(name: str, build: Callable[..., Method], *, kind: str, reference: str, **defaults: Any) -> None:
    """Give a builder with some of its arguments fixed a name. Keyword-only arguments are its options."""
    if name in REGISTRY:
        raise ArgumentError(f"there is a method {name!r} already: give yours another name")
    REGISTRY[name] = Entry(build, kind, reference, defaults)


def get(name: str, **options: Any) -> Method:
    """The registered method, with options.

    Raises:
        ArgumentError: unknown name (with the nearest ones) or option (with those there are), or an
            option of the wrong kind.
    """
    if not isinstance(name, str) or name not in REGISTRY:
        raise unknown("method", name, REGISTRY)
    entry = REGISTRY[name]
    for key, value in options.items():
        if key not in entry.options:
            takes = ", ".join(entry.options) or "none"
            raise ArgumentError(f"method {name!r} has no option {key!r}; its options: {takes}")
        options[key] = like(f"{key} of method {name!r}", value, entry.options[key])
    method = entry.build(**{**entry.defaults, **options})
    return replace(method, name=name, kind=entry.kind, reference=entry.reference, options=dict(options))


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value of an option that is not among those allowed."""
    if value not in allowed:
        raise ArgumentError(f"{name} = {value!r}: it is one of {', '.join(map(str, allowed))}")


@dataclass(frozen=True)
class Row:
    """What `list_methods` says of a method."""

    name: str
    kind: str
    order: int
    nfe_per_step: int
    options: dict[str, Any]
    reference: str


RowT = TypeVar("RowT")


class Table(tuple[RowT, ...]):
    """The rows, printed as an aligned table."""

    def __str__(self) -> str:
        lines = [("name", "kind", "order", "NFE/step", "reference")]
        rows: tuple[Any, ...] = self
        lines += [(r.name, r.kind, str(r.order), str(r.nfe_per_step), r.reference) for r in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__


def list_methods() -> Table[Row]:
    """Every method of given steps: name, kind, order, evaluations per step, options, reference.

    Those that choose their steps, and those of SDEs, are in `ls.list_solvers()`.
    """
    rows = []
    for name, entry in REGISTRY.items():
        method = get(name)
        rows.append(Row(name, entry.kind, method.order, method.sizes[0], entry.options, entry.reference))
    return Table(rows)
