"""compile=True: chunks of masked steps do what the loop does, sample by sample, and become one graph."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import longstride as ls
from longstride.adaptive import chunks, graphs

F64 = torch.float64


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def starts(n: int = 5) -> Tensor:
    return 1 + torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(0))


def rounded(messages: tuple[str, ...]) -> list[str]:
    """The same words, numbers as exact as two runs agree on them."""
    return [re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.5g}", message) for message in messages]


def agree(f, x0: Tensor, **options) -> ls.Solution:
    """The chunked run, after it was found to be the plain one."""
    options = {"t": (0, 2), **options}
    plain, chunked = (ls.solve(ls.ODE(f), x0, compile=c, **options) for c in (False, True))
    assert chunked.status == plain.status
    assert rounded(chunked.message) == rounded(plain.message)
    for name in ("nfe_each", "accepted", "rejected"):
        assert torch.equal(getattr(chunked.stats, name), getattr(plain.stats, name))
    assert torch.allclose(chunked.x, plain.x, rtol=1e-9, atol=1e-10, equal_nan=True)
    # Where a run stops early depends on its steps, and those on an estimate of 1e-9 made of terms of order 1:
    # its round-off is 1e-7 of it, a fifth to an eighth of that gets into a step, and so into the next ones;
    # and some states move by a hundred in a unit of time.
    finite = [status not in ("step_underflow", "non_finite") for status in plain.status]
    assert torch.allclose(chunked.x_end[finite], plain.x_end[finite], rtol=1e-6, atol=1e-4)
    assert torch.allclose(chunked.t_end, plain.t_end, rtol=1e-6)
    for seen, before in zip(chunked.events, plain.events, strict=True):
        assert len(seen.t) == len(before.t)
        assert torch.allclose(seen.t.sort()[0], before.t.sort()[0], rtol=1e-9)
    return chunked


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "dopri5", "save_at": [0.0, 0.1, 0.11, 0.12, 1.9, 2.0]},
        {"method": "dopri8", "save_at": [0.1, 0.7]},
        {"method": "bosh3", "rtol": 1e-4, "atol": torch.tensor([1e-6, 1e-5, 1e-6], dtype=F64)},
        {"shared_step": True, "save_at": [0.3, 2.0]},
        {"controller": ls.control.PI()},
        {"controller": ls.control.PID(), "max_step": 0.02},
        {"jump_times": [0.5, 1.1]},
        {"max_steps": 50},
        {"nfe": 200},
        {"nfe": 203, "method": "dopri8", "save_at": [0.1, 0.2, 0.3]},
        {"nfe": 101, "jump_times": [0.1, 0.2, 0.21]},
    ],
)
def test_chunks_do_what_the_loop_does(options: dict) -> None:
    run = agree(lorenz, starts(), **options)
    assert options.get("shared_step") or len(set(run.stats.accepted.tolist())) > 1 or "nfe" in options


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("method", ["hermite", "hermite_aarseth", "hermite_collision"])
@pytest.mark.parametrize(
    "options", [{"save_at": [0.3, 2.0]}, {"nfe": 40}, {"shared_step": True, "t": (2, 0)}]
)
def test_bodies_do_too(method: str, options: dict) -> None:
    bodies = ls.nbody.Gravity(torch.ones(3, dtype=F64))
    x0 = bodies.start(*ls.nbody.three_stars_at(4, seed=0))
    options = {"t": (0, 2), "method": method, "rtol": 0.01, "grad": False, **options}
    plain, chunked = (ls.solve(bodies.problem(), x0, compile=c, **options) for c in (False, True))
    assert chunked.status == plain.status
    for name in ("nfe_each", "accepted", "rejected"):
        assert torch.equal(getattr(chunked.stats, name), getattr(plain.stats, name))
    assert torch.allclose(chunked.x, plain.x, rtol=1e-12, atol=1e-13, equal_nan=True)
    assert torch.allclose(chunked.x_end, plain.x_end, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("uncompiled")
def test_events_are_located_and_end_samples_alone() -> None:
    events = [ls.Event(lambda t, x: x[:, 0], terminal=False), ls.Event(lambda t, x: x[:, 2] - 40)]
    run = agree(lorenz, starts(), events=events, save_at=[0.1, 0.5, 2.0])
    assert "event" in run.status


@pytest.mark.usefixtures("uncompiled")
def test_failures_are_those_of_the_loop() -> None:
    """x' = x^2 ends at 1/x0; sample 2 starts at NaN; x' = 1 then 1000 rejects many steps."""
    x0 = torch.tensor([[0.5], [2.0], [math.nan], [-1.0]], dtype=F64)
    run = agree(lambda t, x: x * x, x0, t=(0, 1), save_at=[0.25, 1.0], rtol=1e-5)
    assert run.status[0] == run.status[3] == "reached"
    assert run.status[2] == "non_finite"
    jump = lambda t, x: torch.where(t < 0.3, 1.0, 1000.0)[:, None].to(x)  # noqa: E731
    assert agree(jump, x0[:1], t=(0, 1)).stats.rejected[0] > 0
    assert agree(jump, x0[:1], t=(0, 1), min_step=1e-3).status == ("step_underflow",)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("shape", [(2, 12), (2, 3, 2), (3,)])
def test_states_of_any_shape_and_both_directions(shape: tuple[int, ...]) -> None:
    x0 = torch.linspace(0.2, 2, math.prod(shape), dtype=F64).view(shape)
    f = lambda t, x: torch.cos(3 * t).view(-1, *(1,) * (x.ndim - 1)) * x.sin()  # noqa: E731
    run = agree(f, x0, t=(2, -1), save_at=[1.5, -1.0])
    back = agree(f, run.x[-1], t=(-1, 2))
    assert torch.allclose(back.x[-1], x0, rtol=1e-4)


def test_one_graph_serves_spans_tolerances_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Really compiled: a second run, elsewhere and finer, with the parameter changed, makes no new graph."""
    monkeypatch.setattr(graphs, "STEPS", 1)
    torch._dynamo.reset()
    counters.clear()
    rate = torch.tensor([0.5, 1.0, 3.0], dtype=F64)
    f = lambda t, x: torch.stack([x[:, 1], -rate * torch.sin(x[:, 0])], 1)  # noqa: E731
    x0 = torch.tensor([[0.1, 0.0], [1.0, 0.0], [2.9, 0.0]], dtype=F64)
    run = agree(f, x0, t=(0, 3), method="bosh3", rtol=1e-4)
    assert run.stats.rejected.sum() > 0
    rate.mul_(2)
    agree(f, x0, t=(1, 2), method="bosh3", rtol=1e-5)
    assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (1, 0)


def test_what_cannot_be_compiled_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch of f on what x is breaks the graph; gradients and every step's output are refused."""
    stop = lambda t, x: -x if x.sum() > 0 else x  # noqa: E731
    with pytest.raises(ls.ArgumentError, match="does not become one graph"):
        ls.solve(ls.ODE(stop), starts(), t=(0, 1), compile=True)
    with pytest.raises(ls.ArgumentError, match="backpropagate"):
        ls.solve(ls.ODE(lorenz), starts().requires_grad_(), t=(0, 1), compile=True)
    with pytest.raises(ls.ArgumentError, match="look at each step"):
        ls.solve(ls.ODE(lorenz), starts(), t=(0, 1), save_at="steps", compile=True)
    pair = torch.ones(2, 1, dtype=F64), torch.ones(2, 1, dtype=F64)
    with pytest.raises(ls.ArgumentError, match="knows its jerk"):
        ls.solve(ls.Newton(lambda t, x: -x), pair, t=(0, 1), method="hermite", compile=True)
    monkeypatch.setattr(chunks, "compiled", lambda *given, **options: chunks._chunk)
    with torch.no_grad():
        ls.solve(ls.ODE(lorenz), starts().requires_grad_(), t=(0, 0.1), compile=True)
