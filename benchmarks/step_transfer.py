"""A step policy elsewhere than where it learned: other masses, distances, bodies, dimensions, methods.

    python benchmarks/step_transfer.py [PART ...]

Error: |E/E_0 - 1| at the end. Cost: evaluations of the force, their geometric mean over systems, since one
that is lost takes steps up to its limit; the plain mean is beside it. Every rule's one number, the policy's
pace included, is set on training starts (128 of seed 7) to cost what the budget says; then 100 held-out
starts (seed 1000) are run once. Parts:

- agreement: the rollouts that are compared are those of `nbody.rollout` in C (rollouts.c, compiled by cc
  in a second), since a hundred systems for thirty years then take a tenth of a second; here both are run.
- train: a search by `nbody.train` on starts of seed 7, which goes on where it stopped. The policy that is
  shipped and this one are compared on 256 starts of seed 77.
- leapfrog: a policy trained with leapfrog.
- systems: Hermite's method on other systems than three equal stars in a plane.
- methods: three equal stars by leapfrog with steps symmetric in time, by tsit5, by Gauss-Radau 15. The policy
  as it is, and with its weights carried over to the method's order (`Policy.for_order`). "classical" is a
  constant share of the time to fall for leapfrog, PI control for tsit5, a constant epsilon for Gauss-Radau;
  the last two for five years alone, since `ls.solve` takes them.
- oracle: how far from the best attainable: see `oracle`.

Results are kept as soon as they are there, in results/step_transfer.json; a part that was interrupted goes
on.
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
from rollouts import F64, MOST, rolled

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "step_transfer.json"
SHIPPED = Path(ls.nbody.__file__).parent / "policies" / "three_stars"
TRAINING, SELECTION, HELD_OUT = 7, 77, 1000  # seeds
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
FIVE_YEARS = Case(stars(1, 1, 1), three_stars_at, 5 * YEAR)
SYSTEMS = {
    "three equal stars, as in training": THREE,
    "masses 1 : 3 : 10": Case(stars(3 / 14, 9 / 14, 30 / 14), three_stars_at),
    "masses x 1000": Case(stars(1e3, 1e3, 1e3), three_stars_at, 30 * YEAR / math.sqrt(1e3)),
    "in three dimensions": Case(stars(1, 1, 1), in_space),
    "five bodies of a Plummer sphere": Case(stars(*5 * [0.2]), clusters, 10.0),
}


@dataclass(frozen=True)
class Rival:
    """run(x0 [B, ...], values [C]) gives errors and evaluations [C, B].

    first: a value to begin with.  power: of the evaluations, that the value falls with.
    """

    run: Callable[[Tensor, Tensor], Pair]
    first: float
    power: float = 1.0


def agreement(known: Known) -> None:
    """Six starts for three years: the same steps as `nbody.rollout`, the same error to what rounding does."""
    policy, x0 = ls.control.load(SHIPPED).at(0.04), THREE.x0(6, HELD_OUT)
    for scheme, rule, numbers in (
        *(
            ("hermite", rule, torch.tensor([n], dtype=F64))
            for rule, n in ((collision, 0.04), (aarseth, 0.005))
        ),
        ("hermite", learned, policy.column()),
        ("leapfrog", learned, policy.even().column()),
        ("leapfrog", free_fall, torch.tensor([0.03], dtype=F64)),
        ("tsit5", learned, policy.at(0.2).column()),
    ):

        def both(scheme: str = scheme, rule: Rule = rule, numbers: Tensor = numbers) -> list[dict[str, Any]]:
            one = rollout(THREE.bodies, x0, 3 * YEAR, rule, numbers, scheme=scheme)
            two = rolled(THREE.bodies, x0, 3 * YEAR, rule, numbers, scheme=scheme)
            apart = (one.error / two.error).log10().abs().max()
            return [
                {
                    "steps": int(one.steps.sum()), "steps in C": int(two.steps.sum()),
                    "most steps apart": int((one.steps - two.steps).abs().max()),
                    "places apart, au": float((one.x - two.x)[:, 0].abs().max()), 
                    "log10 of errors apart": float(apart),
                }
            ]  # fmt: skip

        known.row(f"agreement | {scheme} {rule.__name__}", both)


def by_rule(
    case: Case, rule: Rule, scheme: str, first: float, rest: Tensor | None = None, power: float = 1.0
) -> Rival:
    """Steps of a rule whose first number is the value, and whose others are `rest`."""

    def run(x0: Tensor, values: Tensor) -> Pair:
        many, x = columns(values, rest).repeat_interleave(len(x0), 1), x0.repeat(len(values), 1, 1, 1)
        found = rolled(case.bodies, x, case.end, rule, many, scheme=scheme)
        shape = len(values), len(x0)
        return found.error.view(shape), SCHEMES[scheme].cost * found.steps.view(shape).double()

    return Rival(run, first, power)


def columns(values: Tensor, rest: Tensor | None) -> Tensor:
    """numbers [P, C]: values [C], and below each of them the rest."""
    return values[None] if rest is None else torch.cat([values[None], rest[:, None].expand(-1, len(values))])


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
    """Values [C] that cost what budgets say on training starts; errors and evaluations [C, B] of others."""
    x0, wanted = case.x0(128, TRAINING), torch.tensor(budgets, dtype=F64)
    values = torch.tensor([rival.first], dtype=F64)
    for _ in range(2):
        values = values * (rival.run(x0, values)[1].log().mean(1).exp() / wanted) ** rival.power
    error, cost = rival.run(case.x0(n, seed), values)
    return values, error.nan_to_num(10.0), cost


def rows_of(values: Tensor, error: Tensor, cost: Tensor, budgets: list[float]) -> list[dict[str, Any]]:
    quantiles = error.quantile(torch.tensor([0.5, 0.9, 1.0], dtype=F64), dim=1).T.tolist()
    return [
        {
            "budget": b, "value": v, "evaluations": float(c.log().mean().exp()), "mean": float(c.mean()),
            "median": q[0], "p90": q[1], "worst": q[2],
        }
        for b, v, c, q in zip(budgets, values.tolist(), cost, quantiles, strict=True)
    ]  # fmt: skip


def held_out(case: Case, rival: Rival, budgets: list[float], n: int = 100) -> list[dict[str, Any]]:
    return rows_of(*at_budgets(case, rival, budgets, n, HELD_OUT), budgets)


def systems(known: Known) -> None:
    policy, budgets = ls.control.load(SHIPPED), [2500.0, 5000.0]
    for name, case in SYSTEMS.items():
        rivals = {
            "best constant": by_rule(case, collision, "hermite", 0.03),
            "Aarseth": by_rule(case, aarseth, "hermite", 3e-3, power=2.0),
            "policy": by_policy(case, policy, "hermite", 0.06),
        }
        for rule, rival in rivals.items():
            known.row(f"{name} | {rule}", partial(held_out, case, rival, budgets))


def selected(policy: Policy) -> list[dict[str, Any]]:
    """On selection starts."""
    rival = by_policy(THREE, policy, "hermite", 0.06)
    values, error, cost = at_budgets(THREE, rival, [5000.0], 256, SELECTION)
    row = rows_of(values, error, cost, [5000.0])[0]
    return [row | {"score": float(score(error.clamp(1e-15, 10.0))[0]), "numbers": policy.numbers.tolist()}]


def search(of: Training) -> Policy:
    """A training, whose journal lies beside the results."""

    def tell(generation: int, found: float, mean: list[float]) -> None:
        print(of.scheme, generation, f"{found:.3f}", [round(m, 3) for m in mean], flush=True)

    path = RESULTS / f"step_transfer_{of.scheme}.json"
    return trained(THREE.bodies, THREE.x0(2048, TRAINING), THREE.end, of, path, tell, rolled)


def train(known: Known) -> None:
    """Searches; compares with what was shipped before; ships what is better on selection starts."""
    found = search(Training())
    known.row("selection | shipped before", partial(selected, Policy(torch.tensor(BEFORE, dtype=F64))))
    known.row("selection | nbody.train", partial(selected, found))
    before, after = (known.found[f"selection | {name}"][0] for name in ("shipped before", "nbody.train"))
    if after["score"] < before["score"]:
        Policy(found.numbers, float(f"{after['value']:.3g}"), found.about).save(SHIPPED)


def leapfrog(known: Known) -> None:
    """What a policy gains that was trained with it."""
    policy = search(Training(5000.0, "leapfrog", 20, pace=0.02, begin=9 * (0.0,)))
    rival = by_policy(THREE, policy, "leapfrog", 0.06)
    known.row("leapfrog | trained there", partial(held_out, THREE, rival, [5000.0, 10_000.0]))


def methods(known: Known) -> None:
    policy, none, radau = ls.control.load(SHIPPED), Policy(torch.zeros(9, dtype=F64)), "gauss_radau_15"

    def rules(case: Case, scheme: str, first: float, classical: Rival | None) -> dict[str, Rival]:
        other = policy.for_order(SCHEMES[scheme].order)
        classics = {} if classical is None else {"classical": classical}
        return {
            "policy": by_policy(case, policy, scheme, 2 * first),
            "best constant": by_rule(case, collision, scheme, first),
            "policy, for its order": by_policy(case, other, scheme, 2 * first),
        } | classics

    for name, case, budgets, rivals in (
        (
            "leapfrog", THREE, [5000.0, 10_000.0],
            rules(THREE, "leapfrog", 0.03, by_rule(THREE, free_fall, "leapfrog", 0.03)),
        ),
        ("tsit5", THREE, [2500.0, 5000.0], rules(THREE, "tsit5", 0.2, None)),
        (
            radau, FIVE_YEARS, [1500.0],
            {
                "policy": by_solve(FIVE_YEARS, radau, 1.2, 1.0, policy),
                "policy, for its order": by_solve(FIVE_YEARS, radau, 0.6, 1.0, policy.for_order(15)),
                "best constant": by_solve(FIVE_YEARS, radau, 0.6, 1.0, none),
                "classical": by_solve(FIVE_YEARS, radau, 1e-6, 7.0),
            },
        ),
        (
            "tsit5, five years", FIVE_YEARS, [500.0, 1000.0],
            rules(FIVE_YEARS, "tsit5", 0.2, by_solve(FIVE_YEARS, "tsit5", 1e-5, 5.0)),
        ),
    ):  # fmt: skip
        for rule, rival in rivals.items():
            known.row(f"{name} | {rule}", partial(held_out, case, rival, budgets))


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
        found = rolled(bodies, x, tenth, rule, columns(numbers, rest))
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
    for budget in (2500.0, 5000.0):
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
    """Rows by name, written down as soon as they are there; other parts may run beside."""

    @property
    def found(self) -> dict[str, list[dict[str, Any]]]:
        return json.loads(FILE.read_text()) if FILE.exists() else {}

    def row(self, name: str, make: Callable[[], list[dict[str, Any]]]) -> None:
        if name not in self.found:
            rows = make()
            print(name, rows, flush=True)
            FILE.write_text(json.dumps({**self.found, name: rows}, indent=1) + "\n")


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    lines, keys = ["# A step policy elsewhere", "", *(__doc__ or "").split("\n")[4:]], list[str]()
    for name, rows in sorted(found.items(), key=lambda item: ORDER.index(item[0].split(" | ")[0])):
        for row in rows:
            shown = {k: v for k, v in row.items() if k != "numbers"}
            if list(shown) != keys:
                keys = list(shown)
                lines += ["", "| of | rule | " + " | ".join(keys) + " |", "|" + " --- |" * (len(keys) + 2)]
            said = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in shown.values())
            lines.append(f"| {name} | " + " | ".join(said) + " |")
    return "\n".join(lines) + "\n"


ORDER = [
    "agreement",
    "selection",
    *SYSTEMS,
    "leapfrog",
    "tsit5",
    "tsit5, five years",
    "gauss_radau_15",
    "oracle",
]


def picture(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The 90th percentile of the error against the cost, a panel for each system and method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [name for name in ORDER if any(key.startswith(f"{name} | ") for key in found)]
    panels = [name for name in panels if name not in ("agreement", "selection", "oracle")]
    figure, axes = plt.subplots(3, 3, figsize=(10.5, 8), layout="constrained")
    marks = dict(
        zip(
            ("best constant", "Aarseth", "classical", "policy", "policy, for its order", "trained there"),
            "o^^sDv",
            strict=True,
        )
    )
    for axis, name in zip(axes.flat, panels, strict=False):
        for (rule, mark), colour in zip(marks.items(), ("C0", "C1", "C1", "C2", "C3", "C4"), strict=True):
            rows = found.get(f"{name} | {rule}", [])
            axis.semilogy(
                *([r[key] for r in rows] for key in ("evaluations", "p90")), color=colour, marker=mark, ms=4,
                lw=1, label=rule,
            )  # fmt: skip
        axis.set_title(name, fontsize=9)
        axis.locator_params(axis="x", nbins=3)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=6, fontsize=8)
    figure.supxlabel("force evaluations, geometric mean of 100 held-out systems", fontsize=9)
    figure.supylabel("90th percentile of |E/E_0 - 1|", fontsize=9)
    figure.savefig(path, dpi=90)


def report(known: Known) -> None:
    """The page and the picture."""
    FILE.with_suffix(".md").write_text(page(known.found))
    picture(known.found, FILE.with_suffix(".png"))


def main() -> None:
    torch.set_num_threads(1)
    known = Known()
    for part in sys.argv[1:] or ["agreement", "train", "systems", "methods", "leapfrog", "oracle"]:
        globals()[part](known)
    report(known)


if __name__ == "__main__":
    main()
