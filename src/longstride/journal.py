"""Finished results of long work, kept until all are there: an interrupted run goes on from its last one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .denoiser import Denoiser
from .files import whole_file, write_text
from .frame import PREDICTIONS
from .grid import times
from .guidance import Guidance


class Journal:
    """Values by key, and tensors by name, in a folder of their own.

    The first line of results.jsonl says what they are results of; a journal of anything else is forgotten.
    The folder appears with the first result. Without a folder nothing outlasts the run.
    """

    def __init__(self, folder: Path | None, subject: Mapping[str, Any]):
        self.folder = folder
        self.head = json.dumps(subject, sort_keys=True)
        self.results: dict[str, Any] = {}
        if folder is not None and self.lines.exists():
            head, *found = self.lines.read_text().splitlines() or [""]
            if head == self.head:
                for line in found:
                    try:
                        self.results.update(json.loads(line))
                    except json.JSONDecodeError:  # the run ended while it wrote this one
                        break
            else:
                self.forget()

    @property
    def lines(self) -> Path:
        assert self.folder is not None
        return self.folder / "results.jsonl"

    def _open(self) -> None:
        """Written whole, or not at all: what was known stays known whenever the run ends."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        known = [json.dumps({key: value}) for key, value in self.results.items()]
        write_text(self.lines, "\n".join([self.head, *known]) + "\n")

    def value(self, key: str, make: Callable[[], Any]) -> Any:
        """The result of this key, what JSON can hold, made now if it is not known."""
        if key not in self.results:
            self.results[key] = make()
            self._open()
        return self.results[key]

    def tensor(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of this name, made now if it is not kept."""
        if self.folder is None:
            return make()
        file = self.folder / f"{name}.safetensors"
        if file.exists():
            return load_file(file)["x"]
        x = make()
        self._open()
        with whole_file(file) as part:
            save_file({"x": x.contiguous()}, part)
        return x

    def forget(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.results = {}


@contextmanager
def journal(folder: Path, subject: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of a run: gone when the run ends well, or failed before it had any result."""
    kept = Journal(folder, subject)
    try:
        yield kept
    except BaseException:
        if not kept.results:
            kept.forget()
            if folder.parent.is_dir() and not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        raise
    kept.forget()


@torch.no_grad()
def fingerprint(
    model: Denoiser, x: Tensor, cond: Mapping[str, Any] | None = None, guidance: float | Guidance = 1.0
) -> str:
    """What the model is, whatever it is made of: a digest of its answers to the noises x [n, *shape].

    Bit by bit: on another machine, or with another number of threads, the same model may answer otherwise.
    """
    v = model.fields(model.conditioning(cond, len(x), model.device), guidance)[PREDICTIONS.index("v")]
    answers = torch.stack([v(t, x * model.process.sigma(t)) for t in times(model.process, 3, "log_snr")])
    return hashlib.sha256(answers.double().cpu().numpy().tobytes()).hexdigest()
