"""Evaluations that cost less: the last prediction again, or a network with its last deep features."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..core import Field, Weight
from ..denoiser import Denoiser, affine
from ..errors import ArgumentError, SolveError, unknown, whole
from ..frame import PREDICTIONS, conversion
from ..guidance import Guidance


@dataclass
class Switch:
    """Whether kept modules answer with what they returned last."""

    on: bool = False


class Kept(nn.Module):
    """A module that answers with its last output while the switch is on, and is not run."""

    def __init__(self, module: nn.Module, switch: Switch):
        super().__init__()
        self.module, self.switch = module, switch
        self.size, self.output = 0, None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.switch.on:
            self.size, self.output = len(x), self.module(x, *args, **kwargs)
        elif len(x) != self.size:
            raise SolveError(
                f"features of a batch of {self.size} cannot serve one of {len(x)}: evaluate anew where "
                "guidance begins or ends"
            )
        return self.output


@dataclass(frozen=True)
class Cached(Denoiser):
    """A Denoiser some of whose evaluations, by their number in a run, make do with what earlier ones left.

    A run begins at its plan's first time and never comes back there, which is where the count starts anew.

    hold: the prediction that is reused; None where it is the features of the modules behind `switch`.
    """

    reused: frozenset[int] = frozenset()
    hold: str | None = None
    switch: Switch = field(default_factory=Switch)

    def fields(
        self, cond: Mapping[str, Any] | None = None, guidance: Weight | Guidance = 1.0
    ) -> tuple[Field, ...]:
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(Denoiser)}
        number, begin = 0, None
        last: tuple[str, float, Tensor, Tensor]  # which prediction, t, x, and what it was

        def numbered(target: str, evaluate: Field) -> Field:
            def ask(t: float, x: Tensor) -> Tensor:
                nonlocal number, begin, last
                begin = t if begin is None else begin
                number = 0 if t == begin else number + 1
                if number in self.reused and self.hold is not None:
                    known, s, y, out = last
                    held = affine(out, y, *conversion(known, self.hold, *self.process.pair(s)))
                    return affine(held, x, *conversion(self.hold, target, *self.process.pair(t)))
                self.switch.on = number in self.reused
                last = target, t, x, evaluate(t, x)
                return last[-1]

            return ask

        plain = Denoiser(**parts).fields(cond, guidance)
        return tuple(numbered(target, f) for target, f in zip(PREDICTIONS, plain, strict=True))

    def network_calls(self, guidance: Weight | Guidance, times: Iterable[float]) -> int:
        """A pass through what is left of a network counts as a whole one."""
        fresh = (t for n, t in enumerate(times) if self.hold is None or n not in self.reused)
        return super().network_calls(guidance, fresh)

    def conditioned(self, cond: Mapping[str, Any] | None, guidance: Guidance) -> Callable:
        """What runs ask for that treat all evaluations alike: in one graph, or in one batch."""
        raise ArgumentError("a cached model has evaluations that differ: leave out compile= and parallel=")


def cached(model: Denoiser, reused: Iterable[int], *, hold: str = "data") -> Denoiser:
    """The model whose evaluations number `reused`, counted from 0, repeat the last prediction.

    They cost no pass of the network, and `stats.network_calls` does not count them. What is repeated is the
    prediction `hold` ("data", "noise", "velocity" or "v"); the one that the plan asks for follows from it
    and the state, exactly as from a network's own. Guidance is repeated with it.

    Raises:
        ArgumentError: evaluation 0, before which there is nothing, or an unknown prediction.
    """
    if hold not in PREDICTIONS:
        raise unknown("prediction", hold, PREDICTIONS)
    return _cached(model, reused, hold=hold)


def cached_features(model: Denoiser, reused: Iterable[int], modules: Sequence[str]) -> Denoiser:
    """The model whose evaluations number `reused`, counted from 0, run without some of the network's modules.

    These answer with what they returned at the last evaluation that was not among `reused`. Features deep in
    a U-Net change slowly in time, while its shallow layers, run anew, see the state as it is (Ma et al. 2024,
    "DeepCache"). For the embedded models, modules = ("shrink", "down2", "attention", "up2", "grow") are all
    that is below full resolution.

    The network is not changed: the model returned has its own, with the same parameters.

    Args:
        modules: names as in `net.named_modules()`; a ModuleList stands for its members. Each is called with
            a tensor [B, ...] first, once in a pass.

    Raises:
        ArgumentError: evaluation 0, no module, or names that the network does not have.
    """
    if not isinstance(model.net, nn.Module):
        raise ArgumentError("the network is no torch module: cached(model, reused) repeats its predictions")
    names, switch, net = dict(model.net.named_modules()), Switch(), model.net
    if not modules:
        raise ArgumentError("modules is empty: name those whose outputs are reused, as net.named_modules()")
    for name in modules:
        if not name or name not in names:
            raise unknown("module", name, filter(None, names))
        inside = [f"{name}.{n}" for n, _ in names[name].named_children()]
        for path in inside if isinstance(names[name], nn.ModuleList) else [name]:
            net = _with_kept(net, path, switch)
    return _cached(model, reused, net=net, switch=switch)


def _cached(model: Denoiser, reused: Iterable[int], **changes: Any) -> Denoiser:
    if isinstance(model, Cached):
        raise ArgumentError("the model is cached already: give all its evaluations at once")
    numbers = frozenset(whole("reused", n, 1, "evaluation 0 has nothing before it to reuse") for n in reused)
    return Cached(**{**vars(model), "reused": numbers, **changes})


def _with_kept(net: nn.Module, path: str, switch: Switch) -> nn.Module:
    """The network with one module kept; what leads there is copied, everything else is shared."""
    name, _, rest = path.partition(".")
    clone, child = copy.copy(net), net.get_submodule(name)
    inner = _with_kept(child, rest, switch) if rest else Kept(child, switch)
    clone._modules = {**net._modules, name: inner}
    return clone
