"""Tasks as gymnasium's environments: one system, and many of them stepped as one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..errors import ArgumentError
from .decisions import Decided, Decisions, Task

try:
    from gymnasium import Env, Space
    from gymnasium.spaces import Box, Discrete
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError as error:
    raise ArgumentError("environments of gymnasium need it: pip install 'longstride[rl]'") from error


def spaces(task: Task) -> tuple[Box, Space[Any]]:
    """Of observations [n], and of actions: a number, or one element of [-1, 1]."""
    seen = Box(-np.inf, np.inf, (len(task.observe.names),), np.float32)
    return seen, Discrete(len(task.values)) if task.values else Box(-1.0, 1.0, (1,), np.float32)


def acted(task: Task, actions: Any, n: int) -> torch.Tensor:
    """Actions of n environments [n]."""
    return torch.as_tensor(np.asarray(actions)).view(n).to(torch.int64 if task.values else torch.float64)


def observed(env: Decisions) -> np.ndarray:
    return env.observation().numpy().astype(np.float32)


def noted(done: Decided, env: Decisions) -> dict[str, np.ndarray]:
    """Of each system: error, evaluations and the parameter of the decision."""
    return {
        "error": done.error.numpy(), "evaluations": done.evaluations.numpy(), "value": env.seen.value.numpy(),
    }  # fmt: skip


class Single(Env[np.ndarray, Any]):
    """A task with one system. gymnasium's generator draws its start; or give options={"x0": state}.

    An episode that passes `lost` is terminated, one that made all its decisions truncated.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.observation_space, self.action_space = spaces(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        x0 = (options or {}).get("x0")
        self.env = Decisions(self.task, self.task.starts([drawn(self.np_random)]) if x0 is None else x0[None])
        return observed(self.env)[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        done = self.env.decide(acted(self.task, action, 1))
        lost = not bool(done.error[0] <= self.task.lost)
        info = {name: float(value[0]) for name, value in noted(done, self.env).items()}
        return observed(self.env)[0], float(done.reward[0]), lost, bool(done.over[0]) and not lost, info


class Many(VectorEnv[np.ndarray, Any, np.ndarray]):
    """A task with n systems, of which one batch makes all decisions: to the bit what as many `Single` do.

    An episode that ends begins anew in the same step (AutoresetMode.SAME_STEP): infos["final_obs"] has what
    was seen of its end.
    """

    def __init__(self, task: Task, n: int) -> None:
        self.task, self.num_envs = task, n
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = spaces(task)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self.draw = [np.random.default_rng() for _ in range(n)]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """seed: environment i has seed + i, as gymnasium's own vectors do."""
        if seed is not None:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
            self.draw = [np.random.default_rng(one) for one in seeds]
        x0 = (options or {}).get("x0")
        self.env = Decisions(self.task, self.task.starts([drawn(d) for d in self.draw]) if x0 is None else x0)
        return observed(self.env), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        done = self.env.decide(acted(self.task, actions, self.num_envs))
        lost, over = (~(done.error <= self.task.lost)).numpy(), done.over.numpy()
        info: dict[str, Any] = noted(done, self.env)
        if over.any():
            info["final_obs"], info["_final_obs"] = observed(self.env), over.copy()
            who = done.over.nonzero()[:, 0]
            self.env.begin(who, self.task.starts([drawn(self.draw[i]) for i in who.tolist()]))
        return observed(self.env), done.reward.numpy(), lost, over & ~lost, info


def drawn(generator: np.random.Generator) -> int:
    """The seed of a start."""
    return int(generator.integers(2**31))
