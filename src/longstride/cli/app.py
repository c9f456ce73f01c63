"""The command itself, the options that several commands take, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArgumentError
from ..terminal import OneLineErrors, numbers

if TYPE_CHECKING:
    from torch import Tensor

    from ..denoiser import Denoiser

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
    """Anything that evolves in time, in as few model evaluations as possible."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The `longstride` command."""
    app()


def set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


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
