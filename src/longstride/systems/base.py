"""What a ready problem is, and the registry of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

from ..errors import ArgumentError, finite, positive, unknown, whole
from ..methods import REGISTRY
from ..methods.second_order import rtol_of
from ..problem import ODE

P = ParamSpec("P")
Number = float | Tensor  # one for all samples, or a tensor of one for each, [B]
STIFF = ("rodas5p", "kvaerno5", "radau5", "bdf", "tsit5")


@dataclass(frozen=True)
class Series:
    """Drawn as components against time, the size of the steps below.

    shown: these components alone.  log_from: where a logarithmic axis of time begins.
    """

    shown: tuple[int, ...] = ()
    log_from: float = 0.0
    log_values: bool = False


@dataclass(frozen=True)
class Plane:
    """Drawn as curves: points takes x [..., *shape] to [..., curves, 2].

    equal: one unit is as long on both axes.
    """

    points: Callable[[Tensor], Tensor]
    axes: tuple[str, str]
    equal: bool = False


@dataclass(frozen=True)
class SpaceTime:
    """Drawn as an image: row takes x [..., *shape] to [..., N], which stand from first to last on an axis.

    Several images, one below the other: row gives a tuple, and colour has as many names.
    """

    row: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
    axis: str
    colour: str | tuple[str, ...]
    first: float
    last: float


@dataclass(frozen=True)
class Frames:
    """Drawn as an image for each time: image takes x [..., *shape] to [..., n1, n2], on a box of these
    lengths. Several, as in `SpaceTime`.
    """

    image: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
    colour: str | tuple[str, ...]
    length: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class System(ODE):
    """An ODE with what belongs to it: `ls.solve(system, system.x0, t=system.t)`.

    x0: a start, [1, *shape], or [B, *shape] where a parameter is [B].  t: a span worth looking at.
    labels: of the components.  parameters: what it was made with.
    invariants: functions of x [..., *shape], [...], that stay what they are along every solution.
    exact: exact(t, x0), the solution from x0 at 0, where it is known.
    methods: those that suit it, the best first.  rtol, atol: good tolerances of adaptive ones.  dt: a good
    step at the default parameters where equal ones are usual.
    jacobian: its structure, as implicit methods take it; (lower, upper) are the widths of its bands.
    view: how a picture shows it.  name, reference: of the registry.
    """

    x0: Tensor
    t: tuple[float, float]
    labels: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    invariants: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    exact: Callable[[float, Tensor], Tensor] | None = None
    methods: tuple[str, ...] = ("tsit5",)
    rtol: float = 1e-6
    atol: float = 1e-9
    dt: float | None = None
    jacobian: Any = None
    view: Series | Plane | SpaceTime | Frames = Series()
    name: str = ""
    reference: str = ""

    @property
    def method(self) -> str:
        """The first of `methods`."""
        return self.methods[0]

    def steps(
        self,
        method: str | None = None,
        dt: float | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> dict[str, float]:
        """What tells `solve` how to step: dt, or tolerances; where nothing is said what the system has, its
        dt if the method takes equal steps.

        Raises:
            ArgumentError: both, or a dt that is not positive.
        """
        if dt is None and rtol is None and atol is None and (method or self.method) in REGISTRY:
            dt = self.dt
        if dt is not None:
            if rtol is not None or atol is not None:
                raise ArgumentError("dt takes equal steps: leave out rtol and atol")
            return {"dt": positive("dt", dt)}
        return {
            "rtol": rtol_of(method or self.method, self.rtol) if rtol is None else rtol,
            "atol": self.atol if atol is None else atol,
        }

    def drift(self, x: Tensor, start: Tensor) -> dict[str, Tensor]:
        """By how much each invariant differs at x from its value I at the start, over max(|I|, 1)."""
        out = {}
        for name, invariant in self.invariants.items():
            before = invariant(start)
            out[name] = (invariant(x) - before).abs() / before.abs().clamp_min(1.0)
        return out


SYSTEMS: dict[str, Callable[..., System]] = {}


def system(
    reference: str, above_zero: Sequence[str] = ()
) -> Callable[[Callable[P, System]], Callable[P, System]]:
    """Registers a function that builds a System under its own name, and checks what it is called with.

    A parameter whose default is an int must be a whole number above 0, one whose default is a name is passed
    on as it is. All others are finite numbers or tensors [B] of them, those of `above_zero` above 0. A tensor
    decides the precision and the device of x0.
    """

    def register(build: Callable[P, System]) -> Callable[P, System]:
        signature = inspect.signature(build)

        @wraps(build)
        def made(*args: P.args, **kwargs: P.kwargs) -> System:
            takes = signature.parameters
            for key in kwargs:
                if key not in takes:
                    raise ArgumentError(
                        f"{build.__name__} has no parameter {key!r}; its parameters: "
                        f"{', '.join(takes) or 'none'}"
                    )
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {
                name: _checked(name, value, signature.parameters[name].default, name in above_zero)
                for name, value in bound.arguments.items()
            }
            found: System = build(**given)  # type: ignore[call-arg]
            x0 = _beside(found.x0, given)
            return replace(found, x0=x0, name=build.__name__, parameters=given, reference=reference)

        SYSTEMS[build.__name__] = made
        return made

    return register


def get(name: str, **parameters: Any) -> System:
    """The system of a name, with its parameters.

    Raises:
        ArgumentError: an unknown name or parameter, or a value that it cannot have.
    """
    if name not in SYSTEMS:
        raise unknown("system", name, SYSTEMS)
    return SYSTEMS[name](**parameters)


def list_systems() -> tuple[System, ...]:
    """Every system with its default parameters."""
    return tuple(build() for build in SYSTEMS.values())


def _checked(name: str, value: Any, default: Any, above_zero: bool) -> Any:
    if isinstance(default, int):
        return whole(name, value, 1)
    if isinstance(default, str):
        return value
    if not isinstance(value, Tensor):
        return positive(name, value) if above_zero else finite(name, value)
    if value.ndim > 1 or not value.is_floating_point():
        raise ArgumentError(f"{name} of {value.dtype}, {tuple(value.shape)}: real numbers, one each [B]")
    if not bool(value.isfinite().all()) or (above_zero and not bool((value > 0).all())):
        raise ArgumentError(f"{name}: it must be finite" + (" and positive" if above_zero else ""))
    return value


def _beside(x0: Tensor, given: Mapping[str, Any]) -> Tensor:
    """x0 for as many samples as the parameters are of, in their precision, where they are."""
    tensors = [v for v in given.values() if isinstance(v, Tensor)]
    sizes = {len(v) for v in tensors if v.ndim and len(v) != 1}
    if len(sizes) > 1:
        raise ArgumentError(f"parameters for {' and '.join(map(str, sorted(sizes)))} samples: give one batch")
    if tensors:
        like = tensors[0]
        x0 = x0.to(like.device, like.dtype.to_complex() if x0.is_complex() else like.dtype)
    return x0.expand(sizes.pop(), *x0.shape[1:]) if sizes and len(x0) == 1 else x0


def state(*values: Number) -> Tensor:
    """A start of these components, [1, D], or [B, D] where some are [B]; float64 unless those are not."""
    like = next((v for v in values if isinstance(v, Tensor)), torch.zeros((), dtype=torch.float64))
    rows = [torch.as_tensor(v, dtype=like.dtype, device=like.device).reshape(-1) for v in values]
    return torch.stack(torch.broadcast_tensors(*rows), -1)


def stacked(*components: Tensor) -> Tensor:
    """Components [...] as a state [..., D]."""
    return torch.stack(components, -1)


def wide(value: Number, axes: int = 1) -> Number:
    """A parameter beside the cells of a grid: [B] becomes [B, 1], with a 1 for each axis."""
    return value[(..., *[None] * axes)] if isinstance(value, Tensor) else value
