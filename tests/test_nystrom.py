"""Nystrom's methods: conditions of order, measured orders, adaptive runs, the solution between the ends."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods.nystrom import NYSTROM, NYSTROM_PAIRS, Nystrom

F64 = torch.float64
TABLES = {**NYSTROM, **NYSTROM_PAIRS}
NodeOf = tuple[int, tuple]  # how many leaves v, and the branches


@cache
def trees(order: int) -> list[NodeOf]:
    """Of a special Nystrom method: 1, 1, 2, 3, 6, 10, 20, ... of orders 1, 2, ..."""
    return [(m, forest) for m in range(order) for forest in forests(order - 1 - m)]


@cache
def forests(total: int) -> list[tuple]:
    """Of trees whose orders, each and 1, add up to that."""
    if not total:
        return [()]
    found = [
        tuple(sorted((tree, *rest), key=repr))
        for s in range(1, total)
        for tree in trees(s)
        for rest in forests(total - s - 1)
    ]
    return list(dict.fromkeys(found))


def order_of(tree: NodeOf) -> int:
    return 1 + tree[0] + sum(order_of(branch) + 1 for branch in tree[1])


def weights(tree: NodeOf, c: np.ndarray, a: np.ndarray) -> np.ndarray:
    return c ** tree[0] * math.prod((a @ weights(branch, c, a) for branch in tree[1]), start=np.ones(len(c)))


def kappa(tree: NodeOf) -> float:
    return math.prod(kappa(branch) / (order_of(branch) * (order_of(branch) + 1)) for branch in tree[1])


def missed(table: Nystrom, b: tuple, d: tuple, order: int) -> float:
    """By how much the conditions up to an order are missed."""
    c, a = np.array(table.c), np.array([[*row, *[0.0] * (len(table.c) - len(row))] for row in table.a])
    worst = 0.0
    for s in range(1, order + 1):
        for tree in trees(s):
            phi, k = weights(tree, c, a), kappa(tree)
            worst = max(worst, abs(phi @ d - k / s), abs(phi @ b - k / (s * (s + 1))) if s < order else 0.0)
    return worst


def test_there_are_as_many_trees_as_there_should_be() -> None:
    assert [len(trees(s)) for s in range(1, 8)] == [1, 1, 2, 3, 6, 10, 20]  # Hairer et al., table II.14.3


@pytest.mark.parametrize("name", TABLES)
def test_conditions_of_order(name: str) -> None:
    table = TABLES[name]
    assert missed(table, table.b, table.d, table.order) < 1e-15
    assert missed(table, table.b, table.d, table.order + 1) > 1e-5
    if table.other is not None:
        assert missed(table, *table.other, table.shrinks - 1) < 1e-15
        assert missed(table, *table.other, table.shrinks) > 1e-5


def swinging(t: Tensor, x: Tensor) -> Tensor:
    """A pendulum that is pushed."""
    return -x.sin() + 0.3 * (2 * t).cos()[..., None]


START = (torch.tensor([[1.0], [-0.4]], dtype=F64), torch.tensor([[0.2], [0.9]], dtype=F64))


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_measured_orders(name: str, compensated: bool) -> None:
    problem = ls.Newton(swinging)
    exact = ls.solve(problem, START, t=(0, 2), method="vern9", rtol=1e-13, atol=1e-13).x_end
    errors = []
    for steps in (16, 32):
        found = ls.solve(problem, START, t=(0, 2), method=name, steps=steps, compensated=compensated)
        assert found.stats.nfe == TABLES[name].nfe * steps + TABLES[name].keeps
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found.x_end, exact, strict=True)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(TABLES[name].order, abs=0.35)


@pytest.mark.parametrize("span", [(0.0, 3.0), (3.0, 0.0)])
@pytest.mark.parametrize("name", NYSTROM_PAIRS)
def test_steps_follow_from_the_error(name: str, span: tuple[float, float]) -> None:
    """Forward and backward; errors go with rtol, also between the ends, where v is the slope of x."""
    problem, marks = ls.Newton(swinging), np.linspace(*span, 23).tolist()
    exact = ls.solve(problem, START, t=span, method="vern9", rtol=1e-13, atol=1e-13, save_at=marks).x
    errors = []
    for rtol in (1e-5, 1e-8):
        found = ls.solve(problem, START, t=span, method=name, rtol=rtol, atol=rtol, save_at=marks)
        assert set(found.status) == {"reached"}
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found.x, exact, strict=True)))
    assert errors[0] < 3e-4
    assert errors[1] < 3e-6
    assert errors[1] < errors[0] / 20


def test_it_takes_fewer_evaluations_than_a_runge_kutta_pair() -> None:
    """At the same tolerance, and with an error no larger than three times that of tsit5."""
    system = ls.systems.kepler(e=0.3)
    runs = {
        name: ls.solve(system, system.x0, t=(0, 20), method=name, rtol=1e-8, atol=1e-8)
        for name in ("dprkn6", "tsit5")
    }
    costs = {name: run.stats.nfe for name, run in runs.items()}
    assert costs["dprkn6"] < costs["tsit5"]
    drifts = {n: float(system.drift(run.x_end, system.x0)["energy"].max()) for n, run in runs.items()}
    assert drifts["dprkn6"] < 3 * drifts["tsit5"]


def test_gradients_go_through_the_steps() -> None:
    x, v = (part[:1] for part in START)
    torch.autograd.gradcheck(
        lambda x: ls.solve(ls.Newton(swinging), (x, v), t=(0.0, 0.7), method="dprkn6", rtol=1e-3).x_end[0],
        (x.clone().requires_grad_(),),
    )
