"""compile="solver": steps around an f that is called as it is are the steps of the loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
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
        ls.solve(ls.ODE(f), x0, compile=c, grad=False, **{"t": (0, 2), **options}) for c in (False, "solver")
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
