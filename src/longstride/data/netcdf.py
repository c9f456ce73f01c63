"""A data set as one netCDF file: written from a finished group, and read as groups are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..files import output_folder

ENGINES = ("h5netcdf", "netcdf4", "scipy")  # of xarray, the best first
SETTINGS = "settings"  # the attribute that holds those of the group, as JSON


def engine() -> tuple[Any, str]:
    """xarray, and what it writes netCDF with.

    Raises:
        ArgumentError: there is none.
    """
    try:
        import xarray
    except ImportError as error:
        raise ArgumentError(f"netCDF wants xarray ({error}): pip install 'longstride[data]'") from error
    found = [name for name in ENGINES if name in xarray.backends.list_engines()]
    if not found:
        raise ArgumentError("xarray has nothing to write netCDF with: pip install 'longstride[data]'")
    return xarray, found[0]


def check(path: Path, complex_fields: bool) -> None:
    """Whether a file could be written there.

    Raises:
        ArgumentError: the fields are complex, or a library is missing.
    """
    engine()
    if complex_fields:
        raise ArgumentError(f"{path}: netCDF has no complex numbers; name a .zarr")


def export(group: Path, path: Path) -> None:
    """The group as a file, whole or not at all; its settings become one attribute. u has to fit in memory."""
    xarray, how = engine()
    data = xarray.open_zarr(group, chunks=None, decode_times=False)
    data.attrs = {SETTINGS: json.dumps(data.attrs)}
    for variable in data.variables.values():
        variable.encoding = {}  # of Zarr
    with output_folder(path.absolute().parent) as part:
        data.to_netcdf(part / path.name, engine=how)


class File:
    """Its arrays by name, as those of a Zarr group."""

    def __init__(self, path: Path) -> None:
        xarray, _ = engine()
        try:
            self.data = xarray.open_dataset(path, decode_cf=False)
            self.settings = json.loads(self.data.attrs[SETTINGS])
        except (OSError, ValueError, KeyError) as error:
            raise ArgumentError(f"{path} is no data set of trajectories: {error}") from error

    def __getitem__(self, name: str) -> Variable:
        return Variable(self.data[name])


class Variable:
    """Read where it is indexed, as numpy that may be written to."""

    def __init__(self, array: Any) -> None:
        self.array, self.attrs, self.shape, self.ndim = array, array.attrs, array.shape, array.ndim

    def __getitem__(self, index: Any) -> Any:
        return np.array(self.array[index])
