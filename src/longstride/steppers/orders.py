"""Which order a multistep method takes next and how its step changes, each sample for itself, on the host."""

from __future__ import annotations

import numpy as np

from ..methods.multistep import Constants

KEEP = 0.9, 1.2  # ratios between which a step stays as it is
MARGIN = 2.0  # of the error, when a new step is chosen: as Shampine and Gordon, and DASSL
PATIENCE = 3  # steps refused one after another, after which the past is not believed
TURNS = np.arange(-1, 2)


class Orders:
    """k [G]: order.  young: whether order and step still rise with every step.  since: steps of one kind.

    constants: of the error of each order, see `methods.multistep`; order k is judged by difference k + lag.
    growth: of a step, at most.

    A sample begins at order 1, young, and remains so until the error no longer falls with the order. Then
    both stay for k steps at least, and turn to the longest step that order k - 1, k or k + 1 allows. A
    refused step takes the lower order where that has the smaller error.
    """

    def __init__(self, groups: int, constants: Constants, lag: int, growth: float) -> None:
        self.constants, self.lag, self.growth = np.abs(constants), lag, growth
        self.since, self.failed = np.zeros(groups, dtype=int), np.zeros(groups, dtype=int)
        self.k, self.young = self.since + 1, np.ones(groups, dtype=bool)

    @property
    def highest(self) -> int:
        return len(self.constants)

    @property
    def width(self) -> int:
        """Differences that the orders in use and the next ones ask for."""
        return int(min(self.k.max() + 2, self.highest + 1)) + self.lag

    def forget(self, who: np.ndarray) -> None:
        self.k, self.failed = np.where(who, 1, self.k), np.where(who, 0, self.failed)
        self.young = self.young | who

    def errors(self, sizes: np.ndarray, h: np.ndarray, back: np.ndarray, points: np.ndarray) -> np.ndarray:
        """As orders k - 1, k, k + 1 would have had them in equal steps: [G, 3].

        sizes [G, W]: of the differences after a step of h.  back, points: as in `past.Past`, after it.
        """
        width = sizes.shape[1]
        # From modified to backward differences.
        equal = (np.arange(1, width) * h[:, None] / back[:, 1:width]).cumprod(1)
        sizes = sizes[:, 1:] * equal * h[:, None] ** (1 - self.lag)
        q = self.k[:, None] + TURNS
        known = (q >= 1) & (q <= self.highest) & (q + self.lag < points[:, None])
        found = np.take_along_axis(sizes, (q + self.lag - 1).clip(0, width - 2), 1)
        found = np.where(known, found * self.constants[(q - 1).clip(0, self.highest - 1)], np.inf)
        return np.where(np.isnan(found), np.inf, found)

    def turn(
        self, errors: np.ndarray, ok: np.ndarray, h: np.ndarray, wanted: np.ndarray, fresh: np.ndarray
    ) -> np.ndarray:
        """The next step over one of h, where it was kept; `wanted` by the controller, at the same order.

        fresh: whose first step it was.
        """
        k, refused = self.k, ~ok & (h > 0)
        falls = (errors[:, 0] > errors[:, 1]) | (k == 1)
        young, settled = self.young & ok & falls & (k < self.highest), self.since >= k
        gains = errors.clip(1e-12) ** (-1 / (k[:, None] + 1 + TURNS))  # the steps that orders allow
        turn = np.where(settled, gains.argmax(1) - 1, 0)
        turn = np.where(ok, np.where(young, 1, turn), np.where(refused & ~falls, -1, 0))
        gain = np.take_along_axis(gains, turn[:, None] + 1, 1)[:, 0] / gains[:, 1]
        ratio = wanted / h * gain * MARGIN ** (-1 / (k + turn + 1))
        longer = np.where(settled & (ratio > KEEP[1]), ratio.clip(None, self.growth), 1.0)
        ratio = np.where(young, 2.0, np.where(ratio < KEEP[0], ratio, longer))
        self.since = np.where(ok & (turn == 0) & (ratio == 1), self.since + 1, 0)
        self.k, self.young = k + turn, young | (self.young & ~ok & fresh)
        self.failed = np.where(refused, self.failed + 1, 0)
        return ratio

    @property
    def lost(self) -> np.ndarray:
        """Whose past leads nowhere."""
        return self.failed >= PATIENCE
