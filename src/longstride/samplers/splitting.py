"""Splittings of Newton's and Langevin's equations, multiplied out to the weights of a step.

    dx = v dt,    dv = (F(x) - gamma v) dt + sqrt(2 gamma) dW,    F = grad log pi

keeps the density pi(x) e^(-|v|^2/2). A word solves parts of it exactly, in turn, each for a share c of h:

    A   x <- x + c h v
    B   v <- v + c h F(x), F asked anew if x has moved
    O   v <- e v + sqrt(1 - e^2) z,   e = e^(-gamma c h)
    U   A and O together: all but F
    ?   F is asked here
    P   U, and then F is asked where the newest F would have carried x on the way

So a step is linear in x, v, the evaluations and the noises: rows that `core.advance` applies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core import Stage, Step, Weight
from ..methods.symplectic import DRIFT, KICK, SYMPLECTIC

Share = float | np.ndarray  # one for all samples, or one of each, [B]
Word = tuple[tuple[str, Share], ...]
Row = dict[tuple[str, int], Share]  # weights of states, evaluations and noises: ("x", 0) is x, ("x", 1) is v

LETTERS = {DRIFT: "A", KICK: "B"}
NEWTON: dict[str, Word] = {
    name: tuple((LETTERS[part], share) for part, share in SYMPLECTIC[name].word)
    for name in ("leapfrog", "yoshida_4", "three_stage")
}
LANGEVIN: dict[str, Word] = {
    "baoab": (("B", 0.5), ("A", 0.5), ("O", 1.0), ("A", 0.5), ("B", 0.5)),
    "ubu": (("U", 0.5), ("B", 1.0), ("U", 0.5)),
}
RANDOM = "randomized_midpoint"


def midpoint(share: Share) -> Word:
    """The randomized midpoint method with F asked at this share of the step (Shen and Lee 2019, algorithm 1).

    Its step is U B U, split at the share, with F from where x is predicted to be.
    """
    return (("?", 0.0), ("P", share), ("B", 1.0), ("U", 1 - share))


def ornstein_uhlenbeck(t: Share, gamma: float) -> tuple[Share, Share, tuple[Share, Share, Share]]:
    """U over t: x <- x + move v + to_x z1 + own z2, v <- e v + to_v z1; gives e, move, (to_v, to_x, own).

    With s = gamma t: Var v = 1 - e^2, Cov = (1 - e)^2/gamma, Var x = (2 s - 3 + 4 e - e^2)/gamma^2, which is
    2 s^3/3 to first order, and summed as a series where s is small.
    """
    s = gamma * np.asarray(t, dtype=float)
    e, rise = np.exp(-s), -np.expm1(-s)
    series, term = 0 * s, -s * s * s / 6
    for k in range(3, 20):
        series, term = series + (4 - 2.0**k) * term, -term * s / (k + 1)
    spread = np.where(s < 0.5, series, 2 * s - 2 * rise - rise * rise)
    to_v = np.sqrt(-np.expm1(-2 * s))
    to_x = rise * rise / np.where(to_v > 0, to_v, 1.0)
    own = np.sqrt(np.maximum(spread - to_x * to_x, 0.0))
    return e, rise / gamma, (to_v, to_x / gamma, own / gamma)


def noises(word: Word) -> int:
    """Unit normals that a step takes."""
    return sum({"O": 1, "U": 2, "P": 2}.get(part, 0) for part, _ in word)


def write(word: Word, h: float, gamma: float = 0.0, like: Tensor | None = None) -> Step:
    """The rows of a step from states (x, v), and F(x) if the word begins with B, to the same.

    like: a state, to which shares of each sample go as weights.
    """
    x, v, stages = Row({("x", 0): 1.0}), Row({("x", 1): 1.0}), list[Stage]()
    begins = word[0][0] == "B"
    asked, drawn, newest = int(begins), 0, 0 if begins else None

    def ask(at: Row) -> int:
        nonlocal asked
        stages.append(_stage(at, like, 0.0))
        asked += 1
        return asked - 1

    for part, c in word:
        t = c * h
        if part == "?":
            newest = ask(x)
        elif part == "B":
            newest = ask(x) if newest is None else newest
            v = _plus(v, t, {("f", newest): 1.0})
        elif part == "A":
            x, newest = _plus(x, t, v), None
        elif part == "O":
            e, _, (to_v, _, _) = ornstein_uhlenbeck(t, gamma)
            v, drawn = _plus(_times(e, v), to_v, {("z", drawn): 1.0}), drawn + 1
        else:
            e, move, (to_v, to_x, own) = ornstein_uhlenbeck(t, gamma)
            z, other, drawn = Row({("z", drawn): 1.0}), Row({("z", drawn + 1): 1.0}), drawn + 2
            x = _plus(_plus(_plus(x, move, v), to_x, z), own, other)
            v = _plus(_times(e, v), to_v, z)
            newest = ask(_plus(x, (t - move) / gamma, {("f", asked - 1): 1.0})) if part == "P" else None
    ends = begins and newest is not None  # the last evaluation is where the next step begins
    stages += [_stage(x, like), _stage(v, like)]
    return Step(tuple(stages), keep_x=(-2, -1), keep_f=(-1,) if ends else ())


def _times(weight: Share, row: Row) -> Row:
    return {key: weight * w for key, w in row.items()}


def _plus(row: Row, weight: Share, other: Row) -> Row:
    return {key: row.get(key, 0.0) + weight * other.get(key, 0.0) for key in (row | other)}


def _stage(row: Row, like: Tensor | None, at: float | None = None) -> Stage:
    """The row beside states that are x, v, and whatever stages came before, which it does not use."""

    def weights(kind: str) -> tuple[Weight, ...]:
        size = 1 + max((i for k, i in row if k == kind), default=-1)
        return tuple(_weight(row.get((kind, i), 0.0), like) for i in range(size))

    return Stage(weights("x"), weights("f"), weights("z"), at)


def _weight(w: Share, like: Tensor | None) -> Weight:
    if np.ndim(w) == 0:
        return float(w)
    weight = torch.as_tensor(w)
    return weight if like is None else weight.to(like).view(-1, *(1,) * (like.ndim - 1))
