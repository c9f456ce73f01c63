"""`longstride solve`: a ready problem, a table, a picture, a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError, SolveError
from ..terminal import progress, show
from .app import Json, Threads, app, set_threads
from .naming import DATA_SETS, check_picture, chosen, in_space, starts
from .steering import constant, steered
from .task import Task

if TYPE_CHECKING:
    from ..solution import Solution
    from ..systems import PDE

ROWS = 20  # samples in the table; --json has all


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def solve(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SYSTEM", help="A name from `longstride systems`.")],
    until: Annotated[float | None, typer.Option(help="The last time.", show_default="the system's")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Of `longstride methods --solve`; with --dt, without it.",
            show_default="the system's",
        ),
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Relative tolerance.", show_default="the system's")
    ] = None,
    atol: Annotated[
        float | None, typer.Option(help="Absolute tolerance.", show_default="the system's")
    ] = None,
    dt: Annotated[
        float | None,
        typer.Option(
            help="Equal steps, in place of tolerances.", show_default="that of an equation in space"
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", "-n", min=1, help="Starts: the system's, and others about 1 % away.")
    ] = 1,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Random starts, of an equation in space; sample i is the same.")
    ] = None,
    save_every: Annotated[
        float | None, typer.Option(help="Time between two saved frames.", show_default="a hundredth")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of a data set: float32 or float64.")] = "float32",
    shard: Annotated[
        int | None, typer.Option(min=1, help="Samples to a file of a data set.", show_default="up to 64")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the system's random start, or of the other starts.")
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option(
            help="What tells the steps: learned, or a policy's file. A picture shows constant ones beside it."
        ),
    ] = None,
    pace: Annotated[
        float | None, typer.Option(help="Of a policy: its steps are in proportion.", show_default="its own")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A parameter, where another option has its name, as n=64."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A picture, .png; a film of curves or fields, .gif, .mp4; fields as .zarr or .nc."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Solve a ready problem: how each sample ended, what it cost, what it kept; and a picture with --out.

    Parameters of the system are options: --mu 100, or --mu 10,100,1000 for a sample of each. In a data set
    --mu 10:1000 draws one for each sample.

    A sample that does not come to the end is drawn as far as it came; the exit code is 1, and the
    message says why.

    A data set goes on where the same command was interrupted, and grows with --samples. Started by torchrun,
    the processes share the samples. docs/pde-data.md has examples.
    """
    from contextlib import nullcontext

    from ..files import output_folder
    from ..nbody import Policy

    data_set = out is not None and out.suffix in DATA_SETS
    if dt is not None and (rtol is not None or atol is not None):
        raise ArgumentError("--dt takes equal steps: leave out --rtol and --atol")
    if not data_set and (save_every is not None or shard is not None):
        raise ArgumentError("--save-every and --shard are of data sets: --out NAME.zarr")
    set_threads(threads)
    system, vary = chosen(name, context, param or [], seed)
    if vary and not data_set:
        raise ArgumentError(f"--{next(iter(vary))} of each sample's own is of data sets: --out NAME.zarr")
    if out is not None and not data_set:
        check_picture(out, system, n, controller is not None)
    if data_set:
        assert out is not None
        make_data_set(in_space(system, n), out, samples or 1, as_json, until=until, save_every=save_every,
                      method=method, dt=dt, rtol=rtol, atol=atol, seed=seed or 0, dtype=dtype,
                      batch=shard, vary=vary)  # fmt: skip
        return
    task = Task(
        system, starts(system, n, samples, seed or 0), system.t[1] if until is None else until,
        method or ("rk4" if dt is not None and system.space is None else system.method),
        system.steps(method, dt, rtol, atol), drawn=out is not None,
    )  # fmt: skip
    if controller is not None or pace is not None:
        steered(task, controller or "learned", pace, method is not None, rtol is not None or atol is not None)
    with output_folder(out.parent) if out is not None else nullcontext() as part:
        with progress(f"solving {name}") as report:
            solution = task.run(report)
        wrong = next((line for line in solution.message if line), "") if solution else task.wrong
        beside: list[tuple[Task, Solution]] = []
        if out is not None and part is not None:
            if (
                isinstance(task.controller, Policy)
                and solution is not None
                and solution.stats.nfe
                and not wrong
            ):
                with progress("solving with a constant parameter") as report:
                    beside.append(constant(task, solution, report))
            task.draw(part / out.name, solution, wrong, [other.track(found) for other, found in beside])
    if solution is not None:
        ended = task.samples(solution)
        for other, found in beside:
            ended += [{**row, "sample": f"{row['sample']}, {other.label}"} for row in other.samples(found)]
        data = {
            "system": name, "parameters": task.parameters(), "method": task.method, **task.how,
            "until": task.end, "seconds": solution.stats.seconds, "samples": ended,
            **({"out": str(out)} if out is not None else {}),
        }  # fmt: skip
        seconds = f", {solution.stats.seconds:.2g} s"
        written = f"\nwritten to {out}" if out is not None else ""
        show(task.rows(ended[:ROWS]), as_json, data, task.title() + seconds + rest(ended) + written)
    if wrong:
        raise SolveError(wrong)


def make_data_set(pde: PDE, out: Path, samples: int, as_json: bool, **how: Any) -> None:
    """Make this process's share of a data set; the first one says what all have done."""
    from ..data import generate
    from ..processes import ranks

    rank, processes = ranks()
    with progress(f"solving {pde.name}", shown=rank == 0) as report:
        made = generate(pde, out, samples, progress=report, **how)
    if rank == 0:
        show([{
            "system": pde.name, "samples": samples, "processes": processes, "there before": made.before,
            "made": made.made, "missing": made.missing, "diverged": made.diverged, "seconds": made.seconds,
            "samples/s": made.made / made.seconds, "out": str(out),
        }], as_json)  # fmt: skip
    if made.missing:
        raise SolveError(
            f"{made.missing} samples are missing in {out}: a process has died; give the command again"
        )
    if made.diverged:
        raise SolveError(
            f"{made.diverged} of {samples} samples in {out} diverged, status 2, and are NaN from there on: "
            "a smaller --dt, and another name, makes a data set without them"
        )


def rest(samples: Sequence[dict[str, Any]]) -> str:
    """What the table leaves out, counted."""
    left = Counter(row["status"] for row in samples[ROWS:])
    return f"\nand {left.total()} more: {', '.join(f'{v} {k}' for k, v in left.items())}" if left else ""
