"""Operations of torch by what they do to elements, and what becomes of their arguments on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten
prims = torch.ops.prims
ARITHMETIC = (
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.abs.default,
    aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default, aten.pow.Tensor_Scalar,
    aten.pow.Tensor_Tensor, aten.exp.default, aten.log.default, aten.sin.default, aten.cos.default,
    aten.tanh.default, aten.sigmoid.default, aten.square.default, aten.hypot.default, aten.sign.default,
    aten.minimum.default, aten.maximum.default, aten.fmin.default, aten.fmax.default,
    aten.clamp_min.default, aten.clamp_max.default, aten.add.Scalar, aten.mul.Scalar, aten.atan2.default,
    aten.tan.default, aten.sinh.default, aten.cosh.default, aten.asin.default, aten.acos.default,
    aten.atan.default, aten.log1p.default, aten.expm1.default, aten.log2.default, aten.log10.default,
    aten.erf.default, aten.floor.default, aten.ceil.default, aten.remainder.Scalar,
    aten.remainder.Tensor, aten.pow.Scalar, aten.relu.default, aten.__rshift__.Scalar,
    aten.bitwise_and.Scalar, aten.bitwise_xor.Scalar,
)  # fmt: skip
LOGICAL = (
    aten.eq.Tensor, aten.eq.Scalar, aten.ne.Tensor, aten.ne.Scalar, aten.lt.Tensor, aten.lt.Scalar,
    aten.le.Tensor, aten.le.Scalar, aten.gt.Tensor, aten.gt.Scalar, aten.ge.Tensor, aten.ge.Scalar,
    aten.isnan.default, aten.isinf.default, aten.logical_and.default, aten.logical_or.default,
    aten.logical_not.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor,
    aten.bitwise_not.default, aten.where.self, prims.convert_element_type.default,
)  # fmt: skip
APIECE = (
    aten.isnan.default, aten.isinf.default, aten.logical_and.default, aten.logical_or.default,
    aten.logical_not.default, prims.convert_element_type.default,
)  # fmt: skip
TRUTHS = {  # what arithmetic of truths alone is
    aten.add.Tensor: aten.bitwise_or.Tensor, aten.mul.Tensor: aten.bitwise_and.Tensor,
    aten.maximum.default: aten.bitwise_or.Tensor, aten.minimum.default: aten.bitwise_and.Tensor,
}  # fmt: skip
BITS = (
    aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor, aten.bitwise_not.default,
    aten.where.self,
)  # fmt: skip
REDUCTIONS = {
    aten.sum.dim_IntList: aten.add.Tensor, aten.amax.default: aten.maximum.default,
    aten.amin.default: aten.minimum.default, aten.any.dim: aten.logical_or.default,
    aten.any.dims: aten.logical_or.default,
}  # fmt: skip
CONSTANTS = (aten.full.default, aten.scalar_tensor.default, aten.arange.default, prims.iota.default)


def worked_in(node: Any, value: Tensor) -> torch.dtype | None:
    """What torch makes of the arguments of an elementwise operation before it works on them.

    Truths are numbers where they are compared. Operations of APIECE take each argument as it is: then this is
    what the numbers among them are, and None where they are several things.
    """
    given = [a.meta["val"] if isinstance(a, Node) else a for a in node.args]
    if node.target in APIECE:
        kinds = {v.dtype for v in given if isinstance(v, Tensor)} - {torch.bool}
        return None if len(kinds) > 1 else kinds.pop() if kinds else torch.bool
    given = given[-2:]
    kind = torch.result_type(given[0], given[-1])
    if value.dtype.is_floating_point and not (kind.is_floating_point or kind.is_complex):
        return value.dtype  # a quotient or a sine of integers
    compared = node.target in LOGICAL and node.target not in BITS
    return torch.int64 if compared and kind is torch.bool else kind


def simpler(op: Any, args: Sequence[Any], wide: Sequence[int]) -> Any:
    """What a 0 or 1 in a tensor leaves of a product or sum: derivatives along a unit vector are full of them.

    A 0 that somebody has written stays: it may be there to let NaN through.
    """
    plain = [args[i] for i in wide if isinstance(args[i], float)]
    if len(plain) != 1 or len(args) != 2 or op not in (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor,
                                                       aten.div.Tensor):  # fmt: skip
        return None
    first, other = args
    if not isinstance(first, Node) and not isinstance(other, Node):
        return None
    number, rest = plain[0], first if isinstance(first, Node) else other
    if op is aten.mul.Tensor:
        return 0.0 if number == 0 else rest if number == 1 else None
    if op is aten.add.Tensor:
        return rest if number == 0 else None
    return rest if rest is first and number == (op is aten.div.Tensor) else None
