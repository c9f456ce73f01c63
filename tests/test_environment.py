"""Deciding on a parameter while a run goes on: the same runs as without, alone or in a batch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.environments import Decisions, Network, Seen, Solved, Task, digits_less_cost, drift
from longstride.nbody import three_stars_task
from longstride.nbody.decisions import PARAMETERS, TENTH, paper

F64 = torch.float64
SPRING = ls.ODE(lambda t, x: torch.cat([x[:, 1:], -x[:, :1]], 1), acceleration=lambda t, q: -q)


def spring_energy(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1) / 2


def springs(method: str = "dopri5", parameter: str = "rtol", **more: Any) -> Task:
    """x'' = -x, whose energy is known: cheap enough for training in a test."""
    given: dict[str, Any] = {
        "start": lambda seed: torch.tensor([[1.0 + seed % 7 / 10], [0.3]], dtype=F64),
        "run": Solved(SPRING, method, 1.0, parameter, {"atol": 0.0} if method == "dopri5" else {}),
        "deviation": drift(spring_energy),
        "every": 1.0,
        "values": (1e-8, 1e-5, 1e-2) if parameter == "rtol" else (0.05, 0.1, 0.2),
        "decisions": 4,
    }
    return Task(**(given | more))


def always(action: int) -> Any:
    return lambda seen: torch.full((len(seen),), action)


@pytest.mark.parametrize(
    ("method", "parameter"), [("dopri5", "rtol"), ("leapfrog", "dt"), ("hermite_aarseth", "rtol")]
)
def test_a_parameter_that_stays_is_a_run_of_it(method: str, parameter: str) -> None:
    """Decisions of one parameter are `ls.solve` from each to the next, and cost what it costs."""
    task = springs(method, parameter)
    x0 = task.starts([1, 2])
    env = task.play(always(1), x0)
    x, spent = x0, torch.zeros(2, dtype=F64)
    for k in range(task.decisions):
        run = ls.solve(
            SPRING, x, t=(float(k), k + 1.0), method=method, **{parameter: task.values[1]}, **task.run.options
        )
        x, nfe = run.x_end if run.x_end is not None else run.x[-1], run.stats.nfe_each
        spent += run.stats.nfe if nfe is None else nfe
    assert torch.allclose(env.seen.x, x, rtol=1e-14)
    assert torch.equal(env.spent, spent)
    assert torch.allclose(env.seen.error, drift(spring_energy)(x, x0, env.seen.t), rtol=1e-6, atol=1e-15)
    assert env.seen.t.tolist() == [4.0, 4.0]


def test_equal_steps_lose_energy_by_their_order() -> None:
    """Leapfrog's drift over a whole number of steps is of order 2 in dt."""
    task = springs("leapfrog", "dt", every=1.0)
    errors = [float(task.play(always(k), task.starts([1])).seen.error) for k in (0, 1)]
    assert 1.8 < math.log2(errors[1] / errors[0]) < 2.2


def test_systems_decide_each_for_itself() -> None:
    """To the bit what each would do alone, also where steps are equal and belong to a batch."""
    actions = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 2]])
    for task in (springs(), springs("leapfrog", "dt"), three_stars_task(decisions=3)):
        top = len(task.values) - 3  # the last three of ten parameters: few steps
        x0 = task.starts([1, 2, 3])
        together, alone = Decisions(task, x0), [Decisions(task, x0[k : k + 1]) for k in range(3)]
        for action in actions + top:
            done = together.decide(action)
            for k, one in enumerate(alone):
                here = one.decide(action[k : k + 1])
                assert torch.equal(here.observation[0], done.observation[k])
                assert here.reward[0] == done.reward[k]
                assert here.evaluations[0] == done.evaluations[k]


def test_the_reward_is_the_documented_one() -> None:
    """By hand: e = 1e-6 after decision 3, made with mu = 0.01."""
    one = torch.ones(1, dtype=F64)
    seen = Seen(one, one, one * 1e-6, one * 1e-7, one * 0.01, one * 1000, one.long() * 3, one / 2)
    assert float(paper(seen)) == pytest.approx(-3000 * 4 / (6**3 * 3) + 4 / 2)
    assert float(paper(replace(seen, made=one.long()))) == 0.0
    assert float(digits_less_cost(seen)) == pytest.approx(6 - 3)
    # With more error or smaller parameters it falls.
    assert float(paper(replace(seen, error=one * 1e-5))) < float(paper(seen))
    assert float(paper(replace(seen, value=one * 1e-3))) < float(paper(seen))
    task = springs(reward=lambda seen: -seen.evaluations)
    done = Decisions(task, task.starts([1, 2])).decide(torch.tensor([0, 2]))
    assert torch.equal(done.reward, -done.evaluations)
    assert done.evaluations[0] > done.evaluations[1]


def test_an_episode_ends_where_the_error_is_lost() -> None:
    """Leapfrog is unstable for dt > 2; who is lost costs nothing more, and the others go on."""
    task = springs("leapfrog", "dt", values=(0.1, 2.5), every=5.0, run=Solved(SPRING, "leapfrog", 5.0, "dt"))
    env = Decisions(task, task.starts([1, 1]))
    first = env.decide(torch.tensor([0, 1]))
    assert first.over.tolist() == [False, True]
    still = env.decide(torch.tensor([0, 1]))
    assert still.evaluations[1] == 0
    assert still.reward[1] == 0
    assert still.error[1] == first.error[1]
    assert env.seen.made.tolist() == [2, 1]
    assert env.seen.t.tolist() == [10.0, 5.0]
    # A new episode of one in the middle of the other's: both as if they were alone.
    env.begin(torch.tensor([1]), task.starts([2]))
    third = env.decide(torch.tensor([0, 0]))
    other = Decisions(task, task.starts([2])).decide(torch.tensor([0]))
    assert torch.equal(third.observation[1], other.observation[0])
    assert env.spent[1] == third.evaluations[1]


def test_a_run_that_fails_takes_nobody_with_it() -> None:
    """x' = x^2 is infinite at t = 1/x0: in equal steps an error, of the one that began too high."""
    blow = Task(
        lambda seed: torch.full((1,), float(seed), dtype=F64),
        Solved(ls.ODE(lambda t, x: x * x), "rk4", 1.0, "dt"),
        lambda x, x0, t: (x - x0 / (1 - x0 * t[:, None])).abs()[:, 0], 1.0, values=(0.01,), decisions=1,
    )  # fmt: skip
    env = Decisions(blow, torch.tensor([[0.5], [40.0]], dtype=F64))
    done = env.decide(torch.tensor([0, 0]))
    assert done.error[0] < 1e-9
    assert done.error[1] == torch.inf
    assert env.over.tolist() == [True, True]
    assert env.seen.x[1] == 40.0  # what a learner sees of it is finite
    assert bool(done.observation.isfinite().all() & done.reward.isfinite().all())
    assert torch.equal(
        env.seen.x[0],
        Decisions(blow, env.x0[:1]).task.run(env.x0[:1], torch.zeros(1), torch.tensor([0.01], dtype=F64))[0][
            0
        ],
    )


def test_a_continuous_action_is_a_place_on_the_logarithm() -> None:
    task = springs(values=(), between=(1e-8, 1e-2))
    found = task.parameter(torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=F64))
    assert torch.allclose(found.log10(), torch.tensor([-8.0, -5.0, -3.5, -2.0], dtype=F64), rtol=1e-14)


def test_tenths_of_a_year_are_those_of_the_paper() -> None:
    """The steps are `hermite_collision`'s, the observation places/10, velocities and digits."""
    task = three_stars_task(decisions=2)
    x0 = task.starts([3, 4])
    env = Decisions(task, x0)
    q, v = x0.unbind(1)
    assert torch.equal(env.observation()[:, :-1], torch.cat([q.flatten(1) / 10, v.flatten(1)], 1))
    assert len(task.observe.names) == env.observation().shape[1] == 13
    assert task.observe.names[3] == "q[1, 1]/10"
    assert np.allclose(np.log10(PARAMETERS), np.linspace(-4, -1, 10))
    solved = replace(
        task, run=Solved(ls.nbody.Gravity(torch.ones(3, dtype=F64)).problem(), "hermite_collision", TENTH)
    )
    other = Decisions(solved, x0)
    for _ in range(2):
        one, two = (each.decide(torch.tensor([4, 5])) for each in (env, other))
        assert torch.allclose(one.observation[:, :-1], two.observation[:, :-1], rtol=1e-9)
        # `ls.solve` counts what opens its run: an evaluation, and those of the first step.
        assert float((two.evaluations - one.evaluations).abs().max()) <= 5


def small(task: Task, head: Any = "largest") -> Network:
    draw = torch.Generator().manual_seed(0)
    sizes = [len(task.observe.names), 8, len(task.values) or 1]
    layers = [(torch.randn(m, n, generator=draw), torch.randn(m, generator=draw)) for n, m in pairwise(sizes)]
    return Network(
        tuple(layers), "tanh", head, task.observe.names, tuple(task.values or task.between or ()), "test"
    )


def test_a_saved_network_acts_as_before(tmp_path: Path) -> None:
    for task, head in ((springs(), "largest"), (springs(values=(), between=(1e-8, 1e-3)), "tanh")):
        network = small(task, head)
        network.save(tmp_path / "mine")
        again, x0 = ls.control.load(tmp_path / "mine"), task.starts([1, 2, 3])
        one, two = task.play(network, x0), task.play(again, x0)
        assert torch.equal(one.seen.x, two.seen.x)
        assert torch.equal(one.spent, two.spent)
        assert again.about == "test"


def test_a_reward_is_a_number_for_each_system() -> None:
    task = replace(springs(), reward=lambda seen: -seen.error.sum())
    with pytest.raises(ls.ArgumentError, match="each of 3 systems"):
        Decisions(task, task.starts(range(3))).decide(torch.zeros(3, dtype=torch.long))


def test_a_policy_for_something_else_is_refused(tmp_path: Path) -> None:
    network, stars = small(springs()), three_stars_task()
    with pytest.raises(ls.ArgumentError, match="made for another observation"):
        stars.play(network, stars.starts([1]))
    others = springs(values=(1e-8, 1e-5, 1e-3))
    with pytest.raises(ls.ArgumentError, match="another choice of parameters"):
        others.play(network, others.starts([1]))
    with pytest.raises(ls.ArgumentError, match="decides on a parameter"):
        ls.solve(SPRING, springs().starts([1]), t=(0, 1), controller=network)
    network.save(tmp_path / "mine")
    told = json.loads((tmp_path / "mine.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps(told | {"observation": told["observation"][1:]}))
    with pytest.raises(ls.ArgumentError, match="do not lead from 4 numbers"):
        ls.control.load(tmp_path / "mine")
    (tmp_path / "mine.json").write_text(json.dumps(told))
    (tmp_path / "mine.safetensors").write_bytes(b"{}")
    with pytest.raises(ls.ArgumentError, match="not a policy"):
        ls.control.load(tmp_path / "mine")
    with pytest.raises(ls.ArgumentError, match="one of them"):
        springs(between=(1e-8, 1e-2))
    with pytest.raises(ls.ArgumentError, match="rtol, atol or dt"):
        Solved(SPRING, "dopri5", 1.0, "eta")
    task = springs()
    for action in (torch.tensor([0, 3]), torch.tensor([0.0, 1.0]), torch.tensor([0])):
        with pytest.raises(ls.ArgumentError, match="action"):
            Decisions(task, task.starts([1, 2])).decide(action)


def test_a_batch_is_as_many_environments_of_gymnasium() -> None:
    """To the bit, over the ends of episodes, with starts that each draws for itself."""
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    task = springs()
    check_env(ls.environments.Single(task), skip_render_check=True)
    many = ls.environments.Many(task, 3)
    single = gymnasium.vector.SyncVectorEnv(
        [lambda: ls.environments.Single(task)] * 3, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )
    (one, _), (two, _) = many.reset(seed=5), single.reset(seed=5)
    assert np.array_equal(one, two)
    draw = np.random.default_rng(0)
    for _ in range(2 * task.decisions + 1):
        actions = draw.integers(0, 3, 3)
        one, two = many.step(actions), single.step(actions)
        for ours, theirs in zip(one[:4], two[:4], strict=True):
            assert np.array_equal(ours, theirs)
        for name in ("error", "evaluations", "value"):
            # What the last step of an episode noted is gymnasium's "final_info".
            noted = two[4]["final_info"] if "final_info" in two[4] else two[4]
            assert np.array_equal(one[4][name], noted[name])
        if "final_obs" in one[4]:
            assert np.array_equal(np.stack(one[4]["final_obs"]), np.stack(two[4]["final_obs"]))


@pytest.mark.parametrize("name", ["DQN", "PPO", "SAC"])
def test_what_stable_baselines_trains_acts_without_it(name: str, tmp_path: Path) -> None:
    """A trained network, saved and loaded, does what the model of stable-baselines3 predicts."""
    stable = pytest.importorskip("stable_baselines3")
    continuous = name == "SAC"
    task = springs(values=(), between=(1e-8, 1e-2)) if continuous else springs()
    env = ls.environments.Stable(task, 4)
    more = {"n_steps": 8, "batch_size": 16} if name == "PPO" else {"learning_starts": 8}
    net = {"net_arch": [16, 16]}
    model = getattr(stable, name)("MlpPolicy", env, policy_kwargs=net, seed=0, device="cpu", **more)
    model.learn(64)
    Network.trained(model, task, "a test").save(tmp_path / "net")
    network = ls.control.load(tmp_path / "net")
    played = task.play(network, task.starts([1, 2, 3]))
    seen = Decisions(task, task.starts([1, 2, 3]))
    while not bool(seen.over.all()):
        actions, _ = model.predict(seen.observation().numpy().astype(np.float32), deterministic=True)
        mine = network(seen.observation())
        assert np.allclose(mine.numpy(), actions.reshape(3), atol=1e-6)
        seen.decide(mine)
    assert torch.equal(seen.seen.x, played.seen.x)


def test_training_finds_the_cheapest_parameter() -> None:
    """Where evaluations alone count, DQN chooses the largest tolerance."""
    stable = pytest.importorskip("stable_baselines3")
    task = springs(reward=lambda seen: -seen.evaluations / 50)
    model = stable.DQN(
        "MlpPolicy", ls.environments.Stable(task, 16), learning_rate=3e-3, learning_starts=64, gamma=0.5,
        batch_size=64, gradient_steps=8, target_update_interval=1, tau=0.05, exploration_fraction=0.8,
        policy_kwargs={"net_arch": [16]}, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(1600)
    played = task.play(Network.trained(model, task), task.starts([1, 2]))
    assert torch.equal(played.spent, task.play(always(2), task.starts([1, 2])).spent)


def test_environments_need_no_gymnasium_until_they_are_its() -> None:
    code = (
        "import sys; sys.modules['gymnasium'] = sys.modules['stable_baselines3'] = None\n"
        "import longstride as ls, pytest\n"
        "task = ls.nbody.three_stars_task(decisions=1)\n"
        "task.play(lambda seen: (seen[:, 0] * 0 + 9).long(), task.starts([1]))\n"
        "for name in ('Single', 'Many', 'Stable'):\n"
        "    with pytest.raises(ls.ArgumentError, match='rl'):\n"
        "        getattr(ls.environments, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
