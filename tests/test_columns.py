"""Graphs taken apart into columns: the same numbers, and nothing left but what is elementwise."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from longstride.columns import Columns, columnwise
from longstride.nbody import Gravity
from longstride.steppers.summation import two_sum

F64 = torch.float64
Step = Callable[..., Any]


def leap(q: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """A step of leapfrog, whose masses a graph is given."""
    bodies = object.__new__(Gravity)
    bodies.__dict__.update(masses=m, G=1.5, softening=0.1)
    v = v + 0.05 * bodies.acceleration(q)
    return q + 0.1 * v, v


def mixing(q: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """What changes shapes: halves, rows, sums, a largest element, a transpose, numbers of no tensor."""
    both = torch.cat([q.flatten(1), v.flatten(1)], 1).view(len(q), 2, *q.shape[1:])
    first, second = both.unbind(1)
    turned = torch.stack([second[..., 1], -first[..., 0]], -1).movedim(-1, 1)
    largest = both.abs().amax((1, 2, 3)).view(-1, 1, 1)
    where = torch.where(first > 0, first / largest, 2.0) * m.sum(-1)[..., None, None].expand(len(q), 1, 1)
    return where[:, :, :2] + turned.sum(-1)[:, None], torch.arange(q.shape[1]).view(-1, 1) * second


def apart(step: Step, *x: Tensor) -> GraphModule:
    from torch._inductor.decomposition import select_decomp_table

    found = make_fx(step, tracing_mode="fake", decomposition_table=select_decomp_table())(*x)
    Columns()(found.graph)
    found.recompile()
    return found


def bodies(batch: int, n: int, d: int, each: bool) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    q, v = (torch.randn(batch, n, d, generator=g, dtype=F64) for _ in range(2))
    return (
        q,
        v,
        torch.rand(batch, n, generator=g, dtype=F64) if each else torch.rand(n, generator=g, dtype=F64),
    )


@pytest.mark.parametrize("step", [leap, mixing])
@pytest.mark.parametrize(
    ("batch", "n", "d", "each"), [(50, 3, 2, False), (50, 4, 3, True), (3, 3, 2, False), (2, 2, 2, True)]
)
def test_the_same_numbers(step: Step, batch: int, n: int, d: int, each: bool) -> None:
    """Also where the batch is as many as the bodies, and cannot be told from them."""
    x = bodies(batch, n, d, each)
    for a, b in zip(step(*x), apart(step, *x)(*x), strict=True):
        assert torch.allclose(a, b, rtol=1e-15, atol=1e-16)


def test_a_step_of_bodies_is_elementwise() -> None:
    """Until it is put together again nothing has a second dimension."""
    found = apart(leap, *bodies(50, 3, 2, False))
    shapes = [(str(n.target), n.meta["val"].shape) for n in found.graph.nodes if n.op == "call_function"]
    wide = {name for name, shape in shapes if len(shape) > 1 and 50 in shape}
    joins = {"aten.unsqueeze.default", "aten.cat.default", "aten.reshape.default", "aten.permute.default"}
    assert wide <= joins | {"aten.select.int"}  # how elements are read


def test_many_elements_stay_together() -> None:
    """More than 64 a sample would be more nodes than they are worth."""
    x = bodies(50, 40, 2, False)
    before = make_fx(leap, tracing_mode="fake")(*x)
    after = make_fx(leap, tracing_mode="fake")(*x)
    Columns()(after.graph)
    assert len(after.graph.nodes) <= len(before.graph.nodes)


def test_activations_between_layers_stay_together() -> None:
    """A hidden layer of 32 would be read by columns, and be put together again; what sums rows is not."""
    g = torch.Generator().manual_seed(0)
    A, B, k = (torch.randn(*shape, generator=g, dtype=F64) for shape in ((3, 32), (32, 3), (3, 8)))

    def step(x: Tensor, A: Tensor, B: Tensor, k: Tensor) -> Tensor:
        return torch.tanh(x @ A + 1) @ B + (torch.sin(x[..., None] * k) * k).sum(-1)

    found = apart(step, x := torch.randn(50, 3, generator=g, dtype=F64), A, B, k)
    shapes = {
        name: {tuple(n.meta["val"].shape) for n in found.graph.nodes if name in str(n.target)}
        for name in ("tanh", "sin")
    }
    assert shapes == {"tanh": {(50, 32)}, "sin": {(50,)}}
    assert torch.allclose(found(x, A, B, k), step(x, A, B, k), rtol=1e-14, atol=1e-14)


def test_compiled_sums_lose_nothing() -> None:
    """A compiler that took sums for associative would find that nothing is lost."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, generator=g, dtype=F64) * s for s in (1.0, 1e-5))
    total, lost = torch.compile(two_sum, fullgraph=True, options=columnwise(False))(a, b)
    assert float(lost.abs().min()) > 0
    for parts in zip(*(part.tolist() for part in (a, b, total, lost)), strict=True):
        one, other, whole, rest = map(Fraction, parts)
        assert one + other == whole + rest
