"""Trajectories on disk as a data set of torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import ArgumentError, whole
from .store import REACHED, open_group, settings_of


class Trajectories(Dataset):
    """Windows of the trajectories in a group that `generate` wrote, for a DataLoader, read when asked for.

    Item i is a pair (inputs [window, *shape], targets [horizon, *shape]) of frames that follow each other
    `every` saved times apart; with window = 0 it is a whole trajectory [T, *shape]. Windows begin `stride`
    saved times apart. Samples that diverged or are not made yet are left out. Where samples differ in
    parameters, these follow, [P].

    horizon: frames to predict.  samples: their indices; default: all.  normalized: less the mean, by the
    standard deviation, of each field over the data set.  memory: read all now, once, and no more.

    t: saved times.  settings: what was asked for when the group was made.  mean, std: over the samples taken,
    of each field, shaped to broadcast with a frame.  parameters: by name, what samples differ in.

    Raises:
        ArgumentError: no such group, a sample that it does not hold, or windows longer than trajectories.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        window: int = 1,
        horizon: int = 1,
        stride: int = 1,
        every: int = 1,
        samples: Sequence[int] | None = None,
        normalized: bool = False,
        memory: bool = False,
    ) -> None:
        self.path, self.normalized = Path(path), normalized
        self.window, self.horizon = whole("window", window, 0), whole("horizon", horizon, 1)
        self.every = whole("every", every, 1)
        group = self._group
        self.settings = settings_of(self.path)
        self.t = torch.from_numpy(group["time"][:])
        status = group["status"][:]
        asked = np.arange(len(status)) if samples is None else np.asarray(samples, dtype=np.int64)
        if len(asked) and not (asked.min() >= 0 and asked.max() < len(status)):
            raise ArgumentError(f"samples: {self.path} holds samples 0 to {len(status) - 1}")
        self.samples = asked[status[asked] == REACHED]
        if not len(self.samples):
            raise ArgumentError(f"{self.path}: none of these samples came to the end")
        self.mean, self.std = self._moments(group)
        names = group["u"].attrs.get("coordinates", "").split()
        self.parameters = {name: torch.from_numpy(group[name][:][self.samples]) for name in names}
        times = len(self.t)
        spans = (self.window + self.horizon - 1) * self.every + 1 if self.window else times
        if spans > times:
            raise ArgumentError(f"windows take {spans} saved times; the trajectories have {times}")
        self.starts = range(0, times - spans + 1, whole("stride", stride, 1))
        self.kept = self._all(group) if memory else None

    def __len__(self) -> int:
        return len(self.samples) * len(self.starts)

    def __getitem__(self, i: int) -> Tensor | tuple[Tensor, ...]:
        row, j = divmod(range(len(self))[i], len(self.starts))
        first = self.starts[j]
        frames = self.window + self.horizon if self.window else len(self.t)
        last = first + (frames - 1) * self.every + 1 if self.window else len(self.t)
        step = self.every if self.window else 1
        if self.kept is not None:
            x = self.kept[row, first:last:step]
        else:
            x = torch.from_numpy(self._group["u"][int(self.samples[row]), first:last:step])
        if self.normalized:
            x = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype.to_real())
        found = (x[: self.window], x[self.window :]) if self.window else (x,)
        if self.parameters:
            return *found, torch.stack([v[row] for v in self.parameters.values()]).to(x.dtype.to_real())
        return found if self.window else x

    @property
    def _group(self) -> Any:
        """Opened by each process for itself."""
        if "group" not in self.__dict__:
            self.__dict__["group"] = open_group(self.path, "r")
        return self.__dict__["group"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "group"}

    def _moments(self, group: Any) -> tuple[Tensor, Tensor]:
        means, stds = (torch.from_numpy(group[name][:][self.samples]) for name in ("u_mean", "u_std"))
        mean = means.mean(0)
        variance = (stds.square() + (means - mean).abs().square()).mean(0)
        wide = (*mean.shape, *(1,) * (group["u"].ndim - 2 - mean.ndim))
        return mean.view(wide), variance.sqrt().view(wide)

    def _all(self, group: Any) -> Tensor:
        return torch.stack([torch.from_numpy(group["u"][int(i)]) for i in self.samples])
