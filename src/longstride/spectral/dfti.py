"""Transforms along an axis by MKL's own interface (DFTI), for loops in C to call."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import NamedTuple
from weakref import finalize

import torch

from ..errors import SolveError

# Of mkl_dfti.h, which numbers them for good.
FORWARD_SCALE, NUMBER_OF_TRANSFORMS, STORAGE, PLACEMENT = 4, 7, 10, 11
INPUT_DISTANCE, OUTPUT_DISTANCE, THREAD_LIMIT = 14, 15, 27
REAL, COMPLEX_COMPLEX, NOT_INPLACE = 33, 39, 44


class Functions(NamedTuple):
    """Addresses: status = f(descriptor, from, to)."""

    forward: int
    backward: int


@cache
def _library() -> ctypes.CDLL | None:
    """The library with which torch is linked and which its own transforms call, if that is MKL."""
    if not torch.backends.mkl.is_available():
        return None
    for path in Path(torch.__file__).parent.glob("lib/libtorch_cpu.so"):
        found = ctypes.CDLL(str(path))
        if hasattr(found, "DftiCreateDescriptor_d_1d"):  # unless whoever built torch has hidden it
            return found
    return None


@cache
def functions() -> Functions | None:
    """What makes a transform; None where torch has no MKL, as on processors that are not x86."""
    mkl = _library()
    if mkl is None:
        return None
    found = (ctypes.cast(f, ctypes.c_void_p).value for f in (mkl.DftiComputeForward, mkl.DftiComputeBackward))
    return Functions(*found)  # type: ignore[arg-type]


class Descriptor:
    """A transform of rows of n points, into a place of its own and on one thread.

    forward: from real fields to the n/2 + 1 coefficients of each row, by 1/n; else back.  points,
    coefficients: how many numbers rows are apart. `address` is good as long as this object is.

    Raises:
        SolveError: what MKL says against it.
    """

    def __init__(
        self, n: int, rows: int, single: bool, forward: bool, points: int, coefficients: int
    ) -> None:
        mkl = _library()
        assert mkl is not None
        handle = ctypes.c_void_p()
        create = mkl.DftiCreateDescriptor_s_1d if single else mkl.DftiCreateDescriptor_d_1d
        self._check(mkl, create(ctypes.byref(handle), REAL, ctypes.c_long(n)))
        self.address = handle.value
        finalize(self, mkl.DftiFreeDescriptor, ctypes.byref(handle))
        settings = {
            NUMBER_OF_TRANSFORMS: rows,
            PLACEMENT: NOT_INPLACE,
            INPUT_DISTANCE: points if forward else coefficients,
            OUTPUT_DISTANCE: coefficients if forward else points,
            THREAD_LIMIT: 1,
            STORAGE: COMPLEX_COMPLEX,
        }
        for name, value in settings.items():
            self._check(mkl, mkl.DftiSetValue(handle, name, ctypes.c_long(value)))
        self._check(mkl, mkl.DftiSetValue(handle, FORWARD_SCALE, ctypes.c_double(1 / n)))
        self._check(mkl, mkl.DftiCommitDescriptor(handle))

    def _check(self, mkl: ctypes.CDLL, status: int) -> None:
        if status:
            mkl.DftiErrorMessage.restype = ctypes.c_char_p
            why = mkl.DftiErrorMessage(ctypes.c_long(status)).decode()
            raise SolveError(f"MKL has no such transform: {why}; leave out compile=True")
