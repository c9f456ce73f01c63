"""What lets a step policy go elsewhere: no units and no axes, other methods; and its training, made again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.nbody import YEAR, Gravity, Policy, plummer_sphere, rollout, three_stars_at
from longstride.nbody import rollouts as by
from longstride.nbody.rules import aarseth, collision, free_fall, learned, look
from longstride.nbody.training import Training, score, train

F64 = torch.float64
STARS = Gravity(torch.ones(3, dtype=F64))
SOME = Policy(torch.tensor([0.3, -0.2, 0.5, 0.1, 0.4, 0.2, -0.1, 0.3, 0.2], dtype=F64), 0.05)


def starts(n: int = 4) -> Tensor:
    return STARS.start(*three_stars_at(n, seed=3))


def five(n: int = 3) -> Tensor:
    q, v = zip(*(plummer_sphere(5, seed) for seed in range(n)), strict=True)
    return torch.stack([torch.stack(q), torch.stack(v)], 1)


def told(x: Tensor, masses: Tensor, policy: Policy = SOME, G: float = 1.0) -> Tensor:
    return policy.of(Gravity(masses, G=G).problem()).next_step(x, 1.0)


@pytest.mark.parametrize("scheme", ["hermite", "leapfrog", "tsit5"])
def test_a_run_in_other_units_is_the_same_to_round_off(scheme: str) -> None:
    """Masses by 16, lengths by 4, and so velocities by 2, times by 2: powers of two, which round nothing."""
    x0, end, column = starts(), YEAR, (SOME.even() if scheme == "leapfrog" else SOME).column()
    one = rollout(STARS, x0, end, learned, column, scheme=scheme)
    heavy = Gravity(16 * STARS.masses)
    other = torch.stack([4 * x0[:, 0], 2 * x0[:, 1]], 1)
    two = rollout(heavy, other, 2 * end, learned, column, scheme=scheme)
    assert torch.equal(one.steps, two.steps)
    assert torch.allclose(two.x[:, 0] / 4, one.x[:, 0], rtol=1e-10)
    assert torch.allclose(two.x[:, 1] / 2, one.x[:, 1], rtol=1e-10, atol=1e-12)


def test_steps_do_not_know_axes_names_units_or_the_frame() -> None:
    """Five bodies of different masses in space, turned, mirrored, moved, renamed, in other units."""
    x, masses = five(), torch.tensor([1.0, 0.3, 2.0, 0.1, 0.6], dtype=F64)
    h = told(x, masses)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1)))[0]
    assert torch.allclose(told(x @ turn, masses), h, rtol=1e-11)
    mirror = x * torch.tensor([1.0, 1.0, -1.0], dtype=F64)
    assert torch.allclose(told(mirror, masses), h, rtol=1e-12)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(told(x[:, :, order], masses[order]), h, rtol=1e-12)
    L, M, T = 1e5, 3e-7, 42.0  # G changes with the units
    away = torch.stack([L * x[:, 0] + 7.0, L / T * x[:, 1]], 1)
    assert torch.allclose(told(away, M * masses, G=L**3 / (M * T * T)), T * h, rtol=1e-9)


def test_a_plane_in_space_is_a_plane() -> None:
    x = starts()
    flat = torch.cat([x, torch.zeros_like(x[..., :1])], -1)
    assert torch.allclose(told(flat, STARS.masses), told(x, STARS.masses), rtol=1e-13)
    plane, space = (rollout(STARS, s, YEAR, learned, SOME.column()) for s in (x, flat))
    assert torch.equal(plane.steps, space.steps)
    assert torch.allclose(space.x[..., :2], plane.x, rtol=1e-10)


def test_tsit5_in_a_rollout_is_that_of_a_run() -> None:
    x0 = starts(2)
    run = ls.solve(STARS.problem(), x0, t=(0.0, YEAR), method="tsit5", controller=SOME.at(0.3))
    found = rollout(STARS, x0, YEAR, learned, SOME.at(0.3).column(), scheme="tsit5")
    assert torch.equal(found.steps, run.stats.accepted)
    assert torch.allclose(found.x, run.x_end, rtol=1e-11)


def test_symmetric_steps_lead_back() -> None:
    """Velocities reversed, and the step that led here first: the same steps to where they began."""
    x0, n = starts(), 200
    leapfrog, numbers = by.SCHEMES["leapfrog"], SOME.even().column().expand(-1, len(x0))
    at = look(STARS, x0)
    bodies = at.masses, at.softening2

    def steps(state: by.State) -> by.State:
        for _ in range(n):
            state = by._leap(leapfrog, learned, *bodies, n, numbers, *state)
        return state

    begun = by._begin(leapfrog, at, 1e3, learned, numbers)
    q, v, a, left, h, taken = steps(begun)
    wanted = learned(replace(at, q=q, v=v), numbers)
    back = steps((q, -v, a, torch.full_like(left, 1e3), 1 / (2 / wanted - 1 / h), 0 * taken))
    assert (begun[0] - q).abs().amax() > 1
    assert torch.allclose(back[0], begun[0], rtol=1e-11, atol=1e-11)
    assert torch.allclose(-back[1], begun[1], rtol=1e-11, atol=1e-11)
    assert torch.allclose(back[3], left, rtol=1e-11)  # as far back as it went
    assert torch.allclose(h, wanted, rtol=0.1)  # and steps have not strayed from what the rule says


def test_energy_does_not_drift_by_symmetric_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of orbits with e = 0.8, the mean of 16 lengths of steps: bounded; it grows where steps are as told."""
    pair = Gravity(torch.tensor([0.5, 0.5], dtype=F64))
    q = torch.tensor([[[0.9, 0.0], [-0.9, 0.0]]], dtype=F64)
    v = torch.tensor([[[0.0, 1.0], [0.0, -1.0]]], dtype=F64) * math.sqrt(0.2 / 1.8) / 2
    x0 = pair.start(q, v).expand(16, -1, -1, -1)

    def grown() -> float:
        """The error after 16.3 periods over that after 4.3."""
        numbers = torch.linspace(0.08, 0.12, 16, dtype=F64)[None]
        four, many = (
            rollout(pair, x0, 2 * math.pi * n, free_fall, numbers, scheme="leapfrog").error.mean()
            for n in (4.3, 16.3)
        )
        return float(many / four)

    assert grown() < 1.5
    monkeypatch.setitem(by.SCHEMES, "leapfrog", replace(by.SCHEMES["leapfrog"], symmetric=False))
    assert grown() > 2.5


def test_halving_the_steps_of_leapfrog_quarters_the_error() -> None:
    x0 = starts(2)
    exact = ls.solve(STARS.problem(), x0, t=(0.0, YEAR), method="gauss_radau_15", rtol=1e-9).x_end
    errors = [
        (rollout(STARS, x0, YEAR, learned, SOME.even().at(pace).column(), scheme="leapfrog").x - exact).norm()
        for pace in (0.02, 0.01)
    ]
    assert 3.5 < float(errors[0] / errors[1]) < 4.5


def test_free_fall_is_a_share_of_the_time_to_fall() -> None:
    pair = Gravity(torch.tensor([2.0, 3.0], dtype=F64), G=0.7)
    x = pair.start(*(torch.tensor([[0.0, 0.0], [a, b]], dtype=F64) for a, b in ((0.6, 0.8), (0.3, 0.1))))
    h = free_fall(look(pair, x), torch.tensor([[0.1]], dtype=F64))
    assert torch.allclose(h, torch.tensor([0.1 / math.sqrt(0.7 * 5)], dtype=F64), rtol=1e-14)


def test_weights_go_over_to_another_order() -> None:
    """Where e = C^(-1/5) was learned at order 4, C e^16 is the same everywhere at order 15."""
    x = starts()
    four, fifteen = (told(x, STARS.masses, p.at(1.0)) for p in (SOME.even(), SOME.even().for_order(15)))
    tau = told(x, STARS.masses, Policy(torch.zeros(9, dtype=F64), 1.0))
    assert torch.allclose((fifteen / tau) ** 16, (four / tau) ** 5, rtol=1e-12)
    assert torch.equal(SOME.for_order(4).numbers, SOME.numbers)


def test_an_interrupted_training_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    x0, end, tiny = starts(3), YEAR / 10, Training(20.0, generations=3, people=4, batch=2, pace=0.05)

    def stop(generation: int, found: float, mean: list[float]) -> None:
        if generation == 1:
            raise KeyboardInterrupt

    whole = train(STARS, x0, end, tiny, roll=rollout)
    path = tmp_path / "search.json"
    with pytest.raises(KeyboardInterrupt):
        train(STARS, x0, end, tiny, path, stop, roll=rollout)
    on = train(STARS, x0, end, tiny, path, roll=rollout)
    assert torch.equal(on.numbers, whole.numbers)
    assert on.pace == whole.pace
    more = train(STARS, x0, end, replace(tiny, generations=4), path, roll=rollout)
    assert not torch.equal(more.numbers, whole.numbers)
    with pytest.raises(ls.ArgumentError, match="another training"):
        train(STARS, x0, end, replace(tiny, seed=2), path, roll=rollout)


def test_a_score_is_of_quantiles() -> None:
    """All errors by 100: 2 more, whatever they are."""
    errors = torch.rand(2, 50, dtype=F64, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert torch.allclose(score(100 * errors), score(errors) + 2, rtol=1e-12)


def test_what_a_rollout_cannot_do_is_said(tmp_path: Path) -> None:
    one = torch.tensor([0.01], dtype=F64)
    with pytest.raises(ls.ArgumentError, match="did you mean leapfrog"):
        rollout(STARS, starts(1), YEAR, free_fall, one, scheme="leap_frog")
    with pytest.raises(ls.ArgumentError, match="derivatives"):
        rollout(STARS, starts(1), YEAR, aarseth, one, scheme="tsit5")
    with pytest.raises(ls.ArgumentError, match="9 numbers"):
        train(STARS, starts(1), YEAR, Training(begin=(0.0,)))
    with pytest.raises(ls.ArgumentError, match="did you mean leapfrog"):
        train(STARS, starts(1), YEAR, Training(scheme="leap_frog"))
    with pytest.raises(ls.ArgumentError, match="a pace and 9"):
        rollout(STARS, starts(1), YEAR, learned, torch.ones(3, dtype=F64))
    with pytest.raises(ls.ArgumentError, match=r"\[P, 2\]"):
        rollout(STARS, starts(2), YEAR, collision, torch.ones(1, 3, dtype=F64))
    with pytest.raises(ls.ArgumentError, match="states of these bodies"):
        rollout(STARS, starts(1)[0], YEAR, collision, one)
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(ls.ArgumentError, match="not of a training"):
        train(STARS, starts(1), YEAR, Training(), tmp_path / "scores.json")
