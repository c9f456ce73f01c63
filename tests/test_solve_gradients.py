"""Gradients of solutions: against differences, against backpropagation, and what they remember."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import longstride as ls
from longstride.adaptive.carry import Limits
from longstride.adaptive.stepping import Loop
from longstride.control import I
from longstride.gradients.backsolve import Backsolve
from longstride.gradients.recorded import Tape
from longstride.gradients.reversible import REVERSIBLE, Reversible
from longstride.gradients.ways import Checkpoint
from longstride.methods.embedded import PAIRS

F64 = torch.float64


def leaf(*values: Any) -> Tensor:
    return torch.tensor(*values, dtype=F64, requires_grad=True)


class Case:
    """A scalar of all that a solution gives out, and the leaves that it depends on."""

    def __init__(self, t: tuple[float, float] = (0.1, 1.6), times: bool = False, **options: Any) -> None:
        self.x0, self.k = leaf([[0.4, 1.0], [1.5, -0.3]]), leaf(0.6)
        self.t = [leaf(s) for s in t] if times else list(t)
        self.options = {"rtol": 1e-6, "atol": 1e-6, **options}
        self.leaves = [self.x0, self.k, *(s for s in self.t if isinstance(s, Tensor))]

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.sin(3 * self.k.exp() * x.flip(1) / 3) * (1 + t.reshape(-1, 1))

    def loss(self, grad: Any) -> Tensor:
        run = ls.solve(ls.ODE(self.f), self.x0, t=self.t, grad=grad, **self.options)
        weights = torch.arange(1, len(run.x) + 1, dtype=F64)[:, None, None]
        parts = [(run.x.nan_to_num(0.0).square() * weights).sum()]  # NaN where an event came before
        if run.x_end is not None:
            parts += [run.x_end.sin().sum(), run.t_end.square().sum()]
        for n, seen in enumerate(run.events):
            parts += [(n + 1) * (seen.t * seen.t).sum(), seen.x.pow(3).sum()]
        return sum(parts)

    def gradients(self, grad: Any) -> list[Tensor]:
        return list(torch.autograd.grad(self.loss(grad), self.leaves))

    @torch.no_grad()
    def differences(self, step: float = 1e-5) -> list[Tensor]:
        out = []
        for v in self.leaves:
            g, flat = torch.zeros_like(v), v.view(-1)
            for i in range(v.numel()):
                ends = []
                for sign in (1, -1):
                    flat[i] += sign * step
                    ends.append(self.loss(False))
                    flat[i] -= sign * step
                g.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
            out.append(g)
        return out


def differ(found: list[Tensor], true: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, true, strict=True))


def crossings(case: Case, terminal: bool) -> list[ls.Event]:
    """Of the first component with a level that moves with k, and, to stop, of the second."""
    return [
        ls.Event(lambda t, x: x[:, 0] - 1.6 * case.k, terminal=False),
        ls.Event(lambda t, x: x[:, 1] - 1.5 - 0.1 * t, terminal=terminal),
    ]


SETTINGS: dict[str, dict[str, Any]] = {
    "end": {},
    "saved": {"save_at": [0.1, 0.3, 0.31, 1.2, 1.6]},
    "backward": {"t": (1.6, 0.1), "save_at": [1.4, 0.1]},
    "shared": {"shared_step": True, "save_at": [0.7, 1.6]},
    "jump": {"jump_times": [0.7, 1.1], "save_at": [0.7, 1.5]},
    "rejections": {"rtol": 1e-3, "atol": 1e-3, "first_step": 1.9},
    "PI": {"controller": ls.control.PI(), "save_at": [0.7]},
    "one step": {"rtol": 1e3, "first_step": 5.0},
}


def case_of(name: str, method: str) -> Case:
    if name in ("crossed", "stopped"):
        case = Case(method=method)
        case.options["events"] = crossings(case, name == "stopped")
        return case
    return Case(method=method, **SETTINGS[name])


@pytest.mark.parametrize("name", [*SETTINGS, "crossed", "stopped"])
@pytest.mark.parametrize("method", ["tsit5", "dopri8", "reversible_dopri5"])
def test_ways_through_the_same_steps_agree_to_round_off(name: str, method: str) -> None:
    case = case_of(name, method)
    true = case.gradients(True)
    ways = [Checkpoint(1 if name == "one step" else 4), "checkpoint"] + ["reverse"] * (method in REVERSIBLE)
    for way in ways:
        assert differ(case.gradients(way), true) < 1e-10, way


@pytest.mark.parametrize("name", ["saved", "backward", "shared", "crossed", "stopped"])
@pytest.mark.parametrize("way", [True, "adjoint"])
def test_gradients_agree_with_differences(name: str, way: Any) -> None:
    """By the state, a parameter of f and of an event, both ends; steps are too small to matter."""
    fine: dict[str, Any] = {"method": "dopri8", "rtol": 1e-10, "atol": 1e-10, "times": True}
    if name == "backward":
        case = Case(t=(1.6, 0.1), **fine)
    elif name in ("crossed", "stopped"):
        case = Case(**fine)
        case.options["events"] = crossings(case, name == "stopped")
    else:
        case = Case(**fine, save_at=[0.5, 1.1], shared_step=name == "shared")
    assert differ(case.gradients(way), case.differences()) < 1e-6


@pytest.mark.parametrize("way", [True, "checkpoint", "adjoint"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_saved_time_moves_its_state_along_the_flow(way: Any, shared: bool) -> None:
    """x' = -k x: the state saved at T falls with T as -k x(T), and nothing else hangs on T."""
    marks, k = leaf([0.3, 0.9, 2.0]), 1.7
    run = ls.solve(
        ls.ODE(lambda t, x: -k * x), torch.ones(2, 1, dtype=F64), t=(0, 2), save_at=marks, grad=way,
        rtol=1e-9, shared_step=shared,
    )  # fmt: skip
    (found,) = torch.autograd.grad(run.x.sum(), marks)
    assert torch.allclose(found, -2 * k * torch.exp(-k * marks.detach()), rtol=1e-6)


def test_the_adjoint_is_as_near_as_its_tolerances() -> None:
    """The run is all but exact; the way back follows rtol over four decades within one and a half."""
    case = Case(rtol=1e-11, atol=1e-11, save_at=[0.5, 1.6])
    true = case.gradients(True)
    errors = [differ(case.gradients(Backsolve(rtol=tol, atol=tol)), true) for tol in (1e-4, 1e-8)]
    assert 2.5 < math.log10(errors[0] / errors[1]) < 5.5
    assert errors[1] < 1e-6


def test_the_adjoint_goes_back_over_jumps_and_from_every_sample_that_stopped_elsewhere() -> None:
    """x' = a before 0.5, b after: each sample's end at 1 knows half of each."""
    a, b = leaf(1.0), leaf(3.0)
    f = lambda t, x: torch.where(t < 0.5, a, b)[:, None] * torch.ones_like(x)  # noqa: E731
    run = ls.solve(
        ls.ODE(f), torch.zeros(3, 1, dtype=F64), t=(0, 1), jump_times=[0.5], grad="adjoint",
        events=[ls.Event(lambda t, x: t - torch.tensor([0.25, 0.75, 2.0], dtype=F64))],
    )  # fmt: skip
    assert run.status == ("event", "event", "reached")
    rows = [torch.autograd.grad(x, (a, b), retain_graph=True) for x in run.x_end[:, 0]]
    exact = [(0.25, 0.0), (0.5, 0.25), (0.5, 0.5)]
    assert torch.allclose(torch.tensor(rows, dtype=F64), torch.tensor(exact, dtype=F64), atol=1e-10)


class Late(nn.Module):
    """Uses a second parameter from t = 0.5 on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(leaf(0.5).detach()), nn.Parameter(leaf(2.0).detach())

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * x if float(t.max()) < 0.5 else self.b * x


@pytest.mark.parametrize("way", ["checkpoint", "adjoint"])
def test_a_leaf_that_f_uses_late_is_found_or_asked_for(way: Any) -> None:
    net, x0 = Late(), torch.ones(1, 1, dtype=F64)
    for f, jumps in ((net, ()), (lambda t, x: net(t, x), (0.5,))):
        end = ls.solve(ls.ODE(f), x0, t=(0, 1), jump_times=jumps, grad=way, rtol=1e-9).x.sum()
        for found in torch.autograd.grad(end, (net.a, net.b)):
            assert abs(found - 0.5 * math.exp(0.25 + 1.0)) < 1e-5
    end = ls.solve(ls.ODE(lambda t, x: net(t, x)), x0, t=(0, 1), grad=way, rtol=1e-9).x.sum()
    with pytest.raises(ls.SolveError, match=r"nn\.Module"):
        end.backward()


@pytest.mark.parametrize("way", [True, "checkpoint", "reverse"])
def test_a_sample_that_fails_leaves_the_gradients_of_the_others(way: Any) -> None:
    """x' = -sqrt(x) ends at x = 0 in steps that all fail; the others are (sqrt(x0) - t/2)^2."""
    x0 = leaf([[4.0], [0.25], [9.0]])
    run = ls.solve(ls.ODE(lambda t, x: -x.sqrt()), x0, t=(0, 2), rtol=1e-8, grad=way)
    assert run.status[0] == run.status[2] == "reached"
    assert run.status[1] != "reached"
    (found,) = torch.autograd.grad(run.x[-1, [0, 2]].sum(), x0)
    exact = 1 - 1 / x0.detach().sqrt()
    assert torch.allclose(found[[0, 2]], exact[[0, 2]], rtol=1e-5)
    assert found[1] == 0


# What is remembered


def packed(run: Any) -> int:
    """Elements that autograd saves in a run."""
    count = 0

    def pack(v: Tensor) -> Tensor:
        nonlocal count
        count += v.numel()
        return v.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda v: v):
        run()
    return count


def test_what_is_saved_grows_as_promised() -> None:
    """Over 16 times the steps: backpropagation 16 times as much, checkpoints 4 times, the others no more."""
    x0 = leaf(torch.linspace(1, 2, 50, dtype=F64)[:, None].tolist())

    def saved(way: Any, steps: int) -> int:
        method = "reversible_tsit5" if way == "reverse" else "tsit5"
        options = {"first_step": 1 / steps, "max_step": 1 / steps, "rtol": 1e3, "method": method}
        return packed(lambda: ls.solve(ls.ODE(lambda t, x: torch.sin(x)), x0, t=(0, 1), grad=way, **options))

    assert saved(True, 256) > 14 * saved(True, 16)
    state = mask = 50  # who reached the end is a mask of its own
    assert saved("checkpoint", 256) <= 2 * state * 2 * 16 + mask
    assert saved(Checkpoint(5), 256) <= 2 * state * 5 + mask
    assert saved("reverse", 256) == saved("reverse", 16) == 4 * state + mask
    assert saved("adjoint", 256) == saved("adjoint", 16) == state + mask


@pytest.mark.parametrize("memory", [1, 2, 5, None])
def test_states_held_on_the_way_are_even_and_few(memory: int | None) -> None:
    one = torch.ones((), dtype=F64)
    stepper = Reversible(
        PAIRS["bosh3"], lambda t, x: -x, torch.ones(1, 1, dtype=F64), 1.0, False, False, one, one
    )
    loop = Loop(stepper, I(), Limits(first_step=0.01, max_step=0.01), (0.0, 1.0), (), (), ())
    tape = Tape(loop, memory)
    loop.run(torch.ones(1, 1, dtype=F64), "bosh3")
    held = sorted(tape.held)
    assert len(tape) == 100
    assert len(held) <= (memory or 20)
    assert {b - a for a, b in pairwise(held)} <= {tape.every}
    assert memory == 1 or len(held) >= (memory or 20) / 2


# Reversible steps


@pytest.mark.parametrize("name", list(REVERSIBLE))
def test_reversible_steps_have_the_order_of_the_pair(name: str) -> None:
    """Equal steps on x' = cos(t) x^2."""
    x0, order = torch.tensor([[0.5]], dtype=F64), REVERSIBLE[name].order
    exact, errors = 0.5 / (1 - 0.5 * math.sin(2)), []
    h = {2: 0.02, 3: 0.02, 5: 0.1, 7: 0.25, 8: 0.25, 9: 0.25}[order]  # 7: 0.2 ten times is not 2
    for step in (h, h / 2):
        fixed = {"first_step": step, "max_step": step, "rtol": 1e3}
        run = ls.solve(ls.ODE(lambda t, x: torch.cos(t)[:, None] * x * x), x0, t=(0, 2), method=name, **fixed)
        errors.append(abs(float(run.x[-1]) - exact))
    assert math.log2(errors[0] / errors[1]) > order - 0.3


def test_reversible_steps_cost_two_of_the_pair_and_are_counted() -> None:
    calls = 0

    def f(t: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cos(9 * t)[:, None] * x

    run = ls.solve(
        ls.ODE(f), torch.ones(1, 2, dtype=F64), t=(0, 2), method="reversible_tsit5", jump_times=[1.0]
    )
    assert run.stats.nfe == calls == 3 + 12 * run.stats.steps
    assert torch.allclose(run.x[-1], torch.full((1, 2), math.exp(math.sin(18) / 9), dtype=F64), rtol=1e-5)


# Events


def test_a_bouncing_ball_knows_when_it_lands_again() -> None:
    """From height h it lands at T = sqrt(2h/g) with v = g T, and again 2 e v/g later: T (1 + 2 e)."""
    h, g, e = leaf(5.0), leaf(9.81), leaf(0.8)
    ball = ls.ODE(lambda t, x: torch.stack([x[:, 1], -g * torch.ones_like(x[:, 1])], 1))
    ground = ls.Event(lambda t, x: x[:, 0], direction=-1)
    down = ls.solve(ball, torch.stack([h, 0 * h])[None], t=(0.0, 9.0), events=[ground])
    x0 = torch.stack([0 * h + 1e-12, -e * down.x_end[0, 1]])[None]
    again = ls.solve(ball, x0, t=(down.t_end[0], 9.0), events=[ground])
    T = math.sqrt(2 * 5 / 9.81)
    assert abs(again.t_end[0] - T * 2.6) < 1e-9
    found = torch.autograd.grad(again.t_end[0], (h, g, e))
    assert torch.allclose(
        torch.stack(found), torch.tensor([2.6 * T / 10, -2.6 * T / 19.62, 2 * T], dtype=F64)
    )


@pytest.mark.parametrize("way", [True, "checkpoint", "adjoint", "reverse"])
def test_crossings_of_a_shared_step_are_each_samples_own(way: Any) -> None:
    """x = a e^t passes 2 at log(2/a), dt/da = -1/a and dt/d(level) = 1/2; the state there is the level."""
    a, level = leaf([[0.25], [0.5], [1.0]]), leaf(2.0)
    event = ls.Event(lambda t, x: x[:, 0] - level, terminal=False)
    run = ls.solve(
        ls.ODE(lambda t, x: x), a, t=(0, 3), rtol=1e-10, shared_step=True, events=[event], grad=way
    )
    order = run.events[0].sample.argsort()
    assert torch.allclose(run.events[0].t[order], torch.log(2 / a[:, 0]), atol=1e-8)
    by_a, by_level = torch.autograd.grad(run.events[0].t.sum(), (a, level), retain_graph=True)
    assert torch.allclose(by_a, -1 / a, rtol=1e-6)
    assert abs(by_level - 1.5) < 1e-8
    by_a, by_level = torch.autograd.grad(run.events[0].x.sum(), (a, level))
    assert abs(by_level - 3) < 1e-6
    assert by_a.abs().max() < 1e-6


# Planned runs


@pytest.mark.parametrize(
    ("method", "way"), [("rk4", "checkpoint"), ("etdrk4", Checkpoint(2)), ("bdia", "reverse")]
)
def test_planned_steps_agree_to_round_off(method: str, way: Any) -> None:
    x0, k = leaf([[0.4, 1.0], [1.5, -0.3]]), leaf(0.7)
    ends = [leaf(0.0), leaf(1.0)]
    problem = ls.ODE(lambda t, x: torch.sin(k * x.flip(1)) + t, L=-0.5)
    found = []
    for grad in (True, way):
        run = ls.solve(problem, x0, t=ends, save_at=[0.5, ends[1]], steps=9, method=method, grad=grad)
        found.append(list(torch.autograd.grad(run.x.pow(3).sum(), (x0, k, *ends))))
    assert differ(found[1], found[0]) < 1e-9


def test_the_adjoint_of_a_planned_run_is_that_of_the_equation() -> None:
    """The difference to backpropagation falls with the steps, at the order of rk4."""
    errors = []
    for steps in (5, 10):
        case = Case(steps=steps, method="rk4", save_at=[0.5, 1.5])
        case.options = {k: v for k, v in case.options.items() if k not in ("rtol", "atol")}
        errors.append(differ(case.gradients("adjoint"), case.gradients(True)))
    assert math.log2(errors[0] / errors[1]) > 3.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grad": "backwards"}, "unknown way of differentiating"),
        ({"grad": "reverse", "method": "tsit5"}, "cannot be undone: take one of reversible_"),
        ({"grad": "reverse", "method": "rk4", "steps": 3}, "cannot be undone"),
        ({"grad": "adjoint", "regularize": "error"}, "local"),
        ({"regularize": "errors"}, "unknown penalty"),
        ({"regularize": "stiffness", "method": "bosh3"}, "two stages"),
        ({"shared_step": True, "events": [ls.Event(lambda t, x: x[:, 0])]}, "one by one"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, message: str) -> None:
    def f(t: Tensor, x: Tensor) -> Tensor:
        raise AssertionError("f was called")

    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(ls.ODE(f), leaf([[1.0], [2.0]]), **{"t": (0, 1), **arguments})


@pytest.mark.parametrize("make", [lambda: Backsolve(method="rk4"), lambda: Backsolve(rtol=0.0)])
def test_a_way_back_that_is_none_is_refused(make: Any) -> None:
    with pytest.raises(ls.ArgumentError):
        make()


def test_nothing_to_differentiate_is_a_plain_run() -> None:
    f, x0 = ls.ODE(lambda t, x: -x), torch.ones(2, 1, dtype=F64)
    plain = ls.solve(f, x0, t=(0, 1))
    for way in ("checkpoint", "adjoint", False):
        run = ls.solve(f, x0, t=(0, 1), grad=way)
        assert torch.equal(run.x, plain.x)
        assert not run.x.requires_grad
        assert run.stats.nfe == plain.stats.nfe


@pytest.mark.parametrize("name", ["rodas5p", "rodas4"])
@pytest.mark.parametrize(
    "options", [{}, {"jump_times": (0.7,), "save_at": [0.5, 1.6]}, {"shared_step": True}, {"t": (1.6, 0.1)}]
)
def test_rosenbrock_steps_made_again_have_the_gradient_of_the_run(name: str, options: dict) -> None:
    """They keep df/dx and df/dt alone, which belong to where a step begins."""
    direct, again = Case(method=name, **options), Case(method=name, **options)
    values = direct.loss(True), again.loss("checkpoint")
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-14)
    pairs = (torch.autograd.grad(v, case.leaves) for v, case in zip(values, (direct, again), strict=True))
    for one, other in zip(*pairs, strict=True):
        assert (one - other).abs().max() <= 1e-11 * one.abs().max()


@pytest.mark.parametrize("name", ["kvaerno5", "radau5", "bdf", "adams", "auto"])
def test_steps_that_remember_more_are_not_made_again(name: str) -> None:
    with pytest.raises(ls.ArgumentError, match="cannot be made again"):
        Case(method=name).loss("checkpoint")
