"""A network and its process as fields that plans can be run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from .core import Field
from .errors import ArgumentError, SolveError, finite, unknown, whole
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
        conditioned, weight = self.guided(cond, guidance)

        def prediction(target: str) -> Field:
            known: dict[float, tuple[float, float, float, float]] = {}

            def evaluate(t: float, x: Tensor) -> Tensor:
                if t not in known:
                    known[t] = self.weights(target, t)
                c_in, time, a, b = known[t]
                inner = x if c_in == 1.0 else x * c_in
                times = torch.full((len(x),), time, dtype=x.dtype, device=x.device)
                out = self.output(inner, times, conditioned(len(x), x.device), weight)
                if b != 1.0:
                    out = out * b
                return torch.add(out, x, alpha=a) if a else out

            return evaluate

        return tuple(prediction(target) for target in PREDICTIONS)

    def guided(
        self, cond: Mapping[str, Any] | None, guidance: float
    ) -> tuple[Callable[[int, torch.device], dict[str, Any]], float | None]:
        """What `output` wants of a condition: made for n samples on a device, and the weight, or None."""
        given = dict(cond or {})
        if finite("guidance", guidance) == 1:
            return lambda n, device: given, None
        if not (self.null and set(self.null) & set(given)):
            raise ArgumentError(
                f"guidance = {guidance} needs cond= with {' or '.join(self.null)}"
                if self.null
                else f"guidance = {guidance} needs a null condition: Denoiser(..., null={{'y': ...}})"
            )
        made: dict[tuple[int, torch.device], dict[str, Any]] = {}

        def doubled(n: int, device: torch.device) -> dict[str, Any]:
            if (n, device) not in made:
                made[n, device] = {k: self._doubled(k, v, n, device) for k, v in given.items()}
            return made[n, device]

        return doubled, guidance

    def weights(self, target: str, t: float) -> tuple[float, float, float, float]:
        """(c_in, time, a, b): the prediction `target` at t is a x + b net(c_in x, time)."""
        alpha, sigma = self.process.pair(t)
        if self.predicts != "raw":
            return 1.0, t, *conversion(self.predicts, target, alpha, sigma)
        c_skip, c_out, c_in, c_noise = self.process.preconditioning(t)
        a, b = conversion("data", target, alpha, sigma)
        return c_in, c_noise, a + b * c_skip, b * c_out

    def output(
        self, x: Tensor, times: Tensor, cond: Mapping[str, Any], guidance: float | Tensor | None
    ) -> Tensor:
        """What the network returns for x [B, *shape] at times [B], in x's dtype, guided if that is a number.

        Guided, `cond` is of twice as many: the given conditions, then the null ones.
        """
        tensor = self._tensor
        inner = x if tensor is None else x.to(tensor.dtype)
        times = times.to(inner.dtype) if self.time is None else self.time(times)
        if guidance is not None:
            inner, times = torch.cat([inner, inner]), torch.cat([times, times])
        out = self.net(inner, times, **cond)
        if not isinstance(out, Tensor) or out.shape != inner.shape:
            what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(
                f"the network of {self.name!r} returned {what} for an input of {tuple(inner.shape)}: "
                "it must return one prediction, a tensor of its input's shape"
            )
        out = out.to(x.dtype)
        if guidance is None:
            return out
        with_label, without = out.chunk(2)
        return without + guidance * (with_label - without)

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
