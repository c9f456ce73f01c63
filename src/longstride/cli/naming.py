"""What the options of `longstride solve` name: a system with its parameters, its starts, a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import ArgumentError, unknown
from ..terminal import decimals, numbers, options_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..systems import PDE, System

DATA_SETS = (".zarr", ".nc")


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
            its = f"; its parameters: {', '.join(f'--{k}' for k in takes)}"
            raise ArgumentError(f"{unknown(f'option of {name}', key, known)}{its}")
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
