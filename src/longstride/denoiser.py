"""A network and its process as fields that plans can be run on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from .core import Field, Weight
from .errors import ArgumentError, SolveError, unknown, whole
from .frame import PREDICTIONS, conversion
from .guidance import Guidance
from .process import Process

PREDICTS = ("data", "noise", "v", "flow", "score", "raw")


@dataclass(frozen=True)
class Denoiser:
    """A network, the process it was trained for, and what it predicts.

    Args:
        net: net(x, t, **cond) with x [B, *shape] unscaled and t [B] in x's dtype -> [B, *shape].
        process: where its times and noise levels come from.
        predicts: "data", "noise", "v", "flow" (noise - data), "score", or "raw": EDM's F, which gets
            c_in x and c_noise instead of x and t and is wrapped in the process's preconditioning.
        shape: of one sample.
        time: maps the process's t to what the network wants, for other conventions.
        null: the conditioning that means none, by name, e.g. {"y": 10}; what guidance contrasts with.
        data_range: smallest and largest value of the data, for pictures and thresholds; None if they have
            no such.
        name: what tables call it.
        told: the time that the network is told where a plan evaluates at t; its input and output are
            scaled as at t all the same. None tells it t. `fields.retimed` sets it.

    A network with parameters gets x and t in their dtype, and its output comes back in the state's: a bf16
    network keeps a float32 state. What `time` returns is passed on as it is, so that `time=lambda t: t`
    keeps a half-precision network's times in float32. The network must leave x alone and return a tensor
    that it does not write to again: multistep methods remember what it returned.
    """

    net: Callable[..., Tensor]
    process: Process
    predicts: str = "data"
    shape: tuple[int, ...] = ()
    time: Callable[[Tensor], Tensor] | None = None
    null: Mapping[str, Any] = field(default_factory=dict)
    data_range: tuple[float, float] | None = None
    name: str = "model"
    told: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTS:
            raise unknown("prediction", self.predicts, PREDICTS)
        if not isinstance(self.process, Process):
            raise ArgumentError(f"process = {self.process!r}: it is one of longstride.process, such as EDM()")
        if not isinstance(self.shape, Sequence):
            raise ArgumentError(f"shape = {self.shape!r}: it is that of one sample, such as (3, 32, 32)")
        object.__setattr__(self, "shape", tuple(whole("shape", side, 1) for side in self.shape))
        if self.predicts == "raw":
            self.process.preconditioning(1.0)  # refuses a process that has none

    @property
    def _tensor(self) -> Tensor | None:
        """One that the network holds and that says where it is and in which dtype."""
        if not isinstance(self.net, nn.Module):
            return None
        held = chain(self.net.parameters(), self.net.buffers())
        return next((tensor for tensor in held if tensor.is_floating_point()), None)

    @property
    def device(self) -> torch.device | None:
        """Where the network is; None if it holds no tensors and works anywhere."""
        return None if self._tensor is None else self._tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the state when none is asked for: the network's, and at least float32."""
        if self._tensor is None:
            return torch.get_default_dtype()
        return torch.promote_types(self._tensor.dtype, torch.float32)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Denoiser:
        """The same with the network moved, as torch's Module.to does it."""
        if isinstance(self.net, nn.Module):
            return replace(self, net=self.net.to(device=device, dtype=dtype))
        return self

    def network_calls(self, guidance: Weight | Guidance, times: Iterable[float]) -> int:
        """Forward passes behind evaluations at these times: where it is guided, an evaluation asks twice."""
        guidance = Guidance.of(guidance)
        return sum(1 if guidance.at(self.process, t) is None else 2 for t in times)

    def fields(
        self, cond: Mapping[str, Any] | None = None, guidance: Weight | Guidance = 1.0
    ) -> tuple[Field, ...]:
        """f(t, x) for each of `frame.PREDICTIONS`, conditioned and guided.

        Raises:
            ArgumentError: guidance without a null condition, or without a condition to guide to, against a
                network of another kind, or with a threshold where the data have no range.
        """
        guidance = Guidance.of(guidance)
        conditioned = self.conditioned(cond, guidance)

        def prediction(target: str) -> Field:
            known: dict[float, tuple[Weight | None, tuple[float, ...]]] = {}

            def evaluate(t: float, x: Tensor) -> Tensor:
                if t not in known:
                    known[t] = guidance.at(self.process, t), self.weights(target, t, guidance)
                weight, (c_in, time, a, b, p, q) = known[t]
                inner = x if c_in == 1.0 else x * c_in
                times = torch.full((len(x),), time, dtype=x.dtype, device=x.device)
                cond = conditioned(len(x), x.device, weight is not None)
                out = affine(self.output(inner, times, cond, guidance, weight), x, a, b)
                if guidance.threshold is None:
                    return out
                return affine(guidance.limited(out, self.data_range), x, p, q)

            return evaluate

        return tuple(prediction(target) for target in PREDICTIONS)

    def conditioned(
        self, cond: Mapping[str, Any] | None, guidance: Guidance
    ) -> Callable[[int, torch.device, bool], dict[str, Any]]:
        """What `output` wants of a condition: made for n samples on a device, where a weight is on or not."""
        given, other = dict(cond or {}), guidance.against
        if guidance.threshold is not None and self.data_range is None:
            raise ArgumentError("a threshold needs the range of the data: Denoiser(..., data_range=(-1, 1))")
        if not guidance.plain and other is not None:
            if (other.predicts, other.process) != (self.predicts, self.process):
                raise ArgumentError(
                    f"guidance against {other.name!r}, which predicts {other.predicts} of {other.process}: "
                    f"it must predict {self.predicts} of {self.process}, as {self.name!r} does"
                )
            if other.told not in (None, self.told):
                raise ArgumentError(
                    f"guidance against {other.name!r}, which is retimed: retime the model, which is both"
                )
        elif not guidance.plain and not (self.null and set(self.null) & set(given)):
            raise ArgumentError(
                f"guidance = {guidance} needs cond= with {' or '.join(self.null)}"
                if self.null
                else f"guidance = {guidance} needs a null condition: Denoiser(..., null={{'y': ...}})"
            )
        made: dict[tuple[int, torch.device, bool], dict[str, Any]] = {}  # with a graph, or without

        def dealt(n: int, device: torch.device, on: bool) -> dict[str, Any]:
            if not on or other is not None:
                return given
            key = n, device, torch.is_grad_enabled()
            if key not in made:
                made[key] = {k: self._doubled(k, v, n, device) for k, v in given.items()}
            return made[key]

        return dealt

    def weights(self, target: str, t: float, guidance: Guidance) -> tuple[float, ...]:
        """(c_in, time, a, b, p, q): the prediction `target` at t is a x + b net(c_in x, time).

        With a threshold a and b give the data prediction D, and the target is p x + q limited(D).
        """
        alpha, sigma = self.process.pair(t)
        asked = t if self.told is None else self.told(t)
        first, p, q = target, 0.0, 1.0
        if guidance.threshold is not None:
            first, (p, q) = "data", conversion("data", target, alpha, sigma)
        if self.predicts != "raw":
            return 1.0, asked, *conversion(self.predicts, first, alpha, sigma), p, q
        c_skip, c_out, c_in, _ = self.process.preconditioning(t)
        a, b = conversion("data", first, alpha, sigma)
        return c_in, self.process.preconditioning(asked)[3], a + b * c_skip, b * c_out, p, q

    def predicted(
        self, x: Tensor, numbers: Tensor, cond: Mapping[str, Any], guidance: Guidance, guided: bool
    ) -> Tensor:
        """A prediction at x [B, *shape], guided or not; what differs from one to the next is a tensor.

        numbers [7], or [B, 7] where samples are at times of their own: the weight of guidance, and what
        `weights` says. cond: see `output`.
        """
        weight, c_in, time, a, b, p, q = (n.reshape(-1, *[1] * (x.ndim - 1)) for n in numbers.unbind(-1))
        times = time.flatten().expand(len(x))
        out = a * x + b * self.output(x * c_in, times, cond, guidance, weight if guided else None)
        if guidance.threshold is None:
            return out
        return p * x + q * guidance.limited(out, self.data_range)

    def output(
        self,
        x: Tensor,
        times: Tensor,
        cond: Mapping[str, Any],
        guidance: Guidance,
        weight: Weight | None,
    ) -> Tensor:
        """What the network returns for x [B, *shape] at times [B], in x's dtype, guided if there is a weight.

        Guided from the null condition, `cond` is of twice as many: the given conditions, then the null ones.
        """
        if weight is None:
            return self._called(x, times, cond)
        if guidance.against is not None:
            out, other = self._called(x, times, cond), guidance.against._called(x, times, cond)
        else:
            out, other = self._called(torch.cat([x, x]), torch.cat([times, times]), cond).chunk(2)
        return guidance.combined(out, other, weight)

    def _called(self, x: Tensor, times: Tensor, cond: Mapping[str, Any]) -> Tensor:
        """One forward pass, in the network's dtype and back."""
        tensor = self._tensor
        inner = x if tensor is None else x.to(tensor.dtype)
        out = self.net(inner, times.to(inner.dtype) if self.time is None else self.time(times), **cond)
        if not isinstance(out, Tensor) or out.shape != inner.shape:
            what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(
                f"the network of {self.name!r} returned {what} for an input of {tuple(inner.shape)}: "
                "it must return one prediction, a tensor of its input's shape"
            )
        return out.to(x.dtype)

    def conditioning(
        self, cond: Mapping[str, Any] | None, n: int, device: torch.device | None = None
    ) -> dict[str, Any]:
        """`cond` for n samples: a number, a list or an array becomes a tensor with one entry for each.

        One value stands for all samples. What cannot be a tensor is passed on to the network as it is, and
        so is a number under a name that guidance does not know.

        Raises:
            ArgumentError: a value of another length, or a condition of guidance that is no tensor.
        """
        if not isinstance(cond, Mapping | None):
            raise ArgumentError(f"cond = {cond!r}: it is a mapping by name, such as {{'y': labels}}")
        return {name: self._dealt(name, value, n, device) for name, value in (cond or {}).items()}

    def _dealt(self, name: str, value: Any, n: int, device: torch.device | None) -> Any:
        if name in self.null or not isinstance(value, Number):
            try:
                value = torch.as_tensor(value, device=device)
            except (TypeError, ValueError, RuntimeError) as error:
                if name in self.null:
                    raise ArgumentError(
                        f"cond {name!r} = {value!r}: it must be a tensor or numbers"
                    ) from error
        if not isinstance(value, Tensor) or (value.ndim == 0 and name not in self.null):
            return value
        value = value[None] if value.ndim == 0 else value
        if len(value) not in (1, n):
            raise ArgumentError(f"cond {name!r} has {len(value)} entries for {n} samples")
        return value.expand(n, *value.shape[1:])

    def _doubled(self, name: str, value: Any, n: int, device: torch.device) -> Any:
        """A conditioning value for the guided batch: the given ones, then the null ones."""
        value = self._dealt(name, value, n, device)
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        null = self.null.get(name, value)
        return torch.cat([value, torch.as_tensor(null, device=value.device).to(value).expand_as(value)])


def affine(out: Tensor, x: Tensor, a: float, b: float) -> Tensor:
    """a x + b out, without the terms that are nothing."""
    if b != 1.0:
        out = out * b
    return torch.add(out, x, alpha=a) if a else out
