"""Functions of a user's f through torch.compile: code of its own for each f, errors that say what to do."""

from __future__ import annotations

import logging
import threading
import types
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from .errors import ArgumentError, said

RECORDINGS = 64  # of a function, for other shapes, precisions and numbers
_MADE: WeakKeyDictionary[Any, dict[Hashable, Callable[..., Any]]] = WeakKeyDictionary()


def owner(f: Any) -> Any:
    """What is kept for an f is kept by its code, which outlives a closure that is made again."""
    return getattr(getattr(f, "func", f), "__code__", f)


class _Quiet(logging.Filter):
    """Keeps from a log what threads say that are in here."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self.here, "quiet", False)


_QUIET = _Quiet()
logging.getLogger("torch._subclasses.fake_tensor").addFilter(_QUIET)


@contextmanager
def recorded() -> Iterator[None]:
    """Torch records as often as it must, floats as the numbers they are, and writes no page of log where a
    shape does not fit: whoever asks it makes something of that. It takes 20 microseconds.
    """
    before, _QUIET.here.quiet = getattr(_QUIET.here, "quiet", False), True
    try:
        with torch._dynamo.config.patch(recompile_limit=RECORDINGS, specialize_float=True):
            yield
    finally:
        _QUIET.here.quiet = before


def compiled(function: Callable[..., Any], f: Any, kind: Hashable = None, **more: Any) -> Callable[..., Any]:
    """`function` as one graph, for this f and what `kind` tells apart.

    Each has code of its own: torch counts recordings by it.  more: of torch.compile.
    """
    made = _MADE.setdefault(owner(f), {})
    if (function, kind) not in made:
        own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
        made[function, kind] = torch.compile(own, fullgraph=True, dynamic=False, **more)
    return made[function, kind]


def called(graph: Callable[..., Any], what: str, *arguments: Any) -> Any:
    """What a compiled function returns.

    Raises:
        ArgumentError: `what` is given to it does not become one graph.
    """
    try:
        return graph(*arguments)
    except Exception as error:
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        raise ArgumentError(
            f"compile=True: {what} does not become one graph, {said(error)}; leave out compile=True, or "
            "write it in torch alone"
        ) from error
