"""Policies that are plain networks: observations in, actions out, whatever they were trained by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..policy_file import NETWORK, write

if TYPE_CHECKING:
    from .decisions import Task

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}
Head = Literal["largest", "clipped", "tanh"]


@dataclass(frozen=True)
class Network:
    """o -> W_n s(... s(W_1 o + b_1) ...) + b_n -> action.

    layers: W [m, n] and b [m] of each.  activation: s, "relu" or "tanh".  observation: names of what it sees.
    head: the action is the number of the largest output ("largest"; of values or of the logarithm of
    probabilities), or the one output cut to [-1, 1] ("clipped") or its tanh.
    actions: values of the parameter, or the two ends between which it lies.  about: how it was made.

    Raises:
        ArgumentError: layers that do not follow each other, or do not go with observation and actions.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    activation: str
    head: Head
    observation: tuple[str, ...]
    actions: tuple[float, ...]
    about: str = ""

    def __post_init__(self) -> None:
        sizes = [len(self.observation), *(len(b) for _, b in self.layers)]
        fits = [tuple(w.shape) == (m, n) for (w, _), n, m in zip(self.layers, sizes, sizes[1:], strict=False)]
        last = len(self.actions) if self.head == "largest" else 1
        if not self.layers or not all(fits) or sizes[-1] != last:
            raise ArgumentError(
                f"layers {[tuple(w.shape) for w, _ in self.layers]} do not lead from {sizes[0]} numbers that "
                f"are observed to {last}"
            )
        if self.activation not in ACTIVATIONS or self.head not in ("largest", "clipped", "tanh"):
            raise ArgumentError(f"activation {self.activation!r}, head {self.head!r}: see `Network`")
        if not all(bool(part.isfinite().all()) for layer in self.layers for part in layer):
            raise ArgumentError("the layers of a network must be finite")

    def __call__(self, observation: Tensor) -> Tensor:
        """Actions [B] of observations [B, n]."""
        s, h = ACTIVATIONS[self.activation], observation.to(self.layers[0][0])
        for w, b in self.layers[:-1]:
            h = s(h @ w.T + b)
        w, b = self.layers[-1]
        out = h @ w.T + b
        if self.head == "largest":
            return out.argmax(1)
        return out[:, 0].tanh() if self.head == "tanh" else out[:, 0].clamp(-1, 1)

    def of(self, task: Task) -> Network:
        """Itself, where it was made for what the task shows and asks.

        Raises:
            ArgumentError: it was made for another observation or other actions.
        """
        if not hasattr(task, "observe"):
            raise ArgumentError(
                "this policy decides on a parameter, not on steps: play it, task.play(policy, x0), or take "
                "a controller such as ls.control.PI()"
            )
        for what, mine, theirs in (
            ("observation", self.observation, task.observe.names),
            ("choice of parameters", self.actions, tuple(task.values or task.between or ())),
        ):
            if mine != tuple(theirs):
                raise ArgumentError(
                    f"a policy made for another {what}, {list(mine)}; here it is {list(theirs)}: train it "
                    "again"
                )
        if (self.head == "largest") != bool(task.values):
            raise ArgumentError("a policy made for other actions: numbers of values, or a place between two")
        return self

    def save(self, path: str | Path) -> None:
        """Write PATH.safetensors, the layers, and PATH.json, what they observe and how they were made."""
        tensors = {f"{k}.{n}": part for k, layer in enumerate(self.layers)
                   for n, part in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip
        told = ("observation", "actions", "activation", "head", "about")
        write(path, NETWORK, tensors, **{name: getattr(self, name) for name in told})

    @staticmethod
    def read(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Network:
        """Of what `save` wrote; a `KeyError` and the like of what it did not."""
        layers = tuple((tensors[f"{k}.weight"], tensors[f"{k}.bias"]) for k in range(len(tensors) // 2))
        observation, actions = tuple(map(str, told["observation"])), tuple(map(float, told["actions"]))
        return Network(layers, told["activation"], told["head"], observation, actions, str(told["about"]))

    @staticmethod
    def trained(model: Any, task: Task, about: str = "") -> Network:
        """That of a DQN, PPO, A2C or SAC of stable-baselines3 with its "MlpPolicy", as it acts when told to
        be deterministic.

        Raises:
            ArgumentError: another model, or one with other parts.
        """
        policy = model.policy
        head: Head = "largest" if task.values else "clipped"
        if hasattr(policy, "q_net"):
            parts = [policy.q_net.q_net]
        elif hasattr(policy, "mlp_extractor"):
            parts = [policy.mlp_extractor.policy_net, policy.action_net]
        elif hasattr(getattr(policy, "actor", None), "latent_pi"):
            parts, head = [policy.actor.latent_pi, policy.actor.mu], "tanh"
        else:
            raise ArgumentError(f"{type(model).__name__}: of DQN, PPO, A2C and SAC a network is known")
        modules = [m for part in parts for m in part.modules() if not isinstance(m, torch.nn.Sequential)]
        kinds = {type(m).__name__.lower() for m in modules} - {"linear"}
        if len(kinds) > 1 or not kinds <= set(ACTIVATIONS):
            raise ArgumentError(f"a network of {sorted(kinds)}: its activation is ReLU or Tanh, everywhere")
        layers = tuple(
            (m.weight.detach().cpu().clone(), m.bias.detach().cpu().clone())
            for m in modules if isinstance(m, torch.nn.Linear)
        )  # fmt: skip
        actions = tuple(task.values or task.between or ())
        return Network(
            layers, kinds.pop() if kinds else "relu", head, tuple(task.observe.names), actions, about
        )


def names(head: str, shape: Sequence[int], tail: str = "") -> tuple[str, ...]:
    """Of the elements of a tensor, as "q[0, 1]/10"."""
    grid = torch.cartesian_prod(*(torch.arange(n) for n in shape)).view(-1, len(shape)).tolist()
    return tuple(f"{head}[{', '.join(map(str, at))}]{tail}" for at in grid)
