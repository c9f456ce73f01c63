"""The one network behind the embedded models: a small class-conditional U-Net."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def zero(layer: nn.Conv2d) -> None:
    """Start a residual branch as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Norm(nn.GroupNorm):
    """Group normalisation in the precision of its weights, whatever autocast does around it."""

    def __init__(self, c: int):
        super().__init__(min(16, c // 4), c)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the embedding."""

    def __init__(self, c_in: int, c_out: int, c_emb: int):
        super().__init__()
        self.norm1 = Norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = nn.Linear(c_emb, 2 * c_out)
        self.norm2 = Norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        zero(self.conv2)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), scale + 1)))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over the pixels of a small feature map."""

    def __init__(self, c: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = Norm(c)
        self.qkv = nn.Conv2d(c, 3 * c, 1)
        self.out = nn.Conv2d(c, c, 1)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(h.reshape(b, c, height, width))


class UNet(nn.Module):
    """U-Net with two resolutions, for images small enough to need no more.

    The image is folded into `patch` x `patch` pixels per position first (space to depth): at 28x28 the
    work is done at 14x14 and 7x7, which is what makes the network cheap on a CPU.

    Args:
        channels: of the image.
        patch: side of the square of pixels folded into one position.
        width: channels at the first resolution; the second has twice as many.
        depth: residual blocks at each resolution, on the way down and on the way up.
        classes: number of labels; label `classes` is the null class, for guidance.
        augment: length of the augmentation vector of training; zeros when none is given.
    """

    frequencies: Tensor

    def __init__(self, channels: int, patch: int, width: int, depth: int, classes: int, augment: int = 0):
        super().__init__()
        self.patch, self.classes, c_emb = patch, classes, 4 * width
        self.register_buffer("frequencies", torch.logspace(0, math.log10(64), width // 2), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, c_emb), nn.SiLU(), nn.Linear(c_emb, c_emb))
        self.label = nn.Embedding(classes + 1, c_emb)
        self.augment = nn.Linear(augment, c_emb, bias=False) if augment else None
        c1, c2, c_io = width, 2 * width, channels * patch**2
        self.enter = nn.Conv2d(c_io, c1, 3, padding=1)

        def blocks(a: int, b: int) -> nn.ModuleList:
            return nn.ModuleList(Block(a, b, c_emb) for _ in range(depth))

        self.down1 = blocks(c1, c1)
        self.shrink = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.down2 = blocks(c2, c2)
        self.attention = Attention(c2)
        self.up2 = blocks(2 * c2, c2)
        self.grow = nn.Conv2d(c2, c1, 3, padding=1)
        self.up1 = blocks(2 * c1, c1)
        self.norm = Norm(c1)
        self.leave = nn.Conv2d(c1, c_io, 3, padding=1)
        zero(self.leave)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], t [B] (EDM's c_noise), y [B] labels or None for the null class -> [B, C, H, W]."""
        angle = t[:, None] * self.frequencies.to(t.dtype)
        if y is None:
            y = torch.full((len(x),), self.classes, device=x.device)
        emb = self.time(torch.cat([angle.cos(), angle.sin()], dim=1)) + self.label(y)
        if self.augment is not None and augment is not None:
            emb = emb + self.augment(augment)
        emb = F.silu(emb)
        h = self.enter(F.pixel_unshuffle(x, self.patch))
        skips1, skips2 = [], []
        for block in self.down1:
            h = block(h, emb)
            skips1.append(h)
        h = self.shrink(h)
        for block in self.down2:
            h = block(h, emb)
            skips2.append(h)
        h = self.attention(h)
        for block in self.up2:
            h = block(torch.cat([h, skips2.pop()], dim=1), emb)
        h = self.grow(F.interpolate(h, scale_factor=2, mode="nearest"))
        for block in self.up1:
            h = block(torch.cat([h, skips1.pop()], dim=1), emb)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.patch)
