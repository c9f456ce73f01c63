"""`longstride methods`, `models` and `systems`: what there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal import show
from .app import Json, app

if TYPE_CHECKING:
    from torch import Tensor


@app.command()
def methods(
    solve: Annotated[
        bool, typer.Option("--solve", help="Those of `ls.solve` that choose their steps, and of SDEs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List every method of given steps, for sampling and equations; with --solve those that choose them.

    The options of each are in --json and docs/methods.md.
    """
    from ..methods import list_methods
    from ..steppers.solvers import list_solvers

    found: Iterable[Any] = list_solvers() if solve else list_methods()
    rows = [
        {
            "name": r.name, "kind": r.kind, "order": r.order, "NFE/step": r.nfe_per_step,
            "reference": r.reference,
        }
        for r in found
    ]  # fmt: skip
    data = None if solve else [row | {"options": r.options} for row, r in zip(rows, found, strict=True)]
    other = "equal steps and samplers: without --solve" if solve else (
        "options of each: --json; methods that choose their steps, and of SDEs: --solve"
    )  # fmt: skip
    show(rows, as_json, data, other)


@app.command()
def models(as_json: Json = False) -> None:
    """List the embedded models."""
    from .. import models as embedded

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


@app.command()
def systems(as_json: Json = False) -> None:
    """List the ready problems of `longstride solve`."""
    from ..systems import list_systems

    show(
        [
            {
                "name": s.name,
                "size": "x".join(map(str, s.x0.shape[1:])),
                "parameters": dict(s.parameters),
                "until": s.t[1],
                "method": s.method,
                "kept": ", ".join(s.invariants),
                "reference": s.reference,
            }
            for s in list_systems()
        ],
        as_json,
    )
