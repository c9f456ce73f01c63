"""What a comparison of methods and grids found: its tables and rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

REFERENCE_NFE = 256
SHOWN = 7  # methods on the sheet and the plot: more than these cannot be told apart
FINALISTS = 3  # of each kind, whose Frechet distance is taken of all samples
SCREENED = 10  # which part of the samples chooses the stochastic ones among them


@dataclass(frozen=True)
class Result:
    """What one method on one grid with one budget came to: an end-point error, or a Frechet distance."""

    method: str
    grid: str
    nfe: int
    error: float


@dataclass(frozen=True)
class Comparison:
    """What was compared, and the results: every method on every grid with every budget.

    rows: end-point errors, of n noises.  distances: Frechet distances of `samples` samples to test data, of
    the best methods without noise and with.  left_out: methods that cannot spend one of the budgets, and why.
    """

    model: str
    n: int
    seed: int
    guidance: float
    rows: tuple[Result, ...]
    distances: tuple[Result, ...] = ()
    samples: int = 0
    floor: float | None = None
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(r.method for r in self.rows))

    @property
    def grids(self) -> list[str]:
        return list(dict.fromkeys(r.grid for r in self.rows))

    @property
    def nfes(self) -> list[int]:
        return sorted({r.nfe for r in self.rows})

    @property
    def title(self) -> str:
        return f"{self.model}: how close a few network evaluations come"

    @property
    def subtitle(self) -> str:
        guided = "" if self.guidance == 1 else f", guidance {self.guidance:g}"
        return (
            f"root mean square distance to the {REFERENCE_NFE}-evaluation solution "
            f"from the same noise\n"
            f"{self.n} samples, seed {self.seed}{guided}"
        )

    def ranked(self, nfe: int) -> list[Result]:
        """Each method at this budget on its best grid, best method first."""
        return best_of([r for r in self.rows if r.nfe == nfe])

    @property
    def shown(self) -> Comparison:
        """The methods that a picture can hold: the best over all budgets."""
        places = dict.fromkeys(self.methods, 0.0)
        for nfe in self.nfes:
            for r in self.ranked(nfe):
                places[r.method] += math.log(r.error) if r.error else -99.0
        errors = {m: tuple(r.error for r in self.rows if r.method == m) for m in places}
        alike = {errors[m]: m for m in sorted(places, key=places.__getitem__, reverse=True)}  # second names
        best = sorted(alike.values(), key=places.__getitem__)[:SHOWN]
        return replace(self, rows=tuple(r for r in self.rows if r.method in best))

    @property
    def lines(self) -> dict[tuple[str, str], list[float]]:
        """(method, grid) -> its errors at each of `nfes`; best at the largest budget first."""
        errors = {(r.method, r.grid, r.nfe): r.error for r in self.rows}
        cases = dict.fromkeys((r.method, r.grid) for r in self.rows)
        lines = {case: [errors[*case, k] for k in self.nfes] for case in cases}
        return dict(sorted(lines.items(), key=lambda item: item[1][-1]))

    def markdown(self) -> str:
        """The tables as a page; the best figure of each budget is bold."""
        text = [f"# {self.title}", "", self.subtitle, ""]
        if self.rows:
            best = [min(column) for column in zip(*self.lines.values(), strict=True)]
            text += _table(["method", "grid", *(f"{k} NFE" for k in self.nfes)], [
                [*case, *(f"**{e:.4f}**" if e == b else f"{e:.4f}" for e, b in zip(es, best, strict=True))]
                for case, es in self.lines.items()
            ])  # fmt: skip
            text += ["", "## Best first", "", "Each method on its best grid."]
            columns = [[f"{r.method}, {r.grid}: {r.error:.4f}" for r in self.ranked(k)] for k in self.nfes]
            text += ["", *_table([f"{k} NFE" for k in self.nfes], [*zip(*columns, strict=True)])]
        if self.distances:
            text += ["", "## Frechet distance", ""]
            text.append(
                f"Of {self.samples:,} samples to test data, in the features of the model's judge; that of "
                f"training data is {self.floor:.2f}. The {FINALISTS} best methods without noise by end-point "
                f"error, and with noise by the distance of a {SCREENED}th of the samples."
            )
            rows = sorted(self.distances, key=lambda r: (r.nfe, r.error))
            cells = [[str(r.nfe), r.method, r.grid, f"{r.error:.2f}"] for r in rows]
            text += ["", *_table(["NFE", "method", "grid", "distance"], cells)]
        if self.left_out:
            text += ["", "Left out:", "", *(f"- {name}: {why}" for name, why in self.left_out)]
        return "\n".join(text) + "\n"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reference_nfe": REFERENCE_NFE}


def best_of(results: Sequence[Result]) -> list[Result]:
    """Each method on its best grid, best method first."""
    best: dict[str, Result] = {}
    for r in sorted(results, key=lambda r: r.error):
        best.setdefault(r.method, r)
    return list(best.values())


def distinct(results: Sequence[Result]) -> list[Result]:
    """The first of those with one and the same error: many names are the same weights."""
    first: dict[float, Result] = {}
    for r in results:
        first.setdefault(r.error, r)
    return list(first.values())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    right = ["---:" if "NFE" in name else "---" for name in head]
    return ["| " + " | ".join(row) + " |" for row in (head, right, *rows)]
