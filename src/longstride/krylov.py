"""L known by its products: the rows of exponential methods in Krylov spaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .errors import ArgumentError, SolveError, positive
from .matrix import ITSELF, Matrix
from .steppers.expm import Krylov as Solver
from .steppers.jacobian import shaped, vector

if TYPE_CHECKING:
    from .view import View

ROUND_OFF = 50  # units of it, below which no tolerance is taken at its word
PARTS = 200  # at most, of a step: each costs 105 products


@dataclass(frozen=True, eq=False)
class Krylov(Matrix):
    """L by products v -> L v of states v [B, ...]: `ls.ODE(f, L=times)`, or L=ls.Krylov(times, tolerance=).

    Or of a tensor A [D, D], sparse or dense, D the elements of a sample, of which only products are made.

    With z = c L, c the size of a step, or of a part of it, the row of a method

        phi_0(z) u_0 + phi_1(z) u_1 + phi_2(z) u_2 + ...  =  u_0 + phi_1(z) (z u_0 + u_1) + phi_2(z) u_2 + ...

    is y(1) of y' = z y + (z u_0 + u_1) + s u_2 + s^2/2 u_3 + ..., y(0) = u_0: one exponential of a matrix
    that is p wider than L, in one Krylov space (`expm.py`), whatever the number of evaluations in the row.
    z u_0 + u_1 is c dx/dt and no larger, however stiff L is. Where 105 products do not do, the step is
    walked through in parts, as in EXPOKIT (Sidje 1998) and phipm (Niesen and Wright 2012).

    tolerance: what is left out of a row at most, over the norm of the largest state or increment in it; of
    each sample. In float32 not below 50 units of round-off.

    Each step goes through products only, so whatever those are made of may be differentiated by; what a step
    remembers then is all of its Krylov vectors.

    Raises:
        ArgumentError: neither a function nor [D, D].
        SolveError: products of another shape or dtype, or a step that would take more than 200 parts.
    """

    A: Any
    tolerance: float = 1e-10

    together: ClassVar[bool] = True
    each: ClassVar[bool] = True  # for all that is known
    requires_grad: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive("tolerance", self.tolerance)
        square = isinstance(self.A, Tensor) and self.A.ndim == 2 and self.A.shape[0] == self.A.shape[1]
        if not square and (isinstance(self.A, Tensor) or not callable(self.A)):
            raise ArgumentError("L by products is a function v -> L v of v [B, ...], or a tensor [D, D]")

    def anew(self) -> Krylov:
        return self

    def beside(self, x: Tensor) -> Krylov:
        if not isinstance(self.A, Tensor):
            return self
        return replace(self, A=self.A.to(x.device, x.dtype if self.A.is_complex() else x.dtype.to_real()))

    def demand(self, x: Tensor) -> None:
        super().demand(x)
        if not isinstance(self.A, Tensor) and bool(self.times(torch.zeros_like(x)).count_nonzero()):
            raise ArgumentError("L is not linear, for L(0) is not 0: what it adds to L v belongs to f")

    def within(self, view: View) -> Krylov:
        """The same on states that are laid out flat."""
        times = self.A
        if isinstance(times, Tensor):
            return self
        return replace(self, A=lambda v: view.flat(times(view.nest(v))))

    def times(self, v: Tensor) -> Tensor:
        """L v, v [B, ...]."""
        if isinstance(self.A, Tensor):
            return (self.A @ v.reshape(len(v), -1).mT).mT.reshape(v.shape)
        out = self.A(v)
        if not isinstance(out, Tensor) or out.shape != v.shape or out.dtype != v.dtype:
            what = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise SolveError(f"L returned {what} for v of {v.dtype} {tuple(v.shape)}: return L v, as v is")
        return out

    def _applied(self, x: Tensor) -> Tensor:
        return self.sum([(self, x)])

    @staticmethod
    def sum(products: Sequence[tuple[Any, Tensor]]) -> Tensor:
        """sum_j w_j v_j, the first w_j sums of phi_k(c L), others such sums or numbers."""
        L, rest, rows = products[0][0], list[Tensor](), dict[float, dict[int, Tensor]]()
        for w, v in products:
            for k, c, weight in w.terms if isinstance(w, Krylov) else ((0, 0.0, w),):
                if k == ITSELF:
                    rest.append(weight * L.times(v))
                elif c == 0:
                    rest.append(weight / math.factorial(k) * v)
                else:
                    row = rows.setdefault(float(f"{c:.11e}"), {})
                    row[k] = row[k] + weight * v if k in row else weight * v
        parts = [*rest, *(u for row in rows.values() for u in row.values())]
        size = torch.stack([vector(u.detach()).norm(dim=1) for u in parts]).amax(0)
        rest += [L.evolved(c, row, size) for c, row in rows.items()]
        return reduce(torch.add, rest)

    def evolved(self, c: float, us: dict[int, Tensor], size: Tensor) -> Tensor:
        """sum_k phi_k(c L) u_k, to the tolerance of states of a norm of `size` [B]."""
        like = next(iter(us.values()))
        zero = torch.zeros_like(like)
        y, *ws = [vector(us.get(k, zero)) for k in range(max(*us, 1) + 1)]
        allowed = torch.where(size > 0, size, 1.0)
        allowed = allowed * max(self.tolerance, ROUND_OFF * torch.finfo(y.dtype).eps)
        s = torch.zeros_like(y[:, :1])

        def times(v: Tensor) -> Tensor:
            v = v.clone() if like.is_complex() else v  # pairs of numbers begin at even places
            return c * vector(self.times(shaped(v, like)))

        for _ in range(PARTS):
            rest = 1 - s
            share = rest[:, 0] * allowed
            ahead = _later(ws, s)
            ahead[0] = ahead[0] + times(y)
            solver = Solver(partial(_scaled, times, rest), partial(_over, share))
            moved, reached = solver.reach([rest**k * w for k, w in enumerate(ahead, 1)])
            y, s = y + moved, s + reached[:, None] * rest
            if bool((s == 1).all()):
                return shaped(y, like)
        raise SolveError(
            f"a step takes more than {PARTS} Krylov spaces: L is too stiff for products; take smaller steps, "
            "give L as a matrix, or a method that solves with bands"
        )


def _later(ws: Sequence[Tensor], s: Tensor) -> list[Tensor]:
    """The polynomial w_1 + t w_2 + t^2/2 w_3 + ... in powers of t - s."""
    powers = [s**j / math.factorial(j) for j in range(len(ws))]
    return [reduce(torch.add, (p * w for p, w in zip(powers, ws[k:], strict=False))) for k in range(len(ws))]


def _scaled(times: Callable[[Tensor], Tensor], by: Tensor, v: Tensor) -> Tensor:
    return by * times(v)


def _over(allowed: Tensor, e: Tensor) -> Tensor:
    return e.norm(dim=1) / allowed
