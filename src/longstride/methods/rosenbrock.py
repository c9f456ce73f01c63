"""Rosenbrock methods: a stage is one linear system, with df/dx at the start of the step.

In the variables u_i of Hairer and Wanner 1996 (IV.7), that need no product with J, J and f_t at (t, x):

    (I - h gamma J) u_i = gamma (h f(t + c_i h, x + sum_j a_ij u_j) + sum_j C_ij u_j + d_i h^2 f_t),
    x1 = x + sum_i b_i u_i,     the estimated error is sum_i e_i u_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ArgumentError
from .embedded import Rows, padded

GAMMA_ROS3P = 0.5 + math.sqrt(3) / 6


@dataclass(frozen=True)
class Rosenbrock:
    """a, C: rows of the stages before; d: of f_t; error: e; shrinks: the power of h that the estimate has.

    error may be empty: the estimate is then the defect of the trapezoidal rule from x to x1, solved with
    I - h gamma J. All embedded methods of order 2 of ROS3P, its own too, agree with it where f is linear.
    dense: a row of each stage, coefficients of theta, theta^2, ...; none: Hermite's cubic, of f at both ends.
    """

    order: int
    gamma: float
    a: Rows
    C: Rows
    c: tuple[float, ...]
    d: tuple[float, ...]
    b: tuple[float, ...]
    error: tuple[float, ...]
    shrinks: int
    dense: Rows = ()
    dense_order: int = 3
    reference: str = ""

    def __post_init__(self) -> None:
        sizes = {len(row) for row in (self.a, self.C, self.c, self.d, self.b, self.error or self.b)}
        rows = [*enumerate(self.a), *enumerate(self.C)]
        if sizes != {len(self.b)} or any(len(row) != i for i, row in rows):
            raise ArgumentError(
                f"a table of {len(self.b)} stages has as many rows, each of what comes before"
            )
        for b, row in zip(self.b, self.dense, strict=bool(self.dense)):
            if abs(sum(row) - b) > 1e-11 * max(1.0, *map(abs, row)):
                raise ArgumentError(f"the interpolant does not end where the step does: {row}")

    def asks(self, i: int) -> bool:
        """Whether stage i needs an evaluation that no stage before it made: the first has f at the start."""
        return i > 0 and (self.c[i] != self.c[i - 1] or self.a[i] != padded(self.a[i - 1], i))


def _bubbles(b: tuple[float, ...], *tops: tuple[float, ...]) -> Rows:
    """theta b + theta (1 - theta) (h_1 + theta h_2 + ...), as it is published, in powers of theta."""
    rows = []
    for w, hs in zip(b, zip(*tops, strict=True), strict=True):
        row = [w, *[0.0] * len(hs)]
        for power, h in enumerate(hs):
            row[power] += h
            row[power + 1] -= h
        rows.append(tuple(row))
    return tuple(rows)


_A4 = (
    (),
    (1.544,),
    (0.9466785280815826, 0.2557011698983284),
    (3.314825187068521, 2.896124015972201, 0.9986419139977817),
    (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.687886036105895),
)
_A5P = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946),
)
_B4, _B5P = (*_A4[-1], 1.0, 1.0), (*_A5P[-1], 1.0, 1.0, 1.0)  # stiffly accurate: x1 is one stage's point more
_G = 1 / GAMMA_ROS3P
_T, _S = -_G * (2 - _G / 2), _G * (2 / 3 - _G / 6)
_B3P = (_G * (1 + _S), _S, _G / 3)

ROSENBROCK = {
    "ros3p": Rosenbrock(
        3,
        GAMMA_ROS3P,
        ((), (_G,), (_G, 0.0)),
        ((), (-_G * _G,), (-_G * (1 - _T), _T)),
        (0.0, 1.0, 1.0),
        (GAMMA_ROS3P, GAMMA_ROS3P - 1, 0.5 - 2 * GAMMA_ROS3P),
        _B3P,
        (),
        3,
        reference="Lang and Verwer 2001",
    ),
    "rodas4": Rosenbrock(
        4,
        0.25,
        (*_A4, _B4[:-1]),
        (
            (),
            (-5.6688,),
            (-2.430093356833875, -0.2063599157091915),
            (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
            (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.7089089320616),
            (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136,
             -6.058818238834054),
        ),
        (0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
        (0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0),
        _B4,
        (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        4,
        _bubbles(
            _B4,
            (10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823,
             1.025137723295662, 0.0),
            (-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386,
             -6.594389125716872, 0.0),
        ),
        3,
        "Hairer and Wanner 1996, IV.7 (RODAS)",
    ),
    "rodas5p": Rosenbrock(
        5,
        0.21193756319429014,
        (*_A5P, _B5P[:-2], _B5P[:-1]),
        (
            (),
            (-14.155112264123755,),
            (-17.97296035885952, -2.859693295451294),
            (147.12150275711716, -1.41221402718213, 71.68940251302358),
            (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
            (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125,
             -0.6610691825249471),
            (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783,
             -19.097331116725623, -28.087943162872662),
            (37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047,
             -40.06618937091002, -54.66780262877968, -9.48861652309627),
        ),
        (0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0),
        (0.21193756319429014, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734,
         2.325825639765069, 0.0, 0.0, 0.0),
        _B5P,
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        5,
        _bubbles(
            _B5P,
            (25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204,
             0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493),
            (-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796,
             20.176138334709044, 15.98066361424651, -6.789040303419874, -6.710236069923372),
            (11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643,
             -52.072871366152654, -59.78993625266729, -0.15582684282751913, 4.883087185713722),
        ),
        4,
        "Steinebach 2023",
    ),
}  # fmt: skip
