"""df/dx of each sample: found by automatic differentiation, in as many products as its structure asks for.

Sample i of f depends on sample i of x alone, so one product with v [B, D] is one product of every sample's
own matrix. Products are taken from the left, v^T df/dx, all of them on one evaluation of f; one from the
right is the derivative of such a product by v.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ArgumentError, SolveError

Flat = Callable[[Tensor, Tensor], Tensor]
AT_ONCE = 1 << 24  # numbers that the products of one call may fill


class Tangent:
    """f near (t, x), x [B, D] real: its value, products with df/dx, and df/dt.

    graph: whether the derivatives are themselves to be differentiated.
    """

    def __init__(self, f: Flat, t: Tensor, x: Tensor, graph: bool = False) -> None:
        self.graph, self.function = graph, f
        with torch.inference_mode(False), torch.enable_grad():
            self.t = t.detach().clone().requires_grad_()
            self.x = x.view_as(x) if graph and x.requires_grad else x.detach().clone().requires_grad_()
            self.f = f(self.t, self.x)
        self.value = self.f if graph else self.f.detach()

    def rows(self, probes: Tensor) -> Tensor:
        """v^T df/dx of probes v [P, D], the same for every sample: [P, B, D]."""
        if not self.f.requires_grad:
            return self.x.new_zeros(len(probes), *self.x.shape)
        v = probes[:, None].expand(-1, *self.x.shape)
        parts = v.split(max(1, AT_ONCE // self.x.numel()))
        return torch.cat([self._pull(part) for part in parts]) if len(parts) > 1 else self._pull(v)

    def _pull(self, v: Tensor) -> Tensor:
        """v [P, B, D] from the left: at once, or one by one where f has an operation that cannot."""
        try:
            return self._grad(v, is_grads_batched=True)
        except RuntimeError:
            return torch.stack([self._grad(one) for one in v])

    def _grad(self, v: Tensor, **how: bool) -> Tensor:
        (found,) = torch.autograd.grad(
            self.f, self.x, v, retain_graph=True, create_graph=self.graph, materialize_grads=True, **how
        )
        return found

    def pull(self, v: Tensor) -> Tensor:
        """v^T df/dx of every sample, v [B, D]."""
        return self._grad(v) if self.f.requires_grad else torch.zeros_like(v)

    def times(self, v: Tensor) -> Tensor:
        """df/dx v of every sample, v [B, D]."""
        return torch.zeros_like(v) if self._pulled[1] is None else self._push(*self._pulled, v)

    @property
    def by_time(self) -> Tensor | None:
        """df/dt [B, D], None where t does not enter."""
        u, pulled = self._pull_back(self.t)
        return None if pulled is None else self._push(u, pulled, torch.ones_like(self.t))

    @cached_property
    def _pulled(self) -> tuple[Tensor, Tensor | None]:
        return self._pull_back(self.x)

    def _pull_back(self, by: Tensor) -> tuple[Tensor, Tensor | None]:
        """u, and u^T df/dx or df/dt as a function of it, which is linear."""
        with torch.inference_mode(False), torch.enable_grad():  # u too, or nothing is
            u = torch.zeros_like(self.x, requires_grad=True)
            if not self.f.requires_grad:
                return u, None
            found = torch.autograd.grad(
                self.f, by, u, create_graph=True, retain_graph=True, allow_unused=True
            )[0]
        return u, found if found is not None and found.requires_grad else None

    def _push(self, u: Tensor, pulled: Tensor | None, v: Tensor) -> Tensor:
        """The derivative of what was pulled back, by u: a product from the right."""
        assert pulled is not None
        v = v.clone()  # of a complex state it may be viewed in pairs, which a part of a row need not begin at
        (found,) = torch.autograd.grad(
            pulled, u, v, retain_graph=True, create_graph=self.graph, materialize_grads=True
        )
        return found


def vector(x: Tensor) -> Tensor:
    """A state [B, ...] as real numbers [B, D]: a complex one is its parts."""
    x = torch.view_as_real(x) if x.is_complex() else x
    return x.flatten(1) if x.ndim > 1 else x[:, None]


def shaped(v: Tensor, x: Tensor) -> Tensor:
    """`vector` undone: v [B, D] in the shape and dtype of x."""
    if x.is_complex():
        return torch.view_as_complex(v.reshape(*x.shape, 2))
    return v.view(x.shape)


def given(jacobian: Callable[[Tensor, Tensor], Tensor], x0: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A user's jacobian(t, x), on vectors, and what it returns checked: [B, D, D]."""
    if x0.is_complex():
        raise ArgumentError("jacobian= is for real states: leave it out, or write x as its parts")
    shape = (len(x0), x0[0].numel(), x0[0].numel())

    def checked(t: Tensor, v: Tensor) -> Tensor:
        found = jacobian(t, shaped(v, x0))
        if not isinstance(found, Tensor) or found.shape != shape:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise SolveError(f"jacobian returned {what} for x of {tuple(x0.shape)}: return df/dx, {shape}")
        return found.to(v)

    return checked
