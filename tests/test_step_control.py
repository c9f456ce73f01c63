"""Steps that a rule or a learned policy tells: the same in a rollout and in a run, in any units."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.nbody import YEAR, Gravity, Policy, plummer_sphere, rollout, rules, three_stars_at
from longstride.nbody.rules import aarseth, collision, learned, look, observed

F64 = torch.float64
STARS = Gravity(torch.ones(3, dtype=F64))
SOME = Policy(torch.tensor([0.3, -0.2, 0.5, 0.1, 0.4, 0.2, -0.1, 0.3, 0.2], dtype=F64), 0.05)


def starts(n: int = 4, bodies: Gravity = STARS) -> Tensor:
    return bodies.start(*three_stars_at(n, seed=3))


def error(x: Tensor, x0: Tensor, bodies: Gravity = STARS) -> Tensor:
    return (bodies.energy(x) / bodies.energy(x0) - 1).abs()


def test_a_rollout_takes_the_steps_of_a_run() -> None:
    x0, end = starts(2), YEAR
    run = ls.solve(STARS.problem(), x0, t=(0.0, end), method="hermite", controller=SOME)
    found = rollout(STARS, x0, end, learned, SOME.column())
    assert torch.equal(found.steps, run.stats.accepted)
    assert torch.allclose(found.x, run.x_end, rtol=1e-12)
    assert torch.allclose(found.error, error(run.x_end, x0), rtol=1e-6, atol=1e-14)
    # The criteria of `HermiteStepper`, whose first step is told behind a short one.
    one, end = x0[:1], 2 * YEAR
    for method, rule, share in (("hermite_collision", collision, 0.05), ("hermite_aarseth", aarseth, 0.01)):
        run = ls.solve(STARS.problem(), one, t=(0.0, end), method=method, rtol=share)
        found = rollout(STARS, one, end, rule, torch.tensor([share], dtype=F64))
        assert int((found.steps - run.stats.accepted).abs().max()) <= 1
        assert torch.allclose(found.error.log10(), error(run.x_end, one).log10(), atol=0.05)


def test_each_system_has_its_own_numbers_and_its_own_place() -> None:
    """Of more systems than steps are taken of at once, and one that reaches its last step."""
    x0, numbers = starts(3), torch.tensor([[0.05, 0.1, 0.2]], dtype=F64)
    together = rollout(STARS, x0, YEAR, collision, numbers)
    for k in range(3):
        alone = rollout(STARS, x0[k : k + 1], YEAR, collision, numbers[:, k])
        assert torch.equal(alone.x[0], together.x[k])
        assert alone.steps[0] == together.steps[k]
    least = int(together.steps.min())
    assert rollout(STARS, x0, YEAR, collision, numbers, max_steps=least).steps.tolist() == [least] * 3


def test_what_is_observed_has_no_units() -> None:
    """Lengths by L, masses by M and velocities by sqrt(M/L): tau goes with the time, the rest stays. So it
    does when the bodies are turned, moved or named in another order; and d tau/dt changes sign with time."""
    x0 = rollout(STARS, starts(), YEAR, collision, torch.tensor([0.2], dtype=F64)).x
    tau, change, seen = observed(look(STARS, x0))
    L, M, angle = 37.0, 5.3, 0.7
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64)
    q, v = x0.flip(2).unbind(1)
    other = torch.stack([L * q @ turn + 11.0, math.sqrt(M / L) * v @ turn], 1)
    heavy = Gravity(M * STARS.masses)
    tau2, change2, seen2 = observed(look(heavy, other))
    assert torch.allclose(tau2, tau * math.sqrt(L**3 / M), rtol=1e-12)
    for ours, theirs in zip((change, *seen), (change2, *seen2), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-12)
    back, reverse, same = observed(look(STARS, torch.stack([x0[:, 0], -x0[:, 1]], 1)))
    assert torch.equal(back, tau)
    assert torch.equal(reverse, -change)
    assert torch.equal(same[1], seen[1])
    # So a policy's run in other units is the same run.
    end = 0.5 * YEAR
    one = ls.solve(STARS.problem(), x0, t=(0.0, end), method="hermite", controller=SOME)
    far = torch.stack([L * x0[:, 0], math.sqrt(M / L) * x0[:, 1]], 1)
    two = ls.solve(
        heavy.problem(), far, t=(0.0, end * math.sqrt(L**3 / M)), method="hermite", controller=SOME
    )
    assert torch.equal(one.stats.accepted, two.stats.accepted)
    assert torch.allclose(two.x_end[:, 0] / L, one.x_end[:, 0], rtol=1e-9)


def test_the_rate_of_tau_is_that_along_the_orbit_of_a_pair() -> None:
    half = Gravity(torch.tensor([0.4, 0.6], dtype=F64))
    q = torch.tensor([[[0.0, 0.0], [0.5, 0.3]]], dtype=F64)
    x = half.start(q, torch.tensor([[[0.0, 0.0], [-0.4, 1.1]]], dtype=F64))
    eps = 1e-5

    def tau(dt: float) -> Tensor:
        q, v = x.unbind(1)
        a = half.acceleration(q)
        return observed(look(half, torch.stack([q + dt * v + dt * dt / 2 * a, v + dt * a], 1)))[0]

    slope = (tau(eps) - tau(-eps)) / (2 * eps)
    assert torch.allclose(observed(look(half, x))[1], slope, rtol=1e-7)


def test_a_policy_of_zeros_takes_a_constant_share_of_tau() -> None:
    x0, none = starts(), Policy(torch.zeros(9, dtype=F64), 0.02)
    tau = observed(look(STARS, x0))[0]
    assert torch.allclose(none.of(STARS.problem()).next_step(x0, 1.0), 0.02 * tau, rtol=1e-14)


@pytest.mark.parametrize(("method", "pace", "order"), [("hermite", 0.1, 4), ("tsit5", 0.4, 5)])
def test_halving_the_pace_lowers_the_error_by_the_order(method: str, pace: float, order: int) -> None:
    """Any method takes a policy's steps; where each is half as long, errors fall as the order says."""
    x0, end = starts(2), YEAR
    exact = ls.solve(STARS.problem(), x0, t=(0.0, end), method="gauss_radau_15", rtol=1e-9).x_end
    errors = []
    for each in (pace, pace / 2):
        found = ls.solve(STARS.problem(), x0, t=(0.0, end), method=method, controller=SOME.at(each))
        assert set(found.status) == {"reached"}
        assert int(found.stats.rejected.max()) == 0
        errors.append(float((found.x_end - exact).abs().max()))
    assert errors[1] < errors[0] / 2 ** (order - 0.7)


def test_backward_steps_see_the_motion_reversed() -> None:
    x0 = starts(2)
    back = ls.solve(STARS.problem(), x0, t=(0.0, -YEAR), method="hermite", controller=SOME)
    mirror = torch.stack([x0[:, 0], -x0[:, 1]], 1)
    forth = ls.solve(STARS.problem(), mirror, t=(0.0, YEAR), method="hermite", controller=SOME)
    assert torch.allclose(back.x_end[:, 0], forth.x_end[:, 0], rtol=1e-12)
    assert torch.equal(back.stats.accepted, forth.stats.accepted)


def test_a_saved_policy_takes_the_same_steps(tmp_path: Path) -> None:
    SOME.save(tmp_path / "mine")
    again = ls.control.load(tmp_path / "mine")
    x0 = starts(2)
    first, second = (
        ls.solve(STARS.problem(), x0, t=(0.0, YEAR), method="hermite", controller=p) for p in (SOME, again)
    )
    assert torch.equal(first.x_end, second.x_end)
    told = json.loads((tmp_path / "mine.json").read_text())
    told["observation"] = ["places over 10", "velocities"]
    (tmp_path / "mine.json").write_text(json.dumps(told))
    with pytest.raises(ls.ArgumentError, match="another observation"):
        ls.control.load(tmp_path / "mine")
    (tmp_path / "mine.safetensors").write_bytes(b"{}")
    with pytest.raises(ls.ArgumentError, match="not a policy"):
        ls.control.load(tmp_path / "mine")
    with pytest.raises(ls.ArgumentError, match="come with the library are oscillators, three_stars"):
        ls.control.load(tmp_path / "nobody")


def test_pairs_one_by_one_are_those_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a graph has them and as tensors have them; with masses of each system's own."""
    q, v = plummer_sphere(6, seed=2)
    masses = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    masses[1, 2] = 0.0
    cluster = Gravity(masses, softening=0.1)
    x0, numbers = cluster.start(q, v), torch.tensor([[0.02, 0.03, 0.05]], dtype=F64)
    found = []
    for one_by_one in (False, True):
        monkeypatch.setattr(rules, "compiling", lambda one_by_one=one_by_one: one_by_one)
        found.append(rollout(cluster, x0, 0.2, collision, numbers).x)
        found.append(SOME.of(cluster.problem()).next_step(x0, 1.0))
    assert torch.allclose(found[0], found[2], rtol=1e-10)
    assert torch.allclose(found[1], found[3], rtol=1e-12)
    for k in range(3):
        alone = rollout(Gravity(masses[k], softening=0.1), x0[k : k + 1], 0.2, collision, numbers[:, k])
        assert torch.allclose(alone.x[0], found[0][k], rtol=1e-10)


def test_who_is_told_no_step_stops() -> None:
    """In a rollout its error is NaN; in a run its status says so, and others go on."""
    x0, numbers = starts(2), torch.tensor([[0.05, math.nan]], dtype=F64)
    found = rollout(STARS, x0, YEAR, collision, numbers)
    assert found.error.isnan().tolist() == [False, True]
    assert found.steps[1] == 0
    assert torch.equal(found.x[1], x0[1])

    class Halting:
        """No step for what is right of some place."""

        def start(self, ones: Tensor) -> tuple[Tensor, ...]:
            return ()

        def control(self, ratio: Tensor, history: tuple[Tensor, ...], power: float) -> tuple:
            return torch.ones_like(ratio), ratio.isfinite(), history

        def next_step(self, x: Tensor, sign: float) -> Tensor:
            return torch.where(x[:, 0] < 0.5, 0.01, 0.0)

    moving = ls.Newton(lambda t, x: 0 * x)
    x, v = torch.zeros(2, 1, dtype=F64), torch.tensor([[1.0], [0.1]], dtype=F64)
    run = ls.solve(moving, (x, v), t=(0.0, 1.0), method="hermite", controller=Halting())
    assert run.status == ("step_underflow", "reached")
    assert abs(float(run.t_end[0]) - 0.5) < 0.011


def test_what_a_policy_cannot_do_is_said() -> None:
    x0 = starts(1)
    with pytest.raises(ls.ArgumentError, match="observes bodies"):
        ls.solve(ls.ODE(lambda t, x: -x), x0, t=(0, 1), controller=SOME)
    for more in ({"compile": True}, {"nfe": 100, "on_budget": "reach"}):
        with pytest.raises(ls.ArgumentError, match="tells steps"):
            ls.solve(STARS.problem(), x0, t=(0, 1), method="tsit5", controller=SOME, **more)
    with pytest.raises(ls.ArgumentError, match="criterion of its own"):
        ls.solve(STARS.problem(), x0, t=(0, 1), method="hermite_aarseth", controller=SOME)
    lone = Gravity(torch.tensor([1.0, 0.0, 0.0], dtype=F64))
    with pytest.raises(ls.ArgumentError, match="give two of them a mass"):
        ls.solve(lone.problem(), x0, t=(0, 1), method="hermite", controller=SOME)
    with pytest.raises(ls.ArgumentError, match="a policy has 9"):
        Policy(torch.zeros(4, dtype=F64))
    with pytest.raises(ls.ArgumentError, match="pace"):
        SOME.at(0.0)
    with pytest.raises(ls.ArgumentError, match="not negative"):
        Gravity(torch.tensor([1.0, -1.0, 1.0]))
    with pytest.raises(ls.ArgumentError, match="in one place"):
        STARS.start(torch.zeros(3, 2, dtype=F64), torch.zeros(3, 2, dtype=F64))


def test_the_policy_that_is_shipped_beats_constant_steps() -> None:
    """At no more evaluations, over years of close encounters: the mean of log errors is lower."""
    x0, end = starts(16), 4 * YEAR
    plain = rollout(STARS, x0, end, collision, torch.tensor([0.05], dtype=F64))
    policy = ls.control.load("three_stars").at(0.05)
    once = rollout(STARS, x0, end, learned, policy.column())
    pace = 0.05 * 1.02 * float(once.steps.double().mean() / plain.steps.double().mean())
    found = rollout(STARS, x0, end, learned, policy.at(pace).column())
    assert float(found.steps.double().mean()) <= float(plain.steps.double().mean())
    assert float(found.error.log10().mean()) < float(plain.error.log10().mean())
