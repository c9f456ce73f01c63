"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import ArgumentError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that becomes it when the block ends well, and vanishes otherwise.

    Killed in the block, a process leaves `.NAME.*` behind, and nothing under the name itself.

    Raises:
        ArgumentError: the path cannot be written.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        part = Path(name)
        try:
            yield part
            part.chmod(0o644)  # mkstemp and safetensors make files that only their owner can read
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:
        raise ArgumentError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all; raises what `whole_file` does."""
    with whole_file(path) as part:
        part.write_text(text)


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A temporary folder whose files move to `out` when the block ends well, and vanish otherwise.

    Enter it before long work: it is also the check that `out` can be written.

    Raises:
        ArgumentError: `out` is a file, or nothing can be written there.
    """
    with _beside(out) as name:
        yield Path(name)
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(name).iterdir()):
            os.replace(file, out / file.name)


def check_writable(folder: Path) -> None:
    """That files can be written to a folder, or to one that is made there; nothing stays behind.

    Raises:
        ArgumentError: it is a file, or nothing can be written there.
    """
    _beside(folder).cleanup()


def _beside(out: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder inside `out` or above it, so on the same file system: moving is renaming."""
    home = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not home.is_dir():
        raise ArgumentError(f"cannot write to {out}: {home} is a file; name another folder")
    try:
        return tempfile.TemporaryDirectory(prefix=".longstride-", dir=home)
    except OSError as error:
        raise ArgumentError(f"cannot write to {out}: {error.strerror}; name another folder") from error
