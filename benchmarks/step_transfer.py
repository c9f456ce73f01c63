"""A step policy elsewhere than where it learned: other masses, distances, bodies, dimensions, methods.

    python benchmarks/step_transfer.py [PART ...]

Error: |E/E_0 - 1| at the end. Cost: evaluations of the force, of a system in the mean. Every rule's one
number, the policy's pace included, is set on training starts (64 of seed 7) to cost what the budget says;
then 100 held-out starts (seed 1000) are run once. Parts:

- train: the shipped policy's search and two of other seeds, `nbody.train` on starts of seed 7. What was
  shipped before and these are compared on 256 starts of seed 77; the best is shipped.
- systems: Hermite's method on other systems than three equal stars in a plane.
- methods: three equal stars by leapfrog with steps symmetric in time, by tsit5, by Gauss-Radau 15. The policy
  as it is, with its weights carried over to the method's order (`Policy.for_order`), and one trained there.
- oracle: how far from the best attainable: see `oracle`.

Results of each part are kept as soon as they are there, in results/step_transfer.json; a part that was
interrupted goes on.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import longstride as ls
from longstride.nbody import YEAR, Gravity, Policy, plummer_sphere, rollout, three_stars_at
from longstride.nbody.rollouts import SCHEMES
from longstride.nbody.rules import Rule, aarseth, collision, free_fall, learned
from longstride.nbody.training import Training, score
from longstride.nbody.training import train as trained
from longstride.noise import Noise

RESULTS, F64 = Path(__file__).parent / "results", torch.float64
FILE = RESULTS / "step_transfer.json"
SHIPPED = Path(ls.nbody.__file__).parent / "policies" / "three_stars"
TRAINING, SELECTION, HELD_OUT = 7, 77, 1000  # seeds
MOST = 300_000
BEFORE = (  # of the policy that was trained by hand, with another script
    0.0541988784832893, -0.230181034688638, 0.338338472863691, -0.129709445437486, 0.395341980187257,
    -0.274490916884801, 0.27843619392967, 0.014470697536987, 0.0323632768740836,
)  # fmt: skip
Pair = tuple[Tensor, Tensor]  # error and evaluations [C, B]


@dataclass(frozen=True)
class Case:
    """Bodies, their starts of a seed, and for how long they go."""

    bodies: Gravity
    starts: Callable[[int, int], Pair]
    end: float = 30 * YEAR

    def x0(self, n: int, seed: int) -> Tensor:
        return self.bodies.start(*self.starts(n, seed))


def scaled(length: float) -> Callable[[int, int], Pair]:
    def starts(n: int, seed: int) -> Pair:
        q, v = three_stars_at(n, seed)
        return length * q, v

    return starts


def in_space(n: int, seed: int) -> Pair:
    """Heights uniform in [-5, 5] au, and third components of velocities in [-5, 5] km/s."""
    q, v = three_stars_at(n, seed)
    z = Noise(seed, range(n), (2, 3, 1)).uniform(1) - 0.5
    return torch.cat([q, 10 * z[:, 0]], 2), torch.cat([v, 10 / ls.nbody.KM_S * z[:, 1]], 2)


def clusters(n: int, seed: int) -> Pair:
    """Five bodies of Plummer's model."""
    q, v = zip(*(plummer_sphere(5, seed * 1000 + k) for k in range(n)), strict=True)
    return torch.stack(q), torch.stack(v)


def stars(*masses: float) -> Gravity:
    return Gravity(torch.tensor(masses, dtype=F64))


THREE = Case(stars(1, 1, 1), three_stars_at)
SYSTEMS = {
    "three equal stars, as in training": THREE,
    "masses 1 : 3 : 10": Case(stars(3 / 14, 9 / 14, 30 / 14), three_stars_at),
    "masses x 1000": Case(stars(1e3, 1e3, 1e3), three_stars_at, 30 * YEAR / math.sqrt(1e3)),
    "distances x 3": Case(stars(1, 1, 1), scaled(3.0), 30 * YEAR * 3**1.5),
    "in three dimensions": Case(stars(1, 1, 1), in_space),
    "five bodies of a Plummer sphere": Case(stars(*5 * [0.2]), clusters, 60.0),
}


@dataclass(frozen=True)
class Rival:
    """run(x0 [B, ...], values [C]) gives errors and evaluations [C, B].

    first: a value to begin with.  power: of the evaluations, that the value falls with.
    """

    run: Callable[[Tensor, Tensor], Pair]
    first: float
    power: float = 1.0


def by_rule(
    case: Case, rule: Rule, scheme: str, first: float, rest: Tensor | None = None, power: float = 1.0
) -> Rival:
    """Steps of a rule whose first number is the value, and whose others are `rest`."""

    def run(x0: Tensor, values: Tensor) -> Pair:
        columns = (
            values[None] if rest is None else torch.cat([values[None], rest[:, None].expand(-1, len(values))])
        )
        many, x = columns.repeat_interleave(len(x0), 1), x0.repeat(len(values), 1, 1, 1)
        found = rollout(case.bodies, x, case.end, rule, many, MOST, True, scheme)
        shape = len(values), len(x0)
        return found.error.view(shape), SCHEMES[scheme].cost * found.steps.view(shape).double()

    return Rival(run, first, power)


def by_policy(case: Case, policy: Policy, scheme: str, first: float) -> Rival:
    policy = policy.even() if SCHEMES[scheme].symmetric else policy
    return by_rule(case, learned, scheme, first, policy.numbers)


def by_solve(case: Case, method: str, first: float, power: float, policy: Policy | None = None) -> Rival:
    """Runs of `ls.solve` at a tolerance, or with the steps of a policy at a pace."""

    def one(x0: Tensor, value: float) -> Pair:
        how: dict[str, Any] = {"rtol": value} if policy is None else {"controller": policy.at(value)}
        if policy is None and method == "tsit5":
            how["atol"] = value
            how["controller"] = ls.control.PI()
        found = ls.solve(
            case.bodies.problem(), x0, t=(0.0, case.end), method=method, grad=False, max_steps=MOST, **how
        )
        assert found.stats.nfe_each is not None
        error = (case.bodies.energy(found.x_end) / case.bodies.energy(x0) - 1).abs()
        return error, found.stats.nfe_each.double()

    def run(x0: Tensor, values: Tensor) -> Pair:
        errors, costs = zip(*(one(x0, v) for v in values.tolist()), strict=True)
        return torch.stack(errors), torch.stack(costs)

    return Rival(run, first, power)


def at_budgets(
    case: Case, rival: Rival, budgets: list[float], n: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Values [C] that cost as much as budgets on training starts; errors and evaluations [C, B] of others."""
    x0, wanted = case.x0(64, TRAINING), torch.tensor(budgets, dtype=F64)
    values = torch.tensor([rival.first], dtype=F64)
    for _ in range(2):
        values = values * (rival.run(x0, values)[1].mean(1) / wanted) ** rival.power
    error, cost = rival.run(case.x0(n, seed), values)
    return values, error.nan_to_num(10.0), cost


def rows_of(values: Tensor, error: Tensor, cost: Tensor, budgets: list[float]) -> list[dict[str, Any]]:
    quantiles = error.quantile(torch.tensor([0.5, 0.9, 1.0], dtype=F64), dim=1).T.tolist()
    return [
        {"budget": b, "value": v, "evaluations": float(c.mean()), "median": q[0], "p90": q[1], "worst": q[2]}
        for b, v, c, q in zip(budgets, values.tolist(), cost, quantiles, strict=True)
    ]


def held_out(case: Case, rival: Rival, budgets: list[float], n: int = 100) -> list[dict[str, Any]]:
    return rows_of(*at_budgets(case, rival, budgets, n, HELD_OUT), budgets)


def systems(known: Known) -> None:
    policy, budgets = ls.control.load(SHIPPED), [2500.0, 5000.0, 10_000.0]
    for name, case in SYSTEMS.items():
        rivals = {
            "best constant": by_rule(case, collision, "hermite", 0.03),
            "Aarseth": by_rule(case, aarseth, "hermite", 3e-3, power=2.0),
            "policy": by_policy(case, policy, "hermite", 0.06),
        }
        for rule, rival in rivals.items():
            known.row(f"{name} | {rule}", partial(held_out, case, rival, budgets))


def search(scheme: str, seed: int) -> Policy:
    """The policy of a training; its journal lies beside the results."""
    of = {
        "hermite": Training(seed=seed),
        "leapfrog": Training(10_000.0, "leapfrog", 15, seed=seed, pace=0.02),
        "tsit5": Training(5000.0, "tsit5", 15, seed=seed, pace=0.1),
    }[scheme]
    path = RESULTS / f"step_transfer_{scheme}_{seed}.json"

    def tell(n: int, found: float, mean: list[float]) -> None:
        print(scheme, seed, n, f"{found:.3f}", [round(m, 3) for m in mean], flush=True)

    return trained(THREE.bodies, THREE.x0(2048, TRAINING), THREE.end, of, path, tell)


def selected(policy: Policy) -> list[dict[str, Any]]:
    """On selection starts."""
    rival = by_policy(THREE, policy, "hermite", 0.06)
    values, error, cost = at_budgets(THREE, rival, [5000.0], 256, SELECTION)
    row = rows_of(values, error, cost, [5000.0])[0]
    return [row | {"score": float(score(error.clamp(1e-15, 10.0))[0]), "numbers": policy.numbers.tolist()}]


def train(known: Known) -> None:
    """The best on selection starts is shipped."""
    policies = {"shipped before": Policy(torch.tensor(BEFORE, dtype=F64))}
    policies |= {f"seed {seed}": search("hermite", seed) for seed in (1, 2)}
    for name, policy in policies.items():
        known.row(f"selection | {name}", partial(selected, policy))
    best = min(policies, key=lambda name: known.found[f"selection | {name}"][0]["score"])
    if best != "shipped before":
        policy, pace = policies[best], known.found[f"selection | {best}"][0]["value"]
        Policy(policy.numbers, float(f"{pace:.3g}"), policy.about).save(SHIPPED)


def methods(known: Known) -> None:
    policy = ls.control.load(SHIPPED)
    cases: dict[str, tuple[list[float], dict[str, Rival]]] = {}
    for scheme, first, budgets in (
        ("leapfrog", 0.03, [5000.0, 10_000.0, 20_000.0]),
        ("tsit5", 0.2, [2500.0, 5000.0, 10_000.0]),
    ):
        order = SCHEMES[scheme].order
        rivals = {
            "best constant": by_rule(THREE, collision, scheme, first),
            "classical": by_rule(THREE, free_fall, scheme, first)
            if scheme == "leapfrog"
            else by_solve(THREE, scheme, 1e-6, 5.0),
            "policy": by_policy(THREE, policy, scheme, 2 * first),
            "policy, for its order": by_policy(THREE, policy.for_order(order), scheme, 2 * first),
            "trained there": by_policy(THREE, search(scheme, 1), scheme, 2 * first),
        }
        cases[scheme] = budgets, rivals
    radau = "gauss_radau_15"
    cases[radau] = (
        [7000.0, 10_000.0, 14_000.0],
        {
            "classical": by_solve(THREE, radau, 1e-7, 7.0),
            "best constant": by_solve(THREE, radau, 0.3, 1.0, Policy(torch.zeros(9, dtype=F64))),
            "policy": by_solve(THREE, radau, 0.6, 1.0, policy),
            "policy, for its order": by_solve(THREE, radau, 0.6, 1.0, policy.for_order(15)),
        },
    )
    for method, (budgets, rivals) in cases.items():
        for rule, rival in rivals.items():
            known.row(f"{method} | {rule}", partial(held_out, THREE, rival, budgets))


def oracle(known: Known) -> None:
    """What choosing the parameter anew each tenth of a year could give, on the held-out starts.

    Along a trajectory of small steps, each of its 300 decisions is run with each of ten logarithmic values,
    of a rule's number. A state after a tenth of a year hardly depends on the value, so that errors
    |dE| of decisions add up, whatever the others are; at a price lambda of an evaluation, the value
    of each decision is the one whose |dE| + lambda cost is least: equal marginal error per evaluation, the
    optimum that dynamic programming would find for a sum. For four prices the values are then
    run in turn from the start. Values of `collision` are the paper's, those of `learned` paces.
    """
    policy = ls.control.load(SHIPPED)
    for name, rule, paces, rest in (
        ("paper's decisions", collision, torch.logspace(-4, -1, 10, dtype=F64), None),
        ("policy's pace", learned, torch.logspace(-2.8, -0.7, 10, dtype=F64), policy.numbers),
    ):
        known.row(f"oracle | {name}", partial(oracle_rows, rule, paces, rest))


def oracle_rows(rule: Rule, values: Tensor, rest: Tensor | None, n: int = 100) -> list[dict[str, Any]]:
    bodies, x = THREE.bodies, THREE.x0(n, HELD_OUT)
    start, tenth, at = bodies.energy(x), YEAR / 10, [x]

    def gone(x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The state and the evaluations after a tenth."""
        many = (
            numbers[None]
            if rest is None
            else torch.cat([numbers[None], rest[:, None].expand(-1, len(numbers))])
        )
        found = rollout(bodies, x, tenth, rule, many, 20_000, True)
        return found.x, found.steps.double()

    for _ in range(300):
        at.append(gone(at[-1], values[3].expand(n))[0])
    begun = torch.cat(at[:-1])
    lost, cost = list[Tensor](), list[Tensor]()
    for value in values:
        x1, steps = gone(begun, value.expand(len(begun)))
        change = (bodies.energy(x1) - bodies.energy(begun)).view(300, n) / start
        lost.append(change.abs().nan_to_num(10.0))
        cost.append(steps.view(300, n))
        print(float(value), float(lost[-1].sum(0).median()), float(cost[-1].sum(0).mean()), flush=True)
    error, price, rows = torch.stack(lost), torch.stack(cost), []
    for budget in (1250.0, 2500.0, 5000.0, 10_000.0):
        low, high = -16.0, 0.0  # log10 lambda, by bisection
        for _ in range(40):
            middle = (low + high) / 2
            chosen = (error + 10**middle * price).argmin(0)
            spent = float(price.gather(0, chosen[None]).sum((0, 1)).mean())
            low, high = (middle, high) if spent > budget else (low, middle)
        x, spent_each = THREE.x0(n, HELD_OUT), torch.zeros(n, dtype=F64)
        for choice in chosen:
            x, steps = gone(x, values[choice])
            spent_each += steps
        real = (bodies.energy(x) / start - 1).abs().nan_to_num(10.0)
        told = error.gather(0, chosen[None]).sum((0, 1))
        row = rows_of(torch.tensor([10**high]), real[None], spent_each[None], [budget])[0]
        rows.append(row | {"sum of |dE|, p90": float(told.quantile(0.9)), "its evaluations": spent})
        print(rows[-1], flush=True)
    return rows


class Known:
    """Rows by name, written down as soon as they are there."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text()) if FILE.exists() else {}

    def row(self, name: str, make: Callable[[], list[dict[str, Any]]]) -> None:
        if name not in self.found:
            self.found[name] = make()
            print(name, self.found[name], flush=True)
            FILE.write_text(json.dumps(self.found, indent=1) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    known = Known()
    for part in sys.argv[1:] or ["train", "systems", "methods", "oracle"]:
        globals()[part](known)


if __name__ == "__main__":
    main()
