"""Exponential Rosenbrock methods: the linearization at the start of a step is solved exactly.

With J and f_t at (t, x), W_1 = h f(t, x) and W_2 = h^2 f_t, all stages at once (Luan and Ostermann 2016):

    U_i = x + c_i phi_1(c_i h J) W_1 + c_i^2 phi_2(c_i h J) W_2,
    D_i = f(t + c_i h, U_i) - f(t, x) - J (U_i - x) - c_i h f_t,
    x1 = x + phi_1(h J) W_1 + phi_2(h J) W_2 + h sum_k phi_k(h J) sum_i b_ki D_i,  k = 3, 4, ...

The stiff order is p if sum_i b_ki c_i^2 = 2 for k = 3, sum_i b_ki c_i^3 = 6 for k = 4, and 0 for the other k.
"""

from __future__ import annotations

from dataclasses import dataclass

from .embedded import Rows


@dataclass(frozen=True)
class ExponentialRosenbrock:
    """c: powers of 1/2, of the stages.  b, error: rows for phi_3, phi_4, ..., a number for each D_i.

    shrinks: the power of h that the estimate, sum_k phi_k(h J) sum_i error_ki D_i, goes down with.
    """

    order: int
    c: tuple[float, ...]
    b: Rows
    error: Rows
    shrinks: int
    reference: str


EXPONENTIAL_ROSENBROCK = {
    "exprb32": ExponentialRosenbrock(
        3, (1.0,), ((2.0,),), ((2.0,),), 3, "Hochbruck, Ostermann and Schweitzer 2009"
    ),
    "pexprb43": ExponentialRosenbrock(
        4, (0.5, 1.0), ((16.0, -2.0), (-48.0, 12.0)), ((0.0, 0.0), (-48.0, 12.0)), 4,
        "Luan and Ostermann 2016",
    ),
}  # fmt: skip
