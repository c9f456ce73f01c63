"""Which stepper takes the steps of a method: a table of methods for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import ArgumentError, unknown
from ..gradients.reversible import REVERSIBLE, Reversible
from ..methods import REGISTRY
from ..methods.collocation import COLLOCATION
from ..methods.embedded import PAIRS
from ..methods.esdirk import ESDIRK
from ..methods.exponential import EXPONENTIAL_PAIRS
from ..methods.exponential_rosenbrock import EXPONENTIAL_ROSENBROCK
from ..methods.extrapolation import BULIRSCH_STOER
from ..methods.multistep import ADAMS, BDFS
from ..methods.nystrom import IN_TURN, NYSTROM_PAIRS
from ..methods.rosenbrock import ROSENBROCK
from ..methods.second_order import HERMITE, RADAU
from .adams import Adams
from .bdf import BDF
from .diagonally import DiagonallyImplicit
from .exponentially import Exponential
from .extrapolated import Extrapolated
from .fully import FullyImplicit
from .gauss_radau import GaussRadau
from .hermite import HermiteStepper
from .linearly import LinearlyImplicit
from .nystrom import NystromStepper
from .semilinear import Semilinear
from .switching import AUTO, Switching
from .trial import Explicit, Stepper

KINDS: tuple[tuple[Mapping[str, Any], Callable[..., Stepper]], ...] = (
    (PAIRS, Explicit),
    (REVERSIBLE, Reversible),
    (ROSENBROCK, LinearlyImplicit),
    (EXPONENTIAL_PAIRS, Semilinear),
    (EXPONENTIAL_ROSENBROCK, Exponential),
    (ESDIRK, DiagonallyImplicit),
    (COLLOCATION, FullyImplicit),
    (ADAMS, Adams),
    (BDFS, BDF),
    (AUTO, Switching),
    (BULIRSCH_STOER, Extrapolated),
    (HERMITE, HermiteStepper),
    (RADAU, GaussRadau),
    (NYSTROM_PAIRS, NystromStepper),
)


def stepper(name: Any) -> Callable[..., Stepper]:
    """The stepper of a method; it takes what `trial.Stepper` does.

    Raises:
        ArgumentError: there is none, with the names there are.
    """
    names = [known for table, _ in KINDS for known in table]
    if not isinstance(name, str):
        raise ArgumentError(f"method = {name!r}: it is a name, one of {', '.join(names)}")
    for table, kind in KINDS:
        if name in table:
            return partial(kind, table[name])
    if name in REGISTRY or name in IN_TURN:
        raise ArgumentError(
            f"method {name!r} has no error estimate: give dt= or steps=, or a method that has one, such as "
            "tsit5; `ls.list_solvers()` has them all"
        )
    from .solvers import of_an_ode  # which lists what there is

    raise unknown("method", name, of_an_ode())
