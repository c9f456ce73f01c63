"""A network and its process as fields that plans can be run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .core import Field
from .errors import ArgumentError, SolveError, unknown
from .frame import PREDICTIONS, conversion
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
        data_range: smallest and largest value of the data, for pictures; None if they have no such.
        name: what tables call it.

    A network with parameters gets x in their dtype, and its output comes back in x's: a bf16 network keeps
    a float32 state.
    """

    net: Callable[..., Tensor]
    process: Process
    predicts: str = "data"
    shape: tuple[int, ...] = ()
    time: Callable[[Tensor], Tensor] | None = None
    null: Mapping[str, Any] = field(default_factory=dict)
    data_range: tuple[float, float] | None = None
    name: str = "model"

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTS:
            raise unknown("prediction", self.predicts, PREDICTS)
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.predicts == "raw":
            self.process.preconditioning(1.0)  # refuses a process that has none

    @property
    def _parameter(self) -> Tensor | None:
        if not isinstance(self.net, nn.Module):
            return None
        return next((p for p in self.net.parameters() if p.is_floating_point()), None)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self._parameter is None else self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the state when none is asked for: the network's, and at least float32."""
        if self._parameter is None:
            return torch.get_default_dtype()
        return torch.promote_types(self._parameter.dtype, torch.float32)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Denoiser:
        """The same with the network moved, as torch's Module.to does it."""
        if isinstance(self.net, nn.Module):
            return replace(self, net=self.net.to(device=device, dtype=dtype))
        return self

    def calls_per_evaluation(self, guidance: float) -> int:
        """Forward passes of the network behind one evaluation: guidance asks twice."""
        return 1 if guidance == 1 else 2

    def fields(self, cond: Mapping[str, Any] | None = None, guidance: float = 1.0) -> tuple[Field, ...]:
        """f(t, x) for each of `frame.PREDICTIONS`, conditioned and guided.

        Guidance w is D_null + w (D_cond - D_null) (Ho and Salimans 2022); the predictions are affine in
        each other, so it is applied to what the network returns.

        Raises:
            ArgumentError: guidance without a null condition, or without a condition to guide to.
        """
        cond = dict(cond or {})
        guided = guidance != 1
        if guided and not (self.null and set(self.null) & set(cond)):
            raise ArgumentError(
                f"guidance = {guidance} needs cond= with {' or '.join(self.null)}"
                if self.null
                else f"guidance = {guidance} needs a null condition: Denoiser(..., null={{'y': ...}})"
            )
        parameter = self._parameter
        net_dtype = None if parameter is None else parameter.dtype

        def network(x: Tensor, t: float) -> Tensor:
            dtype = net_dtype or x.dtype
            arguments = cond
            inner = x.to(dtype)
            if guided:
                arguments = {k: self._doubled(k, v, x) for k, v in cond.items()}
                inner = torch.cat([inner, inner])
            times = torch.full((len(inner),), t, dtype=dtype, device=x.device)
            out = self.net(inner, times if self.time is None else self.time(times), **arguments)
            if out.shape != inner.shape:
                raise SolveError(
                    f"the network of {self.name!r} returned shape {tuple(out.shape)} for an input of "
                    f"{tuple(inner.shape)}: it must return one prediction of its input's shape"
                )
            if guided:
                with_label, without = out.chunk(2)
                out = torch.lerp(without, with_label, guidance)
            return out.to(x.dtype)

        def output(x: Tensor, t: float) -> Tensor:
            if self.predicts != "raw":
                return network(x, t)
            c_skip, c_out, c_in, c_noise = self.process.preconditioning(t)
            return (network(x * c_in, c_noise) * c_out).add_(x, alpha=c_skip)

        predicts = "data" if self.predicts == "raw" else self.predicts

        def prediction(target: str) -> Field:
            known: dict[float, tuple[float, float]] = {}

            def evaluate(t: float, x: Tensor) -> Tensor:
                if t not in known:
                    known[t] = conversion(predicts, target, *self.process.pair(t))
                a, b = known[t]
                out = output(x, t)
                if b != 1.0:
                    out = out * b
                return torch.add(out, x, alpha=a) if a else out

            return evaluate

        return tuple(prediction(target) for target in PREDICTIONS)

    def _doubled(self, name: str, value: Any, x: Tensor) -> Any:
        """A conditioning value for the guided batch: the given ones, then the null ones."""
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != len(x):
            if name in self.null:
                raise ArgumentError(
                    f"guidance needs cond {name!r} as a tensor, one entry for each sample: {len(x)}"
                )
            return value
        null = self.null.get(name, value)
        return torch.cat([value, torch.as_tensor(null, device=value.device).to(value).expand_as(value)])
