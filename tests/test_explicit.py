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
from counting import Counted
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


# Output


def circle(t: Tensor, x: Tensor) -> Tensor:
    return torch.stack([x[..., 1], -x[..., 0]], -1)


def along(x0: Tensor, t: Tensor) -> Tensor:
    """The circle through x0 [B, 2] at times [n] or [n, B]."""
    c, s = (w if t.ndim == 2 else w[:, None] for w in (torch.cos(t), torch.sin(t)))
    return torch.stack([x0[:, 0] * c + x0[:, 1] * s, x0[:, 1] * c - x0[:, 0] * s], -1)


PAIR_OF_STARTS = torch.tensor([[1.0, 0.0], [3.0, 40.0]], dtype=F64)


@pytest.mark.parametrize("name", NAMES)
def test_the_interpolant_is_what_save_at_reads(name: str) -> None:
    """At times [n], at times of each sample [n, B], and at one; the two samples have steps of their own."""
    options = {"t": (0, 3), "method": name, "rtol": 1e-5, "atol": 1e-7}
    ts = torch.linspace(0, 3, 31, dtype=F64)
    run = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, dense=True, **options)
    saved = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, save_at=ts, **options)
    digits = 1e-12 if PAIRS[name].order < 7 else 2e-10  # thousands of Verner's coefficients cancel
    assert torch.allclose(run.interpolant(ts), saved.x, rtol=digits, atol=digits)
    each = torch.stack([ts, ts.flip(0)], 1)
    assert torch.equal(run.interpolant(each)[:, 1], run.interpolant(ts).flip(0)[:, 1])
    assert torch.equal(run.interpolant(3.0), run.x_end)
    assert torch.equal(run.interpolant([0.0, 3.0]), torch.stack([PAIR_OF_STARTS, run.x[-1]]))


@pytest.mark.parametrize("name", NAMES)
def test_the_interpolant_errs_by_its_order(name: str) -> None:
    """Steps of a given size, halved: the error between the ends falls as h^order, the lesser of the two."""
    pair, ts = PAIRS[name], torch.linspace(0, 8, 101, dtype=F64)
    h = {2: 0.05, 3: 0.1, 5: 0.2, 7: 0.5, 8: 0.8, 9: 1.0}[pair.order]
    errors = []
    for step in (h, h / 2):
        run = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, t=(0, 8), method=name, rtol=0.0, atol=1e6,
                       first_step=step, max_step=step, dense=True)  # fmt: skip
        errors.append(float((run.interpolant(ts) - along(PAIR_OF_STARTS, ts)).norm()))
    assert math.log2(errors[0] / errors[1]) > min(pair.order, pair.dense_order) - 0.25


def test_the_interpolant_is_differentiable_in_time_and_start() -> None:
    x0 = PAIR_OF_STARTS.clone().requires_grad_()
    ts = torch.tensor([0.3, 1.7, 2.9], dtype=F64, requires_grad=True)
    run = ls.solve(ls.ODE(circle), x0, t=(0, 3), method="dopri8", rtol=1e-9, dense=True)
    x = run.interpolant(ts)
    by_t, by_x0 = torch.autograd.grad(x[:, 0, 0].sum(), (ts, x0))
    assert torch.allclose(by_t, x[:, 0, 1], atol=1e-5)  # x' = v
    assert torch.allclose(by_x0[0], torch.stack([torch.cos(ts), torch.sin(ts)], -1).sum(0), atol=1e-6)
    assert not by_x0[1].any()


@pytest.mark.parametrize("shared", [False, True])
def test_backward_dense_output_of_a_complex_tree(shared: bool) -> None:
    one = torch.ones(2, dtype=torch.complex128)
    problem = ls.ODE(lambda t, z: {"z": 1j * z["z"], "r": -z["r"]})
    run = ls.solve(problem, {"z": one, "r": one.real}, t=(2, 0), dense=True, rtol=1e-8, shared_step=shared)
    ts = torch.tensor([2.0, 1.1, 0.0], dtype=F64)
    assert torch.allclose(run.interpolant(ts)["z"], torch.exp(1j * (ts - 2))[:, None] * one, atol=1e-6)
    assert torch.allclose(run.interpolant(ts)["r"], torch.exp(2 - ts)[:, None] * one.real, atol=1e-6)


def test_the_interpolant_ends_where_a_sample_does_and_refuses_what_lies_outside() -> None:
    fall = ls.ODE(lambda t, x: -torch.ones_like(x))
    x0 = torch.tensor([[0.5], [2.0]], dtype=F64)
    run = ls.solve(fall, x0, t=(0, 1), events=[ls.Event(lambda t, x: x[:, 0])], dense=True, save_at="steps")
    assert torch.allclose(run.interpolant([0.4])[0], x0 - 0.4)
    assert run.interpolant([0.6]).isnan().flatten().tolist() == [True, False]
    assert torch.allclose(run.t.nan_to_num(-1).amax(0), torch.tensor([0.5, 1.0], dtype=F64))
    for t, word in ((1.1, "beyond"), ([-0.1], "beyond"), (torch.zeros(3, 5), "shape")):
        with pytest.raises(ls.ArgumentError, match=word):
            run.interpolant(t)
    still = ls.solve(fall, x0, t=(1, 1), dense=True, save_at="steps", reduce=ls.Integral(lambda t, x: x))
    assert torch.equal(still.interpolant(1.0), x0)
    assert torch.equal(still.x, x0[None])
    assert not still.reduced.any()


@pytest.mark.parametrize("way", [{}, {"shared_step": True}, {"method": "vern7"}])
def test_every_step_has_its_times_and_states_and_nan_behind_the_last(way: dict) -> None:
    run = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, t=(0, 3), save_at="steps", **way)
    taken = (~run.t.isnan()).sum(0)
    assert torch.equal(taken - 1, run.stats.accepted)
    assert torch.equal(run.x[0], PAIR_OF_STARTS)
    assert (run.x - along(PAIR_OF_STARTS, run.t)).nan_to_num().abs().max() < 1e-3
    assert torch.equal(run.t.isnan(), run.x[..., 0].isnan())
    assert torch.equal(run.x[taken - 1, torch.arange(2)], run.x_end)
    fixed = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, t=(0, 3), save_at="steps", steps=4)
    assert fixed.t == (0.0, 0.75, 1.5, 2.25, 3.0)
    assert torch.allclose(fixed.x[-1], fixed.x_end)


@pytest.mark.parametrize("span", [(0.0, 3.0), (3.0, 0.0)])
@pytest.mark.parametrize("name", ["bosh3", "tsit5", "dopri8", "vern9"])
def test_integrals_and_running_maxima_without_the_states(name: str, span: tuple[float, float]) -> None:
    """int x dt and int v^2 dt of the circle; the largest x at the times of a grid."""
    grid = torch.linspace(*span, 40, dtype=F64)
    reductions = [
        ls.Integral(lambda t, x: x[:, 0]),
        ls.Integral(lambda t, x: (x[:, 1] * t[:, None].cos()[:, 0]) ** 2, points=6),
        ls.Fold(lambda most, t, x: torch.maximum(most, x), PAIR_OF_STARTS, at=grid),
        ls.Fold(lambda n, t, x: {"steps": n["steps"] + 1}, {"steps": torch.zeros(2)}),
    ]
    f, options = Counted(circle), {"t": span, "method": name, "rtol": 1e-6 if name == "bosh3" else 1e-9}
    run = ls.solve(ls.ODE(f), PAIR_OF_STARTS, reduce=reductions, **options)
    assert run.stats.nfe == f.calls
    fine = torch.linspace(*span, 20001, dtype=F64)
    way = along(PAIR_OF_STARTS, fine - span[0])
    squares = (way[..., 1] * fine.cos()[:, None]) ** 2
    for found, values in zip(run.reduced, (way[..., 0], squares), strict=False):
        assert torch.allclose(found, torch.trapezoid(values, fine, dim=0), rtol=1e-4, atol=1e-4)
    largest = along(PAIR_OF_STARTS, grid - span[0]).amax(0)
    assert torch.allclose(run.reduced[2], largest, atol=1e-3)
    assert torch.equal(run.reduced[3]["steps"].long(), run.stats.accepted)
    alone = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, reduce=reductions[0], **options)
    assert torch.equal(alone.reduced, run.reduced[0])


@pytest.mark.parametrize("name", ["tsit5", "dopri8", "vern9"])
def test_what_is_read_between_the_ends_of_steps_is_counted(name: str) -> None:
    """Every step with dense output, those alone that a time of a fold falls into, none at their ends."""
    x0, extra = PAIR_OF_STARTS[:1], len(PAIRS[name].extra_c)
    fold = ls.Fold(lambda c, t, x: c, 0 * x0, at=[0.0, 1e-9, 2e-9])
    plain = ls.solve(ls.ODE(circle), x0, t=(0, 3), method=name).stats
    for options, steps in (({"dense": True}, int(plain.accepted[0])), ({"reduce": fold}, 1),
                           ({"save_at": "steps"}, 0)):  # fmt: skip
        f = Counted(circle)
        run = ls.solve(ls.ODE(f), x0, t=(0, 3), method=name, **options)
        assert run.stats.nfe == f.calls == plain.nfe + extra * steps


def test_an_integral_has_a_gradient() -> None:
    """d/dk of int_0^1 exp(-k t) dt."""
    k = torch.tensor(0.7, dtype=F64, requires_grad=True)
    run = ls.solve(ls.ODE(lambda t, x: -k * x), torch.ones(1, 1, dtype=F64), t=(0, 1), rtol=1e-10,
                   reduce=ls.Integral(lambda t, x: x[:, 0]))  # fmt: skip
    (found,) = torch.autograd.grad(run.reduced.sum(), k)
    exact = (math.exp(-0.7) * 1.7 - 1) / 0.49
    assert abs(found - exact) < 1e-8


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"save_at": "every"}, "steps"),
        ({"reduce": 3}, "Fold"),
        ({"reduce": [lambda c, t, x: c]}, "Fold or an Integral"),
        ({"reduce": ls.Fold(lambda c, t, x: c, torch.zeros(2), at=[0.5, 0.2])}, "one way"),
        ({"reduce": ls.Fold(lambda c, t, x: c, torch.zeros(2), at=[-0.5])}, "before"),
        ({"reduce": ls.Fold(lambda c, t, x: c[:1], torch.zeros(2))}, "became"),
        ({"on_budget": "reach"}, "nfe="),
        ({"on_budget": "hurry", "nfe": 5}, "reach"),
    ],
)
def test_bad_requests_for_output_are_refused(arguments: dict, word: str) -> None:
    with pytest.raises(ls.SolveError, match=word):
        ls.solve(ls.ODE(circle), PAIR_OF_STARTS, t=(0, 1), **arguments)


# A budget that reaches the end

RACES = {
    "circle": (circle, torch.tensor([[1.0, 0.0], [3.0, 1.0]], dtype=F64), 10.0),
    "decay": (lambda t, x: -50 * x**3, torch.tensor([[1.0], [0.3]], dtype=F64), 10.0),
    "relaxation": (
        lambda t, x: torch.stack([x[:, 1], 5 * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]], 1),
        torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=F64),
        6.0,
    ),
    "transient": (
        lambda t, x: -200 * (x - torch.cos(t)[:, None]) - torch.sin(t)[:, None],
        torch.tensor([[3.0], [1.5]], dtype=F64),
        1.0,
    ),
}


@pytest.mark.parametrize("name", ["bosh3", "tsit5", "dopri8"])
@pytest.mark.parametrize("race", sorted(RACES))
def test_a_budget_reaches_the_end_and_says_how_well(race: str, name: str) -> None:
    """More evaluations err less; the estimate says by how much, and the budget holds for every call."""
    f, x0, end = RACES[race]
    exact = ls.solve(ls.ODE(f), x0, t=(0, end), method="vern9", rtol=1e-11, atol=1e-12).x_end
    errors = []
    for budget in (900, 1800):
        counted = Counted(f)
        run = ls.solve(ls.ODE(counted), x0, t=(0, end), method=name, rtol=1e-10, atol=1e-10,
                       nfe=budget, on_budget="reach")  # fmt: skip
        assert counted.calls == run.stats.nfe <= budget
        assert set(run.status) <= {"stretched", "reached"}
        assert run.t_end.tolist() == [end] * 2
        error = (run.x_end - exact).square().mean(1).sqrt()
        told = (run.error / error)[error > 1e-9]  # below that the exact solution is not exact enough
        assert bool((told > 0.02).all())
        assert bool((told < 100).all()) or bool((run.error > 1e-2).any())  # of the pilot alone: a safe side
        errors.append(float(error.max()))
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 4 or set(run.status) == {"reached"}


def test_a_budget_that_suffices_is_kept_to_the_tolerances() -> None:
    x0, options = PAIR_OF_STARTS, {"t": (0, 3), "rtol": 1e-7, "atol": 1e-7}
    free = ls.solve(ls.ODE(circle), x0, **options)
    run = ls.solve(ls.ODE(circle), x0, nfe=4 * free.stats.nfe, on_budget="reach", **options)
    assert run.status == ("reached", "reached")
    assert torch.allclose(run.x_end, free.x_end, atol=1e-5)
    loose = ls.solve(ls.ODE(circle), x0, t=(0, 3), rtol=0.5, atol=0.5, nfe=500, on_budget="reach")
    assert loose.status == ("reached", "reached")  # looser than the pilot would be


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.complex128])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("span", [(0.0, 3.0), (3.0, 0.0)])
def test_a_budget_with_jumps_and_output_of_every_type(dtype, shared: bool, span: tuple[float, float]) -> None:
    """x' = -x to t = 1, -3x behind it: e^(-7) over the whole, and back."""
    x0 = torch.tensor([1.0, 2.0, 3.0]).to(dtype)
    f = Counted(lambda t, x: -x * torch.where(t < 1.0, 1.0, 3.0).to(dtype))
    run = ls.solve(ls.ODE(f), x0, t=span, jump_times=[1.0], nfe=150, on_budget="reach", rtol=1e-6, atol=1e-12,
                   shared_step=shared, dense=True, reduce=ls.Integral(lambda t, x: -f.f(t, x)))  # fmt: skip
    assert f.calls <= 150
    end = x0 * math.exp(-7 if span[0] == 0 else 7)
    error = (run.x_end - end).abs()
    assert bool((run.error / error > 0.02).all())
    assert bool((error < 1e-2 * (end.abs() + x0.abs())).all())
    assert torch.allclose(run.reduced.abs(), (x0 - run.x_end).abs(), rtol=1e-3)  # int -x' dt
    assert torch.equal(run.interpolant(span[1]), run.x_end)


def test_what_no_budget_could_do_is_said() -> None:
    run = ls.solve(ls.ODE(circle), PAIR_OF_STARTS, t=(0, 3000), nfe=100, on_budget="reach")
    assert run.status == ("nfe_limit",) * 2
    assert run.stats.nfe <= 100
    run = ls.solve(ls.ODE(lambda t, x: x * x), torch.tensor([[0.5], [2.0]], dtype=F64), t=(0, 1), nfe=4000,
                   on_budget="reach", dense=True, rtol=1e-12)  # fmt: skip
    assert run.status[0] in ("stretched", "reached")
    assert run.status[1] in ("step_underflow", "non_finite")
    assert abs(run.interpolant([0.5])[0, 0] - 1 / 1.5) < 1e-6


# Problems


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)])
@pytest.mark.parametrize("way", [{"rtol": 1e-9, "atol": 1e-9}, {"dt": 0.01}])
def test_second_order_systems_are_pairs(span: tuple[float, float], way: dict) -> None:
    """x'' = -2 c x' - x from (1, 0) is e^(-c t)(cos wt + (c/w) sin wt) with w^2 = 1 - c^2."""
    c = torch.tensor([0.0, 0.3, -0.2], dtype=F64)
    one = torch.ones(3, dtype=F64)
    run = ls.solve(ls.SecondOrder(lambda t, x, v: -2 * c * v - x), (one, 0 * one), t=span, **way)
    t, w = span[1] - span[0], (1 - c**2).sqrt()
    x = torch.exp(-c * t) * (torch.cos(w * t) + c / w * torch.sin(w * t))
    assert torch.allclose(run.x[0][-1], x, atol=1e-7)
    assert torch.allclose(run.x[1][-1], -torch.exp(-c * t) * torch.sin(w * t) / w, atol=1e-7)


def test_a_split_field_is_one_field_to_explicit_methods() -> None:
    x0 = torch.ones(2, 3, dtype=F64)
    split = ls.ODE(lambda t, x: torch.sin(x), L=-0.5, stiff=lambda t, x: -2 * x)
    whole = ls.ODE(lambda t, x: torch.sin(x) - 2.5 * x)
    for way in ({}, {"dt": 0.1}):
        runs = [ls.solve(problem, x0, t=(0, 1), **way).x for problem in (split, whole)]
        assert torch.allclose(*runs, rtol=1e-12)
    pair = ls.ODE(lambda t, x: {"a": torch.sin(x["a"])}, L={"a": -0.5}, stiff=lambda t, x: {"a": -2 * x["a"]})
    assert torch.allclose(ls.solve(pair, {"a": x0}, t=(0, 1)).x["a"], ls.solve(whole, x0, t=(0, 1)).x)


def test_jump_times_of_a_problem_are_those_of_the_run() -> None:
    f = lambda t, x: torch.where(t < 0.3, 1.0, 1000.0)[:, None].to(x)  # noqa: E731
    run = ls.solve(ls.ODE(f, jump_times=(0.3,)), torch.zeros(1, 1, dtype=F64), t=(0, 1))
    assert run.stats.rejected.tolist() == [0]
    assert abs(run.x[-1, 0, 0] - 700.3) < 1e-9


TIMES = torch.tensor([0.0, 0.5, 0.7, 1.6, 2.0, 3.0], dtype=F64)
DATA = torch.sin(torch.arange(36, dtype=F64) ** 2).view(2, 6, 3)
PATHS = {"linear": ls.interpolation.linear, "hermite": ls.interpolation.hermite,
         "natural_cubic": ls.interpolation.natural_cubic}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PATHS))
def test_paths_go_through_the_data_and_have_the_derivative_they_say(name: str) -> None:
    path = PATHS[name](TIMES, DATA)
    assert torch.allclose(torch.stack([path(t) for t in TIMES], 1), DATA, atol=1e-14)
    for t in (0.1, 0.6, 1.59, 2.7):
        slope = (path(t + 1e-6) - path(t - 1e-6)) / 2e-6
        assert torch.allclose(path.derivative(t), slope, atol=1e-8)
    each = torch.tensor([0.6, 2.7], dtype=F64)
    assert torch.equal(path(each), torch.stack([path(0.6)[0], path(2.7)[1]]))
    lines = (2 * TIMES - 1)[None, :, None].expand(1, -1, 1)
    assert torch.allclose(PATHS[name](TIMES, lines)(1.234), torch.full((1, 1), 1.468, dtype=F64))
    assert path.jump_times == (tuple(TIMES[1:-1].tolist()) if name == "linear" else ())


def test_cubics_are_smooth_and_hermites_know_nothing_of_what_comes() -> None:
    """Slopes agree from both sides; that of a natural spline twice, and its ends do not bend; as scipy's."""
    spline = pytest.importorskip("scipy.interpolate").CubicSpline(TIMES, DATA, axis=1, bc_type="natural")
    natural, hermite = (PATHS[name](TIMES, DATA) for name in ("natural_cubic", "hermite"))
    for t in torch.linspace(0, 3, 50, dtype=F64).tolist():
        assert np.allclose(natural(t), spline(t), atol=1e-12)
        assert np.allclose(natural.derivative(t), spline(t, 1), atol=1e-11)
    for t in TIMES[1:-1].tolist():
        assert torch.allclose(hermite.derivative(t - 1e-9), hermite.derivative(t), atol=1e-6)
    later = DATA.clone()
    later[:, 4:] += 1
    for t in (0.3, 1.0, 1.6):
        assert torch.equal(PATHS["hermite"](TIMES, later)(t), hermite(t))


def test_a_rectilinear_path_moves_time_and_data_in_turn() -> None:
    path = ls.interpolation.rectilinear(TIMES, DATA)
    assert path.span == (0.0, 10.0)
    for i in range(6):
        assert torch.allclose(path(2.0 * i), torch.cat([TIMES[i].expand(2, 1), DATA[:, i]], 1), rtol=1e-14)
    assert not path.derivative(2.5)[:, 1:].any()  # time goes on
    assert not path.derivative(3.5)[:, 0].any()  # the data change
    assert torch.allclose(path.derivative(3.5)[:, 1:], DATA[:, 2] - DATA[:, 1])


@pytest.mark.parametrize("name", [*sorted(PATHS), "rectilinear"])
@pytest.mark.parametrize("way", [{"atol": 1e-8}, {"atol": 1e-8, "shared_step": True}, {"steps": 120}])
def test_a_controlled_exponential_ends_where_its_path_does(name: str, way: dict) -> None:
    """dz = z k . dX has z exp(k . (X(T) - X(0))), whatever way X takes in between, and goes back again."""
    path = getattr(ls.interpolation, name)(TIMES, DATA)
    rise = DATA[:, -1] - DATA[:, 0]
    if name == "rectilinear":
        rise = torch.cat([torch.full((2, 1), 3.0, dtype=F64), rise], 1)
    k = torch.tensor([0.3, -0.2, 0.5, 0.4], dtype=F64)[: rise.shape[1]]
    problem = ls.CDE(lambda t, z: (z[0][:, None] * k, 1j * z[1][..., None] * k), path)
    z0 = (torch.ones(2, dtype=F64), torch.ones(2, 3, dtype=torch.complex128))
    there = ls.solve(problem, z0, t=path.span, **way)
    atol = 5e-2 if "steps" in way else 1e-3  # equal steps do not end at the knots
    assert torch.allclose(there.x_end[0], torch.exp(rise @ k), atol=atol)
    assert torch.allclose(there.x_end[1], torch.exp(1j * (rise @ k))[:, None].expand(2, 3), atol=atol)
    back = ls.solve(problem, there.x_end, t=path.span[::-1], **way)
    assert torch.allclose(back.x_end[0], z0[0], atol=2 * atol)


def test_a_path_of_lines_costs_no_rejected_step_at_its_corners() -> None:
    path = ls.interpolation.linear(TIMES, 20 * DATA)
    slope = ls.CDE(lambda t, z: torch.eye(3, dtype=F64).expand(len(z), 3, 3), path)
    run = ls.solve(slope, path(0.0), t=path.span, rtol=1e-10)
    assert torch.allclose(run.x_end, path(3.0), rtol=1e-12)
    assert run.stats.rejected.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("times", "data", "word"),
    [
        ([0.0, 1.0], DATA, "6 of them, two at least"),
        (TIMES.flip(0), DATA, "rising"),
        (TIMES, DATA[0], "B, n, C"),
        (TIMES, DATA / 0, "NaN or infinite"),
    ],
)
def test_data_that_make_no_path_are_refused(times, data, word: str) -> None:
    with pytest.raises(ls.ArgumentError, match=word):
        ls.interpolation.natural_cubic(times, data)
