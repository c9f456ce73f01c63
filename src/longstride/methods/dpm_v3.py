"""DPM-Solver-v3: a predictor-corrector whose linear part is that of the model it samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..core import Stage, Step
from ..errors import ArgumentError
from ..operator import Operator
from .adams import GAUSS_W, GAUSS_X, window
from .base import Method, register

Statistics = Mapping[str, Sequence[float]]

DATA_PREDICTION: Statistics = {"lambda": (0.0, 1.0), "l": (1.0, 1.0), "s": (0.0, 0.0)}


class _Curve:
    """A function of lambda, linear between its values and constant beyond them, with its exact integral."""

    def __init__(self, lambdas: Sequence[float], values: Sequence[float]):
        self.x, self.y = np.array(lambdas, dtype=float), np.array(values, dtype=float)

    def __call__(self, lam: np.ndarray | float) -> np.ndarray:
        return np.interp(lam, self.x, self.y)

    @cached_property
    def _sums(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(np.diff(self.x) * (self.y[1:] + self.y[:-1]) / 2)])

    def integral(self, lam: np.ndarray | float) -> np.ndarray:
        """From the first lambda to `lam`."""
        i = np.clip(np.searchsorted(self.x, lam, side="right") - 1, 0, len(self.x) - 1)
        inside = np.clip(lam, self.x[0], self.x[-1]) - self.x[i]
        beyond = lam - np.clip(lam, self.x[0], self.x[-1])
        return self._sums[i] + inside * (self.y[i] + self(lam)) / 2 + beyond * self(lam)


def _curves(statistics: Statistics) -> tuple[_Curve, _Curve]:
    """l and s, if the statistics are fit to be used."""
    if set(statistics) != {"lambda", "l", "s"} or len({len(v) for v in statistics.values()}) != 1:
        raise ArgumentError(
            'statistics are {"lambda": [...], "l": [...], "s": [...]} of one length: '
            "longstride.learn.model_statistics estimates them"
        )
    lambdas = statistics["lambda"]
    if len(lambdas) < 2 or any(not b > a for a, b in pairwise(lambdas)):
        raise ArgumentError("the lambdas of the statistics must rise, and there must be at least two")
    if not all(math.isfinite(v) for values in statistics.values() for v in values):
        raise ArgumentError("the statistics must be finite")
    return _Curve(lambdas, statistics["l"]), _Curve(lambdas, statistics["s"])


def dpm_v3(order: int):
    """The order of the predictor; the corrector adds one."""

    def build(*, statistics: Statistics | None = None, lower_order_final: bool = True) -> Method:
        """With y = x/alpha and any function l of lambda, dy/dlambda = -l y - f, f = (1 - l) y - x0_hat.

        So y_t = A y_s - int e^(-int_lambda^t l) f dlambda with A = e^(-int_s^t l). f is interpolated after
        division by e^(int s), the growth it is known to have: a polynomial for g = e^(-int s) f. l is chosen
        to make f depend little on x, s to make g change little (Zheng et al. 2023, with b = 0:
        a plan holds weights of states and evaluations, and b is a constant image). l = 1, s = 0 is data
        prediction, l = 0, s = -1 noise prediction: DPM-Solver++ and DPM-Solver with a corrector. As in the
        paper, f at a past time is that of the predicted state, where the network was asked.
        """
        linear, growth = _curves(DATA_PREDICTION if statistics is None else statistics)

        def weights(start: float, end: float, nodes: Sequence[float]) -> tuple[float, list[float]]:
            """A, and the integrals that weigh f at the nodes, all in lambda."""
            lam = start + (GAUSS_X + 1) / 2 * (end - start)
            decay = np.exp(linear.integral(lam) - linear.integral(end)) * GAUSS_W * (end - start) / 2
            c = []
            for j, node in enumerate(nodes):
                others = [u for i, u in enumerate(nodes) if i != j]
                lagrange = np.prod([(lam - u) / (node - u) for u in others], axis=0)
                c.append(float(decay @ (np.exp(growth.integral(lam) - growth.integral(node)) * lagrange)))
            return float(np.exp(linear.integral(start) - linear.integral(end))), c

        def write(times: Sequence[float], n: int, op: Operator, evals: int) -> Step:
            s, t = times[n], times[n + 1]
            nodes = window(times, n, order, lower_order_final)[::-1]  # oldest first, as they are kept
            held = min(order, n + 1)
            pad = [0.0] * (held - len(nodes))

            def row(corrected: bool) -> tuple:
                """States known: those evaluated, the one to go on from and, to correct, the predicted one."""
                known = [*nodes, t] if corrected else nodes
                lambdas = [op.clock(u) for u in known]
                keep, c = weights(op.clock(s), op.clock(t), lambdas)
                x = [(u, -w * (1 - float(linear(v)))) for u, v, w in zip(known, lambdas, c, strict=True)]
                x.insert(len(nodes), (s, keep))
                return op.row(t, [*((s, w) for w in pad), *x], [*pad, *c])

            first = (Stage((1.0,), at=s, field=op.field),) if n == 0 else ()
            x, f = row(corrected=False)
            predicted = Stage(x, f, at=t, field=op.field)
            kept = min(order, n + 2)
            return Step(
                (*first, predicted, Stage(*row(corrected=True))),
                keep_x=(*range(held + 1 - kept, held), held + 1, held + 2),
                keep_f=tuple(range(-kept, 0)),
            )

        return Method(write, order + 1, prediction="data", diffusion=True)

    return build


for _k in (1, 2, 3):
    register(f"dpm_v3_{_k}", dpm_v3(_k), kind="predictor-corrector",
             reference="Zheng et al. 2023, DPM-Solver-v3")  # fmt: skip
