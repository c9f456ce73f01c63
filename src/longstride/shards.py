"""Any number of samples over any number of processes, in files that are there whole or not at all.

Noise belongs to a sample's index, and a shard is one batch of the network: it holds the same bits whoever
draws it. The processes deal out the shards that are not there yet, and a run that was ended, however it
was, goes on when it is started again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .denoiser import Denoiser
from .errors import ArgumentError, differing, whole
from .files import whole_file, write_text
from .guidance import Guidance
from .plan import Plan
from .processes import device, ranks, together
from .sampling import dealt_out, sample

RUN = "run.json"  # in the folder: what its samples are
FORMAT = "longstride-samples"
FIRST = 2  # samples that tell a run from another, beside what was asked for


@dataclass(frozen=True)
class Drawn:
    """Shards that were there before, were made by all processes, and are missing; samples made, seconds."""

    before: int
    made: int
    missing: int
    samples: int
    seconds: float


def spans(folder: Path, n: int, size: int) -> Iterator[tuple[Path, range]]:
    """Each file of samples 0 .. n - 1 and the samples that it holds, whose indices are its name."""
    digits = max(5, len(str(n - 1)))
    for first in range(0, n, size):
        span = range(first, min(first + size, n))
        yield folder / f"{first:0{digits}}-{span[-1]:0{digits}}.safetensors", span


def sample_shards(
    model: Denoiser,
    n: int,
    folder: Path,
    plan: Plan,
    *,
    seed: int = 0,
    cond: Mapping[str, Any] | None = None,
    guidance: float = 1.0,
    size: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Drawn:
    """Draw those of samples 0 .. n - 1 that are not in the folder yet, `size` to a file and to a batch.

    Under torchrun every process draws its own share, on its own GPU where there are some, and returns when
    all are done. The files are the same bit for bit whatever the number of processes, on machines of one
    kind with the same number of threads for each: with other ones a network may round otherwise. A file
    holds x [size, *shape] and, under their names, the tensors of `cond`. run.json beside them says what they
    are samples of, with a digest of the first two.

    Args:
        cond: as `ls.sample` has it.
        progress: called with (samples done, in all) of this process after every shard.

    Raises:
        ArgumentError: before anything is written: as by `ls.sample`, or the folder holds something else, or
            samples of another run.
    """
    n, size = whole("n", n, 1, "at least one sample"), whole("size", size, 1)
    rank, processes = ranks()
    cond = model.conditioning(cond, n)
    _claim(folder, _description(model, n, plan, seed, cond, guidance, size))
    shards = list(spans(folder, n, size))
    lacking = [(file, span) for file, span in shards if not file.exists()]
    with together(processes) as meet:
        meet()  # nobody draws before all have looked, so they share out the same shards
        started, done = time.perf_counter(), 0
        mine = lacking[rank::processes]
        total = sum(len(span) for _, span in mine)
        for file, span in mine:
            x = sample(model, len(span), first=span.start, plan=plan, seed=seed, cond=dealt_out(cond, span),
                       guidance=guidance, device=device(), batch=size)  # fmt: skip
            _write(file, {"x": x, **_tensors(dealt_out(cond, span))})
            done += len(span)
            progress(done, total)
    seconds = time.perf_counter() - started
    made = [span for file, span in lacking if file.exists()]
    before, missing = len(shards) - len(lacking), len(lacking) - len(made)
    return Drawn(before, len(made), missing, sum(map(len, made)), seconds)


def read_samples(folder: str | Path) -> dict[str, Tensor]:
    """The samples in a folder of shards: x [n, *shape], and by name what they were conditioned on, [n, ...].

    Raises:
        ArgumentError: no such folder, one that is not complete, or a damaged file.
    """
    run = _read_run(Path(folder))
    parts = []
    for file, _ in spans(Path(folder), whole("n", run.get("n"), 1), whole("shard", run.get("shard"), 1)):
        try:
            parts.append(load_file(file))
        except FileNotFoundError:
            raise ArgumentError(f"there is no {file} yet: give the command that began it again") from None
        except (OSError, SafetensorError) as error:
            raise ArgumentError(
                f"{file} is damaged: {error}; delete it and give the command that made it again"
            ) from error
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _description(model: Denoiser, n: int, plan: Plan, seed: int, cond: Mapping[str, Any], guidance: float,
                 size: int) -> dict[str, Any]:  # fmt: skip
    """What the samples of a run depend on, bit by bit."""
    from . import __version__

    few = range(min(n, FIRST))
    x = sample(model, len(few), plan=plan, seed=seed, cond=dealt_out(cond, few), guidance=guidance,
               device=device())  # fmt: skip
    return {
        "format": FORMAT, "version": __version__, "model": model.name, "method": plan.method,
        "nfe": plan.nfe, "plan": plan.weights, "seed": seed, "n": n, "guidance": str(Guidance.of(guidance)),
        "shard": size,
        **{name: hashlib.sha256(value.cpu().numpy().tobytes()).hexdigest()
           for name, value in {"first samples": x, **_tensors(cond)}.items()},
    }  # fmt: skip


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """From now on the folder is this run's, unless there are samples of another in it, or anything else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = {file.name for file in folder.iterdir() if not file.name.startswith(".")}
    except OSError as error:
        raise ArgumentError(f"cannot write to {folder}: {error.strerror}; name another folder") from error
    if held <= {RUN}:
        write_text(folder / RUN, json.dumps(description, indent=1) + "\n")
        return
    what = differing(_read_run(folder), description)
    if what:
        raise ArgumentError(
            f"{folder} holds the samples of another run: {what}; name another folder (a network rounds "
            "otherwise with another number of threads, or on another kind of machine)"
        )


def _read_run(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / RUN).read_text())
    except FileNotFoundError as error:
        raise ArgumentError(f"{folder} holds no samples: there is no {RUN} in it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"cannot read {folder / RUN}: {error}; it was not written here") from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise ArgumentError(f"{folder / RUN} does not describe samples: name another folder")
    return run


def _tensors(cond: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in cond.items() if isinstance(value, Tensor) and value.ndim}


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a shard, and take away what a killed process has left of it."""
    for left in file.parent.glob(f".{file.name}.*"):
        left.unlink(missing_ok=True)
    with whole_file(file) as part:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part)
