"""How the embedded models were trained; `longstride train NAME` runs it again.

The denoiser follows EDM (Karras et al. 2022, table 1): F_theta is regressed on the target that makes
D(x) = c_skip x + c_out F_theta(c_in x; c_noise) the posterior mean, with noise levels drawn from a
log-normal. Labels are dropped now and then for the null class, and augmented images tell the network
how they were augmented, so that sampling with a zero vector is sampling without augmentation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ArgumentError
from .classifier import Classifier
from .data import Images
from .unet import UNet

Net = TypeVar("Net", bound=torch.nn.Module)
AUGMENT = 5  # flip, rotation, log scale, two shifts


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    patch, width, depth: of the U-Net.  images: seen in all, repeats included.  p_mean, p_std: of log
    sigma.  flip: whether mirror images belong to the data's augmentation.
    """

    patch: int
    width: int
    depth: int
    images: int
    flip: bool
    augment: float = 0.15
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 400
    ema: float = 0.999
    p_mean: float = -1.0
    p_std: float = 1.4
    drop_label: float = 0.1
    seed: int = 0
    classifier_epochs: int = 8


RECIPES = {
    "digits": Recipe(patch=1, width=32, depth=1, images=1_000_000, flip=False, augment=0.5,
                     classifier_epochs=120),
    "fashion": Recipe(patch=2, width=64, depth=2, images=1_900_000, flip=True),
}  # fmt: skip


def augmented(x: Tensor, recipe: Recipe, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random affine maps of images x [B, C, H, W], each kind with its own probability -> x, a [B, 5]."""
    b = len(x)
    a = torch.randn(b, AUGMENT, generator=g) * torch.tensor([1, 0.12, 0.08, 0.06, 0.06])
    a[:, 0] = 1 if recipe.flip else 0
    a *= torch.rand(b, AUGMENT, generator=g) < recipe.augment
    mirror, turn, scale = 1 - 2 * a[:, 0], a[:, 1], torch.exp(a[:, 2])
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * scale * turn.cos(), -scale * turn.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale * turn.sin(), scale * turn.cos()
    theta[:, :, 2] = a[:, 3:]
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    # Background is -1, so pad the shifted image with its background and not with grey.
    moved = F.grid_sample(x + 1, grid, padding_mode="zeros", align_corners=False) - 1
    changed = (a != 0).any(1)[:, None, None, None]
    return torch.where(changed, moved, x), a


def _laid_out(net: Net, layout: torch.memory_format = torch.channels_last) -> Net:
    """Convolutions on a CPU are fastest with the channels last."""
    return net.to(memory_format=layout)  # type: ignore[call-overload]


def train_denoiser(
    data: Images,
    recipe: Recipe,
    checkpoint: Path,
    progress: Callable[[int, int, float], None],
) -> tuple[UNet, dict]:
    """Train, or go on from `checkpoint`; returns the averaged network and its figures.

    progress(images, of, loss) is called after every step. KeyboardInterrupt writes the checkpoint before
    it goes on its way, so the next call continues with the step that was interrupted.

    Raises:
        ArgumentError: a checkpoint that is damaged, or of another network.
    """
    torch.manual_seed(recipe.seed)
    g = torch.Generator().manual_seed(recipe.seed)
    sigma_data = data.x.square().mean().sqrt().item()
    channels, classes = data.x.shape[1], int(data.y.max()) + 1
    size = (channels, recipe.patch, recipe.width, recipe.depth, classes, AUGMENT)
    net, ema = (_laid_out(UNet(*size)) for _ in range(2))
    ema.load_state_dict(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr, betas=(0.9, 0.99))
    step, seconds, steps, mean_loss = 0, 0.0, recipe.images // recipe.batch, 1.0
    if checkpoint.exists():
        try:
            saved = torch.load(checkpoint, weights_only=True)
            net.load_state_dict(saved["net"])
            ema.load_state_dict(saved["ema"])
            optimizer.load_state_dict(saved["optimizer"])
            g.set_state(saved["generator"])
            step, seconds, mean_loss = saved["step"], saved["seconds"], saved["loss"]
        except Exception as error:  # torch's errors for a damaged file are of many kinds
            raise ArgumentError(
                f"cannot go on from {checkpoint} ({type(error).__name__}): delete it to begin again"
            ) from error

    def save() -> None:
        part = checkpoint.with_suffix(".part")
        torch.save(
            {"net": net.state_dict(), "ema": ema.state_dict(), "step": step, "loss": mean_loss,
             "optimizer": optimizer.state_dict(), "generator": g.get_state(), "seconds": seconds},
            part,
        )  # fmt: skip
        part.replace(checkpoint)

    try:
        while step < steps:
            started = time.perf_counter()
            i = torch.randint(len(data.x), (recipe.batch,), generator=g)
            x0, a = augmented(data.x[i], recipe, g)
            drop = torch.rand(recipe.batch, generator=g) < recipe.drop_label
            y = torch.where(drop, classes, data.y[i])
            log_sigma = recipe.p_mean + recipe.p_std * torch.randn(recipe.batch, generator=g)
            noise = torch.randn(x0.shape, generator=g)
            sigma = log_sigma.exp()[:, None, None, None]
            total = (sigma**2 + sigma_data**2).sqrt()
            x_t = x0 + sigma * noise
            target = (x0 - x_t * (sigma_data / total) ** 2) * total / (sigma * sigma_data)
            with torch.autocast("cpu", torch.bfloat16):
                out = net(x_t / total, log_sigma / 4, y, a)
            loss = F.mse_loss(out.float(), target)
            for group in optimizer.param_groups:
                ramp = min(1.0, (step + 1) / recipe.warmup)
                group["lr"] = recipe.lr * ramp * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            keep = min(recipe.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - keep)
            step += 1
            seconds += time.perf_counter() - started
            mean_loss += (loss.item() - mean_loss) * 0.01
            progress(step * recipe.batch, steps * recipe.batch, mean_loss)
            if step % 500 == 0 or step == steps:
                save()
    except KeyboardInterrupt:
        save()
        raise
    figures = {
        "sigma_data": sigma_data,
        "seconds": round(seconds),
        "loss": mean_loss,
        "steps": steps,
    }
    return _laid_out(ema.eval(), torch.contiguous_format), figures


def train_classifier(data: Images, recipe: Recipe, progress: Callable[[int, int, float], None]) -> Classifier:
    """The independent judge: sees clean, slightly augmented images and nothing of the denoiser."""
    torch.manual_seed(recipe.seed + 1)
    g = torch.Generator().manual_seed(recipe.seed + 1)
    net = Classifier(data.x.shape[1], data.x.shape[-1], int(data.y.max()) + 1)
    net = _laid_out(net)
    per_epoch = len(data.x) // recipe.batch
    steps = recipe.classifier_epochs * per_epoch
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    order = torch.empty(0)
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(data.x), generator=g)
        i = order[(step % per_epoch) * recipe.batch :][: recipe.batch]
        x, _ = augmented(data.x[i], recipe, g)
        with torch.autocast("cpu", torch.bfloat16):
            out = net(x)
        loss = F.cross_entropy(out.float(), data.y[i], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress((step + 1) * recipe.batch, steps * recipe.batch, loss.item())
    return _laid_out(net.eval(), torch.contiguous_format)
