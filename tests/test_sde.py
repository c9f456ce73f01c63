"""Stochastic differential equations: paths, orders, conversions, invariances, gradients, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import longstride as ls
from counting import Counted
from longstride.methods.sde import INTERPRETATIONS, KINDS, SCHEMES
from longstride.sde.brownian import DEPTH, Independent, _root, _wavelets, keys, normals
from longstride.sde.course import Bound, Even
from sde_cases import CASES

F64 = torch.float64
CHOOSE = [(n, k, i) for n, k, i in CASES if SCHEMES[n].orders[k] >= 1 and not SCHEMES[n].pairs]
ADAPTIVE = [case for case in CHOOSE if case[1] != "additive"] + [
    (n, "additive", "ito") for n, k, i in CASES if (k, i) == ("additive", "ito")
]
MU, SIGMA = 0.7, torch.tensor([0.5, -0.3], dtype=F64)
MIX = torch.tensor([[0.5, 0.2], [-0.3, 0.4]], dtype=F64)
FIRST, WEIGHTS = torch.tensor([[1.0, 0.0], [0.3, 1.0]], dtype=F64)


def beside(t: Tensor, x: Tensor) -> Tensor:
    return t if t.ndim == 0 else t.view(-1, *(1,) * (x.ndim - 1))


def problem(noise: str, sense: str) -> ls.SDE:
    """Geometric Brownian motion for diagonal and scalar noise; else something nonlinear in time and x."""
    if noise in ("diagonal", "scalar"):
        return ls.SDE(lambda t, x: MU * x, lambda t, x: SIGMA * x, noise, sense)
    drift = lambda t, x: torch.sin(2 * x.flip(-1)) - x * torch.cos(3 * beside(t, x))  # noqa: E731
    if noise == "additive":
        mix = lambda t: 3 * (1 + torch.sin(2 * t))[..., None, None] * MIX  # noqa: E731
        g = lambda t, x: mix(t).expand(len(x), 2, 2)  # noqa: E731
    else:
        g = lambda t, x: torch.stack([FIRST.expand_as(x), x.flip(-1) * WEIGHTS], -1)  # noqa: E731
    return ls.SDE(drift, g, noise, sense)


def start(batch: int, columns: int = 2) -> Tensor:
    return torch.linspace(0.5, 1.5, batch * columns, dtype=F64).view(batch, columns)


def width(noise: str) -> int:
    return 1 if noise == "scalar" else 2


def exact(x0: Tensor, W: Tensor, sense: str) -> Tensor:
    return x0 * torch.exp(MU - (SIGMA**2 / 2 if sense == "ito" else 0) + SIGMA * W)


def rms(v: Tensor) -> float:
    return float(v.square().mean().sqrt())


# Brownian paths


@pytest.mark.parametrize("place", [1 << 29, 3 << 27, (1 << 30) * 5 // 8, 123456789, (1 << DEPTH) - 1])
def test_the_wavelets_add_up_to_the_covariance_of_a_motion_and_its_integral(place: int) -> None:
    """Of unit normals: Var W = t, Cov(W, int W) = t^2/2, Var int W = t^3/3, to round-off."""
    t = place * 2.0**-DEPTH
    weights = [tuple(map(torch.cat, _root(torch.tensor([t], dtype=F64))))]
    for level in range(DEPTH):
        theta = torch.tensor([(t * 2**level) % 1], dtype=F64)
        weights.append(tuple(map(torch.cat, _wavelets(theta, torch.tensor([0.5**level], dtype=F64)))))
    W, J = (torch.cat(part) for part in zip(*weights, strict=True))
    assert math.isclose(W @ W, t, rel_tol=1e-12)
    assert math.isclose(W @ J, t**2 / 2, rel_tol=1e-12)
    assert math.isclose(J @ J, t**3 / 3, rel_tol=1e-12)


def test_the_numbers_behind_it_are_independent_unit_normals() -> None:
    """Moments, and correlations with the other of a pair and with neighbours, within five standard errors."""
    a, b = normals(keys(5, 0, 500)[:, None], torch.arange(500))
    n = a.numel()
    for v in (a, b):
        for power, moment in enumerate((0, 1, 0, 3, 0, 15), 1):
            spread = math.sqrt(math.prod(range(1, 2 * power, 2)) - moment**2)
            assert abs(float((v**power).mean()) - moment) < 5 * spread / math.sqrt(n)
    pairs = [(a, b), (a[1:], a[:-1]), (a[:, 1:], a[:, :-1]), (a**2 - 1, b**2 - 1), (a[1:, 1:], b[:-1, :-1])]
    for v, w in pairs:
        scale = math.sqrt(float((v**2).mean() * (w**2).mean()))
        assert abs(float((v * w).mean())) < 5 * scale / math.sqrt(v.numel())


def test_increments_have_the_variances_of_their_length_and_are_independent() -> None:
    path = ls.Brownian((10_000, 2), span=(-1.0, 3.0), seed=3)
    W, H = path.between(path.place([-1.0, -0.3, 0.1, 0.1001, 3.0])[:, None])
    h = torch.tensor([0.7, 0.4, 0.0001, 2.9], dtype=F64)[:, None, None]
    parts = torch.cat([W / h.sqrt(), H / (h / 12).sqrt()]).flatten(1)
    error = parts @ parts.T / parts.shape[1] - torch.eye(8, dtype=F64)
    assert error.abs().max() < 5 * math.sqrt(2 / parts.shape[1])


def test_chens_relation_holds_for_any_refinement() -> None:
    """W adds up, and h (W/2 + H), the integral of the path from the beginning of an interval."""
    path = ls.Brownian((5, 3), span=(0.0, 2.0), seed=7)
    marks = path.place([0.3, 0.9, 0.901, 1.0, 1.75])[:, None]
    W, H = path.between(marks)
    h = (marks.diff(dim=0) * 1.0).double().view(-1, 1, 1) * path.unit
    (whole_W,), (whole_H,) = path.between(marks[::4])
    area = (h * (W.cumsum(0) - W / 2 + H)).sum(0) / h.sum()
    assert torch.allclose(W.sum(0), whole_W, atol=1e-14)
    assert torch.allclose(area, whole_W / 2 + whole_H, atol=1e-13)
    (back_W,), (back_H,) = path.between(marks[[4, 0]])
    assert torch.equal(back_W, -whole_W)
    assert torch.allclose(back_H, whole_H, atol=1e-14)


def test_a_sample_has_its_path_whatever_the_batch_the_other_times_and_the_span_asked() -> None:
    few, many = (ls.Brownian((n, 3), span=(0.0, 1.0), seed=11) for n in (3, 70))
    times = torch.linspace(0.1, 0.8, 70, dtype=F64)
    for a, b in ((0.25, 0.5), (0.1, 0.77)):
        for one, other in zip(few(a, b), many(a, b), strict=True):
            assert torch.equal(one, other[:3])
    each = many(0.0, times)[0]
    for i in (0, 35, 69):
        assert torch.allclose(many(0.0, float(times[i]))[0][i], each[i], atol=1e-15)
    assert not torch.equal(many(0.0, 1.0)[0], replace(many, seed=12)(0.0, 1.0)[0])


@pytest.mark.parametrize("area", [False, True])
def test_increments_of_equal_steps_are_the_same_for_any_chunk_and_batch(area: bool) -> None:
    few, many = Independent((2, 3), 5), Independent((40, 3), 5)
    W, H = many.increments(0, 30, area)
    for a, b in ((0, 7), (7, 8), (13, 30)):
        w, h = few.increments(a, b, area)
        assert torch.equal(w, W[a:b, :2])
        assert h is None if H is None else torch.equal(h, H[a:b, :2])


# Areas of pairs of motions


def test_areas_of_steps_have_the_moments_of_levys() -> None:
    """Var A = h^2/4, h^2/20 + h (H_i^2 + H_j^2)/5 around H_i W_j - W_i H_j; no correlation with W_i W_j."""
    h, source = 0.3, Independent((40_000, 3), seed=4)
    W, H = source.increments(0, 2, True)
    W, H = W * h**0.5, H * (h / 12) ** 0.5
    A = source.areas(0, 2, W, H, torch.full((2, 1, 1), h, dtype=F64))
    assert torch.equal(A, -A.mT)
    assert torch.equal(A[1:], source.areas(1, 2, W[1:], H[1:], torch.full((1, 1, 1), h, dtype=F64)))
    one, n = A[..., 0, 2], A[..., 0, 2].numel()
    rest = one - (H[..., 0] * W[..., 2] - W[..., 0] * H[..., 2])
    spread = h**2 / 20 + h / 5 * (H[..., 0] ** 2 + H[..., 2] ** 2)
    assert math.isclose(one.var(), h**2 / 4, rel_tol=0.03)
    assert math.isclose((rest**2 / spread).mean(), 1.0, rel_tol=5 * math.sqrt(2 / n))
    for other in (W[..., 0] * W[..., 2], A[..., 0, 1], A[..., 1, 2]):
        assert abs(float((one * other).mean() / (one.std() * other.std()))) < 5 / math.sqrt(n)


def test_areas_of_a_path_add_up_and_converge() -> None:
    """What parts leave out has a variance of h^2/(12 parts); Chen's relation; the path run back."""
    path = ls.Brownian((3000, 2), (0.0, 1.0), seed=9)
    ends = path.place([0.25, 0.75])[:, None]
    W, fine = path.areas(ends, 256)
    for parts in (2, 16):
        left = path.areas(ends, parts)[1][0, :, 0, 1] - fine[0, :, 0, 1]
        assert math.isclose(left.square().mean(), 0.5**2 / 12 * (1 / parts - 1 / 256), rel_tol=0.2)
    w, a = path.areas(path.place([0.25, 0.5, 0.75])[:, None], 128)
    crossed = w[0, :, :, None] * w[1, :, None]
    assert torch.allclose(a.sum(0) + (crossed - crossed.mT) / 2, fine[0], atol=1e-13)
    back = path.areas(ends.flip(0), 256)
    assert torch.allclose(back[0], -W, atol=1e-14)
    assert torch.allclose(back[1], -fine, atol=1e-13)


# Orders


@pytest.mark.parametrize("sense", INTERPRETATIONS)
def test_order_one_with_noise_that_does_not_commute(sense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one half of the methods that do not know the areas of the path."""
    what, path, x0 = problem("general", sense), ls.Brownian((150, 2), (0.0, 1.0), seed=2), start(150)
    run = lambda n, name: ls.solve(what, x0, t=(0.0, 1.0), steps=n, method=name, brownian=path).x[-1]  # noqa: E731
    areas, plain = ls.Brownian.areas, "euler_maruyama" if sense == "ito" else "heun"
    with monkeypatch.context() as fewer:  # 512 parts of 512 steps would be dear
        fewer.setattr(ls.Brownian, "areas", lambda path, places, parts: areas(path, places, 32))
        end = run(512, "milstein_levy")
    for name, order, steps in (("milstein_levy", 1.0, (8, 32)), (plain, 0.5, (32, 128))):
        coarse, fine = (rms(run(n, name) - end) for n in steps)
        assert abs(math.log(coarse / fine, 4) - order) < 0.2


@pytest.mark.parametrize("sense", INTERPRETATIONS)
def test_areas_do_not_matter_where_noise_commutes(sense: str) -> None:
    """Diagonal noise written as general: Milstein's step, whatever A."""
    plain, x0 = problem("diagonal", sense), start(5)
    wide = replace(plain, g=lambda t, x: torch.diag_embed(plain.g(t, x)), noise="general")
    how = {"t": (0.0, 1.0), "steps": 8, "brownian": ls.Brownian((5, 2), (0.0, 1.0), seed=1)}
    one, other = (
        ls.solve(plain, x0, method="milstein", **how),
        ls.solve(wide, x0, method="milstein_levy", **how),
    )
    assert torch.allclose(one.x, other.x, rtol=1e-12)


@pytest.mark.parametrize(("name", "noise", "sense"), [case for case in CASES if not SCHEMES[case[0]].pairs])
def test_strong_orders(name: str, noise: str, sense: str) -> None:
    """Errors on the same paths: from the exact solution where there is one, else from many short steps."""
    order, what = SCHEMES[name].orders[noise], problem(noise, sense)
    batch = 1000 if noise in ("diagonal", "scalar") else 300
    path, x0 = ls.Brownian((batch, width(noise)), span=(0.0, 1.0), seed=2), start(batch)
    if noise in ("diagonal", "scalar"):
        end = exact(x0, path(0.0, 1.0)[0], sense)
    else:
        end = ls.solve(what, x0, t=(0.0, 1.0), steps=512, brownian=path).x[-1]
    steps = (16, 128) if noise in ("diagonal", "scalar") else (16, 64)
    coarse, fine = (
        rms(ls.solve(what, x0, t=(0.0, 1.0), steps=n, method=name, brownian=path).x[-1] - end) for n in steps
    )
    # Of reversible_heun 0.5 is what is proven; a linear equation is kinder.
    shown = 1.0 if SCHEMES[name].reversible and noise in ("diagonal", "scalar") else order
    assert abs(math.log(coarse / fine) / math.log(steps[1] / steps[0]) - shown) < 0.2


def test_the_mean_of_euler_maruyama_is_that_of_eulers_method() -> None:
    """E x_n = (1 + mu h)^n x_0: weak order 1. Noise of 40,000 paths, within five standard errors."""
    x0 = torch.ones(40_000, 1, dtype=F64)
    what = ls.SDE(lambda t, x: MU * x, lambda t, x: 0.5 * x)
    for n in (2, 8):
        x = ls.solve(what, x0, t=(0.0, 1.0), steps=n, method="euler_maruyama", seed=4).x[-1]
        assert abs(float(x.mean()) - (1 + MU / n) ** n) < 5 * float(x.std()) / 200


@pytest.mark.parametrize("name", ["sra1", "shark"])
def test_an_ornstein_uhlenbeck_process_has_its_variance(name: str) -> None:
    """dx = -x dt + sqrt(2) dW from 0: 1 - e^(-2t). In steps of 1/8 to within 0.002, besides the noise."""
    what = ls.SDE(lambda t, x: -x, lambda t, x: torch.full_like(x, math.sqrt(2)), "additive")
    x = ls.solve(what, torch.zeros(100_000, 1, dtype=F64), t=(0.0, 2.0), dt=0.125, method=name, seed=1).x[-1]
    variance = 1 - math.exp(-4)
    assert abs(float(x.var()) - variance) < 0.002 + 5 * variance * math.sqrt(2 / 100_000)


# The two integrals


@pytest.mark.parametrize("noise", KINDS)
def test_conversion_there_and_back_is_the_drift_it_was(noise: str) -> None:
    what, x, t = problem(noise, "ito"), start(4), torch.tensor(0.3, dtype=F64)
    there = what.to("stratonovich")
    assert torch.allclose(there.to("ito").f(t, x), what.f(t, x), atol=1e-15)
    by_hand = {
        "additive": 0 * x,
        "diagonal": SIGMA**2 * x,
        "scalar": SIGMA**2 * x,
        "general": 0.3 * x,  # column 1 is constant, column 2 is (0.3 y, x)
    }[noise]
    assert torch.allclose(what.f(t, x) - there.f(t, x), by_hand / 2, atol=1e-15)


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_both_integrals_of_a_converted_equation_have_one_solution(noise: str) -> None:
    what, path, x0 = problem(noise, "ito"), ls.Brownian((300, width(noise)), (0.0, 1.0), seed=6), start(300)
    apart = []
    for steps in (16, 256):
        ends = [
            ls.solve(p, x0, t=(0.0, 1.0), steps=steps, method=m, brownian=path).x[-1]
            for p, m in ((what, "euler_maruyama"), (what.to("stratonovich"), "heun"))
        ]
        apart.append(rms(ends[0] - ends[1]))
    assert math.isclose(apart[0] / apart[1], 4.0, rel_tol=0.4)  # of order 1/2


def test_backward_leads_back() -> None:
    """Stratonovich's integral along the reversed path, from the exact end to the start, with order 1."""
    what, path, x0 = (
        problem("diagonal", "stratonovich"),
        ls.Brownian((500, 2), (0.0, 1.0), seed=8),
        start(500),
    )
    end = exact(x0, path(0.0, 1.0)[0], "stratonovich")
    coarse, fine = (
        rms(ls.solve(what, end, t=(1.0, 0.0), steps=n, method="heun", brownian=path).x[-1] - x0)
        for n in (16, 64)
    )
    assert abs(math.log2(coarse / fine) / 2 - 1) < 0.2
    again = ls.solve(what, end, t=(1.0, 0.0), method="heun", rtol=1e-4, atol=1e-4, brownian=path)
    assert rms(again.x[-1] - x0) < 3e-3


@pytest.mark.parametrize("grad", [True, "checkpoint"])
def test_every_step_is_saved_and_the_end_is_where_the_run_ends(grad: bool | str) -> None:
    """What the run gives at fewer times is part of it, and so is the gradient."""
    what, x0 = problem("diagonal", "ito"), start(3).requires_grad_()
    run = lambda **more: ls.solve(what, x0, t=(0.0, 1.0), steps=8, grad=grad, **more)  # noqa: E731
    whole, third, one = run(save_at="steps"), run(save_every=3), run()
    assert whole.t == tuple(n / 8 for n in range(9))
    assert third.t == (0.0, 0.375, 0.75)
    assert torch.equal(third.x, whole.x[::3])
    assert torch.equal(third.x_end, whole.x[-1])
    assert torch.equal(one.x[0], whole.x[-1])
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=F64)[:, None, None]
    found = [torch.autograd.grad((weights * x).sum(), x0)[0] for x in (third.x, whole.x[::3])]
    torch.testing.assert_close(*found)


def test_backward_the_steps_have_the_noise_they_had_whatever_their_lengths() -> None:
    """dx = g dW with constant columns is an increment of the path: forward and back are one another's."""
    motion = ls.SDE(lambda t, x: 0 * x, lambda t, x: MIX.expand(len(x), 2, 2), "additive")
    there, back = [0.1, 1.0], [0.1, 0.0]  # five steps of each part: 0.02 and 0.18 long
    options = {"steps": 5, "method": "sra1"}
    ahead = ls.solve(motion, start(4), t=(0.0, 1.0), save_at=there, **options).x
    found = ls.solve(motion, ahead[-1], t=(1.0, 0.0), save_at=back, **options).x
    torch.testing.assert_close(found, torch.stack([ahead[0], start(4)]))


# Reversible Heun


@pytest.mark.parametrize("noise", KINDS)
def test_reversible_heun_comes_back_to_round_off(noise: str) -> None:
    what, x0 = problem(noise, "stratonovich"), start(6)
    eq = Bound(what, noise in ("additive", "general"), False)
    source = Independent((6, width(noise)), 3)
    course = Even("reversible_heun", SCHEMES["reversible_heun"], eq, x0, [i / 50 for i in range(51)], source)
    kept = ((x0,), ())
    for n in range(50):
        kept = course.step(n, kept)
    *_, (n, ((x,), _)) = course.undone(tuple(kept[0]))
    assert n == 0
    assert torch.allclose(x, x0, atol=1e-12)


# Invariances


@pytest.mark.parametrize(("name", "noise", "sense"), CASES)
def test_a_sample_does_not_depend_on_its_batch_bit_for_bit(name: str, noise: str, sense: str) -> None:
    what, x0 = problem(noise, sense), start(9)
    runs = [ls.solve(what, x0[:n], t=(0.0, 1.0), dt=0.1, method=name, seed=5).x for n in (1, 4, 9)]
    assert all(torch.equal(run, runs[-1][:, : run.shape[1]]) for run in runs)


@pytest.mark.parametrize(("name", "noise", "sense"), ADAPTIVE)
def test_adaptive_runs_depend_neither_on_the_batch_nor_lose_their_path(
    name: str, noise: str, sense: str
) -> None:
    what, x0, marks = problem(noise, sense), start(5), [0.0, 0.35, 1.0]
    ask = {"t": (0.0, 1.0), "method": name, "save_at": marks, "rtol": 2e-2, "atol": 2e-2}
    path = ls.Brownian((5, width(noise)), (0.0, 1.0), seed=9)
    run = ls.solve(what, x0, brownian=path, **ask)
    assert torch.equal(run.x, ls.solve(what, x0, seed=9, **ask).x)
    assert torch.equal(run.x[:, :2], ls.solve(what, x0[:2], seed=9, **ask).x)
    assert torch.equal(run.x[0], x0)
    near = ls.solve(what, x0, t=(0.0, 1.0), steps=400, brownian=path, save_at=marks).x
    assert rms(run.x - near) < 0.1


def test_single_precision_follows_double() -> None:
    for kind in ("diagonal", "scalar"):
        g = lambda t, x: 0.5 * x  # noqa: E731
        what, x0 = ls.SDE(lambda t, x: MU * x, g, kind), start(20)
        for options in ({"dt": 0.02}, {"rtol": 1e-2}):
            ends = [ls.solve(what, v, t=(0.0, 1.0), seed=2, **options).x[-1] for v in (x0, x0.float())]
            assert ends[1].dtype == torch.float32
            assert rms(ends[0] - ends[1]) < (1e-5 if "dt" in options else 5e-3)


def test_states_of_any_shape() -> None:
    """Each element of [B, 2, 3] with noise of its own, by columns or beside x, is [B, 6] in another shape."""
    x0 = start(4, 6)
    for g, flat, shape in (
        (lambda t, x: 0.5 * x, "diagonal", (2, 3)),
        (lambda t, x: 0.5 * x[..., None].expand(*x.shape, 2), "general", (2, 3)),
        (lambda t, x: torch.ones_like(x), "additive", (2, 3)),
    ):
        what = ls.SDE(lambda t, x: -x, g, flat)
        run = ls.solve(what, x0, t=(0.0, 1.0), steps=8, seed=1).x[-1]
        other = ls.solve(what, x0.view(4, *shape), t=(0.0, 1.0), steps=8, seed=1).x[-1]
        assert torch.allclose(run.view_as(other), other, rtol=1e-14)
    for noise in ("diagonal", "scalar", "additive"):
        what = ls.SDE(lambda t, x: -x, lambda t, x: torch.ones_like(x), noise)
        for options in ({"dt": 0.1}, {"rtol": 0.01}):
            flat = ls.solve(what, x0[:, 0], t=(0.0, 1.0), seed=1, **options).x
            assert torch.allclose(flat, ls.solve(what, x0[:, :1], t=(0.0, 1.0), seed=1, **options).x[..., 0])


# Steps chosen by their error


@pytest.mark.parametrize("name", ["milstein", "sri1w1"])
def test_the_error_falls_with_the_tolerance(name: str) -> None:
    path, x0 = ls.Brownian((300, 2), (0.0, 1.0), seed=2), start(300)
    end = exact(x0, path(0.0, 1.0)[0], "ito")
    what, found = problem("diagonal", "ito"), []
    for tol in (1e-1, 1e-3):
        run = ls.solve(what, x0, t=(0.0, 1.0), method=name, rtol=tol, atol=tol, brownian=path)
        found.append(rms(run.x[-1] - end))
    assert found[1] < found[0] / 5
    assert len(set(run.stats.nfe_each.tolist())) > 1


def test_what_is_refused_would_go_elsewhere() -> None:
    """Euler-Maruyama on dx = x dW leaves out (W^2 - h)/2, whose mean over accepted steps is not 0."""
    path, x0 = ls.Brownian((1000, 1), (0.0, 1.0), seed=1), torch.ones(1000, 1, dtype=F64)
    what = ls.SDE(lambda t, x: 0 * x, lambda t, x: x)
    with pytest.raises(ls.ArgumentError, match="another limit"):
        ls.solve(what, x0, t=(0.0, 1.0), method="euler_maruyama")
    SCHEMES["unguarded"] = replace(SCHEMES["euler_maruyama"], orders={"diagonal": 1.0})
    try:
        run = ls.solve(what, x0, t=(0.0, 1.0), method="unguarded", rtol=1e-2, atol=1e-2, brownian=path)
    finally:
        del SCHEMES["unguarded"]
    W = path(0.0, 1.0)[0]
    even = ls.solve(what, x0, t=(0.0, 1.0), method="euler_maruyama", steps=64, brownian=path).x[-1]
    biases = [float((x.abs().log() - (W - 0.5)).mean()) for x in (run.x[-1], even)]
    assert biases[0] > 0.08 > 0.03 > abs(biases[1])


@pytest.mark.parametrize(("name", "noise", "sense"), CASES)
@pytest.mark.parametrize("options", [{"steps": 7}, {"rtol": 0.1}, {"rtol": 1e-3, "nfe": 60}])
def test_nfe_is_what_f_and_g_count(name: str, noise: str, sense: str, options: dict) -> None:
    if "rtol" in options and (name, noise, sense) not in ADAPTIVE:
        return
    what = problem(noise, sense)
    f, g = Counted(what.f), Counted(what.g)
    run = ls.solve(replace(what, f=f, g=g), start(1), t=(0.0, 1.0), method=name, **options)
    assert run.stats.nfe == f.calls + g.calls <= options.get("nfe", 10_000)
    if "nfe" in options:
        assert run.status in (("nfe_limit",), ("reached",))
        assert run.x.isnan().all() == (run.status == ("nfe_limit",))


def test_failure_is_of_one_sample_and_says_where() -> None:
    """dx = x^2 dt is infinite at 1/x0; the other sample goes on."""
    what = ls.SDE(lambda t, x: x * x, lambda t, x: 0 * x)
    x0 = torch.tensor([[0.5], [4.0]], dtype=F64)
    for options in ({"dt": 0.01}, {"rtol": 1e-2, "min_step": 1e-4}):
        run = ls.solve(what, x0, t=(0.0, 1.0), save_at=[0.1, 1.0], method="milstein", **options)
        assert run.status[0] == "reached" != run.status[1]
        assert torch.allclose(run.x[1, 0], torch.ones(1, dtype=F64), rtol=0.06)
        assert run.x[0].isfinite().all()
        assert run.x[1, 1].isnan().all()
        assert 0.2 < run.t_end[1] < 0.5
        assert "milstein" in run.message[1]
        assert run.x_end[1].isfinite().all()
        with pytest.raises(ls.SolveError, match="1 of 2 samples failed"):
            ls.solve(what, x0, t=(0.0, 1.0), raise_on_failure=True, method="milstein", **options)


def test_nan_at_the_start_and_an_interval_of_length_zero() -> None:
    x0 = torch.tensor([[math.nan], [1.0]], dtype=F64)
    what = ls.SDE(lambda t, x: -x, lambda t, x: x)
    for options in ({"dt": 0.1}, {"rtol": 0.1}):
        run = ls.solve(what, x0, t=(0.0, 1.0), **options)
        assert run.status == ("non_finite", "reached")
        assert run.t_end.tolist() == [0.0, 1.0]
        run = ls.solve(what, x0[1:], t=(2.0, 2.0), **options)
        assert torch.equal(run.x, x0[None, 1:])
        assert (run.status, run.stats.nfe) == (("reached",), 0)


# Gradients


def weighted(x: Tensor) -> Tensor:
    return (x * torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view_as(x)).sum()


@pytest.mark.parametrize(("name", "noise", "sense"), CASES)
@pytest.mark.parametrize("adaptive", [False, True])
def test_all_ways_give_the_gradient_of_backpropagation(
    name: str, noise: str, sense: str, adaptive: bool
) -> None:
    if adaptive and (name, noise, sense) not in ADAPTIVE:
        return
    base, theta = problem(noise, sense), torch.tensor(0.8, dtype=F64, requires_grad=True)
    what = replace(base, f=lambda t, x: theta * base.f(t, x), g=lambda t, x: theta**2 * base.g(t, x))
    x0 = start(3).requires_grad_()
    ask = {"rtol": 0.1, "atol": 0.1} if adaptive else {"dt": 0.11}
    ways = [True, "checkpoint", ls.gradients.Checkpoint(memory=2)]
    ways += ["reverse"] * (SCHEMES[name].reversible and not adaptive)
    found = []
    for way in ways:
        run = ls.solve(what, x0, t=(0.0, 1.0), save_at=[0.0, 0.5, 1.0], method=name, seed=3, grad=way, **ask)
        found.append(torch.autograd.grad(weighted(run.x), (x0, theta)))
    with torch.no_grad():
        plain = ls.solve(what, x0, t=(0.0, 1.0), save_at=[0.0, 0.5, 1.0], method=name, seed=3, **ask)
    assert torch.equal(plain.x, run.x)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.allclose(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "noise", "sense"), CASES)
def test_gradients_agree_with_finite_differences(name: str, noise: str, sense: str) -> None:
    base, x0 = problem(noise, sense), start(3)

    def loss(x: Tensor, theta: Tensor) -> Tensor:
        what = replace(base, f=lambda t, x: theta * base.f(t, x), g=lambda t, x: theta**2 * base.g(t, x))
        return weighted(ls.solve(what, x, t=(0.0, 1.0), steps=6, method=name, seed=3).x)

    theta, v, e = torch.tensor(0.8, dtype=F64), torch.cos(x0 * 50), 1e-5
    dx, d_theta = torch.autograd.grad(
        loss(x := x0.clone().requires_grad_(), p := theta.clone().requires_grad_()), (x, p)
    )
    along = (loss(x0 + e * v, theta) - loss(x0 - e * v, theta)) / (2 * e)
    by_theta = (loss(x0, theta + e) - loss(x0, theta - e)) / (2 * e)
    assert math.isclose((dx * v).sum(), along, rel_tol=1e-7, abs_tol=1e-8)
    assert math.isclose(d_theta, by_theta, rel_tol=1e-7, abs_tol=1e-8)


def test_without_anything_to_differentiate_there_is_no_graph() -> None:
    for name in SCHEMES:
        noise = next(iter(SCHEMES[name].orders))
        what = problem(noise, SCHEMES[name].interpretations[0])
        assert not ls.solve(what, start(2), t=(0.0, 1.0), dt=0.5, method=name).x.requires_grad


# Bad input


def test_methods_of_another_kind_are_refused_with_what_fits() -> None:
    with pytest.raises(ls.ArgumentError, match=r"not for ito, general.*euler_maruyama \(0.5\)"):
        ls.solve(problem("general", "ito"), start(2), t=(0.0, 1.0), dt=0.1, method="milstein")
    with pytest.raises(ls.ArgumentError, match=r"stratonovich.*sri1w1 \(1.5\).*problem\.to"):
        ls.solve(problem("diagonal", "ito"), start(2), t=(0.0, 1.0), dt=0.1, method="heun")
    with pytest.raises(ls.ArgumentError, match=r"milstein_levy.*ls\.SDE\(f, g, noise='general'\)"):
        ls.solve(problem("diagonal", "ito"), start(2), t=(0.0, 1.0), dt=0.1, method="milstein_levy")
    with pytest.raises(ls.ArgumentError, match="unknown method of an SDE"):
        ls.solve(problem("diagonal", "ito"), start(2), t=(0.0, 1.0), dt=0.1, method="rk4")
    with pytest.raises(ls.ArgumentError, match="unknown noise"):
        ls.SDE(lambda t, x: x, lambda t, x: x, "diagnal")
    with pytest.raises(ls.ArgumentError, match="unknown interpretation"):
        ls.SDE(lambda t, x: x, lambda t, x: x, "diagonal", "strat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": (1.0, 0.0)}, "does not run backward"),
        ({"x0": torch.ones(2, dtype=torch.complex128)}, "real"),
        ({"x0": torch.ones(2, dtype=torch.int64)}, "floating"),
        ({"t": 1.0}, r"\(start, end\)"),
        ({"save_at": [0.5, 0.2]}, "turning back"),
        ({"steps": 3}, "either dt= or steps="),
        ({"rtol": 1e-3}, "unknown argument"),
        ({"seed": 0.5}, "seed"),
        ({"grad": "reverse"}, "reversible_heun"),
        ({"grad": "adjoint"}, "unknown way"),
        ({"callback": print}, "callback"),
        ({"dt": None, "rtoll": 1e-3}, "unknown argument of an SDE.*rtol"),
        ({"dt": None, "max_steps": -1}, "max_steps"),
        ({"dt": None, "rtol": 0.0, "atol": 0.0}, "both 0"),
        ({"brownian": ls.Brownian((2, 3), (0.0, 1.0))}, "shape"),
        ({"brownian": ls.Brownian((2, 2), (0.5, 1.0))}, "span"),
        ({"t": (0.0, torch.tensor(1.0, requires_grad=True))}, "derivative"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    f = Counted(lambda t, x: -x)
    what = ls.SDE(f, lambda t, x: x)
    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(what, **{"x0": start(2), "t": (0.0, 1.0), "dt": 0.1, **arguments})
    assert f.calls <= ("brownian" in arguments or "seed" in arguments)


@pytest.mark.parametrize(
    ("noise", "g", "message"),
    [
        ("diagonal", lambda t, x: x[..., None], "g returned"),
        ("diagonal", lambda t, x: x.float(), "float32"),
        ("diagonal", lambda t, x: 0.5, "g returned float"),
        ("general", lambda t, x: x, "g returned"),
        ("additive", lambda t, x: x[:, :1], "g returned"),
        ("scalar", lambda t, x: x @ torch.ones(7, dtype=F64), "RuntimeError"),
    ],
)
def test_what_g_must_not_return_is_named(noise: str, g: Callable, message: str) -> None:
    with pytest.raises(ls.SolveError, match=message):
        ls.solve(ls.SDE(lambda t, x: -x, g, noise), start(2), t=(0.0, 1.0), dt=0.1, method="euler_maruyama")


@pytest.mark.parametrize("options", [{"dt": 0.1}, {"rtol": 0.1}])
def test_an_error_of_f_is_raised_with_the_time(options: dict) -> None:
    def f(t: Tensor, x: Tensor) -> Tensor:
        if t.max() > 0.45:
            raise RuntimeError("no further")
        return -x

    with pytest.raises(ls.SolveError, match=r"milstein.*t = 0\.[3-5].*no further"):
        ls.solve(ls.SDE(f, lambda t, x: x), start(2), t=(0.0, 1.0), method="milstein", **options)


def test_additive_noise_that_is_none_is_refused() -> None:
    with pytest.raises(ls.ArgumentError, match="changes with x"):
        ls.solve(ls.SDE(lambda t, x: -x, lambda t, x: x, "additive"), start(2), t=(0.0, 1.0), dt=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"controller": 3}, "controller = 3"),
        ({"brownian": 3}, "brownian = 3"),
        ({"brownian": 3, "dt": 0.1}, "brownian = 3"),
        ({"save_at": 0.5}, "a list of times"),
        ({"rtol": "tight"}, "rtol = 'tight'"),
        ({"nfe": 100, "on_budget": "reach"}, "not for an SDE"),
        ({"save_at": "steps"}, "equal steps"),
        ({"save_every": 2}, "equal steps"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: dict, message: str) -> None:
    p = ls.SDE(lambda t, x: -x, lambda t, x: 0.1 * x, interpretation="stratonovich")
    with pytest.raises(ls.ArgumentError, match=message):
        ls.solve(p, torch.ones(2, 1, dtype=F64), t=(0.0, 1.0), **arguments)
