"""Being told to end, at a moment that suits: between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Told:
    """Whether a signal came. Asked a second time to end, the run ends where it is."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def hear(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def pass_on(self) -> None:
        """The signal that came does what it would have done; it may return."""
        if self.number is None:
            return
        number, self.number = self.number, None
        handler = self.before[number]
        if callable(handler):
            handler(number, None)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)


@contextmanager
def between_steps(wanted: bool) -> Iterator[Told]:
    """Ctrl-C and a request to terminate wait for `pass_on`. The main thread alone hears them."""
    told = Told()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield told
        return
    for each in SIGNALS:
        handler = signal.getsignal(each)
        if handler is not None and handler is not signal.SIG_IGN:
            told.before[each] = handler
            signal.signal(each, told.hear)
    try:
        yield told
    finally:
        for number in told.before:
            signal.signal(number, told.before[number])
    told.pass_on()
