"""Loops in C++ are the recorded step, taken sample by sample until each has ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.adaptive import chunks
from longstride.native import library, steps

F64 = torch.float64
NAN, INF = math.nan, math.inf
ONE = (
    "abs", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "asin",
    "acos", "atan", "log1p", "expm1", "log2", "log10", "erf", "sigmoid", "square", "sign", "neg", "floor",
    "ceil", "isnan", "isinf", "isfinite", "nan_to_num", "relu",
)  # fmt: skip
TWO = (
    "add", "sub", "mul", "div", "minimum", "maximum", "fmin", "fmax", "hypot", "atan2", "pow", "lt", "le",
    "gt", "ge", "eq", "ne", "logical_and", "logical_or",
)  # fmt: skip


def once(owner: object, made: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> tuple[Tensor, ...]:
    """What a function of columns gives, as the only turn of a loop."""

    def turn(at: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        live, *rest = at
        return (torch.zeros_like(live), *rest), made(*rest)

    live = torch.ones(len(given[0]), dtype=torch.bool)
    return steps.turned(owner, turn, (live, *given))[1]


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_operations_are_those_of_torch(dtype: torch.dtype) -> None:
    """Also at NaN, infinity, zeros of both signs; transcendental ones within 4 units in the last place."""
    special = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 1e-7, 0.3, 0.62, -7.5, 100.0], dtype=dtype)
    a, b = (v.flatten() for v in torch.meshgrid(special, special, indexing="ij"))

    def made(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        ones = [getattr(torch, op)(a) for op in ONE]
        twos = [getattr(torch, op)(a, b) for op in TWO]
        powers = [
            a**2,
            a**3,
            a**0.5,
            a**-1,
            a**0.2,
            2**a,
            a.clamp(-2, 3),
            a.clamp_min(0),
            torch.addcmul(a, a, b, value=2),
        ]
        return (*ones, *twos, *powers, torch.where(a < b, a, 1.0), (a < b).to(dtype), a.to(torch.float32) + 1)

    names = (*ONE, *TWO, *(f"power {k}" for k in range(12)))
    for name, found, expected in zip(names, once(made, made, a, b), made(a, b), strict=True):
        exact = name not in ("tan", "sinh", "cosh", "asin", "acos", "erf")  # of those torch has its own
        slack = 0 if found.dtype is torch.bool else (5 if exact else 20) * torch.finfo(dtype).eps
        assert found.dtype is expected.dtype, name
        assert torch.allclose(found, expected, rtol=slack, atol=0, equal_nan=True), name


def test_what_is_written_across_a_sample() -> None:
    """Shifts, pads, places, halves, what is written into, products, means, constants, precisions."""
    x = torch.randn(40, 4, dtype=F64, generator=torch.Generator().manual_seed(0))

    def made(x: Tensor) -> tuple[Tensor, ...]:
        written = torch.empty_like(x)
        written[:, 0] = x[:, 1]
        written[:, 1:] = -x[:, :3]
        A = torch.tensor([[0.0, 1.0, 2.0, 0.0], [-1.0, 0.5, 0.0, 3.0]], dtype=F64)
        padded = torch.nn.functional.pad(x, (1, 2), value=0.5)
        return (
            torch.roll(x, (1, -2), (1, 1)), padded[:, 1:] - padded[:, :-1], x[:, [2, 0, 0]], written, x @ A.T,
            torch.einsum("ij,bj->bi", A, x), (A @ x[..., None])[..., 0], x.mean(1), x.norm(dim=1),
            torch.remainder(x, 0.3), torch.nn.functional.gelu(x),
            torch.where(x > 0, 1.0, -1.0)[:, :2] * x[:, 2:],
            torch.cat(x.chunk(2, 1)[::-1], 1), x.view(-1, 2, 2).transpose(1, 2).flatten(1), x.amax(1),
            x.flip(1),
        )  # fmt: skip

    for found, expected in zip(once(made, made, x), made(x), strict=True):
        assert found.dtype is expected.dtype
        assert torch.allclose(found, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("batch", [40, 300])
def test_large_matrices_are_multiplied_in_loops(batch: int, dtype: torch.dtype) -> None:
    """Layers of a network, rows or columns of a matrix that is kept otherwise, of sizes that fill no tile."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 21, dtype=dtype, generator=g)
    layers = [torch.nn.Linear(21, 67), torch.nn.Linear(67, 40), torch.nn.Linear(40, 3)]
    net = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.SiLU(), layers[2]).to(dtype)
    W = torch.randn(2, 30, 21, dtype=dtype, generator=g)

    def made(x: Tensor) -> tuple[Tensor, ...]:
        wide = x @ W[1].T
        return (
            net(x),
            wide,
            torch.cat((x, torch.ones_like(x)), 1)[:, :30] @ W[0],
            0.5 * (wide @ W[0, :, 2:]) + 1,
        )

    with torch.no_grad():
        for found, expected in zip(once(made, made, x), made(x), strict=True):
            assert found.dtype is expected.dtype
            assert torch.allclose(found, expected, rtol=0, atol=100 * torch.finfo(dtype).eps)


def test_types_are_promoted_as_torch_does_it() -> None:
    """Truths are 0 and 1 where they are numbers, integers beside fractions are no integers, alpha counts."""
    x = torch.randn(40, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    k, half = torch.arange(4), torch.tensor([1.5, 2.0, 0.0, 1.0])

    def made(x: Tensor) -> tuple[Tensor, ...]:
        up, near = x > 0, x < 1
        written = torch.zeros_like(half).expand(len(x), 4).clone()
        written[:, 0] = 0.1
        tenth = torch.full_like(x[:, 0], 0.1)
        return (
            up * k, up + k, up + 1, up & k, up < 1, up >= near, up * x, up * 0.5, up.sum(1), near.any(1),
            up + near, up * near, torch.isfinite(x / up), up.amax(1), up.amin(1),
            up * torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=F64), torch.where(k < 0.5, x, -x), k / 2 * x,
            k * 0.5 * x, torch.exp(k) * x, x * half, x.float() * half, written * x,
            torch.where(up, x, k), torch.stack([near.long(), up], 1),
            torch.cat([x, up], 1), torch.stack([x[:, 0], up[:, 1]], 1), torch.zeros_like(x).add(x, alpha=2),
            torch.stack([x[:, 0], tenth], 1), torch.stack([tenth, tenth], 1).sum(1) * x[:, 0],
        )  # fmt: skip

    for n, (found, expected) in enumerate(zip(once(made, made, x), made(x), strict=True)):
        assert found.dtype is expected.dtype, n
        assert torch.allclose(found, expected, rtol=1e-6 if n == 19 else 1e-15, atol=1e-16), n


def test_one_tensor_may_stand_in_two_places() -> None:
    """As what a method carries is at the start."""

    def turn(at: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        live, x, y = at
        return (live & (y < 5), x + y, y + 1), ()

    one = torch.ones(10, dtype=F64)
    (_, x, y), _ = steps.turned(turn, turn, (torch.ones(10, dtype=torch.bool), one, one))
    assert (x[0], y[0]) == (1 + 1 + 2 + 3 + 4 + 5, 6)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 7, 300])
def test_each_sample_takes_its_own_turns(batch: int, threads: int) -> None:
    """Collatz' rule until 1: as many turns as the sequence is long, whatever lanes others have and take.

    Every third does not take part, and stays as it is.
    """

    def turn(at: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        live, n, count = at
        half = torch.floor(n / 2)
        after = torch.where(half * 2 == n, half, 3 * n + 1)
        after = torch.where(live, after, n)
        return (live & (after != 1), after, count + live.to(count.dtype)), (n,)

    numbers = list(range(2, 2 + batch))
    n, part = torch.tensor(numbers, dtype=F64), [k % 3 != 0 for k in numbers]
    torch.set_num_threads(threads)
    try:
        at = torch.tensor(part), n, torch.zeros(batch, dtype=torch.int64)
        (live, end, count), (before,) = steps.turned(turn, turn, at)
    finally:
        torch.set_num_threads(1)

    def length(k: int) -> int:
        return 0 if k == 1 else 1 + length(k // 2 if k % 2 == 0 else 3 * k + 1)

    assert not live.any()
    assert end.tolist() == [1 if takes else k for k, takes in zip(numbers, part, strict=True)]
    assert count.tolist() == [length(k) if takes else 0 for k, takes in zip(numbers, part, strict=True)]
    assert before.tolist() == [2 if takes else 0 for takes in part]  # of the last turn that it took itself


def lorenz(t: Tensor, x: Tensor) -> Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but native loops, and the steps that they leave to the host."""

    def other(*given: object, **options: object) -> None:
        raise AssertionError("not a native loop")

    monkeypatch.setattr(chunks, "compiled", other)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rtol": 1e-9, "t": (1, 1.5)},
        {"save_at": [0.0, 0.1, 0.11, 0.12, 1.9, 2.0]},
        {"max_steps": 50},
        {"nfe": 203, "save_at": [0.1, 0.2, 0.3]},
        {"events": [ls.Event(lambda t, x: x[:, 0], terminal=False), ls.Event(lambda t, x: x[:, 2] - 40)]},
    ],
)
@pytest.mark.parametrize("batch", [1, 5, 100])
def test_the_run_is_the_plain_one(options: dict, batch: int) -> None:
    x0 = 1 + torch.randn(batch, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    options = {"t": (0, 2), "grad": False, **options}
    plain, run = (ls.solve(ls.ODE(lorenz), x0, compile=c, **options) for c in (False, True))
    assert run.status == plain.status
    for name in ("nfe_each", "accepted", "rejected"):
        assert torch.equal(getattr(run.stats, name), getattr(plain.stats, name))
    assert torch.allclose(run.x, plain.x, rtol=1e-8, atol=1e-9, equal_nan=True)
    assert torch.allclose(run.x_end, plain.x_end, rtol=1e-6, atol=1e-6)
    for seen, before in zip(run.events, plain.events, strict=True):
        assert torch.allclose(seen.t.sort()[0], before.t.sort()[0], rtol=1e-9)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("batch", [5, 80])
def test_parameters_are_read_at_every_run(batch: int) -> None:
    """x' = -k x with a k of each sample and a matrix for all: both may change between runs."""
    k, A = torch.linspace(0.5, 2, batch, dtype=F64), torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)

    def f(t: Tensor, x: Tensor) -> Tensor:
        return -k[:, None] * x + x @ A

    x0 = torch.ones(batch, 2, dtype=F64)
    for _ in range(2):
        out = ls.solve(ls.ODE(f), x0, t=(0, 1), rtol=1e-9, atol=1e-9, compile=True, grad=False).x[-1]
        exact = torch.exp(-k)[:, None] * (x0 @ torch.linalg.matrix_exp(A))
        assert torch.allclose(out, exact, rtol=1e-7)
        k.mul_(2)
        A.mul_(0.5)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("options", [{"dt": 0.1, "method": "rk4"}, {"rtol": 1e-8}])
def test_samples_may_be_counted(options: dict) -> None:
    """x' = -x/5 of five samples, where f divides by how many there are; also where it matters little."""
    x0 = torch.linspace(1, 2, 5, dtype=F64)[:, None]
    how = {"t": (0, 1), "compile": True, "grad": False, **options}
    out = ls.solve(ls.ODE(lambda t, x: -x / len(x)), x0, **how).x[-1]
    assert torch.allclose(out, x0 * math.exp(-0.2), rtol=1e-7)
    out = ls.solve(ls.ODE(lambda t, x: 1e-6 * len(x) - x), x0, **how).x[-1]
    assert torch.allclose(out, 5e-6 + (x0 - 5e-6) * math.exp(-1), rtol=1e-6)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("options", [{"dt": 0.03, "method": "rk4"}, {"rtol": 1e-8}])
def test_a_call_that_ends_early_is_followed_by_another(
    options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same bits, wherever it was cut: t comes from the number of the step."""
    problem = ls.ODE(lambda t, x: torch.cos(3 * t).view(-1, *(1,) * t.ndim) * x)
    x0 = torch.tensor([[0.3], [1.0]], dtype=F64)
    ends = []
    for turns in (steps.TURNS, 7):
        monkeypatch.setattr(steps, "TURNS", turns)
        run = ls.solve(problem, x0, t=(0, 2), compile=True, grad=False, save_at=[2.0], **options)
        ends.append(run.x)
        assert run.stats.steps > 2 * 7
    assert torch.equal(*ends)
    assert torch.allclose(ends[0][-1], x0 * math.exp(math.sin(6) / 3), rtol=1e-6)


def test_large_states_are_not_copied_for_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle samples beside one of a million elements would be gigabytes."""
    monkeypatch.setattr(steps, "compiled", lambda *given, **options: pytest.fail("recorded"))
    live, x = torch.ones(1, dtype=torch.bool), torch.ones(1, steps.MOST + 1)
    with pytest.raises(steps.Unsuited, match="elements"):
        steps.turned(live, lambda at: (at, ()), (live, x))
    assert not steps.counts(live, lambda t, x: pytest.fail("asked"), torch.zeros(()), x)


def test_a_step_that_is_no_loop_leaves_others_alone() -> None:
    """Of the same f and states: a sum over samples is none, a product with what is beside them is one."""

    def turn(at: tuple[Tensor, ...], by: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        live, x = at
        return (torch.zeros_like(live), x.sum(0) + 0 * x if by is None else by * x), ()

    at = torch.ones(5, dtype=torch.bool), torch.ones(5, 2)
    with pytest.raises(steps.Unsuited):
        steps.turned(turn, turn, at, None)
    (_, found), _ = steps.turned(turn, turn, at, torch.full((1,), 3.0))
    assert torch.equal(found, torch.full((5, 2), 3.0))


def test_a_stepper_repeats_as_often_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """x' = -x by Euler: (1 - h)^n."""
    monkeypatch.setattr(steps, "TURNS", 10)
    step = ls.stepper(ls.ODE(lambda t, x: -x), "euler", dt=0.01, compile=True)
    with torch.no_grad():
        out = step.repeat(torch.ones(3, 1, dtype=F64), 137)
    assert torch.allclose(out, torch.full_like(out, 0.99**137), rtol=1e-13)


def test_threads_share_the_samples() -> None:
    x0 = 1 + torch.randn(300, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    before, ends = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            ends.append(ls.solve(ls.ODE(lorenz), x0, t=(0, 2), compile=True, grad=False).x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*ends)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "compiler", lambda: None)
    with pytest.raises(ls.ArgumentError, match="install one"):
        library.library("int nothing;")
    monkeypatch.undo()
    with pytest.raises(ls.ArgumentError, match="does not compile"):
        library.library("not a program")


def test_a_library_that_is_not_whole_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one would end the process; what is whole and no library is refused by the system."""
    monkeypatch.setenv("LONGSTRIDE_CACHE", str(tmp_path))
    wanted = library.library.__wrapped__
    source = 'extern "C" int seven() { return 7; }'
    assert wanted(source).seven() == 7
    (path,) = tmp_path.glob("*.so")
    whole = path.read_bytes()
    for other in (whole[: len(whole) // 2], bytes(len(whole))):
        path.unlink()  # what is loaded stays
        path.write_bytes(other)
        assert wanted(source).seven() == 7
        assert path.stat().st_size == len(whole)


def test_where_nothing_can_be_kept_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGSTRIDE_CACHE", str(tmp_path / "file" / "folder"))
    with pytest.raises(ls.ArgumentError, match="set LONGSTRIDE_CACHE"):
        library.library.__wrapped__("int nothing;")
