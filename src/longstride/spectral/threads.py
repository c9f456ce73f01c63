"""How many threads transforms are worth: on a busy machine, often one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

TIMES = 5
WORTH = 0.9  # several threads must take less than this share of one's time

_found: dict[tuple[Any, int], int] = {}


def best(transform: Callable[[], Any], threads: int, clock: Callable[[], float] = time.perf_counter) -> int:
    """`threads`, or 1 where they are no faster, by the median of TIMES transforms with each.

    Where other work keeps a core busy, threads that wait for each other turn a transform of 0.1 ms into one
    of 10, most of the time: the fastest would not show it.
    """

    def median() -> float:
        spent = []
        for _ in range(TIMES):
            began = clock()
            transform()
            spent.append(clock() - began)
        return sorted(spent)[TIMES // 2]

    with using(threads):
        transform()
        many = median()
    with using(1):
        transform()
        one = median()
    if many > 2 * one:
        warnings.warn(
            f"transforms take {many / one:.0f} times as long on {threads} threads as on one, as where other "
            "work keeps the cores busy: they run on one; torch.set_num_threads(1) says so beforehand",
            stacklevel=2,
        )
    return threads if many < WORTH * one else 1


def chosen(key: Any, transform: Callable[[], Any]) -> int:
    """`best` of as many threads as torch uses, found once for each key and number of them."""
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    if (key, threads) not in _found:
        _found[key, threads] = best(transform, threads)
    return _found[key, threads]


@contextmanager
def using(threads: int) -> Iterator[None]:
    """So many threads, and those of before afterwards."""
    before = torch.get_num_threads()
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads != before:
            torch.set_num_threads(before)
