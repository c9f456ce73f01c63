"""From a recipe to the files of an embedded model: train, judge, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, unknown
from ..files import output_folder
from ..metrics import class_agreement, frechet_distance, statistics
from . import save, save_judge
from .data import load_images
from .train import AUGMENT, RECIPES, train_classifier, train_denoiser


def reproduce(
    name: str,
    out: Path,
    data: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train the model `name` into out/NAME.safetensors and out/NAME-judge.safetensors.

    out/NAME.ckpt keeps the state of the denoiser's training, which goes on from it if it exists.

    Args:
        data: folder of the data set.
        progress: (images seen, of), the denoiser's and then the classifier's.

    Returns:
        The figures of the run: steps, seconds, loss, the judge's accuracy, the floor of the Frechet
        distance.

    Raises:
        ArgumentError: unknown name, data that are not there, `out` that cannot be written.
    """
    if name not in RECIPES:
        raise unknown("model", name, RECIPES)
    recipe = RECIPES[name]
    try:
        train, test = (load_images(name, split, data) for split in ("train", "test"))
    except FileNotFoundError as error:
        raise ArgumentError(str(error)) from error
    with output_folder(out) as part:
        out.mkdir(parents=True, exist_ok=True)
        net, figures = train_denoiser(
            train, recipe, out / f"{name}.ckpt", lambda done, total, loss: progress(done, total)
        )
        judge = train_classifier(train, recipe, lambda done, total, loss: progress(done, total))
        test_features = statistics(judge, test.x)
        train_features = statistics(judge, train.x[: len(test.x)])
        floor = frechet_distance(
            train_features.mean, train_features.cov, test_features.mean, test_features.cov
        )
        accuracy = class_agreement(judge, test.x, test.y)
        channels, _, side = shape = tuple(test.x.shape[1:])
        figures |= {"accuracy": round(accuracy, 4), "floor": round(floor, 4)}
        size = (channels, recipe.patch, recipe.width, recipe.depth, net.classes, AUGMENT)
        record = {**figures, "recipe": asdict(recipe)}
        save(part / f"{name}.safetensors", net, size, shape, name, figures["sigma_data"], record)
        save_judge(
            part / f"{name}-judge.safetensors", judge, (channels, side, net.classes), test_features,
            accuracy, floor,
        )  # fmt: skip
    return figures
