"""Gauss-Radau compiled: a round is a turn of a native loop, and each system takes as many as it needs."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.adaptive import graphs
from longstride.cli.task import Task
from longstride.native import library

F64 = torch.float64


@cache
def bodies() -> ls.nbody.Gravity:
    return ls.nbody.Gravity(torch.ones(3, dtype=F64))


def started(batch: int) -> Tensor:
    return bodies().start(*ls.nbody.three_stars_at(batch, seed=3))


def both(problem: ls.ODE, x0: Tensor, **how: Any) -> tuple[ls.Solution, ls.Solution]:
    """Not compiled, and compiled."""
    how = {"method": "gauss_radau_15", "rtol": 1e-9, "grad": False, **how}
    plain, run = (ls.solve(problem, x0, compile=c, **how) for c in (False, True))
    return plain, run


# All of one recording, which takes some seconds.
BACK: dict[str, Any] = {
    "t": (6, 0), "save_at": [5.0, 4.99, 0.1], "jump_times": [2.5],
    "events": [ls.Event(lambda t, x: x[:, 0, 0, 0] - x[:, 0, 1, 0], terminal=False)],
}  # fmt: skip


@pytest.mark.parametrize("how", [{}, {"first_step": 1.0}, {"max_steps": 7}])
def test_the_run_is_the_plain_one(how: dict[str, Any]) -> None:
    """The same steps; the plain run bills all systems for the rounds of the slowest."""
    plain, run = both(bodies().problem(), started(5), **BACK, **how)
    assert run.stats.nfe_each is not None
    assert plain.stats.accepted is not None
    assert plain.stats.nfe_each is not None
    assert run.status == plain.status
    assert torch.equal(run.stats.accepted, plain.stats.accepted)  # type: ignore[arg-type]
    assert torch.equal(run.stats.rejected, plain.stats.rejected)  # type: ignore[arg-type]
    assert torch.allclose(run.x, plain.x, rtol=0, atol=1e-9, equal_nan=True)
    assert torch.allclose(run.x_end, plain.x_end, rtol=0, atol=1e-9)
    rounds = 7 * (1 + plain.stats.accepted // 5)  # rounding decides now and then on one more
    assert bool((run.stats.nfe_each <= plain.stats.nfe_each + rounds).all())
    assert bool((run.stats.nfe_each >= 15 * plain.stats.accepted).all())
    for seen, before in zip(run.events, plain.events, strict=True):
        assert torch.allclose(seen.t.sort()[0], before.t.sort()[0], rtol=1e-9)


@pytest.mark.parametrize("nfe", [100, 250])
def test_a_budget_is_kept(nfe: int) -> None:
    """The last steps are the host's, which knows what each may take."""
    run = both(bodies().problem(), started(5), **{**BACK, "t": (100, 0)}, nfe=nfe)[1]
    assert run.status == ("nfe_limit",) * 5
    assert nfe - 100 <= run.stats.nfe <= nfe


def test_the_energy_error_is_round_off() -> None:
    """Of 30 periods of ellipses, e = 0.1 to 0.6, and each comes back to where it began."""
    e = torch.linspace(0.1, 0.6, 7, dtype=F64)
    problem = ls.Newton(lambda t, x: -x / x.square().sum(-1, keepdim=True) ** 1.5)
    q = torch.stack([1 - e, 0 * e], 1)
    v = torch.stack([0 * e, ((1 + e) / (1 - e)).sqrt()], 1)

    def energy(q: Tensor, v: Tensor) -> Tensor:
        return v.square().sum(1) / 2 - 1 / q.norm(dim=1)

    how: dict[str, Any] = {"method": "gauss_radau_15", "rtol": 1e-9, "grad": False, "compile": True}
    x, w = ls.solve(problem, (q, v), t=(0, 60 * math.pi), **how).x_end
    assert float((energy(x, w) / energy(q, v) - 1).abs().max()) < 5e-15
    assert torch.allclose(x, q, rtol=0, atol=3e-12)


def test_each_step_of_one_system_can_be_watched() -> None:
    seen: list[list[float]] = [[], []]
    plain, run = (
        ls.solve(
            bodies().problem(), started(1), t=(0, 6), method="gauss_radau_15", rtol=1e-9, grad=False,
            compile=compiled, watch=lambda t, x, h, to=seen[compiled]: to.append(float(t)),
        )
        for compiled in (False, True)
    )  # fmt: skip
    assert len(seen[0]) == plain.stats.steps == run.stats.steps > 5
    assert seen[1] == pytest.approx(seen[0], rel=1e-9)
    assert torch.allclose(run.x_end, plain.x_end, rtol=0, atol=1e-9)


def test_what_is_no_loop_says_so() -> None:
    many = ls.systems.outer_solar_system()  # 36 numbers
    with pytest.raises(ls.ArgumentError, match=f"up to {graphs.WIDE}"):
        ls.solve(many, many.x0, t=(0, 1), method="gauss_radau_15", compile=True, grad=False)


@pytest.mark.skipif(library.compiler() is None, reason="no compiler")
def test_the_terminal_compiles_what_is_long() -> None:
    system, how = ls.systems.burrau(), {"rtol": 1e-9, "atol": 1e-9}
    for end, method, long in (
        (0.5, "gauss_radau_15", False), (70.0, "gauss_radau_15", True), (70.0, "vern9", False),
    ):  # fmt: skip
        assert Task(system, system.x0, end, method, how, drawn=False).pays(ls.solve) is long
