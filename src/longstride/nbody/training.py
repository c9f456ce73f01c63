"""A policy's numbers, learned: a search by CMA-ES over rollouts of many systems."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, positive, unknown, whole
from ..files import whole_file
from .gravity import Gravity
from .rollouts import SCHEMES, Rollout, rollout
from .rules import Policy, learned

QUANTILES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95)  # of the error: what is made small is the mean of their log10
LOOKS = 3.0  # how much longer the steps are of the run that finds the pace


@dataclass(frozen=True)
class Training:
    """What a search is told.  evaluations: of a system in the mean, at which policies are compared.

    Each generation tries `people` policies on the next `batch` starts, all on the same ones. The search
    begins from `begin`, numbers of a `Policy`, with standard deviations `sigma`.
    """

    evaluations: float = 5000.0
    scheme: str = "hermite"
    generations: int = 30
    people: int = 10
    batch: int = 64
    seed: int = 1
    sigma: float = 0.2
    pace: float = 0.016
    begin: tuple[float, ...] = (0.0,) * 4 + (0.5,) + (0.0,) * 4


Told = Callable[[int, float, list[float]], Any]
Roll = Callable[..., Rollout]  # as `rollout` is called


def train(
    gravity: Gravity,
    starts: Tensor,
    end: float,
    training: Training = Training(),
    path: str | Path | None = None,
    tell: Told | None = None,
    roll: Roll | None = None,
) -> Policy:
    """The policy that CMA-ES finds (Hansen 2016) for systems like starts [S, 2, N, d], over times 0 to end.

    A policy's score is the mean log10 of quantiles of |E/E_0 - 1|, at the pace at which it costs so many
    evaluations as training says: the pace comes from a run with steps three times as long, since their number
    is in proportion, and what is left of a difference is corrected by the order of the method. Its
    numbers are the mean of the search, averaged over its last third, since each generation sees other starts.

    A search is a function of its seed and the scores. So those of each generation are all that is written to
    `path`, as JSON; a search that was interrupted is made again from them and goes on.

    Args:
        tell: called after each generation with its number, the score of the search's mean, and that mean.
        roll: what makes the rollouts; `rollout`, compiled.

    Raises:
        ArgumentError: no library cma (the extra `tune`), numbers that are not a policy's, a scheme that is
            not known, no starts, or a path that is no training's or another one's.
    """
    try:
        import cma
    except ImportError as error:
        raise ArgumentError("train needs the library cma: pip install longstride[tune]") from error
    if len(training.begin) != 9:
        raise ArgumentError("a policy has 9 numbers to begin with")
    for name in ("generations", "people", "batch"):
        whole(name, getattr(training, name), 1)
    for name in ("evaluations", "sigma", "pace"):
        positive(name, getattr(training, name))
    if training.scheme not in SCHEMES:
        raise unknown("scheme", training.scheme, list(SCHEMES))
    gravity.check(starts)
    if not len(starts):
        raise ArgumentError("no starts: give [S, 2, N, d]")
    roll, scores = roll or partial(rollout, compile=True), _known(path, training)
    options = {"popsize": training.people, "seed": training.seed, "verbose": -9}
    search = cma.CMAEvolutionStrategy(np.array(training.begin), training.sigma, options)
    pace, means = training.pace, list[np.ndarray]()
    for generation in range(training.generations):
        asked = search.ask()
        if generation == len(scores):
            who = torch.arange(generation * training.batch, (generation + 1) * training.batch) % len(starts)
            nets = torch.from_numpy(np.stack([*asked, search.mean])).T
            scores.append(_scored(gravity, starts[who], end, nets, pace, training, roll))
            _write(path, training, scores)
        *found, of_mean, pace = scores[generation]
        search.tell(asked, found)
        means.append(search.mean.copy())
        if tell is not None:
            tell(generation, of_mean, search.mean.tolist())
    numbers = np.mean(means[-max(1, len(means) // 3) :], axis=0)
    about = (
        f"nbody.train: {training.scheme}, {training.generations} generations of {training.people} by CMA-ES, "
        f"at {training.evaluations:.0f} evaluations, seed {training.seed}"
    )
    return Policy(torch.from_numpy(numbers), float(f"{pace:.3g}"), about)


def trials(
    gravity: Gravity,
    x0: Tensor,
    end: float,
    columns: Tensor,
    scheme: str,
    max_steps: int,
    roll: Roll,
) -> tuple[Tensor, Tensor]:
    """|E/E_0 - 1|, 10 if lost, and steps [C, B] of policies with their paces, columns [10, C]."""
    many, x = columns.repeat_interleave(len(x0), 1), x0.repeat(columns.shape[1], 1, 1, 1)
    found = roll(gravity, x, end, learned, many, max_steps=max_steps, scheme=scheme)
    shape = columns.shape[1], len(x0)
    return found.error.view(shape).nan_to_num(10.0).clamp(1e-15, 10.0), found.steps.view(shape).double()


def score(error: Tensor) -> Tensor:
    """[C] of [C, B]: the mean log10 of QUANTILES."""
    return error.quantile(error.new_tensor(QUANTILES), dim=1).log10().mean(0)


def _scored(
    gravity: Gravity, x0: Tensor, end: float, nets: Tensor, pace: float, of: Training, roll: Roll
) -> list[float]:
    """Of nets [9, C] on these starts: their scores, and the pace of the last."""
    method = SCHEMES[of.scheme]
    if method.symmetric:
        nets = torch.cat([nets[:4], torch.zeros_like(nets[4:])])  # as `Policy.even`
    steps = of.evaluations / method.cost

    def runs(paces: Tensor, most: float) -> tuple[Tensor, Tensor]:
        return trials(gravity, x0, end, torch.cat([paces[None], nets]), of.scheme, round(most), roll)

    long = nets.new_full(nets.shape[1:], LOOKS * pace)
    paces = long * runs(long, 4 * steps)[1].mean(1) / steps
    error, taken = runs(paces, 8 * steps)
    missed = (method.order + 0.5) * (taken.mean(1) / steps).log10()
    return [*(score(error) + missed).tolist(), float(paces[-1])]


def _known(path: str | Path | None, training: Training) -> list[list[float]]:
    """The scores that are written down."""
    if path is None or not Path(path).exists():
        return []
    try:
        told = json.loads(Path(path).read_text())
        known, asked = (dict(each, generations=0) for each in (told["training"], asdict(training)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path} is not of a training: take another path, or remove it") from error
    if known != json.loads(json.dumps(asked)):  # more generations are what may be asked of the same search
        raise ArgumentError(f"{path} is of another training: take another path, or remove it")
    scores: list[list[float]] = told["scores"]
    return scores


def _write(path: str | Path | None, training: Training, scores: list[list[float]]) -> None:
    if path is not None:
        with whole_file(Path(path)) as part:
            part.write_text(json.dumps({"training": asdict(training), "scores": scores}) + "\n")
