"""Symplectic splittings of x'' = a(t, x): drift and kick in turn.

    drift   x <- x + c h v          kick    v <- v + c h a(t, x)

Either is the exact flow of one half of the Hamiltonian v^2/2 + V(x), so any word of them is symplectic: the
numerical orbit is, up to terms that are exponentially small in 1/h, an exact one of a Hamiltonian nearby, and
the energy of a regular orbit does not drift. All words here read the same from both ends, so that a step with
-h undoes a step. Time moves with the drifts.

A table is the shares c of a step, which alternate. Whole steps of leapfrog S(w h) in a row with weights w are
such a table too, neighbouring halves being one: a composition (Yoshida 1990; Suzuki 1990). It is symmetric,
of order 2, and of order 4, 6, .. where sum w^3 and more complicated sums vanish (Hairer, Lubich and Wanner
2006, V.3). Others take the shares of drifts and kicks as unknowns, and "Nystrom" ones use that a kick's
triple commutator vanishes where the energy is quadratic in v (Blanes and Moan 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..core import Stage, Step
from ..errors import ArgumentError

DRIFT, KICK = "drift", "kick"


@dataclass(frozen=True)
class Splitting:
    """first: what the word begins and ends with.  shares: of it and the other in turn, which add up to 1.

    Raises:
        ArgumentError: shares that do not add up, or do not read the same backward.
    """

    order: int
    first: str
    shares: tuple[float, ...]
    reference: str

    def __post_init__(self) -> None:
        sums = [abs(sum(self.shares[i::2]) - 1) for i in (0, 1)]
        mirrored = [abs(a - b) for a, b in zip(self.shares, self.shares[::-1], strict=True)]
        if max(sums) > 1e-13 or max(mirrored) > 1e-13:
            raise ArgumentError(f"drifts and kicks must each add up to 1 and be symmetric: {self.shares}")

    @property
    def word(self) -> tuple[tuple[str, float], ...]:
        """(drift or kick, its share) in their order."""
        other = KICK if self.first == DRIFT else DRIFT
        return tuple((other if i % 2 else self.first, c) for i, c in enumerate(self.shares))

    @cached_property
    def nfe(self) -> int:
        """Evaluations of a in a step; that of the last kick is the next step's first."""
        kicks = sum(part == KICK for part, _ in self.word)
        return kicks - self.keeps

    @property
    def keeps(self) -> bool:
        """Whether the last evaluation of a step is the first of the next."""
        return self.first == KICK

    def write(self, s: float, t: float, kept: bool = False, carried: bool = False) -> Step:
        """The rows of a step from (x, v) at s to (x, v) at t.

        kept: a at (s, x) is known from the step before.  carried: the two states are what x and v lack to
        those that the step began with, and the third is that v, with which x drifts as well.
        """
        h, stages, clock = t - s, list[Stage](), 0.0
        x, v, known = 0, 1, 2 + carried
        asked: int | None = 0 if kept else None  # the newest evaluation, if it is at x

        def row(weights: dict[int, float]) -> tuple[float, ...]:
            return tuple(weights.get(i, 0.0) for i in range(max(weights) + 1))

        def evaluations() -> int:
            return kept + sum(stage.at is not None for stage in stages)

        for i, (part, share) in enumerate(self.word):
            if part == DRIFT:
                clock += share
                last = i == len(self.word) - 1
                at = None if last else t if abs(clock - 1) < 1e-13 else s + clock * h
                moving = {x: 1.0, v: share * h} | ({2: share * h} if carried else {})
                asked = evaluations()
                stages.append(Stage(row(moving), at=at))
                x = known + len(stages) - 1
            else:
                if asked is None:
                    asked = 0
                    stages.append(Stage(row({x: 1.0}), at=s))
                    x = known
                stages.append(Stage(row({v: 1.0}), row({asked: share * h})))
                v = known + len(stages) - 1
        return Step(tuple(stages), keep_x=(x, v), keep_f=(-1,) if self.keeps else ())


def composed(first: str, weights: Sequence[float]) -> tuple[float, ...]:
    """Shares of leapfrog steps with these weights, of which the later half mirrors the earlier.

    weights: up to the middle one, which is what is left of 1.
    """
    before = list(weights)
    steps = [*before, 1 - 2 * sum(before), *before[::-1]]
    shares = [steps[0] / 2]
    for w, after in zip(steps, [*steps[1:], 0.0], strict=True):
        shares += [w, (w + after) / 2]
    return tuple(shares)


def symmetric(*shares: float) -> tuple[float, ...]:
    """A word that begins so; then a share that makes a half of its kind, the middle one, the mirror."""
    half = list(shares)
    half.append(0.5 - sum(half[-2::-2]))
    half.append(1 - 2 * sum(half[-2::-2]))
    return tuple(half + half[-2::-1])


_CUBE = 2 ** (1 / 3)
_JUMP = (1 / (2 - _CUBE),)
_YOSHIDA_6 = (0.78451361047755726381949763, 0.23557321335935813368479318, -1.17767998417887100694641568)
_YOSHIDA_8 = (
    0.914844246229740, 0.253693336566229, -1.44485223686048, -0.158240635368243, 1.93813913762276,
    -1.96061023297549, 0.102799849391985,
)  # fmt: skip
_SUZUKI = (1 / (4 - 4 ** (1 / 3)),) * 2
_KAHAN_LI_6 = (
    0.39216144400731413927925056, 0.33259913678935943859974864, -0.70624617255763935980996482,
    0.08221359629355080023149045,
)  # fmt: skip
_SUZUKI_UMENO_8 = (
    0.74167036435061295344822780, -0.40910082580003159399730010, 0.19075471029623837995387626,
    -0.57386247111608226665638773, 0.29906418130365592384446354, 0.33462491824529818378495798,
    0.31529309239676659663205666,
)  # fmt: skip
_KAHAN_LI_8 = (
    0.13020248308889008087881763, 0.56116298177510838456196441, -0.38947496264484728640807860,
    0.15884190655515560089621075, -0.39590389413323757733623154, 0.18453964097831570709183254,
    0.25837438768632204729397911, 0.29501172360931029887096624,
)  # fmt: skip

YOSHIDA, KAHAN_LI, BLANES_MOAN = "Yoshida 1990", "Kahan and Li 1997", "Blanes and Moan 2002"
SYMPLECTIC: dict[str, Splitting] = {
    "leapfrog": Splitting(2, KICK, symmetric(), "Verlet 1967; Hairer, Lubich and Wanner 2003"),
    "leapfrog_dkd": Splitting(2, DRIFT, symmetric(), "as leapfrog, the drift split"),
    "mclachlan_2": Splitting(2, KICK, symmetric(0.1931833275037836), "McLachlan 1995"),
    "three_stage": Splitting(
        2, KICK, symmetric(0.11888010966548, 0.29619504261126), "Blanes, Casas and Sanz-Serna 2014"
    ),
    "yoshida_4": Splitting(4, KICK, composed(KICK, _JUMP), YOSHIDA),
    "forest_ruth": Splitting(4, DRIFT, composed(DRIFT, _JUMP), "Forest and Ruth 1990, the same jump"),
    "suzuki_4": Splitting(4, KICK, composed(KICK, _SUZUKI), "Suzuki 1990"),
    "mclachlan_4": Splitting(4, KICK, composed(KICK, (0.28, 0.62546642846767004501)), "McLachlan 1995"),
    "pefrl": Splitting(
        4,
        DRIFT,
        symmetric(0.1786178958448091, 0.5 + 0.2123418310626054, -0.06626458266981849),
        "Omelyan, Mryglod and Folk 2002",
    ),
    "blanes_moan_4": Splitting(
        4,
        DRIFT,
        symmetric(
            0.0792036964311957, 0.209515106613362, 0.353172906049774, -0.143851773179818,
            -0.0420650803577195,
        ),
        BLANES_MOAN + ", S6",
    ),
    "blanes_moan_rkn_4": Splitting(
        4,
        KICK,
        symmetric(
            0.0829844064174052, 0.245298957184271, 0.396309801498368, 0.604872665711080,
            -0.0390563049223486,
        ),
        BLANES_MOAN + ", SRKN6b",
    ),
    "yoshida_6": Splitting(6, KICK, composed(KICK, _YOSHIDA_6), YOSHIDA + ", solution A"),
    "kahan_li_6": Splitting(6, KICK, composed(KICK, _KAHAN_LI_6), KAHAN_LI),
    "blanes_moan_6": Splitting(
        6,
        DRIFT,
        symmetric(
            0.0502627644003922, 0.148816447901042, 0.413514300428344, -0.132385865767784,
            0.0450798897943977, 0.067307604692185, -0.188054853819569, 0.432666402578175,
            0.541960678450780,
        ),
        BLANES_MOAN + ", S10",
    ),
    "blanes_moan_rkn_6": Splitting(
        6,
        KICK,
        symmetric(
            0.0414649985182624, 0.123229775946271, 0.198128671918067, 0.290553797799558,
            -0.0400061921041533, -0.127049212625417, 0.0752539843015807, -0.246331761062075,
            -0.0115113874206879, 0.357208872795928,
        ),
        BLANES_MOAN + ", SRKN11b",
    ),
    "blanes_moan_rkn_6a": Splitting(
        6,
        DRIFT,
        symmetric(
            0.0378593198406116, 0.09171915262446165, 0.102635633102435, 0.183983170005006,
            -0.0258678882665587, -0.05653436583288827, 0.314241403071447, 0.004914688774712854,
            -0.130144459517415, 0.143761127168358, 0.106417700369543, 0.328567693746804,
            -0.00879424312851058,
        ),
        BLANES_MOAN + ", SRKN14a",
    ),
    "yoshida_8": Splitting(8, KICK, composed(KICK, _YOSHIDA_8), YOSHIDA + ", solution D"),
    "suzuki_umeno_8": Splitting(8, KICK, composed(KICK, _SUZUKI_UMENO_8), "Suzuki and Umeno 1993"),
    "kahan_li_8": Splitting(8, KICK, composed(KICK, _KAHAN_LI_8), KAHAN_LI),
}  # fmt: skip
WISDOM_HOLMAN = "wisdom_holman"  # of planets: its drifts are Kepler orbits, which no weights are
