"""`longstride solve`: a ready problem, a table, a picture, a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError, SolveError, unknown
from ..terminal import decimals, numbers, options_of, progress, show
from .app import Json, Threads, app, set_threads
from .task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from ..solution import Solution
    from ..systems import PDE, System

DATA_SETS = (".zarr", ".nc")
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
        steered(task, controller or "learned", pace, method, any(v is not None for v in (dt, rtol, atol)))
    with output_folder(out.parent) if out is not None else nullcontext() as part:
        with progress(f"solving {name}") as report:
            solution = task.run(report)
        wrong = next((line for line in solution.message if line), "") if solution else task.wrong
        beside: list[tuple[Task, Solution]] = []
        if out is not None and part is not None:
            if isinstance(task.controller, Policy) and solution is not None and not wrong:
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


def steered(task: Task, controller: str, pace: float | None, method: str | None, others: bool) -> None:
    """Give a run the steps that a policy tells, by Hermite's method where none is named."""
    from .. import control

    if others:
        raise ArgumentError("--controller tells the steps: leave out --dt, --rtol and --atol")
    try:
        policy = control.load("three_stars" if controller == "learned" else controller)
    except ArgumentError as error:
        raise ArgumentError(f"--controller is learned, or a policy's file: {error}") from error
    if pace is not None:
        if not hasattr(policy, "at"):
            raise ArgumentError(f"--pace {pace}: the policy {controller} has none")
        policy = policy.at(pace)
    control.bound(policy, task.system)  # or it is refused, before anything runs
    task.controller, task.method, task.how = policy, method or "hermite", {}
    task.label = f"{controller} steps" + (f", pace {policy.pace:g}" if hasattr(policy, "pace") else "")


def constant(task: Task, solution: Solution, report: Callable[[int, int], None]) -> tuple[Task, Solution]:
    """The run with steps that are a constant share of the collision time, at the evaluations of another.

    Along the same orbit steps of a share p are int dt/tau over p in number. Where the orbits part, a second
    run takes the first one's number to do better.
    """
    import torch

    steps = task.steps(solution)
    found: list[tuple[Task, Solution]] = []
    q, v = torch.from_numpy(steps.x).unbind(1)
    time = task.system.acceleration.gravity.collision_time(q, v)  # type: ignore[union-attr]
    share = abs(float(torch.trapezoid(1 / time, torch.from_numpy(steps.t)))) / solution.stats.nfe
    for _ in range(2):
        label = f"constant steps, {share:.4g} of the collision time"
        other = Task(task.system, task.x0, task.end, "hermite_collision", {"rtol": share}, True, label=label)
        ended = other.run(report)
        assert ended is not None  # only equal steps have nothing to show
        found.append((other, ended))
        if abs(ended.stats.nfe - solution.stats.nfe) < 0.01 * solution.stats.nfe:
            break
        share *= ended.stats.nfe / solution.stats.nfe
    return min(found, key=lambda one: abs(one[1].stats.nfe - solution.stats.nfe))


def chosen(
    name: str, context: typer.Context, pairs: Sequence[str], seed: int | None = None
) -> tuple[System, dict[str, tuple[float, float]]]:
    """The system with the parameters that stand among the options, --mu 3 or --mu=3.

    And those with two bounds, --mu 1:3, whose default it has.  seed: --seed, of systems that have one.
    """
    import inspect

    from .. import systems

    if name not in systems.SYSTEMS:
        raise unknown("system", name, systems.SYSTEMS)
    takes = inspect.signature(systems.SYSTEMS[name]).parameters
    options = [opt for p in context.command.params for opt in p.opts if opt.startswith("--")]
    found, words = dict(options_of(pairs)), list(context.args)
    if seed is not None and "seed" in takes:
        found.setdefault("seed", str(seed))
    while words:
        key, equals, value = words.pop(0).partition("=")
        if not key.startswith("--") or key[2:] not in takes:
            known = [*options, *(f"--{k}" for k in takes)]
            raise unknown(f"option of {name}", key, known)
        if not equals and not words:
            raise ArgumentError(f"{key}: give it a value")
        found[key[2:]] = value if equals else words.pop(0)
    vary = {k: bounds for k, v in found.items() if (bounds := bounds_of(k, v))}
    given = {k: value_of(k, v, takes) for k, v in found.items() if k not in vary}
    return systems.get(name, **given), vary


def bounds_of(key: str, text: Any) -> tuple[float, float] | None:
    """0.01:0.1 -> (0.01, 0.1)"""
    low, colon, high = str(text).partition(":")
    if not colon:
        return None
    return decimals(low, f"--{key}")[0], decimals(high, f"--{key}")[0]


def value_of(key: str, text: Any, takes: Any) -> Any:
    """What a parameter is written as: a name or a whole number where its default is one, else numbers."""
    import torch

    if not isinstance(text, str) or key not in takes or isinstance(takes[key].default, str):
        return text
    if isinstance(takes[key].default, int):
        return numbers(text, f"--{key}")[0]
    values = decimals(text, f"--{key}")
    return values[0] if len(values) == 1 else torch.tensor(values, dtype=torch.float64)


def check_picture(out: Path, system: System, n: int, steered: bool) -> None:
    """Refuse what no picture of this system is written to."""
    from ..report import SUFFIXES, check_film
    from ..systems import Plane

    kinds = [*SUFFIXES] if system.space is not None or isinstance(system.view, Plane) else [".png"]
    if system.space is not None:
        kinds.extend(DATA_SETS)  # which were taken already
    if out.suffix not in kinds or out.is_dir():
        raise ArgumentError(f"--out {out}: name a {', '.join(kinds)} file")
    film = out.suffix != ".png"
    if film:
        check_film(out)
    if system.space is None and (film or steered) and max(n, len(system.x0)) > 1:
        raise ArgumentError(
            f"--out {out}: it shows one start; leave out --n, give one value of each parameter"
        )


def in_space(system: System, n: int = 1) -> PDE:
    """An equation that has random starts.

    Raises:
        ArgumentError: it is none, or was asked for starts near x0, which would not be smooth.
    """
    from ..systems import PDE

    if not isinstance(system, PDE):
        raise ArgumentError(
            f"{system.name} is no equation in space: --samples and data sets are of those; "
            "--n 8 takes 8 starts near its own"
        )
    if n > 1:
        raise ArgumentError(
            f"--n {n}: an equation in space has --samples {n} for random starts, and --param n={n} for points"
        )
    return system


def starts(system: System, n: int, samples: int | None, seed: int) -> Tensor:
    """The system's start, and n - 1 more: every number times 1 + 0.01 z; or so many random ones.

    Sample i is the same for every n.
    """
    from ..noise import Noise

    if samples is not None or (n > 1 and system.space is not None):
        pde = in_space(system, n)
        return pde.random_starts(samples or 1, seed).to(pde.x0)
    x0 = system.x0
    if n == 1:
        return x0
    if len(x0) > 1:
        raise ArgumentError("--n goes with one value of each parameter: leave it out")
    z = Noise(seed, range(n), x0.shape[1:]).prior()
    z[0] = 0
    return x0 * (1 + 0.01 * z)


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
