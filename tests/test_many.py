"""Samples by their index: in parts as at once, over processes as in one, after a kill as without."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import longstride as ls
from longstride.cli import app
from longstride.models import mixture, save
from longstride.models.unet import UNet

COMMAND = ["sample", "digits", "--method", "dpmpp_2m", "--nfe", "8", "-n", "470", "--shard", "16"]
FILES = 30  # 29 of 16 samples and one of 6
Start = Callable[..., subprocess.Popen[str]]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def drawn(*arguments: object) -> dict[str, object]:
    result = run("sample", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """inode and time of every shard: the same if it was not written again."""
    return {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in folder.glob("[!.]*.safetensors")}


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The children of torchrun; they have sessions of their own."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process of one thread; whatever is left of it when the test ends is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.setpriority(os.PRIO_PROCESS, process.pid, 15)  # and its children: who watches them comes first
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """kill -9 of torchrun and of all its workers."""
    for pid in [process.pid, *workers(process)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def wait_for(folder: Path, shards: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(identities(folder)) < shards and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(identities(folder)) >= shards, process.communicate() if process.poll() is not None else "late"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one process."""
    folder = tmp_path_factory.mktemp("alone") / "samples"
    assert drawn(*COMMAND[1:], "--out", folder)["made"] == FILES
    return contents(folder)


@pytest.mark.parametrize("method", ["dpmpp_2m", "ddpm"])
def test_samples_drawn_in_parts_are_those_drawn_at_once(method: str) -> None:
    model, cond = mixture(dim=6), {"y": torch.arange(9.0)[:, None]}
    asked = {"method": method, "nfe": 7, "seed": 5, "dtype": torch.float64}
    shifted = ls.Denoiser(lambda x, t, y: model.net(x - y, t) + y, model.process, shape=model.shape)
    at_once = ls.sample(shifted, 9, cond=cond, **asked)
    part = ls.sample(shifted, 4, first=3, cond={"y": cond["y"][3:7]}, batch=3, **asked)
    torch.testing.assert_close(part, at_once[3:7], rtol=0, atol=1e-12)
    # Given their noise, the samples still say which ones they are: what noise they meet on the way.
    again = ls.sample(
        shifted, x_init=ls.prior(shifted, 9, 5, dtype=torch.float64)[3:7], first=3,
        cond={"y": cond["y"][3:7]}, **asked,
    )  # fmt: skip
    torch.testing.assert_close(again, at_once[3:7], rtol=0, atol=1e-12)


def test_two_processes_killed_in_the_middle_end_with_the_bits_of_one(
    tmp_path: Path, start: Start, alone: dict[str, bytes]
) -> None:
    folder = tmp_path / "samples"
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "longstride", *COMMAND]
    first = start(*command, "--out", str(folder), "--json")
    wait_for(folder, 2, first)
    end(first)
    finished = identities(folder)
    assert 2 <= len(finished) < FILES
    left = next(name for name in sorted(alone) if name not in finished)
    (folder / f".{left}.killed").write_bytes(alone[left][:100])  # as by a kill while it wrote

    second = start(*command, "--out", str(folder), "--json")
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    row = json.loads(output)[0]  # rank 0 alone speaks
    assert (row["processes"], row["missing"]) == (2, 0)
    assert (row["shards before"], row["made"]) == (len(finished), FILES - len(finished))
    assert contents(folder) == alone
    assert {name: identities(folder)[name] for name in finished} == finished


def test_where_a_process_dies_the_others_finish_and_say_what_is_missing(
    tmp_path: Path, start: Start, alone: dict[str, bytes]
) -> None:
    """As on several machines, where nobody ends the others."""
    folder = tmp_path / "samples"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = ["longstride", *COMMAND, "--out", str(folder), "--json"]
    one, other = (start(*command, RANK=rank, **meeting) for rank in "01")
    wait_for(folder, 1, one)
    other.kill()
    output, errors = one.communicate()
    row, there = json.loads(output)[0], identities(folder)
    assert one.returncode == 1
    assert errors.splitlines()[-1].startswith(f"longstride: {row['missing']} shards are missing")
    assert row["made"] == len(there) == FILES - row["missing"]
    assert there.keys() >= set(sorted(alone)[:FILES:2])  # its own share, dealt out in turn
    assert row["missing"] > 0

    assert drawn(*COMMAND[1:], "--out", folder)["made"] == row["missing"]
    assert contents(folder) == alone
    assert {name: identities(folder)[name] for name in there} == there


SMALL = {"-n": 10, "--shard": 4, "--nfe": 3, "--seed": 1, "--label": "2,7", "--guidance": 1.5}
OTHERS = [("--seed", 2), ("-n", 12), ("--shard", 5), ("--nfe", 4), ("--label", "2"), ("--guidance", 2),
          ("--method", "ddim"), ("--grid", "log_snr")]  # fmt: skip


def small(folder: object, model: str = "digits", **changes: object) -> list[object]:
    return [model, *(word for pair in {**SMALL, **changes}.items() for word in pair), "--out", folder]


def test_the_folder_is_read_back(tmp_path: Path) -> None:
    row = drawn(*small(tmp_path / "samples"))
    assert (row["made"], row["network calls"], row["processes"]) == (3, 6, 1)
    read = ls.read_samples(tmp_path / "samples")
    y = torch.tensor([2, 7] * 5)
    x = ls.sample(ls.load("digits"), 10, nfe=3, seed=1, cond={"y": y}, guidance=1.5, batch=4)
    assert torch.equal(read["x"], x)
    assert torch.equal(read["y"], y)
    assert drawn(*small(tmp_path / "samples"))["made"] == 0


@pytest.mark.parametrize(("option", "value"), OTHERS, ids=[option for option, _ in OTHERS])
def test_a_folder_of_another_run_is_refused_with_what_differs(
    tmp_path: Path, option: str, value: object
) -> None:
    drawn(*small(tmp_path / "samples"))
    before = contents(tmp_path / "samples")
    result = run("sample", *small(tmp_path / "samples", **{option: value}))
    assert result.exit_code == 2
    key = {"--label": "y", "--grid": "plan"}.get(option, option.strip("-"))
    assert f" {key} " in result.stderr
    assert option not in ("--seed", "-n") or f"{SMALL[option]} and not {value}" in result.stderr
    assert contents(tmp_path / "samples") == before


def test_another_model_of_the_same_name_is_another_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = UNet(1, 1, 16, 1, 10, 5)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        save(tmp_path / f"{seed}.safetensors", net, (1, 1, 16, 1, 10, 5), (1, 8, 8), "mine", 0.5, {})
    drawn(*small(tmp_path / "samples", str(tmp_path / "0.safetensors")))
    result = run("sample", *small(tmp_path / "samples", str(tmp_path / "1.safetensors")))
    assert result.exit_code == 2
    assert "another run: first samples" in result.stderr


BAD = {
    "no samples": (["-n", 0, "--out", "new"], {}, "-n"),
    "no samples to a shard": (["--shard", 0, "--out", "new"], {}, "--shard"),
    "shards of a picture": (["--shard", 4], {}, "folder"),
    "a picture by two processes": (["--out", "x.png"], {"WORLD_SIZE": "2"}, "folder"),
    "a folder that is a file": (["--out", "file"], {}, "file"),
    "a folder in a file": (["--out", "file/samples"], {}, "file"),
    "a folder of something else": (["--out", "."], {}, "run.json"),
    "damaged": (["--out", "damaged"], {}, "run.json"),
    "budget": (["--nfe", 0, "--out", "new"], {}, "nfe"),
    "plan for another": (["--plan", "flow.json", "--out", "new"], {}, "another process"),
    "nobody to meet": (["--out", "new"], {"WORLD_SIZE": "2", "RANK": "0"}, "torchrun"),
}


@pytest.mark.parametrize(("arguments", "environment", "says"), BAD.values(), ids=BAD)
def test_a_bad_argument_is_one_line_and_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], environment: dict[str, str],
    says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Path("file").write_text("kept")
    Path("damaged").mkdir()
    Path("damaged/run.json").write_text('{"format": "longstr')
    Path("damaged/00000-00001.safetensors").write_text("kept")
    ls.plan_sampling(ls.process.Flow(), "ddim", 4).save("flow.json")
    before = sorted(tmp_path.iterdir())
    result = run("sample", "digits", *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not [file for file in tmp_path.rglob("*.safetensors") if file.parent.name != "damaged"]
    assert sorted(tmp_path.iterdir()) == before or says == "torchrun"  # the folder was theirs already
    assert Path("file").read_text() == Path("damaged/00000-00001.safetensors").read_text() == "kept"


def test_what_is_not_whole_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    with pytest.raises(ls.ArgumentError, match=r"no run\.json"):
        ls.read_samples(folder)
    drawn(*small(folder))
    last = folder / "00008-00009.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[:-8])
    with pytest.raises(ls.ArgumentError, match="damaged"):
        ls.read_samples(folder)
    last.unlink()
    with pytest.raises(ls.ArgumentError, match=r"there is no .*00008-00009"):
        ls.read_samples(folder)
    assert drawn(*small(folder))["made"] == 1
    assert last.read_bytes() == whole
    for text in ("{", "[]", '{"format": "longstride-samples", "n": "many"}'):
        (folder / "run.json").write_text(text)
        with pytest.raises(ls.ArgumentError):
            ls.read_samples(folder)


def test_a_run_that_failed_leaves_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was claimed without a shard is nobody's."""
    with monkeypatch.context() as broken:
        broken.setattr("longstride.shards.save_file", interrupted)
        assert run("sample", *small(tmp_path / "samples")).exit_code == 130
    assert os.listdir(tmp_path / "samples") == ["run.json"]
    assert drawn(*small(tmp_path / "samples", **{"--seed": 2}))["made"] == 3


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt
