"""Many solutions of one equation, from random starts, into a group on disk, by any number of processes."""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import ArgumentError, whole
from ..processes import ranks, together
from ..systems import PDE
from . import netcdf
from .recipe import Recipe, Starts, checked, grid, saved_times
from .store import WIDER, agree, claim, counts, held, lacking, write, zarr_of_extra

BATCH, ROOM = 64, 2**28  # samples to a file at most, and bytes of it
SUFFIXES = (".zarr", ".nc")


@dataclass(frozen=True)
class Made:
    """Of the samples asked for: how many were there before, were made now by all processes, are missing, and
    have diverged, whenever they were made; seconds.
    """

    before: int
    made: int
    missing: int
    diverged: int
    seconds: float


def generate(
    pde: PDE,
    path: str | Path,
    samples: int,
    *,
    until: float | None = None,
    save_every: float | None = None,
    method: str | None = None,
    dt: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    starts: Starts | None = None,
    vary: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
    dtype: str = "float32",
    batch: int | None = None,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> Made:
    """Solutions of samples 0 .. samples - 1 in a Zarr group, which `Trajectories` and xarray read; or, where
    path ends in .nc, in one netCDF file, which they read too, made of a group beside it when all are there. A
    file does not grow.

    Sample i follows from (seed, i). Those that the group has already are left as they are, so that the same
    call goes on where one was interrupted or killed, and one with more samples adds them. Under torchrun each
    process makes every N-th batch, on its own GPU where there are some; the bits are the same for any number
    of processes. A sample that diverges is NaN from there on, and its status says so.

    Args:
        until: the last time; the first is that of pde.t.  save_every: between saved times, the start among
            them; default: a hundredth.
        method, dt, rtol, atol: as `ls.solve` has them; default: the equation's method and dt.
        starts: (indices of samples, seed) to fields [B, ...] like pde.x0; default: pde.random_starts.
        vary: parameters by name, each drawn for each sample, uniform between two values: {"viscosity": (0.01,
            0.1)}. They are coordinates of the group.
        dtype: on disk, "float32" or "float64"; it is computed in that of pde.x0.
        batch: samples that are solved at once and lie in one file; default: 64, or as many as 256 MB hold.
        progress: called with (how much is done, of how much) of this process's share, after every saved time.

    Raises:
        ArgumentError: before anything is written; among others, the path holds something else, or samples of
            other settings, which are named.
    """
    file, samples, seed = Path(path), whole("samples", samples, 1), whole("seed", seed)
    if file.suffix not in ("", *SUFFIXES):
        raise ArgumentError(f"{file}: a data set is a Zarr group, NAME.zarr, or a netCDF file, NAME.nc")
    path = file.with_name(f"{file.name}.zarr") if file.suffix == ".nc" else file
    if path != file:
        netcdf.check(file, pde.x0.is_complex())
    times = saved_times(pde.t[0], pde.t[1] if until is None else until, save_every)
    how = pde.steps(method, dt, rtol, atol)
    if dtype not in WIDER:
        raise ArgumentError(f"dtype = {dtype!r}: on disk it is {' or '.join(WIDER)}")
    recipe = Recipe(
        pde, starts or pde.random_starts, seed, times, method or pde.method, how,
        WIDER[dtype] if pde.x0.is_complex() else dtype, checked(pde, vary or {}),
    )  # fmt: skip
    if batch is None:
        each = math.prod(pde.x0.shape[1:]) * len(times) * getattr(torch, recipe.dtype).itemsize
        batch = max(1, min(BATCH, ROOM // each))
    batch = whole("batch", batch, 1)
    settings = {**recipe.settings(), "batch": batch, "versions": versions()}
    rank, processes = ranks()
    if path != file and file.exists():
        return _finished(file, path, settings, samples, rank)
    with together(processes) as meet:
        if rank == 0:
            claim(path, settings, recipe.layout(batch), samples)
        meet()
        spans = lacking(path, samples, batch)
        meet()  # nobody writes before all have looked, so they share out the same batches
        began, mine = time.perf_counter(), spans[rank::processes]
        for k, span in enumerate(mine):
            show = partial(_moved, progress, k * len(times), len(mine) * len(times))
            u, status = recipe.batch(span, show)
            write(path, span, u, status, pde.x0.ndim - 1 - grid(pde).dim, recipe.drawn(span), batch)
    left, asked = counts(path, samples), sum(map(len, spans))
    if path != file and rank == 0 and not left["missing"]:
        netcdf.export(path, file)
        shutil.rmtree(path)
    return Made(
        samples - asked, asked - left["missing"], left["missing"], left["diverged"],
        time.perf_counter() - began,
    )  # fmt: skip


def _finished(file: Path, group: Path, settings: Mapping[str, Any], samples: int, rank: int) -> Made:
    """What is in a netCDF file already; the group it was made of goes, if a run was killed before it did."""
    agree(file, settings)
    if held(file) < samples:
        raise ArgumentError(
            f"{file} holds {held(file)} samples, and a netCDF file does not grow: name another, or a .zarr"
        )
    if rank == 0 and group.exists():
        shutil.rmtree(group)
    return Made(samples, 0, 0, counts(file, samples)["diverged"], 0.0)


def _moved(progress: Callable[[int, int], Any], before: int, of: int, done: int) -> None:
    progress(before + done, of)


def versions() -> dict[str, str]:
    """Of what a group was begun with."""
    zarr = zarr_of_extra()
    return {"python": platform.python_version(), "torch": torch.__version__, "zarr": zarr.__version__}
