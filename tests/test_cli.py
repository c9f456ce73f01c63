"""The commands keep their contract: tables, JSON, exit codes, one line of error, whole files or none.

The models are small untrained networks under the names of the embedded ones.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from longstride import methods, metrics, models, report, sampling
from longstride.cli import app
from longstride.models.classifier import Classifier
from longstride.models.unet import UNet
from longstride.plan import Plan
from longstride.process import EDM
from longstride.report import Comparison, Result, Strip, picture_grid

SIZE = (1, 1, 16, 1, 10, 5)


def untrained(path, name, value=None):
    torch.manual_seed(0)
    net = UNet(*SIZE)
    for parameter in net.parameters():
        if value is None:
            torch.nn.init.normal_(parameter, std=0.1)
        else:
            torch.nn.init.constant_(parameter, value)
    models.save(path, net, SIZE, (1, 8, 8), name, 0.5, {})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in models.MODELS:
        untrained(weights / f"{name}.safetensors", name)
    monkeypatch.setattr(models, "WEIGHTS", weights)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def succeed(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_sample_writes_what_the_library_draws():
    row = succeed("sample", "fashion", "--nfe", 5, "--n", 7, "--seed", 3, "--out", "x.npy")[0]
    model, y = models.load("fashion"), torch.arange(7)
    expected = sampling.sample(model, 7, nfe=5, seed=3, cond={"y": y})
    assert np.array_equal(np.load("x.npy"), expected.numpy())
    assert (row["NFE"], row["network calls"], row["samples"]) == (5, 5, 7)


def test_sample_takes_labels_guidance_and_method_options_as_the_library_does():
    row = succeed(
        "sample", "digits", "--nfe", 4, "--n", 5, "--label", "2,7", "--guidance", 2, "--grid", "log_snr",
        "--method", "ddim", "--option", "eta=0.5", "--out", "x.npy",
    )[0]  # fmt: skip
    expected = sampling.sample(
        models.load("digits"), 5, nfe=4, method="ddim", eta=0.5, grid="log_snr", guidance=2.0,
        cond={"y": torch.tensor([2, 7, 2, 7, 2])},
    )  # fmt: skip
    assert np.array_equal(np.load("x.npy"), expected.numpy())
    assert (row["NFE"], row["network calls"]) == (4, 8)


def test_sample_with_a_plan_is_sample_with_what_the_plan_was_made_from():
    plan = sampling.plan_sampling(models.load("fashion").process, "deis_3", 6, "log_snr")
    plan.save("plan.json")
    succeed("sample", "fashion", "--plan", "plan.json", "--n", 3, "--out", "a.npy")
    succeed("sample", "fashion", "--method", "deis_3", "--nfe", 6, "--grid", "log_snr", "--n", 3,
            "--out", "b.npy")  # fmt: skip
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


def test_the_picture_shows_the_samples(elsewhere):
    succeed("sample", "digits", "--nfe", 3, "--n", 12, "--out", "new/folder/x.png")
    succeed("sample", "digits", "--nfe", 3, "--n", 12, "--out", "x.npy")
    picture = matplotlib.image.imread("new/folder/x.png")[..., 0]
    grey = np.clip((np.load("x.npy")[:, 0] + 1) / 2, 0, 1)
    side, gap = 80, 6  # 8 pixels, each enlarged 10 times; a column for each of 10 classes
    assert picture.shape == (2 * (side + gap) + gap, 10 * (side + gap) + gap)
    for i, image in enumerate(grey):
        top, left = i // 10 * (side + gap) + gap, i % 10 * (side + gap) + gap
        centres = picture[top + 5 : top + side : 10, left + 5 : left + side : 10]
        np.testing.assert_allclose(centres, image, atol=1 / 255)
    assert os.listdir("new/folder") == ["x.png"]


def test_compare_measures_the_end_point_error_of_every_case():
    found = succeed("compare", "fashion", "--nfe", "4,5", "--method", "ddim,dpmpp_2m", "--grid",
                    "karras,log_snr", "--n", 4, "--out", "report")  # fmt: skip
    assert {(r["method"], r["grid"], r["nfe"]) for r in found["rows"]} == {
        (m, g, k) for m in ("ddim", "dpmpp_2m") for g in ("karras", "log_snr") for k in (4, 5)
    }
    model, cond = models.load("fashion"), {"y": torch.arange(4)}
    x_init = sampling.prior(model, 4, 0)
    exact = sampling.reference(model, x_init, cond=cond, nfe=found["reference_nfe"])
    row = found["rows"][-1]
    x = sampling.sample(
        model, x_init=x_init, method=row["method"], grid=row["grid"], nfe=row["nfe"], cond=cond
    )
    assert math.isclose(row["error"], (x - exact).square().mean().sqrt().item(), rel_tol=1e-5)
    assert sorted(os.listdir("report")) == ["error.png", "pictures.png", "table.json", "table.md"]
    with open("report/table.json") as file:
        assert json.load(file)["rows"] == found["rows"]


def test_a_comparison_ranks_methods_by_their_best_grid():
    rows = (Result("a", "g", 4, 0.3), Result("b", "g", 4, 0.2), Result("a", "h", 4, 0.1),
            Result("b", "h", 4, 0.9), Result("c", "h", 4, 0.5))  # fmt: skip
    table = Comparison("m", 1, 0, 1.0, rows)
    assert [(r.method, r.grid) for r in table.ranked(4)] == [("a", "h"), ("b", "g"), ("c", "h")]
    assert "| a | h | **0.1000** |" in table.markdown()


def test_every_strip_of_a_sheet_shows_the_same_noise_in_the_same_column():
    """Grey levels that tell strip and column apart are found below each other, one strip per row."""
    levels = torch.arange(1, 13).reshape(3, 4) / 20  # far from the white of the sheet
    strips = [
        Strip(f"method {i}", (2 * row - 1)[:, None, None, None].expand(4, 1, 28, 28), "note", "heading")
        for i, row in enumerate(levels)
    ]
    picture_grid(strips, models.Path("sheet.png"), "title")
    sheet = matplotlib.image.imread("sheet.png")
    corners = []
    for level in levels.flatten().tolist():
        grey = (abs(sheet[..., :3] - level) < 1 / 255).all(2)
        lines, columns = (grey.sum(axis) for axis in (1, 0))
        corners.append(((lines >= 84).argmax(), (columns >= 84).argmax()))
    rows, columns = np.array(corners).reshape(3, 4, 2).transpose(2, 0, 1)
    assert (columns == columns[0]).all()
    assert (np.diff(columns[0]) == 90).all()
    assert (rows == rows[:, :1]).all()
    assert (np.diff(rows[:, 0]) > 84).all()


def test_methods_and_models_list_the_registries():
    from longstride.methods import list_methods
    from longstride.methods.nystrom import IN_TURN
    from longstride.methods.sde import SCHEMES
    from longstride.steppers.kinds import KINDS

    assert [r["name"] for r in succeed("methods")] == [r.name for r in list_methods()]
    assert {r["name"] for r in succeed("methods", "--solve")} == {
        name for table, _ in KINDS for name in table
    } | {*SCHEMES, *IN_TURN}
    found = succeed("models")
    assert [r["name"] for r in found] == [*models.MODELS, *models.EXACT]
    count = sum(p.numel() for p in UNet(*SIZE).parameters())
    trained = found[: len(models.MODELS)]
    assert {(r["parameters"], r["classes"], r["shape"]) for r in trained} == {(count, 10, "1x8x8")}


@pytest.mark.parametrize("command", [["methods"], ["models"], ["sample", "digits", "--n", 2]])
def test_the_table_says_what_the_json_says(command):
    rows, table = succeed(*command), " ".join(run(*command).stdout.split())  # its last column may be folded
    for row in rows:
        for value in row.values():
            assert not isinstance(value, str) or value in table


BAD = {
    "model": (["sample", "fashon"], "fashion"),
    "method": (["sample", "fashion", "--method", "dpmp_2m"], "dpmpp_2m"),
    "grid": (["sample", "fashion", "--grid", "karas"], "karras"),
    "method of compare": (["compare", "fashion", "--method", "ddim,hein"], "heun"),
    "grid of compare": (["compare", "fashion", "--grid", "karas"], "karras"),
    "command": (["smaple", "fashion"], "sample"),
    "option": (["sample", "fashion", "--nef", "8"], "--nef"),
    "no model": (["sample"], "MODEL"),
    "budget": (["sample", "fashion", "--nfe", "0"], "nfe"),
    "budget that is no number": (["sample", "fashion", "--nfe", "eight"], "--nfe"),
    "budgets": (["compare", "fashion", "--nfe", "4;6"], "4,6,8"),
    "method option": (["sample", "fashion", "--option", "eta"], "KEY=VALUE"),
    "unknown method option": (["sample", "fashion", "--option", "zeta=1"], "eta"),
    "label": (["sample", "fashion", "--label", "10"], "0 to 9"),
    "no plan": (["sample", "fashion", "--plan", "none.json"], "none.json"),
    "truncated plan": (["sample", "fashion", "--plan", "broken.json"], "broken.json"),
    "plan for another": (["sample", "fashion", "--plan", "flow.json"], "another process"),
    "plan and method": (["sample", "fashion", "--plan", "flow.json", "--nfe", "4"], "leave"),
    "kind of file": (["sample", "fashion", "--out", "x.jpg"], ".png"),
    "folder for a file": (["sample", "fashion", "--out", "folder.png"], "folder"),
    "file for a folder": (["compare", "fashion", "--out", "broken.json"], "broken.json"),
    "weights": (["sample", "broken.safetensors"], "broken.safetensors"),
    "no weights": (["sample", "none.safetensors"], "none.safetensors"),
    "unwritable": (["sample", "fashion", "--out", "/proc/nowhere/x.png"], "/proc/nowhere"),
    "train": (["train", "fasion", "--out", "t"], "fashion"),
    "no data": (["train", "fashion", "--out", "t", "--data", "none"], "none"),
    "guidance": (["sample", "digits", "--guidance", "high"], "--guidance"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=BAD)
def test_a_bad_argument_is_one_line_and_exit_code_2(elsewhere, monkeypatch, arguments, says):
    (elsewhere / "broken.json").write_text('{"format": "longstr')
    (elsewhere / "broken.safetensors").write_bytes(b"not weights")
    (elsewhere / "folder.png").mkdir()
    from longstride.process import Flow

    sampling.plan_sampling(Flow(), "ddim", 4).save(elsewhere / "flow.json")
    before = sorted(os.listdir())
    monkeypatch.setattr("longstride.sampling.run", None)  # nothing may be run
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("command", [["sample"], ["compare", "--nfe", "4", "--method", "ddim"]])
def test_a_network_that_returns_nan_is_one_line_and_exit_code_1(elsewhere, command):
    untrained(elsewhere / "nan.safetensors", "nan", value=math.nan)
    result = run(command[0], "nan.safetensors", *command[1:], "--n", 2)
    assert result.exit_code == 1
    assert "NaN" in result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir() == ["nan.safetensors"]


@pytest.mark.parametrize("where", ["runs.sample", "plots.Figure", "pictures.Figure"])
def test_a_full_disk_or_a_failing_plot_leaves_no_report(monkeypatch, where):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "error.png")

    command = ("compare", "fashion", "--nfe", "4", "--method", "ddim", "--n", 2)
    with monkeypatch.context() as broken:
        broken.setattr(f"longstride.report.{where}", full)
        result = run(*command)
        assert result.exit_code == 1
        assert result.stderr == "longstride: error.png: No space left on device\n"
        # Nothing but what was measured, if anything was: the next run goes on from there.
        assert os.listdir() == ([] if where == "runs.sample" else ["report"])
        assert where == "runs.sample" or os.listdir("report") == ["unfinished"]
    succeed(*command)
    assert sorted(os.listdir("report")) == ["error.png", "pictures.png", "table.json", "table.md"]


def judged(name):
    torch.manual_seed(1)
    size = (1, 8, 10)
    classifier = Classifier(*size).eval()
    images = torch.rand(64, 1, 8, 8) * 2 - 1
    test = metrics.statistics(classifier, images)
    models.save_judge(models.WEIGHTS / f"{name}-judge.safetensors", classifier, size, test, 0.9, 0.1)
    return classifier, test


ALL = ("compare", "digits", "--methods", "all", "--nfe", "6,7", "--grid", "karras", "--n", 2, "--samples", 40)


def test_all_methods_are_ranked_and_their_finalists_by_the_distance_too():
    classifier, test = judged("digits")
    found = succeed(*ALL)
    noisy = {name for name in methods.REGISTRY if sampling.plan_sampling(EDM(), name, nfe=6).stochastic}
    assert {r["method"] for r in found["rows"]} == set(methods.REGISTRY) - noisy
    assert len(found["distances"]) == 6  # three of each kind, at 6 and not at 7
    assert sum(r["method"] in noisy for r in found["distances"]) == 3
    row, cond = found["distances"][-1], {"y": torch.arange(40) % 10}
    assert row["nfe"] == 6
    x = sampling.sample(models.load("digits"), 40, method=row["method"], grid="karras", nfe=6, cond=cond)
    ours = metrics.statistics(classifier, x)
    distance = metrics.frechet_distance(ours.mean, ours.cov, test.mean, test.cov)
    assert row["error"] == pytest.approx(distance, rel=0.02)  # of float32 features, almost equal
    page = models.Path("report/table.md").read_text()
    assert all(r["method"] in page for r in found["distances"])


def test_an_interrupted_comparison_goes_on_to_the_same_table(monkeypatch):
    judged("digits")
    whole = succeed(*ALL, "--out", "whole")
    drawn, real = 0, report.runs.sample

    def counted(*args, **kwargs):
        nonlocal drawn
        drawn += 1
        if drawn == 50:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr("longstride.report.runs.sample", counted)
    assert run(*ALL, "--out", "halves").exit_code == 130
    assert os.listdir("halves") == ["unfinished"]
    with open("halves/unfinished/results.jsonl", "a") as file:
        file.write('{"error 1')  # the machine went down while it wrote
    halves = succeed(*ALL, "--out", "halves")
    assert {**halves, "out": ""} == {**whole, "out": ""}
    second, drawn = drawn - 50, 50
    succeed(*ALL, "--out", "again")
    assert drawn - 50 == second + 49  # those that were finished before
    assert sorted(os.listdir("halves")) == ["error.png", "pictures.png", "table.json", "table.md"]


TUNE = ("tune", "mixture", "--nfe", "3,4", "--noises", 64, "--select", 32, "--report", 32, "--iterations", 2,
        "--hops", 1)  # fmt: skip


def test_tune_writes_plans_that_sample_and_goes_on_where_it_was_interrupted(monkeypatch):
    tune = (*TUNE, "--of", 128)
    whole = succeed(*tune, "--out", "whole")
    assert sorted(os.listdir("whole")) == [
        "front.json",
        "front.md",
        "front.png",
        "plan-3.json",
        "plan-4.json",
    ]
    row = succeed("sample", "mixture", "--plan", "whole/plan-4.json", "--n", 4, "--out", "x.npy")[0]
    assert (row["method"], row["NFE"]) == (Plan.load("whole/plan-4.json").method, 4)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("longstride.report.write_front", stop)
        assert run(*tune, "--out", "halves").exit_code == 130
    assert os.listdir("halves") == ["unfinished"]
    halves = succeed(*tune, "--out", "halves")
    assert sorted(os.listdir("halves")) == sorted(os.listdir("whole"))
    for nfe in ("3", "4"):
        assert halves["plans"][nfe]["error"] == whole["plans"][nfe]["error"]
        assert halves["plans"][nfe]["evaluations"] < whole["plans"][nfe]["evaluations"]


def test_workers_share_the_hops_and_a_plan_may_be_for_several_guidances():
    pytest.importorskip("optuna")
    shared = (*TUNE[:2], "--nfe", "3", *TUNE[4:], "--workers", 2, "--storage", "study.log")
    succeed(*shared, "--out", "tuned")
    with open("study.log") as study:
        assert 1 <= study.read().count('"solver"') <= 2  # the second looked before it began
    few = ("--noises", 16, "--select", 16, "--report", 16, "--iterations", 1, "--hops", 0,
           "--reference", 512)  # fmt: skip
    out = succeed("tune", "digits", "--nfe", "3", *few, "--guidance", "1,2", "--out", "guided")
    assert out["plans"]["3"]["tuned_for"]["guidance"] == ["1", "2"]
    result = run("tune", "mixture", "--guidance", "one", "--out", "no")
    assert result.exit_code == 2
    assert "numbers like 1" in result.stderr
    assert not os.path.exists("no")


def test_noise_is_compared_only_where_there_is_a_judge():
    result = run("compare", "fashion", "--method", "ddim,ddpm", "--nfe", "4", "--n", 2)
    assert result.exit_code == 2
    assert "judge" in result.stderr
    page = succeed("compare", "fashion", "--methods", "all", "--grid", "karras:rho=5", "--nfe", "6", "--n", 2)
    assert "ddpm" in dict(page["left_out"])
    assert {r["grid"] for r in page["rows"]} == {"karras:rho=5"}


def test_training_that_was_interrupted_goes_on_to_the_same_weights(monkeypatch):
    from longstride.models import reproduce, train

    pytest.importorskip("sklearn")
    recipe = dataclasses.replace(
        train.RECIPES["digits"], width=16, batch=16, images=16 * 8, classifier_epochs=1
    )
    monkeypatch.setitem(train.RECIPES, "digits", recipe)
    figures = succeed("train", "digits", "--out", "whole")[0]
    assert figures["steps"] == 8
    assert 0 <= figures["accuracy"] <= 1
    assert figures["floor"] > 0

    steps = 0

    def stop(done, total):
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce.reproduce("digits", models.Path("halves"), progress=stop)
    assert os.listdir("halves") == ["digits.ckpt"]
    succeed("train", "digits", "--out", "halves")
    for file in ("digits.safetensors", "digits-judge.safetensors"):
        whole, halves = (models.store.read_tensors(models.Path(f) / file, kind)[0]
                         for f in ("whole", "halves")
                         for kind in ["judge" if "judge" in file else "denoiser"])  # fmt: skip
        assert all(torch.equal(whole[k], halves[k]) for k in whole)
    succeed("sample", "halves/digits.safetensors", "--nfe", 2, "--n", 2)
    assert models.judge("halves/digits.safetensors").accuracy == pytest.approx(figures["accuracy"], abs=1e-4)


COMMAND = [sys.executable, "-c", "from longstride.cli import main; main()"]


def test_the_real_command_exits_as_promised():
    done = subprocess.run([*COMMAND, "sample", "fasion"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "longstride: unknown model 'fasion': did you mean fashion?\n"
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("sample", "compare", "train", "methods", "models"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_leaves_nothing(elsewhere, how):
    untrained(elsewhere.parent / "slow.safetensors", "slow")
    command = [*COMMAND, "compare", "../slow.safetensors", "--n", "4000", "--out", "report"]
    # A test run in the background of a shell ignores interrupts, and its children would inherit that.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=elsewhere,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not os.listdir(elsewhere) and time.monotonic() < deadline:
        time.sleep(0.05)  # until the run has begun: its temporary folder is there
    try:
        while process.poll() is None and time.monotonic() < deadline + 60:
            process.send_signal(how)  # again, as Python drops one that hits a callback of its import system
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
    finally:
        process.kill()
    _, errors = process.communicate()
    assert (process.returncode, errors.splitlines()[-1]) == (130, "longstride: interrupted")
    assert os.listdir(elsewhere) == []
