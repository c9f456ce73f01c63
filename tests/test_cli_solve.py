"""`longstride solve` and `systems`: what the library computes, in a table and a picture; whole files."""

from __future__ import annotations

import json
import os

import matplotlib.image
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import longstride as ls
from longstride.cli import app

BLOWS_UP = ("solve", "henon_heiles", "--coupling", 30, "--until", 50)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeed(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_solve_says_what_the_library_computes():
    found = succeed("solve", "kepler", "--e", 0.3, "--until", 4, "--rtol", 1e-7)
    system = ls.systems.kepler(e=0.3)
    sol = ls.solve(system, system.x0, t=(0, 4), method=system.method, rtol=1e-7, atol=system.atol)
    (row,) = found["samples"]
    assert row["x"] == sol.x[-1, 0].tolist()
    assert (row["status"], row["t"], row["message"]) == ("reached", 4.0, "")
    assert (row["NFE"], row["accepted"], row["rejected"]) == (
        sol.stats.nfe, int(sol.stats.accepted), int(sol.stats.rejected),
    )  # fmt: skip
    assert row["drift"] == {k: float(v) for k, v in system.drift(sol.x[-1], system.x0).items()}
    assert found["parameters"] == {"e": 0.3}


def test_equal_steps_are_those_of_the_library():
    found = succeed("solve", "pendulum", "--dt", 0.5, "--until", 3, "--method", "heun")
    system = ls.systems.pendulum()
    sol = ls.solve(system, system.x0, t=(0, 3), method="heun", dt=0.5)
    (row,) = found["samples"]
    assert row["x"] == sol.x[-1, 0].tolist()
    assert (row["NFE"], row["accepted"], row["rejected"]) == (12, 6, 0)


@pytest.mark.parametrize("given", [("--rate", 2), ("--rate=2",), ("--param", "rate=2")])
def test_parameters_are_options(given):
    (row,) = succeed("solve", "exponential_decay", *given, "--until", 1, "--rtol", 1e-9)["samples"]
    assert row["x"][0] == pytest.approx(np.exp(-2), rel=1e-7)


def test_a_parameter_named_as_another_option_is_still_one():
    (row,) = succeed("solve", "lorenz96", "--param", "n=5", "--until", 1)["samples"]
    assert len(row["x"]) == 5


def test_several_values_of_a_parameter_are_samples():
    found = succeed("solve", "exponential_decay", "--rate", "1,2,3", "--until", 1)
    assert [row["rate"] for row in found["samples"]] == [1, 2, 3] == found["parameters"]["rate"]
    ends = [row["x"][0] for row in found["samples"]]
    np.testing.assert_allclose(ends, np.exp([-1.0, -2.0, -3.0]), rtol=1e-5)


def test_starts_are_the_systems_own_and_others_near_it_each_the_same_for_every_number_of_them():
    def ends(n, seed=0):
        rows = succeed("solve", "roessler", "--until", 0, "--n", n, "--seed", seed)["samples"]
        return np.array([row["x"] for row in rows])

    many = ends(300)
    assert (many[:4] == ends(4)).all()
    assert (many[0] == [1, 1, 0]).all()
    assert (ends(3, seed=1)[1:] != many[1:3])[:, :2].all()
    away = many[1:, :2] - 1
    assert abs(away.mean()) < 3e-3
    assert away.std() == pytest.approx(0.01, rel=0.15)


def test_a_long_table_ends_with_a_count():
    table = run("solve", "roessler", "--until", 0, "--n", 25).stdout
    assert "and 5 more: 5 reached" in table
    assert len([line for line in table.splitlines() if " reached " in line]) == 20


def drawn(monkeypatch, *arguments):
    """What the picture was asked to show."""
    seen = {}

    def picture(system, t, x, steps, path, subtitle, warning):
        seen.update(t=np.array(t), x=x, steps=steps, warning=warning)
        path.write_text("picture")

    monkeypatch.setattr("longstride.report.trajectory_picture", picture)
    return run(*arguments, "--out", "x.png", "--json"), seen


def test_the_steps_drawn_are_those_that_were_kept(monkeypatch):
    """Every accepted one and none that was rejected; the curve passes through them."""
    result, seen = drawn(monkeypatch, "solve", "fitzhugh_nagumo", "--n", 3, "--until", 60)
    row, steps = json.loads(result.stdout)["samples"][0], seen["steps"]
    assert row["rejected"] > 5
    assert len(steps.t) == row["accepted"] + 1
    assert (steps.t[0], steps.t[-1]) == (0, 60)
    assert (np.diff(steps.t) > 0).all()
    assert steps.x[-1].tolist() == pytest.approx(row["x"])
    curve = np.interp(steps.t, seen["t"], seen["x"][:, 0, 0])
    np.testing.assert_allclose(curve, steps.x[:, 0], atol=2e-3)


def test_equal_steps_are_drawn_as_they_are(monkeypatch):
    _, seen = drawn(monkeypatch, "solve", "pendulum", "--dt", 0.5, "--until", 3)
    assert seen["steps"].t.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert seen["x"].shape == (7, 1, 2)


def test_a_failure_is_drawn_as_far_as_it_came_and_exits_1(monkeypatch):
    result, seen = drawn(monkeypatch, *BLOWS_UP)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "blow up" in result.stderr
    row = json.loads(result.stdout)["samples"][0]
    assert row["status"] in ("step_underflow", "non_finite")
    assert row["message"] == seen["warning"]
    assert 0 < row["t"] < 50
    came = torch.isfinite(seen["x"][:, 0]).all(-1).numpy()
    assert seen["t"][came].max() <= row["t"] == seen["steps"].t[-1]
    assert os.listdir() == ["x.png"]


def test_equal_steps_that_fail_are_drawn_too():
    result = run(*BLOWS_UP, "--dt", 0.5, "--out", "x.png")
    assert result.exit_code == 1
    assert "NaN" in result.stderr
    assert result.stderr.count("\n") == 1
    assert matplotlib.image.imread("x.png").shape[2] >= 3


@pytest.mark.parametrize("name", ["arenstorf", "brusselator", "harmonic_oscillator", "brusselator_1d"])
def test_pictures_of_each_kind_are_small_and_not_blank(name):
    assert run("solve", name, "--until", 0.5, "--out", "deep/x.png").exit_code == 0
    assert os.listdir("deep") == ["x.png"]
    assert os.path.getsize("deep/x.png") < 200_000
    grey = matplotlib.image.imread("deep/x.png")[..., :3].mean(2)
    middle = grey[grey.shape[0] // 3 : -grey.shape[0] // 5, grey.shape[1] // 8 : -grey.shape[1] // 6]
    assert (middle < 0.9).any()


def test_panels_show_steps_and_their_sizes(monkeypatch):
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig

    def saved(figure, *arguments, **how):
        figures.append(figure)
        save(figure, *arguments, **how)

    monkeypatch.setattr(Figure, "savefig", saved)
    assert run("solve", "harmonic_oscillator", "--dt", 0.25, "--until", 2, "--out", "x.png").exit_code == 0
    q, p, sizes = figures[0].axes
    times = 0.25 * np.arange(9)
    for axes, exact in ((q, np.cos), (p, lambda t: -np.sin(t))):
        dots = axes.lines[-1]
        np.testing.assert_allclose(dots.get_xdata(), times)
        np.testing.assert_allclose(dots.get_ydata(), exact(times), atol=1e-3)
    np.testing.assert_allclose(sizes.lines[0].get_ydata(), 0.25)
    assert sizes.get_yscale() == "log"


def test_a_policy_tells_the_steps():
    given = ("solve", "three_body", "--seed", 5, "--until", 3, "--controller", "learned", "--pace", 0.2)
    (row,) = succeed(*given)["samples"]
    system, policy = ls.systems.three_body(seed=5), ls.control.load("three_stars").at(0.2)
    sol = ls.solve(system, system.x0, t=(0, 3), method="hermite", controller=policy)
    assert row["x"] == sol.x_end[0].tolist()
    assert row["accepted"] == int(sol.stats.accepted)


def test_a_policy_of_errors_goes_with_the_methods_of_the_system():
    given = ("solve", "van_der_pol", "--until", 1, "--rtol", 1e-4, "--controller", "oscillators")
    (row,) = succeed(*given)["samples"]
    system, policy = ls.systems.van_der_pol(), ls.control.load("oscillators")
    sol = ls.solve(system, system.x0, t=(0, 1), method=system.method, rtol=1e-4, controller=policy)
    assert row["x"] == sol.x_end[0].tolist()


def test_a_policy_is_drawn_beside_constant_steps_of_its_cost(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "longstride.report.orbit_picture", lambda s, tracks, path, *said: (seen.extend(tracks), path.touch())
    )
    given = ("--until", 40, "--controller", "learned", "--pace", 0.1, "--out", "x.gif")
    ours, constant = succeed("solve", "three_body", *given)["samples"]
    assert ours["NFE"] > 200
    assert constant["NFE"] == pytest.approx(ours["NFE"], rel=0.02)
    np.testing.assert_allclose(constant["x"], ours["x"], atol=0.02)
    system = ls.systems.three_body()
    whole = float(system.invariants["energy"](system.x0).abs())
    for track, row in zip(seen, (ours, constant), strict=True):
        assert len(track.steps.t) == row["accepted"] + 1
        assert track.error[-1] * whole == pytest.approx(row["drift"]["energy"], rel=1e-6)
        t, points, sizes = track.curve
        assert len(t) == len(points) == len(sizes) + 1
        np.testing.assert_allclose(points[-1], track.steps.x[-1, 0])
        assert (np.diff(t) > 0).all()


def test_a_film_shows_the_curves_as_they_grow():
    from PIL import Image

    assert run("solve", "kepler", "--until", 3, "--out", "x.gif").exit_code == 0
    film = Image.open("x.gif")
    dark = []
    for frame in (5, film.n_frames - 1):
        film.seek(frame)
        dark.append(int((np.asarray(film.convert("L")) < 200).sum()))
    assert film.n_frames > 50
    assert dark[1] > dark[0]


def test_systems_lists_the_registry():
    rows = succeed("systems")
    assert [r["name"] for r in rows] == list(ls.systems.SYSTEMS)
    table = run("systems").stdout
    assert all(r["name"] in table and r["reference"] in table for r in rows)


BAD = {
    "system": (["solve", "lorenz"], "lorenz63"),
    "option": (["solve", "lorenz63", "--metod", "tsit5"], "--method"),
    "parameter": (["solve", "van_der_pol", "--my", "3"], "--mu"),
    "parameters": (["solve", "burgers", "--nu", "3"], "parameters: --viscosity"),
    "parameter by pair": (["solve", "van_der_pol", "--param", "nu=3"], "mu"),
    "pair": (["solve", "van_der_pol", "--param", "mu"], "KEY=VALUE"),
    "no value": (["solve", "van_der_pol", "--mu"], "--mu"),
    "value": (["solve", "van_der_pol", "--mu", "high"], "--mu"),
    "sign": (["solve", "van_der_pol", "--mu", "-1"], "positive"),
    "size": (["solve", "lorenz96", "--param", "n=3.5"], "whole"),
    "too small": (["solve", "lorenz96", "--param", "n=3"], "n = 3"),
    "method": (["solve", "lorenz63", "--method", "tsit6"], "tsit5"),
    "method without an estimate": (["solve", "lorenz63", "--method", "heun"], "dt"),
    "tolerance": (["solve", "lorenz63", "--rtol", "-1"], "rtol"),
    "tolerance with dt": (["solve", "lorenz63", "--dt", "0.1", "--rtol", "1e-3"], "--rtol"),
    "step": (["solve", "lorenz63", "--dt", "0"], "dt"),
    "number": (["solve", "lorenz63", "--n", "0"], "--n"),
    "starts and values": (["solve", "lorenz63", "--rho", "1,2", "--n", "3"], "--n"),
    "kind of file": (["solve", "lorenz63", "--out", "x.jpg"], ".png"),
    "until": (["solve", "lorenz63", "--until", "soon"], "--until"),
    "infinity": (["solve", "lorenz63", "--until", "inf"], "t = inf"),
    "two names": (["solve", "lorenz63", "roessler"], "roessler"),
    "a policy for bodies": (["solve", "pendulum", "--controller", "learned"], "bodies"),
    "a policy and tolerances": (["solve", "burrau", "--controller", "learned", "--rtol", "1"], "--rtol"),
    "a policy and a criterion": (
        ["solve", "burrau", "--controller", "learned", "--method", "hermite_aarseth"],
        "criterion",
    ),
    "a policy and equal steps": (["solve", "burrau", "--controller", "oscillators", "--dt", "1"], "--dt"),
    "no policy": (["solve", "burrau", "--controller", "none.json"], "not a policy"),
    "pace": (["solve", "burrau", "--controller", "learned", "--pace", "0"], "pace"),
    "film of several": (["solve", "burrau", "--n", "3", "--out", "x.gif"], "--n"),
    "film of no curve": (["solve", "robertson", "--out", "x.gif"], ".png"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=BAD)
def test_a_bad_argument_is_one_line_and_exit_code_2(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert os.listdir() == []


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "full", "x.png"), 1)])
@pytest.mark.parametrize("where", ["report.sheet.Figure.savefig", "integrate.solve"])
def test_what_is_interrupted_or_fails_to_write_leaves_nothing(monkeypatch, where, error, code):
    def stop(*arguments, **how):
        raise error

    monkeypatch.setattr(f"longstride.{where}", stop)
    result = run("solve", "brusselator", "--until", 2, "--out", "new/x.png")
    assert result.exit_code == code
    assert os.listdir() == []
