"""Trajectories on disk: a Zarr group that xarray opens, written batch by batch, each whole or not at all.

    u [sample, time, (field,) x, y, z]      NaN where a sample did not come to
    status [sample]                         0 not made yet, 1 reached the end, 2 diverged
    u_mean, u_std [sample, (field)]         over time and space, of finite values
    time, x, y, z, field                    coordinates; and of each sample, what differs between them

A batch of samples is one file of each array, which one process writes, its status last: so what is not
finished has status 0, and nobody waits for anybody. Metadata of all arrays is in the group's own file as
well ("consolidated"): readers see a group grow at one moment.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, differing
from ..files import output_folder
from .netcdf import File

FORMAT = "longstride-trajectories"
MISSING, REACHED, DIVERGED = range(3)
FIRST = "first sample"  # the setting that tells functions apart
STATES = ("missing", "reached", "diverged")
CHUNK = 2**20  # bytes read at once: this much of a sample's time, or a frame
NAMES = {torch.float32: "float32", torch.float64: "float64"}
WIDER = {"float32": "complex64", "float64": "complex128"}


@dataclass(frozen=True)
class Layout:
    """What the arrays are like: those of a group whose samples are shaped [T, *components, *n].

    dtype: of u, on disk.  coordinates: by dimension.  each: what samples differ in, by name, as a note.
    batch: samples to a file.
    """

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    coordinates: Mapping[str, Any]
    each: tuple[str, ...]
    batch: int

    def arrays(self) -> dict[str, dict[str, Any]]:
        """Arguments of each array with a dimension of samples, which begins with none."""
        frame = math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        times = min(self.shape[0], max(1, CHUNK // frame))
        rounded = -(-self.shape[0] // times) * times
        fields = self.shape[1 : 1 + self.dims.count("field")]
        numbers = "complex128" if self.dtype in WIDER.values() else "float64"

        def of_sample(shape: tuple[int, ...], dims: tuple[str, ...], dtype: str) -> dict[str, Any]:
            return {
                "shape": (0, *shape), "chunks": (self.batch, *shape), "dtype": dtype,
                "dimension_names": ("sample", *dims), "fill_value": _nothing(dtype),
            }  # fmt: skip

        u = {
            **of_sample(self.shape, self.dims, self.dtype),
            "chunks": (1, times, *self.shape[1:]),
            "shards": (self.batch, rounded, *self.shape[1:]),
            "attributes": {"coordinates": " ".join(self.each)} if self.each else {},
        }
        states = {"flag_values": list(range(len(STATES))), "flag_meanings": " ".join(STATES)}
        field = self.dims[1 : 1 + len(fields)]
        return {
            "u": u,
            "status": {**of_sample((), (), "int8"), "attributes": states},
            "u_mean": of_sample(fields, field, numbers),
            "u_std": of_sample(fields, field, "float64"),
            **{name: of_sample((), (), "float64") for name in self.each},
        }


def _nothing(dtype: str) -> Any:
    if dtype == "int8":
        return MISSING
    return complex(math.nan, math.nan) if dtype.startswith("complex") else math.nan


def zarr_of_extra() -> Any:
    """The library.

    Raises:
        ArgumentError: it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise ArgumentError(
            f"data sets are written with zarr, which is missing ({error}): pip install 'longstride[data]'"
        ) from error
    return zarr


def claim(path: Path, settings: Mapping[str, Any], layout: Layout, samples: int) -> None:
    """From now on the group holds `samples` samples of these settings at least; those that are there stay.

    Raises:
        ArgumentError: the path holds something else, or samples of other settings; nothing is changed then.
    """
    zarr = zarr_of_extra()
    if not path.exists():
        with output_folder(path.absolute().parent) as part:
            group = zarr.create_group(part / path.name, attributes=dict(settings))
            for name, values in layout.coordinates.items():
                array = group.create_array(
                    name, shape=(len(values),), dtype=str if isinstance(values[0], str) else "float64",
                    dimension_names=(name,), compressors=None,
                )  # fmt: skip
                array[:] = np.array(values, dtype=object if isinstance(values[0], str) else float)
            for name, how in layout.arrays().items():
                group.create_array(name, compressors=None, **how)
            _grow(zarr, part / path.name, layout, samples)
        return
    agree(path, settings)
    if held(path) < samples:
        _grow(zarr, path, layout, samples)


def agree(path: Path, settings: Mapping[str, Any]) -> None:
    """
    Raises:
        ArgumentError: the samples there are of other settings, or it holds something else.
    """
    found, wanted = _flat(settings_of(path)), _flat(settings)
    first = {
        k: v for k, v in wanted.items() if k.startswith(FIRST)
    }  # follows from the rest, if it is the same
    if what := differing({**found, **first}, wanted) or differing(found, wanted):
        raise ArgumentError(f"{path} holds other samples: {what}; name another file")


def held(path: Path) -> int:
    """How many samples there is room for."""
    return open_group(path, "r")["status"].shape[0]


def _grow(zarr: Any, path: Path, layout: Layout, samples: int) -> None:
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name in layout.arrays():
        array = group[name]
        if array.shape[0] < samples:
            array.resize((samples, *array.shape[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the specification yet
        zarr.consolidate_metadata(path)


def open_group(path: Path, mode: str) -> Any:
    """The group as its readers see it, or the netCDF file.

    Raises:
        ArgumentError: there is none, or it is not one of ours.
    """
    if path.suffix == ".nc":
        return File(path)
    zarr = zarr_of_extra()
    settings_of(path)
    try:
        return zarr.open_group(path, mode=mode, use_consolidated=True)
    except (ValueError, OSError, KeyError) as error:
        raise ArgumentError(f"cannot read {path}: {error}") from error


def settings_of(path: Path) -> dict[str, Any]:
    """What the group's samples are, versions of libraries aside.

    Raises:
        ArgumentError: it holds no trajectories.
    """
    if path.suffix == ".nc":
        return File(path).settings
    try:
        found = json.loads((path / "zarr.json").read_text())["attributes"]
    except OSError as error:
        raise ArgumentError(f"{path} holds no Zarr group: {error.strerror}; name another file") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArgumentError(f"{path} is not a group of trajectories; name another file") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ArgumentError(f"{path} is not a group of trajectories; name another file")
    return found


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, on one level, without what may differ."""
    plain = json.loads(json.dumps({k: v for k, v in settings.items() if k != "versions"}))
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= {f"{key} {k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def lacking(path: Path, samples: int, batch: int) -> list[range]:
    """Those of samples 0 .. samples - 1 that are not there, a range of each batch that lacks some."""
    status = open_group(path, "r")["status"][:samples]
    missing = []
    for first in range(0, samples, batch):
        gaps = np.flatnonzero(status[first : first + batch] == MISSING)
        if len(gaps):
            missing.append(range(first + int(gaps[0]), min(first + batch, samples)))
    return missing


def write(path: Path, span: range, u: Tensor, status: Tensor, components: int, each: Mapping[str, Tensor],
          batch: int) -> None:  # fmt: skip
    """Put samples of one batch into the group: u [B, T, *components, *n], status [B]."""
    group, k = open_group(path, "r+"), span.start // batch
    for left in [*path.glob(f"*/c/{k}.*.partial"), *path.glob(f"*/c/{k}/**/*.partial")]:
        left.unlink(missing_ok=True)  # of a process that was killed
    mean, std = moments(u, components)
    rows = {"u": u, "u_mean": mean, "u_std": std, **each, "status": status}
    for name, values in rows.items():
        group[name][span.start : span.stop] = values.numpy()


def moments(u: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of finite values of u [B, T, *components, ...]: [B, *components]."""
    wide = u.to(torch.complex128 if u.is_complex() else torch.float64)
    if components:
        wide = wide.movedim(2, 1)
    finite = wide.isfinite()
    axes = tuple(range(1 + components, wide.ndim))
    count = finite.sum(axes).clamp_min(1)
    mean = wide.where(finite, 0).sum(axes) / count
    away = (wide - mean.reshape(*mean.shape, *(1,) * len(axes))).abs().square().where(finite, 0)
    return mean, (away.sum(axes) / count).sqrt()


def counts(path: Path, samples: int) -> dict[str, int]:
    """How many samples are in each state."""
    status = open_group(path, "r")["status"][:samples]
    return {name: int((status == i).sum()) for i, name in enumerate(STATES)}
