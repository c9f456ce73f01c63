"""Policies on disk: PATH.safetensors, their tensors, and PATH.json, what they observe, how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import ArgumentError
from .files import whole_file

STEPS, NETWORK = "longstride-policy", "longstride-network"  # policies of steps, and networks: format
HERE = Path(__file__).parent
SHIPPED = (HERE / "nbody" / "policies", HERE / "learn" / "policies")


def write(path: str | Path, format: str, tensors: Mapping[str, Tensor], **told: Any) -> None:
    """Write both files; `told` is what else is needed to make the policy again."""
    path = Path(path)
    with whole_file(path.with_suffix(".safetensors")) as part:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part)
    with whole_file(path.with_suffix(".json")) as part:
        part.write_text(json.dumps({"format": format, "version": 1, **told}, indent=1) + "\n")


def read(path: str | Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Where it was found, tensors, and what is told of them; the name of a policy that is shipped will do.

    Raises:
        ArgumentError: a file that is missing, or not a policy.
    """
    if not isinstance(path, str | Path):
        raise ArgumentError(f"path = {path!r}: it is the name of a file, or of a policy that is shipped")
    shipped = [folder / path for folder in SHIPPED if isinstance(path, str)]
    path = next((known for known in shipped if known.with_suffix(".json").exists()), Path(path))
    if not path.with_suffix(".json").exists():
        known = sorted({file.stem for folder in SHIPPED for file in folder.glob("*.json")})
        raise ArgumentError(
            f"{path} is not a policy: there is no file {path.with_suffix('.json')}; those that come with the "
            f"library are {', '.join(known)}"
        )
    try:
        told = json.loads(path.with_suffix(".json").read_text())
        tensors = load_file(path.with_suffix(".safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ArgumentError(f"{path} is not a policy: {type(error).__name__}: {error}") from error
    ours = isinstance(told, dict) and told.get("format") in (STEPS, NETWORK)
    if not ours or told.get("version") != 1:
        raise ArgumentError(f"{path}.json is not of a policy: its format is {STEPS} or {NETWORK}, version 1")
    return path, tensors, told
