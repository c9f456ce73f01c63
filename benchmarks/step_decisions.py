"""Policies that decide on a parameter every tenth of a year, by stable-baselines3, as in P001 and beyond it.

    python benchmarks/step_decisions.py [NAME ...]

- dqn: as in the paper. Its state, reward and ten parameters, 2,000 episodes of 100 decisions, discount 0.99,
  rate 1e-3, batches of 128 out of the last 10,000 decisions, a target that follows by 0.005, exploration
  from 0.9 to 0.05; kept is what has the highest reward on 20 training starts. Not as in the paper: 64 systems
  decide at once, there are 4 gradient steps for them and not 64, three hidden layers of 128 and not one of
  200 taken nine times, and exploration falls
  linearly over the first 1,000 decisions and not by e.
- ppo: the same task, but the reward is digits of the energy less log10 of the evaluations of the decision,
  and parameters are from 1e-3 to 1e-1 along their logarithm; as many decisions.

Every tenth of the training is written to results/NAME.zip (of stable-baselines3, not kept in the
repository), from which an interrupted training goes on; the best network to results/three_stars_NAME.json
and .safetensors.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN, PPO

import longstride as ls
from longstride.environments import Network, Stable, Task, digits_less_cost
from longstride.nbody import three_stars_at, three_stars_task
from longstride.nbody.decisions import TENTH
from rollouts import STARS, share

RESULTS, SYSTEMS, PORTIONS = Path(__file__).parent / "results", 64, 10
DECISIONS = 2000 * 100

TASKS: dict[str, dict[str, Any]] = {
    "dqn": {},
    "ppo": {"between": (1e-3, 1e-1), "reward": digits_less_cost},
}


def task(name: str, decisions: int = 100) -> Task:
    return three_stars_task(run=share(TENTH), decisions=decisions, **TASKS[name])


def model(name: str, env: Stable) -> Any:
    net = {"net_arch": [128, 128, 128]}
    if name == "dqn":
        return DQN(
            "MlpPolicy", env, learning_rate=1e-3, buffer_size=10_000, learning_starts=1000, batch_size=128,
            tau=0.005, gamma=0.99, train_freq=1, gradient_steps=4, target_update_interval=1,
            exploration_initial_eps=0.9, exploration_final_eps=0.05, exploration_fraction=0.05,
            policy_kwargs=net, seed=1, device="cpu",
        )  # fmt: skip
    return PPO(
        "MlpPolicy", env, n_steps=50, batch_size=320, n_epochs=10, learning_rate=1e-3, gamma=0.99,
        policy_kwargs={"net_arch": [64, 64]}, seed=1, device="cpu",
    )  # fmt: skip


def reward(network: Network, on: Task) -> tuple[float, float, float]:
    """On 20 training starts: reward of an episode, median digits of the energy at the end, evaluations."""
    x0, total = STARS.start(*three_stars_at(20, 7)), torch.zeros(20, dtype=torch.float64)
    env = ls.environments.Decisions(on, x0)
    while not bool(env.over.all()):
        total += env.decide(network(env.observation())).reward
    return float(total.mean()), float(-env.seen.error.log10().median()), float(env.spent.mean())


def train(name: str) -> None:
    path, log = RESULTS / f"{name}.zip", RESULTS / f"three_stars_{name}_course.json"
    env, on = Stable(task(name), SYSTEMS), task(name)
    env.seed(1)
    course = json.loads(log.read_text()) if path.exists() else []
    found = type(model(name, env)).load(path, env=env) if path.exists() else model(name, env)
    for portion in range(len(course), PORTIONS):
        began = time.perf_counter()
        found.learn(DECISIONS // PORTIONS, reset_num_timesteps=not portion, progress_bar=False)
        about = f"benchmarks/step_decisions.py {name}: {found.num_timesteps} decisions of {SYSTEMS} systems"
        network = Network.trained(found, on, about)
        value, digits, cost = reward(network, on)
        if value > max([one["reward"] for one in course], default=-np.inf):
            network.save(RESULTS / f"three_stars_{name}")
        seconds = time.perf_counter() - began
        course.append({"decisions": found.num_timesteps, "reward": value, "digits": digits,
                       "evaluations": cost, "seconds": seconds})  # fmt: skip
        found.save(path)
        log.write_text(json.dumps(course, indent=1) + "\n")
        print(name, course[-1], flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in sys.argv[1:] or TASKS:
        train(each)
