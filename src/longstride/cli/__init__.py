"""The command line: every command prints one table, or with --json the same for a program.

Exit codes: 0 only when it worked, 1 when a run failed, 2 for a bad argument, 130 when interrupted;
what went wrong is one line on stderr.
"""

from . import sampling, solving, improving, listing  # noqa: I001 (each registers commands, in this order)
from .app import app, main

__all__ = ["app", "improving", "listing", "main", "sampling", "solving"]
