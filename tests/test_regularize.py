"""Penalties of what the solver knows: what they are, where they are taken, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import longstride as ls

F64 = torch.float64
FIXED = {"first_step": 0.25, "max_step": 0.25, "rtol": 1e3, "atol": 1.0}  # every step is accepted


def leaf(*values: Any) -> Tensor:
    return torch.tensor(*values, dtype=F64, requires_grad=True)


@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
@pytest.mark.parametrize("local", [None, "unbiased", "biased"])
def test_stiffness_of_a_linear_equation_is_its_eigenvalue(method: str, local: str | None) -> None:
    """x' = -k x: |f(g) - f(g')|/|g - g'| = k in every step, of which there are eight; its slope by k is 1."""
    k = leaf(1.7)
    run = ls.solve(
        ls.ODE(lambda t, x: -k * x), torch.ones(3, 2, dtype=F64), t=(0, 2), method=method,
        regularize=ls.Regularize("stiffness", local), **FIXED,
    )  # fmt: skip
    steps = 1 if local else 8
    assert torch.allclose(run.penalty, torch.full((3,), steps * 1.7, dtype=F64), rtol=1e-9)
    (slope,) = torch.autograd.grad(run.penalty.sum(), k)
    assert abs(slope - 3 * steps) < 1e-6


def wave(k: Tensor) -> ls.ODE:
    return ls.ODE(lambda t, x: torch.sin(k * x.flip(1)) + torch.cos(5 * t.reshape(-1, 1)))


@pytest.mark.parametrize("kind", ["error", "error_squared", "stiffness"])
@pytest.mark.parametrize("way", [True, "checkpoint"])
def test_gradients_of_the_global_penalty_agree_with_differences(kind: str, way: Any) -> None:
    """In steps that do not move."""
    x0, k = leaf([[0.4, 1.0], [1.5, -0.3]]), leaf(1.3)

    def penalty(x: Tensor, k: Tensor) -> Tensor:
        return ls.solve(wave(k), x, t=(0, 2), regularize=kind, grad=way, **FIXED).penalty.sum()

    found = torch.autograd.grad(penalty(x0, k), (x0, k))
    with torch.no_grad():
        v, e = torch.tensor([[0.3, -0.8], [0.5, 1.0]], dtype=F64), 1e-5
        by_x = (penalty(x0 + e * v, k) - penalty(x0 - e * v, k)) / (2 * e)
        by_k = (penalty(x0, k + e) - penalty(x0, k - e)) / (2 * e)
    assert abs((found[0] * v).sum() - by_x) < 1e-6 * abs(by_x)
    assert abs(found[1] - by_k) < 1e-6 * abs(by_k)


def test_a_biased_step_is_one_of_those_taken_all_alike() -> None:
    """Of 4,000 samples that are the same, the mean is that over the steps, to within its spread."""
    x0, k, steps = torch.tensor([[0.4, 1.0]], dtype=F64), torch.tensor(1.3, dtype=F64), 8
    total = ls.solve(wave(k), x0, t=(0, 2), regularize="error", **FIXED).penalty
    local = ls.Regularize("error", "biased", seed=0)
    terms = ls.solve(wave(k), x0.expand(4000, 2), t=(0, 2), regularize=local, **FIXED).penalty
    values, counts = terms.double().round(decimals=12).unique(return_counts=True)
    assert len(values) == steps
    assert (counts - 500).abs().max() < 5 * (4000 / 8 * 7 / 8) ** 0.5
    assert torch.allclose(values.sum(), total[0], rtol=1e-9)


def test_an_unbiased_time_is_uniform() -> None:
    """Of x' = -t x a step of 1/4 from s says s + 1/4, or the end, 2: quantiles are those of a uniform s."""
    rate = ls.ODE(lambda t, x: -t[:, None] * x)
    local = ls.Regularize("stiffness", "unbiased", seed=0)
    run = ls.solve(rate, torch.ones(4000, 1, dtype=F64), t=(0, 2), regularize=local, **FIXED)
    quantiles = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=F64)
    found = run.penalty.quantile(quantiles)
    assert torch.allclose(found, (2 * quantiles + 0.25).clamp(max=2.0), atol=5 * 2 * 0.5 / 4000**0.5)


@pytest.mark.parametrize("local", ["unbiased", "biased"])
def test_a_local_penalty_is_that_samples_own_and_the_same_in_every_way(local: str) -> None:
    x0, k = leaf([[0.4, 1.0], [1.5, -0.3], [2.0, 3.0]]), leaf(1.3)
    what = ls.Regularize("error", local, seed=5)
    options = {"t": (0, 2), "rtol": 1e-4, "regularize": what}
    true = ls.solve(wave(k), x0, **options).penalty
    alone = ls.solve(wave(k), x0[:1], **options).penalty
    assert torch.allclose(alone[0], true[0], rtol=1e-6)
    (slope,) = torch.autograd.grad(true.sum(), k)
    for way in ("checkpoint", "adjoint"):
        other = ls.solve(wave(k), x0, grad=way, **options).penalty
        assert torch.allclose(other, true, rtol=1e-6)
        assert torch.allclose(torch.autograd.grad(other.sum(), k)[0], slope, rtol=1e-6)


@pytest.mark.parametrize("method", ["tsit5", "dopri8", "reversible_tsit5"])
@pytest.mark.parametrize("what", ["error", ls.Regularize(local="biased"), ls.Regularize(local="unbiased")])
def test_evaluations_for_a_penalty_are_counted(method: str, what: Any) -> None:
    calls = 0

    def f(t: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cos(9 * t)[:, None] * x

    x0 = torch.ones(1, 2, dtype=F64)
    plain = ls.solve(ls.ODE(f), x0, t=(0, 2), method=method).stats.nfe
    calls = 0
    run = ls.solve(ls.ODE(f), x0, t=(0, 2), method=method, regularize=what)
    assert run.stats.nfe == calls
    assert (calls == plain) == (what == "error")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ls.Regularize("errors"), "unknown penalty"),
        (lambda: ls.Regularize(local="both"), "local"),
        (lambda: ls.Regularize(seed=0.5), "seed"),
    ],
)
def test_what_is_no_penalty_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ls.ArgumentError, match=message):
        make()
