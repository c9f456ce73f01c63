"""Networks as safetensors files that say what they are: weights in half precision, a JSON header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import ArgumentError
from ..files import whole_file

FORMAT = "longstride-1"


def write_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a header, whole or not at all; float32 becomes float16, float64 stays.

    Raises:
        ArgumentError: the path cannot be written.
    """
    half = {name: (v.half() if v.dtype == torch.float32 else v).contiguous() for name, v in tensors.items()}
    with whole_file(path) as part:
        save_file(half, part, {"format": FORMAT, "kind": kind, "header": json.dumps(header)})


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, float16 brought back to float32, and the header, of a file made by `write_tensors`.

    Raises:
        ArgumentError: missing, not safetensors, or a file of something else.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise ArgumentError(f"there is no model file {path}") from error
    except (OSError, SafetensorError) as error:
        raise ArgumentError(f"{path} is not a safetensors file, or was truncated: {error}") from error
    if meta.get("format") != FORMAT or meta.get("kind") != kind:
        raise ArgumentError(
            f"{path} holds no longstride {kind}: its header says {meta.get('kind', 'nothing')}; "
            "make one with `longstride train`"
        )
    try:
        header = json.loads(meta["header"])
    except (KeyError, ValueError) as error:
        raise ArgumentError(
            f"{path} has no readable header: make it again with `longstride train`"
        ) from error
    floats = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
    return floats, header


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Put tensors into a network, if they are the network's.

    Raises:
        ArgumentError: names or shapes that are not the network's.
    """
    own = net.state_dict()
    for name in {*own, *tensors}:
        have, want = tensors.get(name), own.get(name)
        if have is None or want is None or have.shape != want.shape:
            shapes = [None if v is None else tuple(v.shape) for v in (have, want)]
            raise ArgumentError(
                f"{path}: tensor {name!r} has shape {shapes[0]} where the network has {shapes[1]}"
            )
    net.load_state_dict(dict(tensors))
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net.eval()


def seeded(build: type[nn.Module], *arguments: Any) -> nn.Module:
    """Build a network without moving torch's global generator: its weights are about to be replaced."""
    with torch.random.fork_rng(devices=[]):
        return build(*arguments)
