"""Problems: what is integrated, in the words of its user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import grad
from torch.utils._pytree import tree_map

from .core import Field, Weight, beside
from .errors import ArgumentError, SolveError, said_of, unknown
from .interpolation import Path
from .krylov import Krylov
from .matrix import Matrix
from .methods.sde import INTERPRETATIONS, KINDS
from .operator import Linear
from .tree import Tree, is_state
from .view import View


class Space(Protocol):
    """Between the user's x and another variable u: see `ODE`. It may have a norm(u) too, [B]: `magnitude`;
    and held(f, L), f with what no x shows held down.
    """

    def enter(self, x: Tensor) -> Tensor: ...

    def leave(self, u: Tensor) -> Tensor: ...


class Within(View):
    """States of a problem that are entered into its space."""

    def __init__(self, problem: ODE) -> None:
        assert problem.space is not None
        self.space, self.demand = problem.space, problem.demand

    def flat(self, state: Tensor) -> Tensor:
        """
        Raises:
            ArgumentError: no tensor of numbers that a space transforms, or no batch.
        """
        if not is_state(state) or state.dtype.itemsize < 4:
            raise ArgumentError("x0 must be a tensor of float32, float64, or complex ones of these")
        if state.ndim <= getattr(self.space, "dim", 0):
            raise ArgumentError(f"x0 {tuple(state.shape)} has no batch: give x0[None], [1, ...]")
        if not len(state):
            raise ArgumentError(f"x0 {tuple(state.shape)} has no samples: there is nothing to transform")
        self.demand(state)
        return self.space.enter(state)

    def nest(self, x: Tensor) -> Tensor:
        return self.space.leave(x)


def broadcasts(L: Sequence[int], x: Sequence[int]) -> bool:
    """Whether a tensor of one shape multiplies one of the other element by element, to the shape of that."""
    return len(L) <= len(x) and all(m in (1, n) for m, n in zip(reversed(L), reversed(x), strict=False))


@dataclass(frozen=True)
class ODE:
    """dx/dt = L x + f(t, x) + g(t, x), x [B, ...].

    f(t, x) gets t as a scalar tensor, real, where x is and as precise; in adaptive runs one for each
    sample, [B], unless the step is shared.

    L: a number or a tensor that multiplies x (a diagonal operator), real or complex, an `ls.Matrix`, or a
    function v -> L v that is linear, which is `ls.Krylov` of it; exponential methods solve it exactly, the
    others see L x + f as one field.

    stiff: g, of the same kind as f. Additive methods solve for L x + g and take f explicitly; the others see
    one field.
    jacobian: what implicit methods may know of the derivative by x of what they solve for, of a sample with x
    flattened to D elements: a function of (t, x) that returns it whole, [B, D, D]; "diagonal"; or the widths
    (lower, upper) of its bands. Where it is not given, all D columns are differentiated.
    jump_times: where f jumps, as the argument of `solve` of that name, which adds to them.
    magnitude: |u| of each sample, [B] of u [B, ...], by which adaptive runs then weigh errors as a whole, |e|
    over atol + rtol |u|, and not element by element. Of a space that has a norm it is that.
    space: what lies between x and the variable u that f, L, g and the run are about, such as coefficients of
    a `spectral.Fourier` series: u = space.enter(x), x = space.leave(u). All else that a user gives or gets
    is x.
    acceleration: a(t, x) of x'' = a(t, x), where the state is (x, v): the halves of dimension 1 of a tensor,
    or a pair of trees. Methods for such equations take it, the others f.
    check: is called with x0 before a run, and raises an `ArgumentError` where it is no start.
    """

    f: Callable[[Tensor, Any], Any]
    L: Weight | Matrix | Callable[[Any], Any] = 0.0
    stiff: Callable[[Tensor, Tensor], Tensor] | None = None
    jacobian: Callable[[Tensor, Tensor], Tensor] | str | tuple[int, int] | None = None
    jump_times: tuple[float, ...] = ()
    magnitude: Callable[[Tensor], Tensor] | None = None
    space: Space | None = None
    acceleration: Callable[[Tensor, Any], Any] | None = None
    check: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.L, Tensor) and self.L.layout != torch.strided:
            raise ArgumentError("L is a sparse tensor: give ls.Krylov(L), which multiplies with it")
        if not callable(self.f):
            raise ArgumentError(f"f of an ODE is {said_of(self.f)}: it is a function of (t, x), dx/dt")
        if callable(self.L):
            object.__setattr__(self, "L", Krylov(self.L))

    def flattened(self, tree: Tree) -> ODE:
        """The same on states that are laid out flat; L may be a tree as well."""
        g, known, a = self.stiff, self.jacobian, self.acceleration
        return replace(
            self,
            f=tree.rate(self.f),
            L=tree.weight(self.L, tree.dtype),
            stiff=None if g is None else tree.rate(g),
            jacobian=tree.reader(known) if callable(known) else known,
            acceleration=None if a is None else tree.half().rate(a),
            check=None,
        )

    def entered(self) -> ODE:
        """The same, of the variable of its space, which may hold down what no x shows."""
        parts = {part.name: getattr(self, part.name) for part in dataclasses.fields(ODE)}
        if (held := getattr(self.space, "held", None)) is not None:
            parts["f"] = held(self.f, self.L)
        norm = self.magnitude or getattr(self.space, "norm", None)
        return ODE(**{**parts, "space": None, "check": None, "magnitude": norm})

    def demand(self, x: Any) -> None:
        """
        Raises:
            ArgumentError: L is complex and x is real, multiplies it to another shape, is a matrix of another
                size or no linear function; or what `check` raises.
        """
        if self.space is None and isinstance(x, Tensor):
            L = self.L.A if isinstance(self.L, Matrix) else self.L
            turns = L.is_complex() if isinstance(L, Tensor) else isinstance(L, complex)
            if turns and not x.is_complex():
                raise ArgumentError(f"L is complex and x0 is {x.dtype}: give it as {x.dtype.to_complex()}")
            if isinstance(self.L, Matrix) and type(self.L) in (Matrix, Krylov):  # blocks are of modes
                self.L.demand(x)
            if isinstance(self.L, Tensor) and not broadcasts(self.L.shape, x.shape):
                raise ArgumentError(
                    f"L {tuple(self.L.shape)} multiplies x0 {tuple(x.shape)} element by element: a matrix is "
                    "ls.Matrix(L)"
                )
        if self.check is not None:
            self.check(x)

    def linear(self, x: Tensor) -> Any:
        """L x, as precise as x and where x is."""
        L: Any = self.L  # a Matrix brings itself there
        return (beside(L, x) if isinstance(L, Tensor) else L) * x

    def operator(self, splits: bool) -> Linear:
        """What a method integrates around: L, or nothing."""
        L = self.L.anew() if isinstance(self.L, Matrix) else self.L
        if isinstance(L, complex):
            L = torch.tensor(L, dtype=torch.complex128)
        return Linear(L if splits else 0.0)

    def fields(self, splits: bool) -> tuple[Field]:
        """The field that belongs to `operator`."""

        def rate(t: float | Tensor, x: Tensor) -> Tensor:
            if not isinstance(t, Tensor):  # as it is in compiled steps
                t = torch.tensor(t, dtype=x.dtype.to_real(), device=x.device)
            return as_x(self.nonlinear(t, x), x.dtype, x.shape)

        if splits or self.plain:
            return (rate,)
        return (lambda t, x: rate(t, x) + self.linear(x),)

    @property
    def nonlinear(self) -> Callable[[Tensor, Tensor], Tensor]:
        """f + g."""
        f, g = self.f, self.stiff
        return f if g is None else lambda t, x: f(t, x) + g(t, x)

    @property
    def rate(self) -> Callable[[Tensor, Tensor], Tensor]:
        """dx/dt whole, of tensors, as an adaptive run asks for it."""
        rest = self.nonlinear
        return rest if self.plain else lambda t, x: rest(t, x) + self.linear(x)

    @property
    def parts(self) -> tuple[Callable[[Tensor, Tensor], Tensor], ...]:
        """f, and L x + g which is solved for; none if there is but f."""
        g = self.stiff
        if g is None:
            return () if self.plain else (self.f, lambda t, x: self.linear(x))
        return (self.f, g if self.plain else lambda t, x: g(t, x) + self.linear(x))

    @property
    def plain(self) -> bool:
        """Whether there is no L."""
        return not isinstance(self.L, Tensor) and self.L == 0


def as_x(out: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """What f returned for an x of this dtype and shape.

    Raises:
        SolveError: it is of another. A state would take over a wider dtype without a word.
    """
    if not isinstance(out, Tensor) or out.dtype != dtype or out.shape != shape:
        what = f"{out.dtype}, {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise SolveError(
            f"f returned {what} for x of {dtype}, {tuple(shape)}: return dx/dt, one for one, in x's own dtype"
        )
    return out


def SecondOrder(a: Callable[[Tensor, Any, Any], Any]) -> ODE:
    """x'' = a(t, x, v) with v = x', as x' = v, v' = a. The state is the pair (x, v), [B, ...] or trees."""
    return ODE(lambda t, state: (state[1], a(t, *state)))


def Newton(a: Callable[[Tensor, Any], Any]) -> ODE:
    """x'' = a(t, x), as `SecondOrder` without v: for splittings, and other methods for such equations."""
    return ODE(lambda t, state: (state[1], a(t, state[0])), acceleration=a)


def CDE(f: Callable[[Tensor, Any], Any], path: Path) -> ODE:
    """dz = f(t, z) dX(t), a controlled differential equation: z' = f(t, z) X'(t).

    f: [B, ..., C] for z [B, ...], C the channels of the path; of a tree, a tree of such.  path: see
    `interpolation`. Where its derivative jumps, steps end. (Kidger, Morrill, Foster and Lyons 2020.)
    """

    def rate(t: Tensor, z: Any) -> Any:
        slope = path.derivative(t)
        return tree_map(lambda out: torch.einsum("b...c,bc->b...", out, slope.to(out.dtype)), f(t, z))

    return ODE(rate, jump_times=path.jump_times)


@dataclass(frozen=True)
class SDE:
    """dx = f(t, x) dt + g(t, x) dW, x [B, ...] real, W a Brownian motion of each sample's own.

    noise: what g returns and what W is like.
        "diagonal": g as x, g_i depends on x_i alone; every element has its own W_i.
        "scalar": g as x; one W for all elements of a sample.
        "general": g [B, ..., m]; m motions, mixed.
        "additive": g as x, or [B, ..., m]; it does not depend on x.
    interpretation: "ito" or "stratonovich", of the integral.

    f and g get t as those of an `ODE` do.

    Raises:
        ArgumentError: an unknown noise or interpretation, f or g that cannot be called.
    """

    f: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    noise: str = "diagonal"
    interpretation: str = "ito"

    def __post_init__(self) -> None:
        if self.noise not in KINDS:
            raise unknown("noise", self.noise, KINDS)
        if self.interpretation not in INTERPRETATIONS:
            raise unknown("interpretation", self.interpretation, INTERPRETATIONS)
        if not callable(self.f) or not callable(self.g):
            raise ArgumentError("f and g of an SDE are functions of (t, x)")

    def to(self, interpretation: str) -> SDE:
        """The same process in the other sense: f_stratonovich = f_ito - (1/2) sum_j (dg_j/dx) g_j."""
        if interpretation == self.interpretation or self.noise == "additive":
            return replace(self, interpretation=interpretation)
        half = -0.5 if interpretation == "stratonovich" else 0.5
        return replace(
            self,
            f=lambda t, x: torch.add(self.f(t, x), self.slope(t, x)[1], alpha=half),
            interpretation=interpretation,
        )

    def slope(self, t: Tensor, x: Tensor, I: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: E741
        """g, and sum_j (dg_j/dx) g_j as x, from one evaluation; sum_ij (dg_j/dx) g_i I_ij with I [B, m, m].

        Of diagonal noise J^T g is J g. Else J v is the derivative of J^T w by w, pulled back along v.
        """
        if torch.compiler.is_compiling():
            return self._traced(t, x, I)
        from .gradients.transpose import leaves  # which is about runs of problems

        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            y = x if graph and x.requires_grad else x.detach().requires_grad_()
            g = self.g(t, y)
            graph = graph and (y is x or len(leaves([g])) > 1)
            slope = self._slope(g, y, graph, g if I is None else _mixed(g, I))
        return (g, slope) if graph else (g.detach(), slope.detach())

    def _traced(self, t: Tensor, x: Tensor, I: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: E741
        """`slope` within torch.compile, which takes forward derivatives and no calls of autograd."""
        g = self.g(t, x)

        def pushed(v: Tensor) -> Tensor:
            return torch.func.jvp(lambda y: self.g(t, y), (x,), (v,))[1]

        if g.shape == x.shape:
            return g, pushed(g)
        columns = (g if I is None else _mixed(g, I)).unbind(-1)
        return g, torch.stack([pushed(v)[..., j] for j, v in enumerate(columns)]).sum(0)

    def _slope(self, g: Tensor, y: Tensor, graph: bool, along: Tensor) -> Tensor:
        if not g.requires_grad:
            return torch.zeros_like(y)
        if self.noise == "diagonal":
            (slope,) = grad(g, y, g, create_graph=graph, materialize_grads=True)
            return slope
        w = torch.zeros_like(g).requires_grad_()
        (pulled,) = grad(g, y, w, create_graph=True, materialize_grads=True)
        if not pulled.requires_grad:
            return torch.zeros_like(y)
        columns = [along] if self.noise == "scalar" else along.unbind(-1)
        pushed = [
            grad(pulled, w, v, create_graph=graph, retain_graph=True, materialize_grads=True)[0]
            for v in columns
        ]
        if self.noise == "scalar":
            return pushed[0]
        return torch.stack([p[..., j] for j, p in enumerate(pushed)]).sum(0)


def _mixed(g: Tensor, I: Tensor) -> Tensor:  # noqa: E741
    """sum_i g_i I_ij as column j, g [B, ..., m]."""
    return (g.flatten(1, -2) @ I).view(g.shape)
