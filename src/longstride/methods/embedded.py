"""Embedded Runge-Kutta pairs: a tableau, what it disagrees with, and the solution between its ends.

A step of a pair evaluates f at its own end, x1, as the last of its S evaluations K_j. It is the first of the
next step (FSAL); where the error estimate has no use for it, it is there for the next step alone. With theta
from 0 to 1 along the step,

    x(theta) = x + h sum_j K_j sum_m dense[j][m] theta^(m+1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ArgumentError
from .runge_kutta import DOPRI5, HEUN, RALSTON_3, TSIT5, Entry, Tableau

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Pair:
    """tableau: the solution that is kept, of S - 1 or fewer evaluations, without the one at its end.

    error: rows of b - b_hat. With two rows e, g the estimate is |e|^2/sqrt(|e|^2 + |g|^2/100), after Hairer.
    shrinks: the power of h that the estimate goes down with, on which the step control is built.
    dense: a row of each evaluation, the coefficients of theta, theta^2, ...; its order is dense_order.
    extra_c, extra_a: evaluations that only `dense` needs, made where something is read between the ends.
    """

    tableau: Tableau
    error: Rows
    shrinks: int
    dense: Rows
    dense_order: int
    extra_c: tuple[float, ...] = ()
    extra_a: Rows = ()
    reference: str = ""

    def __post_init__(self) -> None:
        for row in self.error:
            if abs(sum(row)) > 1e-12 or len(row) > self.evaluations:
                raise ArgumentError(f"error weights sum to 0, one of each evaluation: {row}")
        for c, row in zip(self.extra_c, self.extra_a, strict=True):
            if abs(sum(row) - c) > 1e-12:
                raise ArgumentError(f"the extra row at c = {c} does not sum to c: {row}")
        ends = [sum(row) for row in self.dense]
        b = self.a[-1]
        if any(abs(w - end) > 1e-11 for w, end in zip(padded(b, len(ends)), ends, strict=True)):
            raise ArgumentError(f"the interpolant does not end where the step does: {ends}")

    @property
    def order(self) -> int:
        return self.tableau.order

    @property
    def evaluations(self) -> int:
        """S: the first, those of the tableau, the one at the end."""
        return len(self.tableau.c) + 1

    @property
    def fsal(self) -> bool:
        """Whether the estimate uses the evaluation at the end, so that rejecting a step wastes none."""
        return any(len(row) == self.evaluations for row in self.error)

    @property
    def c(self) -> tuple[float, ...]:
        return (*self.tableau.c, 1.0)

    @property
    def a(self) -> Rows:
        """The rows of all S evaluations, the last being b."""
        return numbers((*self.tableau.a, self.tableau.b))


def numbers(rows: Sequence[Sequence[Entry]]) -> Rows:
    """The rows of a classical tableau."""
    return tuple(tuple(e for e in row if isinstance(e, float)) for row in rows)


def padded(row: Sequence[float], size: int) -> tuple[float, ...]:
    return (*row, *[0.0] * (size - len(row)))


def hermite(b: Sequence[float]) -> Rows:
    """The cubic through x, f at both ends: order 3, of no further evaluation."""
    rows = [[0.0, 3 * w, -2 * w] for w in (*b, 0.0)]
    rows[0] = [r + w for r, w in zip(rows[0], (1.0, -2.0, 1.0), strict=True)]
    rows[-1] = [0.0, -1.0, 1.0]
    return tuple(map(tuple, rows))


def nested(b: Sequence[float], *tops: Sequence[float]) -> Rows:
    """Dormand's and Hairer's nested form: the cubic of Hermite, plus bubbles at both ends.

    theta^2 (1 - theta)^2 (d_0 + theta (d_1 + (1 - theta) (d_2 + theta (d_3 + ...)))) with
    d_i = sum_j tops[i][j] K_j.
    """
    size = max(map(len, tops))
    cubic = hermite(b)
    out = [[*padded(cubic[j] if j < len(cubic) else (), 3), *[0.0] * len(tops)] for j in range(size)]
    bubble = [0.0, 1.0, -2.0, 1.0]  # coefficients of theta, theta^2, ...: theta^2 (1 - theta)^2
    for i, top in enumerate(tops):
        for j, d in enumerate(top):
            for m, w in enumerate(bubble):
                out[j][m] += d * w
        factor = (0.0, 1.0) if i % 2 == 0 else (1.0, -1.0)
        bubble = [
            factor[0] * low + factor[1] * high
            for low, high in zip([*bubble, 0.0], [0.0, *bubble], strict=True)
        ]
    return tuple(map(tuple, out))


def factored(lead: float, *roots: float) -> tuple[float, ...]:
    """lead theta^2 (theta - r_1)(theta - r_2) as coefficients of theta, ..., theta^4."""
    p, q = roots
    return (0.0, lead * p * q, -lead * (p + q), lead)


def quadratic(lead: float, linear: float, constant: float) -> tuple[float, ...]:
    """lead theta^2 (theta^2 + linear theta + constant)."""
    return (0.0, lead * constant, lead * linear, lead)


def _first_of_tsit5() -> tuple[float, ...]:
    """lead theta (theta - r)(theta^2 + p theta + q)."""
    lead, r, p, q = -1.0530884977290216, 1.3299890189751412, -1.4364028541716351, 0.7139816917074209
    return (-lead * r * q, lead * (q - r * p), lead * (p - r), lead)


DOP853 = Tableau(
    8,
    (
        0.0, 0.0526001519587677318785587544488, 0.0789002279381515978178381316732,
        0.118350341907227396726757197510, 0.281649658092772603273242802490, 1 / 3, 1 / 4,
        4 / 13, 127 / 195, 3 / 5, 6 / 7, 1.0,
    ),
    (
        (),
        (5.26001519587677318785587544488e-2,),
        (1.97250569845378994544595329183e-2, 5.91751709536136983633785987549e-2),
        (2.95875854768068491816892993775e-2, 0.0, 8.87627564304205475450678981324e-2),
        (2.41365134159266685502369798665e-1, 0.0, -8.84549479328286085344864962717e-1,
         9.24834003261792003115737966543e-1),
        (3.7037037037037037037037037037e-2, 0.0, 0.0, 1.70828608729473871279604482173e-1,
         1.25467687566822425016691814123e-1),
        (3.7109375e-2, 0.0, 0.0, 1.70252211019544039314978060272e-1, 6.02165389804559606850219397283e-2,
         -1.7578125e-2),
        (3.70920001185047927108779319836e-2, 0.0, 0.0, 1.70383925712239993810214054705e-1,
         1.07262030446373284651809199168e-1, -1.53194377486244017527936158236e-2,
         8.27378916381402288758473766002e-3),
        (6.24110958716075717114429577812e-1, 0.0, 0.0, -3.36089262944694129406857109825,
         -8.68219346841726006818189891453e-1, 2.75920996994467083049415600797e1,
         2.01540675504778934086186788979e1, -4.34898841810699588477366255144e1),
        (4.77662536438264365890433908527e-1, 0.0, 0.0, -2.48811461997166764192642586468,
         -5.90290826836842996371446475743e-1, 2.12300514481811942347288949897e1,
         1.52792336328824235832596922938e1, -3.32882109689848629194453265587e1,
         -2.03312017085086261358222928593e-2),
        (-9.3714243008598732571704021658e-1, 0.0, 0.0, 5.18637242884406370830023853209,
         1.09143734899672957818500254654, -8.14978701074692612513997267357,
         -1.85200656599969598641566180701e1, 2.27394870993505042818970056734e1,
         2.49360555267965238987089396762, -3.0467644718982195003823669022),
        (2.27331014751653820792359768449, 0.0, 0.0, -1.05344954667372501984066689879e1,
         -2.00087205822486249909675718444, -1.79589318631187989172765950534e1,
         2.79488845294199600508499808837e1, -2.85899827713502369474065508674,
         -8.87285693353062954433549289258, 1.23605671757943030647266201528e1,
         6.43392746015763530355970484046e-1),
    ),
    (5.42937341165687622380535766363e-2, 0.0, 0.0, 0.0, 0.0, 4.45031289275240888144113950566,
     1.89151789931450038304281599044, -5.8012039600105847814672114227, 3.1116436695781989440891606237e-1,
     -1.52160949662516078556178806805e-1, 2.01365400804030348374776537501e-1,
     4.47106157277725905176885569043e-2),
)  # fmt: skip

_FIFTH = (
    0.01312004499419488073250102996, 0.0, 0.0, 0.0, 0.0, -1.225156446376204440720569753,
    -0.4957589496572501915214079952, 1.664377182454986536961530415, -0.3503288487499736816886487290,
    0.3341791187130174790297318841, 0.08192320648511571246570742613, -0.02235530786388629525884427845,
)  # fmt: skip
_LOWER = {0: 0.244094488188976377952755905512, 8: 0.733846688281611857341361741547,
          11: 0.0220588235294117647058823529412}  # fmt: skip
_THIRD = tuple(b - _LOWER.get(j, 0.0) for j, b in enumerate(numbers([DOP853.b])[0]))
_TOPS = (
    (-8.4289382761090128651353491142, 0.0, 0.0, 0.0, 0.0, 0.56671495351937776962531783590,
     -3.0689499459498916912797304727, 2.3846676565120698287728149680, 2.1170345824450282767155149946,
     -0.87139158377797299206789907490, 2.2404374302607882758541771650, 0.63157877876946881815570249290,
     -0.088990336451333310820698117400, 18.148505520854727256656404962, -9.1946323924783554000451984436,
     -4.4360363875948939664310572000),
    (10.427508642579134603413151009, 0.0, 0.0, 0.0, 0.0, 242.28349177525818288430175319,
     165.20045171727028198505394887, -374.54675472269020279518312152, -22.113666853125306036270938578,
     7.7334326684722638389603898808, -30.674084731089398182061213626, -9.3321305264302278729567221706,
     15.697238121770843886131091075, -31.139403219565177677282850411, -9.3529243588444783865713862664,
     35.816841486394083752465898540),
    (19.985053242002433820987653617, 0.0, 0.0, 0.0, 0.0, -387.03730874935176555105901742,
     -189.17813819516756882830838328, 527.80815920542364900561016686, -11.573902539959630126141871134,
     6.8812326946963000169666922661, -1.0006050966910838403183860980, 0.77771377980534432092869265740,
     -2.7782057523535084065932004339, -60.196695231264120758267380846, 84.320405506677161018159903784,
     11.992291136182789328035130030),
    (-25.693933462703749003312586129, 0.0, 0.0, 0.0, 0.0, -154.18974869023643374053993627,
     -231.52937917604549567536039109, 357.63911791061412378285349910, 93.405324183624310003907691704,
     -37.458323136451633156875139351, 104.09964950896230045147246184, 29.840293426660503123344363579,
     -43.533456590011143754432175058, 96.324553959188282948394950600, -39.177261675615439165231486172,
     -149.72683625798562581422125276),
)  # fmt: skip
_EXTRA = (
    (5.61675022830479523392909219681e-2, 0.0, 0.0, 0.0, 0.0, 0.0, 2.53500210216624811088794765333e-1,
     -2.46239037470802489917441475441e-1, -1.24191423263816360469010140626e-1,
     1.5329179827876569731206322685e-1, 8.20105229563468988491666602057e-3,
     7.56789766054569976138603589584e-3, -8.298e-3),
    (3.18346481635021405060768473261e-2, 0.0, 0.0, 0.0, 0.0, 2.83009096723667755288322961402e-2,
     5.35419883074385676223797384372e-2, -5.49237485713909884646569340306e-2, 0.0, 0.0,
     -1.08347328697249322858509316994e-4, 3.82571090835658412954920192323e-4,
     -3.40465008687404560802977114492e-4, 1.41312443674632500278074618366e-1),
    (-4.28896301583791923408573538692e-1, 0.0, 0.0, 0.0, 0.0, -4.69762141536116384314449447206,
     7.68342119606259904184240953878, 4.06898981839711007970213554331, 3.56727187455281109270669543021e-1,
     0.0, 0.0, 0.0, -1.39902416515901462129418009734e-3, 2.9475147891527723389556272149,
     -9.15095847217987001081870187138),
)  # fmt: skip

FEHLBERG_2 = Tableau(
    2, (0.0, 1 / 2, 1.0), ((), (1 / 2,), (1 / 256, 255 / 256)), (1 / 512, 255 / 256, 1 / 512)
)

PAIRS = {
    "adaptive_heun": Pair(
        HEUN, ((-1 / 2, 1 / 2),), 2, hermite((1 / 2, 1 / 2)), 2, reference="Heun 1900, with Euler"
    ),
    "fehlberg2": Pair(
        FEHLBERG_2,
        ((-1 / 512, 0.0, 1 / 512),),
        2,
        hermite((1 / 512, 255 / 256, 1 / 512)),
        2,
        reference="Fehlberg 1969, RK1(2), the second order kept",
    ),
    "bosh3": Pair(
        RALSTON_3,
        ((2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),),
        3,
        hermite((2 / 9, 1 / 3, 4 / 9)),
        3,
        reference="Bogacki and Shampine 1989",
    ),
    "tsit5": Pair(
        TSIT5,
        ((-0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629,
          0.5823571654525552, -0.45808210592918697, 1 / 66),),
        5,
        (
            _first_of_tsit5(),
            quadratic(0.1017, -2.1966568338249754, 1.2949852507374631),
            quadratic(2.490627285651252793, -2.38535645472061657, 1.57803468208092486),
            factored(-16.54810288924490272, 1.21712927295533244, 0.61620406037800089),
            factored(47.37952196281928122, 1.203071208372362603, 0.658047292653547382),
            factored(-34.87065786149660974, 1.2, 2 / 3),
            factored(2.5, 1.0, 0.6),
        ),
        4,
        reference="Tsitouras 2011",
    ),
    "dopri5": Pair(
        DOPRI5,
        ((71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),),
        5,
        nested(
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
            (-12715105075 / 11282082432, 0.0, 87487479700 / 32700410799, -10690763975 / 1880347072,
             701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423),
        ),
        4,
        reference="Dormand and Prince 1980; Hairer's dense output",
    ),
    "dopri8": Pair(
        DOP853,
        (_FIFTH, _THIRD),
        8,
        nested(*numbers([DOP853.b]), *_TOPS),
        7,
        (0.1, 0.2, 7 / 9),
        _EXTRA,
        reference="Hairer, Norsett and Wanner 1993 (DOP853, 8(5,3))",
    ),
}  # fmt: skip
