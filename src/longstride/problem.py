"""Problems: what is integrated, in the words of its user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd import grad

from .core import Field, Weight
from .errors import ArgumentError, SolveError, unknown
from .methods.sde import INTERPRETATIONS, KINDS
from .operator import Linear


@dataclass(frozen=True)
class ODE:
    """dx/dt = L x + f(t, x), x [B, ...].

    f(t, x) gets t as a scalar tensor, real, where x is and as precise; in adaptive runs one for each
    sample, [B], unless the step is shared.

    L: a number or a tensor that multiplies x (a diagonal operator), real or complex; exponential methods
    solve it exactly, the others see L x + f as one field.
    """

    f: Callable[[Tensor, Tensor], Tensor]
    L: Weight = 0.0

    def operator(self, exponential: bool) -> Linear:
        """What a method integrates around: L, or nothing."""
        return Linear(self.L if exponential else 0.0)

    def fields(self, exponential: bool) -> tuple[Field]:
        """The field that belongs to `operator`."""

        def rate(t: float, x: Tensor) -> Tensor:
            out = self.f(torch.tensor(t, dtype=x.dtype.to_real(), device=x.device), x)
            if not isinstance(out, Tensor) or out.shape != x.shape:
                what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
                raise SolveError(
                    f"f returned {what} for x of shape {tuple(x.shape)}: return dx/dt, one for one"
                )
            return out

        if exponential or (not isinstance(self.L, Tensor) and self.L == 0):
            return (rate,)
        return (lambda t, x: rate(t, x) + self.L * x,)

    @property
    def rate(self) -> Callable[[Tensor, Tensor], Tensor]:
        """dx/dt whole, of tensors, as an adaptive run asks for it."""
        if not isinstance(self.L, Tensor) and self.L == 0:
            return self.f
        return lambda t, x: self.f(t, x) + self.L * x


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

    def slope(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """g, and sum_j (dg_j/dx) g_j as x, from one evaluation.

        Of diagonal noise J^T g is J g. Else J v is the derivative of J^T w by w, pulled back along v.
        """
        from .transpose import leaves  # which is about runs of problems

        graph = torch.is_grad_enabled()
        with torch.enable_grad():
            y = x if graph and x.requires_grad else x.detach().requires_grad_()
            g = self.g(t, y)
            graph = graph and (y is x or len(leaves([g])) > 1)
            slope = self._slope(g, y, graph)
        return (g, slope) if graph else (g.detach(), slope.detach())

    def _slope(self, g: Tensor, y: Tensor, graph: bool) -> Tensor:
        if not g.requires_grad:
            return torch.zeros_like(y)
        if self.noise == "diagonal":
            (slope,) = grad(g, y, g, create_graph=graph, materialize_grads=True)
            return slope
        w = torch.zeros_like(g).requires_grad_()
        (pulled,) = grad(g, y, w, create_graph=True, materialize_grads=True)
        if not pulled.requires_grad:
            return torch.zeros_like(y)
        columns = [g] if self.noise == "scalar" else g.unbind(-1)
        pushed = [
            grad(pulled, w, v, create_graph=graph, retain_graph=True, materialize_grads=True)[0]
            for v in columns
        ]
        if self.noise == "scalar":
            return pushed[0]
        return torch.stack([p[..., j] for j, p in enumerate(pushed)]).sum(0)
