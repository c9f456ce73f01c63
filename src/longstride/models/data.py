"""The images the embedded models learn from: scikit-learn's digits and Debian's Fashion-MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FASHION_DIR = Path("/usr/share/datasets/fashion-mnist")


class Images(NamedTuple):
    """x [N, 1, H, W] in [-1, 1] and labels y [N]."""

    x: Tensor
    y: Tensor


def load_images(name: str, split: str, folder: Path | None = None) -> Images:
    """Images of a data set: "digits" or "fashion"; split "train" or "test".

    `digits` has 1,797 images and no split of its own: a fixed permutation keeps 497 for the test.

    Raises:
        FileNotFoundError: the data set is not on this machine; the message says how to get it.
    """
    return {"digits": _digits, "fashion": _fashion}[name](split, folder)


def _digits(split: str, folder: Path | None) -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise FileNotFoundError("the digits come with scikit-learn: pip install scikit-learn") from error
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    keep = order[:1300] if split == "train" else order[1300:]
    x = torch.tensor(data.images[keep] / 8 - 1, dtype=torch.float32)[:, None]
    return Images(x, torch.tensor(data.target[keep], dtype=torch.long))


def _fashion(split: str, folder: Path | None) -> Images:
    folder = folder or FASHION_DIR
    stem = {"train": "train", "test": "t10k"}[split]

    def read(kind: str, header: int) -> np.ndarray:
        path = folder / f"{stem}-{kind}-ubyte.gz"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: apt-get install dataset-fashion-mnist, or name the folder that "
                "holds Fashion-MNIST's four .gz files with --data"
            )
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)

    x = torch.tensor(read("images-idx3", 16).reshape(-1, 1, 28, 28) / 127.5 - 1)
    return Images(x.float(), torch.tensor(read("labels-idx1", 8), dtype=torch.long))
