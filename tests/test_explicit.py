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
    """b . Phi(tree) = 1/gamma(tree), and for the interpolant theta^|tree|/gamma(tree) identically in theta."""
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
