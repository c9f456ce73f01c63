"""Exponential methods: phi-functions of matrices, matrices as L, exponential Rosenbrock."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.matrix import phis
from longstride.methods import REGISTRY, get
from longstride.methods.exponential_rosenbrock import EXPONENTIAL_ROSENBROCK
from longstride.operator import phi
from longstride.steppers.expm import Elementwise, Krylov, Squared
from longstride.steppers.jacobian import Tangent
from longstride.steppers.kinds import stepper
from longstride.steppers.linear import structure

F64 = torch.float64
METHODS = tuple(EXPONENTIAL_ROSENBROCK)
PLANNED = [n for n in sorted(REGISTRY) if get(n).exponential and not get(n).diffusion]
CS = (0.5, 1.0)


def turned(eigenvalues: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A = Q diag Q^T, and Q."""
    n, made = len(eigenvalues), torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=made))[0]
    return Q @ torch.diag(eigenvalues) @ Q.T, Q


def steps(
    name: str, f, x0: Tensor, t: tuple[float, float], n: int, linear: str | None = None, graph: bool = False
) -> Tensor:
    """n equal steps of a method, whatever its estimate."""
    one = torch.full((), 1e-11, dtype=F64)
    stepping = stepper(name)(f, x0, 1.0, False, graph, one, one)
    stepping.suit(None, (), linear)
    h = torch.full((len(x0),), (t[1] - t[0]) / n, dtype=F64)
    x, first = x0, f(torch.full_like(h, t[0]), x0)
    stepping.prepare(x, first)
    for i in range(n):
        trial = stepping.trial(t[0] + i * h, h, x, first)
        x, first = trial.x1, trial.last
    return x


def order(errors: list[float]) -> float:
    return math.log2(errors[0] / errors[1])


# phi-functions of matrices


def test_phis_are_those_of_the_eigenvalues() -> None:
    z = torch.tensor([-300.0, -7.0, -0.4, 0.0, 1e-9, 2.0], dtype=F64)
    A, Q = turned(z)
    for k, found in enumerate(phis(A, 5)):
        assert torch.allclose(
            found, Q @ torch.diag(phi(k, z)) @ Q.T, rtol=0, atol=1e-13 * float(phi(k, z[-1]))
        )


def test_phis_of_a_jordan_block_are_derivatives() -> None:
    """phi_k(J) of a block of size 2 has phi_k'(z) beside its diagonal; it has no eigenvectors to use."""
    z, d = -30.0, 1e-5
    J = torch.tensor([[z, 1.0], [0.0, z]], dtype=F64)
    for k, found in enumerate(phis(J, 4)):
        slope = (phi(k, z + d) - phi(k, z - d)) / (2 * d)
        assert math.isclose(found[0, 0], phi(k, z), rel_tol=1e-12)
        assert math.isclose(found[0, 1], slope, rel_tol=1e-7)


def test_every_way_solves_linear_equations_with_polynomial_forcing() -> None:
    """y(c) = sum_k c^k phi_k(c A) w_k, of eigenvalues; matrices of three sizes in one batch."""
    z = torch.linspace(-1.0, 0.1, 9, dtype=F64) * torch.tensor([[0.1], [4.0], [900.0]], dtype=F64)
    Q = turned(z[0])[1]
    A = Q @ torch.diag_embed(z) @ Q.T
    made = torch.Generator().manual_seed(1)
    ws = torch.randn(4, 3, 9, dtype=F64, generator=made).unbind()
    product = lambda v: (A @ v[..., None])[..., 0]  # noqa: E731
    for n in (1, 2, 4):
        diagonal = Elementwise(z).solve([w @ Q for w in ws[:n]], CS)
        krylov = Krylov(product, lambda e: e.norm(dim=1) / 2e-11)
        for y, dense, by_products in zip(
            diagonal, Squared(A).solve(ws[:n], CS), krylov.solve(ws[:n], CS), strict=True
        ):
            exact, size = y @ Q.T, y.norm(dim=1, keepdim=True)
            assert bool(((dense - exact).abs() < 2e-13 * size).all())
            assert bool(((by_products - exact).abs() < 1e-10 * size.clamp_min(1)).all())
        assert not bool(krylov.failed.any())


def test_a_sample_is_solved_for_as_it_is_alone() -> None:
    z = torch.linspace(-1.0, 0.0, 40, dtype=F64) * torch.tensor([[3.0], [60.0], [500.0]], dtype=F64)
    Q = turned(z[0])[1]
    A, w = Q @ torch.diag_embed(z) @ Q.T, torch.ones(3, 40, dtype=F64)

    def krylov(rows: slice) -> Tensor:
        times = lambda v: (A[rows] @ v[..., None])[..., 0]  # noqa: E731
        return Krylov(times, lambda e: e.norm(dim=1) / 2e-8).solve([w[rows]], [1.0])[0]

    together = Squared(A).solve([w], [1.0])[0], krylov(slice(3))
    for i in range(3):
        rows = slice(i, i + 1)
        alone = Squared(A[rows]).solve([w[rows]], [1.0])[0], krylov(rows)
        for one, many in zip(alone, together, strict=True):
            assert torch.allclose(one[0], many[i], rtol=1e-12, atol=1e-15)


def test_a_krylov_space_that_is_too_small_is_said_to_be() -> None:
    z = torch.linspace(-1e6, -1.0, 300, dtype=F64)
    way = Krylov(lambda v: z * v, lambda e: e.norm(dim=1) / 2e-11)
    way.solve([torch.ones(1, 300, dtype=F64)], [1.0])
    assert way.failed.tolist() == [True]


# Matrices as L


@pytest.mark.parametrize("name", PLANNED)
def test_a_matrix_as_L_is_its_eigenvalues_in_other_coordinates(name: str) -> None:
    """So orders, which the laws measure with a diagonal L, are those of dense ones too."""
    # What undoes its steps divides by e^(h L): not for a stiff one.
    low = -2.0 if get(name).kind == "reversible" else -300.0
    z = torch.tensor([low, -3.0, -1.0, 0.0, 0.5], dtype=F64)
    A, Q = turned(z)
    f = lambda t, x: torch.sin(x + t)  # noqa: E731
    x0 = torch.linspace(-1, 1, 10, dtype=F64).view(2, 5)
    dense = ls.solve(ls.ODE(f, L=ls.Matrix(A)), x0, t=(0, 1), method=name, steps=7)
    rotated = ls.ODE(lambda t, y: f(t, y @ Q.T) @ Q, L=z)
    diagonal = ls.solve(rotated, x0 @ Q, t=(0, 1), method=name, steps=7)
    assert torch.allclose(dense.x, diagonal.x @ Q.T, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["exp_euler", "etdrk2", "krogstad"])
def test_orders_with_a_matrix(name: str) -> None:
    """x' = A x + g' - A g + x^2 - g^2, solved by g, with an A that has no orthogonal eigenvectors."""
    A = torch.tensor([[-20.0, 15.0, 0.0], [0.0, -3.0, 1.0], [0.5, 0.0, -1.0]], dtype=F64)
    phase = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    g = lambda t: torch.cos(2 * t + phase)  # noqa: E731
    forced = lambda t: -2 * torch.sin(2 * t + phase) - A @ g(t) - g(t) ** 2  # noqa: E731
    problem = ls.ODE(lambda t, x: forced(t) + x**2, L=ls.Matrix(A))
    start, end = (g(torch.tensor(t, dtype=F64)) for t in (0.0, 1.0))
    errors = [
        float((ls.solve(problem, start[None], t=(0, 1), method=name, steps=n).x[-1] - end).norm())
        for n in (64, 128)
    ]
    assert abs(order(errors) - get(name).order) < 0.2


def test_matrices_of_each_sample_complex_ones_and_backward_in_time() -> None:
    A = torch.stack([turned(torch.tensor([-2.0, -0.5, 0.3], dtype=F64), seed)[0] for seed in range(2)])
    x0 = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.2]], dtype=F64)
    still = lambda t, x: torch.zeros_like(x)  # noqa: E731
    for B, x in ((A, x0), (1j * A, x0.to(torch.complex128))):
        for end in (1.0, -1.0):
            found = ls.solve(ls.ODE(still, L=ls.Matrix(B)), x, t=(0, end), method="etdrk4", steps=3).x[-1]
            assert torch.allclose(
                found, (torch.linalg.matrix_exp(end * B) @ x[..., None])[..., 0], atol=1e-13
            )


def test_methods_that_are_not_exponential_see_a_matrix_as_part_of_the_field() -> None:
    A = turned(torch.tensor([-5.0, -1.0, 0.2], dtype=F64))[0]
    x0, f = torch.ones(1, 3, dtype=F64), lambda t, x: -(x**3)
    whole = ls.solve(ls.ODE(lambda t, x: f(t, x) + x @ A.T), x0, t=(0, 1), rtol=1e-8)
    for method in ("tsit5", "rodas5p", "pexprb43"):
        apart = ls.solve(ls.ODE(f, L=ls.Matrix(A)), x0, t=(0, 1), method=method, rtol=1e-8)
        assert torch.allclose(apart.x, whole.x, rtol=1e-6)


def test_weights_of_equal_steps_are_made_once_and_gradients_reach_the_matrix() -> None:
    A = turned(torch.tensor([-5.0, -1.0, 0.2], dtype=F64))[0].requires_grad_()
    x0, f = torch.ones(1, 3, dtype=F64), lambda t, x: -(x**3)

    def end(A: Tensor) -> Tensor:
        L = ls.Matrix(A)
        x = ls.solve(ls.ODE(f, L=L), x0, t=(0, 1), method="krogstad", steps=10).x[-1].sum()
        assert len(L.made) < 20  # 10 steps have 40 rows
        return x

    (slope,) = torch.autograd.grad(end(A), A)
    along = torch.linspace(-1, 1, 9, dtype=F64).view(3, 3)
    with torch.no_grad():
        apart = (end(A + 1e-5 * along) - end(A - 1e-5 * along)) / 2e-5
    assert math.isclose((slope * along).sum(), apart, rel_tol=1e-7)


def test_bad_matrices() -> None:
    for A in (torch.ones(3), torch.ones(2, 3), [[1.0]], torch.full((2, 2), math.nan)):
        with pytest.raises(ls.ArgumentError, match="matrix"):
            ls.Matrix(A)
    with pytest.raises(ls.ArgumentError, match="tensor weights"):
        ls.integrate.plan_problem(
            ls.ODE(lambda t, x: x, L=ls.Matrix(torch.eye(2))), (0.0, 1.0), "etdrk2"
        ).to_json()


@pytest.mark.parametrize("method", ["etdrk4", "rk4", "krogstad43", "tsit5"])
def test_a_complex_L_of_a_real_state_is_refused(method: str) -> None:
    """It would lose its imaginary part; a state that is complex is turned by it."""
    one, x0 = torch.eye(2, dtype=torch.complex128), torch.ones(1, 2, dtype=F64)
    equal = {"steps": 100} if method.endswith("rk4") or method == "rk4" else {"rtol": 1e-6, "atol": 1e-9}
    for L in (1j * torch.ones(2, dtype=torch.complex128), ls.Matrix(1j * one), ls.Krylov(1j * one), 1j):
        problem = ls.ODE(lambda t, x: 0 * x, L=L)
        with pytest.raises(ls.ArgumentError, match=r"L is complex.*complex128"):
            ls.solve(problem, x0, t=(0, 1), method=method, **equal)
        end = ls.solve(problem, x0 + 0j, t=(0, 1), method=method, **equal).x[-1]
        assert torch.allclose(end, x0 * cmath.exp(1j), rtol=1e-5)


# L by products


def diffusion(n: int, wide: float) -> tuple[Tensor, Tensor]:
    """The second difference with walls at 0, its eigenvalues from -4 wide on, as a matrix and they."""
    one = torch.ones(n - 1, dtype=F64)
    A = wide * (one.diag(1) + one.diag(-1) - 2 * torch.eye(n, dtype=F64))
    return A, torch.linalg.eigvalsh(A)


@pytest.mark.parametrize("name", [n for n in PLANNED if not n.startswith(("deis", "dpm"))])
def test_products_as_L_are_the_matrix_to_their_tolerance(name: str) -> None:
    """Every row of every method, also where Krylov spaces are smaller than the state."""
    A, _ = diffusion(60, 0.5 if get(name).kind == "reversible" else 40.0)
    f = lambda t, x: torch.sin(x + t)  # noqa: E731
    x0 = torch.linspace(-1, 1, 120, dtype=F64).view(2, 60)
    dense = ls.solve(ls.ODE(f, L=ls.Matrix(A)), x0, t=(0, 1), method=name, steps=5)
    free = ls.solve(ls.ODE(f, L=lambda v: v @ A.T), x0, t=(0, 1), method=name, steps=5)
    assert float((free.x - dense.x).norm()) < 1e-9 * float(dense.x.norm())


@pytest.mark.parametrize("tolerance", [1e-5, 1e-10])
def test_a_stiff_step_in_parts_keeps_the_tolerance(tolerance: float) -> None:
    """e^(hL) x and h phi_1(hL) b with h |lambda| = 2e4, where one space of 105 vectors does not do."""
    A, values = diffusion(300, 5e3)
    V = torch.linalg.eigh(A)[1]
    made = torch.Generator().manual_seed(3)
    x0, b = torch.randn(2, 1, 300, dtype=F64, generator=made)
    count = [0]

    def times(v: Tensor) -> Tensor:
        count[0] += 1
        return v @ A

    L = ls.Krylov(times, tolerance=tolerance)
    found = ls.solve(ls.ODE(lambda t, x: b, L=L), x0, t=(0, 1), method="exp_euler", steps=1).x[-1]
    exact = (x0 @ V * torch.exp(values) + b @ V * phi(1, values)) @ V.T
    assert float((found - exact).norm()) < 3 * tolerance * float(x0.norm())
    assert count[0] > 105


def test_samples_walk_through_their_step_as_they_do_alone() -> None:
    A, _ = diffusion(150, 1.0)
    wide = torch.tensor([[2000.0], [1.0], [300.0]], dtype=F64)  # the first takes parts of its steps
    x0 = torch.linspace(-1, 1, 450, dtype=F64).view(3, 150)

    def end(rows: slice) -> Tensor:
        problem = ls.ODE(lambda t, x: torch.cos(x), L=lambda v: wide[rows] * (v @ A))
        return ls.solve(problem, x0[rows], t=(0, 1), method="exp_adams_2", steps=2).x[-1]

    together = end(slice(3))
    for i in range(3):
        assert torch.allclose(end(slice(i, i + 1))[0], together[i], rtol=0, atol=3e-11)


@pytest.mark.parametrize("name", ["exp_euler", "etdrk2", "krogstad", "exp_adams_2"])
def test_orders_with_products(name: str) -> None:
    """u_t = u_zz + p(t, z) + u^2, solved by z (1 - z) e^t, in spaces smaller than the state."""
    n = 19
    A, _ = diffusion(n, (n + 1.0) ** 2)
    z = torch.arange(1, n + 1, dtype=F64) / (n + 1)
    g = lambda t: (z * (1 - z))[None] * torch.exp(t)  # noqa: E731
    forced = lambda t: g(t) + 2 * torch.exp(t) - g(t) ** 2  # noqa: E731
    problem = ls.ODE(lambda t, x: forced(t) + x**2, L=ls.Krylov(A, tolerance=1e-13))
    start, end = (g(torch.tensor(t, dtype=F64)) for t in (0.0, 1.0))
    errors = [
        float((ls.solve(problem, start, t=(0, 1), method=name, steps=m).x[-1] - end).norm()) for m in (32, 64)
    ]
    assert abs(order(errors) - get(name).order) < 0.2


def test_gradients_go_through_products() -> None:
    """To the state, and to what L is made of, beside those through a matrix."""
    A, _ = diffusion(30, 30.0)
    x0 = torch.linspace(0, 1, 30, dtype=F64)[None].requires_grad_()
    k = torch.tensor(0.7, dtype=F64, requires_grad=True)
    f = lambda t, x: -(x**3)  # noqa: E731
    slopes = []
    for L in (ls.Matrix(k * A), lambda v: k * (v @ A), lambda v: k * (v @ A)):
        grad = True if len(slopes) < 2 else "checkpoint"
        x = ls.solve(ls.ODE(f, L=L), x0, t=(0, 1), method="krogstad", steps=5, grad=grad).x
        slopes.append(torch.autograd.grad(x.square().sum(), (x0, k)))
    for one in slopes[1:]:
        for v, w in zip(slopes[0], one, strict=True):
            assert torch.allclose(v, w, rtol=1e-8, atol=1e-10)


def test_products_of_trees_complex_states_sparse_matrices_and_backward_in_time() -> None:
    A, _ = diffusion(12, 3.0)
    x0 = torch.linspace(-1, 1, 24, dtype=F64).view(2, 12)
    f = lambda t, x: torch.sin(x)  # noqa: E731
    how = {"t": (0.0, 1.0), "method": "etdrk4", "steps": 4}
    exact = ls.solve(ls.ODE(f, L=ls.Matrix(A)), x0, **how).x
    sparse = ls.solve(ls.ODE(f, L=ls.Krylov(A.to_sparse())), x0, **how).x
    tree = ls.ODE(lambda t, x: {"x": f(t, x["x"])}, L=lambda v: {"x": v["x"] @ A})
    for found in (sparse, ls.solve(tree, {"x": x0}, **how).x["x"]):
        assert torch.allclose(found, exact, rtol=1e-9, atol=1e-10)
    z0, still = x0.to(torch.complex128), lambda t, x: 0 * x
    for end in (1.0, -1.0):
        turn = ls.solve(
            ls.ODE(still, L=lambda v: 1j * (v @ A.to(v))), z0, t=(0, end), method="exp_euler", steps=2
        )
        assert torch.allclose(turn.x[-1], z0 @ torch.linalg.matrix_exp(1j * end * A), atol=1e-9)
    low = ls.solve(ls.ODE(f, L=lambda v: v @ A.float()), x0.float(), **how).x
    assert torch.allclose(low, exact.float(), atol=1e-4)


def test_steps_of_a_pair_along_products_where_they_are_shared() -> None:
    A, _ = diffusion(20, 30.0)
    x0, f = torch.linspace(0, 1, 40, dtype=F64).view(2, 20), lambda t, x: x - x**3
    how = {"t": (0, 1), "method": "krogstad43", "rtol": 1e-6, "shared_step": True}
    dense, free = (ls.solve(ls.ODE(f, L=L), x0, **how) for L in (ls.Matrix(A), ls.Krylov(A)))
    assert torch.equal(dense.stats.accepted, free.stats.accepted)
    assert torch.allclose(dense.x, free.x, rtol=1e-8)


def test_bad_products(monkeypatch: pytest.MonkeyPatch) -> None:
    x0, f = torch.ones(1, 4, dtype=F64), lambda t, x: 0 * x
    for bad in (3.0, torch.ones(3), torch.ones(2, 3)):
        with pytest.raises(ls.ArgumentError, match="products"):
            ls.Krylov(bad)
    with pytest.raises(ls.ArgumentError, match="tolerance"):
        ls.Krylov(torch.eye(4), tolerance=0.0)
    with pytest.raises(ls.SolveError, match="return L v, as v is"):
        ls.solve(ls.ODE(f, L=lambda v: v[:, :2]), x0, t=(0, 1), steps=1)
    with pytest.raises(ls.ArgumentError, match=r"L\(0\) is not 0"):
        ls.solve(ls.ODE(f, L=lambda v: 1 - v), x0, t=(0, 1), steps=1)
    for L in (ls.Matrix(torch.eye(2)), ls.Krylov(torch.eye(3))):
        with pytest.raises(ls.ArgumentError, match="a sample has 4 elements"):
            ls.solve(ls.ODE(f, L=L), x0, t=(0, 1), steps=1)
    monkeypatch.setattr("longstride.krylov.PARTS", 2)
    values = -(10.0 ** torch.linspace(0, 8, 200, dtype=F64))
    stiff, x = ls.ODE(lambda t, x: 1 + 0 * x, L=lambda v: values * v), torch.ones(1, 200, dtype=F64)
    with pytest.raises(ls.SolveError, match="too stiff for products"):
        ls.solve(stiff, x, t=(0, 1), method="exp_euler", steps=1)


# Exponential Rosenbrock


def bent(t: Tensor, x: Tensor) -> Tensor:
    """x' = cos(t) x^2: x0/(1 - x0 (sin t - sin t0))."""
    return torch.cos(t)[:, None] * x * x


@pytest.mark.parametrize("linear", [None, "krylov"])
@pytest.mark.parametrize("name", METHODS)
def test_measured_orders(name: str, linear: str | None) -> None:
    x0 = torch.tensor([[0.5, 0.7, 0.9]], dtype=F64)
    exact = x0 / (1 - x0 * (math.sin(1.5) - math.sin(0.3)))
    errors = [float((steps(name, bent, x0, (0.3, 1.5), n, linear) - exact).norm()) for n in (32, 64)]
    assert abs(order(errors) - EXPONENTIAL_ROSENBROCK[name].order) < 0.3


@pytest.mark.parametrize("name", METHODS)
def test_stiff_order(name: str) -> None:
    """Hochbruck and Ostermann's equation u_t = u_zz + 1/(1 + u^2) + p(t, z), solved by z (1 - z) e^t.

    Its spectrum reaches -1.6e4 with 63 points, h times that -2000 and -1000, and the order is that of the
    method (with classical order alone it would be lower).
    """
    n = 63
    z = torch.arange(1, n + 1, dtype=F64) / (n + 1)
    u = lambda t: (z * (1 - z)) * torch.exp(t)[:, None]  # noqa: E731

    def f(t: Tensor, x: Tensor) -> Tensor:
        pad = torch.nn.functional.pad(x, (1, 1))
        bend = (pad[:, 2:] - 2 * x + pad[:, :-2]) * (n + 1) ** 2
        made = u(t) + 2 * torch.exp(t)[:, None] - 1 / (1 + u(t) ** 2)
        return bend + 1 / (1 + x * x) + made

    t = torch.zeros(1, dtype=F64)
    errors = [float((steps(name, f, u(t), (0.0, 1.0), m) - u(t + 1)).norm()) for m in (8, 16)]
    assert abs(order(errors) - EXPONENTIAL_ROSENBROCK[name].order) < 0.35


@pytest.mark.parametrize("name", METHODS)
def test_the_estimate_falls_as_its_table_claims(name: str) -> None:
    x0, one, found = torch.tensor([[0.5, 0.7, 0.9]], dtype=F64), torch.ones((), dtype=F64), []
    for h in (0.05, 0.025):
        stepping = stepper(name)(bent, x0, 1.0, False, False, 0 * one, one)
        stepping.suit(None, (), None)
        s = torch.tensor([0.3], dtype=F64)
        found.append(float(stepping.ratio(stepping.trial(s, 0 * s + h, x0, bent(s, x0)))))
    assert abs(order(found) - EXPONENTIAL_ROSENBROCK[name].shrinks) < 0.3


@pytest.mark.parametrize("how", ["dense", "given", "banded", "diagonal", "krylov"])
@pytest.mark.parametrize("name", METHODS)
def test_linear_equations_are_solved_exactly_whatever_the_step(name: str, how: str) -> None:
    """x' = A x + b + t d: the step is A's whole solution, forward and backward."""
    A = torch.diag(torch.linspace(-40, 0, 6, dtype=F64))
    if how != "diagonal":
        A = A + torch.ones(5, dtype=F64).diag(1) - 2 * torch.ones(5, dtype=F64).diag(-1)
    b, d, x0 = torch.ones(6, dtype=F64), torch.linspace(0, 1, 6, dtype=F64), torch.ones(1, 6, dtype=F64)
    ways = {"given": lambda t, x: A.expand(len(x), 6, 6), "banded": (1, 1), "diagonal": "diagonal"}
    problem = ls.ODE(lambda t, x: x @ A.T + b + t[:, None] * d, jacobian=ways.get(how))
    linear = "krylov" if how == "krylov" else None
    for end in (2.0, -0.1):
        wide = torch.zeros(8, 8, dtype=F64)
        wide[:6, :6], wide[:6, 6], wide[:6, 7], wide[7, 6] = A, b, d, 1.0
        exact = torch.linalg.matrix_exp(end * wide)[:6] @ torch.cat([x0[0], torch.tensor([1.0, 0.0])])
        found = ls.solve(problem, x0, t=(0, end), method=name, linear=linear, rtol=1e-9, first_step=abs(end))
        assert found.stats.accepted.tolist() == [1]
        assert torch.allclose(found.x[-1, 0], exact, rtol=1e-8 if linear else 1e-11)


def test_bands_written_out() -> None:
    x = torch.linspace(-1, 1, 82, dtype=F64).view(2, 41)
    banded = structure((2, 1), x)
    pad = torch.nn.functional.pad
    f = lambda t, v: pad(v, (2, 1))[:, :-3] * v + pad(v, (0, 1))[:, 1:]  # noqa: E731
    tangent = Tangent(f, torch.zeros(2, dtype=F64), x)
    assert torch.equal(banded.whole(banded.jacobian(tangent)), structure(None, x).jacobian(tangent)[0])


@pytest.mark.parametrize("name", METHODS)
def test_krylov_agrees_with_matrices_to_the_tolerance_and_samples_step_alone(name: str) -> None:
    """The Brusselator, three diffusions in a batch."""
    wide = 17**2 * torch.tensor([0.002, 0.02, 0.1], dtype=F64)

    def f(t: Tensor, x: Tensor, wide: Tensor = wide) -> Tensor:
        u, v = x.unbind(-1)
        ends = torch.nn.functional.pad(u - 1, (1, 1)) + 1, torch.nn.functional.pad(v - 3, (1, 1)) + 3
        bend = [wide[:, None] * (w[:, 2:] - 2 * w[:, 1:-1] + w[:, :-2]) for w in ends]
        return torch.stack([1 + u * u * v - 4 * u + bend[0], 3 * u - u * u * v + bend[1]], -1)

    z = torch.arange(1, 17, dtype=F64) / 17
    x0 = torch.stack([1 + torch.sin(2 * math.pi * z), torch.full_like(z, 3.0)], -1).expand(3, 16, 2)
    tol = {"rtol": 1e-4, "atol": 1e-4}
    dense = ls.solve(ls.ODE(f), x0, t=(0, 1), method=name, **tol)
    free = ls.solve(ls.ODE(f), x0, t=(0, 1), method=name, linear="krylov", **tol)
    exact = ls.solve(ls.ODE(f), x0, t=(0, 1), method="radau5", rtol=1e-7, atol=1e-7)
    assert dense.status == free.status == ("reached",) * 3
    assert float((dense.x - free.x).abs().max()) < 1e-4
    assert float((dense.x - exact.x).abs().max()) < 2e-3
    alone = ls.solve(
        ls.ODE(lambda t, x: f(t, x, wide[1:2])), x0[1:2], t=(0, 1), method=name, linear="krylov", **tol
    )
    assert alone.stats.accepted[0] == free.stats.accepted[1]
    assert torch.allclose(alone.x[:, 0], free.x[:, 1], rtol=1e-10)


@pytest.mark.parametrize("linear", [None, "krylov"])
def test_gradients(linear: str | None) -> None:
    """Through equal steps, so that a difference quotient is of the same function."""

    def end(k: Tensor) -> Tensor:
        f = lambda t, x: torch.stack([-k * x[:, 0] + x[:, 1] ** 2, torch.cos(t) - x[:, 0]], 1)  # noqa: E731
        x0 = torch.tensor([[1.0, 0.5]], dtype=F64)
        return steps("pexprb43", f, x0, (0.0, 1.0), 6, linear, graph=k.requires_grad).sum()

    k = torch.tensor(30.0, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(end(k), k)
    with torch.no_grad():
        apart = (end(k.detach() + 1e-4) - end(k.detach() - 1e-4)) / 2e-4
    assert math.isclose(slope, apart, rel_tol=1e-6)


def test_a_matrix_as_a_tensor_is_refused_with_what_to_write() -> None:
    A, x = -torch.eye(3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    for options in ({"dt": 0.1}, {}):
        with pytest.raises(ls.ArgumentError, match=r"ls\.Matrix"):
            ls.solve(ls.ODE(lambda t, x: -x, L=A), x, t=(0, 1), **options)
    with pytest.raises(ls.ArgumentError, match=r"ls\.Krylov"):
        ls.ODE(lambda t, x: -x, L=A.to_sparse())


def test_complex_states_and_what_is_refused() -> None:
    """i psi' = (z + |psi|^2) psi: |psi| stays and the phase is t (z + |psi|^2)."""
    z = torch.tensor([1.0, 30.0], dtype=F64)
    x0 = torch.tensor([[0.5 + 0.5j, 1.0 - 0.2j]], dtype=torch.complex128)
    f = lambda t, x: -1j * (z + x.abs() ** 2) * x  # noqa: E731
    found = ls.solve(ls.ODE(f), x0, t=(0, 1), method="pexprb43", rtol=1e-8)
    assert torch.allclose(found.x[-1], x0 * torch.exp(-1j * (z + x0.abs() ** 2)), rtol=1e-5)
    for bad in ({"linear": "gmres"}, {"linear": "krylov", "jacobian": "diagonal"}):
        problem = ls.ODE(f, jacobian=bad.pop("jacobian", None))
        with pytest.raises(ls.ArgumentError, match="krylov"):
            ls.solve(problem, x0, t=(0, 1), method="exprb32", **bad)
