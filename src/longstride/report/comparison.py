"""Several methods and grids on one model, from the same noise, against the converged solution."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError
from ..files import output_folder
from ..metrics import endpoint_error
from ..sampling import plan_sampling, prior, reference, sample
from .pictures import Strip, picture_grid
from .plots import error_plot

REFERENCE_NFE = 256
COLUMNS = 10  # noises on the sheet of pictures
SECTIONS = 2  # budgets on the sheet: the smallest ones, where methods differ


@dataclass(frozen=True)
class Result:
    """End-point error of one method on one grid with one budget."""

    method: str
    grid: str
    nfe: int
    error: float


@dataclass(frozen=True)
class Comparison:
    """What was compared, and the results: every method on every grid with every budget."""

    model: str
    n: int
    seed: int
    guidance: float
    rows: tuple[Result, ...]

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
        best: dict[str, Result] = {}
        for r in sorted((r for r in self.rows if r.nfe == nfe), key=lambda r: r.error):
            best.setdefault(r.method, r)
        return list(best.values())

    @property
    def lines(self) -> dict[tuple[str, str], list[float]]:
        """(method, grid) -> its errors at each of `nfes`; best at the largest budget first."""
        errors = {(r.method, r.grid, r.nfe): r.error for r in self.rows}
        cases = dict.fromkeys((r.method, r.grid) for r in self.rows)
        lines = {case: [errors[*case, k] for k in self.nfes] for case in cases}
        return dict(sorted(lines.items(), key=lambda item: item[1][-1]))

    def markdown(self) -> str:
        """The table as a page; the best figure of each budget is bold."""
        best = [min(column) for column in zip(*self.lines.values(), strict=True)]
        head = ["method", "grid", *(f"{k} NFE" for k in self.nfes)]
        lines = [f"# {self.title}", "", self.subtitle, ""]
        lines += ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * len(best)]
        for case, errors in self.lines.items():
            cells = [f"**{e:.4f}**" if e == b else f"{e:.4f}" for e, b in zip(errors, best, strict=True)]
            lines.append("| " + " | ".join([*case, *cells]) + " |")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reference_nfe": REFERENCE_NFE}


def compare(
    model: Denoiser,
    methods: Sequence[str],
    grids: Sequence[str],
    nfes: Sequence[int],
    *,
    out: Path,
    n: int = 64,
    seed: int = 0,
    cond: dict[str, Tensor] | None = None,
    guidance: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Run every method on every grid with every budget from the same n noises.

    Writes to the folder `out`: table.md, table.json, error.png, and for images pictures.png, all of
    them or none.

    Args:
        cond: what the network takes beside x and t, [n, ...] each.
        progress: called with (evaluations done, in all) after every run.

    Raises:
        ArgumentError: before anything runs: a name, a budget that a method cannot work with, `out`.
        SolveError: a run that failed.
    """
    cases = [(m, g, k) for m in dict.fromkeys(methods) for g in dict.fromkeys(grids)
             for k in sorted(set(nfes))]  # fmt: skip
    if not cases:
        raise ArgumentError("nothing to compare: name at least one method, grid and NFE")
    plans = {case: plan_sampling(model.process, case[0], nfe=case[2], grid=case[1]) for case in cases}
    total = REFERENCE_NFE + sum(k for _, _, k in cases)
    with output_folder(out) as part:
        x_init = prior(model, n, seed)
        exact = reference(model, x_init, cond=cond, guidance=guidance, nfe=REFERENCE_NFE)
        done = REFERENCE_NFE
        progress(done, total)
        rows, pictures = [], {}
        for case, plan in plans.items():
            x = sample(model, x_init=x_init, plan=plan, seed=seed, cond=cond, guidance=guidance)
            result = Result(*case, endpoint_error(x, exact))
            rows.append(result)
            pictures[result] = x[:COLUMNS]
            done += result.nfe
            progress(done, total)
        table = Comparison(model.name, n, seed, guidance, tuple(rows))
        (part / "table.md").write_text(table.markdown())
        (part / "table.json").write_text(json.dumps(table.as_dict(), indent=1) + "\n")
        error_plot(table, part / "error.png")
        if len(model.shape) == 3 and model.shape[0] in (1, 3):
            sheet(table, exact[:COLUMNS], pictures, model, part / "pictures.png")
    return table


def sheet(
    table: Comparison,
    exact: Tensor,
    pictures: dict[Result, Tensor],
    model: Denoiser,
    path: Path,
) -> None:
    """The pictures of the smallest budgets below the converged ones, one noise per column."""
    strips = [Strip("reference", exact, f"{REFERENCE_NFE} evaluations", "The converged solution")]
    for nfe in table.nfes[:SECTIONS]:
        for i, result in enumerate(table.ranked(nfe)):
            heading = "" if i else f"{nfe} network evaluations, best method first"
            note = f"{result.grid}, error {result.error:.3f}"
            strips.append(Strip(result.method, pictures[result], note, heading))
    picture_grid(
        strips,
        path,
        f"{table.model}: one noise per column, one method per row",
        "every row starts from the same noise; the closer to the reference, the better",
        model.data_range or (-1.0, 1.0),
    )
