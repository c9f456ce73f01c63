"""Processes that share work, started by torchrun: which one this is, where they meet, their GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch

from .errors import ArgumentError

PATIENCE = timedelta(days=365)  # with processes that are slower


def ranks() -> tuple[int, int]:
    """(which process this is, how many there are), as torchrun says; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def together(processes: int) -> Iterator[Callable[[], None]]:
    """Yields what waits for all processes. They meet when the block ends as well, or one of them has died.

    Raises:
        ArgumentError: the processes cannot meet.
    """
    if processes == 1:
        yield lambda: None
        return
    from torch import distributed

    try:
        distributed.init_process_group("gloo")
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"WORLD_SIZE says {processes} processes, but they cannot meet: start them with torchrun ({error})"
        ) from error
    try:
        yield distributed.barrier
        with suppress(RuntimeError):  # one has died: the shards that are missing say so
            distributed.monitored_barrier(timeout=PATIENCE)
    finally:
        distributed.destroy_process_group()


def device() -> torch.device | None:
    """The GPU of this process, where there are some."""
    if not torch.cuda.is_available():
        return None
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
