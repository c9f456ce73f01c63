"""compile=True of an SDE: loops and chunks of equal steps are the steps, noise and all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import longstride as ls
from longstride.methods.sde import SCHEMES
from longstride.native.emit import Unsuited
from longstride.native.library import compiler
from longstride.sde import chunks
from sde_cases import CASES as ALL

F64 = torch.float64
CASES = [case for case in ALL if not SCHEMES[case[0]].pairs]


def problem(noise: str, sense: str = "ito", rate: Tensor | None = None) -> ls.SDE:
    """Two elements; of additive and general noise two motions."""
    k = torch.tensor([-0.5, -1.0], dtype=F64) if rate is None else rate
    columns = torch.tensor([[0.3, 0.1], [-0.2, 0.4]], dtype=F64)
    g = {
        "additive": lambda t, x: (1 + t) * columns.expand(len(x), 2, 2),
        "general": lambda t, x: columns * torch.cos(x)[..., None],
    }.get(noise, lambda t, x: 0.4 * torch.cos(x + t))
    return ls.SDE(lambda t, x: k * x + torch.sin(t), g, noise, sense)


def start(batch: int = 3) -> Tensor:
    return torch.linspace(0.5, 1.5, 2 * batch, dtype=F64).view(batch, 2)


def no_loop(*of: Any, **more: Any) -> Any:
    raise Unsuited


def turned(f: Any, turn: Any, at: Any, *fixed: Any, idle: bool) -> Any:
    """What a native loop does, by torch."""
    while bool(at[0].any()):
        at, seen = turn(at, *fixed)
    return at, seen


@pytest.mark.parametrize("loop", [no_loop, turned])
@pytest.mark.parametrize(("name", "noise", "sense"), CASES)
def test_they_are_the_steps(
    name: str, noise: str, sense: str, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left over of them, saved between them, and backward."""
    monkeypatch.setattr(chunks, "compiled", lambda function, *of: function)
    monkeypatch.setattr(chunks, "turned", loop)
    monkeypatch.setattr(chunks, "TURNS", 2)
    ways = [(0.0, 1.0)] + [(1.0, 0.0)] * (sense == "stratonovich" or noise == "additive")
    for t in ways:
        for steps in (3, 8, 13):
            save = [t[0] + (t[1] - t[0]) * n / steps for n in (0, 1, steps // 2 + 1, steps)]
            options = {"t": t, "steps": steps, "method": name, "save_at": save, "seed": 3}
            plain, chunked = (ls.solve(problem(noise, sense), start(), compile=c, **options) for c in (0, 1))
            torch.testing.assert_close(chunked.x, plain.x, rtol=1e-12, atol=1e-13)
            assert (chunked.stats.nfe, chunked.status) == (plain.stats.nfe, plain.status)


@pytest.mark.parametrize(
    ("name", "noise"), [("milstein", "diagonal"), ("sri1w1", "scalar"), ("heun", "general")]
)
def test_one_graph_serves_all_seeds_spans_and_parameters(
    name: str, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is differentiated: the gradient is that of the steps."""
    monkeypatch.setattr(chunks, "turned", no_loop)
    counter, sense = CompileCounter(), SCHEMES[name].interpretations[0]
    graph = torch.compile(chunks._chunk, backend=counter, fullgraph=True, dynamic=False)
    monkeypatch.setattr(chunks, "compiled", lambda function, *of: graph)
    for seed, end in ((0, 1.0), (5, 0.7)):
        rate = torch.tensor([-0.5, -seed], dtype=F64, requires_grad=True)
        found = []
        for compile in (False, True):
            sol = ls.solve(
                problem(noise, sense, rate), start(), t=(0.0, end), steps=9, method=name, seed=seed,
                compile=compile,
            )  # fmt: skip
            found.append((sol.x, torch.autograd.grad(sol.x.square().sum(), rate)[0]))
        for plain, chunked in zip(*found, strict=True):
            torch.testing.assert_close(chunked, plain, rtol=1e-11, atol=1e-13)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("name", "noise", "loop"),
    [
        ("euler_maruyama", "diagonal", False),  # a graph takes long: of the others the steps are seen above
        ("euler_maruyama", "diagonal", True),
        ("shark", "additive", True),
        ("milstein", "scalar", True),
        ("heun", "general", True),
        ("reversible_heun", "diagonal", True),
    ],
)
def test_compiled(name: str, noise: str, loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the compilers themselves, hashes and all; of a batch of one too."""
    if not loop:
        monkeypatch.setattr(chunks, "turned", no_loop)
    elif compiler() is None:
        pytest.skip("no C++ compiler")
    else:
        monkeypatch.setattr(chunks, "called", no_loop)
    for batch in (3, 1):
        plain, fast = (
            ls.solve(problem(noise, SCHEMES[name].interpretations[0]), start(batch), t=(0.0, 1.0), steps=9,
                     method=name, grad=False, compile=c) for c in (False, True)
        )  # fmt: skip
        torch.testing.assert_close(fast.x, plain.x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": None}, "equal steps"),
        ({"grad": "checkpoint"}, "equal steps"),
        ({"brownian": ls.Brownian((3, 2), (0.0, 1.0))}, "brownian"),
        ({"problem": problem("general"), "method": "milstein_levy"}, "areas"),
    ],
)
def test_what_is_not_compiled_is_refused(options: dict, message: str) -> None:
    asked = {"problem": problem("diagonal"), "x0": start(), "t": (0.0, 1.0), "dt": 0.1, **options}
    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(**asked, compile=True)


def test_what_does_not_become_a_graph_is_said() -> None:
    stop = ls.SDE(lambda t, x: -x if float(x.sum()) > 0 else x, lambda t, x: x)
    with pytest.raises(ls.ArgumentError, match="f or g does not become one graph"):
        ls.solve(stop, start(), t=(0.0, 1.0), steps=8, compile=True)
