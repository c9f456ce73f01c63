"""The embedded models: `digits` and `fashion`, trained, and exact ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import ArgumentError, SolveError, unknown
from ..metrics import Statistics
from ..process import EDM
from .classifier import Classifier
from .exact import ideal, mixture
from .store import fill, read_tensors, seeded, write_tensors
from .unet import UNet

__all__ = ["MODELS", "Judge", "ideal", "judge", "load", "mixture", "save", "save_judge"]

WEIGHTS = Path(__file__).parent / "weights"
MODELS = ("digits", "fashion")
EXACT = ("mixture",)


@dataclass(frozen=True)
class Judge:
    """What samples of an embedded model are measured with.

    classifier: trained apart from the denoiser.  accuracy: on test images.  test: feature statistics of
    the test images.  floor: Frechet distance of as many training images to them.
    """

    classifier: Classifier
    test: Statistics
    accuracy: float
    floor: float


def _file(name: str | Path, suffix: str) -> Path:
    """The file of an embedded model, or of one trained into a folder: FOLDER/NAME."""
    if str(name) in MODELS:
        return WEIGHTS / f"{name}{suffix}.safetensors"
    path = Path(name)
    if path.suffix == ".safetensors":
        return path.with_name(f"{path.stem}{suffix}.safetensors")
    raise unknown("model", str(name), (*MODELS, *EXACT))


def load(name: str | Path) -> Denoiser:
    """An embedded model, the .safetensors file that `longstride train` wrote, or a folder saved by diffusers.

    "digits" and "fashion" are trained networks; "mixture" is an exact model, in 64 dimensions.
    cond={"y": labels [n]} chooses classes; without it the sample is of any class. Data are in [-1, 1].
    A folder is a pipeline's, or a model's with its scheduler's configuration, see `compat.folder`.

    Raises:
        ArgumentError: unknown name (with the nearest ones), or a file that is not such a model.
    """
    if str(name) in EXACT:
        return mixture()
    if str(name) not in MODELS and Path(name).is_dir():
        try:
            from ..compat.folder import load_folder  # diffusers, an extra
        except ImportError as error:
            raise ArgumentError(f"{name} needs pip install longstride[diffusers]: {error}") from error
        return load_folder(Path(name))
    path = _file(name, "")
    tensors, header = read_tensors(path, "denoiser")
    with _described(path):
        net = fill(seeded(UNet, *header["unet"]), tensors, path)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on CPUs
        return Denoiser(
            net,
            EDM(sigma_data=header["sigma_data"]),
            predicts="raw",
            shape=tuple(header["shape"]),
            null={"y": header["classes"]},
            data_range=(-1.0, 1.0),
            name=header["name"],
        )


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """What a header lacks, or says that no network can be built of, is an error of the file."""
    try:
        yield
    except SolveError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"the header of {path} describes no network ({type(error).__name__}: {error}); make the file "
            "again with `longstride train`"
        ) from error


def judge(name: str | Path) -> Judge:
    """The classifier and the test statistics that belong to a model that `load` knows."""
    path = _file(name, "-judge")
    tensors, header = read_tensors(path, "judge")
    with _described(path):
        test = Statistics(tensors.pop("test.mean"), tensors.pop("test.cov"), header["n"])
        net = fill(seeded(Classifier, *header["classifier"]), tensors, path)
        assert isinstance(net, Classifier)
        return Judge(net, test, header["accuracy"], header["floor"])


def save(path: Path, net: UNet, size: tuple[int, ...], shape: tuple[int, ...], name: str,
         sigma_data: float, figures: dict[str, Any]) -> None:  # fmt: skip
    """Write a denoiser: `size` are the arguments of UNet, `shape` is that of an image."""
    header = {"name": name, "unet": list(size), "shape": list(shape), "classes": net.classes,
              "sigma_data": sigma_data, "figures": figures}  # fmt: skip
    write_tensors(path, "denoiser", net.state_dict(), header)


def save_judge(path: Path, classifier: Classifier, size: tuple[int, ...], test: Statistics,
               accuracy: float, floor: float) -> None:  # fmt: skip
    """Write a classifier with the statistics of the test images in its features."""
    tensors: dict[str, Tensor] = {
        **classifier.state_dict(),
        "test.mean": test.mean,
        "test.cov": test.cov,
    }
    header = {"classifier": list(size), "n": test.n, "accuracy": accuracy, "floor": floor}
    write_tensors(path, "judge", tensors, header)
