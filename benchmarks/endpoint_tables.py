"""endpoint.json as tables to read: the best of every library, and the list of everything that was run."""

from __future__ import annotations

import math
from pathlib import Path

OURS = "longstride"


def split(key: str) -> tuple[str, str, str]:
    peer, sampler, grid = key.split(" | ")
    return peer, sampler, grid


def figure(row: dict, nfe: str) -> float:
    found = row["nfe"].get(nfe)
    return math.inf if found is None or isinstance(found[0], str) else found[0]


def text(row: dict, nfe: str) -> str:
    found = row["nfe"].get(nfe)
    if found is None:
        return ""
    return f"{found[0]:.3g}" if not isinstance(found[0], str) else "failed" if ":" in found[0] else "nan"


def best(rows: dict, peer: str, nfe: str) -> tuple[float, str]:
    """(error, "sampler, grid") of a library's best run."""
    mine = [(figure(row, nfe), key) for key, row in rows.items() if split(key)[0] == peer]
    error, key = min(mine, default=(math.inf, "- | - | -"))
    return error, ", ".join(split(key)[1:])


def heading(about: dict) -> list[str]:
    packages = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    return ["", f"Written by `{about['command']}`, seed {about['seed']}, with {packages}.", ""]


def best_of(model: str, entry: dict) -> list[str]:
    rows = entry["rows"]
    nfes = sorted({n for row in rows.values() for n in row["nfe"]}, key=int)
    peers = sorted({split(k)[0] for k in rows}, key=lambda p: (p != OURS, p))
    counts = {p: sum(split(k)[0] == p for k in rows) for p in peers}
    ran = ", ".join(f"{p} {c}" for p, c in counts.items())
    lines = [f"## {model}", ""]
    if "command" in entry:
        lines += [f"Last added to by `{entry['command']}`.", ""]
    lines += [f"{entry['n']} noises; the reference is converged to {entry['reference']}. Runs: {ran}. "]
    if "screen" in entry:
        counts = ", ".join(f"{n} at NFE {nfe}" for nfe, n in entry["screen"].items())
        lines += [f"Run were the best of each library on each of the two exact EDM models: {counts}."]
    lines += [f"[Everything that was run](endpoint-{model}.md).", ""]
    lines += ["| NFE | " + " | ".join(peers) + " | best peer / ours |", "|---" * (len(peers) + 2) + "|"]
    for nfe in nfes:
        cells, found = [], {p: best(rows, p, nfe) for p in peers}
        lowest = min(error for error, _ in found.values())
        for error, name in found.values():
            number = f"**{error:.3g}**" if error == lowest else f"{error:.3g}"
            cells.append(f"{number} {name}")
        others = min((found[p][0] for p in peers if p != OURS), default=math.inf)
        ours = found.get(OURS, (math.nan, ""))[0]
        ratio = f"{others / ours:.3f}" if ours else "1" if others == ours else "ours is 0"
        lines.append(f"| {nfe} | " + " | ".join(cells) + f" | {ratio} |")
    return [*lines, ""]


def everything(model: str, entry: dict, about: dict) -> list[str]:
    rows = entry["rows"]
    nfes = sorted({n for row in rows.values() for n in row["nfe"]}, key=int)

    def score(item: tuple[str, dict]) -> tuple[float, str]:
        found = [figure(item[1], n) for n in nfes if item[1]["nfe"].get(n) is not None]
        return sum(math.log(max(v, 1e-300)) for v in found) / max(len(found), 1), item[0]

    lines = [f"# {model}: every sampler and grid", *heading(about)]
    lines += [
        "End-point error; sorted by its geometric mean over the NFE. Empty: cannot spend so few, or not run. "
    ]
    lines += ["nan: not finite. A star: it spent fewer evaluations than allowed.", ""]
    lines += ["| library | sampler | grid | " + " | ".join(nfes) + " |", "|---" * (len(nfes) + 3) + "|"]
    for key, row in sorted(rows.items(), key=score):
        stars = ["*" if (row["nfe"].get(n) or [0, int(n)])[1] < int(n) else "" for n in nfes]
        cells = [text(row, n) + star for n, star in zip(nfes, stars, strict=True)]
        lines.append("| " + " | ".join((*split(key), *cells)) + " |")
    notes = sorted({f"{split(k)[0]} {split(k)[1]}: {r['note']}" for k, r in rows.items() if "note" in r})
    return [*lines, "", "Notes", "", *(f"- {note}" for note in notes)] if notes else lines


def write(stored: dict, results: Path) -> None:
    about = stored["about"]
    lines = ["# End-point error", *heading(about)]
    lines += [
        "Root mean square over elements and samples against a converged reference from the same noise, at a",
        "hard budget of evaluations. For each library its own best sampler and grid at that NFE.",
        "",
    ]
    for model, entry in stored.items():
        if model == "about" or not entry["rows"]:
            continue
        lines += best_of(model, entry)
        full = "\n".join(everything(model, entry, about))
        (results / f"endpoint-{model}.md").write_text(full + "\n")
    (results / "endpoint.md").write_text("\n".join(lines) + "\n")
