"""compile="solver": steps around an f that is called as it is are the steps of the loop."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.error_policy import ErrorPolicy, Gains
from longstride.native import around
from longstride.native.library import compiler

F64 = torch.float64
pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def starts(n: int = 5, dtype: torch.dtype = F64) -> Tensor:
    return 1 + torch.randn(n, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))


def both(f, x0, **options) -> tuple[ls.Solution, ls.Solution]:
    return tuple(  # type: ignore[return-value]
        ls.solve(ls.ODE(f), deepcopy(x0), compile=c, grad=False, **{"t": (0, 2), **options})
        for c in (False, "solver")
    )


def agree(f, x0: Tensor, tolerance: float = 1e-9, **options) -> ls.Solution:
    """The run around f, after it was found to be the plain one, step by step."""
    plain, found = both(f, x0, **options)
    assert found.status == plain.status
    for name in ("nfe_each", "accepted", "rejected"):
        assert torch.equal(getattr(found.stats, name), getattr(plain.stats, name))
    assert torch.allclose(found.x, plain.x, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert torch.allclose(found.t_end, plain.t_end, rtol=1e-6)
    for seen, before in zip(found.events, plain.events, strict=True):
        assert torch.allclose(seen.t.sort()[0], before.t.sort()[0], rtol=1e-9)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "dopri5", "save_at": [0.0, 0.1, 0.11, 0.12, 1.9, 2.0], "controller": ls.control.I()},
        {"method": "dopri8", "save_at": [0.1, 0.7], "controller": ls.control.Predictive()},
        {"method": "bosh3", "rtol": 1e-4, "atol": torch.tensor([1e-6, 1e-5, 1e-6], dtype=F64)},
        {"method": "vern7", "controller": ls.control.PID(), "max_step": 0.02},
        {"jump_times": [0.5, 1.1]},
        {"max_steps": 50},
        {"nfe": 200},
        {
            "events": [
                ls.Event(lambda t, x: x[:, 0] + 5.0, terminal=True),
                ls.Event(lambda t, x: x[:, 2] - 20.0),
            ]
        },
    ],
)
def test_steps_around_f_are_those_of_the_loop(options: dict) -> None:
    agree(lorenz, starts(), **options)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 290])
def test_any_number_of_samples(n: int) -> None:
    """One recording serves them all: lanes that no sample is in change nothing."""
    agree(lorenz, starts(n))


def test_other_shapes_and_precisions() -> None:
    def rotation(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([-x[:, 1], x[:, 0]], 1) * (1 + t.view(-1, 1, 1))

    agree(rotation, torch.randn(6, 2, 3, dtype=F64), t=(1.0, -2.0))
    plain, found = both(lorenz, starts(dtype=torch.float32), t=(0, 0.5), rtol=1e-3)
    assert found.x.dtype == torch.float32
    assert torch.allclose(found.x, plain.x, rtol=1e-2, atol=0.1)  # steps may differ: 1e-3, and as much again
    x0 = {"q": torch.randn(4, 2, dtype=F64), "p": torch.randn(4, 2, dtype=F64)}
    plain, found = both(lambda t, x: {"q": x["p"], "p": -x["q"]}, x0)
    assert torch.allclose(found.x["q"], plain.x["q"], rtol=1e-12, atol=1e-12)


def test_f_may_be_anything_that_answers() -> None:
    """A branch on numbers, numpy, an answer that is its argument or lies otherwise in memory."""

    def branches(t: Tensor, x: Tensor) -> Tensor:
        return -x if float(x.mean()) > 0.5 else torch.from_numpy(-np.sin(x.numpy()))

    agree(branches, starts())
    agree(lambda t, x: x, starts())
    agree(lambda t, x: (-x.t().contiguous()).t(), starts())


@pytest.mark.parametrize(
    "kept", [lambda t, x: x, lambda t, x: x[:, 1], lambda t, x: x.numpy(), lambda t, x: t]
)
def test_what_f_keeps_stays_as_it_was(kept) -> None:
    """Memory is used again only where nobody holds it."""
    held, copies = [], []

    def f(t: Tensor, x: Tensor) -> Tensor:
        held.append(kept(t, x))
        copies.append(torch.as_tensor(held[-1]).clone())
        return -x * x.sin()

    ls.solve(ls.ODE(f), starts(), t=(0, 2), compile="solver", grad=False)
    assert all(torch.equal(torch.as_tensor(a), b) for a, b in zip(held, copies, strict=True))


def with_gradient(t: Tensor, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x.requires_grad_().square().sum().backward()
    assert x.grad is not None
    return -x.grad / 2


def in_place(t: Tensor, x: Tensor) -> Tensor:
    return -x * t.unsqueeze_(-1)


def marked(t: Tensor, x: Tensor) -> Tensor:
    x.seen = getattr(x, "seen", 0) + 1  # type: ignore[attr-defined]
    return -x * x.seen  # type: ignore[attr-defined]


@pytest.mark.parametrize("f", [with_gradient, in_place, marked])
def test_what_f_makes_of_its_arguments_does_not_come_back(f) -> None:
    agree(f, starts())


@pytest.mark.parametrize("method", ["tsit5", "vern7", "dopri8", "vern9"])
def test_f_may_answer_in_memory_of_its_own(method: str) -> None:
    """Each answer is read before f is asked again, be its first weight 0 for some stages."""
    memory = torch.empty(5, 3, dtype=F64)

    def f(t: Tensor, x: Tensor) -> Tensor:
        return memory.copy_(lorenz(t, x))

    plain, found = both(lorenz, starts(), method=method)[0], both(f, starts(), method=method)
    for run in found:
        assert torch.equal(run.stats.nfe_each, plain.stats.nfe_each)
        assert torch.allclose(run.x, plain.x, rtol=1e-7, atol=1e-7)  # round-off, grown


def test_nothing_is_recorded_that_may_change() -> None:
    """A number that an event closes over, the gains of a policy, tolerances of one sample."""
    level = [0.25]
    event = ls.Event(lambda t, x: x[:, 0] - level[0] * torch.tensor(1.0, dtype=F64))
    for value in (0.25, 0.5):
        level[0] = value
        run = both(lambda t, x: -x, torch.ones(3, 1, dtype=F64), events=[event])[1]
        assert torch.allclose(run.t_end, -torch.tensor(value, dtype=F64).log(), rtol=1e-6)
    for gains in ((0.85, -0.2, 0.9), (0.3, -0.05, 0.9)):
        agree(lorenz, starts(), controller=Gains(torch.tensor(gains)))
    agree(lorenz, starts(), controller=ErrorPolicy())
    for tolerance in (1e-6, torch.tensor([1e-9, 1e-9, 1e-2], dtype=F64), torch.full((3,), 1e-6, dtype=F64)):
        agree(lorenz, starts(1), rtol=tolerance, atol=tolerance)


class Short:
    """A controller whose history is of no sample."""

    def start(self, ones: Tensor) -> tuple[Tensor, ...]:
        return (torch.zeros(1, dtype=F64),)

    def control(self, ratio: Tensor, history: tuple, power: float) -> tuple:
        return (*ls.control.I().control(ratio, (), power)[:2], history)


def test_memory_is_made_once_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = around.Room.__init__
    monkeypatch.setattr(around.Room, "__init__", lambda self, *given: made.append(plain(self, *given)))
    run = ls.solve(ls.ODE(lorenz), starts(), t=(0, 2), compile="solver", grad=False)
    assert run.stats.steps > 10
    assert len(made) == 1


def test_samples_shared_among_threads_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = ls.solve(ls.ODE(lorenz), starts(100), t=(0, 2), compile="solver", grad=False)
    monkeypatch.setattr(around, "SHARE", 16)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        several = ls.solve(ls.ODE(lorenz), starts(100), t=(0, 2), compile="solver", grad=False)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.x, several.x)


def test_one_that_fails_stops_no_other() -> None:
    def pole(t: Tensor, x: Tensor) -> Tensor:
        return torch.where(x > 3, torch.nan, x * x)

    x0 = torch.tensor([[0.1], [1.0], [0.2]], dtype=F64)
    run = both(pole, x0, t=(0, 1.5), atol=1e-6, rtol=1e-3)[1]
    assert run.status[0] == run.status[2] == "reached"
    assert torch.allclose(run.x[-1, ::2], x0[::2] / (1 - 1.5 * x0[::2]), rtol=1e-2)
    assert run.status[1] in ("step_underflow", "non_finite")


def test_watch_sees_every_step() -> None:
    seen = []
    run = ls.solve(
        ls.ODE(lorenz),
        starts(1),
        t=(0, 0.5),
        compile="solver",
        grad=False,
        watch=lambda t, x, h: seen.append(float(t)),
    )
    assert len(seen) >= int(run.stats.accepted)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "rodas5p"}, "explicit pairs"),
        ({"shared_step": True}, "steps of its own"),
        ({"x0": torch.ones(3, 40, dtype=F64)}, "up to 32"),
        ({"x0": torch.ones(3, 2, dtype=torch.complex128)}, "real states"),
        ({"dense": True}, "look at each step"),
        ({"dt": 0.1}, "chosen steps"),
        ({"compile": "f"}, "'solver'"),
        ({"controller": Short()}, "not of each sample"),
        ({"events": [ls.Event(lambda t, x: x[:, 0] - 2 / len(x))]}, "counts the samples"),
        ({"events": [ls.Event(lambda t, x: x.cumsum(1)[:, 0])]}, "no function of tensors"),
        ({"x0": torch.ones(3, 2, dtype=torch.bfloat16)}, "real states"),
        ({"method": "reversible_tsit5"}, "explicit pairs"),
        (
            {"events": [ls.Event(lambda t, x: x[:, 0] if float(x[0, 0]) > 0 else x[:, 1])]},
            "no function of tensors",
        ),
    ],
)
def test_what_it_does_not_know_is_refused(change: dict, message: str) -> None:
    asked = {"x0": starts(), "t": (0, 1), "compile": "solver", "grad": False, **change}
    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(ls.ODE(lambda t, x: -x), **asked)


def test_a_gradient_is_refused_and_a_bad_answer_named() -> None:
    with pytest.raises(ls.ArgumentError, match="grad=False"):
        ls.solve(ls.ODE(lorenz), starts().requires_grad_(), t=(0, 1), compile="solver")
    answers = iter([torch.zeros(5, 3, dtype=F64)] * 4)
    with pytest.raises(ls.SolveError, match=r"tsit5, t = .*float32"):
        ls.solve(
            ls.ODE(lambda t, x: next(answers, torch.zeros(5, 3))),
            starts(),
            t=(0, 1),
            compile="solver",
            grad=False,
        )
