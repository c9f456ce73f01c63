"""Gradients through a sampler: against differences, against backpropagation, and what they remember."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import longstride as ls
from longstride.gradients import ways as gradients
from longstride.gradients.recall import recall
from longstride.gradients.transpose import Chain
from longstride.gradients.ways import Adjoint, Checkpoint
from longstride.methods import REGISTRY
from longstride.models import mixture

F64 = torch.float64
EDM, VP, FLOW = ls.process.EDM(), ls.process.VP(), ls.process.Flow()


class Net(nn.Module):
    """A data prediction between -1 and 1 with a few parameters, conditioned by y."""

    def __init__(self) -> None:
        super().__init__()
        draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=F64)
        self.a, self.b = nn.Parameter(0.5 * draw(3, 3)), nn.Parameter(0.5 * draw(3))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(x @ self.a / (1 + t[:, None]) + self.b + y)


def network(process: ls.process.Process) -> ls.Denoiser:
    return ls.Denoiser(Net(), process, shape=(3,), null={"y": torch.zeros(3, dtype=F64)})


class Case:
    """A scalar of samples, and all that it depends on: noise, condition, guidance, parameters, weights."""

    def __init__(self, plan: ls.Plan, process: ls.process.Process, weights: bool = True):
        self.model, self.raw = network(process), torch.linspace(-1, 1, 6, dtype=F64).reshape(2, 3)
        self.x = ls.prior(self.model, 2, dtype=F64)
        self.w = torch.tensor(1.7, dtype=F64)
        loose = list[Tensor]()

        def loosen(w: Any) -> Any:
            loose.append(torch.tensor(w, dtype=F64))
            return loose[-1]

        self.plan = plan.mapped(loosen) if weights else plan
        self.leaves = [self.x, self.raw, self.w, *loose, *self.model.net.parameters()]
        for leaf in self.leaves:
            leaf.requires_grad_()

    def loss(self, grad: Any) -> Tensor:
        y = torch.tanh(self.raw)  # not a leaf: gradients must reach what it was made from
        out = ls.sample(
            self.model, x_init=self.x, plan=self.plan, cond={"y": y}, guidance=self.w, seed=3, grad=grad
        )
        return (out.square() + out.sin()).sum()

    def gradients(self, grad: Any) -> list[Tensor]:
        found = torch.autograd.grad(self.loss(grad), self.leaves, allow_unused=True)
        return [torch.zeros_like(v) if g is None else g for g, v in zip(found, self.leaves, strict=True)]


def differ(found: list[Tensor], true: list[Tensor]) -> float:
    """The largest difference of a gradient, relative to its norm."""
    pairs = ((a, b) for a, b in zip(found, true, strict=True) if b.norm() > 0)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def differences(case: Case, step: float = 1e-5) -> list[Tensor]:
    """Central differences of the loss by each entry of each leaf."""
    out = []
    with torch.no_grad():
        for leaf in case.leaves:
            g = torch.zeros_like(leaf)
            for i in range(leaf.numel()):
                ends = []
                for sign in (1, -1):
                    leaf.view(-1)[i] += sign * step
                    ends.append(case.loss(False))
                    leaf.view(-1)[i] -= sign * step
                g.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
            out.append(g)
    return out


@pytest.mark.parametrize("grad", [True, "checkpoint", "reverse"])
def test_gradients_agree_with_differences(grad: Any) -> None:
    """By x, condition, guidance, every weight of the plan, and parameters; error of the differences 1e-8."""
    case = Case(ls.plan_sampling(VP, "bdia", 5), VP)
    assert differ(case.gradients(grad), differences(case)) < 1e-6


@pytest.mark.parametrize("process", [EDM, VP, FLOW])
@pytest.mark.parametrize(
    ("method", "options"),
    [("dpmpp_2m", {}), ("unipc_3", {}), ("heun", {}), ("sa_solver_2", {}), ("dpmpp_sde", {}), ("bdia", {})],
)
@pytest.mark.parametrize("memory", [1, 3, None, 50])
def test_checkpointed_gradients_are_those_of_backpropagation(
    process: Any, method: str, options: dict, memory: int | None
) -> None:
    case = Case(ls.plan_sampling(process, method, 9, **options), process)
    assert differ(case.gradients(Checkpoint(memory)), case.gradients(True)) < 1e-13


@pytest.mark.parametrize("process", [EDM, VP])
@pytest.mark.parametrize("nfe", [1, 2, 20, 100])
@pytest.mark.parametrize("method", [name for name, entry in REGISTRY.items() if entry.kind == "reversible"])
def test_reversed_gradients_are_those_of_backpropagation(process: Any, nfe: int, method: str) -> None:
    case = Case(ls.plan_sampling(process, method, nfe), process)
    assert differ(case.gradients("reverse"), case.gradients(True)) < 1e-9


def test_any_leaf_that_a_network_uses_has_its_gradient() -> None:
    """No parameter and no argument: a function that closes over a tensor."""
    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)
    model = ls.Denoiser(lambda x, t: torch.tanh(scale.exp() * x), VP, shape=(2,))
    x = ls.prior(model, 3, dtype=F64)
    plan = ls.plan_sampling(VP, "bdia", 6)
    true, *others = (
        torch.autograd.grad(ls.sample(model, x_init=x, plan=plan, grad=grad).sum(), scale)[0]
        for grad in (True, "checkpoint", "reverse")
    )
    for other in others:
        assert torch.allclose(other, true, rtol=1e-12)


@cache
def fine(process: ls.process.Process, eta: float) -> tuple[ls.Denoiser, Tensor, ls.Plan, Tensor]:
    """A mixture, noise, a plan that follows the equation closely over a range of lambda, and dL/dx."""
    model = mixture(dim=2, components=3, process=process)
    times = [process.time(-1 + 2.5 * i / 300) for i in range(301)]
    options = {"eta": eta, "prediction": "noise"} if eta else {}
    plan = ls.plan_sampling(process, "exp_adams_2", grid=times, final="sigma_min", **options)
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return model, x, plan, slope_of(model, x, plan, True)


def slope_of(model: ls.Denoiser, x: Tensor, plan: ls.Plan, grad: Any) -> Tensor:
    out = ls.sample(model, x_init=x, plan=plan, seed=1, grad=grad)
    return torch.autograd.grad((out - 1).square().sum(), x)[0]


@pytest.mark.parametrize("process", [EDM, VP, FLOW])
@pytest.mark.parametrize("order", [1, 2])
def test_the_adjoint_converges_at_its_order(process: Any, order: int) -> None:
    model, x, plan, true = fine(process, 0.0)
    errors = [(slope_of(model, x, plan, Adjoint(order, n)) - true).norm() / true.norm() for n in (10, 20, 40)]
    assert math.log2(errors[-2] / errors[-1]) > order - 0.2
    assert errors[-1] < (0.05 if order == 1 else 0.005)


def test_the_adjoint_of_an_sde_follows_the_same_motion_back() -> None:
    """Of strong order 1: within a step the noise is known by its end alone."""
    model, x, plan, true = fine(VP, 0.7)
    errors = [(slope_of(model, x, plan, Adjoint(1, n)) - true).norm() / true.norm() for n in (5, 20)]
    assert math.log2(errors[0] / errors[1]) / 2 > 0.8


@pytest.mark.parametrize("process", [EDM, VP, FLOW])
def test_the_adjoint_has_the_gradients_of_all_that_is_used(process: Any) -> None:
    """The difference to backpropagation falls as the run and its adjoint both get finer, at order 2."""
    errors = []
    for nfe in (40, 80):
        times = [process.time(-1.5 + 3 * i / nfe) for i in range(nfe + 1)]
        plan = ls.plan_sampling(process, "exp_adams_2", grid=times, final="sigma_min")
        case = Case(plan, process, weights=False)
        errors.append(differ(case.gradients("adjoint"), case.gradients(True)))
    assert math.log2(errors[0] / errors[1]) > 1.8


def test_adjoint_ends_are_differentiated_as_they_stand() -> None:
    """From pure noise, alpha = 0, to clean data, sigma = 0: where the equation itself is infinite."""
    model = ls.Denoiser(lambda x, t: 0.3 * x, FLOW, shape=(2,))
    x = ls.prior(model, 2, dtype=F64).requires_grad_()
    plan = ls.plan_sampling(FLOW, "dpmpp_2m", 400, "log_snr")
    out = ls.sample(model, x_init=x, plan=plan, grad="adjoint")
    (found,) = torch.autograd.grad(out.sum(), x)
    (true,) = torch.autograd.grad(ls.sample(model, x_init=x, plan=plan, grad=True).sum(), x)
    assert torch.allclose(found, true, rtol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 7, 30])
@pytest.mark.parametrize("memory", [1, 2, 5, 40])
def test_no_more_states_are_held_than_allowed_and_no_fewer_steps_would_do(n: int, memory: int) -> None:
    """Against the best of all ways to place the states, found by dynamic programming."""
    counted = 0
    most = 0

    class Counting(Chain):
        def step(self, k: int, state: Any) -> Any:
            nonlocal counted
            counted += 1
            return state[0] + 1, []

    chain = Counting((), replace(ls.plan_sampling(VP, "ddim", n)))
    assert len(chain) == n
    held: dict[int, Any] = {0: (0, [])}
    for k, state in recall(held, chain, memory):
        assert state[0] == k
        most = max(most, len(held))
    assert most <= memory
    assert counted == best(n, memory - 1)


@cache
def best(n: int, free: int) -> int:
    if n == 1:
        return 0
    if free == 0:
        return n * (n - 1) // 2
    return min(m + best(n - m, free - 1) + best(m, free) for m in range(1, n))


def test_what_is_saved_grows_as_promised() -> None:
    """What the one node of the run has saved: as much at 64 steps as at 16, or what is allowed."""
    model = ls.Denoiser(lambda x, t: torch.sin(x), VP, shape=(2,))
    x = ls.prior(model, 1).requires_grad_()

    def at(nfe: int, grad: Any) -> int:
        plan = ls.plan_sampling(VP, "bdia", nfe)
        node = ls.sample(model, x_init=x, plan=plan, grad=grad).grad_fn.next_functions[0][0]
        return len(node.saved_tensors)

    for grad in ("reverse", "adjoint"):
        assert at(16, grad) == at(64, grad) <= 3
    assert at(64, Checkpoint(5)) <= 2 * 5  # bdia hands on two states
    assert at(64, "checkpoint") <= 2 * 16


def test_a_callback_sees_every_step_and_failures_are_named() -> None:
    model, seen = network(VP), list[int]()
    plan = ls.plan_sampling(VP, "bdia", 4)
    x = ls.prior(model, 2, dtype=F64).requires_grad_()
    cond = {"y": torch.zeros(2, 3, dtype=F64)}
    ls.sample(model, x_init=x, plan=plan, cond=cond, grad="reverse", callback=lambda n, t, x: seen.append(n))
    assert seen == list(range(len(plan.steps)))
    broken = ls.Denoiser(lambda x, t: x / 0, VP, shape=(3,))
    with pytest.raises(ls.SolveError, match=r"bdia, step 1 of 4"):
        ls.sample(broken, x_init=x, plan=plan, grad="reverse")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grad": "backwards"}, "unknown way of differentiating"),
        ({"grad": 1}, "unknown way"),
        ({"grad": "reverse", "method": "dpmpp_2m"}, "cannot be undone"),
        ({"grad": "reverse", "method": "heun"}, "cannot be undone"),
        ({"grad": "reverse", "method": "ddpm"}, "draws noise"),
        ({"grad": "adjoint", "method": "edm_churn"}, "not that of one SDE"),
        ({"grad": "adjoint", "nfe": 1}, "no step between"),
        ({"grad": "checkpoint", "compile": True}, "no steps to go back through"),
    ],
)
def test_what_cannot_be_differentiated_so_is_refused(arguments: dict, message: str) -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the network was called")

    model = ls.Denoiser(net, EDM, shape=(2,))
    with pytest.raises(ls.ArgumentError, match=message):
        ls.sample(model, 2, **{"nfe": 6, **arguments})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Checkpoint(0), "memory = 0"),
        (lambda: Checkpoint(2.5), "whole number"),
        (lambda: Adjoint(order=3), "order = 3"),
        (lambda: Adjoint(nfe=0), "nfe = 0"),
        (lambda: ls.Guidance(torch.ones(3)), "one float"),
        (lambda: ls.Guidance(torch.tensor(math.nan)), "finite"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        make()


def test_the_adjoint_equation_knows_no_weights_of_a_plan() -> None:
    case = Case(ls.plan_sampling(VP, "ddim", 4), VP)
    with pytest.raises(ls.ArgumentError, match="no weights of a plan"):
        case.gradients("adjoint")
    with pytest.raises(ls.ArgumentError, match="cached"):
        ls.sample(ls.fields.cached(network(VP), [1]), 2, nfe=4, grad="checkpoint")


def test_nothing_to_differentiate_is_a_plain_run() -> None:
    model = mixture(dim=2)
    x = ls.prior(model, 3)
    for grad in ("checkpoint", "adjoint"):
        found = ls.sample(model, x_init=x, nfe=5, grad=grad)
        assert torch.equal(found, ls.sample(model, x_init=x, nfe=5))
        assert not found.requires_grad
    assert gradients.way_of(False) is None
