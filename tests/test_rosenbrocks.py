"""compile=True of Rosenbrock methods: entries [B] in place of matrices do what the plain stepper does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import longstride as ls
from longstride.methods.rosenbrock import ROSENBROCK
from longstride.steppers.elimination import eliminated

F64 = torch.float64


def van_der_pol(mu: Tensor):
    def f(t: Tensor, x: Tensor) -> Tensor:
        a, b = x.unbind(1)
        return torch.stack([b, mu * (1 - a * a) * b - a], 1)

    return f


def robertson(k2: Tensor):
    def f(t: Tensor, x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        slow, fast, back = 0.04 * a, k2 * b * b, 1e4 * b * c
        return torch.stack([back - slow, slow - back - fast, fast], 1)

    return f


def repeated(row: list[float], n: int) -> Tensor:
    return torch.tensor([row], dtype=F64).repeat(n, 1)


def both(problem: ls.ODE, x0: Tensor, **options) -> tuple[ls.Solution, ls.Solution]:
    """The plain run and the chunked one, which take the same steps to the same states.

    Where a step may stay as it is, as of Predictive, what is left of a run may be one step but for round-off,
    which then decides whether it becomes two: so PI, unless another is given.
    """
    options = {"method": "rodas5p", "controller": ls.control.PI(), "grad": False, **options}
    plain, chunked = (ls.solve(problem, x0, compile=c, **options) for c in (False, True))
    assert chunked.status == plain.status
    assert torch.equal(chunked.stats.accepted, plain.stats.accepted)
    assert torch.equal(chunked.stats.rejected, plain.stats.rejected)
    return plain, chunked


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_elimination_is_as_exact_as_lapacks(n: int) -> None:
    """Random matrices, some with nothing on the diagonal, some graded over 16 decades: backward stable."""
    draw = torch.Generator().manual_seed(n)
    A = torch.randn(60, n, n, dtype=F64, generator=draw)
    A[:20] -= torch.diag_embed(torch.diagonal(A[:20], dim1=1, dim2=2)) if n > 1 else 0.0
    A[20:40] *= torch.logspace(-8, 8, n, dtype=F64)[:, None]
    r = torch.randn(60, n, dtype=F64, generator=draw)
    solve = eliminated([row.unbind(1) for row in A.unbind(1)])
    x = torch.stack(solve(r.unbind(1)), 1)
    left = ((A @ x[..., None])[..., 0] - r).norm(dim=1)
    assert bool((left <= 100 * 2.3e-16 * A.flatten(1).norm(dim=1) * x.norm(dim=1)).all())


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("method", ROSENBROCK)
def test_stiff_runs_are_those_of_the_plain_stepper(method: str) -> None:
    k2 = torch.logspace(6, 8, 3, dtype=F64)
    marks = [0.0, 1.0, 7.0, 40.0]
    x0, by = repeated([1.0, 0.0, 0.0], 3), {"rtol": 1e-4, "atol": 1e-9, "controller": None}
    plain, chunked = both(ls.ODE(robertson(k2)), x0, method=method, t=(0, 40), save_at=marks, **by)
    assert torch.allclose(chunked.x, plain.x, rtol=1e-8, atol=1e-13)
    mu, x0 = torch.tensor([1.0, 10.0, 50.0], dtype=F64), repeated([2.0, 0.0], 3)
    plain, chunked = both(ls.ODE(van_der_pol(mu)), x0, method=method, t=(0, 4), rtol=1e-3)
    assert torch.allclose(chunked.x, plain.x, rtol=1e-6, atol=1e-8)
    assert chunked.stats.rejected.sum() > 0


@pytest.mark.usefixtures("uncompiled")
def test_evaluations_are_counted_as_of_each_sample_alone() -> None:
    """A step tried again from where it was linearized already costs one less, whatever the others do."""
    mu = torch.tensor([1.0, 5.0], dtype=F64)
    options = {"t": (0, 8), "rtol": 1e-4, "controller": ls.control.PI(), "grad": False}
    options["method"] = "rodas5p"
    run = ls.solve(ls.ODE(van_der_pol(mu)), repeated([2.0, 0.0], 2), compile=True, **options)
    alone = [ls.solve(ls.ODE(van_der_pol(m)), repeated([2.0, 0.0], 1), **options) for m in mu.split(1)]
    assert run.stats.rejected.min() > 0
    assert run.stats.nfe_each.tolist() == [int(one.stats.nfe_each) for one in alone]
    assert run.stats.jacobians == run.stats.factorizations == run.stats.steps


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("method", ROSENBROCK)
def test_measured_orders(method: str) -> None:
    """x' = cos(t) x^2 in steps that no tolerance shortens: x0/(1 - x0 (sin t - sin t0))."""
    x0, t = torch.tensor([[0.5, 0.7, 0.9]], dtype=F64), (0.3, 1.5)
    exact = x0 / (1 - x0 * (math.sin(1.5) - math.sin(0.3)))
    order, errors = ROSENBROCK[method].order, []
    n = {3: 32, 4: 16, 5: 12}[order]
    for steps in (n, 2 * n):
        h = (t[1] - t[0]) / steps * (1 + 1e-12)  # so that round-off leaves nothing for one more
        run = ls.solve(
            ls.ODE(lambda t, x: torch.cos(t)[:, None] * x * x), x0, t=t, method=method, rtol=1.0, atol=1.0,
            first_step=h, max_step=h, grad=False, compile=True,
        )  # fmt: skip
        assert run.stats.accepted[0] == steps
        errors.append(float((run.x[-1] - exact).norm()))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.4


@pytest.mark.usefixtures("uncompiled")
def test_a_first_pivot_of_nothing() -> None:
    """x' = A x with h gamma a_11 = 1: I - h gamma A is regular, but begins with 0. One step is R(hA) x.

    Of rodas4, gamma = 1/4: R(hA) = e^(hA) + O(h^5), which is found as the plain stepper finds it, by LAPACK.
    """
    A = torch.tensor([[4.0, 1.0, 0.0], [-2.0, -1.0, 1.0], [0.0, 1.0, 1.0]], dtype=F64)
    x0 = torch.tensor([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], dtype=F64)
    options = {"t": (0, 1), "method": "rodas4", "rtol": 1e3, "first_step": 1.0}
    plain, chunked = both(ls.ODE(lambda t, x: x @ A.T), x0, **options)
    assert chunked.stats.accepted.tolist() == [1, 1]
    assert torch.allclose(chunked.x, plain.x, rtol=1e-12)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("known", ["nothing", "matrix", "diagonal", "bands"])
def test_whatever_is_known_of_the_jacobian(known: str) -> None:
    """Times that fall, a jump, f of time, states [B, 2, 2], a shared step."""
    rates = torch.tensor([1.0, 10.0, 1e2, 1e3], dtype=F64)

    def f(t: Tensor, x: Tensor) -> Tensor:
        where = torch.where(t > 1.0, 1.0, -1.0) + torch.cos(3 * t)
        return rates.view(2, 2) * (x - where.view(-1, 1, 1)) - 0.1 * x * x * x

    def matrix(t: Tensor, x: Tensor) -> Tensor:
        return torch.diag_embed(rates - 0.3 * x.flatten(1) ** 2)

    jacobian = {"nothing": None, "matrix": matrix, "diagonal": "diagonal", "bands": (1, 0)}[known]
    x0 = torch.tensor([[0.2, -1.0, 0.5, 0.3], [2.0, 0.1, 0.0, -0.4]], dtype=F64).view(2, 2, 2)
    problem = ls.ODE(f, jacobian=jacobian, jump_times=(1.0,))
    for shared in (False, True)[: 1 + (known == "nothing")]:
        options = {"t": (1.5, 0.5), "save_at": [1.4, 0.7], "rtol": 1e-4, "shared_step": shared}
        plain, chunked = both(problem, x0, **options)
        assert torch.allclose(chunked.x, plain.x, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("uncompiled")
def test_what_is_refused_before_anything_runs() -> None:
    def never(t: Tensor, x: Tensor) -> Tensor:
        raise AssertionError("f was asked")

    def refused(message: str, x0: Tensor, problem: ls.ODE | None = None, **options) -> None:
        with pytest.raises(ls.ArgumentError, match=message):
            ls.solve(problem or ls.ODE(never), x0, t=(0, 1), compile=True, **{"method": "rodas5p", **options})

    small = repeated([1.0, 2.0], 3)
    refused("real states of up to 8 elements", repeated([1.0] * 9, 2))
    refused("real states of up to 8 elements", small.to(torch.complex128))
    refused("such as rodas5p", small, method="kvaerno5")
    refused("such as rodas5p", small, method="radau5", linear="gmres")
    refused("exact solutions", small, linear="gmres")
    refused("magnitude", small, ls.ODE(never, magnitude=lambda x: x.norm(dim=1)))


def test_one_graph_serves_spans_tolerances_and_parameters() -> None:
    """Really compiled, single samples too: a second run elsewhere, with another mu, makes no new graph."""
    torch._dynamo.reset()
    counters.clear()
    mu = torch.tensor([20.0], dtype=F64)
    problem = ls.ODE(van_der_pol(mu))
    for t, rtol in (((0, 30), 1e-3), ((2, 9), 1e-4)):
        plain, chunked = both(problem, repeated([2.0, 0.1], 1), method="ros3p", t=t, rtol=rtol)
        assert torch.allclose(chunked.x, plain.x, rtol=1e-7, atol=1e-9)
        mu.mul_(2)
    assert (counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())) == (1, 0)
