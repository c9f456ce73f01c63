"""Langevin and Hamiltonian chains: exact laws on Gaussians, strong orders on one path, what HMC must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.samplers.splitting import (
    LANGEVIN,
    NEWTON,
    RANDOM,
    Word,
    midpoint,
    noises,
    ornstein_uhlenbeck,
    write,
)

F64 = torch.float64
K, GAMMA = 2.0, 1.3  # of a Gaussian of variance 1/K
METHODS = (*LANGEVIN, RANDOM)


def gaussian(x: Tensor) -> Tensor:
    return -K * x.square().flatten(1).sum(1) / 2


def quartic(x: Tensor) -> Tensor:
    return -(x**4 / 4 + x**2 / 2).flatten(1).sum(1)


def push(t: float, x: Tensor) -> Tensor:
    """The gradient of `quartic`."""
    return -(x**3) - x


def law(word: Word, h: float) -> tuple[Tensor, Tensor]:
    """A step on the Gaussian as z -> M z + N xi, z = (x, v)."""

    def rows(x: Tensor, v: Tensor, zs: list[Tensor]) -> Tensor:
        step = write(word, h, GAMMA)
        fs = [-K * x] if step.keep_f else []
        return torch.cat(ls.advance((lambda t, x: -K * x,), step, [x, v], fs, zs)[0], 1).T

    one, n = torch.eye(2, dtype=F64), noises(word)
    unit, zero = torch.eye(n, dtype=F64), torch.zeros(n, 1, dtype=F64)
    M = rows(one[:, :1], one[:, 1:], [torch.zeros(2, 1, dtype=F64)] * n)
    return M, rows(zero, zero, [unit[:, i : i + 1] for i in range(n)])


def stationary(method: str, h: float) -> Tensor:
    """The covariance of (x, v) that a method keeps: S = E[M S M^T + N N^T], over a random share."""
    shares, weights = np.polynomial.legendre.leggauss(20)
    words = [midpoint((s + 1) / 2) for s in shares] if method == RANDOM else [LANGEVIN[method]]
    weights = weights / 2 if method == RANDOM else [1.0]
    A, Q = torch.eye(4, dtype=F64), torch.zeros(2, 2, dtype=F64)
    for word, w in zip(words, weights, strict=True):
        M, N = law(word, h)
        A, Q = A - w * torch.kron(M, M), Q + w * N @ N.T
    return torch.linalg.solve(A, Q.reshape(-1)).reshape(2, 2)


@pytest.mark.parametrize("h", [0.05, 0.5, 1.3])
def test_baoab_keeps_the_variance_of_x_for_every_stable_step(h: float) -> None:
    """And that of v is 1 - K h^2/4 (Leimkuhler and Matthews 2013); stable is h < 2/sqrt(K) = 1.41."""
    S = stationary("baoab", h)
    assert torch.allclose(S, torch.diag(torch.tensor([1 / K, 1 - K * h * h / 4], dtype=F64)), atol=1e-12)


@pytest.mark.parametrize(("method", "order"), [("ubu", 2), (RANDOM, 3)])
def test_the_bias_of_the_covariance_falls_with_its_order(method: str, order: int) -> None:
    """A random share adds a variance of h^4 in each step, and so h^3 in all: order 3 for the midpoint."""
    exact = torch.diag(torch.tensor([1 / K, 1.0], dtype=F64))
    coarse, fine = ((stationary(method, h) - exact).norm() for h in (0.1, 0.05))
    assert abs(math.log2(coarse / fine) - order) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_a_chain_has_the_law_that_its_step_says(method: str) -> None:
    """Variances of long chains, within four standard errors of what the Lyapunov equation gives."""
    h, B, shape = 0.6, 400, (3,)
    chain = ls.langevin(
        gaussian, torch.zeros(B, *shape, dtype=F64), dt=h, steps=250, every=25, friction=GAMMA, method=method
    )
    x = chain.x[2:].reshape(-1)  # 15 time units apart: as good as independent
    expected = float(stationary(method, h)[0, 0])
    assert abs(float(x.var()) / expected - 1) < 4 * math.sqrt(2 / len(x))
    assert abs(float(x.mean())) < 4 * math.sqrt(expected / len(x))


def test_free_motion_is_exact_in_law_and_composes() -> None:
    """Two steps of U are one of twice the length; for short ones the variance of x is 2 gamma t^3/3."""

    def parts(t: float) -> tuple[np.ndarray, np.ndarray]:
        e, move, (to_v, to_x, own) = ornstein_uhlenbeck(t, GAMMA)
        return np.array([[1, move], [0, e]]), np.array([[to_x, own], [to_v, 0]])

    for t in (1e-6, 1e-3, 0.1, 0.385, 1.0, 30.0):
        (M, N), (M2, N2) = parts(t), parts(2 * t)
        np.testing.assert_allclose(M @ M, M2, rtol=1e-12)
        np.testing.assert_allclose(M @ N @ N.T @ M.T + N @ N.T, N2 @ N2.T, rtol=1e-9)
    _, N = parts(1e-6)
    assert (N @ N.T)[0, 0] == pytest.approx(2 * GAMMA * 1e-18 / 3, rel=1e-5)


class Path:
    """Motions in cells of width d: the noise of U over any run of cells, of each path its own.

    Under U, v e^(gamma t) and x + v/gamma move by what the cells add, so both are sums from the beginning on.
    """

    def __init__(self, cells: int, d: float, paths: int) -> None:
        self.d, self.cells, self.paths = d, cells, paths
        z = torch.randn(cells, 2, paths, generator=torch.Generator().manual_seed(0), dtype=F64)
        _, _, (to_v, to_x, own) = ornstein_uhlenbeck(d, GAMMA)
        x, v = to_x * z[:, 0] + own * z[:, 1], to_v * z[:, 0]
        grown = torch.exp(GAMMA * d * torch.arange(1, cells + 1, dtype=F64))[:, None]
        none = torch.zeros(1, paths, dtype=F64)
        self.sums = [torch.cat([none, part.cumsum(0)]) for part in (grown * v, x + v / GAMMA)]

    def normals(self, a: np.ndarray, b: np.ndarray) -> list[Tensor]:
        """The unit normals [paths, 1] with which U, or O with the first, follows the path from a to b."""
        p = np.arange(self.paths)
        raised, moved = (part[b, p] - part[a, p] for part in self.sums)
        v = torch.from_numpy(np.exp(-GAMMA * self.d * b)) * raised
        _, _, factor = ornstein_uhlenbeck(self.d * (b - a), GAMMA)
        to_v, to_x, own = map(torch.from_numpy, factor)
        z = v / to_v
        return [z[:, None], ((moved - v / GAMMA - to_x * z) / own)[:, None]]

    def run(self, method: str, m: int) -> Tensor:
        """x at the end, in steps of m cells."""
        h, rng = m * self.d, np.random.default_rng(m)
        xs = [torch.full((self.paths, 1), 0.5, dtype=F64), torch.zeros(self.paths, 1, dtype=F64)]
        fs, all_ = [push(0, xs[0])], np.ones(self.paths, dtype=int)
        for a in range(0, self.cells, m):
            if method == "baoab":
                step, zs = write(LANGEVIN[method], h, GAMMA), self.normals(a * all_, (a + m) * all_)
            else:
                cut = 2 * rng.integers(m // 2, size=self.paths) + 1 if method == RANDOM else m // 2 * all_
                zs = [*self.normals(a * all_, a + cut), *self.normals(a + cut, (a + m) * all_)]
                word = midpoint(cut / m) if method == RANDOM else LANGEVIN[method]
                step = write(word, h, GAMMA, xs[0])
            xs, fs = ls.advance((push,), step, xs, fs if step.keep_f else [], zs)
        return xs[0]


@pytest.mark.parametrize(("method", "order"), [("baoab", 1.0), ("ubu", 2.0), (RANDOM, 1.5)])
def test_strong_orders_on_one_path(method: str, order: float) -> None:
    """Root mean square error at t = 2 on a quartic well, against the same path in the finest steps.

    The shares of the randomized midpoint are the odd cells of a step, whose mean is the midpoint rule.
    """
    path = Path(1024, 2 / 1024, 2000)
    exact, widths = path.run("ubu", 2), (16, 32, 64)
    errors = [float((path.run(method, m) - exact).square().mean().sqrt()) for m in widths]
    slope = np.polyfit(np.log2(widths), np.log2(errors), 1)[0]
    assert abs(slope - order) < 0.1, (slope, errors)


@pytest.mark.parametrize("method", NEWTON)
def test_splittings_come_back_and_keep_volumes(method: str) -> None:
    """v turned round after any number of steps leads back to the start; the Jacobian's determinant is 1."""
    step = write(NEWTON[method], 0.4)
    torch.manual_seed(0)
    x, v = torch.randn(2, 5, 1, dtype=F64)

    def go(x: Tensor, v: Tensor) -> list[Tensor]:
        xs, fs = [x, v], [push(0, x)]
        for _ in range(7):
            xs, fs = ls.advance((push,), step, xs, fs)
        return xs

    x1, v1 = go(x, v)
    assert (x1 - x).abs().max() > 0.1
    x2, v2 = go(x1, -v1)
    assert torch.allclose(x2, x, atol=1e-11)
    assert torch.allclose(v2, -v, atol=1e-11)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: torch.cat(go(z[:1, None], z[1:, None])).flatten(), torch.tensor([0.3, -0.8], dtype=F64)
    )
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize(("method", "order"), [("leapfrog", 2), ("three_stage", 2), ("yoshida_4", 4)])
def test_orders_of_the_splittings(method: str, order: int) -> None:
    """The error of x at t = 1.6 on a harmonic well of frequency sqrt(K), where it is known."""
    omega, errors = math.sqrt(K), []
    for n in (16, 32):
        step = write(NEWTON[method], 1.6 / n)
        xs, fs = (
            [torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)],
            [-K * torch.ones(1, 1, dtype=F64)],
        )
        for _ in range(n):
            xs, fs = ls.advance((lambda t, x: -K * x,), step, xs, fs)
        errors.append(abs(float(xs[0]) - math.cos(1.6 * omega)))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


def exact_starts(n: int) -> Tensor:
    """n draws from `quartic`'s density by inverting its distribution on a fine grid."""
    at = torch.linspace(-5, 5, 200_001, dtype=F64)
    mass = quartic(at[:, None]).exp().cumsum(0)
    u = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=F64)
    return at[torch.searchsorted(mass / mass[-1], u).clamp_max(len(at) - 1)][:, None]


@pytest.mark.parametrize("method", NEWTON)
def test_hmc_keeps_the_density_however_coarse_its_steps(method: str) -> None:
    """From exact draws, one proposal with a large step: the moments stay, and so does where x lies."""
    n = 40_000
    chain = ls.hmc(quartic, exact_starts(n), dt=1.1 if method == "leapfrog" else 1.6, leaps=2, steps=1)
    assert 0.2 < float(chain.acceptance.mean()) < 0.95  # much is refused, and something is taken
    at = torch.linspace(-5, 5, 200_001, dtype=F64)
    density = quartic(at[:, None]).exp()
    density /= density.sum()
    for g in (lambda x: x.square(), lambda x: x**4, lambda x: x, lambda x: (x.abs() < 0.5).to(F64)):
        mean = (density * g(at)).sum()
        error = ((density * g(at) ** 2).sum() - mean**2).sqrt() / math.sqrt(n)
        assert abs(float(g(chain.x[-1]).mean() - mean)) < 4.5 * float(error)


def test_hmc_moves_with_detailed_balance() -> None:
    """From exact draws, going from A to B is as frequent as from B to A, for cells of any kind."""
    n = 40_000
    x0 = exact_starts(n)
    x1 = ls.hmc(quartic, x0, dt=1.0, leaps=1, steps=1, seed=3).x[-1]
    cells = torch.tensor([-0.8, 0.0, 0.3, 1.0], dtype=F64)
    a, b = torch.bucketize(x0[:, 0], cells), torch.bucketize(x1[:, 0], cells)
    flow = torch.zeros(5, 5, dtype=F64).index_put((a, b), torch.ones(n, dtype=F64), accumulate=True)
    both = flow + flow.T
    assert ((flow - flow.T).abs() < 4.5 * both.clamp_min(1).sqrt()).all()


def test_small_steps_are_all_taken_and_what_blows_up_is_refused() -> None:
    x0 = exact_starts(50)
    assert float(ls.hmc(quartic, x0, dt=1e-3, leaps=5, steps=3).acceptance.min()) == 1.0
    wild = ls.hmc(quartic, x0, dt=50.0, leaps=20, steps=2)
    assert torch.equal(wild.x[-1], x0)
    assert float(wild.acceptance.max()) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_chain_i_does_not_depend_on_the_others(method: str) -> None:
    x0 = exact_starts(7)
    many = ls.langevin(quartic, x0, dt=0.2, steps=40, method=method, seed=5).x
    few = ls.langevin(quartic, x0[:3], dt=0.2, steps=40, method=method, seed=5).x
    assert torch.allclose(many[:, :3], few, atol=1e-12)
    assert not torch.allclose(ls.langevin(quartic, x0, dt=0.2, steps=40, method=method, seed=6).x, many)
    many = ls.hmc(quartic, x0, dt=0.9, leaps=2, steps=40, seed=5).x
    assert torch.allclose(
        many[:, :3], ls.hmc(quartic, x0[:3], dt=0.9, leaps=2, steps=40, seed=5).x, atol=1e-12
    )


def test_gradients_are_counted() -> None:
    x0, calls = exact_starts(2), 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return quartic(x)

    for method, expected in (("baoab", 11), ("ubu", 10), (RANDOM, 20)):
        calls = 0
        chain = ls.langevin(counted, x0, dt=0.1, steps=10, every=5, method=method)
        assert (calls, chain.stats.nfe, len(chain.x)) == (expected, expected, 2)
    for method, expected in (("leapfrog", 13), ("yoshida_4", 37), ("three_stage", 37)):
        calls = 0
        chain = ls.hmc(counted, x0, dt=0.1, leaps=3, steps=4, method=method)
        assert (calls, chain.stats.nfe) == (expected, expected)


def test_images_and_single_precision_are_states_too() -> None:
    x0 = torch.zeros(5, 1, 4, 4)
    assert ls.langevin(gaussian, x0, dt=0.1, steps=3, method=RANDOM).x.dtype == torch.float32
    assert ls.hmc(gaussian, x0, dt=0.1, leaps=2, steps=3).x.shape == (3, 5, 1, 4, 4)


LANGEVIN_BAD = {
    "method": ({"method": "ubo"}, "ubu"),
    "friction": ({"friction": 0.0}, "friction"),
    "dt": ({"dt": -0.1}, "dt"),
    "steps": ({"steps": 2, "every": 3}, "steps"),
    "velocities": ({"v0": torch.zeros(2, 3)}, "v0"),
    "start": ({"x0": torch.zeros(4)}, "x0"),
    "integers": ({"x0": torch.zeros(4, 2, dtype=torch.int64)}, "x0"),
}


@pytest.mark.parametrize(("given", "says"), LANGEVIN_BAD.values(), ids=LANGEVIN_BAD)
def test_bad_arguments_of_langevin(given: dict, says: str) -> None:
    how = {"log_density": gaussian, "x0": torch.zeros(4, 2), "dt": 0.1, "steps": 4, **given}
    with pytest.raises(ls.ArgumentError, match=says):
        ls.langevin(**how)


def test_bad_arguments_of_hmc() -> None:
    x0 = torch.zeros(4, 2)
    with pytest.raises(ls.ArgumentError, match="leapfrog"):
        ls.hmc(gaussian, x0, dt=0.1, leaps=1, steps=1, method="leapfrg")
    with pytest.raises(ls.ArgumentError, match="leaps"):
        ls.hmc(gaussian, x0, dt=0.1, leaps=0, steps=1)
    with pytest.raises(ls.SolveError, match="start"):
        ls.hmc(lambda x: x.sum(1) / 0.0, x0, dt=0.1, leaps=1, steps=1)


def test_failures_say_what_to_do() -> None:
    x0 = torch.ones(4, 2, dtype=F64)
    with pytest.raises(ls.SolveError, match=r"by step \d+ of 60; take a smaller dt = 5.0"):
        ls.langevin(quartic, x0, dt=5.0, steps=60)
    with pytest.raises(ls.SolveError, match=r"log_density, evaluation 1: it returned \(4, 2\)"):
        ls.langevin(lambda x: -(x**2), x0, dt=0.1, steps=2)
    with pytest.raises(ls.SolveError, match="evaluation 1: RuntimeError"):
        ls.hmc(lambda x: torch.zeros(4), x0, dt=0.1, leaps=1, steps=2)
