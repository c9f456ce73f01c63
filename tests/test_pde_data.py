"""Random fields are functions, whatever grid and batch sees them; data sets are whole, and only grow."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from torch.utils.data import DataLoader
from typer.testing import CliRunner, Result

import longstride as ls
from longstride.cli import app
from longstride.data import Trajectories, generate
from longstride.spectral import Box, Fourier, RandomField, band, matern, nothing, power_law
from longstride.systems import PDE

BOXES = {1: ((3.0,), (24,)), 2: ((2.0, 5.0), (24, 45)), 3: ((1.0, 1.0, 2.0), (14, 15, 30))}
SCALES = ({}, {"peak": 2.0}, {"std": 0.5, "components": (2,)}, {"between": (-1.0, 3.0)})


def finer(space: Fourier, times: int) -> Fourier:
    return Fourier(space.length, [times * n for n in space.n], real=space.real)


@pytest.mark.parametrize("how", SCALES, ids=lambda how: "-".join(how) or "plain")
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("dim", BOXES)
def test_a_random_field_is_one_function_on_every_grid(dim: int, real: bool, how: dict) -> None:
    length, n = BOXES[dim]
    space = Fourier(length, n, real=real)
    if not real and "between" in how:
        with pytest.raises(ls.ArgumentError, match="real"):
            band(space, **how)
        return
    coarse, fine = (band(s, 1, 4, **how)([5, 2], seed=3) for s in (space, finer(space, 3)))
    torch.testing.assert_close(coarse, fine[(..., *(slice(None, None, 3),) * dim)], atol=1e-13, rtol=0)


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    field = matern(Fourier(1.0, (16, 18)), components=(2,))
    many = field(9, seed=4)
    assert torch.equal(field([7, 0, 3], seed=4), many[[7, 0, 3]])
    together = torch.cat([many[:, 0], many[:, 1], field(9, seed=5)[:, 0]]).flatten(1)
    between = torch.corrcoef(together) - torch.eye(27)
    assert between.abs().max() < 0.75  # the number of waves that matter is small


def spectrum_of(field: RandomField, samples: int) -> torch.Tensor:
    """Mean |c|^2 of every mode, those that a real field does not keep counted with their conjugates."""
    c = field.space.enter(field(samples)).abs().square().mean(0)
    return c * (1 + (field.space.modes[-1] > 0)) if field.space.real else c


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda s: power_law(s, 3.0), lambda q: q**-3.0),
        (lambda s: power_law(s, 3.0, highest=4.5), lambda q: q**-3.0 * (q <= 4.5)),
        (lambda s: matern(s, 1.5, math.sqrt(3) / 7), lambda q: (49 + (2 * math.pi * q) ** 2) ** -2.5),
        (lambda s: band(s, 2, 4), lambda q: ((q >= 2) & (q <= 4)).double()),
    ],
    ids=["power law", "cut", "Matern", "band"],
)
def test_fields_have_their_spectrum_in_a_long_box(real: bool, make: Callable, shape: Callable) -> None:
    """Of each mode to five standard deviations of its mean, and of all waves of a length alike."""
    space = Fourier((1.0, 2.0), (16, 30), real=real)
    q = space.k2.sqrt() * 2 / (2 * math.pi)
    expected = torch.where(q > 0, shape(q.clamp_min(0.1)), 0.0) * (1.0 + (space.modes[-1] > 0) * real)
    expected = expected / expected.sum()
    found = spectrum_of(make(space), 400)
    assert (found[expected == 0] < 1e-25).all()
    ratio = found[expected > 0] / expected[expected > 0]
    assert (ratio - 1).abs().max() < 5 / 400**0.5
    assert ratio.mean() == pytest.approx(1, abs=5 / (400 * len(ratio)) ** 0.5)


def test_scales_are_what_they_say() -> None:
    space = Fourier(2 * math.pi, 32)
    assert band(space, std=0.3, mean=2.0)(4000).mean() == pytest.approx(2, abs=1e-12)
    assert band(space, std=0.3, mean=2.0)(4000).std() == pytest.approx(0.3, rel=0.02)
    uniform = band(space, between=(2.0, 3.0))(4000)
    assert 2 < uniform.min() < uniform.max() < 3
    np.testing.assert_allclose(np.quantile(uniform, [0.1, 0.5, 0.9]), [2.1, 2.5, 2.9], atol=0.02)
    largest = band(finer(space, 50), peak=3.0)(100).abs().amax(1)
    assert largest.min() >= 3 * (1 - 1e-3)
    # Ehlich and Zeller 1964: between points h apart a polynomial of K waves is at most 1/cos(K h/2) as large.
    assert largest.max() <= 3 / math.cos(math.pi / 8)


def test_what_cannot_be_drawn_is_refused() -> None:
    space = Fourier(1.0, (32, 8))
    with pytest.raises(ls.ArgumentError, match=r"up to 5 .* keep those up to 2"):
        band(space, 1, 5)(1)
    assert str(band(space)) == "waves 1 to 2, std 1"  # all that it keeps
    with pytest.raises(ls.ArgumentError, match="std and peak"):
        band(space, 1, 2, std=1.0, peak=1.0)
    with pytest.raises(ls.ArgumentError, match="no wave"):
        band(space, 0.2, 0.3)(1)
    with pytest.raises(ls.ArgumentError, match="rising"):
        band(space, 3, 2)


@pytest.mark.parametrize(
    "walls", ["neumann", "dirichlet", ("dirichlet", "periodic"), ("periodic", "neumann")]
)
def test_between_walls_fields_are_sums_of_what_meets_them(walls: str | tuple) -> None:
    """One function on every grid, whose points lie (j + 1/2) h from walls; of mean square 1 over space."""
    coarse, fine = (Box((1.0, 2.0), (16 * m, 18 * m), walls) for m in (1, 3))
    u, v = (band(space, 0.5, 2)(3, seed=1) for space in (coarse, fine))
    kinds = (walls, walls) if isinstance(walls, str) else walls
    along = [slice(None, None, 3) if kind == "periodic" else slice(1, None, 3) for kind in kinds]
    torch.testing.assert_close(u, v[(..., *along)], atol=1e-13, rtol=0)
    assert band(coarse, 0.5, 2)(2000).square().mean() == pytest.approx(1, rel=0.07)
    assert coarse.leave(coarse.enter(u)).sub(u).abs().max() < 1e-13


PDES = [name for name, build in ls.systems.SYSTEMS.items() if isinstance(build(), PDE)]
POINTS = {1: 96, 2: 40, 3: 14}


@pytest.mark.parametrize("name", PDES)
def test_random_starts_of_every_equation_suit_it_and_its_step(name: str) -> None:
    """They are in the space that the equation keeps to, and stay bounded for 20 steps."""
    pde = ls.systems.get(name)
    assert isinstance(pde, PDE)
    pde = ls.systems.get(name, n=POINTS[pde.space.dim])  # type: ignore[assignment]
    x0 = pde.random_starts(3, 0)
    assert x0.shape[1:] == pde.x0.shape[1:]
    assert x0.is_complex() == pde.x0.is_complex()
    assert not torch.equal(x0[0], x0[1])
    sol = ls.solve(pde, x0, t=(0, 20 * pde.dt), method=pde.method, dt=pde.dt, grad=False)
    assert sol.x.abs().max() < 20 * max(1, float(x0.abs().max()))
    for drift in pde.drift(sol.x[-1], x0).values():
        assert drift.max() < 1e-3


def test_starts_obey_the_constraints_of_their_equations() -> None:
    pde = ls.systems.navier_stokes_3d(n=14)
    assert isinstance(pde, PDE)
    c = pde.space.enter(pde.random_starts(2, 0))
    divergence = sum(pde.space.d(axis) * c[:, axis] for axis in range(3))
    assert torch.as_tensor(divergence).abs().max() < 1e-12
    population = ls.systems.fisher_kpp().random_starts(50, 0)  # type: ignore[attr-defined]
    assert 0 < population.min() < population.max() < 1


# ---- data sets

LENGTH = 22.0


def small(n: int = 24) -> PDE:
    return ls.systems.kuramoto_sivashinsky(length=LENGTH, n=n)  # type: ignore[return-value]


def made(path: Path, samples: int = 5, pde: PDE | None = None, **how: object) -> ls.data.Made:
    given = {"until": 4, "save_every": 1, "dt": 0.25, "batch": 2, **how}
    return generate(pde or small(), path, samples, **given)  # type: ignore[arg-type]


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def opened(path: Path) -> xarray.Dataset:
    """As anybody opens it; a warning would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xarray.open_zarr(path).load()


def test_a_data_set_holds_the_solutions_with_names_and_settings(tmp_path: Path) -> None:
    assert made(tmp_path / "ks.zarr", dtype="float64").made == 5
    found, pde = opened(tmp_path / "ks.zarr"), small()
    assert found.u.dims == ("sample", "time", "x")
    np.testing.assert_array_equal(found.time, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(found.x, pde.space.x[0])
    assert (found.status == 1).all()
    assert found.status.attrs["flag_meanings"] == "missing reached diverged"
    x0 = pde.random_starts(5, 0)
    sol = ls.solve(pde, x0, t=(0, 4), method="etdrk4", dt=0.25, save_at=[0, 1, 2, 3, 4])
    np.testing.assert_allclose(found.u, sol.x.transpose(0, 1), atol=1e-13)
    np.testing.assert_allclose(found.u_mean, found.u.mean(("time", "x")), atol=1e-15)
    np.testing.assert_allclose(found.u_std, found.u.std(("time", "x")), rtol=1e-12)
    wanted = {
        "system": "kuramoto_sivashinsky", "parameters": {"length": LENGTH, "n": 24}, "method": "etdrk4",
        "dt": 0.25, "until": 4.0, "seed": 0, "starts": "waves 1 to 5, std 1", "precision": "float64",
        "dtype": "float64", "longstride": ls.__version__,
    }  # fmt: skip
    assert {key: found.attrs[key] for key in wanted} == wanted
    assert {"torch", "zarr", "python"} == found.attrs["versions"].keys()


def test_fields_components_and_complex_numbers_have_their_place(tmp_path: Path) -> None:
    """On disk float32, by default; the equation is u_t = i k_1 u, which carries a field along."""
    space = Fourier((2.0, 3.0), (9, 12), real=False)
    pde = PDE(
        f=nothing, L=space.d(0) + 0 * space.k2, space=space, t=(0.0, 2.0), dt=0.5,
        x0=torch.zeros(1, 2, 9, 12, dtype=torch.complex128), labels=("p", "q"),
        starts=band(space, 1, 2, components=(2,)),
    )  # fmt: skip
    made(tmp_path / "x.zarr", 3, pde, until=2.0, save_every=0.5)
    found = opened(tmp_path / "x.zarr")
    assert found.u.dims == ("sample", "time", "field", "x", "y")
    assert found.u.dtype == "complex64"
    assert found.field.values.tolist() == ["p", "q"]
    assert found.u_mean.dims == ("sample", "field")
    start = pde.random_starts(3, 0).to(torch.complex64).numpy()
    np.testing.assert_array_equal(found.u[:, 0], start)
    np.testing.assert_allclose(found.u[:, -1], start, atol=1e-6)  # once round the box
    assert abs(found.u[:, 1] - start).max() > 0.1
    read = Trajectories(tmp_path / "x.zarr", window=0, normalized=True)
    whole = torch.stack([read[i] for i in range(3)])
    assert whole.abs().square().mean((0, 1, 3, 4)) == pytest.approx([1, 1], rel=1e-5)


def test_more_samples_are_only_added(tmp_path: Path) -> None:
    grown, whole = tmp_path / "grown.zarr", tmp_path / "whole.zarr"
    made(grown, 5)
    first = opened(grown)
    before = {k: v for k, v in contents(grown).items() if k.startswith(("u/c/0", "u/c/1"))}
    assert made(grown, 3) == ls.data.Made(3, 0, 0, 0, pytest.approx(0, abs=10))
    counted = made(grown, 8)
    assert (counted.before, counted.made) == (5, 3)
    made(whole, 8)
    assert {k: contents(grown)[k] for k in before} == before
    second = opened(grown)
    assert second.u[:5].equals(first.u)
    np.testing.assert_allclose(second.u, opened(whole).u, atol=1e-6)
    assert (second.status == 1).all()


OTHER = {
    "seed": ({"seed": 1}, "seed 0 and not 1"),
    "dt": ({"dt": 0.5}, "dt 0.25 and not 0.5"),
    "until": ({"until": 5}, "until 4.0 and not 5.0"),
    "method": ({"method": "etdrk2"}, "method etdrk4 and not etdrk2"),
    "parameter": ({"pde": 32}, "parameters n 24 and not 32"),
    "starts": ({"starts": lambda i, seed: 2 * small().random_starts(i, seed)}, "starts"),
    "numbers": ({"dtype": "float64"}, "dtype"),
}


@pytest.mark.parametrize(("how", "says"), OTHER.values(), ids=OTHER)
def test_a_store_of_another_setting_is_refused_and_stays(tmp_path: Path, how: dict, says: str) -> None:
    path = tmp_path / "ks.zarr"
    made(path, 1)
    before = contents(path)
    if "pde" in how:
        how = {**how, "pde": small(how["pde"])}
    with pytest.raises(ls.ArgumentError, match=says):
        made(path, 9, **how)
    assert contents(path) == before
    assert os.listdir(tmp_path) == ["ks.zarr"]


def test_starts_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    made(tmp_path / "x.zarr", 1, starts=lambda i, seed: small().random_starts(i, seed))
    with pytest.raises(ls.ArgumentError, match="first sample rms"):
        made(tmp_path / "x.zarr", 1, starts=lambda i, seed: 2 * small().random_starts(i, seed))


def test_what_is_no_data_set_is_left_alone(tmp_path: Path) -> None:
    import zarr

    (tmp_path / "file.zarr").write_text("mine")
    (tmp_path / "folder.zarr").mkdir()
    zarr.create_group(tmp_path / "other.zarr")
    before = contents(tmp_path)
    for name in ("file.zarr", "folder.zarr", "other.zarr"):
        with pytest.raises(ls.ArgumentError, match="name another"):
            made(tmp_path / name)
        with pytest.raises(ls.ArgumentError, match=name):
            Trajectories(tmp_path / name)
    assert contents(tmp_path) == before


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ls.ArgumentError, match=r"longstride\[data\]"):
        made(tmp_path / "ks.zarr")
    assert os.listdir(tmp_path) == []


def test_parameters_may_differ_from_sample_to_sample(tmp_path: Path) -> None:
    """Each solves its own equation; values are coordinates, the same for every number of samples."""
    pde = ls.systems.burgers(n=32)
    how = {
        "vary": {"viscosity": (0.2, 0.8)},
        "until": 0.5,
        "save_every": 0.25,
        "dt": 0.05,
        "dtype": "float64",
    }
    made(tmp_path / "b.zarr", 3, pde, **how)
    made(tmp_path / "b.zarr", 5, pde, **how)
    found = opened(tmp_path / "b.zarr")
    assert "viscosity" in found.u.coords
    nu = found.viscosity.values
    assert ((nu > 0.2) & (nu < 0.8)).all()
    assert len(set(nu)) == 5
    assert found.attrs["parameters"]["viscosity"] == [0.2, 0.8]
    for i in range(5):
        own = ls.systems.burgers(viscosity=float(nu[i]), n=32)
        sol = ls.solve(own, own.random_starts([i], 0), t=(0, 0.5), method="etdrk4", dt=0.05)
        np.testing.assert_allclose(found.u[i, -1], sol.x[-1, 0], atol=1e-12)
    *_, parameters = Trajectories(tmp_path / "b.zarr", window=1)[2]
    assert parameters.tolist() == [nu[1]]
    with pytest.raises(ls.ArgumentError, match="n cannot vary"):
        made(tmp_path / "c.zarr", 3, pde, vary={"n": (16, 32)})
    with pytest.raises(ls.ArgumentError, match="rising"):
        made(tmp_path / "c.zarr", 3, pde, vary={"viscosity": (0.2, 0.1)})
    with pytest.raises(ls.ArgumentError):
        made(tmp_path / "c.zarr", 3, pde, vary={"length": (1.0, 2.0)})
    given = ("solve", "burgers", "--viscosity", "0.2:0.8", "--param", "n=32", "--until", 1, "--samples", 2)
    assert run(*given, "--out", tmp_path / "d.zarr").exit_code == 0
    np.testing.assert_array_equal(opened(tmp_path / "d.zarr").viscosity, nu[:2])
    assert "data sets" in run(*given).stderr


def shaken(samples: Sequence[int], seed: int) -> torch.Tensor:
    """Sample 1 is far too large for the step."""
    x0 = small().random_starts(samples, seed)
    return torch.where(torch.tensor(samples).view(-1, 1) == 1, 1e3 * x0, x0)


def test_a_sample_that_diverges_is_marked_and_the_others_are_what_they_were(tmp_path: Path) -> None:
    assert made(tmp_path / "x.zarr", 4, starts=shaken).diverged == 1
    made(tmp_path / "y.zarr", 4)
    found, others = opened(tmp_path / "x.zarr"), opened(tmp_path / "y.zarr")
    assert found.status.values.tolist() == [1, 2, 1, 1]
    assert found.u[[0, 2, 3]].equals(others.u[[0, 2, 3]])
    finite = np.isfinite(found.u[1]).all("x").values
    assert finite[0]
    assert not finite[-1]
    assert (finite[:-1] >= finite[1:]).all()
    assert made(tmp_path / "x.zarr", 4, starts=shaken).made == 0
    assert Trajectories(tmp_path / "x.zarr").samples.tolist() == [0, 2, 3]


# ---- over processes


def test_killed_it_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    killed, whole, how = tmp_path / "killed.zarr", tmp_path / "whole.zarr", {"dt": 0.01}
    child = multiprocessing.get_context("fork").Process(target=made, args=(killed, 24), kwargs=how)
    child.start()
    while not (finished := list(killed.glob("status/c/[0-9]"))) and child.is_alive():
        time.sleep(0.002)
    child.kill()
    child.join()
    assert finished
    assert child.exitcode == -signal.SIGKILL
    assert (opened(killed).status[:2] == 1).all()
    before = (killed / "u/c/0/0/0").stat()
    (killed / "u/c/7.0.partial").write_text("what a kill leaves of a file")
    counted = made(killed, 24, **how)
    assert 2 <= counted.before < 24
    assert counted.before + counted.made == 24
    after = (killed / "u/c/0/0/0").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    made(whole, 24, **how)
    assert contents(whole) == contents(killed)


def test_two_processes_make_the_same_bits_as_one(tmp_path: Path) -> None:
    command = [
        "longstride", "solve", "kuramoto_sivashinsky", "--length", "22", "--param", "n=24", "--until", "4",
        "--save-every", "1", "--samples", "7", "--shard", "2", "--dt", "0.25", "--json", "--out",
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    found = subprocess.run(
        [*torchrun, *command, str(tmp_path / "two.zarr")], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    (row,) = json.loads(found.stdout)
    assert (row["processes"], row["made"], row["missing"]) == (2, 7, 0)
    assert run(*command[1:], tmp_path / "one.zarr").exit_code == 0
    assert contents(tmp_path / "one.zarr") == contents(tmp_path / "two.zarr")


# ---- reading back


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "ks.zarr"
    made(path, 3, until=8)
    return path


def test_windows_are_slices_of_trajectories(store: Path) -> None:
    u = torch.from_numpy(opened(store).u.values)
    whole = Trajectories(store, window=0)
    assert len(whole) == 3
    assert torch.equal(torch.stack([whole[i] for i in range(3)]), u)
    for memory in (False, True):
        read = Trajectories(store, window=2, horizon=1, stride=3, every=2, memory=memory)
        assert len(read) == 3 * 2  # of 9 times, windows of 5 begin at 0 and 3
        inputs, targets = read[3]
        assert torch.equal(inputs, u[1, [3, 5]])
        assert torch.equal(targets, u[1, [7]])
    assert torch.equal(Trajectories(store, samples=[2], window=0)[0], u[2])
    assert torch.equal(read.t, torch.arange(9.0, dtype=torch.float64))


def test_a_loader_with_workers_reads_the_same(store: Path) -> None:
    read = pickle.loads(pickle.dumps(Trajectories(store, normalized=True)))
    batches = [list(DataLoader(read, batch_size=8, num_workers=n)) for n in (0, 2)]
    for (x, y), (a, b) in zip(*batches, strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)


def test_statistics_are_those_of_the_data(store: Path) -> None:
    u = opened(store).u.values.astype("float64")
    read = Trajectories(store, samples=[0, 2], window=0, normalized=True)
    assert float(read.mean) == pytest.approx(u[[0, 2]].mean(), abs=1e-12)
    assert float(read.std) == pytest.approx(u[[0, 2]].std(), rel=1e-12)
    x = torch.stack([read[0], read[1]])
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, rel=1e-6)


def test_windows_that_do_not_fit_are_refused(store: Path) -> None:
    with pytest.raises(ls.ArgumentError, match="9"):
        Trajectories(store, window=9)
    with pytest.raises(ls.ArgumentError, match="0 to 2"):
        Trajectories(store, samples=[3])


# ---- the command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_an_equation_is_solved_in_its_own_steps_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(
        "solve", "kuramoto_sivashinsky", "--param", "n=32", "--until", 20, "--out", "x.png", "--json"
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    pde = small(32)
    assert (found["method"], found["dt"]) == ("etdrk4", pde.dt)
    (row,) = found["samples"]
    assert row["accepted"] == 20 / pde.dt
    assert row["drift"]["mean"] < 1e-14
    assert 1000 < (tmp_path / "x.png").stat().st_size < 200_000


def test_fields_in_two_dimensions_are_drawn_with_walls(tmp_path: Path) -> None:
    given = ("--walls", "neumann", "--param", "n=24", "--until", 2, "--samples", 2, "--json")
    result = run("solve", "swift_hohenberg", *given, "--out", tmp_path / "x.png")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["parameters"]["walls"] == "neumann"
    assert os.listdir(tmp_path) == ["x.png"]


def test_random_starts_need_no_file() -> None:
    given = ("solve", "kuramoto_sivashinsky", "--param", "n=32", "--until", 1, "--json", "--seed", 2)
    rows = [json.loads(run(*given, "--samples", n).stdout)["samples"] for n in (2, 3)]
    assert [r["rms"] for r in rows[0]] == pytest.approx([r["rms"] for r in rows[1][:2]], rel=1e-12)
    pde = ls.systems.kuramoto_sivashinsky(n=32)
    sol = ls.solve(pde, pde.random_starts(3, 2), t=(0, 1), method="etdrk4", dt=pde.dt)
    assert rows[1][2]["rms"] == pytest.approx(float(sol.x[-1, 2].square().mean().sqrt()), rel=1e-12)


KS = ("solve", "kuramoto_sivashinsky")
BAD = {
    "equation": (("solve", "kuramoto"), "kuramoto_sivashinsky"),
    "parameter": ((*KS, "--nu", 3), "--n"),
    "points": ((*KS, "--n", 64), "--param n=64"),
    "times": ((*KS, "--until", 20, "--save-every", 3, "--out", "x.zarr"), "18 or 21"),
    "no data set": ((*KS, "--save-every", 1), ".zarr"),
    "no space": (("solve", "lorenz63", "--samples", 3), "no equation in space"),
    "numbers": ((*KS, "--dtype", "float16", "--out", "x.zarr"), "float32"),
    "tolerances": ((*KS, "--rtol", 1e-3, "--dt", 0.1), "--rtol"),
    "kind": ((*KS, "--out", "x.jpg"), ".zarr"),
    "negative": ((*KS, "--save-every", -1, "--out", "x.zarr"), "positive"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=BAD)
def test_a_bad_argument_is_one_line(
    arguments: tuple, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir() == []


def test_samples_that_diverge_are_told_of(tmp_path: Path) -> None:
    given = (*KS, "--param", "n=64", "--length", 22, "--dt", 10, "--until", 200, "--save-every", 20)
    result = run(*given, "--samples", 2, "--out", tmp_path / "x.zarr")
    assert result.exit_code == 1, result.output
    assert "2 of 2 samples" in result.stderr
    assert (opened(tmp_path / "x.zarr").status == 2).all()


# netCDF


def test_a_netcdf_file_is_the_group_as_one_file(tmp_path: Path) -> None:
    """The same numbers, settings and parameters; it is written once, and nothing is left beside it."""
    pde = ls.systems.burgers(n=16)
    how = {"until": 0.2, "save_every": 0.1, "dt": 0.1, "vary": {"viscosity": (0.1, 0.5)}}
    for name in ("b.nc", "b.zarr"):
        assert generate(pde, tmp_path / name, 3, **how).made == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.nc", "b.zarr"]
    file, group = (Trajectories(tmp_path / name, normalized=True) for name in ("b.nc", "b.zarr"))
    assert file.settings == group.settings
    for one, other in zip(file, group, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    written = (tmp_path / "b.nc").read_bytes()
    (tmp_path / "b.nc.zarr").mkdir()  # as a run leaves it that is killed at the very end
    again = generate(pde, tmp_path / "b.nc", 2, **how)
    assert (again.before, again.made, again.missing) == (2, 0, 0)
    assert not (tmp_path / "b.nc.zarr").exists()
    for samples, seed, why in ((4, 0, "does not grow"), (3, 1, "other samples: seed")):
        with pytest.raises(ls.ArgumentError, match=why):
            generate(pde, tmp_path / "b.nc", samples, **how, seed=seed)
    assert (tmp_path / "b.nc").read_bytes() == written
    with pytest.raises(ls.ArgumentError, match=r"NAME.zarr, or a netCDF file, NAME.nc"):
        generate(pde, tmp_path / "b.h5", 3, **how)
    with pytest.raises(ls.ArgumentError, match="complex"):
        generate(ls.systems.ginzburg_landau(n=8), tmp_path / "c.nc", 1)
    (tmp_path / "d.nc").write_text("no netCDF")
    with pytest.raises(ls.ArgumentError, match="no data set"):
        Trajectories(tmp_path / "d.nc")


def test_a_data_set_of_a_channel_has_its_points(tmp_path: Path) -> None:
    pde = ls.systems.rayleigh_benard(n=8, m=8)
    generate(pde, tmp_path / "c.zarr", 2, until=0.01, save_every=0.01)
    data = xarray.open_zarr(tmp_path / "c.zarr")
    assert data.u.dims == ("sample", "time", "field", "x", "y")
    assert np.array_equal(data.y.values, pde.space.x[1].numpy())
    x0 = torch.from_numpy(data.u.values[:, 0])
    assert torch.equal(x0, pde.random_starts(2, 0).float())
