"""Phase space on Gaussians, where every law is a 2x2 matrix, and on a mixture, whose joint score is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.integrate import run
from longstride.metrics.order import Impulses
from longstride.samplers import PhaseSpace, plan_phase_space, sample_phase_space
from longstride.samplers.phase_space import Matrix

F64 = torch.float64
PSLD = PhaseSpace()
STILL = PhaseSpace(Gamma=0.0, nu=4.0, t_min=1e-2)  # noise through m alone: CLD, critically damped
PROCESSES = pytest.mark.parametrize("process", [PSLD, STILL], ids=["PSLD", "CLD"])
VARIANCE = 0.3


@cache
def law(process: PhaseSpace, t: float, variance: float = VARIANCE) -> Tensor:
    """Cov z_t of data N(0, variance)."""
    return process.cov(t) + variance * process.mean(t)[:, :1] @ process.mean(t)[:, :1].T


def gaussian(process: PhaseSpace, variance: float = VARIANCE):
    """eps = -L^T score = L^T V^-1 z."""

    def field(t: float, z: Tensor) -> Tensor:
        return z * (process.factor(t).T @ torch.linalg.inv(law(process, t, variance))).as_subclass(Matrix)

    return (field,)


def runge_kutta(rate: Callable[[float, Tensor], Tensor], z: Tensor, s: float, t: float, n: int) -> Tensor:
    """Order 4 in v = sqrt(t), in which dz/dv = 2 v dz/dt is smooth down to the data."""
    h = (t**0.5 - s**0.5) / n
    for k in range(n):
        v = s**0.5 + k * h
        k1 = 2 * v * rate(v**2, z)
        k2 = (2 * v + h) * rate((v + h / 2) ** 2, z + h / 2 * k1)
        k3 = (2 * v + h) * rate((v + h / 2) ** 2, z + h / 2 * k2)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + 2 * (v + h) * rate((v + h) ** 2, z + h * k3))
    return z


@cache
def flow(process: PhaseSpace, s: float, t: float, n: int = 100) -> Tensor:
    """[2, 2] of the ODE on Gaussian data, dz/dt = (F + G G^T V^-1/2) z."""

    def rate(u: float, z: Tensor) -> Tensor:
        return (process.F + process.K @ process.S @ torch.linalg.inv(law(process, u))) @ z

    return runge_kutta(rate, torch.eye(2, dtype=F64), s, t, n)


def until_t_min(plan: ls.Plan) -> ls.Plan:
    return ls.Plan(plan.times[:-1], plan.steps[:-1])


def ran(process: PhaseSpace, plan: ls.Plan) -> Tensor:
    """[2, 2] of a deterministic plan on Gaussian data."""
    return run(gaussian(process), plan, torch.eye(2, dtype=F64))[0][-1].T


class Pairs(Impulses):
    """Each normal of a run, one for x and one for m, is a unit vector of its own: z [size, 2]."""

    def increment(self, a: float, b: float) -> Tensor:
        return torch.stack([super().increment(a, b)[0], super().increment(a, b)[0]], 1)


def covariance(process: PhaseSpace, plan: ls.Plan, variance: float = VARIANCE) -> Tensor:
    """Cov z where a plan ends, from the true law at t = 1: no sampling."""
    size = 2 + 2 * len(plan.steps)
    start = torch.zeros(size, 2, dtype=F64)
    start[:2] = torch.linalg.cholesky(law(process, 1.0, variance)).T
    z = run(gaussian(process, variance), plan, start, Pairs(size, 2))[0][-1]
    return z.T @ z


@PROCESSES
def test_the_kernel_solves_its_equations(process: PhaseSpace) -> None:
    """d mean/dt = F mean, d cov/dt = F cov + cov F^T + G G^T, by fine steps of Runge-Kutta's midpoint."""
    noise, h = 2 * process.K @ process.S, 5e-4
    mean, cov = torch.eye(2, dtype=F64), torch.diag(torch.tensor([0.0, process.gamma * process.M], dtype=F64))

    def rate(c: Tensor) -> Tensor:
        return process.F @ c + c @ process.F.T + noise

    for _ in range(1000):
        mean = mean + h * process.F @ (mean + h / 2 * process.F @ mean)
        cov = cov + h * rate(cov + h / 2 * rate(cov))
    torch.testing.assert_close(process.mean(0.5), mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(process.cov(0.5), cov, rtol=0, atol=1e-5)
    torch.testing.assert_close(process.cov(20.0), process.S, rtol=0, atol=1e-12)  # the prior


def test_noise_is_added_with_the_kernels_law() -> None:
    x0, unit = torch.tensor([[1.5]], dtype=F64), torch.eye(2, dtype=F64)[:, :, None]
    zero = torch.zeros(1, 2, 1, dtype=F64)
    torch.testing.assert_close(PSLD.add_noise(x0, 0.3, zero)[0], 1.5 * PSLD.mean(0.3)[:, :1])
    columns = PSLD.add_noise(0 * x0.expand(2, 1), 0.3, unit)[:, :, 0]
    torch.testing.assert_close(columns.T @ columns, PSLD.cov(0.3))


@pytest.mark.parametrize("lambda_", [None, 0.0, 1.0])
@pytest.mark.parametrize("method", ["euler", "verlet"])
def test_the_ode_is_met_with_order_1(method: str, lambda_: float | None) -> None:
    true = flow(PSLD, 1.0, PSLD.t_min)

    def error(nfe: int) -> float:
        return float((ran(PSLD, until_t_min(plan_phase_space(PSLD, method, nfe, lambda_))) - true).norm())

    slope = math.log2(error(251) / error(501))
    print(f"{method}, {lambda_}: {error(251):.2e} {slope:.3f}")
    assert slope == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(("Gamma", "order"), [(0.01, 2), (0.0, 3)])
@pytest.mark.parametrize("lambda_", [None, 1.0])
def test_verlet_misses_x_by_the_cube_of_a_step_without_gamma(
    Gamma: float, order: int, lambda_: float | None
) -> None:
    """One step, begun where data and noise are of a size. The h^2 of a small Gamma shows in short steps."""

    def error(h: float) -> Tensor:
        process = PhaseSpace(beta=2.0, Gamma=Gamma, t_min=1 - h)
        plan = until_t_min(plan_phase_space(process, "verlet", 3, lambda_))
        return (ran(process, plan) - flow(process, 1.0, 1 - h, 4)).norm(dim=1)

    h = 1e-2 if order == 3 else 2e-4
    slopes = torch.log2(error(h) / error(h / 2)).tolist()
    print(slopes)
    assert slopes == pytest.approx([order, 2], abs=0.2)


@PROCESSES
def test_conjugate_steps_are_exact_where_what_they_hold_does_not_change(process: PhaseSpace) -> None:
    """lambda_ = 0 with eps constant, however few the steps (DDIM); 1 on the prior, where z turns."""
    eps, z = torch.tensor([[0.4, -1.1]], dtype=F64), torch.tensor([[0.7, -0.2]], dtype=F64)
    one, many = (
        run((lambda t, z: eps,), until_t_min(plan_phase_space(process, "euler", n, 0.0)), z)[0][-1]
        for n in (2, 40)
    )
    torch.testing.assert_close(one, many, rtol=1e-8, atol=1e-8)
    still = (lambda t, z: 0 * z,)
    free = run(still, until_t_min(plan_phase_space(process, "euler", 5, 0.0)), z)[0][-1]
    torch.testing.assert_close(free[0], torch.linalg.matrix_exp(process.F * (process.t_min - 1)) @ z[0])

    def at_rest(t: float, z: Tensor) -> Tensor:
        return z * (process.factor(t).T @ torch.linalg.inv(process.S)).as_subclass(Matrix)

    wide = PhaseSpace(process.beta, process.Gamma, process.nu, t_min=0.8)  # the kernel has all but forgotten
    turned = run((at_rest,), until_t_min(plan_phase_space(wide, "euler", 2, 1.0)), z)[0][-1]
    turn = torch.linalg.matrix_exp((process.F + process.K) * -0.2)
    torch.testing.assert_close(turned[0], turn @ z[0], rtol=0, atol=1e-4)
    plain = run((at_rest,), until_t_min(plan_phase_space(wide, "euler", 2, None)), z)[0][-1]
    assert float((plain[0] - turn @ z[0]).norm()) > 0.1
    energy = turned.square() / torch.diagonal(process.S)
    assert float(energy.sum()) == pytest.approx(
        float((z.square() / torch.diagonal(process.S)).sum()), rel=1e-3
    )


@PROCESSES
@pytest.mark.parametrize("lambda_", [None, 1.0])
@pytest.mark.parametrize("method", ["sde", "oba"])
def test_the_sde_ends_at_the_law_with_weak_order_1(
    process: PhaseSpace, method: str, lambda_: float | None
) -> None:
    true = law(process, process.t_min)

    def error(nfe: int) -> float:
        plan = plan_phase_space(process, method, nfe, lambda_)
        return float((covariance(process, until_t_min(plan)) - true).norm())

    print(f"{method}, {lambda_}: {error(80):.2e} {math.log2(error(80) / error(160)):.3f}")
    assert math.log2(error(80) / error(160)) == pytest.approx(1.0, abs=0.2)


def test_plain_sde_steps_are_euler_maruyama() -> None:
    plan = until_t_min(plan_phase_space(PSLD, "sde", 40, None))
    noise, v = 2 * PSLD.K @ PSLD.S, law(PSLD, 1.0)
    for s, t in pairwise(plan.times):
        back = -PSLD.F - noise @ torch.linalg.inv(law(PSLD, s))
        step = torch.eye(2, dtype=F64) + (s - t) * back
        v = step @ v @ step.T + (s - t) * noise
    torch.testing.assert_close(covariance(PSLD, plan), v)


@pytest.mark.parametrize("variance", [0.3, 0.04])
def test_half_the_steps_of_the_conjugate_sde_beat_euler_maruyama(variance: float) -> None:
    true = law(PSLD, PSLD.t_min, variance)[0, 0]

    def error(nfe: int, lambda_: float | None) -> float:
        plan = until_t_min(plan_phase_space(PSLD, "sde", nfe, lambda_))
        return abs(float(covariance(PSLD, plan, variance)[0, 0] / true) - 1)

    print(error(50, 1.0), error(100, None))
    assert 2 * error(50, 1.0) < error(100, None)


WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
MEANS = torch.tensor([[1.0, 1.0], [-1.0, 0.5], [0.0, -1.2]], dtype=F64)


def mixture(z: Tensor, t: Tensor) -> Tensor:
    """eps of sum_k w_k N(m_k, 0.04), z [B, 2, 2]; each component is a Gaussian in z."""
    s = float(t[0])
    d = z[:, None] - PSLD.mean(s)[:, 0][:, None] * MEANS[:, None]
    pull = torch.einsum("ij,bkjd->bkid", torch.linalg.inv(law(PSLD, s, 0.04)), d)
    share = (WEIGHTS.log() - (d * pull).sum((2, 3)) / 2).softmax(1)
    return torch.einsum("ji,bk,bkjd->bid", PSLD.factor(s), share, pull)


def test_half_the_evaluations_of_hybrid_and_conjugate_beat_euler_on_a_mixture() -> None:
    z = PSLD.prior(200, (2,), 0).double()

    def rate(t: float, z: Tensor) -> Tensor:
        C = PSLD.K @ PSLD.S @ torch.linalg.inv(PSLD.factor(t)).T
        return z * PSLD.F.as_subclass(Matrix) + mixture(z, torch.tensor([t])) * C.as_subclass(Matrix)

    end = plan_phase_space(PSLD, "euler", 2)
    last = ls.Plan(end.times[1:], end.steps[1:])
    true, again = (
        sample_phase_space(mixture, runge_kutta(rate, z, 1.0, PSLD.t_min, n), last) for n in (150, 75)
    )
    assert float((true - again).square().mean().sqrt()) < 1e-3

    def error(method: str, nfe: int, lambda_: float | None) -> float:
        x = sample_phase_space(mixture, z, plan_phase_space(PSLD, method, nfe, lambda_))
        return float((x - true).square().mean().sqrt())

    euler, hybrid, whole = error("euler", 100, None), error("verlet", 50, 1.0), error("euler", 50, 1.0)
    print(euler, error("euler", 100, 0.0), hybrid, whole)
    assert hybrid < euler
    assert 2 * whole < euler


def test_samples_budgets_and_refusals() -> None:
    plan, calls = plan_phase_space(PSLD, "sde", 30), []

    def net(z: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return gaussian(PSLD)[0](float(t[0]), z)

    x = sample_phase_space(net, PSLD.prior(2, (1000,), 1), plan, seed=4)
    assert x.shape == (2, 1000)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.1)
    assert torch.equal(sample_phase_space(net, PSLD.prior(1, (1000,), 1), plan, seed=4), x[:1])
    assert (plan.nfe, len(calls)) == (30, 60)
    assert [plan_phase_space(PSLD, m, 50).nfe for m in ("euler", "verlet", "oba")] == [50, 49, 50]
    with pytest.raises(ls.ArgumentError, match="did you mean verlet"):
        plan_phase_space(PSLD, "verlett")
    with pytest.raises(ls.ArgumentError, match="takes 2"):
        plan_phase_space(PSLD, "verlet", 2)
    with pytest.raises(ls.ArgumentError, match="t_min below 1"):
        PhaseSpace(t_min=1.0)
