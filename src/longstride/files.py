"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ArgumentError


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        ArgumentError: the path cannot be written.
    """
    path = Path(path)
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            os.chmod(part, 0o644)
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A temporary folder whose files move to `out` when the block ends well, and vanish otherwise.

    Enter it before long work: it is also the check that `out` can be written.

    Raises:
        ArgumentError: `out` is a file, or nothing can be written there.
    """
    home = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not home.is_dir():
        raise ArgumentError(f"cannot write to {out}: {home} is a file; name another folder")
    try:
        # Inside `out` or above it, so on the same file system: moving is renaming.
        part = tempfile.TemporaryDirectory(prefix=".longstride-", dir=home)
    except OSError as error:
        raise ArgumentError(f"cannot write to {out}: {error.strerror}; name another folder") from error
    with part as name:
        yield Path(name)
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(name).iterdir()):
            os.replace(file, out / file.name)
