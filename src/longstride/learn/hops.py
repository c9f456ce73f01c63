"""From a minimum to the next: the best solver's asking times shaken, its weights fitted anew, polished again.

With a storage the hops are trials of an optuna study, which any number of processes and machines work on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import ArgumentError
from ..files import check_writable
from .axis import Axis
from .free import Free

# Of the distance of two times, in turn: minima lie near each other in one model, far in another.
SHAKES = (0.3, 0.15, 0.075)
Again = Callable[[Free], tuple[Free, float]]  # a solver begun on the times of this one, and its error


class Begun(NamedTuple):
    """A solver, its error on the first starts, and where it is from."""

    solver: Free
    error: float
    name: str


def shaken(solver: Free, generator: torch.Generator, size: float) -> Free:
    """Its asking times moved by such a part of their distances in the axis's clock; its times are these."""
    axis = solver.axis
    asked = sorted(axis.clock(t) for t in solver.at[1:])
    nodes = torch.tensor([axis.clock(solver.times[0]), *asked], dtype=torch.float64)
    gaps = torch.cat([nodes.diff(), nodes.diff()[-1:]])
    moves = size * gaps * torch.randn(len(nodes), generator=generator, dtype=torch.float64)
    first, *rest = (nodes + moves).tolist()
    late = axis.clock(solver.at[0]) + first - 2 * float(nodes[0])  # behind the start, by how much
    return solver.with_vector([*rest, late, *[0.0] * len(rest), *solver.vector()[2 * solver.nfe - 1 :]])


def hopped(
    begun: Sequence[Begun], again: Again, hops: int, seed: int = 0, storage: str | Path | None = None,
    subject: str = "",
) -> list[Begun]:  # fmt: skip
    """The same, best first, and with what is found from the best one's shaken times.

    A polish ends in the nearest minimum, and there are many.

    Args:
        storage: a file for the study; the best that anybody found is shaken, until all together have made
            so many hops. A file on a disk that machines share will do.
        subject: what the study is of: others may be in the same file.

    Raises:
        ArgumentError: a storage without the library optuna.
    """
    found = sorted(begun, key=lambda b: b.error)
    if storage is not None:
        return _shared(found, again, hops, seed, storage, subject)
    generator = torch.Generator().manual_seed(seed)
    for hop in range(hops):
        found.append(_hop(found[0], again, hop, generator))
        found.sort(key=lambda b: b.error)
    return found


def _hop(best: Begun, again: Again, hop: int, generator: torch.Generator) -> Begun:
    name = best.name.split(",")[0]
    size = SHAKES[hop % len(SHAKES)]
    return Begun(*again(shaken(best.solver, generator, size)), f"{name}, shaken {hop + 1} times")


def _shared(
    begun: list[Begun], again: Again, hops: int, seed: int, storage: str | Path, subject: str
) -> list[Begun]:
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ArgumentError("storage= needs the library optuna: pip install longstride[tune]") from error
    Path(storage).parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(storage))),
        study_name=hashlib.sha256(subject.encode()).hexdigest()[:16], load_if_exists=True,
    )  # fmt: skip
    axis, known = begun[0].solver.axis, {}

    def all_of_them() -> list[Begun]:
        """What this call began with, and what is in the storage."""
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
            if trial.number not in known:
                kept = trial.user_attrs
                known[trial.number] = Begun(read(axis, kept["solver"]), trial.values[0], kept["name"])
        return sorted([*begun, *known.values()], key=lambda b: b.error)

    while True:
        found = all_of_them()
        if len(known) >= hops:
            return found
        trial = study.ask()
        generator = torch.Generator().manual_seed(seed + trial.number)
        better = _hop(found[0], again, trial.number, generator)
        trial.set_user_attr("solver", written(better.solver))
        trial.set_user_attr("name", better.name)
        study.tell(trial, better.error)


def check_storage(storage: str | Path) -> None:
    """That a study can be kept there: optuna would write on at the end of any file.

    Raises:
        ArgumentError: something else is there, or nothing can be written.
    """
    path = Path(storage)
    check_writable(path.parent)
    if not path.exists():
        return
    first = b"a folder"
    if path.is_file():
        with path.open("rb") as file:
            first = file.readline()
    if first and not (first.startswith(b"{") and b'"op_code"' in first):
        raise ArgumentError(f"storage = {str(storage)!r} is no file of a study: name another")


def written(solver: Free) -> dict[str, Any]:
    weights, slack = ([list(row) for row in rows] for rows in (solver.weights, solver.slack))
    return {"times": list(solver.times), "at": list(solver.at), "weights": weights, "slack": slack}


def read(axis: Axis, kept: dict[str, Any]) -> Free:
    weights, slack = (tuple(tuple(row) for row in kept[name]) for name in ("weights", "slack"))
    return Free(axis, tuple(kept["times"]), tuple(kept["at"]), weights, slack)
