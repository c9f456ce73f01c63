"""What a call in torchdiffeq's words asks for, checked, and as the core wants it: one row [1, N] and a rate.

Errors are of Longstride's family and of the kinds that torchdiffeq raises, so that what catches those goes on
working.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError, SolveError
from ...methods.embedded import PAIRS
from ...methods.runge_kutta import EULER, HEUN, HEUN_3, MIDPOINT, RK4_38

Func = Callable[[Tensor, Any], Any]
State = Tensor | tuple[Tensor, ...]
Callback = Callable[[Tensor, Any, Tensor], Any]

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")  # the names are ours as well
RUNGE_KUTTA = {"euler": EULER, "midpoint": MIDPOINT, "heun2": HEUN, "heun3": HEUN_3, "rk4": RK4_38}
ADAMS = ("explicit_adams", "implicit_adams", "fixed_adams")
METHODS = (*ADAPTIVE, *RUNGE_KUTTA, *ADAMS, "scipy_solver")

CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


class CheckError(ArgumentError, AssertionError):
    """A bad argument that torchdiffeq asserts about."""


class KindError(ArgumentError, TypeError):
    """A bad argument of the wrong type."""


class StepError(SolveError, AssertionError):
    """A run that could not go on, which torchdiffeq asserts about."""


class LimitError(SolveError, RuntimeError):
    """A run that did not come to an end."""


@dataclass(frozen=True)
class Form:
    """The shape of a state: a tensor, or a tuple of tensors, as one row [1, N] and back."""

    shapes: tuple[torch.Size, ...]
    single: bool

    @staticmethod
    def of(y0: State) -> Form:
        if isinstance(y0, Tensor):
            return Form((y0.shape,), True)
        if not isinstance(y0, tuple) or not y0 or not all(isinstance(part, Tensor) for part in y0):
            raise CheckError("y0 must be either a torch.Tensor or a tuple of them")
        return Form(tuple(part.shape for part in y0), False)

    @property
    def sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    def row(self, y: Any) -> Tensor:
        """A state as [1, N]."""
        return y.reshape(1, -1) if self.single else torch.cat([part.reshape(-1) for part in y])[None]

    def rates(self, out: Any, dtype: torch.dtype) -> Tensor:
        """What func returned as [1, N]."""
        if self.single:
            return self.part(out, self.shapes[0], dtype).reshape(1, -1)
        if len(out) != len(self.shapes):
            raise SolveError(
                f"func returned {len(out)} tensors for a state of {len(self.shapes)}: return each"
            )
        parts = zip(out, self.shapes, strict=True)
        return torch.cat([self.part(part, shape, dtype).reshape(-1) for part, shape in parts])[None]

    @staticmethod
    def part(out: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """A tensor that func returned, in the state's dtype and shape if it broadcasts to that."""
        if out.dtype != dtype:
            out = out.to(dtype)
        if out.shape == shape:
            return out
        try:
            wide = np.broadcast_shapes(out.shape, shape)
        except ValueError:
            wide = ()
        if math.prod(wide) != shape.numel():
            raise SolveError(f"func returned shape {tuple(out.shape)} for a state of {tuple(shape)}")
        return out.expand(wide).reshape(shape)

    def state(self, x: Tensor, *lead: int) -> Any:
        """What the user knows, of x with N numbers for each of `lead`."""
        if self.single:
            return x.view((*lead, *self.shapes[0]))
        parts = x.view(*lead, -1).split(self.sizes, -1)
        return tuple(part.reshape((*lead, *shape)) for part, shape in zip(parts, self.shapes, strict=True))

    def norm(self, norm: Callable[[Any], Any] | None) -> Callable[[Tensor], Any] | None:
        """A user's norm as one of rows; their default is the largest root mean square of the parts."""
        if norm is not None:
            return lambda x: norm(self.state(x))
        return None if self.single else largest_rms(self.sizes)

    def tolerance(self, name: str, value: Any) -> float | Tensor:
        """A number, a tensor beside the state, or for a tuple one of these for each part; as a row."""
        if isinstance(value, Tensor) and value.requires_grad:
            raise CheckError(f"{name} cannot require gradient: give it detached")
        each = isinstance(value, Iterable) and not (isinstance(value, Tensor) and not value.ndim)
        if not self.single and each:
            given = tuple(value)
            if len(given) != len(self.shapes):
                raise CheckError(
                    f"If using tupled {name} it must have the same length as the tuple y0, "
                    f"{len(self.shapes)} and not {len(given)}; or give one number"
                )
            pairs = zip(given, self.shapes, strict=True)
            return torch.cat([torch.as_tensor(tol).expand(shape).reshape(-1) for tol, shape in pairs])[None]
        if isinstance(value, Tensor) and value.ndim:
            return value.expand(self.shapes[0]).reshape(1, -1)
        return value


def largest_rms(sizes: list[int]) -> Callable[[Tensor], Tensor]:
    """The largest of the root mean squares of the parts of a row."""
    sizes = [size for size in sizes if size]
    roots = torch.tensor(sizes, dtype=torch.float64).sqrt()

    def norm(x: Tensor) -> Tensor:
        parts = x.view(-1).split(sizes)
        return (torch.stack([torch.linalg.vector_norm(p) for p in parts]) / roots.to(x.device)).amax()

    return norm


@dataclass(frozen=True)
class Asked:
    """A call of `odeint`, checked. x0 [1, N]; t as given, on x0's device.

    options are those of the method, without `norm`; norm is of rows, None for the root mean square.
    """

    func: Func
    y0: State
    form: Form
    x0: Tensor
    t: Tensor
    rtol: Any
    atol: Any
    method: str
    options: dict[str, Any]
    norm: Callable[[Tensor], Any] | None
    callbacks: Mapping[str, Callback] = field(default_factory=dict)

    @cached_property
    def times(self) -> list[float]:
        return self.t.detach().to(torch.float64).tolist()

    @cached_property
    def sign(self) -> float:
        """1 forward in time, -1 backward."""
        return -1.0 if len(self.t) > 1 and self.times[0] > self.times[1] else 1.0

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        """func on rows."""
        return self.form.rates(self.func(t, self.form.state(x)), x.dtype)

    def time(self, t: Any) -> Tensor:
        """A time as func gets it: a scalar in the state's own precision."""
        real = self.x0.dtype.to_real()
        if isinstance(t, Tensor):
            return t.to(real)
        return torch.scalar_tensor(t, dtype=real, device=self.x0.device)

    def take(self, **known: Any) -> dict[str, Any]:
        """The options of a method, with its defaults; warns of the others."""
        unused = {name: value for name, value in self.options.items() if name not in known}
        if unused:
            warnings.warn(
                f"{self.method}: Unexpected arguments {unused}; it takes {', '.join(known)}", stacklevel=4
            )
        return {name: self.options.get(name, default) for name, default in known.items()}

    def watched(self, *names: str) -> dict[str, Callback]:
        """The callbacks that a method supports; warns of the others."""
        others = sorted(set(self.callbacks) - set(names))
        if others:
            warnings.warn(f"Solver '{self.method}' does not support callbacks {others}", stacklevel=4)
        return {name: self.callbacks[name] for name in names if name in self.callbacks}


def asked(
    func: Func,
    y0: State,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str | None,
    options: Mapping[str, Any] | None,
) -> Asked:
    """The call, checked.

    Raises:
        ArgumentError: CheckError, KindError or itself where torchdiffeq raises AssertionError, TypeError or
            ValueError.
    """
    form, method = Form.of(y0), method or "dopri5"
    if method not in METHODS and method not in PAIRS:
        names = ", ".join(f'"{name}"' for name in dict.fromkeys((*METHODS, *PAIRS)))
        raise ArgumentError(
            f'Invalid method "{method}". Must be one of {names}; ls.solve has others, see ls.list_solvers()'
        )
    rest = dict(options or {})
    norm = form.norm(rest.pop("norm", None))
    x0 = form.row(y0)
    if not (x0.is_floating_point() or x0.is_complex()):
        raise KindError(f"`y0` must be of floating or complex numbers but is {x0.dtype}: convert it")
    _check_times(t)
    if t.device != x0.device:
        warnings.warn("t is not on the same device as y0. Coercing to y0.device.", stacklevel=3)
        t = t.to(x0.device)
    callbacks = {name: call for name in CALLBACKS if (call := getattr(func, name, None)) is not None}
    rtol, atol = form.tolerance("rtol", rtol), form.tolerance("atol", atol)
    return Asked(func, y0, form, x0, t, rtol, atol, method, rest, norm, callbacks)


def _check_times(t: Any) -> None:
    if not isinstance(t, Tensor):
        raise CheckError("t must be a torch.Tensor")
    if not t.is_floating_point():
        raise KindError(f"`t` must be a floating point Tensor but is a {t.dtype}: give t.to(y0.dtype)")
    if t.ndim != 1 or not len(t):
        raise CheckError(f"t must be one dimensional with a time at least, and is of shape {tuple(t.shape)}")
    times = t.tolist()
    rising = all(a < b for a, b in pairwise(times))
    if not (rising or all(a > b for a, b in pairwise(times))) or not all(map(math.isfinite, times)):
        raise CheckError("t must be strictly increasing or decreasing, and finite")
