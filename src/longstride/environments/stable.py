"""Tasks as vectors of environments of stable-baselines3, which has an interface of its own for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from .decisions import Task
from .gymnasium import Many

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    raise ArgumentError("stable-baselines3 is not here: pip install 'longstride[rl]'") from error


class Stable(VecEnv):
    """n systems of a task for DQN, PPO, SAC ...: `DQN("MlpPolicy", Stable(task, 64))`; see `Many`.

    infos of each environment: error, evaluations and value of the decision, and at its end
    "terminal_observation" and "TimeLimit.truncated".
    """

    def __init__(self, task: Task, n: int) -> None:
        self.many = Many(task, n)
        super().__init__(n, self.many.single_observation_space, self.many.single_action_space)

    def reset(self) -> np.ndarray:
        seeds = list(self._seeds) if any(s is not None for s in self._seeds) else None
        self._reset_seeds()
        return self.many.reset(seed=seeds)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        seen, reward, lost, cut, more = self.many.step(self.actions)
        over, infos = lost | cut, []
        for i in range(self.num_envs):
            infos.append({name: float(more[name][i]) for name in ("error", "evaluations", "value")})
            if over[i]:
                infos[i] |= {
                    "terminal_observation": more["final_obs"][i], "TimeLimit.truncated": bool(cut[i])
                }  # fmt: skip
        return seen, reward.astype(np.float32), over, infos

    def close(self) -> None:
        self.many.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.many, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.many, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.many, method_name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
