"""Pictures of fields: what is drawn is where and when it says, in colours that mean what they should."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

import longstride as ls
from longstride import metrics, report
from longstride.report import fields, moving
from longstride.report.sheet import Sheet
from longstride.systems import Frames, SpaceTime

F64 = torch.float64


def heat(length, n, **changes):
    """A field on a box, whatever its equation."""
    space = ls.spectral.Fourier(length, n)
    return replace(ls.PDE(space=space, L=-space.k2, labels=("u",)), **changes)


@pytest.fixture
def figures(monkeypatch):
    """Figures in place of files."""
    kept = []
    monkeypatch.setattr(Sheet, "save", lambda self, path, colours=None: kept.append(self.figure))
    return kept


def images(figure):
    """The axes that hold an image, from above to below and from left to right."""
    found = [axes for axes in figure.axes if axes.images]
    return sorted(found, key=lambda axes: (-round(axes.get_position().y0, 6), axes.get_position().x0))


def limits(axes):
    return axes.images[0].get_clim()


def along(system, t, values):
    """values(t) [*shape] of one sample, [T, 1, *shape]."""
    return torch.stack([values(at) for at in t])[:, None]


def test_a_field_with_both_signs_has_white_at_zero_and_limits_as_far_from_it():
    values = np.linspace(-1.0, 3.0, 2001).reshape(1, 1, -1)
    part = fields.Part.of("u", values)
    assert part.low == -part.high
    assert part.high == pytest.approx(3.0, rel=2e-3)
    below, above = part.colours([fields.LEVELS // 2 - 1, fields.LEVELS // 2])[:, :3]
    assert min(below.min(), above.min()) > 0.9
    assert below[2] > below[0]
    assert above[0] > above[2]


@pytest.mark.parametrize("low", [0.0, 2.0, -0.01])
def test_a_field_of_one_sign_goes_from_its_least_to_its_most(low):
    """Undershoots of an approximation make no sign."""
    part = fields.Part.of("u", np.linspace(low, 3.0, 2001).reshape(1, 1, -1))
    assert (part.low, part.high) == (pytest.approx(low, abs=4e-3), pytest.approx(3.0, abs=4e-3))
    assert part.cmap == "viridis"


def test_colours_are_those_of_what_follows_the_start_and_nan_is_no_value():
    values = np.stack([np.full(50, 100.0), np.linspace(1, 2, 50), np.full(50, np.nan)])[:, None]
    part = fields.Part.of("u", values)
    assert 1 <= part.low < part.high <= 2


def test_a_complex_field_is_its_modulus_and_its_phase_which_goes_around():
    system = heat(2.0, 16, view=SpaceTime(lambda u: u, "x", "psi", 0.0, 2.0))
    psi = 2 * torch.polar(
        torch.ones(1, 1, 16, dtype=F64), torch.linspace(-3, 3, 16, dtype=F64).expand(1, 1, 16)
    )
    modulus, phase = fields.parts_of(system, psi)
    np.testing.assert_allclose(modulus.values, 2.0)
    np.testing.assert_allclose(phase.values[0, 0], np.linspace(-3, 3, 16))
    assert (phase.low, phase.high) == (-math.pi, math.pi)
    ends = phase.colours([0.0, 1.0])
    np.testing.assert_allclose(ends[0], ends[1], atol=0.05)
    assert [modulus.name, phase.name] == ["|psi|", "phase of psi"]


def test_space_time_fills_its_box_and_its_times(figures):
    t = [1.0, 2.0, 3.5]
    kdv = ls.systems.korteweg_de_vries(length=30.0, n=32)
    report.field_picture(kdv, t, kdv.x0.expand(3, 1, -1), None)
    lorenz = ls.systems.lorenz96(n=8)
    report.field_picture(lorenz, t, torch.rand(3, 1, 8), None)
    (box,), (rings,) = map(images, figures)
    assert box.images[0].get_extent() == [1.0, 3.5, 0.0, 30.0]
    assert rings.images[0].get_extent() == [1.0, 3.5, 0.5, 8.5]  # components 1 .. 8 in the middle of cells


def test_samples_are_side_by_side_and_fields_above_each_other_in_shared_colours(figures):
    view = SpaceTime(lambda x: (x[..., 0, :], x[..., 1, :]), "x", ("u", "v"), 0.0, 2.0)
    x = torch.rand(5, 2, 2, 16, dtype=F64, generator=torch.Generator().manual_seed(0))
    x[:, :, 1] -= 10
    x[:, 1] += 1
    report.field_picture(heat(2.0, 16, view=view), [0.0, 1, 2, 3, 4], x, None)
    drawn = images(figures[0])
    assert len(drawn) == 4
    for i, axes in enumerate(drawn):
        np.testing.assert_array_equal(axes.images[0].get_array(), x[:, i % 2, i // 2].numpy().T)
    assert limits(drawn[0]) == limits(drawn[1])
    assert limits(drawn[2]) == limits(drawn[3])
    assert limits(drawn[0])[0] >= 0 > limits(drawn[2])[1]


@pytest.mark.parametrize("length", [(4.0, 4.0), (6.0, 4.0), (12.0, 3.0), (2.0, 6.0)])
def test_frames_are_as_long_as_the_box_upright_and_share_their_colours(figures, length):
    system, t = heat(length, (24, 16)), [0.5 * i for i in range(21)]
    x = along(
        system, t, lambda at: torch.sin(2 * math.pi * system.space.x[0] / length[0]).expand(24, 16) * at
    )
    report.field_picture(system, t, x, None)
    (figure,) = figures
    drawn = images(figure)
    shown = [float(axes.get_title().removeprefix("t = ")) for axes in drawn]
    assert shown == ([0, 2, 4, 6, 8, 10] if length[0] <= 2 * length[1] else [0, 5, 10])
    for axes, at in zip(drawn, shown, strict=True):
        assert axes.images[0].get_extent() == [0.0, length[0], 0.0, length[1]]
        np.testing.assert_array_equal(axes.images[0].get_array(), x[t.index(at), 0].numpy().T)
        assert axes.images[0].origin == "lower"
        place = axes.get_window_extent()
        assert place.width / place.height == pytest.approx(length[0] / length[1], rel=1e-6)
        assert limits(axes) == limits(drawn[0])
        assert axes.get_position().x1 < 1


def test_frames_of_three_dimensions_are_a_plane(figures):
    system = heat((4.0, 4.0, 2.0), (8, 8, 6))
    x = torch.rand(2, 1, 8, 8, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    report.field_picture(system, [0.0, 1.0], x, None)
    first, last = images(figures[0])
    np.testing.assert_array_equal(last.images[0].get_array(), x[1, 0, :, :, 0].numpy().T)
    assert first.images[0].get_extent() == [0.0, 4.0, 0.0, 4.0]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_all_fields_of_an_equation_without_a_view_are_drawn(dim):
    space = ls.spectral.Fourier(1.0, [8] * dim)
    u = torch.rand(3, 1, 2, *space.n)
    pde = ls.PDE(space=space, L=-space.k2, x0=u[0], labels=("u", "v"))
    parts = fields.parts_of(pde, u)
    assert [part.name for part in parts] == ["u", "v"]
    for i, part in enumerate(parts):
        assert np.array_equal(part.values, (u[:, :, i, ..., 0] if dim == 3 else u[:, :, i]).double().numpy())


def test_chosen_times_go_from_the_first_to_the_last_evenly_in_time():
    assert fields.chosen_times([0.0, 1.0, 2.0], 6) == [0, 1, 2]
    even = fields.chosen_times([0.1 * i for i in range(101)], 6)
    assert even == [0, 20, 40, 60, 80, 100]
    uneven = [0.0, 0.1, 0.2, 0.3, 1.0, 2.0, 3.0]
    assert [uneven[i] for i in fields.chosen_times(uneven, 4)] == [0.0, 1.0, 2.0, 3.0]
    bunched = [1.0 - 2.0**-i for i in range(20)]
    assert len(fields.chosen_times(bunched, 6)) == 6


def test_the_strip_below_is_the_drift_of_each_invariant(figures):
    kdv, t = ls.systems.korteweg_de_vries(n=64), [0.0, 1.0, 2.0]
    x = kdv.x0 * torch.tensor([1.0, 1.1, 1.3], dtype=F64)[:, None, None]
    report.field_picture(kdv, t, x, None)
    (strip,) = [axes for axes in figures[0].axes if axes.get_ylabel() == "drift"]
    lines = {line.get_label(): line.get_ydata() for line in strip.lines}
    drift = kdv.drift(x, x[0])
    assert list(lines) == list(kdv.invariants)
    for name, values in lines.items():
        np.testing.assert_allclose(values[1:], drift[name][1:, 0].numpy())
    assert strip.get_xlim() == (0.0, 2.0)


def test_a_spectrum_has_the_shells_that_are_kept_and_a_slope_only_if_asked(figures):
    system = heat((2 * math.pi, 4 * math.pi), (24, 36))
    x = torch.rand(3, 4, 24, 36, dtype=F64, generator=torch.Generator().manual_seed(2))
    report.spectrum_picture(system, [0.0, 1.0, 2.0], x, None)
    report.spectrum_picture(system, [0.0, 1.0, 2.0], x, None, slope=-5 / 3)
    k, E = metrics.energy_spectrum(x, system.space.length)
    lines = figures[0].axes[0].lines
    assert len(lines) == 3
    for line, expected in zip(lines, E.mean(1), strict=True):
        shells, values = line.get_data()
        assert shells.tolist() == k[1 : len(shells) + 1].tolist()
        assert shells[-1] == 5.0  # of the second axis 11 of 18 are kept, 11/2; of the first 7
        np.testing.assert_allclose(values, expected[1 : len(shells) + 1])
    shells, values = figures[1].axes[0].lines[-1].get_data()
    np.testing.assert_allclose(np.diff(np.log(values)) / np.diff(np.log(shells)), -5 / 3)


def wave(system, T):
    x, t = system.space.x[0] / system.space.length[0], [0.25 * i for i in range(T)]
    wave = along(system, t, lambda at: torch.sin(2 * math.pi * (x - at)).expand(system.space.n))
    return t, wave


@pytest.mark.parametrize(("system", "T", "frames", "count"), [
    (heat(2.0, 16), 30, 7, 7), (heat((2.0, 4.0), (8, 12)), 9, 5, 5), (heat(2.0, 16), 4, 60, 4),
])  # fmt: skip
def test_a_gif_has_as_many_frames_as_asked_and_lasts_as_long(tmp_path, system, T, frames, count):
    t, x = wave(system, T)
    report.animation(system, t, x, tmp_path / "x.gif", frames=frames)
    with Image.open(tmp_path / "x.gif") as gif:
        assert gif.n_frames == count
        assert gif.info["loop"] == 0
        total = 0
        for i in range(count):
            gif.seek(i)
            total += gif.info["duration"]
            assert gif.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert total == pytest.approx(1000 * moving.SECONDS, abs=10 * count)  # a GIF counts hundredths


def test_a_gif_shows_at_each_time_what_there_is(tmp_path):
    """A field that is 1, then -1: the colour in the middle is that end of the map."""
    system = heat((2.0, 2.0), (8, 8))
    x = torch.tensor([0.5, 1.0, -1.0, 1.0], dtype=F64)[:, None, None, None].expand(4, 1, 8, 8)
    report.picture(system, [0.0, 1.0, 2.0, 3.0], x, tmp_path / "x.gif")
    colours = fields.Part.of("u", x.numpy()).colours([0.75, 1.0, 0.0, 1.0])[:, :3]
    with Image.open(tmp_path / "x.gif") as gif:
        for i, expected in enumerate(colours):
            gif.seek(i)
            width, height = gif.size
            found = np.array(gif.convert("RGB").getpixel((width // 3, height // 2))) / 255
            np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_png_holds_the_colours_of_its_map(tmp_path):
    """The least and the most of a field, though there are but 256 colours."""
    system = heat(2.0, 8)
    x = torch.linspace(1, 2, 8, dtype=F64).expand(3, 1, 8)
    report.picture(system, [0.0, 1.0, 2.0], x, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.mode == "P"
        pixels = {tuple(v) for v in np.asarray(sheet.convert("RGB")).reshape(-1, 3).tolist()}
    part = fields.Part.of("u", x.numpy())
    for colour in (part.colours([0.0, 1.0])[0], part.colours([0.0, 1.0])[1], to_rgb("white")):
        assert tuple(round(255 * v) for v in colour[:3]) in pixels


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="an mp4 needs ffmpeg")
def test_an_mp4_is_one(tmp_path):
    system = heat((2.0, 3.0), (8, 12))
    report.picture(system, *wave(system, 5), tmp_path / "x.mp4")
    assert (tmp_path / "x.mp4").read_bytes()[4:8] == b"ftyp"


def test_spectra_are_of_periodic_boxes(tmp_path):
    walled = ls.systems.diffusion(n=16, walls="neumann")
    with pytest.raises(ls.ArgumentError, match="periodic"):
        report.spectrum_picture(walled, [0.0], walled.x0[None], tmp_path / "x.png")


@pytest.mark.parametrize(("name", "suffix", "says"), [
    ("korteweg_de_vries", ".mp4", "ffmpeg.* .gif"),
    ("korteweg_de_vries", ".jpg", "a .png, a .gif, a .mp4"),
    ("pendulum", ".png", "no field"),
    ("pendulum", ".gif", "no field"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, monkeypatch, name, suffix, says):
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    system = ls.systems.get(name)
    x = system.x0.expand(3, *system.x0.shape)
    with pytest.raises(ls.ArgumentError, match=says):
        report.picture(system, [0.0, 1.0, 2.0], x, tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_one_time_is_no_animation_and_a_picture_all_the_same(tmp_path, figures):
    system = heat((2.0, 2.0), (8, 8), view=Frames(lambda u: u, "u", (2.0, 2.0)))
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(ls.ArgumentError, match="two or more"):
        report.picture(system, [0.0], x, tmp_path / "x.gif")
    report.picture(system, [0.0], x, tmp_path / "x.png")
    assert len(images(figures[0])) == 1
