"""A step of columns as C++: a loop over samples, each of which turns until it has ended.

A graph here is elementwise over the batch once `columns.Apart` has taken it apart. LANES samples are a block:
what they carry stays in the nearest cache, and their step is straight code, for which a C compiler finds
vector instructions. Where one has ended the next takes its lane, so nobody waits for others, and between
steps there is no call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from ..columns import Apart, product
from ..operations import aten, prims

MEMORY = {
    torch.float64: "double", torch.float32: "float", torch.int64: "int64_t", torch.int32: "int32_t",
    torch.bool: "uint8_t",
}  # fmt: skip
LANE = {"D": "double", "F": "float", "M": "int64_t", "I": "int32_t"}  # of a vector
VECTOR = {torch.float64: "D", torch.float32: "F", torch.int64: "M", torch.int32: "I", torch.bool: "M"}
ONE = (
    "sqrt", "fabs", "exp", "log", "sin", "cos", "tan", "floor", "ceil", "sinh", "cosh", "atan", "asin",
    "acos", "log2", "log10", "erf",
)  # fmt: skip
OWN = ("tanh", "log1p", "expm1")  # as `lanes.h` has them
TWO = ("pow", "hypot", "fmin", "fmax", "atan2")
LANES = 8  # as `lanes.h` has it


def prelude() -> str:
    """What all loops begin with."""
    lanes = Path(__file__).with_name("lanes.h").read_text()
    lifted = [f"BOTH(OF_ONE, {name})" for name in ONE] + [f"BOTH(OF_TWO, {name})" for name in TWO]
    return "\n".join((lanes, *lifted, ""))


class Unsuited(Exception):
    """What a loop over samples does not know."""


def _forms(form: str, *names: str) -> dict[Any, Callable[..., str]]:
    return {getattr(aten, name): form.format for name in names}


def _power(x: str, y: str) -> str:
    """As torch has it: of small exponents no logarithm."""
    small = {
        "2.0": f"{x} * {x}", "3.0": f"{x} * {x} * {x}", "0.5": f"v_sqrt({x})", "-0.5": f"1 / v_sqrt({x})",
        "-1.0": f"1 / {x}", "-2.0": f"1 / ({x} * {x})", "1.0": x,
    }  # fmt: skip
    found = NUMBER.fullmatch(y)
    return small.get(found[2].removeprefix("(float)") if found else "") or f"v_pow({x}, {y})"


OPS: dict[Any, Callable[..., str]] = {
    **_forms("{0} + {1}", "add"), **_forms("{0} - {1}", "sub"), **_forms("{0} * {1}", "mul"),
    **_forms("{0} / {1}", "div"), **_forms("-{0}", "neg"), **_forms("1 / {0}", "reciprocal"),
    **_forms("{0} * {0}", "square"), **_forms("truth({0} == {1})", "eq"), **_forms("truth({0} != {1})", "ne"),
    **_forms("truth({0} < {1})", "lt"), **_forms("truth({0} <= {1})", "le"),
    **_forms("truth({0} > {1})", "gt"), **_forms("truth({0} >= {1})", "ge"),
    **_forms("truth({0} != {0})", "isnan"),
    **_forms("truth(v_fabs({0}) == INFINITY)", "isinf"), **_forms("~{0}", "bitwise_not"),
    **_forms("{0} & {1}", "bitwise_and"), **_forms("{0} | {1}", "bitwise_or"),
    **_forms("truth({0} == 0)", "logical_not"), **_forms("truth({0} != 0) & truth({1} != 0)", "logical_and"),
    **_forms("truth({0} != 0) | truth({1} != 0)", "logical_or"),
    **_forms("{0} ^ {1}", "bitwise_xor"), **_forms("{0} >> {1}", "__rshift__"),
    **_forms("choose({0}, {1}, {2})", "where"),
    **_forms("v_fabs({0})", "abs"), **_forms("1 / v_sqrt({0})", "rsqrt"),
    **_forms("1 / (1 + v_exp(-{0}))", "sigmoid"), aten.pow: _power,
    **_forms("{0} - {1} * v_floor({0} / {1})", "remainder"),
    **{getattr(aten, f): f"{f}({{0}})".format for f in ("sign", "relu")},
    **{getattr(aten, f): f"{f}({{0}}, {{1}})".format for f in ("minimum", "maximum")},
    **{getattr(aten, f): f"{f}({{0}}, {{1}})".format for f in ("clamp_min", "clamp_max")},
    **{getattr(aten, f): f"v_{f}({{0}})".format for f in (*ONE, *OWN) if f != "fabs"},
    **{getattr(aten, f): f"v_{f}({{0}}, {{1}})".format for f in TWO},
}  # fmt: skip
VIEWS = (
    aten.permute.default, aten.view.default, aten.select.int, aten.slice.Tensor, aten.alias.default,
    aten.detach.default,
)  # fmt: skip
NUMBER = re.compile(r"all<(.)>\((.*)\)")


def number(value: Any, kind: torch.dtype) -> str:
    """A Python number in all lanes, in the precision of the tensor that it is an element of."""
    if not kind.is_floating_point:
        return f"all<{VECTOR[kind]}>({-int(value) if kind is torch.bool else int(value)})"
    text = repr(float(value)).replace("inf", "INFINITY").replace("nan", "NAN")
    return f"all<{VECTOR[kind]}>({'' if kind is torch.float64 else '(float)'}{text})"


class Block:
    """The text of a loop, line by line.

    shared: what is the same for all samples.  loads, stores: between memory and a lane of the vectors.
    turn: one step.  vectors: that a block holds from turn to turn, and their types.
    """

    def __init__(self, apart: Apart, inputs: Sequence[Node]) -> None:
        self.apart, self.inputs = apart, {node: i for i, node in enumerate(inputs)}
        self.shared, self.loads, self.turn = list[str](), list[str](), list[str]()
        self.kept, self.stores = list[str](), list[str]()
        self.vectors: dict[str, str] = {}
        self.names: dict[Node, str] = {}
        self.wide = set[Node]()  # what differs from sample to sample

    # Elements by name

    def value(self, one: Any, kind: torch.dtype) -> str:
        return self.name(one) if isinstance(one, Node) else number(one, kind)

    def name(self, node: Node) -> str:
        """The name of an element, which is worked out before it is first asked for."""
        waiting = [node]
        while waiting:  # deep chains: no recursion
            last = waiting[-1]
            given: Any = last.args[0] if last.target is product else last.all_input_nodes
            missing = [] if self.given(last) else [a for a in given if a not in self.names]
            if last in self.names or not missing:
                waiting.pop()
                if last not in self.names:
                    self.names[last] = self.defined(last)
            waiting += missing
        return self.names[node]

    def given(self, node: Node) -> bool:
        """Whether it is there, and nothing it is made of need be."""
        return self.place(node) is not None

    def place(self, node: Node) -> tuple[int, int, int] | None:
        """Of an element of an input: which one, how far in it, and how far apart samples are (0: shared)."""
        chosen = list[tuple[int, int]]()
        while node.target is aten.select.int:
            node, dim, at = node.args  # type: ignore[assignment]
            chosen.append((dim, at))  # type: ignore[arg-type]
        if node not in self.inputs:
            return None
        value = node.meta["val"]
        strides, axis, offset = list(value.stride()), self.apart.along(value.shape), 0
        each = 0 if axis is None else strides[axis]
        for dim, at in reversed(chosen):
            offset += at * strides.pop(dim)
        return self.inputs[node], offset, each

    def held(self, kind: torch.dtype, first: str) -> str:
        """A vector of a block, each lane of which is this at first."""
        name = f"h{len(self.vectors)}"
        self.vectors[name] = VECTOR[kind]
        self.loads.append(f"{name}_[l] = {first};")
        return name

    def at(self, place: tuple[int, int, int], kind: torch.dtype) -> str:
        """An element of an input in memory, of sample i."""
        which, offset, each = place
        return f"{'-' if kind is torch.bool else ''}p{which}[{offset}{f' + i * {each}' if each else ''}]"

    def loaded(self, node: Node, place: tuple[int, int, int], kind: torch.dtype) -> str:
        """An element of an input, read where it is first needed."""
        if not place[2]:
            return self.line(self.shared, kind, f"all<{VECTOR[kind]}>({self.at(place, kind)})")
        self.wide.add(node)
        return self.held(kind, self.at(place, kind))

    def line(self, where: list[str], kind: torch.dtype, text: str) -> str:
        name = f"v{len(self.shared) + len(self.turn)}"
        where.append(f"const {VECTOR[kind]} {name} = {text};")
        return name

    def defined(self, node: Node) -> str:
        """An operation, as a line where it belongs."""
        kind, place = node.meta["val"].dtype, self.place(node)
        if kind not in VECTOR:
            raise Unsuited(str(kind))
        if place:
            return self.loaded(node, place, kind)
        if node.target is aten.full.default:
            return number(node.args[1], kind)
        if node.target is product:
            return self.multiplied(node, kind)
        if node.target is aten.select.int and node.args[0].target is product:  # type: ignore[union-attr]
            self.wide.add(node)
            return f"{self.names[node.args[0]]}[{node.args[2]}]"  # type: ignore[index]
        if self.wide.isdisjoint(node.all_input_nodes):
            return self.line(self.shared, kind, self.operation(node, kind))
        self.wide.add(node)
        return self.line(self.turn, kind, self.operation(node, kind))

    def multiplied(self, node: Node, kind: torch.dtype) -> str:
        """An array: a row of elements times a matrix in memory."""
        row, matrix = node.args
        which, offset, strides = self.lies(matrix)  # type: ignore[arg-type]
        name, V = f"m{len(self.turn)}", VECTOR[kind]
        sizes = len(row), node.meta["val"].shape[1], *strides  # type: ignore[arg-type]
        given = ", ".join(self.names[one] for one in row)  # type: ignore[union-attr, index]
        self.wide.add(node)
        self.turn.append(f"const {V} {name}_[] = {{{given}}}; {V} {name}[{sizes[1]}];")
        self.turn.append(f"product<{', '.join(map(str, sizes))}>(p{which} + {offset}, {name}_, {name});")
        return name

    def lies(self, node: Node) -> tuple[int, int, tuple[int, ...]]:
        """Where a view of an input is: which one, how far in it, and its strides."""
        value, base = node.meta["val"], node
        while base not in self.inputs:
            if base.target not in VIEWS:
                raise Unsuited("a large matrix that is no input")
            base = base.args[0]  # type: ignore[assignment]
        return self.inputs[base], value.storage_offset() - base.meta["val"].storage_offset(), value.stride()

    def operation(self, node: Node, kind: torch.dtype) -> str:
        if node.target is prims.convert_element_type.default:
            x = self.value(node.args[0], kind)
            old, new = node.args[0].meta["val"].dtype, VECTOR[kind]  # type: ignore[union-attr]
            if kind is torch.bool:
                return f"truth({x} != 0)"
            return f"as<{new}>({'-' if old is torch.bool else ''}{x})"
        packet = getattr(node.target, "overloadpacket", None)
        if packet not in OPS or set(node.kwargs) - {"alpha"}:
            raise Unsuited(str(node.target))
        kinds = {a.meta["val"].dtype for a in node.all_input_nodes} - {torch.bool}
        inner = kinds.pop() if kinds else torch.bool
        if kinds:
            raise Unsuited(f"{node.target} of several dtypes")
        args = [self.value(a, inner) for a in node.args]
        if node.kwargs.get("alpha", 1) != 1:
            args[1] = f"({number(node.kwargs['alpha'], inner)} * {args[1]})"
        return OPS[packet](*args)

    # What is carried from turn to turn, and what is seen of the last

    def carry(self, node: Node) -> str:
        """The vector of an element that changes from turn to turn; in a turn it is what it was before."""
        kind, place = node.meta["val"].dtype, self.place(node)
        if place is None:
            raise Unsuited("a state that is no input")
        held = self.held(kind, self.at(place, kind))
        self.wide.add(node)
        self.names[node] = self.line(self.turn, kind, held)
        return held

    def become(self, held: str, one: Any, kind: torch.dtype) -> None:
        self.kept.append(f"{held} = {self.value(one, kind)};")

    def see(self, one: Any, kind: torch.dtype, live: str) -> str:
        """The vector that keeps an element of the last turn in which a sample was live."""
        held = self.held(kind, "0")
        self.kept.append(f"{held} = choose({live}, {self.value(one, kind)}, {held});")
        return held

    def store(self, names: Iterable[str], which: int, shape: Sequence[int], kind: torch.dtype) -> None:
        """Elements of a block to an output, which is contiguous."""
        axis = self.apart.along(shape)
        strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
        sizes = [1 if d == axis else n for d, n in enumerate(shape)]
        for name, at in zip(names, np.ndindex(*sizes), strict=True):
            offset = sum(a * b for a, b in zip(at, strides, strict=True))
            each, sign = 0 if axis is None else strides[axis], "-" if kind is torch.bool else ""
            self.stores.append(f"q{which}[{offset} + i * {each}] = {sign}{name}_[l];")

    def source(self, outputs: Sequence[torch.dtype], live: str) -> str:
        """Turns until a lane is idle, whose sample then goes back to memory and the next comes.

        name_: the lanes of a vector in memory.  sample: in each lane, -1 for none.  left: turns that a sample
        may still take.  at_once: whether a sample has come that has nothing to do.
        """
        kinds = [MEMORY[node.meta["val"].dtype] for node in self.inputs]
        pointers = [f"const {c} *__restrict p{k} = (const {c} *)given[{k}];" for k, c in enumerate(kinds)]
        kinds = [MEMORY[kind] for kind in outputs]
        pointers += [f"{c} *__restrict q{k} = ({c} *)made[{k}];" for k, c in enumerate(kinds)]
        vectors = {**self.vectors, "left": "M", "idle": "M"}
        out = [f"memcpy({name}_, &{name}, sizeof {name});" for name in vectors]
        back = [f"memcpy(&{name}, {name}_, sizeof {name});" for name in vectors]
        return "\n".join((
            prelude(),
            'extern "C" void run(int64_t n, int64_t turns, int64_t *next, void **given, void **made) {',
            *pointers, *self.shared,
            *(f"{kind} {name} = {{}}; {LANE[kind]} {name}_[LANES];" for name, kind in vectors.items()),
            "int64_t sample[LANES];", "EACH sample[l] = -1;", "idle -= 1;",
            "for (;;) {",
            *out,
            "bool some = false, at_once = false;",
            "ROLLED EACH {",
            "if (idle_[l]) {",
            "if (sample[l] >= 0) {", "const int64_t i = sample[l];", *self.stores, "}",
            "const int64_t taken = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);",
            "const int64_t i = taken < n ? taken : n - 1;",
            "sample[l] = taken < n ? taken : -1;", "left_[l] = turns;", *self.loads,
            f"if (sample[l] < 0) {live}_[l] = 0;",
            f"idle_[l] = ~{live}_[l];", "}",
            "some |= sample[l] >= 0;", "at_once |= sample[l] >= 0 && idle_[l];", "}",
            *back,
            "if (!some) return;",
            "if (at_once) continue;",
            "M now;",
            "do {", *self.turn, *self.kept, f"now = ~({live} & (--left > 0));", "} while (!any(now ^ idle));",
            "idle = now;",
            "}", "}",
        ))  # fmt: skip
