"""Which noises to look at: those that matter more often, each counted for less."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(
    sizes: Tensor, n: int, generator: torch.Generator, mass: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """At most n of N noises, none of them twice, and for how many of them all each one stands.

    Of n draws half are even and half in proportion to sizes [N], a guess at how large a solver's error is
    there. Any mean over them with these counts is unbiased, whatever the guess; the better it is, the fewer
    noises tell what a mean is that one in a thousand dominates, as errors of few steps are: where the
    solutions part, a coarse solver ends in another mode. Where a plan ends, and where four times as many
    evaluations do, is a guess that costs little beside solutions. `polish` takes the counts as weights.

    mass: [N], for how many each of the N stands already; the same unless given.

    Reference: Horvitz and Thompson 1952; Needell, Srebro and Ward 2014 for the half that is even.
    """
    mass = torch.ones_like(sizes) if mass is None else mass.to(sizes)
    if n >= len(sizes):
        return torch.arange(len(sizes)), mass
    even, large = mass / mass.sum(), mass * sizes
    chance = 0.5 * even + 0.5 * (large / large.sum() if large.any() else even)
    rows = torch.multinomial(chance, n, replacement=True, generator=generator)
    rows, copies = rows.unique(return_counts=True)
    return rows, mass[rows] * copies / (n * chance[rows])
