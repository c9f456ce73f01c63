"""The samplers of other libraries behind one call: every deterministic one, on every grid it offers.

A `Task` says what is to be sampled, in its process's own x and t. Each adapter module has `runs(task)`,
which yields a `Run` for every sampler and grid; `run.call(noise, nfe)` returns the samples, or None where the
sampler cannot spend that many evaluations. All samplers start from sigma(t) times the same noise, t being the
first time of their own grid, and are judged by what they return.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor

NAMES = ("diffusers", "k_diffusion", "azula", "smalldiffusion")
Data = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Task:
    """A data prediction and the process it belongs to.

    kind "edm": x = x0 + t noise, t = sigma from 80 to 0.002.  "vp": linear betas 1e-4 to 0.02, a table of
    1000, t its float index, log(alpha/sigma) linear in t between them.  "flow": x = (1 - t) x0 + t noise.
    """

    kind: str
    data: Data
    shape: tuple[int, ...]

    @cached_property
    def table(self) -> Tensor:
        """sigma/alpha of the 1000 training times, rising: the task's own for VP, log-spaced otherwise."""
        if self.kind == "vp":
            bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
            return ((1 - bar) / bar).sqrt()
        low, high = {"edm": (0.002, 80.0), "flow": (1e-3 / (1 - 1e-3), (1 - 1e-3) / 1e-3)}[self.kind]
        return torch.linspace(math.log(low), math.log(high), 1000, dtype=torch.float64).exp()

    @property
    def ratio_min(self) -> float:
        return float(self.table[0])

    @property
    def ratio_max(self) -> float:
        """sigma/alpha at the start; a flow's is infinite, and this is the one of t = 0.999."""
        return float(self.table[-1])

    @cached_property
    def _logs(self) -> list[float]:
        return self.table.log().tolist()

    def ratio(self, t: float) -> float:
        """sigma/alpha at time t."""
        if self.kind == "edm":
            return t
        if self.kind == "flow":
            return t / (1 - t) if t < 1 else math.inf
        i = min(max(int(t), 0), 998)
        return math.exp(self._logs[i] + (t - i) * (self._logs[i + 1] - self._logs[i]))

    def time(self, ratio: float) -> float:
        """The time at which sigma/alpha is `ratio`."""
        if self.kind == "edm":
            return ratio
        if self.kind == "flow":
            return ratio / (1 + ratio) if ratio < math.inf else 1.0
        log = math.log(ratio)
        if not self._logs[0] - 1e-6 <= log <= self._logs[-1] + 1e-6:
            raise ValueError(f"sigma/alpha = {ratio} lies outside the table")
        i = min(max(bisect_left(self._logs, log) - 1, 0), 998)
        t = i + (log - self._logs[i]) / (self._logs[i + 1] - self._logs[i])
        return min(max(t, 0.0), 999.0)

    def alpha(self, ratio: float) -> float:
        if self.kind == "edm":
            return 1.0
        return 1 / (1 + ratio) if self.kind == "flow" else 1 / math.sqrt(1 + ratio * ratio)

    def denoise(self, u: Tensor, ratio: float) -> Tensor:
        """x0_hat from u = x/alpha = x0 + ratio noise: the same task in the frame of most libraries."""
        return self.data(u * self.alpha(ratio), self.time(ratio))


@dataclass(frozen=True)
class Run:
    """One sampler of one peer on one grid; `note` says what had to be done for it."""

    peer: str
    sampler: str
    grid: str
    call: Callable[[Tensor, int], Tensor | None]
    note: str = ""


def runs(task: Task, peers: tuple[str, ...] = NAMES) -> Iterator[Run]:
    for peer in peers:
        yield from importlib.import_module(f"{__name__}.{peer}_").runs(task)


class Counted:
    """A data prediction that counts its calls."""

    def __init__(self, data: Data) -> None:
        self.data, self.calls = data, 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.calls += 1
        return self.data(x, t)


def counted(task: Task) -> tuple[Task, Counted]:
    counter = Counted(task.data)
    return replace(task, data=counter), counter


@contextmanager
def float64() -> Iterator[None]:
    """torch.linspace and torch.tensor without dtype, as the peers write them, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def bare_module(package: str, module: str, absent: tuple[str, ...]) -> ModuleType:
    """`package.module` without running the package's __init__, which imports far more than samplers.

    absent: modules that it imports and that no sampler used here calls.
    """
    for name in absent:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock()
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"{package} is not installed: run make bench")
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[package] = bare
    return importlib.import_module(f"{package}.{module}")
