"""More processes at one `tune`: they share its hops through its storage."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def helped(n: int, name: str, threads: int | None, asked: Mapping[str, Any]) -> Iterator[None]:
    """n processes that tune the model `name` as well, until the block ends.

    What they find is in the storage; what is written at the end is the caller's own. Each keeps its other
    work to itself, so that none waits for another.
    """
    context = multiprocessing.get_context("spawn")
    alone = {**asked, "cache": None}
    helpers = [context.Process(target=_tune, args=(name, threads, alone), daemon=True) for _ in range(n)]
    for helper in helpers:
        helper.start()
    try:
        yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()


def _tune(name: str, threads: int | None, asked: Mapping[str, Any]) -> None:
    import torch

    from ..models import load
    from .tune import tune

    if threads:
        torch.set_num_threads(threads)
    tune(load(name), **asked)
