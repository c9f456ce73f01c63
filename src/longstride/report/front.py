"""Error against evaluations of tuned plans, beside the best that was published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..plan import Plan
from .plots import COLOURS, DPI, FAINT, INK, PAPER, finish


def front_rows(plans: Mapping[int, Plan]) -> list[dict[str, Any]]:
    """A row for each budget: errors on the report noises, their ratio with its interval, the cost."""
    rows = []
    for nfe, plan in plans.items():
        r = plan.report
        low, high = r["ratio_interval"]
        rows.append({
            "NFE": nfe, "best untuned": r["untuned"]["what"], "its error": r["untuned"]["error"],
            "tuned": r["error"], "ratio": r["ratio"], "95 %": f"{low:.3f} to {high:.3f}",
            "evaluations": r["evaluations"], "seconds": r["seconds"],
        })  # fmt: skip
    return rows


def write_front(plans: Mapping[int, Plan], folder: Path) -> None:
    """Writes plan-K.json for each budget, front.json, front.md and front.png into the folder."""
    for nfe, plan in plans.items():
        plan.save(folder / f"plan-{nfe}.json")
    rows = front_rows(plans)
    (folder / "front.json").write_text(json.dumps([dict(p.report) for p in plans.values()], indent=1) + "\n")
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in ([*rows[0]], ["---"] * len(rows[0]), *cells)]
    (folder / "front.md").write_text(f"# {_title(plans)}\n\n{_subtitle(plans)}\n\n" + "\n".join(lines) + "\n")
    _plot(plans, folder / "front.png")


def _title(plans: Mapping[int, Plan]) -> str:
    made_for = next(iter(plans.values())).report["tuned_for"]
    guided = "" if made_for["guidance"] == "1" else f", guidance {made_for['guidance']}"
    return f"{made_for['model']}{guided}: plans made for it, and the best published ones"


def _subtitle(plans: Mapping[int, Plan]) -> str:
    report = next(iter(plans.values())).report
    return (
        "root mean square distance to the converged solution from the same noise, with 95 % intervals,\n"
        f"on {report['noises']['report']} noises that nothing was fitted to or chosen on"
    )


def _plot(plans: Mapping[int, Plan], path: Path) -> None:
    figure = Figure(figsize=(6.6, 4.4), dpi=DPI, facecolor=PAPER)
    figure.text(0.022, 0.96, _title(plans), size=12, weight="bold", color=INK, va="top")
    figure.text(0.022, 0.89, _subtitle(plans), size=8.5, color=FAINT, va="top")
    axes = figure.add_axes((0.12, 0.13, 0.72, 0.62))
    nfes, reports = list(plans), [plan.report for plan in plans.values()]
    ends = []
    for colour, name, found in (
        (COLOURS[1], "best untuned", [r["untuned"] for r in reports]),
        (COLOURS[0], "tuned", reports),
    ):
        errors = [r["error"] for r in found]
        bars = [[e - r["interval"][0] for e, r in zip(errors, found, strict=True)],
                [r["interval"][1] - e for e, r in zip(errors, found, strict=True)]]  # fmt: skip
        axes.errorbar(nfes, errors, yerr=bars, color=colour, marker="o", ms=4.5, lw=1.8, capsize=3)
        axes.annotate(name, (nfes[-1], errors[-1]), xytext=(8, 0), textcoords="offset points", va="center",
                      size=9, color=colour, annotation_clip=False)  # fmt: skip
        ends += [r["interval"][i] for r in found for i in (0, 1)]
    finish(axes, "", nfes, (max(min(ends), 1e-12) / 1.3, max(ends) * 1.3), first=True)
    axes.set_title("", loc="left")
    figure.savefig(path, dpi=DPI)
