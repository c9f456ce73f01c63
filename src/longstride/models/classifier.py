"""The independent judge of the embedded models: class agreement, and the features of the Frechet distance."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """A small residual-free convolutional network, for images of `size` pixels a side.

    Images above 16 pixels are halved twice and the others once, so that the last convolution sees a
    handful of positions in either case.
    """

    features = 64

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        widths = [32, 64, 128] if size > 16 else [32, 64]
        layers: list[nn.Module] = []
        for c_in, c_out in zip([channels, *widths], widths, strict=False):
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.SiLU()]
            layers += [nn.Conv2d(c_out, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.embed = nn.Linear(widths[-1], self.features)
        self.head = nn.Linear(self.features, classes)

    def embedding(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] in [-1, 1] -> features [B, 64] before the last layer."""
        return F.silu(self.embed(self.body(x).mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] in [-1, 1] -> logits [B, classes]."""
        return self.head(self.embedding(x))
