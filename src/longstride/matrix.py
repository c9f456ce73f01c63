"""Matrices that multiply states, and phi-functions of them by scaling and squaring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import ArgumentError

TERMS = 18  # of Taylor's series where the norm of a matrix is at most 1: 1/19! is below round-off
SQUARINGS = 60  # at most: more say that the matrix is not finite
ITSELF = -1  # in place of k: the matrix, and no function of it
ITS_TERMS = ((ITSELF, 1.0, 1.0),)
Number = (int, float, complex)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A [D, D] or [B, D, D] that multiplies x [B, ...], D elements a sample: `ls.ODE(f, L=ls.Matrix(A))`.

    A method's weights are then sums w_1 phi_k1(c_1 A) + w_2 phi_k2(c_2 A) + ...: terms (k, c, w), written
    down as they are and multiplied out where they meet a state. What was made, in `made`, serves all sums of
    the same A whose c and w agree to 12 digits, so that equal steps share their weights.

    Raises:
        ArgumentError: A is not [D, D] or [B, D, D], or not finite.
    """

    A: Tensor
    terms: tuple[tuple[int, float, Any], ...] = ITS_TERMS
    made: dict[Any, Any] = field(default_factory=dict, repr=False)
    __array_ufunc__ = None  # numbers of numpy leave products to this class
    together: ClassVar[bool] = False  # whether the products of a row are one, `sum`

    def __post_init__(self) -> None:
        if self.terms != ITS_TERMS:
            return  # made of one that was checked
        A = self.A
        if not isinstance(A, Tensor) or not self._fits(A.shape):
            shape = tuple(A.shape) if isinstance(A, Tensor) else type(A).__name__
            raise ArgumentError(f"a matrix of {shape}: give a tensor {self._wanted}")
        if not bool(A.isfinite().all()):
            raise ArgumentError("a matrix that is not finite")

    _wanted = "[D, D] or [B, D, D]"

    def _fits(self, shape: Sequence[int]) -> bool:
        return len(shape) in (2, 3) and shape[-1] == shape[-2]

    @property
    def each(self) -> bool:
        """Whether every sample has a matrix of its own."""
        return self._fits(self.A.shape[1:])

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Tensor):
            return self._applied(other)
        if not isinstance(other, Number):
            return NotImplemented
        return replace(self, terms=tuple((k, c, w * other) for k, c, w in self.terms))

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Matrix:
        if isinstance(other, Number):
            more: tuple = ((0, 0.0, other),) if other else ()  # phi_0(0 A) is 1
        elif isinstance(other, Matrix) and other.made is self.made:
            more = other.terms
        else:
            return NotImplemented
        sums: dict[tuple[int, float], Any] = {}
        for k, c, w in (*self.terms, *more):
            sums[k, c] = sums.get((k, c), 0.0) + w
        return replace(self, terms=tuple((k, c, w) for (k, c), w in sums.items()))

    __radd__ = __add__

    def __neg__(self) -> Matrix:
        return self * -1.0

    def __sub__(self, other: Any) -> Matrix:
        return self + -1.0 * other

    def __rsub__(self, other: Any) -> Matrix:
        return other + -1.0 * self

    def __truediv__(self, other: float) -> Matrix:
        return self * (1 / other)

    def phi(self, k: int) -> Any:
        """phi_k of a multiple of A."""
        if [term[0] for term in self.terms] != [ITSELF]:
            raise ArgumentError("phi-functions are made of multiples of a matrix alone")
        return replace(self, terms=((k, self.terms[0][2], 1.0),))

    @property
    def value(self) -> Tensor:
        """The matrix, multiplied out: as A is."""
        if self.terms == ITS_TERMS:
            return self.A
        graph = self.A.requires_grad and torch.is_grad_enabled()
        key = (graph, *((k, _rounded(c), _rounded(w)) for k, c, w in self.terms))
        if key not in self.made:
            self.made[key] = sum(self._term(k, c, graph) * w for k, c, w in self.terms)
        return self.made[key]

    def anew(self) -> Matrix:
        """The same, with nothing made yet where it is differentiated by: a graph is for one run."""
        return replace(self, made={}) if self.requires_grad else self

    @property
    def requires_grad(self) -> bool:
        return self.A.requires_grad

    def demand(self, x: Tensor) -> None:
        """
        Raises:
            ArgumentError: it does not multiply x [B, ...].
        """
        if isinstance(self.A, Tensor) and self._fits(self.A.shape) and x[0].numel() != self.A.shape[-1]:
            raise ArgumentError(
                f"L {list(self.A.shape)} on x0 {list(x.shape)}, where a sample has {x[0].numel()} elements: "
                "give it as many rows"
            )

    def within(self, view: Any) -> Matrix:
        """The same on states as a run carries them (`view.View`)."""
        return self

    def beside(self, x: Tensor) -> Matrix:
        """Multiplied out, where x is and as precise: what is applied again and again."""
        M = self.value
        A = M.to(x.device, x.dtype.to_complex() if M.is_complex() else x.dtype.to_real())
        return replace(self, A=A, terms=ITS_TERMS, made={})

    def _term(self, k: int, c: Any, graph: bool) -> Tensor:
        if k == ITSELF:
            return self.A
        if k == 0 and c == 0:
            return self._one()
        key = (graph, _rounded(c))
        if len(self.made.get(key, ())) <= k:
            self.made[key] = self._phis(c, max(k, 3))
        return self.made[key][k]

    def _one(self) -> Tensor:
        return torch.eye(self.A.shape[-1], dtype=self.A.dtype, device=self.A.device)

    def _phis(self, c: Any, most: int) -> list[Tensor]:
        """phi_0(c A), ..., phi_most(c A)."""
        return phis(c * self.A, most)

    def _applied(self, x: Tensor) -> Tensor:
        M = self.value.to(x.device, x.dtype)
        rows = x.reshape(-1, M.shape[-1])
        return (rows @ M.mT if M.ndim == 2 else (M @ rows[..., None])[..., 0]).view(x.shape)


def _rounded(w: Any) -> Any:
    """To 12 digits."""
    return f"{w:.11e}"


def halvings(A: Tensor) -> tuple[Tensor, list[Tensor]]:
    """2^-s [..., 1, 1] such that A/2^s has a norm of at most 1, s >= 1 of each sample's own; who is doubled.

    Each of the masks [..., 1, 1] is one squaring: a sample with a smaller s begins later, so that all end
    together and none depends on the others.
    """
    norm = A.detach().abs().sum(-2).amax(-1)
    s = norm.log2().ceil().nan_to_num(SQUARINGS, SQUARINGS, 1).clamp(1, SQUARINGS)
    count = int(s.max())
    return torch.exp2(-s)[..., None, None], [(s >= count - r)[..., None, None] for r in range(count)]


def phis(A: Tensor, most: int) -> list[Tensor]:
    """phi_0(A), ..., phi_most(A), A [..., D, D].

    Taylor's series of the last at A/2^s, the recurrence phi_(k-1)(z) = z phi_k(z) + 1/(k-1)! for the others,
    then s times phi_k(2z) = 2^-k (e^z phi_k(z) + sum_(j=1..k) phi_j(z)/(k-j)!).
    """
    by, doublings = halvings(A)
    z, one = by * A, torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    last = one * (1 / math.factorial(most + TERMS))
    for j in reversed(range(TERMS)):
        last = z @ last + one * (1 / math.factorial(most + j))
    found = [last]
    for k in reversed(range(most)):
        found.append(z @ found[-1] + one * (1 / math.factorial(k)))
    found.reverse()
    for doubles in doublings:
        twice = [found[0] @ found[0]]
        for k in range(1, most + 1):
            rest = sum(found[j] / math.factorial(k - j) for j in range(1, k + 1))
            twice.append((found[0] @ found[k] + rest) / 2**k)
        found = [torch.where(doubles, new, old) for new, old in zip(twice, found, strict=True)]
    return found
