"""What commands read and say: lists and options, a table or JSON on stdout, the rest on stderr."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from .errors import ArgumentError, SolveError

INTERRUPTED = 130
PIPED, NARROW = 110, 20  # the width of a table in a pipe, where it leaves its last column that much


class OneLineErrors(TyperGroup):
    """The group of commands: says what went wrong in one line, and exits with the right code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, interrupt)  # ended from outside, it tidies up as for ctrl-C
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False}) or 0
        except SolveError as error:
            code = fail(str(error), 2 if isinstance(error, ArgumentError) else 1)
        except OSError as error:
            code = fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)
        except Exception as error:
            # Usage errors: typer has its own copy of click or uses click's, by version.
            if not hasattr(error, "format_message"):
                raise
            code = fail(f"{error.format_message().rstrip('.')}; see longstride --help", 2)
        if code == INTERRUPTED:
            fail("interrupted", code)
        sys.exit(code)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def fail(message: str, code: int) -> int:
    typer.echo(f"longstride: {' '.join(message.split())}", err=True)
    return code


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, option: str) -> list[int]:
    """4,6,8 -> [4, 6, 8]"""
    return _numbers(text, option, int, "whole numbers like 4 or 4,6,8")


def decimals(text: str, option: str) -> list[float]:
    """1,2.5 -> [1.0, 2.5]"""
    return _numbers(text, option, float, "numbers like 1 or 1,2.5")


def _numbers(text: str, option: str, kind: type, wanted: str) -> list[Any]:
    try:
        found = [kind(word) for word in words(text)]
    except ValueError:
        found = []
    if not found:
        raise ArgumentError(f"{option} {text!r}: give {wanted}")
    return found


def options_of(pairs: Sequence[str]) -> dict[str, Any]:
    """["eta=0.5", "order=3"] -> {"eta": 0.5, "order": 3}; what is no JSON value is a string."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise ArgumentError(f"option {pair!r}: write KEY=VALUE, e.g. eta=0.5")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def grid_of(text: str) -> tuple[str, dict[str, Any]]:
    """karras:rho=5:open=true -> ("karras", {"rho": 5, "open": True})"""
    family, *pairs = text.split(":")
    return family, options_of(pairs)


@contextmanager
def progress(label: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr if that is a terminal; yields what moves it, (done, of)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not (shown and console.is_terminal), transient=True
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show(rows: Sequence[Mapping[str, Any]], as_json: bool, data: Any = None, caption: str = "") -> None:
    """Print rows as a table; with --json as JSON, or `data` where a program wants another form."""
    if as_json:
        typer.echo(json.dumps(rows if data is None else data, indent=1))
        return
    if not rows:
        typer.echo(caption)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [list(map(cell, row.values())) for row in rows]
    console = Console()
    if piped := not console.is_terminal:  # nothing is cut off there
        widths = [max(map(len, column)) for column in zip(rows[0], *cells, strict=True)]
        whole, others = sum(widths) + 3 * len(widths) + 1, sum(widths[:-1]) + 3 * len(widths) + 1
        console = Console(width=PIPED if others + NARROW <= PIPED else whole)
    table = Table(box=box.SIMPLE_HEAD)
    last = list(rows[0])[-1]
    for key, value in rows[0].items():
        words = isinstance(value, (str, Mapping))
        whole_cell = piped and not (words and key == last)
        table.add_column(key, justify="left" if words else "right", no_wrap=whole_cell)
    for row in cells:
        table.add_row(*row)
    console.print(table)
    if caption:
        console.print(caption, highlight=False, soft_wrap=True)


def cell(value: Any) -> str:
    """1234567 -> 1,234,567; 0.25 -> 0.2500; {"eta": 0.5} -> eta=0.5"""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:#.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
