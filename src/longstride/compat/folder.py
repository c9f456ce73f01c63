"""Models in folders saved by diffusers, as Denoisers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import ArgumentError
from .configuration import Configuration

NETWORKS = ("unet", "transformer")  # what pipelines call the network that is sampled
# Classes that are called as model(x, timestep=t, ...), and whether t is the scheduler's or the process's own.
SCHEDULER_TIMES = {
    "UNet2DModel": True,
    "UNet2DConditionModel": True,
    "SD3Transformer2DModel": True,
    "FluxTransformer2DModel": False,
}


class Network(nn.Module):
    """A diffusers model as net(x, t, **cond) -> prediction; cond goes by the model's own argument names."""

    def __init__(self, model: nn.Module, sign: float):
        super().__init__()
        self.model, self.sign = model, sign
        self.x = next(iter(inspect.signature(model.forward).parameters))  # its own name of x

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        out = self.model(**{self.x: x}, timestep=t, return_dict=False, **cond)[0]
        return out if self.sign == 1 else self.sign * out


def load_folder(folder: Path) -> Denoiser:
    """The network of a pipeline's folder, or of a model's with its scheduler's configuration in or beside it.

    cond= of `ls.sample` goes by the model's argument names, such as class_labels or encoder_hidden_states.
    For a pipeline of latents, x are latents. clip_sample of the configuration is not followed: samples are
    not clamped.

    Raises:
        ArgumentError: no such folder, or a network or scheduler that is not understood, by name.
    """
    home = folder / next((name for name in NETWORKS if (folder / name / "config.json").exists()), "")
    places = (folder / "scheduler", folder, folder.parent / "scheduler")
    found = [path for place in places if (path := place / "scheduler_config.json").exists()]
    if not (home / "config.json").exists() or not found:
        raise ArgumentError(
            f"{folder} holds no diffusers model with its scheduler: a pipeline's folder has scheduler and "
            "unet or transformer, a model's has config.json, and scheduler_config.json in it or scheduler "
            "beside it"
        )
    config = json.loads((home / "config.json").read_text())
    name = config.get("_class_name", "")
    if name not in SCHEDULER_TIMES:
        raise ArgumentError(
            f"how a {name or 'model without a class'} is called is not known, only of "
            f"{', '.join(SCHEDULER_TIMES)}; give your own net(x, t, **cond) to ls.Denoiser"
        )
    c = Configuration(json.loads(found[0].read_text()))
    channels, size = config.get("in_channels"), config.get("sample_size")
    if config.get("out_channels") not in (None, channels):
        raise ArgumentError(
            f"{name} takes {channels} channels and returns {config['out_channels']}, so it is given or "
            "returns more than x: run it in its pipeline, with PlanScheduler"
        )
    model = getattr(diffusers, name).from_pretrained(home, local_files_only=True)
    net = Network(model.eval().requires_grad_(False), c.sign)
    spatial = tuple(size) if isinstance(size, list) else (size, size)
    scale = c.network_time(1.0) if c.predicts == "flow" and SCHEDULER_TIMES[name] else 1.0
    return Denoiser(
        net,
        c.process,
        predicts=c.predicts,
        shape=(channels, *spatial) if size and channels else (),
        time=None if scale == 1 else lambda t: t * scale,
        name=folder.name,
    )
