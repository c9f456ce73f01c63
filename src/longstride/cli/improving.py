"""`longstride compare`, `tune` and `train`: work that takes a while and goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError
from ..terminal import decimals, grid_of, numbers, progress, show, words
from .app import Guidance, Json, Labels, ModelName, Seed, Threads, app, conditions, set_threads

if TYPE_CHECKING:
    from ..models import Judge

COMPARED = "ddim,heun,dpmpp_2m,dpmpp_3m,deis_3,ipndm_3,unipc_3"


@app.command()
def compare(
    name: ModelName,
    nfe: Annotated[
        str | None,
        typer.Option(help="Budgets of evaluations.", show_default="4,6,8,10; for all methods to 20"),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", "--methods", help="Methods, see `longstride methods`; or all."),
    ] = COMPARED,
    grid: Annotated[str, typer.Option(help="Grids, each with every method.")] = "karras,log_snr",
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Number of noises.", show_default="64; for all methods 128"),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=20, help="Samples for the Frechet distance of methods with noise.")
    ] = 5000,
    seed: Seed = 0,
    label: Labels = None,
    guidance: Guidance = 1.0,
    out: Annotated[Path, typer.Option(help="Folder for table, plot and pictures.")] = Path("report"),
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run methods and grids from the same noise; write tables, a plot and a sheet of pictures.

    What was interrupted goes on when the same command is given again.
    """
    from .. import models, report

    set_threads(threads)
    model, every = models.load(name), method == "all"
    with progress(f"comparing on {name}") as advance:
        table = report.compare(
            model, None if every else words(method), {text: grid_of(text) for text in words(grid)},
            numbers(nfe or ("4,6,8,10,15,20" if every else "4,6,8,10"), "--nfe"), out=out,
            n=n or (128 if every else 64), seed=seed, cond=lambda n: conditions(model, n, label),
            guidance=guidance, judge=judge_of(name), samples=samples, progress=advance,
        )  # fmt: skip
    columns = ["method", "grid", *(f"{k} NFE" for k in table.nfes)]
    rows = [dict(zip(columns, (*case, *es), strict=True)) for case, es in table.lines.items()]
    caption = f"{table.subtitle}\nwritten to {out}"
    if not as_json and table.distances:
        show([{"method": r.method, "grid": r.grid, "NFE": r.nfe, "Frechet distance": r.error}
              for r in table.distances], False)  # fmt: skip
    show(rows, as_json, {**table.as_dict(), "out": str(out)}, caption)


@app.command()
def tune(
    name: ModelName,
    nfe: Annotated[str, typer.Option(help="Budgets of evaluations, which share the solutions.")] = "6",
    noises: Annotated[
        int | None, typer.Option(help="Noises to fit to.", show_default="by the size of a sample")
    ] = None,
    of: Annotated[
        int | None,
        typer.Option(help="Others, of which polishes go by as many as tell most.", show_default=False),
    ] = None,
    select: Annotated[int, typer.Option(help="Noises to choose on.")] = 256,
    heldout: Annotated[int, typer.Option("--report", help="Noises to report on.")] = 1024,
    reference: Annotated[int, typer.Option(help="Evaluations of a converged solution.")] = 128,
    iterations: Annotated[int, typer.Option(help="Of the last minimization, at most.")] = 20,
    hops: Annotated[int, typer.Option(help="Times that the best solver is shaken.")] = 8,
    recipes: Annotated[
        str, typer.Option(help="Published recipes that compete, such as gits,s3, or all.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the hops.")] = 1,
    storage: Annotated[
        Path | None,
        typer.Option(
            help="Study that several machines share the hops in.", show_default="with --workers, in OUT"
        ),
    ] = None,
    seed: Seed = 0,
    label: Labels = None,
    guidance: Annotated[
        str,
        typer.Option(help="Classifier-free guidance; several, such as 1,2,4, for one plan that serves all."),
    ] = "1",
    out: Annotated[Path, typer.Option(help="Folder for plans, table and plot.")] = Path("tuned"),
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for what later calls share.", show_default="in OUT, until it is done"),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Make the best plan for a model and a budget; write plans, a table and a plot of the front.

    What was interrupted goes on when the same command is given again.
    """
    import shutil

    from .. import models, report
    from ..files import output_folder
    from ..learn import tune as make
    from ..learn.workers import helped

    set_threads(threads)
    model, unfinished = models.load(name), out / "unfinished"
    if workers > 1 and storage is None:
        storage = unfinished / "study.log"
    weights = decimals(guidance, "--guidance")
    asked: dict[str, Any] = {
        "nfe": numbers(nfe, "--nfe"), "seed": seed, "cond": conditions(model, model.null.get("y", 1), label),
        "guidance": weights[0] if len(weights) == 1 else weights, "noises": noises, "of": of,
        "select": select, "report": heldout, "reference_nfe": reference, "iterations": iterations,
        "hops": hops, "recipes": words(recipes), "storage": storage, "cache": cache or unfinished,
    }  # fmt: skip
    with output_folder(out) as part:
        with helped(workers - 1, name, threads, asked):
            plans = make(model, **asked, progress=lambda line: typer.echo(line, err=True))
        report.write_front(plans, part)
    shutil.rmtree(unfinished, ignore_errors=True)
    data = {"plans": {k: dict(p.report) for k, p in plans.items()}, "out": str(out)}
    show(report.front_rows(plans), as_json, data, f"written to {out}")


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="digits or fashion.")],
    out: Annotated[Path, typer.Option(help="Folder for weights and checkpoint; a second run resumes.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data set.", show_default="Debian's")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train an embedded model and the classifier that judges it, from the recipe in the package."""
    from ..models.reproduce import reproduce

    set_threads(threads)
    with progress(f"training {name}") as advance:
        figures = reproduce(name, out, data, advance)
    show([{"model": name, **figures, "out": str(out)}], as_json)


def judge_of(name: str) -> Judge | None:
    """The judge of a model that has one."""
    from .. import models

    try:
        return models.judge(name)
    except ArgumentError:
        return None
