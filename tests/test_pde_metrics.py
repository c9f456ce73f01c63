"""Metrics of trajectories and fields: each against a case whose value is known."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

import longstride as ls
from longstride import metrics

F64 = torch.float64
LORENZ = 0.9056  # Sprott 2003, sigma = 10, rho = 28, beta = 8/3
KS22 = 0.048  # Cvitanovic, Davidchack and Siminos 2010, length 22
HENON = 0.4192  # a = 1.4, b = 0.3; the exponents add up to ln b


def waves(phases, fields=(1.0,), n=64):
    """sin(x + phase) at times [T], one sample, each field times a factor: [T, 1, C, n]."""
    x = 2 * math.pi * torch.arange(n, dtype=F64) / n
    wave = torch.sin(x + torch.as_tensor(phases, dtype=F64)[:, None])
    return torch.stack([a * wave for a in fields], 1)[:, None]


def test_a_shifted_wave_is_wrong_by_the_chord_and_right_by_the_cosine_of_its_shift():
    shift = torch.linspace(0, 3, 7, dtype=F64)
    x, reference = waves(shift), waves(0 * shift)
    torch.testing.assert_close(metrics.relative_error(x, reference)[:, 0], 2 * torch.sin(shift / 2))
    torch.testing.assert_close(metrics.correlation(x, reference)[:, 0], torch.cos(shift))


def test_each_field_is_judged_alone_if_the_axes_are_named():
    """Fields of different size: together the large one decides."""
    reference = waves([0.0, 0.0], fields=(1.0, 1000.0))
    x = torch.cat([waves([math.pi / 2] * 2), reference[:, :, 1:]], 2)
    error, match = (metric(x, reference, dim=1) for metric in (metrics.relative_error, metrics.correlation))
    torch.testing.assert_close(error, torch.tensor([[2**0.5, 0.0]] * 2, dtype=F64)[:, None])
    torch.testing.assert_close(match, torch.tensor([[0.0, 1.0]] * 2, dtype=F64)[:, None], atol=1e-12, rtol=0)
    assert (metrics.correlation(x, reference) > 0.999).all()


def test_correlation_does_not_see_a_constant_or_a_factor_and_sees_a_sign():
    x = torch.randn(3, 2, 5, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(3, 2, dtype=F64)
    torch.testing.assert_close(metrics.correlation(3 * x + 7, x), ones)
    torch.testing.assert_close(metrics.correlation(1 - x, x), -ones)


def test_the_phase_of_a_complex_field_counts():
    x = torch.polar(torch.ones(64, dtype=F64), 2 * math.pi * torch.arange(64, dtype=F64) / 64)[None, None]
    turned = x * torch.polar(torch.tensor(1.0, dtype=F64), torch.tensor(0.3, dtype=F64))
    assert metrics.correlation(turned, x).item() == pytest.approx(math.cos(0.3))
    assert metrics.relative_error(turned, x).item() == pytest.approx(2 * math.sin(0.15))


def test_the_high_correlation_time_is_where_a_line_crosses_the_threshold():
    """1 - t/10 falls below 0.8 at 2, on even and uneven times; each sample alone."""
    t = [0.0, 0.5, 1.5, 4.0, 5.0]
    line = 1 - torch.tensor(t, dtype=F64) / 10
    correlation = torch.stack([line, torch.full_like(line, 0.9), line - 0.3, 1 - 2 * (1 - line)], 1)
    found = metrics.high_correlation_time(t, correlation)
    torch.testing.assert_close(found, torch.tensor([2.0, math.inf, 0.0, 1.0], dtype=F64))


def test_it_is_the_first_time_below_and_what_blows_up_ends_there():
    c = torch.tensor([1.0, 0.6, 0.9, 0.5], dtype=F64)
    assert metrics.high_correlation_time([0, 1, 2, 3], c) == pytest.approx(0.5)
    c = torch.tensor([1.0, 0.9, math.nan, math.nan], dtype=F64)
    assert metrics.high_correlation_time([0, 1, 2, 3], c) == 1.0


def test_the_time_of_a_shifting_wave_is_that_of_its_phase():
    """cos(c t) = 0.8, with the error of a straight line between times 0.01 apart."""
    t = torch.linspace(0, 2, 201, dtype=F64)
    c = metrics.correlation(waves(0.7 * t), waves(0 * t))
    assert metrics.high_correlation_time(t, c).item() == pytest.approx(math.acos(0.8) / 0.7, abs=2e-5)


@pytest.mark.parametrize(("n", "length"), [
    ((48,), (3.0,)), ((31,), (7.0,)), ((16, 27), (2.0, 9.0)), ((8, 9, 12), (1.0, 5.0, 2.0)),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_the_shells_sum_to_the_mean_square(n, length, dtype):
    x = torch.randn(2, 3, *n, dtype=dtype, generator=torch.Generator().manual_seed(1))
    k, E = metrics.energy_spectrum(x, length)
    assert E.shape == (2, 3, len(k))
    torch.testing.assert_close(E.sum(-1), x.abs().square().flatten(2).mean(-1))


@pytest.mark.parametrize("m", [(3, 4), (5, 0), (0, -5)])
def test_a_wave_in_any_direction_is_in_the_shell_of_its_length(m):
    """2 a cos(k x) has two coefficients a: 2 a^2, at |k| = 5 of the fundamental wavenumber."""
    space = ls.spectral.Fourier(4.0, (24, 24))
    phase = sum(2 * math.pi / 4.0 * mi * xi for mi, xi in zip(m, space.x, strict=True))
    k, E = metrics.energy_spectrum(6 * torch.cos(phase), space.length)
    expected = torch.zeros(len(k), dtype=F64)
    expected[5] = 18.0
    torch.testing.assert_close(E, expected, atol=1e-12, rtol=0)
    assert k[5].item() == pytest.approx(5 * 2 * math.pi / 4.0)


def test_a_shell_of_a_long_box_is_as_wide_as_the_short_sides_wavenumber():
    """cos(2 pi x/8) on a box of 8 x 2 has k = 1/4 of the short side's: it belongs to the mean's shell."""
    space = ls.spectral.Fourier((8.0, 2.0), (32, 16))
    k, E = metrics.energy_spectrum(torch.cos(2 * math.pi * 4 * space.x[0] / 8) + 0 * space.x[1], space.length)
    assert k[1].item() == pytest.approx(math.pi)
    assert E.argmax().item() == 1


def test_a_filtered_spectrum_is_wrong_where_it_was_filtered():
    """A field of unit coefficients whose modes above 5 are halved: ln 4 there, 0 elsewhere."""
    space = ls.spectral.Fourier(2 * math.pi, 32, dealias=1.0)
    c = torch.ones(16, dtype=torch.complex128)
    halved = c.where(torch.arange(16) <= 5, 0.5)
    (k, E), (_, found) = (metrics.energy_spectrum(space.leave(v), space.length) for v in (c, halved))
    error = metrics.spectrum_error(found, E)
    torch.testing.assert_close(error[:16], math.log(4) * (k[:16] > 5).to(F64), atol=1e-9, rtol=0)
    assert error[16] < 1  # holds round-off alone


def test_metrics_are_differentiable():
    x = torch.randn(2, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    y = torch.randn(2, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(3))
    t = [0.0, 1.0]
    E = metrics.energy_spectrum(y, (1.0, 2.0))[1]
    assert torch.autograd.gradcheck(lambda v: metrics.relative_error(v, y), x)
    assert torch.autograd.gradcheck(lambda v: metrics.correlation(v, y), x)
    assert torch.autograd.gradcheck(
        lambda v: metrics.spectrum_error(metrics.energy_spectrum(v, (1.0, 2.0))[1], E), x
    )
    c = torch.tensor([[0.95, 1.0], [0.3, 0.9]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: metrics.high_correlation_time(t, v).clamp(max=1.0), c)


def test_drift_along_a_trajectory_is_what_the_equation_should_keep():
    """Of a field scaled by 1 + t, mass drifts as t and momentum as 2 t + t^2, over what they were."""
    kdv = ls.systems.korteweg_de_vries(n=64)
    big = 100 * kdv.x0  # so that what is kept is above 1
    t = torch.tensor([0.0, 0.1, 0.5], dtype=F64)
    drift = kdv.drift(big * (1 + t)[:, None, None], big)
    torch.testing.assert_close(drift["mass"][:, 0], t)
    torch.testing.assert_close(drift["momentum"][:, 0], 2 * t + t * t)


@pytest.mark.parametrize("n", [(32, 32), (24, 36)])
def test_energy_enstrophy_and_dissipation_of_taylor_green_in_2d(n):
    """u = (sin x cos y, -cos x sin y), w = 2 sin x sin y: energy 1/4, enstrophy 1/2; nu of it is lost."""
    space = ls.spectral.Fourier(2 * math.pi, n)
    x, y = space.x
    u = torch.stack([torch.sin(x) * torch.cos(y), -torch.cos(x) * torch.sin(y)])
    w = 2 * torch.sin(x) * torch.sin(y)
    torch.testing.assert_close(metrics.vorticity(space, u), w)
    torch.testing.assert_close(metrics.velocity(space, w), u)
    assert metrics.kinetic_energy(space, u).item() == pytest.approx(0.25)
    assert metrics.enstrophy(space, w).item() == pytest.approx(0.5)
    assert metrics.dissipation(space, w, 0.01).item() == pytest.approx(0.01)


def test_a_beltrami_flow_is_its_own_vorticity():
    """Arnold-Beltrami-Childress: curl u = u, so enstrophy is energy, 3/2 with A = B = C = 1."""
    space = ls.spectral.Fourier(2 * math.pi, (12, 14, 16))
    x, y, z = space.x
    u = torch.stack(torch.broadcast_tensors(
        torch.sin(z) + torch.cos(y), torch.sin(x) + torch.cos(z), torch.sin(y) + torch.cos(x)
    ))[None]  # fmt: skip
    w = metrics.vorticity(space, u)
    torch.testing.assert_close(w, u)
    assert metrics.kinetic_energy(space, u).item() == pytest.approx(1.5)
    assert metrics.dissipation(space, w, 2.0).item() == pytest.approx(6.0)


def test_what_dissipates_is_what_energy_loses():
    """d/dt energy of u e^(-2 nu t), Taylor-Green, is minus the dissipation."""
    space = ls.spectral.Fourier(2 * math.pi, (16, 16))
    w = 2 * torch.sin(space.x[0]) * torch.sin(space.x[1])
    energy = partial(metrics.kinetic_energy, space)
    t = torch.tensor(0.3, dtype=F64, requires_grad=True)
    flow = w * torch.exp(-2 * 0.05 * t)
    (slope,) = torch.autograd.grad(energy(metrics.velocity(space, flow)), t)
    torch.testing.assert_close(-slope, metrics.dissipation(space, flow.detach(), 0.05))


def turned(values):
    """A matrix with these eigenvalues, far from symmetric."""
    D = len(values)
    M = torch.eye(D, dtype=F64) + torch.triu(torch.ones(D, D, dtype=F64), 1)
    return M @ torch.diag(torch.tensor(values, dtype=F64)) @ torch.linalg.inv(M)


@pytest.mark.parametrize(("tangent", "accuracy"), [(True, 1e-12), (False, 1e-6)])
def test_exponents_of_a_linear_map_are_the_logarithms_of_its_eigenvalues(tangent, accuracy):
    A = turned([1.0, 0.5, 0.1])
    found = metrics.lyapunov(
        lambda x: x @ A.T, torch.ones(2, 3, dtype=F64), steps=20, skip=60, k=3, tangent=tangent
    )
    expected = torch.tensor([1.0, 0.5, 0.1], dtype=F64).log().expand(2, 3)
    torch.testing.assert_close(found.exponents, expected, atol=accuracy, rtol=0)


@pytest.mark.parametrize("method", ["rk4", "etdrk4"])
def test_exponents_of_a_linear_equation_are_the_growth_rates_of_its_modes(method):
    """u_t = -u_xx/4 - u_xxxx on 2 pi: k^2/4 - k^4, each twice, 0 of the mean, as the method sees them."""
    space = ls.spectral.Fourier(2 * math.pi, 12, dealias=0.4)
    ode = ls.ODE(ls.spectral.nothing, L=space.k2 / 4 - space.k2**2, space=space)
    x0 = torch.randn(1, 12, dtype=F64, generator=torch.Generator().manual_seed(4))
    found = metrics.lyapunov(ode, x0, steps=100, skip=1000, dt=0.05, k=5, every=10, method=method)
    z = 0.05 * torch.tensor([0.0, -0.75, -0.75, -15.0, -15.0], dtype=F64)
    grown = z.exp() if method == "etdrk4" else 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24
    torch.testing.assert_close(found.exponents[0], grown.log() / 0.05, atol=1e-6, rtol=1e-6)


def test_complex_states_have_two_directions_for_each_number():
    """i u turned and grown: both at the real part of the rate."""
    ode = ls.ODE(ls.spectral.nothing, L=torch.tensor([0.3 + 2.0j]))
    x0 = torch.ones(1, 1, dtype=torch.complex128)
    found = metrics.lyapunov(ode, x0, steps=10, dt=0.1, k=2)
    torch.testing.assert_close(found.exponents, torch.tensor([[0.3, 0.3]], dtype=F64), atol=1e-6, rtol=0)


def test_henons_exponents_add_up_to_the_logarithm_of_its_contraction():
    def henon(x):
        a, b = x.unbind(-1)
        return torch.stack([1 - 1.4 * a * a + b, 0.3 * a], -1)

    x0 = 0.1 * torch.rand(256, 2, dtype=F64, generator=torch.Generator().manual_seed(5))
    found = metrics.lyapunov(henon, x0, steps=400, skip=50, k=2)
    assert 0.8 < found.error.mean() / found.exponents.std(0).mean() < 1.25  # so its own errors are true
    found = found.exponents
    torch.testing.assert_close(found.sum(1), torch.full_like(found[:, 0], math.log(0.3)), atol=1e-6, rtol=0)
    error = found[:, 0].std() / 256**0.5
    assert error < 3e-3
    assert abs(found[:, 0].mean() - HENON) < 4 * error


def test_lorenz_parts_as_it_is_known_to():
    """Within four standard errors of the mean of 256 samples."""
    lorenz = ls.systems.lorenz63()
    g = torch.Generator().manual_seed(6)
    x0 = torch.tensor([0.0, 0.0, 25.0], dtype=F64) + 8 * torch.randn(256, 3, dtype=F64, generator=g)
    found = metrics.lyapunov(lorenz, x0, steps=2000, skip=2000, dt=0.01, every=20)
    error = found.exponents.std() / 256**0.5
    assert error < 0.01
    assert abs(found.exponents.mean() - LORENZ) < 4 * error


def test_kuramoto_sivashinsky_parts_as_it_is_known_to():
    """The first exponent; then three that are 0: time and place may be shifted, and the mean is kept."""
    ks = ls.systems.kuramoto_sivashinsky(length=22.0, n=32)
    noise = torch.randn(128, 32, dtype=F64, generator=torch.Generator().manual_seed(7))
    x0 = ks.x0 + 0.3 * (noise - noise.mean(-1, keepdim=True))
    found = metrics.lyapunov(ks, x0, steps=800, skip=600, dt=0.25, every=40, k=4).exponents
    error = found.std(0) / 128**0.5
    assert error[0] < 4e-3
    assert abs(found[:, 0].mean() - KS22) < 4 * error[0]
    assert (found[:, 1:].mean(0).abs() < 0.01).all()


@pytest.mark.parametrize(("call", "says"), [
    (lambda x: metrics.relative_error(x, x[:1]), "differ in shape"),
    (lambda x: metrics.correlation(x, x, dim=3), "dim = 3"),
    (lambda x: metrics.high_correlation_time([0.0, 0.0], x[:, 0, 0]), "rising"),
    (lambda x: metrics.energy_spectrum(x, (1.0, -1.0)), "positive"),
    (lambda x: metrics.energy_spectrum(x, (1.0,) * 4), "4 lengths"),
    (lambda x: metrics.lyapunov(ls.systems.lorenz63(), torch.ones(1, 3), steps=20, k=4), "k = 4"),
    (lambda x: metrics.lyapunov(ls.systems.lorenz63(), torch.ones(1, 3), steps=20, method="ab_2"),
     "goes on from steps before"),
    (lambda x: metrics.velocity(ls.spectral.Fourier(1.0, (8, 8, 8)), x), "for 2"),
    (lambda x: metrics.kinetic_energy(ls.spectral.Fourier(1.0, (8, 8)), x[:1]), "a velocity"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(ls.ArgumentError, match=says):
        call(torch.ones(2, 1, 8))
