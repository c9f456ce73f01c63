"""Splittings of x'' = a(t, x): orders, reversal, what they keep, what a step costs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import longstride as ls
from longstride.core import advance
from longstride.equal_steps import turns
from longstride.methods.symplectic import KICK, SYMPLECTIC, Splitting

F64 = torch.float64
NAMES = tuple(SYMPLECTIC)
E = 0.5


def attraction(t: Tensor, x: Tensor) -> Tensor:
    return -x / x.square().sum(-1, keepdim=True) ** 1.5


def pericentre(n: int = 1, e: float = E) -> tuple[Tensor, Tensor]:
    """Orbits of axis 1 and period 2 pi, turned by different angles."""
    angle = torch.arange(n, dtype=F64) * 0.7
    q = (1 - e) * torch.stack([angle.cos(), angle.sin()], 1)
    v = math.sqrt((1 + e) / (1 - e)) * torch.stack([-angle.sin(), angle.cos()], 1)
    return q, v


def energy(state: tuple[Tensor, Tensor]) -> Tensor:
    x, v = state
    return v.square().sum(-1) / 2 - 1 / x.norm(dim=-1)


def turning(state: tuple[Tensor, Tensor]) -> Tensor:
    x, v = state
    return x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]


class Pushed:
    """x'' = -x/|x|^3 + a push that depends on time, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return attraction(t, x) + 0.1 * torch.cos(t) * x.flip(-1)


def ended(problem: ls.ODE, n: int, method: str, end: float = 2.0, **how: object) -> Tensor:
    x, v = torch.tensor([[0.7, 0.1]], dtype=F64), torch.tensor([[0.1, 1.2]], dtype=F64)
    found = ls.solve(problem, (x, v), t=(0.0, end), method=method, steps=n, **how)
    return torch.cat(found.x_end, 1)


@pytest.fixture(scope="module")
def reference() -> Tensor:
    found = ls.solve(
        ls.SecondOrder(lambda t, x, v: Pushed()(t[:, None], x)),
        (torch.tensor([[0.7, 0.1]], dtype=F64), torch.tensor([[0.1, 1.2]], dtype=F64)),
        t=(0.0, 2.0), method="dopri8", rtol=1e-13, atol=1e-15,
    )  # fmt: skip
    return torch.cat(found.x_end, 1)


@pytest.mark.parametrize("name", NAMES)
def test_orders(name: str, reference: Tensor) -> None:
    """On a force that depends on time, so that a stage evaluated at another time would show."""
    order = SYMPLECTIC[name].order
    n = {2: 100, 4: 32, 6: 24, 8: 20}[order]
    n = 10 if name.startswith("blanes_moan_rkn_6") else 14 if name == "kahan_li_8" else n
    coarse, fine = ((ended(ls.Newton(Pushed()), k, name) - reference).abs().max() for k in (n, 2 * n))
    assert abs(math.log2(coarse / fine) - order) < 0.2


@pytest.mark.parametrize("name", NAMES)
def test_a_step_costs_what_its_table_says(name: str) -> None:
    """A word that ends with a kick asks once more at the start, and never again for what it knows."""
    push, table = Pushed(), SYMPLECTIC[name]
    found = ls.solve(ls.Newton(push), pericentre(), t=(0.0, 1.0), method=name, steps=5)
    assert push.calls == found.stats.nfe == 5 * table.nfe + (table.first == KICK)
    row = next(r for r in ls.list_solvers() if r.name == name)
    assert (row.order, row.nfe_per_step) == (str(table.order), str(table.nfe))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_backward_comes_back(name: str) -> None:
    there = ls.solve(ls.Newton(attraction), pericentre(3), t=(0.0, 6.0), method=name, steps=60).x_end
    back = ls.solve(ls.Newton(attraction), there, t=(6.0, 0.0), method=name, steps=60).x_end
    for one, other in zip(back, pericentre(3), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=2e-12)


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_symplectic(name: str) -> None:
    """M^T J M = J for the derivative M of a step, where J turns (x, v) into (v, -x)."""
    step, x = SYMPLECTIC[name].write(0.0, 0.3), torch.tensor([0.7, 0.1, 0.1, 1.2], dtype=F64)

    def moved(x: Tensor) -> Tensor:
        states, _ = advance([lambda t, x: attraction(t, x)], step, [x[:2], x[2:]], [])
        return torch.cat(states)

    M, one, none = torch.func.jacrev(moved)(x), torch.eye(2, dtype=F64), torch.zeros(2, 2, dtype=F64)
    J = torch.cat([torch.cat([none, one], 1), torch.cat([-one, none], 1)])
    assert torch.allclose(M.T @ J @ M, J, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_angular_momentum_stays(name: str) -> None:
    """Central kicks and drifts keep it, each alone, to round-off."""
    found = ls.solve(ls.Newton(attraction), pericentre(4), t=(0.0, 30.0), method=name, steps=200)
    assert torch.allclose(turning(found.x_end), turning(pericentre(4)), rtol=1e-13)


@pytest.mark.parametrize(
    ("method", "steps"),
    [("leapfrog", 60), ("blanes_moan_rkn_4", 20), ("blanes_moan_rkn_6", 15), ("kahan_li_8", 12), ("rk4", 60)],
)
def test_energy_does_not_drift(method: str, steps: int) -> None:
    """The largest error of 100 periods is met in the first 50 already; that of rk4 grows with each.

    benchmarks/drift.py does so for 10,000 periods, and for planets.
    """
    found = ls.solve(
        ls.Newton(attraction), pericentre(e=0.3), t=(0.0, 200 * math.pi), method=method, steps=100 * steps,
        save_every=1, grad=False,
    )  # fmt: skip
    early, late = (energy(found.x) - energy(pericentre(e=0.3))).abs()[1:, 0].view(2, -1).amax(1).tolist()
    assert (late > 1.9 * early) if method == "rk4" else (late < 1.5 * early)


def test_compensated_sums_lose_less_to_rounding() -> None:
    """Small steps of a harmonic oscillator, whose own energy a splitting keeps but for round-off.

    Leapfrog has v^2 + (1 - h^2/4) x^2 for x'' = -x: to round-off of each step, and compensated of none.
    """
    h, n = 1e-3, 8000
    start = torch.linspace(0.3, 1.1, 40, dtype=F64)[:, None]
    lost = []
    for compensated in (False, True):
        found = ls.solve(
            ls.Newton(lambda t, x: -x), (start, torch.zeros_like(start)), t=(0.0, h * n), method="leapfrog",
            steps=n, compensated=compensated,
        )  # fmt: skip
        x, v = found.x_end
        share = 1 - h * h / 4
        lost.append(float(((v**2 + share * x**2) / (share * start**2) - 1).square().mean().sqrt()))
    assert lost[1] < 5e-16
    assert lost[0] > 5 * lost[1]


@pytest.mark.parametrize("compensated", [False, True])
def test_compiled_steps_are_the_same(monkeypatch: pytest.MonkeyPatch, compensated: bool) -> None:
    """Of a force that depends on time; blocks of steps, and what is left of them."""
    how = {"t": (0.0, 1.0), "method": "leapfrog", "steps": 7, "compensated": compensated}
    x0 = pericentre(3)
    monkeypatch.setattr(turns, "FORCES", 2)
    compiled = ls.solve(ls.Newton(Pushed()), x0, compile=True, **how)
    plain = ls.solve(ls.Newton(Pushed()), x0, **how)
    assert torch.allclose(torch.cat(compiled.x_end, 1), torch.cat(plain.x_end, 1), rtol=1e-13, atol=1e-14)
    assert compiled.stats.nfe == plain.stats.nfe


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "options"), [("yoshida_4", {}), ("pefrl", {"compensated": True}), ("wisdom_holman", {})]
)
def test_a_run_is_reduced_and_goes_on_bit_for_bit(method: str, options: dict, tmp_path: Path) -> None:
    """Where it was interrupted; the energy on the way is that of the saved states."""
    system = ls.systems.outer_solar_system()
    energy = ls.Record(lambda t, x: system.invariants["energy"](x), every=10)
    how = {"t": (0.0, 30_000.0), "dt": 300.0, "method": method, "grad": False, "reduce": energy, **options}
    whole = ls.solve(system, system.x0, save_every=10, **how)
    assert torch.equal(whole.reduced[1], system.invariants["energy"](whole.x))

    def stop(n: int, t: float, x: Tensor) -> None:
        if n == 41:
            raise Interrupted

    book = {"checkpoint": tmp_path, "checkpoint_every": 0.0, "save_every": 10, **how}
    with pytest.raises(Interrupted):
        ls.solve(system, system.x0, callback=stop, **book)
    taken = list[int]()
    found = ls.solve(system, system.x0, callback=lambda n, t, x: taken.append(n), **book)
    assert taken == list(range(41, 100))
    assert torch.equal(found.x, whole.x)
    assert torch.equal(found.reduced[1], whole.reduced[1])
    assert found.stats.nfe == whole.stats.nfe


def test_a_run_to_infinity_says_where_and_with_which_step_not() -> None:
    spring, one = ls.Newton(lambda t, x: -x), torch.ones(1, 1, dtype=F64)
    with pytest.raises(ls.errors.Diverged, match=r"dt = 1\.25") as raised:
        ls.solve(spring, (one, 0 * one), t=(0, 5000), dt=2.5, method="leapfrog")  # stable below 2
    assert raised.value.dt == 1.25
    assert isinstance(raised.value.x, tuple)


def test_saved_times_need_not_be_equally_far() -> None:
    """Between any two the steps are equal; the result is that of the stretches run one by one.

    The force at a turn is asked once: it knows no step.
    """
    marks, problem, x = [0.0, 0.25, 0.9, 1.0], ls.Newton(attraction), pericentre(2)
    found = ls.solve(problem, x, t=(0.0, 1.0), method="yoshida_4", dt=0.1, save_at=marks)
    for k in range(3):
        x = ls.solve(problem, x, t=(marks[k], marks[k + 1]), method="yoshida_4", dt=0.1).x_end
        assert torch.equal(found.x[0][k + 1], x[0])
        assert torch.equal(found.x[1][k + 1], x[1])
    assert found.stats.nfe == 1 + 3 * (3 + 7 + 1)


def test_states_may_be_tensors_of_two_halves_and_callbacks_see_them() -> None:
    """(x, y, x', y') of `systems.kepler` is one; and a system's own methods take it as before."""
    problem, seen = ls.ODE(lambda t, x: x, acceleration=attraction), list[float]()
    x0 = torch.cat(pericentre(2), 1)
    found = ls.solve(
        problem, x0, t=(0.0, 1.0), method="pefrl", steps=10, callback=lambda n, t, x: seen.append(t + n)
    )
    assert torch.equal(found.x_end, torch.cat(
        ls.solve(ls.Newton(attraction), pericentre(2), t=(0.0, 1.0), method="pefrl", steps=10).x_end, 1
    ))  # fmt: skip
    np.testing.assert_allclose(seen, [n + (n + 1) / 10 for n in range(10)])


def test_gradients_go_through_the_steps() -> None:
    q, v = pericentre(1)
    torch.autograd.gradcheck(
        lambda q: ls.solve(ls.Newton(attraction), (q, v), t=(0.0, 1.0), method="yoshida_4", steps=5).x_end[0],
        (q.clone().requires_grad_(),),
    )


@pytest.mark.parametrize(
    ("problem", "how", "says"),
    [
        (ls.SecondOrder(lambda t, x, v: -x), {"dt": 0.1}, "ls.Newton"),
        (ls.Newton(attraction), {}, "give dt= or steps="),
        (ls.Newton(attraction), {"dt": 0.1, "order": 2}, "no option 'order'"),
        (ls.Newton(attraction), {"dt": 0.1, "compensated": 1}, "True or False"),
        (ls.Newton(attraction), {"dt": 0.1, "reduce": 1}, "a Record"),
        (ls.Newton(attraction), {"dt": 0.1, "grad": "reverse"}, "grad=True"),
        (ls.Newton(lambda t, x: x[:, :1]), {"dt": 0.1}, "t = 0 to 0.1: a tree unlike"),
    ],
)
def test_what_does_not_fit_is_refused(problem: ls.ODE, how: dict, says: str) -> None:
    with pytest.raises(ls.SolveError, match=says):
        ls.solve(problem, pericentre(), t=(0.0, 1.0), method="leapfrog", **how)


def test_odd_states_and_tables_that_do_not_fit_are_refused() -> None:
    odd = torch.ones(2, 3, dtype=F64)
    with pytest.raises(ls.ArgumentError, match="half"):
        ls.solve(
            ls.ODE(lambda t, x: x, acceleration=lambda t, x: x), odd, t=(0, 1), method="leapfrog", dt=0.1
        )
    with pytest.raises(ls.ArgumentError, match="add up"):
        Splitting(2, KICK, (0.5, 0.9, 0.5), "")
