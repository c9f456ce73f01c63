"""A run in equal steps on disk: killed at any moment, it goes on from where it was last written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ArgumentError, differing
from ..files import whole_file
from .rollout import Stand

STATE = "state.safetensors"


Moment = tuple[Stand, list[Tensor], list[list[Tensor]]]  # where a run stands, states saved, reductions


class Book:
    """A folder: `state.safetensors`, where the run stands, and files of states saved, each written once.

    asked: what the run is of, names and values. A file is moved to its name when it is whole, and the state
    after the saved states that it counts: so what is read is a moment that was.
    """

    def __init__(self, folder: str | Path, asked: Mapping[str, Any]) -> None:
        self.folder, self.asked = Path(folder), json.loads(json.dumps(asked))
        self.written = 0  # of the states saved

    def read(self, device: torch.device) -> Moment | None:
        """The moment that was written down, if one was.

        Raises:
            ArgumentError: it is one of another run, naming what differs, or damaged. Nothing is changed.
        """
        if not (self.folder / STATE).exists():
            return None
        found, about = self._tensors(STATE, device)
        if what := differing(about["asked"], self.asked):
            raise ArgumentError(
                f"checkpoint {self.folder} is of another run: {what}; name another folder, or remove this one"
            )
        kept: list[Tensor] = []
        while len(kept) < about["kept"]:
            kept += self._tensors(_block(len(kept)), device)[0]["x"].unbind()
        self.written, rows = about["kept"], iter(found.values())
        xs, fs, *carries = (list(islice(rows, k)) for k in about["sizes"])
        return Stand(about["n"], about["nfe"], tuple(xs), tuple(fs)), kept[: self.written], carries

    def write(self, stand: Stand, kept: Sequence[Tensor], carries: Sequence[Sequence[Tensor]]) -> None:
        """Put a moment in the place of the one before.

        Raises:
            ArgumentError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArgumentError(f"cannot write checkpoint {self.folder}: {error.strerror}") from error
        if len(kept) > self.written:
            self._save(_block(self.written), {"x": torch.stack(list(kept[self.written :]))}, {})
            self.written = len(kept)
        groups = [stand.xs, stand.fs, *carries]
        named = {f"{i:06d}": x for i, x in enumerate(x for group in groups for x in group)}
        about = {"n": stand.n, "nfe": stand.nfe, "kept": len(kept), "sizes": list(map(len, groups))}
        self._save(STATE, named, {"asked": self.asked, **about})

    def _save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        plain = {key: torch.view_as_real(x) if x.is_complex() else x for key, x in tensors.items()}
        pairs = [key for key, x in tensors.items() if x.is_complex()]  # which safetensors has no type for
        with whole_file(self.folder / name) as part:
            whole = {
                key: x.detach().cpu().clone(memory_format=torch.contiguous_format) for key, x in plain.items()
            }
            save_file(whole, part, {"about": json.dumps({**about, "complex": pairs})})

    def _tensors(self, name: str, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
        path = self.folder / name
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                # Clones: what is mapped from a file is not aligned as a transform's input must be.
                found = {key: file.get_tensor(key).clone().to(device) for key in sorted(file.keys())}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ArgumentError(f"cannot read checkpoint {path} ({error}): remove {self.folder}") from error
        pairs = set(about["complex"])
        return {k: torch.view_as_complex(x) if k in pairs else x for k, x in found.items()}, about


def _block(first: int) -> str:
    return f"saved-{first:09d}.safetensors"


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the bits of tensors."""
    total = hashlib.sha256()
    for x in tensors:
        total.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]
