"""What `ls.solve` steps with beside the methods of equal steps: a row of each, for `ls.list_solvers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ArgumentError, unknown
from ..gradients.reversible import REVERSIBLE
from ..methods import REGISTRY, get
from ..methods.base import Table
from ..methods.collocation import COLLOCATION
from ..methods.embedded import PAIRS
from ..methods.esdirk import ESDIRK
from ..methods.exponential import EXPONENTIAL_PAIRS
from ..methods.exponential_rosenbrock import EXPONENTIAL_ROSENBROCK
from ..methods.extrapolation import BULIRSCH_STOER, LEAST, MOST, gragg
from ..methods.multistep import ADAMS, BDFS
from ..methods.nystrom import NYSTROM, NYSTROM_PAIRS
from ..methods.rosenbrock import ROSENBROCK
from ..methods.sde import SCHEMES
from ..methods.second_order import HERMITE, RADAU
from ..methods.symplectic import SYMPLECTIC, WISDOM_HOLMAN
from .switching import AUTO

SECOND = "x'' = a(t, x)"
SWITCHED = {"auto": ("5", "6 or 9"), "adams_bdf": ("1-12; 1-5", "2 or 1 stage")}  # orders, evaluations


@dataclass(frozen=True)
class Solver:
    """What `list_solvers` says of a method.

    order: "1-12" where the run chooses it; the strong order of an SDE's method, over the kinds of noise.
    nfe_per_step: evaluations. "2 stages" cost one for each iteration, two or three each. Of f, g for an SDE.
    """

    name: str
    kind: str
    order: str
    nfe_per_step: str
    reference: str


def list_solvers() -> Table[Solver]:
    """Every method that chooses its steps, and those of x'' = a(t, x) and of SDEs.

    With name, kind, order, evaluations and reference of each.
    """
    return Table(_solvers())


def _solvers() -> Iterator[Solver]:
    for name, pair in PAIRS.items():
        yield Solver(name, "explicit pair", str(pair.order), str(pair.evaluations - 1), pair.reference)
    for name, rosenbrock in ROSENBROCK.items():
        asked = sum(rosenbrock.asks(i) for i in range(len(rosenbrock.b))) + 2  # both ends
        yield Solver(name, "Rosenbrock", str(rosenbrock.order), str(asked), rosenbrock.reference)
    for name, split in EXPONENTIAL_PAIRS.items():
        table = split.tableau
        yield Solver(name, "exponential pair", str(table.order), str(len(table.c)), split.reference)
    for name, exponential in EXPONENTIAL_ROSENBROCK.items():
        asked = len(exponential.c) + 2
        yield Solver(name, "exponential", str(exponential.order), str(asked), exponential.reference)
    for name, esdirk in ESDIRK.items():
        kind = "ESDIRK, IMEX" if esdirk.explicit else "ESDIRK"
        yield Solver(name, kind, str(esdirk.order), f"{len(esdirk.a) - 1} stages", esdirk.reference)
    for name, radau in COLLOCATION.items():
        yield Solver(name, "Radau IIA", str(radau.order), f"{len(radau.c)} stages", radau.reference)
    for name, constants in ADAMS.items():
        yield Solver(name, "multistep", f"1-{len(constants)}", "2", "Shampine and Gordon 1975")
    for name, constants in BDFS.items():
        yield Solver(name, "multistep", f"1-{len(constants)}", "1 stage", "Jackson and Sacks-Davis 1980")
    for name in AUTO:
        yield Solver(name, "switching", *SWITCHED[name], "Petzold 1983")
    for name, pair in REVERSIBLE.items():
        both = str(2 * (pair.evaluations - 1))
        yield Solver(name, "reversible pair", str(pair.order), both, "McCallum and Foster 2024")
    for name, reference in BULIRSCH_STOER.items():
        stages = " to ".join(str(gragg(k).evaluations - 1) for k in (LEAST, MOST))
        yield Solver(name, "extrapolation", f"{2 * LEAST}-{2 * MOST}", stages, reference)
    for name, hermite in HERMITE.items():
        yield Solver(name, SECOND, str(hermite.order), "1, with its derivative", hermite.reference)
    for name, nodes in RADAU.items():
        yield Solver(name, SECOND, str(nodes.order), "7 a round", nodes.reference)
    for name, nystrom in (NYSTROM_PAIRS | NYSTROM).items():
        kind = f"Nystrom{' pair' if nystrom.other else ''}, {SECOND}"
        yield Solver(name, kind, str(nystrom.order), str(nystrom.nfe), nystrom.reference)
    for name, splitting in SYMPLECTIC.items():
        yield Solver(
            name, f"symplectic, {SECOND}", str(splitting.order), str(splitting.nfe), splitting.reference
        )
    yield Solver(WISDOM_HOLMAN, "symplectic, planets", "2", "1", "Wisdom and Holman 1991")
    for name, scheme in SCHEMES.items():
        orders = "-".join(dict.fromkeys(f"{p:g}" for p in sorted(scheme.orders.values())))
        senses = " or ".join(s.capitalize() for s in scheme.interpretations)
        kind = "SDE, additive noise" if set(scheme.orders) == {"additive"} else f"SDE, {senses}"
        yield Solver(name, kind, orders, "{}, {}".format(*scheme.evaluations), scheme.reference)


def chooses(method: str) -> None:
    """Refuse a method that does not take the equal steps of an ODE, where it is asked for these.

    Raises:
        ArgumentError: it chooses its steps, is for an SDE, or there is none.
    """
    for solver in _solvers():
        if solver.name == method and solver.kind.startswith("SDE"):
            raise ArgumentError(f"method {method!r} is for an ls.SDE, and this is an ODE")
        if solver.name == method:
            raise ArgumentError(f"method {method!r} chooses its steps: leave out dt= and steps=")
    raise unknown("method", method, of_an_ode())


def of_an_ode() -> list[str]:
    """The names of all methods that `ls.solve` has for an ODE."""
    equal = [name for name in REGISTRY if not get(name).diffusion]
    return equal + [solver.name for solver in _solvers() if not solver.kind.startswith("SDE")]
