"""Explicit pairs, trees as states, output, budgets, and the problems beside dx/dt = f."""

from __future__ import annotations

import math
from functools import cache, reduce
from operator import mul

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.methods.embedded import PAIRS, Pair, padded

F64 = torch.float64
NAMES = sorted(PAIRS)
Rooted = tuple["Rooted", ...]  # a rooted tree is the trees that hang from its root


@cache
def rooted(order: int) -> tuple[Rooted, ...]:
    """All rooted trees with so many vertices: a leaf grafted onto every vertex of the smaller ones."""

    def grafted(tree: Rooted) -> list[Rooted]:
        found = [tuple(sorted((*tree, ())))]
        for i, branch in enumerate(tree):
            found += [tuple(sorted((*tree[:i], new, *tree[i + 1 :]))) for new in grafted(branch)]
        return found

    return ((),) if order == 1 else tuple(sorted({new for t in rooted(order - 1) for new in grafted(t)}))


def vertices(tree: Rooted) -> int:
    return 1 + sum(map(vertices, tree))


def density(tree: Rooted) -> int:
    """gamma: the product of the sizes of all its subtrees."""
    return vertices(tree) * math.prod(map(density, tree))


def weights(tree: Rooted, A: np.ndarray) -> np.ndarray:
    """The elementary weight of every stage: prod over branches of A times theirs."""
    return reduce(mul, (A @ weights(branch, A) for branch in tree), np.ones(len(A)))


def matrix(pair: Pair) -> np.ndarray:
    rows = [*pair.a, *pair.extra_a]
    return np.array([padded(row, len(rows)) for row in rows])


def test_there_are_as_many_rooted_trees_as_cayley_counted() -> None:
    assert [len(rooted(n)) for n in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]


@pytest.mark.parametrize("name", NAMES)
def test_every_condition_of_order_holds_at_the_end_and_along_the_step(name: str) -> None:
    """b . Phi(tree) = 1/gamma(tree); of the interpolant theta^|tree|/gamma(tree), identically in theta."""
    pair = PAIRS[name]
    A, dense = matrix(pair), np.array(pair.dense)
    b = A[pair.evaluations - 1]
    for order in range(1, pair.order + 1):
        for tree in rooted(order):
            phi = weights(tree, A)
            assert abs(b @ phi - 1 / density(tree)) < 1e-13
            if order <= pair.dense_order:
                along = phi[: len(dense)] @ dense
                along[order - 1] -= 1 / density(tree)
                assert abs(along).max() < 1e-13 * abs(dense).max()  # thousands of Verner's cancel
    missed = max(abs(b @ weights(t, A) - 1 / density(t)) for t in rooted(pair.order + 1))
    assert missed > 1e-7  # and it is of no higher order


# Trees as states


def coupled(t: Tensor, state: dict) -> dict:
    """A pendulum of angle q [B], a complex phase z [B, 2, 3] that turns with it, and both kept in a nest."""
    q, (p, z) = state["q"], state["rest"]
    return {"rest": (-torch.sin(q), 1j * q[:, None, None] * z), "q": p}


def start(batch: int = 3) -> dict:
    q = torch.linspace(0.1, 2.0, batch, dtype=F64)
    z = torch.ones(batch, 2, 3, dtype=torch.complex128) * torch.tensor([1.0, 1j, 2.0])
    return {"q": q, "rest": (0 * q, z)}


def laid_out(t: Tensor, x: Tensor) -> Tensor:
    q, p, z = x[:, :1], x[:, 1:2], x[:, 2:]
    return torch.cat([p, -torch.sin(q.real), 1j * q.real * z], 1)


@pytest.mark.parametrize(
    "way",
    [{}, {"save_at": [0.3, 1.0]}, {"dt": 0.05}, {"steps": 4, "save_at": [0.3, 1.0]}, {"shared_step": True}],
)
def test_a_tree_goes_the_way_of_its_leaves_laid_out_side_by_side(way: dict) -> None:
    """Types come back as they were, keys may come in any order, and the end is an entry of its own."""
    tree = start()
    flat = torch.cat([tree["q"][:, None], tree["rest"][0][:, None], tree["rest"][1].reshape(3, 6)], 1)
    run = ls.solve(ls.ODE(coupled), tree, t=(0, 1), **way)
    same = ls.solve(ls.ODE(laid_out), flat, t=(0, 1), **way)
    for found, end in ((run.x, same.x), (run.x_end, same.x_end)):
        assert torch.allclose(found["q"], end[..., 0].real, rtol=1e-13)
        assert torch.allclose(found["rest"][0], end[..., 1].real, rtol=1e-13)
        assert torch.allclose(found["rest"][1], end[..., 2:].unflatten(-1, (2, 3)), rtol=1e-13)
    assert run.status == ("reached",) * 3
    assert (run.stats.nfe, run.t) == (same.stats.nfe, same.t)


def test_tolerances_may_be_trees_and_events_and_callbacks_see_one() -> None:
    """A leaf whose tolerance is loose does not cost steps; q = 0 after a quarter of a period."""
    fine, loose = {"q": 1e-9, "rest": (1e-9, 1e-9)}, {"q": 1e-9, "rest": (1e-9, 1.0)}
    runs = [ls.solve(ls.ODE(coupled), start(), t=(0, 5), rtol=0.0, atol=atol) for atol in (fine, loose)]
    assert runs[1].stats.nfe < runs[0].stats.nfe
    still = ls.ODE(lambda t, x: (x[1], -x[0]))
    ends = [ls.Event(lambda t, x: x[0])]
    one = torch.ones(1, dtype=F64)
    run = ls.solve(still, (one, 0 * one), t=(0, 5), events=ends, rtol=1e-10, method="vern9")
    assert abs(run.t_end[0] - math.pi / 2) < 1e-9
    assert torch.allclose(run.events[0].x[1], -one)
    seen = []
    ls.solve(still, (one, 0 * one), t=(0, 1), steps=2, callback=lambda n, t, x: seen.append(x[0] + x[1]))
    assert len(seen) == 2


def test_gradients_go_through_trees() -> None:
    """d/dq0 of q(1) of q'' = -q is cos 1, of q(1) by p0 sin 1."""
    q, p = (torch.ones(2, 1, dtype=F64, requires_grad=True) for _ in range(2))
    run = ls.solve(ls.ODE(lambda t, x: [x[1], -x[0]]), [q, p], t=(0, 1), rtol=1e-9)
    by_q, by_p = torch.autograd.grad(run.x[0].sum(), (q, p))
    assert torch.allclose(by_q, torch.full_like(q, math.cos(1)), rtol=1e-6)
    assert torch.allclose(by_p, torch.full_like(p, math.sin(1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("x0", "f", "message"),
    [
        ((), lambda t, x: x, "0 tensors"),
        (1.0, lambda t, x: x, "floating"),
        ((torch.ones(2), torch.ones(3)), lambda t, x: x, "share their batch"),
        ((torch.ones(2), torch.ones(2, dtype=torch.int64)), lambda t, x: x, "int64"),
        ((torch.ones(2), torch.ones(2)), lambda t, x: x[0], "unlike that of x0"),
        ((torch.ones(2), torch.ones(2)), lambda t, x: (x[0], x[1].double()), "float64"),
        (
            (torch.ones(2), torch.ones(2)),
            lambda t, x: (x[0], x[1][:, None].expand(2, 2)),
            "unlike|where that",
        ),
    ],
)
def test_trees_that_do_not_fit_are_named(x0, f, message: str) -> None:
    for way in ({}, {"dt": 0.1}):
        with pytest.raises(ls.SolveError, match=message):
            ls.solve(ls.ODE(f), x0, t=(0, 1), **way)


# Both loops alike


@pytest.mark.parametrize("way", [{}, {"dt": 0.1}, {"steps": 3}])
def test_the_end_of_an_interval_and_of_one_of_length_zero(way: dict) -> None:
    x0 = torch.tensor([[1.0], [2.0]], dtype=F64)
    run = ls.solve(ls.ODE(lambda t, x: x), x0, t=(0, 1), **way)
    assert (run.status, run.t_end.tolist(), run.message) == (("reached",) * 2, [1.0, 1.0], ("", ""))
    assert torch.equal(run.x_end, run.x[-1])
    for marks in (None, [3.0]):
        none = ls.solve(ls.ODE(lambda t, x: x), x0, t=(3, 3), save_at=marks, **way)
        assert (none.status, none.stats.nfe, none.t) == (("reached",) * 2, 0, (3.0,))
        assert torch.equal(none.x, x0[None])
