"""C++ compiled when it is needed, kept between runs, and called through ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

from ..errors import ArgumentError, said

# Sums stay in the order they are written in; what may differ from torch is a fused multiplication.
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-w", "-shared", "-fPIC",
)  # fmt: skip


@cache
def compiler() -> str | None:
    """The C++ compiler of this machine, CXX before others; None where there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)


def folder() -> Path:
    """Where libraries are kept: of this user alone, for what lies here is run."""
    here = os.environ.get("LONGSTRIDE_CACHE")
    path = Path(here) if here else Path(tempfile.gettempdir()) / f"longstride-{_user()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
        raise ArgumentError(f"{path} belongs to another user: set LONGSTRIDE_CACHE to a folder of yours")
    return path


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")


@cache
def library(source: str) -> ctypes.CDLL:
    """The functions of a source, extern "C", compiled if this machine has not done so before.

    Raises:
        ArgumentError: no compiler here, or it refuses the source; nowhere to keep what it makes.
    """
    cc = compiler()
    if cc is None:
        raise ArgumentError(
            "compile=True needs a C++ compiler (g++ or clang++; CXX names another): install one"
        )
    key = sha256("\0".join((source, cc, *FLAGS, sys.platform, _processor())).encode()).hexdigest()[:32]
    try:
        try:
            return ctypes.CDLL(str(_kept(key) or _compile(cc, source, key)))
        except OSError:  # such as one of another system, which shares the folder
            return ctypes.CDLL(str(_compile(cc, source, key)))
    except OSError as error:
        raise ArgumentError(
            f"a compiled step cannot be kept or loaded, {said(error)}: set LONGSTRIDE_CACHE to a folder of "
            "yours"
        ) from error


def _named(key: str, path: Path) -> str:
    """With its size in its name a library is known to be whole: to load half of one ends the process."""
    return f"{key}-{path.stat().st_size}.so"


def _kept(key: str) -> Path | None:
    return next((path for path in folder().glob(f"{key}-*.so") if path.name == _named(key, path)), None)


def _compile(cc: str, source: str, key: str) -> Path:
    """Puts a library into the folder, at once: another process may be as far."""
    with tempfile.TemporaryDirectory(dir=folder()) as here:
        text, made = Path(here) / "source.cpp", Path(here) / "library.so"
        text.write_text(source)
        done = subprocess.run([cc, *FLAGS, str(text), "-o", str(made), "-lm"], capture_output=True, text=True)
        if done.returncode:
            raise ArgumentError(
                f"{cc} does not compile a step: {done.stderr.strip()[:500]}; leave out compile=True"
            )
        return made.replace(folder() / _named(key, made))


@cache
def threads(workers: int) -> ThreadPoolExecutor:
    """For calls of a library's functions, during which ctypes lets go of the interpreter."""
    return ThreadPoolExecutor(workers, "longstride")


@cache
def _processor() -> str:
    """What -march=native depends on: a folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
