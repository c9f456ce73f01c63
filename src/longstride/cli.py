"""The command line: every command prints one table, or with --json the same for a program.

Exit codes: 0 only when it worked, 1 when a run failed, 2 for a bad argument, 130 when interrupted;
what went wrong is one line on stderr.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import ArgumentError, SolveError
from .terminal import OneLineErrors, decimals, grid_of, numbers, options_of, progress, show, words

if TYPE_CHECKING:
    from torch import Tensor

    from .denoiser import Denoiser
    from .models import Judge
    from .plan import Plan

COMPARED = "ddim,heun,dpmpp_2m,dpmpp_3m,deis_3,ipndm_3,unipc_3"

app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False)

ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name from `longstride models`, or a .safetensors file."),
]
Count = Annotated[int, typer.Option("--n", "-n", min=1, help="Number of samples.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise; sample i is the same for every n.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is plain conditional.")]
Labels = Annotated[
    str | None,
    typer.Option(
        "--label", "--labels", help="Classes, e.g. 3 or 0,1,2, in turn.", show_default="all in turn"
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="torch's choice")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def about(context: typer.Context) -> None:
    """Few-step samplers for diffusion and flow models."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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
    from . import models
    from .files import output_folder
    from .integrate import Stats
    from .sampling import sample as draw

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
    from . import models, report

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

    from . import models, report
    from .files import output_folder
    from .learn import tune as make
    from .learn.workers import helped

    set_threads(threads)
    model, unfinished = models.load(name), out / "unfinished"
    if workers > 1 and storage is None:
        storage = unfinished / "study.log"
    weights = decimals(guidance, "--guidance")
    asked: dict[str, Any] = {
        "nfe": numbers(nfe, "--nfe"), "seed": seed, "cond": conditions(model, model.null.get("y", 1), label),
        "guidance": weights[0] if len(weights) == 1 else weights, "noises": noises, "select": select,
        "report": heldout, "reference_nfe": reference, "iterations": iterations, "hops": hops,
        "recipes": words(recipes), "storage": storage, "cache": cache or unfinished,
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
    from .models.reproduce import reproduce

    set_threads(threads)
    with progress(f"training {name}") as advance:
        figures = reproduce(name, out, data, advance)
    show([{"model": name, **figures, "out": str(out)}], as_json)


@app.command()
def methods(as_json: Json = False) -> None:
    """List every method."""
    from .methods import list_methods

    rows = [
        {
            "name": r.name,
            "kind": r.kind,
            "order": r.order,
            "NFE/step": r.nfe_per_step,
            "options": r.options,
            "reference": r.reference,
        }
        for r in list_methods()
    ]
    show(rows, as_json)


@app.command()
def models(as_json: Json = False) -> None:
    """List the embedded models."""
    from . import models as embedded

    rows = []
    for name in (*embedded.MODELS, *embedded.EXACT):
        model = embedded.load(name)
        parameters: Iterable[Tensor] = getattr(model.net, "parameters", tuple)()
        rows.append({
            "name": name, "shape": "x".join(map(str, model.shape)), "classes": model.null.get("y", 0),
            "parameters": sum(p.numel() for p in parameters) or "exact",
            "process": type(model.process).__name__,
        })  # fmt: skip
    show(rows, as_json)


def main() -> None:
    """The `longstride` command."""
    app()


def set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def choose_plan(
    model: Denoiser, file: Path | None, method: str | None, nfe: int | None, grid: str | None,
    pairs: Sequence[str],
) -> Plan:  # fmt: skip
    from .plan import Plan
    from .sampling import DEFAULT_METHOD, plan_sampling

    if file is None:
        where = None if grid is None else grid_of(grid)
        return plan_sampling(model.process, method or DEFAULT_METHOD, nfe, where, **options_of(pairs))
    if pairs or any(given is not None for given in (method, nfe, grid)):
        raise ArgumentError("--plan already holds method, NFE, grid and options: leave those out")
    return Plan.load(file)


def judge_of(name: str) -> Judge | None:
    """The judge of a model that has one."""
    from . import models

    try:
        return models.judge(name)
    except ArgumentError:
        return None


def conditions(model: Denoiser, n: int, text: str | None) -> dict[str, Tensor] | None:
    """Labels [n] for a model that has classes: those asked for, or all of them, in turn."""
    import torch

    classes = model.null.get("y", 0)
    if text is not None and not classes:
        raise ArgumentError(f"model {model.name} has no classes: leave out --label")
    labels = list(range(classes)) if text is None else numbers(text, "--label")
    if any(not 0 <= y < classes for y in labels):
        raise ArgumentError(f"--label {text}: the classes of {model.name} are 0 to {classes - 1}")
    return {"y": torch.tensor([labels[i % len(labels)] for i in range(n)])} if labels else None


def fill(
    folder: Path, model: Denoiser, n: int, plan: Plan, seed: int, cond: dict[str, Tensor] | None,
    guidance: float, size: int, as_json: bool,
) -> None:  # fmt: skip
    """Draw this process's share of the shards of a folder; the first one says what all have done."""
    from .shards import ranks, sample_shards

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
    from .shards import ranks

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
    from .report import samples_image

    # A class per column, where there are classes and enough samples for a row.
    classes = model.null.get("y", 0)
    samples_image(x, path, model.data_range or (-1.0, 1.0), classes if len(x) >= classes else None)
