"""`longstride sample`: samples of a model in a picture, an array, or a folder of shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError, SolveError
from ..terminal import grid_of, options_of, progress, show
from .app import Count, Guidance, Json, Labels, ModelName, Seed, Threads, app, conditions, set_threads

if TYPE_CHECKING:
    from torch import Tensor

    from ..denoiser import Denoiser
    from ..plan import Plan


@app.command()
def sample(
    name: ModelName,
    nfe: Annotated[int | None, typer.Option(help="Budget of evaluations.", show_default="20")] = None,
    method: Annotated[
        str | None, typer.Option(help="See `longstride methods`.", show_default="dpmpp_2m")
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Where the steps go: karras, or karras:rho=5:open=true.", show_default="the process's own"
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the method, e.g. eta=0.5."),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Plan file, instead of method, grid and NFE.")] = None,
    n: Count = 64,
    seed: Seed = 0,
    label: Labels = None,
    guidance: Guidance = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help=".png, .npy, or a folder for shards.", show_default="samples.png, .npy if no images"
        ),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(min=1, help="Samples in a file of the folder, and in a batch.", show_default="256"),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Draw samples and write them to a picture, an array, or a folder of shards.

    A folder is filled by as many processes as torchrun starts, with one thread each unless --threads says
    more, and goes on where it was interrupted when the same command is given again.
    """
    from .. import models
    from ..files import output_folder
    from ..sampling import sample as draw
    from ..solution import Stats

    folder = out if out is not None and not out.suffix else None
    set_threads(threads or (1 if folder else None))
    model = models.load(name)
    chosen = choose_plan(model, plan, method, nfe, grid, option or [])
    cond = conditions(model, n, label)
    if folder:
        fill(folder, model, n, chosen, seed, cond, guidance, shard or 256, as_json)
        return
    out = output_file(out, model, shard)
    with output_folder(out.parent) as part:
        with progress(f"sampling {name}") as report:
            done, stats = 0, Stats()

            def count(step: int, t: float, x: Tensor) -> None:
                nonlocal done
                done += len(x)
                report(done, n * len(chosen.steps))

            x = draw(
                model, n, plan=chosen, seed=seed, cond=cond, guidance=guidance, callback=count,
                stats=stats,
            )  # fmt: skip
        write_samples(x, part / out.name, model)
    show([{
        "model": model.name, "method": chosen.method, "samples": n, "NFE": stats.nfe,
        "network calls": stats.network_calls, "seconds": stats.seconds, "out": str(out),
    }], as_json)  # fmt: skip


def choose_plan(
    model: Denoiser, file: Path | None, method: str | None, nfe: int | None, grid: str | None,
    pairs: Sequence[str],
) -> Plan:  # fmt: skip
    from ..plan import Plan
    from ..sampling import DEFAULT_METHOD, plan_sampling

    if file is None:
        where = None if grid is None else grid_of(grid)
        return plan_sampling(model.process, method or DEFAULT_METHOD, nfe, where, **options_of(pairs))
    if pairs or any(given is not None for given in (method, nfe, grid)):
        raise ArgumentError("--plan already holds method, NFE, grid and options: leave those out")
    return Plan.load(file)


def fill(
    folder: Path, model: Denoiser, n: int, plan: Plan, seed: int, cond: dict[str, Tensor] | None,
    guidance: float, size: int, as_json: bool,
) -> None:  # fmt: skip
    """Draw this process's share of the shards of a folder; the first one says what all have done."""
    from ..shards import ranks, sample_shards

    rank, processes = ranks()
    with progress(f"sampling {model.name}", shown=rank == 0) as report:
        drawn = sample_shards(model, n, folder, plan, seed=seed, cond=cond, guidance=guidance, size=size,
                              progress=report)  # fmt: skip
    if rank == 0:
        show([{
            "model": model.name, "method": plan.method, "samples": n, "NFE": plan.nfe,
            "network calls": model.network_calls(guidance, plan.evaluated), "processes": processes,
            "shards before": drawn.before, "made": drawn.made, "missing": drawn.missing,
            "seconds": drawn.seconds, "samples/s": drawn.samples / drawn.seconds, "out": str(folder),
        }], as_json)  # fmt: skip
    if drawn.missing:
        raise SolveError(
            f"{drawn.missing} shards are missing in {folder}: a process has died; give the command again"
        )


def output_file(out: Path | None, model: Denoiser, shard: int | None) -> Path:
    from ..shards import ranks

    if shard is not None or ranks()[1] > 1:
        raise ArgumentError(
            f"--out {out or 'samples'}: shards, and more than one process, want a folder, "
            "such as --out samples/"
        )
    images = len(model.shape) == 3 and model.shape[0] in (1, 3)
    out = out or Path("samples.png" if images else "samples.npy")
    if out.suffix not in (".png", ".npy") or (out.suffix == ".png" and not images):
        kinds = ".png or .npy" if images else ".npy"
        raise ArgumentError(f"--out {out}: name a {kinds} file, or a folder, which has no suffix")
    if out.is_dir():
        raise ArgumentError(f"--out {out} is a folder: name a file in it")
    return out


def write_samples(x: Tensor, path: Path, model: Denoiser) -> None:
    if path.suffix == ".npy":
        import numpy as np

        np.save(path, x.numpy())
        return
    from ..report import samples_image

    # A class per column, where there are classes and enough samples for a row.
    classes = model.null.get("y", 0)
    samples_image(x, path, model.data_range or (-1.0, 1.0), classes if len(x) >= classes else None)
